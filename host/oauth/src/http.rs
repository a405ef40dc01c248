//! One request to a token endpoint: certificates of the system, no redirects, a deadline, a bounded answer, and what its
//! status means.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{self, HeaderMap};
use reqwest::{Client, Response};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls_platform_verifier::Verifier;
use serde_json::{Map, Value};
use url::Url;

use crate::error::{Error, Result};
use crate::service::{TokenFormat, check_secure, server_of};

/// Tokens are a few kilobytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Those of RFC 6749 and its extensions are shorter.
const MAX_CODE: usize = 64;

/// How the network is reached. It has no `Debug`: a proxy's URL may hold a password.
#[derive(Clone)]
pub struct HttpOptions {
    /// The `User-Agent`.
    pub agent: String,
    /// For one request, from the connection to the last byte of the answer.
    pub deadline: Duration,
    /// For HTTPS.
    pub proxy: Option<Url>,
    /// Hosts that are reached without it, as in `NO_PROXY`.
    pub no_proxy: Option<String>,
    /// Certificates that are trusted beside the system's.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            agent: concat!("pcoder/", env!("CARGO_PKG_VERSION")).to_owned(),
            deadline: Duration::from_secs(30),
            proxy: None,
            no_proxy: None,
            extra_roots: Vec::new(),
        }
    }
}

/// A client for token endpoints. Clones share their connections.
#[derive(Clone)]
pub struct Http {
    client: Client,
    deadline: Duration,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl Http {
    /// Loads the system's certificates, some 10 ms.
    ///
    /// # Errors
    /// `Config` for a certificate or a proxy that cannot be used.
    pub fn new(options: HttpOptions) -> Result<Self> {
        let invalid = |subject, detail: String| Error::Config { subject, detail };
        let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Verifier::new_with_extra_roots(options.extra_roots, provider.clone())
            .map_err(|error| invalid("the certificates", error.to_string()))?;
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid("TLS", error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            // The environment is passed in, so reqwest must not look there itself.
            .no_proxy()
            // A redirect would take the tokens to another server.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(options.agent);
        if let Some(url) = options.proxy {
            // The proxy's address may hold a password: the error is not shown.
            let proxy =
                reqwest::Proxy::https(url).map_err(|_| invalid("the proxy", "it is not a proxy's URL".to_owned()))?;
            let except = options.no_proxy.as_deref().and_then(reqwest::NoProxy::from_string);
            builder = builder.proxy(proxy.no_proxy(except));
        }
        let client = builder.build().map_err(|error| invalid("the HTTP client", error.without_url().to_string()))?;
        Ok(Self { client, deadline: options.deadline })
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Sends parameters, and gives the JSON object of a 2xx answer. Nothing is tried twice: what it sends may be good for
    /// one use.
    pub(crate) async fn post(
        &self,
        url: &Url,
        format: TokenFormat,
        fields: &[(&str, &str)],
    ) -> Result<Map<String, Value>> {
        check_secure("the token URL", url)?;
        let (kind, body) = match format {
            TokenFormat::Json => {
                let object: Map<_, _> =
                    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
                ("application/json", Value::Object(object).to_string())
            }
            TokenFormat::Form => (
                "application/x-www-form-urlencoded",
                url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish(),
            ),
        };
        let request = self
            .client
            .post(url.clone())
            .header(header::CONTENT_TYPE, kind)
            .header(header::ACCEPT, "application/json")
            .body(body);
        let exchange = async {
            let response = request.send().await.map_err(|error| network(url, error))?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let body = read(url, response).await?;
            judge(url, status, &headers, body)
        };
        tokio::time::timeout(self.deadline, exchange)
            .await
            .unwrap_or_else(|_| Err(Error::Timeout { server: server_of(url), deadline: self.deadline }))
    }
}

/// `None` for a body that is too large.
async fn read(url: &Url, mut response: Response) -> Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| network(url, error))? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

fn judge(url: &Url, status: u16, headers: &HeaderMap, body: Option<Vec<u8>>) -> Result<Map<String, Value>> {
    let server = server_of(url);
    let object = body.as_deref().and_then(|body| serde_json::from_slice::<Map<String, Value>>(body).ok());
    if (200..300).contains(&status) {
        // What the JSON parser says is not shown: it quotes what it read.
        let detail = if body.is_none() { "it is larger than 64 KiB" } else { "it is not a JSON object" };
        return object.ok_or(Error::Answer { server, detail });
    }
    let code = object.as_ref().and_then(error_code);
    let after = retry_after(headers, SystemTime::now());
    Err(match status {
        429 => Error::RateLimited { server, after },
        400..500 if code.as_deref() == Some("invalid_grant") => Error::LoginExpired { server },
        _ => Error::Refused { server, status, code, after },
    })
}

/// `{"error": "invalid_grant"}` of RFC 6749, or `{"error": {"type": "rate_limit_error"}}` of Claude's API.
fn error_code(object: &Map<String, Value>) -> Option<String> {
    let error = object.get("error")?;
    safe_code(error.as_str().or_else(|| error.get("type")?.as_str())?)
}

/// An OAuth error code that can be shown: letters and underscores only, so that it is neither a token nor a terminal's
/// command.
pub(crate) fn safe_code(code: &str) -> Option<String> {
    let safe = (1..=MAX_CODE).contains(&code.len()) && code.bytes().all(|it| it.is_ascii_alphabetic() || it == b'_');
    safe.then(|| code.to_owned())
}

/// Seconds or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()),
    }
}

/// A failure below HTTP, with its causes.
fn network(url: &Url, error: reqwest::Error) -> Error {
    let error = error.without_url();
    let mut detail = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !detail.contains(&text) {
            detail = format!("{detail}: {text}");
        }
        cause = inner.source();
    }
    Error::Network { server: server_of(url), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_letters_and_underscores_of_an_error_are_shown() {
        assert_eq!(safe_code("invalid_grant").as_deref(), Some("invalid_grant"));
        for code in ["", "two words", "sk-ant-oat01", "\u{1b}[31m", "ümlaut", &"x".repeat(65)] {
            assert_eq!(safe_code(code), None, "{code}");
        }
    }

    #[test]
    fn both_shapes_of_an_error() {
        let read = |text: &str| error_code(&serde_json::from_str(text).expect("JSON"));
        assert_eq!(read(r#"{"error":"invalid_scope"}"#).as_deref(), Some("invalid_scope"));
        assert_eq!(
            read(r#"{"type":"error","error":{"type":"overloaded_error"}}"#).as_deref(),
            Some("overloaded_error")
        );
        assert_eq!(read(r#"{"error":["x"]}"#), None);
    }

    #[test]
    fn retry_after_in_both_forms() {
        let now = httpdate::parse_http_date("Fri, 20 Nov 2026 14:00:00 GMT").expect("a date");
        let read = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, header::HeaderValue::from_static(value))]);
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!((read("7"), read("Fri, 20 Nov 2026 14:00:09 GMT"), read("soon")), (Some(7), Some(9), None));
        assert_eq!(read("Fri, 20 Nov 2026 13:00:00 GMT"), Some(0));
    }

    #[test]
    fn a_proxys_password_is_in_no_error_and_no_debug() {
        let proxy = "http://user:hunter2@127.0.0.1:1".parse().ok();
        let http = Http::new(HttpOptions { proxy, ..HttpOptions::default() }).expect("a client");
        assert!(!format!("{http:?}").contains("hunter2"));
    }
}
