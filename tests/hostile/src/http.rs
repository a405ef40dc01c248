//! Requests, by the SDK.

use std::time::Duration;

use pcoder_sdk::bindings::host::wasi::http::outgoing_handler::handle;
use pcoder_sdk::bindings::host::wasi::http::types::{Fields, OutgoingRequest, RequestOptions, Scheme};
use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::http::{Request, Response, check};
use pcoder_sdk::retry::Policy;
use pcoder_sdk::{Error, Result};

/// Sends a request with at most one header, and says what came: the status, the headers and the text.
pub(crate) fn send(host: ProviderHost<'_>, method: &str, url: &str, header: &str, body: Vec<u8>) -> Result<String> {
    exchange(host, method, url, header, body).map(|response| text(&response))
}

/// Goes where it is led.
pub(crate) fn follow(host: ProviderHost<'_>, url: &str) -> Result<String> {
    let mut url = url.to_owned();
    loop {
        let response = exchange(host, "GET", &url, "", Vec::new())?;
        match response.header("location") {
            Some(location) => url = location.to_owned(),
            None => return Ok(text(&response)),
        }
    }
}

/// Sends a request until its answer is a success, as the SDK tries again. The error's hint is what it says of trying.
pub(crate) fn retry(host: ProviderHost<'_>, method: &str, url: &str, attempts: usize) -> Result<String> {
    let policy = Policy {
        attempts: u32::try_from(attempts).unwrap_or(1),
        first: Duration::from_millis(1),
        longest: Duration::from_secs(60),
    };
    let answer = policy.run(host.clock(), host.random(), |_| {
        check(exchange(host, method, url, "", Vec::new())?, "hostile.http", url, host.clock().now_ms())
    });
    let tries = |error: Error| {
        let hint = format!("attempt {:?}, retry after {:?} ms", error.attempt, error.retry_after_ms);
        error.hint(hint)
    };
    answer.map(|response| text(&response)).map_err(tries)
}

/// Sends a request that gives the server so many milliseconds to be there, and says what became of it in the words of
/// `wasi:http`. The SDK has no such option.
pub(crate) fn impatient(authority: &str, milliseconds: u64) -> Result<String> {
    let wrong = |()| Error::invalid("hostile.http", "no such request");
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Https)).map_err(wrong)?;
    request.set_authority(Some(authority)).map_err(wrong)?;
    request.set_path_with_query(Some("/")).map_err(wrong)?;
    let options = RequestOptions::new();
    options.set_connect_timeout(Some(milliseconds * 1_000_000)).map_err(wrong)?;
    let answer = match handle(request, Some(options)) {
        Ok(answer) => answer,
        Err(error) => return Ok(format!("{error:?}")),
    };
    answer.subscribe().block();
    Ok(match answer.get() {
        Some(Ok(Ok(response))) => response.status().to_string(),
        Some(Ok(Err(error))) => format!("{error:?}"),
        _ => "nothing".to_owned(),
    })
}

fn exchange(host: ProviderHost<'_>, method: &str, url: &str, header: &str, body: Vec<u8>) -> Result<Response> {
    let mut request = Request::new(method, url);
    if !body.is_empty() {
        request = request.body("text/x-test", body);
    }
    if let Some((name, value)) = header.split_once(": ") {
        request = request.header(name, value);
    }
    host.http().send(&request)
}

fn text(response: &Response) -> String {
    let headers: Vec<String> = response.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    format!("{} {} {}", response.status, headers.join("; "), String::from_utf8_lossy(&response.body))
}
