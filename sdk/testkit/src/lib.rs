//! What every provider has to do, as a suite that runs against the real component with the real host around it.
//!
//! ```no_run
//! # async fn run(pcoder: &pcoder_core::Pcoder) {
//! use pcoder_testkit::{Subject, conformance};
//!
//! let report = conformance(&Subject::new(pcoder, "box")).await;
//! assert!(report.passed(), "{report}");
//! # }
//! ```
//!
//! A provider is judged by what it says of itself: a case that needs a feature is left out where `info` does not have it,
//! and the report says so. What has no feature in it is for all: commands with both outputs and exit codes, files whole and
//! byte for byte, errors by their codes, an end that can be said twice.
#![forbid(unsafe_code)]

mod cases;
mod report;
mod subject;

pub use report::{Outcome, Report};
pub use subject::Subject;

/// Runs every case, one after the other, on one instance that is booted for it and ended afterwards.
pub async fn conformance(subject: &Subject<'_>) -> Report {
    cases::all(subject).await
}
