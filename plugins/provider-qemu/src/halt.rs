//! A machine that QEMU has stopped by itself: what its guest writes could not be written on this host.
//!
//! QEMU does so where the host has no room (`werror=enospc`, which is what it does unless it is told otherwise), so that the
//! guest sees no error and goes on where it was. Nobody hears of it but who asks.

use std::time::Duration;

use pcoder_sdk::{Error, Result, code};

use crate::qmp::Qmp;
use crate::store::Store;

/// QEMU's word for it, a `RunState`: <https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html>.
const HALTED: &str = "io-error";

/// How long one that goes on is looked at, and how often: what could not be written is tried again first, and stops it again
/// where there is still no room.
const AGAIN: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(100);

/// How long those wait who only describe it: where QEMU itself was stopped, nothing is known of its guest.
const GLANCE: Duration = Duration::from_secs(1);

/// How long those wait for their turn who need the answer: longer than whoever glances has his.
const TURN: Duration = Duration::from_secs(3);

/// Why one that does not answer stands still, if it does.
pub(crate) fn why(store: Store<'_>, id: &str) -> Option<Error> {
    let mut qmp = Qmp::open(store.host, store.operation, id, TURN).ok()?;
    is_halted(&mut qmp).ok()?.then(|| error(store, id))
}

/// The same for who only describes it.
pub(crate) fn seen(store: Store<'_>, id: &str) -> Option<Error> {
    let qmp = Qmp::open(store.host, store.operation, id, Duration::ZERO).ok()?;
    is_halted(&mut qmp.answering_within(GLANCE)).ok()?.then(|| error(store, id))
}

/// Lets one that stands still for this go on.
///
/// # Errors
/// `io` when there is still no room; `conflict` where somebody else talks with it for long.
pub(crate) fn go_on(store: Store<'_>, id: &str) -> Result<()> {
    let mut qmp = Qmp::open(store.host, store.operation, id, TURN)?;
    if !is_halted(&mut qmp)? {
        return Ok(());
    }
    qmp.run("cont")?;
    let clock = store.host.clock();
    let started = clock.monotonic();
    while clock.monotonic().saturating_sub(started) < AGAIN {
        if is_halted(&mut qmp)? {
            return Err(error(store, id));
        }
        clock.sleep(LOOK);
    }
    Ok(())
}

fn is_halted(qmp: &mut Qmp<'_>) -> Result<bool> {
    Ok(qmp.run("query-status")?["status"] == HALTED)
}

fn error(store: Store<'_>, id: &str) -> Error {
    let message =
        "the machine stands still, because what it writes cannot be written here: this computer's disk is full";
    Error::new(code::IO, store.operation, message)
        .subject(id)
        .hint(format!("free some space, then `pcoder instance resume {id} --provider qemu`"))
}

#[cfg(test)]
mod tests {
    use crate::grants::Service;
    use serde_json::json;

    #[test]
    fn every_qemu_may_be_asked_and_let_go_on() {
        for program in ["qemu-system-x86_64", "qemu-system-aarch64"] {
            for command in ["query-status", "cont"] {
                assert!(Service::of(program).allows(&json!({ "execute": command })), "{program}: {command}");
            }
        }
    }
}
