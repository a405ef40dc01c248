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

/// How long one that goes on is given to be stopped again. What could not be written is written first.
const AGAIN: Duration = Duration::from_millis(300);

/// Why one that does not answer stands still, if it does.
pub(crate) fn why(store: Store<'_>, id: &str) -> Option<Error> {
    let mut qmp = Qmp::open(store.host, store.operation, id, Duration::ZERO).ok()?;
    is_halted(&mut qmp).ok()?.then(|| error(store, id))
}

/// Lets one that stands still for this go on.
///
/// # Errors
/// `io` when there is still no room.
pub(crate) fn go_on(store: Store<'_>, id: &str, patience: Duration) -> Result<()> {
    let mut qmp = Qmp::open(store.host, store.operation, id, patience)?;
    if !is_halted(&mut qmp)? {
        return Ok(());
    }
    qmp.run("cont")?;
    store.host.clock().sleep(AGAIN);
    if is_halted(&mut qmp)? { Err(error(store, id)) } else { Ok(()) }
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
