//! One request to a token endpoint: a deadline, a bounded answer, and what its status means.

use std::fmt;
use std::time::{Duration, SystemTime};

use pcoder_http::{ClientOptions, Proxies, reason, retry_after};
use reqwest::header::{self, HeaderMap};
use reqwest::{Client, Response};
use serde_json::{Map, Value};
use url::Url;

use crate::error::{Error, Result};
use crate::service::{TokenFormat, check_secure, server_of};

/// Tokens are a few kilobytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Those of RFC 6749 and its extensions are shorter.
const MAX_CODE: usize = 64;

/// How token endpoints are reached.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// The network. Its proxy for plain `http` is not used: that goes to this machine only, and a proxy may be another
    /// one, which would see the tokens.
    pub client: ClientOptions,
    /// For one request, from the connection to the last byte of the answer.
    pub deadline: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self { client: ClientOptions::default(), deadline: Duration::from_secs(30) }
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
        let HttpOptions { client, deadline } = options;
        let proxies = Proxies { http: None, ..client.proxies };
        let client = ClientOptions { proxies, ..client }
            .build()
            .map_err(|error| Error::Config { subject: error.subject, detail: error.detail })?;
        Ok(Self { client, deadline })
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

/// A failure below HTTP.
fn network(url: &Url, error: reqwest::Error) -> Error {
    Error::Network { server: server_of(url), detail: reason(error) }
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
    fn a_proxys_password_is_in_no_error_and_no_debug() {
        let with = |https: &str| {
            let proxies = Proxies { https: https.parse().ok(), ..Proxies::default() };
            let client = ClientOptions { proxies, ..ClientOptions::default() };
            HttpOptions { client, ..HttpOptions::default() }
        };
        let options = with("http://user:hunter2@127.0.0.1:1");
        let http = Http::new(options.clone()).expect("a client");
        let error = Http::new(with("socks5://user:hunter2@127.0.0.1:1")).expect_err("no proxy");
        assert_eq!(error.to_string(), "the https proxy cannot be used: it is not an http or https address");
        assert!(!format!("{options:?} {http:?} {error:?}").contains("hunter2"));
    }
}
