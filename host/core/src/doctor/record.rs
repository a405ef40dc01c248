//! What a check is, for people and for scripts.

use std::time::Duration;

use pcoder_runtime::Error;
use serde::Serialize;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, and something will be in the way sooner or later.
    Warning,
    /// Something does not work.
    Fail,
}

/// One check. `docs/doctor.schema.json` has its form in JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// A stable name, as `engine.claude`.
    pub id: String,
    /// What it belongs to.
    pub category: &'static str,
    /// How it came out.
    pub status: Status,
    /// What was found.
    pub measured: String,
    /// What should have been found, where that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What that means for whoever uses pcoder. Every warning and every failure says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meaning: Option<String>,
    /// The command or act that mends it. Every warning and every failure has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Whether `--fix` would do something about it.
    pub fixable: bool,
    /// What `--fix` did. The rest of the record is what was found after that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Whether a tool is logged in, where the check found that out.
    #[serde(skip)]
    pub(super) logged_in: Option<bool>,
}

/// All checks.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// pcoder's version.
    pub version: &'static str,
    /// The worst of the checks.
    pub status: Status,
    /// The checks, by group and then by name.
    pub checks: Vec<Check>,
}

/// What a check found: a [`Check`] without its name and its time.
#[derive(Debug)]
pub(super) struct Finding {
    status: Status,
    measured: String,
    expected: Option<String>,
    meaning: Option<String>,
    remedy: Option<String>,
    fixable: bool,
    logged_in: Option<bool>,
}

impl Finding {
    pub(super) fn ok(measured: impl Into<String>) -> Self {
        Self {
            status: Status::Ok,
            measured: measured.into(),
            expected: None,
            meaning: None,
            remedy: None,
            fixable: false,
            logged_in: None,
        }
    }

    /// It works, but: what was found, what was expected, what that means, what mends it.
    pub(super) fn warning(
        measured: impl Into<String>,
        expected: impl Into<String>,
        meaning: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            status: Status::Warning,
            expected: Some(expected.into()),
            meaning: Some(meaning.into()),
            remedy: Some(remedy.into()),
            ..Self::ok(measured)
        }
    }

    /// It does not work: what was found, what was expected, what that means, what mends it.
    pub(super) fn fail(
        measured: impl Into<String>,
        expected: impl Into<String>,
        meaning: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { status: Status::Fail, ..Self::warning(measured, expected, meaning, remedy) }
    }

    /// A failure whose error says what mends it; `remedy` is for one that does not.
    pub(super) fn error(
        error: &Error,
        expected: impl Into<String>,
        meaning: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = error.hint.clone().unwrap_or_else(|| remedy.into());
        Self::fail(said(error), expected, meaning, remedy)
    }

    pub(super) fn meaning(mut self, meaning: impl Into<String>) -> Self {
        self.meaning = Some(meaning.into());
        self
    }

    /// `--fix` does something about it.
    pub(super) fn fixable(mut self) -> Self {
        self.fixable = true;
        self
    }

    pub(super) fn logged_in(mut self, logged_in: bool) -> Self {
        self.logged_in = Some(logged_in);
        self
    }

    pub(super) fn into_check(self, id: String, category: &'static str, took: Duration) -> Check {
        Check {
            id,
            category,
            status: self.status,
            measured: self.measured,
            expected: self.expected,
            meaning: self.meaning,
            remedy: self.remedy,
            fixable: self.fixable,
            fixed: None,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            logged_in: self.logged_in,
        }
    }
}

/// An error as what was found: what it is about, and what is wrong with it.
pub(super) fn said(error: &Error) -> String {
    match &error.subject {
        Some(subject) => format!("{subject}: {}", error.message),
        None => error.message.clone(),
    }
}
