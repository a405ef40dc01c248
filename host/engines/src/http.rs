//! One HTTP request, with everything around it that must not be forgotten: logins that stay with their host, redirects,
//! and which failures are worth another try.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pcoder_http::{ClientOptions, reason, retry_after};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::lock_file::Package;
use crate::network::NetworkConfig;

/// More than any registry needs.
const MAX_REDIRECTS: usize = 5;
/// A registry that wants a longer pause gets an error that says so instead of a program that seems to hang.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// How patient a download is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// Tries after the first that do not get any further.
    pub retries: usize,
    /// Pause before the first of them; it doubles each time, with jitter.
    pub first_pause: Duration,
    /// Longest of these pauses.
    pub longest_pause: Duration,
    /// To connect.
    pub connect: Duration,
    /// Without a byte. There is no limit on the whole: a slow line is not an error.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            retries: 4,
            first_pause: Duration::from_millis(400),
            longest_pause: Duration::from_secs(8),
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
        }
    }
}

/// Why a request did not do it.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another try may.
    Again {
        detail: String,
        /// The registry answered at all.
        status: Option<u16>,
        /// It said how long to wait.
        after: Option<Duration>,
    },
    /// It will not.
    Fatal(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

/// A client for the registries.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: Client,
    network: Arc<NetworkConfig>,
    pub(crate) patience: Patience,
    pub(crate) cancel: CancellationToken,
}

/// The part of a file that is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start<'a> {
    pub(crate) offset: u64,
    pub(crate) validator: Option<&'a HeaderValue>,
}

impl Start<'_> {
    /// The headers that ask for it, behind others.
    pub(crate) fn headers(self, mut headers: HeaderMap) -> HeaderMap {
        // What arrives must be the very bytes that were hashed.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if self.offset > 0 {
            if let Ok(range) = HeaderValue::try_from(format!("bytes={}-", self.offset)) {
                headers.insert(header::RANGE, range);
            }
            if let Some(validator) = self.validator {
                headers.insert(header::IF_RANGE, validator.clone());
            }
        }
        headers
    }
}

impl Http {
    /// Loads the system's certificates, some 10 ms.
    pub(crate) fn new(
        network: Arc<NetworkConfig>,
        patience: Patience,
        cancel: CancellationToken,
        agent: &str,
    ) -> Result<Self> {
        let options = ClientOptions { agent: agent.to_owned(), connect: patience.connect, ..network.client_options() };
        let client = options.build().map_err(|error| Error::Invalid {
            subject: "network".to_owned(),
            detail: error.to_string(),
            hint: "check the proxy and the certificates in .npmrc and the environment".to_owned(),
        })?;
        Ok(Self { client, network, patience, cancel })
    }

    /// The same client for a part of the work that ends with `cancel`.
    pub(crate) fn with_cancel(self, cancel: CancellationToken) -> Self {
        Self { cancel, ..self }
    }

    /// Asks for a package's tarball, or its end, and follows redirects.
    pub(crate) async fn tarball(&self, package: &Package, from: Start<'_>) -> Result<Response, Failure> {
        let url = self.network.url_for(&package.name, &package.tarball())?;
        self.get(&package.id(), url, from.headers(HeaderMap::new())).await
    }

    /// Asks for a small JSON document of a package.
    #[cfg_attr(not(feature = "generator"), allow(dead_code, reason = "the generator's"))]
    pub(crate) async fn document(&self, package: &str, path: &str) -> Result<Vec<u8>, Failure> {
        let url = self.network.url_for(package, path)?;
        let response = self.get(package, url, HeaderMap::new()).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(judge_status(package, status, response.headers()));
        }
        let body = tokio::time::timeout(self.patience.stall, response.bytes()).await;
        match body {
            Ok(Ok(bytes)) => Ok(bytes.to_vec()),
            Ok(Err(error)) => Err(judge(package, error)),
            Err(_) => Err(stalled(self.patience.stall)),
        }
    }

    /// Asks for an address and follows redirects. `package` is its name in errors.
    pub(crate) async fn get(&self, package: &str, url: Url, headers: HeaderMap) -> Result<Response, Failure> {
        let origin = url.clone();
        let mut url = url;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.client.get(url.clone()).headers(headers.clone());
            // A login never crosses to another host, scheme or port, even one that has a login of its own.
            if same_origin(&origin, &url)
                && let Some(login) = self.network.login_for(&url)
                && let Ok(mut value) = HeaderValue::try_from(login.expose())
            {
                value.set_sensitive(true);
                request = request.header(header::AUTHORIZATION, value);
            }
            let response = tokio::select! {
                response = tokio::time::timeout(self.patience.stall, request.send()) => response,
                () = self.cancel.cancelled() => return Err(Error::Cancelled { subject: package.to_owned() }.into()),
            };
            let response = match response {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => return Err(judge(package, error)),
                Err(_) => return Err(stalled(self.patience.stall)),
            };
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            let refused = |detail: &str| Error::Registry {
                package: package.to_owned(),
                detail: detail.to_owned(),
                status: Some(response.status().as_u16()),
            };
            let next = response
                .headers()
                .get(header::LOCATION)
                .and_then(|to| url.join(to.to_str().ok()?).ok())
                .filter(|to| matches!(to.scheme(), "http" | "https"))
                .ok_or_else(|| refused("it redirects to nowhere"))?;
            if url.scheme() == "https" && next.scheme() == "http" {
                return Err(refused("it redirects from https to http").into());
            }
            url = next;
        }
        Err(Error::Registry { package: package.to_owned(), detail: "it redirects too often".to_owned(), status: None }
            .into())
    }
}

fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host() == b.host() && a.port_or_known_default() == b.port_or_known_default()
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn stalled(limit: Duration) -> Failure {
    Failure::Again { detail: format!("nothing came for {} s", limit.as_secs_f32()), status: None, after: None }
}

/// An answer that is not the file.
pub(crate) fn judge_status(package: &str, status: StatusCode, headers: &HeaderMap) -> Failure {
    let code = status.as_u16();
    let detail = match code {
        401 | 403 => format!("it answers {status}: not allowed"),
        404 => "it does not have it (404)".to_owned(),
        _ => format!("it answers {status}"),
    };
    let after = retry_after(headers, SystemTime::now());
    if matches!(code, 408 | 425 | 429 | 500 | 502..=504) {
        if let Some(wait) = after.filter(|wait| *wait > MAX_RETRY_AFTER) {
            let detail = format!("{detail}, and asks to wait {} s", wait.as_secs());
            return Failure::Fatal(Error::Registry { package: package.to_owned(), detail, status: Some(code) });
        }
        return Failure::Again { detail, status: Some(code), after };
    }
    Failure::Fatal(Error::Registry { package: package.to_owned(), detail, status: Some(code) })
}

/// A validator that proves that the bytes are the same: a strong `ETag`, or a `Last-Modified` that is a minute older than
/// the answer (RFC 9110, 8.8.2.2).
pub(crate) fn validator(headers: &HeaderMap) -> Option<HeaderValue> {
    if let Some(tag) = headers.get(header::ETAG)
        && !tag.as_bytes().starts_with(b"W/")
    {
        return Some(tag.clone());
    }
    let modified = headers.get(header::LAST_MODIFIED)?;
    let date = |value: &HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok();
    let age = date(headers.get(header::DATE)?)?.duration_since(date(modified)?).ok()?;
    (age >= Duration::from_secs(60)).then(|| modified.clone())
}

/// A failure below HTTP. A certificate that is not trusted will not be trusted the next time.
pub(crate) fn judge(package: &str, error: reqwest::Error) -> Failure {
    if let Some(tls) = find_tls(&error)
        && matches!(tls, rustls::Error::InvalidCertificate(_))
    {
        return Failure::Fatal(Error::Certificate { package: package.to_owned(), detail: tls.to_string() });
    }
    Failure::Again { detail: reason(error), status: None, after: None }
}

fn find_tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next: Option<&'a (dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        // An I/O error's source leaves out the error that it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(inner) = wrapped {
            let inner: &(dyn StdError + 'static) = inner;
            if let Some(tls) = find_tls(inner) {
                return Some(tls);
            }
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_strong_validators_count() {
        let date = ("date", "Fri, 20 Nov 2026 14:12:55 GMT");
        assert_eq!(validator(&headers(&[("etag", "\"x\"")])).unwrap(), "\"x\"");
        assert_eq!(validator(&headers(&[("etag", "W/\"x\""), date])), None);
        assert!(validator(&headers(&[("last-modified", "Fri, 20 Nov 2026 14:11:00 GMT"), date])).is_some());
        assert_eq!(validator(&headers(&[("last-modified", "Fri, 20 Nov 2026 14:12:30 GMT"), date])), None);
        assert_eq!(validator(&headers(&[("last-modified", "Fri, 20 Nov 2026 14:11:00 GMT")])), None);
    }

    #[test]
    fn a_pause_that_is_asked_for_has_a_limit() {
        let short = judge_status("p", StatusCode::TOO_MANY_REQUESTS, &headers(&[("retry-after", "60")]));
        assert!(matches!(short, Failure::Again { after: Some(MAX_RETRY_AFTER), .. }));
        let long = judge_status("p", StatusCode::TOO_MANY_REQUESTS, &headers(&[("retry-after", "3600")]));
        assert!(matches!(long, Failure::Fatal(Error::Registry { .. })));
    }

    #[test]
    fn origins() {
        let same = |a: &str, b: &str| same_origin(&Url::parse(a).unwrap(), &Url::parse(b).unwrap());
        assert!(same("https://a/x", "https://a:443/y"));
        for (a, b) in [("https://a/", "http://a/"), ("https://a/", "https://a:8443/"), ("https://a/", "https://a.b/")] {
            assert!(!same(a, b), "{a} {b}");
        }
    }
}
