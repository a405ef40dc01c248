//! What the service says of its budgets: `x-csb-…` headers, and for how long they are used up.

use std::time::Duration;

use jiff::Timestamp;
use pcoder_sdk::Error;
use pcoder_sdk::http::Response;

/// The budgets are hourly: no wait is longer, whatever clocks say.
const LONGEST: Duration = Duration::from_secs(3600);

/// Numbers below this are waits in seconds; above, seconds since 1970.
const SECONDS_SINCE_1970: i64 = 1_000_000_000;
/// Numbers above this are milliseconds since 1970.
const MILLISECONDS_SINCE_1970: i64 = 100_000_000_000;

/// Completes the error of an answer with the status 429. A `Retry-After` that was found before stays.
pub(crate) fn explain(error: Error, response: &Response, now_ms: u64) -> Error {
    let used_up = |name: &str| response.header(name).is_some_and(|left| left.trim() == "0");
    if used_up("x-csb-vms-remaining") {
        return error.hint("as many sandboxes run as the plan allows: stop one; `pcoder instance list` shows them");
    }
    for (left, reset, what) in [
        ("x-csb-sandbox-hourly-remaining", "x-csb-sandbox-hourly-reset", "new sandboxes"),
        ("x-csb-rate-hourly-remaining", "x-csb-rate-hourly-reset", "requests"),
    ] {
        if !used_up(left) {
            continue;
        }
        let error = error.hint(format!("the plan's {what} of this hour are used up"));
        return match (error.retry_after_ms, response.header(reset).and_then(|reset| wait(reset, now(response, now_ms))))
        {
            (None, Some(wait)) => error.retry_after(wait),
            _ => error,
        };
    }
    error
}

/// The time where the answer comes from, so that a clock that is wrong here does no harm.
fn now(response: &Response, now_ms: u64) -> i64 {
    let here = i64::try_from(now_ms).unwrap_or(i64::MAX);
    // Its wait from 1970 on is the date itself.
    let there = response.header("date").and_then(|date| pcoder_sdk::http::retry_after(date, 0));
    there.and_then(|since| i64::try_from(since.as_millis()).ok()).filter(|there| *there > 0).unwrap_or(here)
}

/// How long it is until a time: a date and time, seconds or milliseconds since 1970, or a number of seconds.
fn wait(reset: &str, now_ms: i64) -> Option<Duration> {
    let at = match reset.trim().parse::<i64>() {
        Ok(number) if number < 0 => return None,
        Ok(number) if number < SECONDS_SINCE_1970 => now_ms.saturating_add(number.saturating_mul(1000)),
        Ok(number) if number < MILLISECONDS_SINCE_1970 => number.saturating_mul(1000),
        Ok(number) => number,
        Err(_) => time_ms(reset)?,
    };
    let wait = Duration::from_millis(u64::try_from(at.saturating_sub(now_ms)).unwrap_or(0));
    Some(wait.min(LONGEST))
}

/// Milliseconds since 1970 of a time as JSON has it.
pub(crate) fn time_ms(text: &str) -> Option<i64> {
    text.trim().parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

/// A time as JSON has it.
pub(crate) fn time_text(ms: u64) -> Option<String> {
    let time = Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_764_000_000_000;

    fn answer(headers: &[(&str, &str)]) -> Response {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Response { status: 429, headers, body: Vec::new() }
    }

    #[test]
    fn a_reset_is_a_wait_in_whatever_form_it_comes() {
        for (reset, seconds) in [
            ("60", Some(60)),
            ("1764000060", Some(60)),
            ("1764000060000", Some(60)),
            ("2025-11-24T16:01:00Z", Some(60)),
            ("2025-11-24T17:01:00.000+01:00", Some(60)),
            ("2025-11-24T15:00:00Z", Some(0)),
            ("2099-01-01T00:00:00Z", Some(3600)),
            ("9223372036854775807", Some(3600)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            let now = i64::try_from(NOW).unwrap_or_default();
            assert_eq!(wait(reset, now), seconds.map(Duration::from_secs), "{reset}");
        }
    }

    #[test]
    fn the_budget_that_is_used_up_says_the_wait() {
        let error = || Error::new("rate-limited", "o", "m");
        let headers = [("x-csb-rate-hourly-remaining", "0"), ("x-csb-rate-hourly-reset", "60")];
        let told = explain(error(), &answer(&headers), NOW);
        assert_eq!((told.retry_after_ms, told.hint.is_some()), (Some(60_000), true));
        let asked = explain(error().retry_after(Duration::from_secs(2)), &answer(&headers), NOW);
        assert_eq!(asked.retry_after_ms, Some(2000));
        let vms = explain(error(), &answer(&[("x-csb-vms-remaining", "0")]), NOW);
        assert_eq!((vms.retry_after_ms, vms.hint.is_some()), (None, true));
        assert_eq!(explain(error(), &answer(&[("x-csb-vms-remaining", "3")]), NOW), error());
    }

    #[test]
    fn a_clock_that_is_wrong_here_does_no_harm() {
        let headers = [
            ("date", "Mon, 24 Nov 2025 16:00:00 GMT"),
            ("x-csb-sandbox-hourly-remaining", "0"),
            ("x-csb-sandbox-hourly-reset", "2025-11-24T16:01:00Z"),
        ];
        for now in [0, NOW, NOW * 2] {
            let told = explain(Error::new("rate-limited", "o", "m"), &answer(&headers), now);
            assert_eq!(told.retry_after_ms, Some(60_000));
        }
    }

    #[test]
    fn a_time_is_written_as_json_has_it() {
        assert_eq!(time_text(NOW).as_deref(), Some("2025-11-24T16:00:00Z"));
        assert_eq!(time_ms("2025-11-24T16:00:00Z"), Some(1_764_000_000_000));
    }
}
