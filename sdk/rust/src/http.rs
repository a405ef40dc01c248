//! HTTP for providers: requests, answers, and what a status means as an error.

use std::io::{self, Read as _};
use std::time::Duration;

use crate::bindings::host::wasi::io::poll::Pollable;
use crate::error::{Error, Result, code};
use crate::host::Piece;

pub(crate) mod wasi;

/// A request with its whole body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// An absolute `http` or `https` address.
    pub url: String,
    /// The headers. Values may hold placeholders from [`crate::host::Secrets::get`].
    pub headers: Vec<(String, String)>,
    /// The body; empty for none.
    pub body: Vec<u8>,
}

impl Request {
    /// A request without headers and body.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self { method: method.into(), url: url.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body and its type.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("content-type", content_type)
    }
}

/// An answer with its whole body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The first value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// An answer whose body is read while it arrives.
pub struct Arriving {
    /// The status code.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Body,
}

/// A body that arrives. Reading waits for it; [`Body::try_read`] does not, for plugins that wait for several things at once:
/// see [`Http::wait`](crate::host::Http::wait). An error of it is a connection that broke off, or a limit.
pub struct Body(Source);

enum Source {
    Host(wasi::Body),
    #[cfg(not(target_arch = "wasm32"))]
    Double(crate::testing::Arrivals),
}

impl Body {
    pub(crate) fn of_host(body: wasi::Body) -> Self {
        Self(Source::Host(body))
    }

    /// A double's, all of which is there.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn whole(content: impl Into<Vec<u8>>) -> Self {
        Self(Source::Double(crate::testing::Arrivals::whole(content.into())))
    }

    /// A double's, which ends with the sender.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn fed_by(pieces: std::sync::mpsc::Receiver<io::Result<Vec<u8>>>) -> Self {
        Self(Source::Double(crate::testing::Arrivals::fed_by(pieces)))
    }

    /// Takes what is there, at most this many bytes.
    ///
    /// # Errors
    /// When the connection broke off.
    pub fn try_read(&mut self, most: usize) -> io::Result<Piece> {
        match &mut self.0 {
            Source::Host(body) => crate::host::real::take(&body.stream, most),
            #[cfg(not(target_arch = "wasm32"))]
            Source::Double(arrivals) => arrivals.take(most),
        }
    }

    /// Whether [`Body::try_read`] has something else to say than [`Piece::Nothing`].
    pub fn is_ready(&mut self) -> bool {
        match &mut self.0 {
            Source::Host(body) => body.stream.subscribe().ready(),
            #[cfg(not(target_arch = "wasm32"))]
            Source::Double(arrivals) => arrivals.is_ready(),
        }
    }

    /// What is waited for where it is the host's.
    pub(crate) fn subscribe(&self) -> Option<Pollable> {
        match &self.0 {
            Source::Host(body) => Some(body.stream.subscribe()),
            #[cfg(not(target_arch = "wasm32"))]
            Source::Double(_) => None,
        }
    }
}

impl io::Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Source::Host(body) => crate::host::real::read(&body.stream, buffer),
            #[cfg(not(target_arch = "wasm32"))]
            Source::Double(arrivals) => arrivals.read(buffer),
        }
    }
}

impl Arriving {
    /// Reads the rest of the body.
    ///
    /// # Errors
    /// `network` when it breaks off.
    pub fn whole(mut self) -> Result<Response> {
        let mut body = Vec::new();
        self.body
            .read_to_end(&mut body)
            .map_err(|error| Error::new(code::NETWORK, "http.send", format!("the answer broke off: {error}")))?;
        Ok(Response { status: self.status, headers: self.headers, body })
    }
}

/// Gives an answer back when its status is a success, and its error when it is not.
///
/// `now_ms` is the time, for a `Retry-After` that names a date. Nothing of the body goes into the error: it may repeat
/// what was sent, credentials included.
///
/// # Errors
/// 401 `unauthenticated`, 402 and 403 `denied`, 404 and 410 `not-found`, 408 `timeout`, 409 and 412 `conflict`, 429
/// `rate-limited`, 502 to 504 `unavailable`, every other 5xx `server`, and the rest `invalid`.
pub fn check(response: Response, operation: &str, subject: &str, now_ms: u64) -> Result<Response> {
    if (200..300).contains(&response.status) {
        return Ok(response);
    }
    let (code, meaning) = meaning(response.status);
    let mut error = Error::new(code, operation, format!("{meaning} (HTTP {})", response.status)).subject(subject);
    if let Some(wait) = response.header("retry-after").and_then(|value| retry_after(value, now_ms)) {
        error = error.retry_after(wait);
    }
    Err(error)
}

fn meaning(status: u16) -> (&'static str, &'static str) {
    match status {
        402 => (code::DENIED, "the account has to pay for this, or has used up what it paid for"),
        401 => (code::UNAUTHENTICATED, "the credentials are missing or were refused"),
        403 => (code::DENIED, "the account may not do this"),
        404 | 410 => (code::NOT_FOUND, "there is no such thing"),
        408 => (code::TIMEOUT, "the server gave up waiting"),
        409 | 412 => (code::CONFLICT, "the state there is against it"),
        429 => (code::RATE_LIMITED, "too many requests"),
        502..=504 => (code::UNAVAILABLE, "the server is not available"),
        500..=599 => (code::SERVER, "the server failed"),
        300..=399 => (code::INVALID, "the server answers from another address"),
        _ => (code::INVALID, "the server refused the request"),
    }
}

/// Reads a `Retry-After` value, seconds or an HTTP date, as a wait from `now_ms`. A date that has passed is no wait.
pub fn retry_after(value: &str, now_ms: u64) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = date_ms(value)?;
    Some(Duration::from_millis(at.saturating_sub(now_ms)))
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Milliseconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that servers may send.
fn date_ms(text: &str) -> Option<u64> {
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: u64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = u64::try_from(MONTHS.iter().position(|known| *known == month)?).ok()? + 1;
    let year: u64 = words.next()?.parse().ok()?;
    let mut time = words.next()?.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if words.next()? != "GMT" || words.next().is_some() || time.next().is_some() {
        return None;
    }
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days from the civil calendar, with years that begin in March.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = (365 * y + y / 4 - y / 100 + y / 400 + (m * 306 + 5) / 10 + day).checked_sub(719_469)?;
    Some((days * 86_400 + hour * 3600 + minute * 60 + second) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, headers: &[(&str, &str)]) -> Response {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Response { status, headers, body: b"secret-in-body".to_vec() }
    }

    #[test]
    fn statuses_are_the_documented_codes() {
        for (status, expected) in [
            (301, "invalid"),
            (400, "invalid"),
            (401, "unauthenticated"),
            (402, "denied"),
            (403, "denied"),
            (404, "not-found"),
            (408, "timeout"),
            (409, "conflict"),
            (418, "invalid"),
            (422, "invalid"),
            (429, "rate-limited"),
            (500, "server"),
            (502, "unavailable"),
            (503, "unavailable"),
            (504, "unavailable"),
            (599, "server"),
        ] {
            let error = check(response(status, &[]), "provider.boot", "https://x/", 0).unwrap_err();
            assert_eq!(error.code, expected, "{status}");
            assert!(error.message.contains(&status.to_string()));
            assert!(!error.message.contains("secret-in-body"));
            assert_eq!(error.subject.as_deref(), Some("https://x/"));
        }
        assert!(check(response(204, &[]), "o", "s", 0).is_ok());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let error = check(response(429, &[("retry-after", "7")]), "o", "s", 0).unwrap_err();
        assert_eq!(error.retry_after_ms, Some(7000));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(date_ms(date), Some(784_111_777_000));
        assert_eq!(retry_after(date, 784_111_775_500), Some(Duration::from_millis(1500)));
        assert_eq!(retry_after(date, 784_111_999_000), Some(Duration::ZERO));
        assert_eq!(date_ms("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(date_ms("Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800_000));
        for wrong in ["", "soon", "-3", "1.5", "Sun, 06 Nov 1994 08:49 GMT", "Sun, 06 Nov 1994 08:49:37 CET"] {
            assert_eq!(retry_after(wrong, 0), None, "{wrong}");
        }
    }
}
