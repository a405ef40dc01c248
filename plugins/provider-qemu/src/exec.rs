//! Running commands, over SSH.

use std::time::Duration;

use pcoder_sdk::host::{ProviderHost, Stdio};
use pcoder_sdk::retry::Policy;
use pcoder_sdk::{CommandSpec, Endpoint, Error, ExitStatus, Output, Result, code};

use crate::copy::go_on;
use crate::halt;
use crate::record::{Record, is_alive};
use crate::store::Store;

/// The user that commands run as, and its home.
pub(crate) const USER: &str = "pcoder";
pub(crate) const HOME: &str = "/home/pcoder";

/// The key that may log in: the host makes it and keeps it.
pub(crate) const KEY: &str = "MACHINE_KEY";

/// A guest takes a few logins at once and no more, and one that was just booted is slow.
const TRIES: Policy = Policy { attempts: 6, first: Duration::from_millis(200), longest: Duration::from_secs(5) };

/// How long all tries may take of one that lets in nobody and refuses nobody: each waits for a login's time.
const SILENCE: Duration = Duration::from_secs(45);

/// Where commands of an instance run.
pub(crate) fn endpoint(host: ProviderHost<'_>, operation: &str, record: &Record) -> Result<Endpoint> {
    record.endpoint(operation, host.secrets().get(KEY)?)
}

pub(crate) fn run(host: ProviderHost<'_>, id: &str, spec: &CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus> {
    reached(host, id, |endpoint| host.ssh().exec(endpoint, spec, stdio))
}

pub(crate) fn capture(host: ProviderHost<'_>, id: &str, spec: &CommandSpec, input: &[u8]) -> Result<Output> {
    reached(host, id, |endpoint| host.ssh().capture(endpoint, spec, input))
}

/// Does something over SSH. What could not even begin is tried again.
pub(crate) fn reached<T>(host: ProviderHost<'_>, id: &str, act: impl Fn(&Endpoint) -> Result<T>) -> Result<T> {
    let store = Store::new(host, "provider.exec");
    let mut record = store.read(id)?;
    // While somebody copies it, it runs, or will in a moment.
    if record.paused
        && let Ok(goes_on) = go_on(store, id, Duration::ZERO)
    {
        record = goes_on;
    }
    let endpoint = endpoint(host, store.operation, &record)?;
    let started = host.clock().monotonic();
    let tried = TRIES.run(host.clock(), host.random(), |_| match act(&endpoint) {
        // Whether it began is not known, so it is not tried again.
        Err(error) if !has_not_begun(&error) => Ok(Err(told(store, id, error))),
        // While nothing runs, nobody answers.
        Err(error) if !is_alive(store.service(id)?.as_ref()) => {
            let gone = record.not_running(store.operation);
            Ok(Err(Error { message: format!("{} ({})", gone.message, error.message), ..gone }))
        }
        Err(error) => match why_silent(store, id, &error) {
            Some(why) => Ok(Err(why)),
            None if host.clock().monotonic().saturating_sub(started) >= SILENCE => Ok(Err(silent(store, id, error))),
            None => Err(error),
        },
        Ok(done) => Ok(Ok(done)),
    });
    tried.unwrap_or_else(|error| Err(if error.is_transient() { silent(store, id, error) } else { error }))
}

/// An error of a machine that runs and lets in nobody, with what it has to say itself.
fn silent(store: Store<'_>, id: &str, error: Error) -> Error {
    let words = crate::console::last_words(store, id);
    let words = words.map(|it| format!(", and its console ends with: {it}")).unwrap_or_default();
    Error { message: format!("the machine runs, and nobody can log in: {}{words}", error.message), ..error }.hint(format!(
        "`pcoder instance stop {id} --provider qemu`, then `pcoder instance resume {id} --provider qemu`, starts it anew"
    ))
}

/// What says more of an error than it does: why the machine went silent.
pub(crate) fn told(store: Store<'_>, id: &str, error: Error) -> Error {
    why_silent(store, id, &error).unwrap_or(error)
}

/// Why nobody answered, where that may be what an error says.
fn why_silent(store: Store<'_>, id: &str, error: &Error) -> Option<Error> {
    let is_silence = matches!(error.code.as_str(), code::UNAVAILABLE | code::TIMEOUT | code::NETWORK);
    is_silence.then(|| halt::why(store, id)).flatten()
}

/// Whether nothing was run: nobody answered, or nobody let it in.
fn has_not_begun(error: &Error) -> bool {
    error.code != code::DENIED && matches!(error.operation.as_str(), "ssh.connect" | "net.connect")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{record, world};
    use crate::record::Wish;
    use pcoder_sdk::ServiceSpec;
    use pcoder_sdk::host::Services as _;
    use pcoder_sdk::testing::{FakeHost, FakeStdio};

    const ID: &str = "vm-0000000a";

    fn running(alive: bool) -> FakeHost {
        let host = world();
        let mut record = record(ID);
        record.wish = Wish::Run;
        Store::new(host.provider(), "o").create(&record).unwrap();
        if alive {
            let spec =
                ServiceSpec { program: "qemu-system-x86_64".to_owned(), args: Vec::new(), folder: ".".to_owned() };
            host.start(ID, &spec).unwrap();
        }
        host
    }

    fn refused() -> Error {
        Error::new(code::NETWORK, "ssh.connect", "connection refused")
    }

    #[test]
    fn a_command_runs_over_ssh() {
        let host = running(true);
        host.answer("ssh.exec", Ok(Output::new(3, "out", "err")));
        let stdio = FakeStdio::new("");
        let status = run(host.provider(), ID, &CommandSpec::argv("ls", ["-l"]), stdio.handle());
        assert_eq!((status, stdio.written()), (Ok(ExitStatus::Exited(3)), b"out".to_vec()));
        // Nobody asks whether the machine runs while it answers.
        assert!(!host.log_of_calls().iter().any(|it| it.starts_with("service.status")));
    }

    #[test]
    fn only_what_did_not_begin_is_tried_again() {
        let host = running(true);
        host.fail("ssh.capture", refused());
        host.fail("ssh.capture", refused());
        let spec = CommandSpec::argv("true", [""; 0]);
        assert!(capture(host.provider(), ID, &spec, b"").is_ok());
        let before = host.calls().len();
        host.fail("ssh.capture", Error::new(code::NETWORK, "ssh.exec", "it broke off"));
        assert!(capture(host.provider(), ID, &spec, b"").is_err());
        let tries = host.calls().split_off(before).iter().filter(|it| it.operation == "ssh.capture").count();
        assert_eq!(tries, 1);
        for _ in 0..9 {
            host.fail("ssh.capture", refused());
        }
        let error = capture(host.provider(), ID, &spec, b"").unwrap_err();
        assert_eq!(error.attempt, Some(6));
        assert!(error.message.contains("nobody can log in: connection refused"), "{}", error.message);
    }

    #[test]
    fn one_that_takes_a_logins_time_to_say_nothing_is_not_waited_for_six_times() {
        let host = running(true);
        host.put_on_host("state", "console", b"Out of memory: Killed process 1 (dropbear)\n");
        let logins = std::cell::Cell::new(0);
        let error = reached(host.provider(), ID, |_| -> Result<()> {
            logins.set(logins.get() + 1);
            host.provider().clock().sleep(Duration::from_secs(30));
            Err(Error::new(code::TIMEOUT, "ssh.connect", "no answer within 30 s"))
        });
        let error = error.unwrap_err();
        assert_eq!((logins.get(), error.code.as_str()), (2, code::TIMEOUT));
        assert!(error.message.contains("Killed process 1 (dropbear)"), "{}", error.message);
        assert!(error.hint.is_some_and(|it| it.contains("resume vm-0000000a")));
    }

    #[test]
    fn a_machine_that_went_is_told_so() {
        let host = running(false);
        host.fail("ssh.capture", refused());
        let error = capture(host.provider(), ID, &CommandSpec::argv("true", [""; 0]), b"").unwrap_err();
        assert_eq!(error.code, code::CONFLICT);
        assert_eq!(error.hint.as_deref(), Some("`pcoder instance resume vm-0000000a --provider qemu`"));
    }

    #[test]
    fn a_machine_that_stands_still_is_told_so_and_not_asked_again() {
        for operation in ["ssh.connect", "ssh.exec"] {
            let host = running(true);
            host.put_on_host("state", "full", b"");
            host.fail("ssh.capture", Error::new(code::TIMEOUT, operation, "no answer in time"));
            let error = capture(host.provider(), ID, &CommandSpec::argv("true", [""; 0]), b"").unwrap_err();
            assert_eq!(error.code, code::IO, "{error:?}");
            assert!(error.message.contains("disk is full"), "{}", error.message);
            assert_eq!(
                error.hint.as_deref(),
                Some("free some space, then `pcoder instance resume vm-0000000a --provider qemu`")
            );
        }
        // Other errors say enough, and it may stand still for a while.
        let host = running(true);
        host.put_on_host("state", "full", b"");
        host.fail("ssh.capture", Error::new(code::DENIED, "ssh.exec", "no grant"));
        let error = capture(host.provider(), ID, &CommandSpec::argv("true", [""; 0]), b"").unwrap_err();
        assert_eq!(error.code, code::DENIED);
    }

    #[test]
    fn what_does_not_run_is_not_reached() {
        let host = running(true);
        let store = Store::new(host.provider(), "o");
        for wish in [Wish::Halt, Wish::New] {
            let mut record = store.read(ID).unwrap();
            record.wish = wish;
            store.write(&record).unwrap();
            let error = capture(host.provider(), ID, &CommandSpec::argv("true", [""; 0]), b"").unwrap_err();
            assert_eq!(error.code, code::CONFLICT);
        }
        for id in ["", "../x", "vm-0000000b"] {
            let error = capture(host.provider(), id, &CommandSpec::argv("true", [""; 0]), b"").unwrap_err();
            assert_eq!(error.code, code::NOT_FOUND, "{id}");
        }
        assert!(!host.log_of_calls().iter().any(|it| it.starts_with("ssh.capture")));
    }
}
