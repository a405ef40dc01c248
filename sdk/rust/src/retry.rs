//! Trying again: how long to wait is a pure function, and a runner does the waiting.

use std::time::Duration;

use crate::error::Result;
use crate::host::{Clock, Random};

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How many tries in all; at least one is made.
    pub attempts: u32,
    /// The wait after the first try, before jitter. It doubles with every try.
    pub first: Duration,
    /// The longest wait, before jitter, and the longest that is accepted of the other side.
    pub longest: Duration,
}

impl Default for Policy {
    /// Five tries over about seven seconds, and no wait over a minute.
    fn default() -> Self {
        Self { attempts: 5, first: Duration::from_millis(500), longest: Duration::from_secs(60) }
    }
}

impl Policy {
    /// How long to wait after try number `attempt` (from 1), or nothing when that was the last one.
    ///
    /// The wait is between one half and the whole of the backoff, as `random` says, so that clients that failed together
    /// do not return together. What the other side asked for is waited in full on top of nothing less; when it asks for
    /// more than `longest`, trying again is left to the user.
    pub fn wait(&self, attempt: u32, retry_after: Option<Duration>, random: u64) -> Option<Duration> {
        if attempt >= self.attempts || retry_after.is_some_and(|asked| asked > self.longest) {
            return None;
        }
        let doubled = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        let backoff = self.first.saturating_mul(doubled).min(self.longest);
        let half = backoff / 2;
        let spread = u64::try_from((backoff - half).as_nanos()).unwrap_or(u64::MAX);
        let jitter = Duration::from_nanos(u64::try_from((u128::from(random) * u128::from(spread)) >> 64).unwrap_or(0));
        Some((half + jitter).max(retry_after.unwrap_or_default()))
    }

    /// Calls `operation` with the number of the try until it succeeds, fails for good, or the tries are used up.
    ///
    /// Only errors that are [transient](crate::Error::is_transient) are tried again: an `operation` with effects must make
    /// sure itself that doing it twice is harmless.
    ///
    /// # Errors
    /// The last one, with the number of its try.
    pub fn run<T>(
        &self,
        clock: &dyn Clock,
        random: &dyn Random,
        mut operation: impl FnMut(u32) -> Result<T>,
    ) -> Result<T> {
        let mut attempt = 1;
        loop {
            let error = match operation(attempt) {
                Ok(value) => return Ok(value),
                Err(error) => error.attempt(attempt),
            };
            let retry_after = error.retry_after_ms.map(Duration::from_millis);
            match self.wait(attempt, retry_after, random.bits()) {
                Some(wait) if error.is_transient() => clock.sleep(wait),
                _ => return Err(error),
            }
            attempt += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeHost;
    use crate::{Error, code};
    use proptest::prelude::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let policy = Policy { attempts: 9, first: Duration::from_secs(1), longest: Duration::from_secs(5) };
        let waits: Vec<_> =
            (1..=9).map(|attempt| policy.wait(attempt, None, u64::MAX).map(|d| d.as_secs_f64().round())).collect();
        let some = |seconds: f64| Some(seconds);
        assert_eq!(waits[..4], [some(1.0), some(2.0), some(4.0), some(5.0)]);
        assert_eq!(waits[7..], [some(5.0), None]);
        assert_eq!(policy.wait(1, None, 0), Some(Duration::from_millis(500)));
    }

    #[test]
    fn the_other_side_is_obeyed_or_left_alone() {
        let policy = Policy::default();
        assert_eq!(policy.wait(1, Some(Duration::from_secs(7)), 0), Some(Duration::from_secs(7)));
        assert_eq!(policy.wait(1, Some(Duration::from_secs(61)), 0), None);
        assert_eq!(policy.wait(1, Some(Duration::ZERO), 0), Some(Duration::from_millis(250)));
    }

    #[test]
    fn transient_failures_are_tried_again_and_others_are_not() {
        let host = FakeHost::new();
        let tries = |code: &'static str, good: u32| {
            let mut seen = 0;
            let result = Policy::default().run(&host, &host, |attempt| {
                seen = attempt;
                if attempt < good { Err(Error::new(code, "o", "m")) } else { Ok(attempt) }
            });
            (seen, result)
        };
        assert_eq!(tries(code::UNAVAILABLE, 3), (3, Ok(3)));
        assert_eq!(tries(code::INVALID, 3), (1, Err(Error::new(code::INVALID, "o", "m").attempt(1))));
        assert_eq!(tries(code::NETWORK, 9), (5, Err(Error::new(code::NETWORK, "o", "m").attempt(5))));
        let slept = host.calls().iter().filter(|call| call.operation == "clock.sleep").count();
        assert_eq!(slept, 2 + 4);
    }

    proptest! {
        #[test]
        fn no_wait_is_out_of_bounds(attempt in any::<u32>(), random in any::<u64>(), first in 0..u64::MAX, longest in 0..u64::MAX) {
            let policy = Policy {
                attempts: u32::MAX, first: Duration::from_millis(first), longest: Duration::from_millis(longest),
            };
            if let Some(wait) = policy.wait(attempt, None, random) {
                prop_assert!(wait <= policy.longest);
            }
        }
    }
}
