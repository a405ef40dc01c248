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
/// How long a machine may stand still for what changed since it was written, in milliseconds.
const DOWNTIME: u64 = 1000;

const SHARED: &str = "x-ignore-shared";
const SWITCHOVER: &str = "pause-before-switchover";

/// Saves a machine that stands still. Memory that is in a file which others share is not written a second time.
pub(crate) fn save(qmp: &mut Qmp<'_>, clock: &dyn Clock, path: &str, longest: Duration) -> Result<()> {
    begin(qmp, path, &[SHARED])?;
    wait(qmp, clock, "completed", longest)
}

/// Saves the memory of a machine that runs, until so little is left that it stands still from now on.
pub(crate) fn approach(qmp: &mut Qmp<'_>, clock: &dyn Clock, path: &str, longest: Duration) -> Result<()> {
    begin(qmp, path, &[SHARED, SWITCHOVER])?;
    wait(qmp, clock, "pre-switchover", longest)
}

/// Saves the rest.
pub(crate) fn finish(qmp: &mut Qmp<'_>, clock: &dyn Clock, longest: Duration) -> Result<()> {
    qmp.run_with("migrate-continue", json!({ "state": "pre-switchover" }))?;
    wait(qmp, clock, "completed", longest)
}

fn begin(qmp: &mut Qmp<'_>, path: &str, capabilities: &[&str]) -> Result<()> {
    can(qmp, capabilities)?;
    let parameters = json!({ "max-bandwidth": BANDWIDTH, "downtime-limit": DOWNTIME });
    qmp.run_with("migrate-set-parameters", parameters)?;
    qmp.run_with("migrate", json!({ "uri": format!("file:{path}") })).map(drop)
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
    can(qmp, &[SHARED])?;
    qmp.run_with("migrate-incoming", json!({ "uri": format!("file:{path}") }))?;
    wait(qmp, clock, "completed", longest)?;
    qmp.run("cont").map(drop)
}

/// What is saved has another form with [`SHARED`] than without, so both sides say it, whatever memory there is.
fn can(qmp: &mut Qmp<'_>, capabilities: &[&str]) -> Result<()> {
    let all: Vec<_> = capabilities.iter().map(|it| json!({ "capability": it, "state": true })).collect();
    qmp.run_with("migrate-set-capabilities", json!({ "capabilities": all })).map(drop)
}

fn wait(qmp: &mut Qmp<'_>, clock: &dyn Clock, until: &str, longest: Duration) -> Result<()> {
    let started = clock.monotonic();
    loop {
        let state = qmp.run("query-migrate")?;
        match state["status"].as_str().unwrap_or_default() {
            status if status == until => return Ok(()),
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
