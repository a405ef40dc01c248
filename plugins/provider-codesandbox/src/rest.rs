//! The REST API: requests, the shapes of answers, and what goes wrong.
//!
//! Every answer is `{success?, errors?, data?}` (OpenAPI "CodeSandbox API 2023-07-01"). A field that is needed and is
//! missing, null or of another kind is an error that names it.

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::http::{Request, Response, check};
use pcoder_sdk::retry::Policy;
use pcoder_sdk::{Error, Result, code};
use serde_json::Value;

use crate::config::setting;
use crate::limits;

/// The longest message of the service that is repeated.
const LONGEST_MESSAGE: usize = 200;

/// The API, for one operation of the contract.
#[derive(Clone, Copy)]
pub(crate) struct Api<'a> {
    pub(crate) host: ProviderHost<'a>,
    pub(crate) operation: &'static str,
}

impl<'a> Api<'a> {
    pub(crate) fn new(host: ProviderHost<'a>, operation: &'static str) -> Self {
        Self { host, operation }
    }

    /// Sends a request that may be done twice without harm, again where trying again may help.
    pub(crate) fn again(self, method: &str, path: &str, body: Option<&Value>) -> Result<Data> {
        Policy::default().run(self.host.clock(), self.host.random(), |_| self.once(method, path, body))
    }

    /// Sends a request, once.
    pub(crate) fn once(self, method: &str, path: &str, body: Option<&Value>) -> Result<Data> {
        let endpoint = setting(self.host, "endpoint")
            .ok_or_else(|| Error::invalid(self.operation, "the setting `endpoint` is empty"))?;
        let url = format!("{}{path}", endpoint.trim_end_matches('/'));
        let subject = url.split('?').next().unwrap_or(&url).to_owned();
        let key = self.host.secrets().get("CSB_API_KEY").map_err(|error| error.during(self.operation))?;
        let mut request = Request::new(method, &url)
            .header("authorization", format!("Bearer {key}"))
            .header("accept", "application/json")
            .header("user-agent", concat!("pcoder-provider-codesandbox/", env!("CARGO_PKG_VERSION")));
        if let Some(body) = body {
            request = request.body("application/json", body.to_string());
        }
        let response = self.host.http().send(&request).map_err(|error| error.during(self.operation))?;
        let content = serde_json::from_slice::<Value>(&response.body).ok();
        let response = self.checked(response, content.as_ref(), &subject)?;
        let data = content.and_then(|mut content| {
            // A few answers have nothing to say.
            let nothing = (content.get("success") == Some(&Value::Bool(true))).then_some(Value::Null);
            content.get_mut("data").map(Value::take).or(nothing)
        });
        if data.is_none() && response.status != 204 {
            let message = "the answer is not what the API's answers are: `data` is missing, or it is no JSON";
            return Err(Error::new(code::SERVER, self.operation, message).subject(subject));
        }
        Ok(Data { value: data.unwrap_or_default(), operation: self.operation, subject })
    }

    fn checked(self, response: Response, content: Option<&Value>, subject: &str) -> Result<Response> {
        let now = self.host.clock().now_ms();
        let copy = Response { status: response.status, headers: response.headers.clone(), body: Vec::new() };
        let mut error = match check(response, self.operation, subject, now) {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        if let Some(said) = content.and_then(said) {
            error.message = format!("{}: {said}", error.message);
        }
        Err(match copy.status {
            401 => error.hint(
                "make a key on https://codesandbox.io/t/api and `pcoder config set secrets.CSB_API_KEY REFERENCE`",
            ),
            402 => error.hint("the workspace has no credits left: see its billing on codesandbox.io"),
            403 => error.hint(
                "the key of `secrets.CSB_API_KEY` needs the scopes sandbox_create, sandbox_edit_code, sandbox_read and \
                 vm_manage, and the sandbox must belong to its workspace",
            ),
            429 => limits::explain(error, &copy, now),
            _ => error,
        })
    }
}

/// What the service says of a failure: the first of `errors`, a text or the reasons of a field. Nothing that looks like
/// a credential, and nothing long.
fn said(content: &Value) -> Option<String> {
    let first = content.get("errors")?.get(0)?;
    let text = match first {
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            let (field, reasons) = fields.iter().next()?;
            let reason = reasons.get(0).unwrap_or(reasons).as_str()?;
            format!("`{field}` {reason}")
        }
        _ => return None,
    };
    let harmless = !text.is_empty()
        && text.chars().count() <= LONGEST_MESSAGE
        && !text.chars().any(char::is_control)
        && !["csb_", "Bearer", "pitcher_token", "token="].iter().any(|mark| text.contains(mark));
    harmless.then_some(text)
}

/// The data of an answer.
#[derive(Debug)]
pub(crate) struct Data {
    value: Value,
    operation: &'static str,
    subject: String,
}

impl Data {
    /// The answer's error, where a field is not what it must be.
    pub(crate) fn wrong(&self, field: &str, what: &str) -> Error {
        Error::new(code::SERVER, self.operation, format!("the answer's field `{field}` {what}")).subject(&self.subject)
    }

    fn at(&self, field: &str) -> Option<&Value> {
        let pointer = format!("/{}", field.replace('.', "/"));
        self.value.pointer(&pointer).filter(|value| !value.is_null())
    }

    fn needed(&self, field: &str) -> Result<&Value> {
        self.at(field).ok_or_else(|| self.wrong(field, "is missing"))
    }

    /// A text that is not empty; dots lead into objects.
    pub(crate) fn text(&self, field: &str) -> Result<&str> {
        match self.needed(field)?.as_str() {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(self.wrong(field, "is no text")),
        }
    }

    /// A text, where there is one.
    pub(crate) fn optional(&self, field: &str) -> Option<&str> {
        self.at(field).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// Whether a field is there and true.
    pub(crate) fn flag(&self, field: &str) -> bool {
        self.at(field).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A whole number that is not negative.
    pub(crate) fn number(&self, field: &str) -> Result<u64> {
        self.needed(field)?.as_u64().ok_or_else(|| self.wrong(field, "is no number"))
    }

    /// A whole number, where there is one.
    pub(crate) fn optional_number(&self, field: &str) -> Option<u64> {
        self.at(field).and_then(Value::as_u64)
    }

    /// The texts of a list, where there is one.
    pub(crate) fn texts(&self, field: &str) -> Vec<&str> {
        let list = self.at(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_str).collect()
    }

    /// The elements of a list.
    pub(crate) fn list(&self, field: &str) -> Result<Vec<Self>> {
        let list = self.needed(field)?.as_array().ok_or_else(|| self.wrong(field, "is no list"))?;
        let element =
            |value: &Value| Self { value: value.clone(), operation: self.operation, subject: self.subject.clone() };
        Ok(list.iter().map(element).collect())
    }

    /// Fails when the answer is about something else.
    pub(crate) fn about(&self, id: &str) -> Result<()> {
        let told = self.text("id")?;
        if told == id { Ok(()) } else { Err(self.wrong("id", "names another sandbox")) }
    }
}

/// Whether a text can be a sandbox's identity. Nothing else goes into an address.
pub(crate) fn is_id(text: &str) -> bool {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !text.is_empty() && text.len() <= 64 && text.bytes().all(harmless)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use pcoder_sdk::testing::FakeHost;
    use serde_json::json;

    use super::*;

    fn answer(status: u16, body: &Value) -> Result<Response> {
        Ok(Response { status, headers: Vec::new(), body: body.to_string().into_bytes() })
    }

    fn asked(status: u16, body: &Value) -> Result<Data> {
        let host = FakeHost::new();
        host.set("endpoint", "https://api.example/");
        host.secret("CSB_API_KEY", "placeholder");
        host.respond(answer(status, body));
        Api::new(host.provider(), "provider.get").once("GET", "/sandbox/a?x=1", None)
    }

    #[test]
    fn an_answer_without_data_is_an_error_of_the_server() {
        for body in [json!({}), json!([1]), json!("x"), json!({"errors": []})] {
            assert_eq!(asked(200, &body).unwrap_err().code, "server", "{body}");
        }
        assert!(asked(200, &json!({"data": {}})).is_ok());
        assert!(asked(200, &json!({"success": true})).is_ok());
    }

    #[test]
    fn a_failure_says_what_the_service_said() {
        let error = asked(422, &json!({"errors": [{"tier": ["is invalid"]}]})).unwrap_err();
        assert_eq!(error.code, "invalid");
        assert!(error.message.ends_with("(HTTP 422): `tier` is invalid"), "{}", error.message);
        assert_eq!(error.subject.as_deref(), Some("https://api.example/sandbox/a"));
        let error = asked(404, &json!({"errors": ["Not found"]})).unwrap_err();
        assert_eq!((error.code.as_str(), error.message.ends_with(": Not found")), ("not-found", true));
    }

    #[test]
    fn nothing_that_looks_like_a_credential_is_repeated() {
        for text in ["the key csb_v1_x is wrong", "Bearer x", "a\nb", &"x".repeat(300)] {
            let error = asked(401, &json!({"errors": [text]})).unwrap_err();
            assert!(error.message.ends_with("(HTTP 401)"), "{}", error.message);
            assert!(error.hint.unwrap().contains("secrets.CSB_API_KEY"));
        }
    }

    #[test]
    fn a_field_that_is_missing_is_named() {
        let data = asked(200, &json!({"data": {"a": null, "b": {"c": 3}, "d": ""}})).unwrap();
        assert_eq!(data.number("b.c"), Ok(3));
        for field in ["a", "b.x", "c"] {
            let error = data.text(field).unwrap_err();
            assert_eq!(
                (error.code.as_str(), error.message),
                ("server", format!("the answer's field `{field}` is missing"))
            );
        }
        assert!(data.text("d").is_err() && data.text("b.c").is_err());
        assert!(data.about("a").is_err());
    }

    #[test]
    fn no_identity_leads_to_another_address() {
        assert!(is_id("pcz35m") && is_id("a-b_c"));
        for id in ["", "../x", "a/b", "a?b", "a b", "é"] {
            assert!(!is_id(id), "{id}");
        }
    }
}
