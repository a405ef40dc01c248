//! Faults on demand.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::operation::Operation;

/// What goes wrong, where, and how often. As JSON:
/// `{"on": {"operation": "instance.exec"}, "what": {"status": {"status": 429, "retry_after": 2}}, "times": {"n": 3}}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which requests it meets. The first fault that fits a request is the one that happens.
    #[serde(default)]
    pub on: Match,
    /// What happens.
    pub what: FaultKind,
    /// How often; once if it is not said.
    #[serde(default)]
    pub times: Times,
}

/// Which requests; what is not said fits all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// The name of an operation ([`Operation::name`]).
    pub operation: Option<String>,
    /// The method.
    pub method: Option<String>,
    /// A regular expression that is found in the path.
    pub path: Option<String>,
}

/// How often a fault happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Times {
    /// On one request.
    #[default]
    Once,
    /// On every request.
    Always,
    /// On so many requests.
    N(u32),
}

/// What goes wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// An answer of this status. Its body is `{"detail": …}`, for 422 with FastAPI's list.
    Status {
        /// The status.
        status: u16,
        /// `Retry-After` in seconds.
        #[serde(default)]
        retry_after: Option<u64>,
        /// `Retry-After` as a date, so many seconds from now.
        #[serde(default)]
        retry_after_date: Option<u64>,
        /// Another body, of no stated type.
        #[serde(default)]
        body: Option<String>,
        /// The operation happens before it.
        #[serde(default)]
        after: bool,
    },
    /// The operation happens so much later.
    Slow {
        /// The delay.
        millis: u64,
    },
    /// The connection closes without an answer, and nothing happened.
    DropBefore,
    /// The connection closes without an answer, and the operation happened. A stream closes after its first event.
    DropAfter,
    /// The connection closes in the middle of the answer's body.
    DropMidway,
    /// The first half of the answer's JSON, as a whole answer.
    Truncated,
    /// The answer is of another instance: of one that there is, or of one that there is not.
    OtherInstance,
    /// Every status in the answer is this word.
    UnknownStatus {
        /// The word.
        status: String,
    },
    /// These fields are missing wherever they are in the answer.
    Missing {
        /// Their names.
        fields: Vec<String>,
    },
    /// These fields are null wherever they are in the answer.
    Null {
        /// Their names.
        fields: Vec<String>,
    },
    /// A web page instead of the answer, with the answer's status and type; the operation happened.
    NotJson,
}

impl FaultKind {
    /// An answer of this status instead of the operation.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Status { status, retry_after: None, retry_after_date: None, body: None, after: false }
    }

    /// The operation happens so much later.
    #[must_use]
    pub fn slow(delay: Duration) -> Self {
        Self::Slow { millis: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX) }
    }
}

/// A fault that fits nothing.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFault {
    /// There is no such operation.
    #[error("there is no operation `{0}`")]
    Operation(String),
    /// The path's pattern is none.
    #[error("the path is no regular expression")]
    Path(#[from] regex::Error),
    /// The status is none.
    #[error("{0} is no status of HTTP")]
    Status(u16),
}

#[derive(Debug)]
struct Armed {
    fault: Fault,
    path: Option<Regex>,
    /// None: without end.
    left: Option<u32>,
}

/// The faults that are to happen: clones are the same ones.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Vec<Armed>>>);

impl Faults {
    fn all(&self) -> MutexGuard<'_, Vec<Armed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one, after those that are there.
    ///
    /// # Errors
    /// It names an operation that there is not, or its path or status is none.
    pub fn push(&self, fault: Fault) -> Result<(), InvalidFault> {
        if let Some(name) = &fault.on.operation
            && !Operation::ALL.iter().any(|operation| operation.name() == name)
        {
            return Err(InvalidFault::Operation(name.clone()));
        }
        if let FaultKind::Status { status, .. } = fault.what
            && !(200..=599).contains(&status)
        {
            return Err(InvalidFault::Status(status));
        }
        let path = fault.on.path.as_deref().map(Regex::new).transpose()?;
        let left = match fault.times {
            Times::Once => Some(1),
            Times::Always => None,
            Times::N(count) => Some(count),
        };
        self.all().push(Armed { fault, path, left });
        Ok(())
    }

    /// Removes all.
    pub fn clear(&self) {
        self.all().clear();
    }

    /// Those that have not happened as often as they are to.
    #[must_use]
    pub fn left(&self) -> Vec<Fault> {
        self.all().iter().map(|armed| armed.fault.clone()).collect()
    }

    /// What happens to a request, if anything.
    pub(crate) fn take(&self, operation: Option<Operation>, method: &str, path: &str) -> Option<FaultKind> {
        let mut all = self.all();
        let place = all.iter().position(|armed| {
            let on = &armed.fault.on;
            on.operation.as_deref().is_none_or(|name| operation.is_some_and(|operation| operation.name() == name))
                && on.method.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
                && armed.path.as_ref().is_none_or(|pattern| pattern.is_match(path))
                && armed.left != Some(0)
        })?;
        let armed = all.get_mut(place)?;
        let what = armed.fault.what.clone();
        if let Some(left) = &mut armed.left {
            *left -= 1;
            if *left == 0 {
                all.remove(place);
            }
        }
        Some(what)
    }
}
