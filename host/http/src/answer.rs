//! What comes back, or does not.

use std::error::Error as _;
use std::time::{Duration, SystemTime};

use reqwest::header::{self, HeaderMap};

/// Why a request failed below HTTP: the error with its causes, where the system's own words are, and without the URL,
/// which may hold a secret.
pub fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        // Some repeat what they were caused by.
        let text = inner.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        cause = inner.source();
    }
    words
}

/// How long a server asks to wait, by `Retry-After`: seconds, or a date. A date that has passed is no wait.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn retry_after_in_both_forms() {
        let now = httpdate::parse_http_date("Fri, 20 Nov 2026 14:00:00 GMT").unwrap();
        let read = |value| {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static(value))]);
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!((read(" 7"), read("Fri, 20 Nov 2026 14:00:09 GMT")), (Some(7), Some(9)));
        assert_eq!((read("Fri, 20 Nov 2026 13:00:00 GMT"), read("0")), (Some(0), Some(0)));
        assert_eq!((read("soon"), read("-1"), read("")), (None, None, None));
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
