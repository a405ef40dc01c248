//! The newer agent in a sandbox, "Pint": REST, and output as server-sent events. From its OpenAPI document,
//! "Pint API 1.0.0" (<https://github.com/codesandbox/codesandbox-sdk>, `pint-openapi-bundled.json`).
//!
//! Its files are text and so is its output, so contents travel as base64 over commands.

mod execs;
mod files;

pub(crate) use self::files::PIECE;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::http::{Arriving, Request, Response, check};
use pcoder_sdk::retry::Policy;
use pcoder_sdk::{Error, Result, code};
use serde_json::Value;

use self::execs::{Exec, Known};
use crate::agent::{Beside, Event};
use crate::config;

/// The longest message of the agent that is repeated.
const LONGEST_MESSAGE: usize = 200;

/// The way to the agent of one sandbox.
pub(crate) struct Agent<'a> {
    pub(crate) host: ProviderHost<'a>,
    pub(crate) operation: &'static str,
    pub(crate) sandbox: String,
    url: String,
    token: String,
    /// Those whose output is waited for.
    execs: Vec<Exec>,
    /// How far the output of execs was heard before the connection broke off.
    known: HashMap<String, Known>,
    events: VecDeque<Event>,
    /// It has answered once, so it knew the token.
    answered: bool,
    hibernated: bool,
    broken: bool,
}

impl<'a> Agent<'a> {
    /// The agent at this address. Nothing is asked yet.
    pub(crate) fn new(host: ProviderHost<'a>, operation: &'static str, sandbox: &str, url: &str, token: &str) -> Self {
        Self {
            host,
            operation,
            sandbox: sandbox.to_owned(),
            url: url.trim_end_matches('/').to_owned(),
            token: token.to_owned(),
            execs: Vec::new(),
            known: HashMap::new(),
            events: VecDeque::new(),
            answered: false,
            hibernated: false,
            broken: false,
        }
    }

    /// The steps of the set-up, which runs by itself: the name and the status of each.
    pub(crate) fn setup(&mut self) -> Result<Vec<(String, String)>> {
        let answer = self.again("GET", "setup-tasks")?;
        let wrong = || self.wrong("setup-tasks", "setupTasks");
        let tasks = answer.get("setupTasks").and_then(Value::as_array).ok_or_else(wrong)?;
        let text = |task: &Value, name: &str| task.get(name).and_then(Value::as_str).map(str::to_owned);
        tasks.iter().map(|task| text(task, "name").zip(text(task, "status")).ok_or_else(wrong)).collect()
    }

    /// Whether the connection ended for no reason of the sandbox's, so that another one may do.
    pub(crate) fn is_cut(&self) -> bool {
        self.broken && !self.hibernated
    }

    /// The next thing that happened to a shell.
    pub(crate) fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Takes what has come; or waits for something, for what is beside it, or until the time is over.
    pub(crate) fn turn(&mut self, longest: Duration, beside: Beside<'_, '_>) -> Result<()> {
        self.listen()?;
        if self.events.is_empty() {
            let mut bodies: Vec<_> = self.execs.iter_mut().map(Exec::body).collect();
            self.host.http().wait(&mut bodies, beside.input, beside.terminal, longest);
        }
        Ok(())
    }

    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Request {
        let request = Request::new(method, format!("{}/api/v1/{path}", self.url))
            .header("authorization", format!("Bearer {}", self.token))
            .header("user-agent", concat!("pcoder-provider-codesandbox/", env!("CARGO_PKG_VERSION")));
        match body {
            Some(body) => request.body("application/json", body.to_string()),
            None => request,
        }
    }

    /// Sends a request, once.
    fn once(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let request = self.request(method, path, body).header("accept", "application/json");
        let response = self.host.http().send(&request).map_err(|error| self.lost(error))?;
        let response = self.checked(response)?;
        serde_json::from_slice(&response.body).map_err(|_| self.wrong(path, "body"))
    }

    /// Sends a request that may be done twice without harm, again where trying again may help.
    fn again(&mut self, method: &str, path: &str) -> Result<Value> {
        self.patiently(|agent| agent.once(method, path, None))
    }

    /// Asks for a stream of events.
    fn open(&mut self, path: &str) -> Result<Arriving> {
        self.patiently(|agent| {
            let request = agent.request("GET", path, None).header("accept", "text/event-stream");
            let arriving = agent.host.http().open(&request).map_err(|error| agent.lost(error))?;
            if (200..300).contains(&arriving.status) {
                agent.answered = true;
                return Ok(arriving);
            }
            let response = arriving.whole().map_err(|error| agent.lost(error))?;
            let refused = agent.checked(response).err();
            Err(refused.unwrap_or_else(|| agent.wrong(path, "status")))
        })
    }

    /// Does what may be done twice. One answer makes up for those that did not come.
    fn patiently<T>(&mut self, mut ask: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        let before = self.broken;
        let policy = Policy { attempts: 3, ..Policy::default() };
        let answer = policy.run(self.host.clock(), self.host.random(), |_| {
            self.broken = before;
            ask(self)
        })?;
        Ok(answer)
    }

    /// There is no answer.
    fn lost(&mut self, error: Error) -> Error {
        match error.code.as_str() {
            code::DENIED => {
                let hint = config::elsewhere("pint", &self.url);
                error.during(self.operation).subject(&self.url).hint(hint)
            }
            code::NETWORK | code::TIMEOUT | code::UNAVAILABLE => {
                self.broken = true;
                let message = format!("the sandbox's agent is gone: {}", error.message);
                Error::new(code::UNAVAILABLE, self.operation, message).subject(&self.sandbox)
            }
            _ => error.during(self.operation),
        }
    }

    fn checked(&mut self, response: Response) -> Result<Response> {
        let (status, said) = (response.status, said(&response.body, &self.token));
        let now = self.host.clock().now_ms();
        let mut error = match check(response, self.operation, &self.sandbox, now) {
            Ok(response) => {
                self.answered = true;
                return Ok(response);
            }
            Err(error) => error,
        };
        if let Some(said) = said {
            error.message = format!("{}: {said}", error.message);
        }
        if status == 401 && self.answered {
            // Its tokens end with the run of the machine that they are for.
            self.hibernated = true;
            return Err(Error::new(code::UNAVAILABLE, self.operation, "the sandbox hibernates")
                .subject(&self.sandbox)
                .hint(format!("`pcoder instance resume {}`, and try again", self.sandbox)));
        }
        self.broken |= error.code == code::UNAVAILABLE;
        Err(error)
    }

    /// The error of an answer in which a field is not what it must be.
    fn wrong(&self, path: &str, field: &str) -> Error {
        let what = path.split(['?', '/']).next().unwrap_or(path);
        let message = format!("the field `{field}` of the agent's answer to `{what}` is missing or of another kind");
        Error::new(code::SERVER, self.operation, message).subject(&self.sandbox)
    }
}

/// What the agent says of a failure. Nothing that looks like a credential, and nothing long.
fn said(body: &[u8], token: &str) -> Option<String> {
    let content: Value = serde_json::from_slice(body).ok()?;
    let text = content.get("message")?.as_str()?;
    let harmless = !text.is_empty()
        && text.chars().count() <= LONGEST_MESSAGE
        && !text.chars().any(char::is_control)
        && !text.contains("Bearer")
        && !text.contains(token);
    harmless.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use pcoder_sdk::testing::FakeHost;
    use serde_json::json;

    use super::*;

    fn asked(status: u16, body: &[u8], answered: bool) -> (Result<Value>, bool) {
        let host = FakeHost::new();
        host.respond(Ok(Response { status, headers: Vec::new(), body: body.to_vec() }));
        let mut agent = Agent::new(host.provider(), "provider.exec", "box", "https://a.b/c/", "t0ken");
        agent.answered = answered;
        let answer = agent.once("GET", "execs/x", None);
        (answer, agent.is_cut())
    }

    #[test]
    fn a_failure_says_what_the_agent_said_and_no_credential() {
        let error = asked(404, json!({"code": 404, "message": "exec not found"}).to_string().as_bytes(), true).0;
        let error = error.unwrap_err();
        assert_eq!((error.code.as_str(), error.subject.as_deref()), ("not-found", Some("box")));
        assert!(error.message.ends_with(": exec not found"), "{}", error.message);
        for text in ["the token t0ken is wrong", "Bearer x", "a\nb"] {
            let error = asked(403, json!({"message": text}).to_string().as_bytes(), true).0.unwrap_err();
            assert!(error.message.ends_with("(HTTP 403)"), "{}", error.message);
        }
    }

    #[test]
    fn a_token_that_was_known_ends_with_the_machines_run() {
        let (error, cut) = asked(401, b"{}", true);
        assert_eq!((error.unwrap_err().code.as_str(), cut), ("unavailable", false));
        let (error, cut) = asked(401, b"{}", false);
        assert_eq!((error.unwrap_err().code.as_str(), cut), ("unauthenticated", false));
        let (error, cut) = asked(503, b"<html>", true);
        assert_eq!((error.unwrap_err().code.as_str(), cut), ("unavailable", true));
        assert_eq!(asked(200, b"{", true).0.unwrap_err().code, "server");
    }

    #[test]
    fn an_address_outside_of_the_setting_names_the_setting() {
        let host = FakeHost::new();
        host.respond(Err(Error::new(code::DENIED, "http.send", "m")));
        let mut agent = Agent::new(host.provider(), "provider.exec", "box", "https://a.b/c", "t");
        let error = agent.setup().unwrap_err();
        assert_eq!((error.operation.as_str(), error.code.as_str()), ("provider.exec", "denied"));
        assert!(error.hint.unwrap().contains("plugins.provider-codesandbox.pint https://a.b`"));
    }
}
