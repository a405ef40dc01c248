//! An installer of credentials that does one thing with the call's instance or with secrets: the name of the profile
//! says what, arguments behind U+001F.
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

use pcoder_sdk::host::CredentialsHost;
use pcoder_sdk::{CommandSpec, Credentials, Error, Profile, Result, WriteOptions};

/// The installer.
#[derive(Default)]
pub struct Hostile;

impl Credentials for Hostile {
    fn profiles(&self) -> Vec<Profile> {
        Vec::new()
    }

    fn install(&self, host: CredentialsHost<'_>, profile: &str) -> Result<()> {
        let args: Vec<&str> = profile.split('\u{1f}').collect();
        let arg = |index: usize| args.get(index).copied().unwrap_or_default();
        let (target, options) = (host.target(), WriteOptions::plain);
        match arg(0) {
            "target.home-dir" => target.home_dir().map(drop),
            "target.run" => target.run(&CommandSpec::shell(arg(1)), &[]).map(drop),
            "target.read-file" => target.read_file(arg(1)).map(drop),
            "target.write-file" => target.write_file(arg(1), arg(2).as_bytes(), options()),
            "target.write-file-atomic" => target.write_file_atomic(arg(1), arg(2).as_bytes(), options()),
            "target.file-exists" => target.file_exists(arg(1)).map(drop),
            "target.create-directory" => target.create_directory(arg(1), None),
            "target.delete-file" => target.delete_file(arg(1)),
            "target.delete-directory" => target.delete_directory(arg(1)),
            "secrets.get" => host.secrets().get(arg(1)).map(drop),
            // Writes a secret where the second argument says.
            "leak" => {
                let placeholder = host.secrets().get(arg(1))?;
                target.write_file(arg(2), placeholder.as_bytes(), options())
            }
            // Writes a secret, reads it back, and puts what came back into an error.
            "leak back" => {
                let placeholder = host.secrets().get(arg(1))?;
                target.write_file(arg(2), placeholder.as_bytes(), options())?;
                let back = target.read_file(arg(2))?;
                let back = String::from_utf8_lossy(&back).into_owned();
                Err(Error::new("conflict", "hostile", back.clone()).subject(back.clone()).hint(back))
            }
            other => Err(Error::invalid("hostile", format!("no such step: {other}"))),
        }
    }
}

pcoder_sdk::export!(credentials: Hostile);
