//! An authorisation server.

use url::{Host, Url};

use crate::error::{Error, Result};

/// How the token endpoint takes its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenFormat {
    /// A JSON object, as Claude's. The exchange also repeats the state.
    Json,
    /// A form, as RFC 6749 has it.
    Form,
}

/// A redirect to this machine: `http://HOST:PORT/PATH`. The port is opened on 127.0.0.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loopback {
    /// `localhost` or `127.0.0.1`, whichever the service has registered.
    pub host: String,
    /// 0 lets the system choose, where the service accepts any port (RFC 8252, 7.3).
    pub port: u16,
    /// Begins with a slash.
    pub path: String,
}

/// An authorisation server and what this client is to it. Every field can be replaced, for a gateway or a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Where the user allows it.
    pub authorize_url: Url,
    /// Where codes and refresh tokens are exchanged. HTTPS, or a loopback host.
    pub token_url: Url,
    /// Public: PKCE takes the place of a client secret.
    pub client_id: String,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// Where the page with the code to paste is. The server compares it letter by letter.
    pub redirect_uri: String,
    /// Where a listener may be, for [`Authorization::begin_with_listener`](crate::Authorization::begin_with_listener).
    pub loopback: Option<Loopback>,
    /// More parameters of the authorise URL, such as `code=true`.
    pub authorize_params: Vec<(String, String)>,
    /// How the token endpoint is spoken to.
    pub token_format: TokenFormat,
}

impl Service {
    /// Refuses what would send a secret in the clear.
    pub(crate) fn check(&self) -> Result<()> {
        check_secure("the authorise URL", &self.authorize_url)?;
        check_secure("the token URL", &self.token_url)
    }
}

pub(crate) fn check_secure(subject: &'static str, url: &Url) -> Result<()> {
    let secure = match url.scheme() {
        "https" => url.has_host(),
        "http" => is_loopback(url),
        _ => false,
    };
    if secure {
        return Ok(());
    }
    Err(Error::Config { subject, detail: "it must be https, or http to this machine".to_owned() })
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Host, and port where it is not the usual one: all of a URL that an error shows.
pub(crate) fn server_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        let check = |url: &str| check_secure("it", &url.parse().expect("a URL")).is_ok();
        for url in
            ["https://a.example/x", "http://localhost:1/", "http://127.0.0.1/", "http://127.9.9.9/", "http://[::1]/"]
        {
            assert!(check(url), "{url}");
        }
        for url in [
            "http://a.example/",
            "http://localhost.a.example/",
            "http://127.0.0.1.a.example/",
            "http://localhost@a.example/",
            "http://10.0.0.1/",
            "ftp://localhost/",
            "data:x",
        ] {
            assert!(!check(url), "{url}");
        }
    }

    #[test]
    fn an_error_shows_no_login_path_or_query_of_a_url() {
        let url = "https://user:secret@a.example:8443/path?token=secret".parse().expect("a URL");
        assert_eq!(server_of(&url), "a.example:8443");
    }
}
