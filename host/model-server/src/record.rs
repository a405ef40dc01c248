//! What the server remembers of the requests it saw.

use std::fmt;

use axum::http::{HeaderMap, Method, Uri, header};

/// One request.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The HTTP method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// The credentials that came with it.
    pub credentials: Credentials,
    /// The `user-agent`, empty if there was none.
    pub user_agent: String,
    /// The model that was asked for, empty if the request names none.
    pub model: String,
    /// The newest prompt, empty if the request has none.
    pub prompt: String,
    /// How many tools have answered since that prompt.
    pub results: usize,
    /// The names of the tools on offer.
    pub tools: Vec<String>,
    /// The size of the body in bytes.
    pub body_bytes: usize,
}

impl Recorded {
    pub(crate) fn new(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        Self {
            method: method.clone(),
            target: uri.path_and_query().map_or_else(|| uri.path().to_owned(), ToString::to_string),
            credentials: Credentials::from_headers(headers),
            user_agent: text(headers, header::USER_AGENT.as_str()).unwrap_or_default(),
            model: String::new(),
            prompt: String::new(),
            results: 0,
            tools: Vec::new(),
            body_bytes: 0,
        }
    }
}

/// The credentials of a request. The values can be compared and not read: neither a log line nor a failed assertion
/// shows them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    api_key: Option<String>,
    bearer: Option<String>,
}

impl Credentials {
    fn from_headers(headers: &HeaderMap) -> Self {
        let bearer = text(headers, header::AUTHORIZATION.as_str())
            .and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned));
        Self { api_key: text(headers, "x-api-key"), bearer }
    }

    /// Whether an `x-api-key` header came.
    #[must_use]
    pub fn has_api_key(&self) -> bool {
        self.api_key.is_some()
    }

    /// Whether a bearer token came.
    #[must_use]
    pub fn has_bearer(&self) -> bool {
        self.bearer.is_some()
    }

    /// Whether there is a credential, and every one that came is `expected`.
    #[must_use]
    pub fn are(&self, expected: &str) -> bool {
        let mut sent = self.api_key.iter().chain(&self.bearer).peekable();
        sent.peek().is_some() && sent.all(|value| value == expected)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("api_key", &self.has_api_key()).field("bearer", &self.has_bearer()).finish()
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(pairs: &[(&'static str, &str)]) -> Credentials {
        let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Credentials::from_headers(&headers)
    }

    #[test]
    fn credentials_compare_and_do_not_show() {
        let none = credentials(&[]);
        assert!(!none.are("") && !none.has_api_key() && !none.has_bearer());
        let both = credentials(&[("x-api-key", "sk-a"), ("authorization", "Bearer sk-a")]);
        assert!(both.are("sk-a") && !both.are("sk-b"));
        assert_eq!(format!("{both:?}"), "Credentials { api_key: true, bearer: true }");
        let mixed = credentials(&[("x-api-key", "sk-a"), ("authorization", "Bearer sk-b")]);
        assert!(!mixed.are("sk-a") && !mixed.are("sk-b"));
        assert!(!credentials(&[("authorization", "Basic x")]).has_bearer());
    }
}
