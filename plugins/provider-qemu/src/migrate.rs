//! Saves and restores a machine by QEMU's migration, with a file in the place of another host. guest/README.md has every
//! message, as it was measured.

use std::time::Duration;

use pcoder_sdk::host::Clock;
use pcoder_sdk::{Error, Result, code, text};
use serde_json::json;

use crate::qmp::Qmp;

const LOOK: Duration = Duration::from_millis(10);

/// Saves a machine, which stands still from now on. What is in a file that is shared is not written a second time.
pub(crate) fn save(qmp: &mut Qmp<'_>, clock: &dyn Clock, path: &str, longest: Duration) -> Result<()> {
    qmp.run("stop")?;
    leave_out_shared(qmp)?;
    qmp.run_with("migrate", json!({ "uri": format!("file:{path}") }))?;
    wait(qmp, clock, longest)
}

/// Restores a machine that was started for it, and lets it go on.
pub(crate) fn restore(qmp: &mut Qmp<'_>, clock: &dyn Clock, path: &str, longest: Duration) -> Result<()> {
    leave_out_shared(qmp)?;
    qmp.run_with("migrate-incoming", json!({ "uri": format!("file:{path}") }))?;
    wait(qmp, clock, longest)?;
    qmp.run("cont").map(drop)
}

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
