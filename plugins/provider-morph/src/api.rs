//! Requests to the service, and what its errors mean.

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::http::{Arriving, Request, Response, check};
use pcoder_sdk::{Error, Result, code, text};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What of the service's own words goes into an error, in characters.
const WORDS: usize = 300;

/// The service, as one call reaches it.
#[derive(Clone, Copy)]
pub(crate) struct Api<'a> {
    pub(crate) host: ProviderHost<'a>,
    pub(crate) operation: &'static str,
}

impl<'a> Api<'a> {
    pub(crate) fn new(host: ProviderHost<'a>, operation: &'static str) -> Self {
        Self { host, operation }
    }

    /// The value of a setting that has a default.
    fn setting(self, name: &str) -> Result<String> {
        let missing = || Error::invalid(self.operation, "this setting of the plugin is empty").subject(name);
        self.host.settings().get(name).ok_or_else(missing)
    }

    /// The host and the port of the SSH gateway.
    pub(crate) fn gateway(self) -> Result<(String, u16)> {
        let url = self.setting("ssh")?;
        let wrong = || Error::invalid(self.operation, "the setting `ssh` is not like `ssh://HOST:PORT`").subject(&url);
        let authority = url.strip_prefix("ssh://").ok_or_else(wrong)?.trim_end_matches('/');
        match authority.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                Ok((host.to_owned(), port.parse().map_err(|_| wrong())?))
            }
            _ => Ok((authority.to_owned(), 22)),
        }
    }

    fn request(self, method: &str, path: &str, body: Option<&Value>) -> Result<Request> {
        // A placeholder: the host puts the key in its place on the way out.
        let key = self.host.secrets().get("MORPH_API_KEY")?;
        let endpoint = self.setting("endpoint")?;
        let request = Request::new(method, format!("{}{path}", endpoint.trim_end_matches('/')))
            .header("authorization", format!("Bearer {key}"))
            .header("accept", "application/json");
        Ok(match body {
            Some(body) => request.body("application/json", body.to_string()),
            None => request,
        })
    }

    /// Sends one request. `subject` is what it is about.
    pub(crate) fn send(self, method: &str, path: &str, body: Option<&Value>, subject: &str) -> Result<Response> {
        let request = self.request(method, path, body)?;
        let response = self.host.http().send(&request).map_err(|error| error.during(self.operation))?;
        self.checked(response, subject)
    }

    /// Sends one request and gives its answer while it arrives. The answer is a success.
    pub(crate) fn open(self, path: &str, body: &Value, subject: &str) -> Result<Arriving> {
        let mut request = self.request("POST", path, Some(body))?;
        request.headers.retain(|(name, _)| name != "accept");
        let request = request.header("accept", "text/event-stream");
        let arriving = self.host.http().open(&request).map_err(|error| error.during(self.operation))?;
        if (200..300).contains(&arriving.status) {
            return Ok(arriving);
        }
        let response = arriving.whole().map_err(|error| error.during(self.operation))?;
        match self.checked(response, subject) {
            Ok(_) => Err(self.garbled(subject, "it is neither a success nor an error")),
            Err(error) => Err(error),
        }
    }

    /// Sends one request whose answer is JSON.
    pub(crate) fn json<T: DeserializeOwned>(
        self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        subject: &str,
    ) -> Result<T> {
        let response = self.send(method, path, body, subject)?;
        serde_json::from_slice(&response.body).map_err(|error| self.garbled(subject, &error.to_string()))
    }

    /// An answer that is not what the service's documents say.
    pub(crate) fn garbled(self, subject: &str, why: &str) -> Error {
        Error::new(code::SERVER, self.operation, format!("the service's answer cannot be read: {why}"))
            .subject(subject)
            .hint("if `endpoint` of this plugin is another service than Morph's, `pcoder config` shows it")
    }

    fn checked(self, response: Response, subject: &str) -> Result<Response> {
        let (status, words) = (response.status, words(&response.body));
        let error = match check(response, self.operation, subject, self.host.clock().now_ms()) {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        let message = match words {
            Some(words) => format!("{}: {words}", error.message),
            None => error.message.clone(),
        };
        let mut error = Error { message, ..error };
        if error.hint.is_none() {
            error.hint = hint(status, subject);
        }
        Err(error)
    }
}

/// What the user can do about a status.
fn hint(status: u16, subject: &str) -> Option<String> {
    let hint = match status {
        401 => "check the key: `pcoder config set secrets.MORPH_API_KEY REFERENCE` says where it comes from".to_owned(),
        402 => "look at the plan and the usage of the account that the key belongs to".to_owned(),
        403 => "another key may: `pcoder config set secrets.MORPH_API_KEY REFERENCE`".to_owned(),
        404 => "`pcoder instance list --provider morph` shows the instances that there are".to_owned(),
        409 | 412 if subject.starts_with("morphvm_") => {
            format!("look at its status with `pcoder instance get {subject} --provider morph`")
        }
        429 => "wait a little, and do less at once".to_owned(),
        500..=599 => "try again later; the service's status page may say more".to_owned(),
        _ => return None,
    };
    Some(hint)
}

/// What the service says of its error: FastAPI's `detail`, a text or a list of what is wrong with a request.
fn words(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Wrong {
        #[serde(default)]
        loc: Vec<Value>,
        msg: String,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Detail {
        Text(String),
        List(Vec<Wrong>),
    }
    #[derive(Deserialize)]
    struct Body {
        detail: Detail,
    }
    let words = match serde_json::from_slice::<Body>(body).ok()?.detail {
        Detail::Text(text) => text,
        Detail::List(list) => {
            let field = |it: &Wrong| {
                let place = it.loc.iter().map(|part| part.to_string().trim_matches('"').to_owned()).collect::<Vec<_>>();
                if place.is_empty() { it.msg.clone() } else { format!("{}: {}", place.join("."), it.msg) }
            };
            list.iter().map(field).collect::<Vec<_>>().join("; ")
        }
    };
    let words: String = words.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
    let words = text::tail(words.trim().as_bytes(), 1, WORDS);
    (!words.is_empty()).then_some(words)
}

/// Percent-encodes what goes into a query.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// An identity of the service's, as it may stand in an address.
pub(crate) fn checked_id<'i>(operation: &str, id: &'i str) -> Result<&'i str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !id.is_empty() && id.len() <= 128 && id.bytes().all(plain) {
        return Ok(id);
    }
    Err(Error::new(code::NOT_FOUND, operation, "there is no such instance")
        .subject(id.escape_debug().to_string())
        .hint("`pcoder instance list --provider morph` shows those that there are"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_own_words_are_told() {
        let list =
            br#"{"detail":[{"loc":["body","ttl_seconds"],"msg":"must be positive","type":"x"},{"msg":"and\nthis"}]}"#;
        assert_eq!(words(br#"{"detail":"Instance not found"}"#).as_deref(), Some("Instance not found"));
        assert_eq!(words(list).as_deref(), Some("body.ttl_seconds: must be positive; and this"));
        for nothing in [&b"<html>"[..], b"", b"{}", br#"{"detail":7}"#, br#"{"detail":" "}"#] {
            assert_eq!(words(nothing), None);
        }
    }

    #[test]
    fn only_an_identity_goes_into_an_address() {
        assert_eq!(checked_id("o", "morphvm_1a-B"), Ok("morphvm_1a-B"));
        for wrong in ["", "../user", "a/b", "a?b", "a b", "ä"] {
            assert_eq!(checked_id("o", wrong).map_err(|error| error.code), Err("not-found".to_owned()), "{wrong}");
        }
        assert_eq!(encoded("metadata[a b]"), "metadata%5Ba%20b%5D");
    }
}
