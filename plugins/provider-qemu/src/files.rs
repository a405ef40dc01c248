//! Files of an instance: their contents over SFTP, and what is around them by commands.
//!
//! The host fills in the secrets of a user's file where it goes over SFTP. What a command is fed may be sent back by it, so
//! nothing is filled in there.

use pcoder_sdk::exec_files::ExecFiles;
use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::{CommandSpec, Output, Result, WriteOptions, code};

use crate::exec::{capture, reached};

type Files<'a> = ExecFiles<Exec<'a>, Put<'a>>;
type Exec<'a> = Box<dyn Fn(&CommandSpec, &[u8]) -> Result<Output> + 'a>;
type Put<'a> = Box<dyn Fn(&str, &[u8]) -> Result<()> + 'a>;

fn files<'a>(host: ProviderHost<'a>, id: &'a str) -> Files<'a> {
    let exec: Exec<'a> = Box::new(move |spec, input| capture(host, id, spec, input));
    let put: Put<'a> = Box::new(move |path, content| {
        reached(host, id, |endpoint| host.ssh().write_file(endpoint, path, content, WriteOptions::plain()))
    });
    ExecFiles::new(exec).with_put(put)
}

pub(crate) fn read(host: ProviderHost<'_>, id: &str, path: &str) -> Result<Vec<u8>> {
    let read = reached(host, id, |endpoint| host.ssh().read_file(endpoint, path));
    match read {
        // Of a folder SFTP says no more than that it could not; a command says why.
        Err(error) if error.code == code::IO => files(host, id).read(path),
        result => result,
    }
}

pub(crate) fn write(host: ProviderHost<'_>, id: &str, path: &str, content: &[u8], options: WriteOptions) -> Result<()> {
    files(host, id).write(path, content, options)
}

pub(crate) fn write_atomic(
    host: ProviderHost<'_>,
    id: &str,
    path: &str,
    content: &[u8],
    options: WriteOptions,
) -> Result<()> {
    files(host, id).write_atomic(path, content, options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{record, world};
    use crate::record::Wish;
    use crate::store::Store;
    use pcoder_sdk::testing::Call;

    const ID: &str = "vm-0000000a";

    /// A secret of the user's is filled in by the host in what goes over SFTP, and in no command.
    #[test]
    fn a_content_goes_over_sftp_and_not_through_a_command() {
        let host = world();
        let mut record = record(ID);
        record.wish = Wish::Run;
        Store::new(host.provider(), "o").create(&record).unwrap();
        host.answer("ssh.capture", Ok(Output::new(0, "/home/pcoder/.x.AbC\n", "")));
        host.answer("ssh.capture", Ok(Output::new(0, "", "")));
        let content = b"pcoder-secret-0123456789abcdef0123456789abcdef";
        let options = WriteOptions { mode: Some(0o600), ..WriteOptions::plain() };
        write_atomic(host.provider(), ID, "~/x", content, options).unwrap();
        let calls = host.calls();
        let sent =
            |it: &&Call| it.operation.starts_with("ssh.") && it.content.as_ref().is_some_and(|it| !it.is_empty());
        let sent: Vec<_> = calls.iter().filter(sent).map(|it| (it.operation, it.content.as_deref())).collect();
        assert_eq!(sent, [("ssh.write-file", Some(&content[..]))]);
        assert_eq!(calls.iter().filter(|it| it.operation == "ssh.capture").count(), 2);
    }

    #[test]
    fn what_sftp_cannot_read_is_said_by_a_command() {
        let host = world();
        let mut record = record(ID);
        record.wish = Wish::Run;
        Store::new(host.provider(), "o").create(&record).unwrap();
        host.fail(
            "ssh.read-file",
            pcoder_sdk::Error::new(code::IO, "ssh.read-file", "the other side could not do that"),
        );
        host.answer("ssh.capture", Ok(Output::new(45, "", "")));
        let error = read(host.provider(), ID, "~/folder").unwrap_err();
        assert_eq!((error.code.as_str(), error.message.as_str()), (code::INVALID, "this is not a file"));
    }
}
