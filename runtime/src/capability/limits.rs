//! What one call may use up. Every limit has a default and a ceiling that no request passes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{Error, code};
use crate::manifest::LimitsRequest;

/// The limits of one plugin's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory, all memories of the component together.
    pub memory: usize,
    /// Elements of all tables together.
    pub table_elements: usize,
    /// The whole call, host waits included. Commands that people use (`exec`) are not bounded by it.
    pub wall: Duration,
    /// Time that the guest's own code computes.
    pub cpu: Duration,
    /// Bytes that the host holds or moves for the guest: files, captured output, requests and answers.
    pub output: u64,
    /// Handles open at once.
    pub handles: usize,
    /// Log lines in one call; further ones are counted and dropped.
    pub log_lines: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            table_elements: 65_536,
            wall: Duration::from_secs(300),
            cpu: Duration::from_secs(10),
            output: 256 << 20,
            handles: 256,
            log_lines: 1000,
        }
    }
}

impl Limits {
    /// The most that a request can get.
    pub fn ceiling() -> Self {
        Self {
            memory: 512 << 20,
            table_elements: 262_144,
            wall: Duration::from_secs(3600),
            cpu: Duration::from_secs(120),
            output: 4 << 30,
            handles: 4096,
            log_lines: 100_000,
        }
    }

    /// The defaults, changed as asked, under the ceiling.
    pub fn from_request(request: &LimitsRequest) -> Self {
        let (default, ceiling) = (Self::default(), Self::ceiling());
        let mebibytes = |asked: Option<u64>| asked.map(|it| it.saturating_mul(1 << 20));
        let seconds = |asked: Option<u64>| asked.map(Duration::from_secs);
        Self {
            memory: mebibytes(request.memory_mib)
                .map_or(default.memory, |it| usize::try_from(it).unwrap_or(usize::MAX))
                .min(ceiling.memory),
            table_elements: default.table_elements,
            wall: seconds(request.wall_seconds).unwrap_or(default.wall).min(ceiling.wall),
            cpu: seconds(request.cpu_seconds).unwrap_or(default.cpu).min(ceiling.cpu),
            output: mebibytes(request.output_mib).unwrap_or(default.output).min(ceiling.output),
            handles: request.handles.map_or(default.handles, |it| it as usize).min(ceiling.handles),
            log_lines: request.log_lines.unwrap_or(default.log_lines).min(ceiling.log_lines),
        }
    }
}

/// What one call may still move, counted in one place for everything that moves bytes for it.
///
/// Whoever goes over it has used it up: the call's next attempts fail before they do anything.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    left: AtomicU64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, left: AtomicU64::new(limit) }
    }

    /// Counts bytes that were moved, or are about to be.
    ///
    /// # Errors
    /// `limit` when there were fewer left.
    pub(crate) fn charge(&self, operation: &'static str, bytes: u64) -> Result<(), Error> {
        let mut enough = true;
        // Nothing else depends on the order in which counts arrive.
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            enough = left >= bytes;
            Some(left.saturating_sub(bytes))
        });
        if enough { Ok(()) } else { Err(self.exceeded(operation)) }
    }

    /// How many more bytes may be moved.
    pub(crate) fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// That more than this would be moved.
    pub(crate) fn exceeded(&self, operation: &'static str) -> Error {
        Error::new(code::LIMIT, operation, format!("the call moved more than its limit of {} MiB", self.limit >> 20))
            .hint("the plugin asks for `output-mib` too low in its manifest, or moves more than it should")
    }
}

/// How many lines one call may still log, counted in one place for every way that they come.
#[derive(Debug)]
pub(crate) struct Lines {
    limit: u64,
    asked: AtomicU64,
}

impl Lines {
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit: u64::from(limit), asked: AtomicU64::new(0) }
    }

    /// Counts one line and says whether it may be written.
    pub(crate) fn take(&self) -> bool {
        // Nothing else depends on the order in which lines arrive.
        self.asked.fetch_add(1, Ordering::Relaxed) < self.limit
    }

    /// How many were not written.
    pub(crate) fn dropped(&self) -> u64 {
        self.asked.load(Ordering::Relaxed).saturating_sub(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_that_was_passed_is_used_up() {
        let budget = Budget::new(10);
        assert!(budget.charge("a", 4).is_ok());
        assert_eq!(budget.left(), 6);
        assert!(budget.charge("a", 7).is_err_and(|error| error.is(code::LIMIT)));
        assert!(budget.charge("a", 1).is_err());
        assert!(budget.charge("a", 0).is_ok());
    }

    #[test]
    fn a_request_never_passes_the_ceiling() {
        let asked = LimitsRequest {
            memory_mib: Some(u64::MAX),
            wall_seconds: Some(u64::MAX),
            cpu_seconds: Some(u64::MAX),
            output_mib: Some(u64::MAX),
            handles: Some(u32::MAX),
            log_lines: Some(u32::MAX),
        };
        let ceiling = Limits { table_elements: Limits::default().table_elements, ..Limits::ceiling() };
        assert_eq!(Limits::from_request(&asked), ceiling);
        assert_eq!(Limits::from_request(&LimitsRequest::default()), Limits::default());
    }
}
