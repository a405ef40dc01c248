//! One file from anywhere, over the same network that engines come over: its proxies, its certificates, its patience.

use std::net::IpAddr;
use std::sync::Arc;

use reqwest::Url;
use reqwest::header::HeaderMap;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::http::{Failure, Http, Patience, judge, judge_status};
use crate::network::NetworkConfig;
use crate::progress::{Phase, Progress};

/// Fetches a file of at most `limit` bytes into memory. Logins for registries are not sent anywhere else. Over plain
/// HTTP it goes to this machine only.
///
/// # Errors
/// `Invalid` for another address and for a larger file; `Fetch` when it does not come; `Cancelled`.
pub async fn fetch(
    network: Arc<NetworkConfig>,
    url: &str,
    limit: u64,
    agent: &str,
    progress: &dyn Progress,
    cancel: CancellationToken,
) -> Result<Vec<u8>> {
    let parsed = check(url)?;
    let shown = shown(&parsed);
    let http = Http::new(network, Patience::default(), cancel.clone(), agent)?;
    progress.phase(Phase::Downloading);
    let failed = |failure: Failure| match failure {
        Failure::Fatal(Error::Registry { detail, .. }) | Failure::Again { detail, .. } => {
            Error::Fetch { url: shown.clone(), detail }
        }
        Failure::Fatal(error) => error,
    };
    let mut response = http.get(&shown, parsed.clone(), HeaderMap::new()).await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(failed(judge_status(&shown, response.status(), response.headers())));
    }
    let too_large = || Error::Invalid {
        subject: shown.clone(),
        detail: format!("it is larger than {} MiB", limit >> 20),
        hint: "check the address".to_owned(),
    };
    let total = response.content_length().unwrap_or(0);
    if total > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(total).unwrap_or(0));
    loop {
        let chunk = tokio::select! {
            chunk = tokio::time::timeout(http.patience.stall, response.chunk()) => chunk,
            () = cancel.cancelled() => return Err(Error::Cancelled { subject: shown }),
        };
        match chunk {
            Ok(Ok(Some(chunk))) => bytes.extend_from_slice(&chunk),
            Ok(Ok(None)) => return Ok(bytes),
            Ok(Err(error)) => return Err(failed(judge(&shown, error))),
            Err(_) => {
                let detail = format!("nothing came for {} s", http.patience.stall.as_secs());
                return Err(Error::Fetch { url: shown, detail });
            }
        }
        if bytes.len() as u64 > limit {
            return Err(too_large());
        }
        progress.bytes(bytes.len() as u64, total.max(bytes.len() as u64));
    }
}

/// An address without what may be a secret in it.
pub(crate) fn shown(url: &Url) -> String {
    let mut plain = url.clone();
    plain.set_query(None);
    plain.set_fragment(None);
    plain.to_string()
}

pub(crate) fn check(url: &str) -> Result<Url> {
    let invalid = |detail: &str, hint: &str| Error::Invalid {
        subject: url.split(['?', '#', '@']).next().unwrap_or_default().to_owned(),
        detail: detail.to_owned(),
        hint: hint.to_owned(),
    };
    let parsed = Url::parse(url).map_err(|_| invalid("it is not an address", "write it as `https://HOST/FILE`"))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        let host = parsed.host_str().unwrap_or_default();
        return Err(Error::Invalid {
            // Without the login.
            subject: format!("{}://{host}", parsed.scheme()),
            detail: "an address must not hold a login".to_owned(),
            hint: "download the file and give its path".to_owned(),
        });
    }
    let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match parsed.scheme() {
        "https" => Ok(parsed),
        "http" if here => Ok(parsed),
        _ => Err(invalid("only https can be trusted with a program", "use an `https://` address, or give a file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_is_fetched_but_for_this_machine() {
        for good in ["https://example.com/a.wasm", "http://127.0.0.1:8080/a", "http://localhost/a", "http://[::1]/a"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in
            ["http://example.com/a", "ftp://example.com/a", "https://u:p@example.com/a", "no address", "file:///etc"]
        {
            let error = check(bad).expect_err(bad);
            assert!(error.hint().is_some() && !error.to_string().contains("u:p"), "{error}");
        }
    }

    #[test]
    fn a_query_is_not_shown() {
        assert_eq!(shown(&Url::parse("https://h/a?token=x#y").expect("a URL")), "https://h/a");
    }
}
