//! The engine that plugins run in.

use super::Job;
use super::record::Finding;
use crate::Pcoder;

const CATEGORY: &str = "runtime";

pub(super) fn jobs(_pcoder: &Pcoder) -> Vec<Job> {
    // What a policy asks for is known before the engine starts; one that cannot be read is a finding of its own.
    vec![Job::look(CATEGORY, "runtime.engine", |pcoder| match pcoder.runtime() {
        _ if pcoder.policies().is_err() => Finding::ok(super::plugins::NO_POLICY),
        Ok(_) => Finding::ok("the WebAssembly engine runs"),
        Err(error) => Finding::error(
            &error,
            "an engine that runs",
            "no plugin can run, so no tool can",
            "free some memory; if it stays, report it, with what `pcoder -vv doctor` prints",
        ),
    })]
}
