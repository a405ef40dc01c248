//! Saves and restores a machine by QEMU's migration, with a file in the place of another host. guest/README.md has every
//! message, as it was measured.

use std::time::Duration;

use pcoder_sdk::host::Clock;
use pcoder_sdk::{Error, Result, code, text};
use serde_json::json;

use crate::qmp::Qmp;

const LOOK: Duration = Duration::from_millis(10);
/// How often one looks whether it was given up.
const CANCELLED: usize = 200;

/// More than any disk takes. Without it QEMU spares a network that is not there.
const BANDWIDTH: u64 = 1 << 40;

/// Saves a machine that stands still. Memory that is in a file which others share is not written a second time.
pub(crate) fn save(qmp: &mut Qmp<'_>, clock: &dyn Clock, path: &str, longest: Duration) -> Result<()> {
    leave_out_shared(qmp)?;
    qmp.run_with("migrate-set-parameters", json!({ "max-bandwidth": BANDWIDTH }))?;
    qmp.run_with("migrate", json!({ "uri": format!("file:{path}") }))?;
    wait(qmp, clock, longest)
}

/// Gives up what is being saved, if anything is: a machine does not go on before that has ended.
pub(crate) fn cancel(qmp: &mut Qmp<'_>) -> Result<()> {
    // Where nothing is being saved, that may be refused.
    drop(qmp.run("migrate_cancel"));
    for _ in 0..CANCELLED {
        if qmp.run("query-migrate")?["status"] != "cancelling" {
            break;
        }
        qmp.wait(LOOK);
    }
    Ok(())
}

/// Restores a machine that was started for it, and lets it go on.
pub(crate) fn restore(qmp: &mut Qmp<'_>, clock: &dyn Clock, path: &str, longest: Duration) -> Result<()> {
    leave_out_shared(qmp)?;
    qmp.run_with("migrate-incoming", json!({ "uri": format!("file:{path}") }))?;
    wait(qmp, clock, longest)?;
    qmp.run("cont").map(drop)
}

/// What is saved has another form with this than without, so both sides say it, whatever memory there is.
fn leave_out_shared(qmp: &mut Qmp<'_>) -> Result<()> {
    let capability = json!({ "capability": "x-ignore-shared", "state": true });
    qmp.run_with("migrate-set-capabilities", json!({ "capabilities": [capability] })).map(drop)
}

fn wait(qmp: &mut Qmp<'_>, clock: &dyn Clock, longest: Duration) -> Result<()> {
    let started = clock.monotonic();
    loop {
        let state = qmp.run("query-migrate")?;
        match state["status"].as_str().unwrap_or_default() {
            "completed" => return Ok(()),
            "failed" | "cancelled" => {
                let why = state["error-desc"].as_str().unwrap_or("QEMU does not say why");
                let message = format!("the memory was not moved: {}", text::tail(why.as_bytes(), 1, 300));
                return Err(Error::new(code::PROCESS, qmp.operation(), message));
            }
            _ => {}
        }
        if clock.monotonic().saturating_sub(started) > longest {
            let message = format!("the memory was not moved within {} s", longest.as_secs());
            return Err(Error::new(code::TIMEOUT, qmp.operation(), message));
        }
        qmp.wait(LOOK);
    }
}
