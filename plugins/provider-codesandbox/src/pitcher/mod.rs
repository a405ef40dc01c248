//! The agent in a sandbox, "pitcher": requests, replies and notifications over one WebSocket.

mod failure;
pub(crate) mod frame;
mod fs;
mod shell;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use pcoder_sdk::host::{ProviderHost, WebSocket};
use pcoder_sdk::{Error, Message, Result, code};
use rmpv::Value;

use self::frame::{Failure, Incoming, Param};
pub(crate) use self::fs::FRAME;
use crate::agent::{Beside, Event};
use crate::config;

/// How long a reply may take. The official client waits as long.
const REQUEST: Duration = Duration::from_secs(90);
/// After how long without a word an empty message asks whether somebody is there.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// How long the answer to that may take.
const SILENCE: Duration = Duration::from_secs(60);
/// How often the sandbox is told that it is in use, so that it does not hibernate.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// What is shorter holds no placeholder of a secret.
const SHORTEST_PLACEHOLDER: usize = 40;
/// The protocol that is spoken: that of the SDK 2.4.2.
const PROTOCOL: &str = "0.367.10";

/// An open connection to the agent of one sandbox.
pub(crate) struct Agent<'a> {
    pub(crate) host: ProviderHost<'a>,
    pub(crate) operation: &'static str,
    pub(crate) sandbox: String,
    socket: Box<dyn WebSocket>,
    next: u64,
    replies: HashMap<u64, Result<Value, Failure>>,
    /// Requests whose replies nobody waits for.
    unheard: HashSet<u64>,
    events: VecDeque<Event>,
    /// Progress of the set-up that nobody has looked at.
    setup: Option<Value>,
    heard: Duration,
    beaten: Duration,
    kept: Duration,
    hibernated: bool,
    broken: bool,
}

impl<'a> Agent<'a> {
    /// Connects and introduces itself, which every connection begins with.
    pub(crate) fn connect(
        host: ProviderHost<'a>,
        operation: &'static str,
        sandbox: &str,
        url: &str,
        token: &str,
    ) -> Result<Self> {
        let address = format!("{}/?token={}", url.trim_end_matches('/'), escaped(token));
        let socket = host.websockets().connect(&address, &[]).map_err(|error| unreachable(error, operation, url))?;
        let now = host.clock().monotonic();
        let mut agent = Self {
            host,
            operation,
            sandbox: sandbox.to_owned(),
            socket,
            next: 0,
            replies: HashMap::new(),
            unheard: HashSet::new(),
            events: VecDeque::new(),
            setup: None,
            heard: now,
            beaten: now,
            kept: now,
            hibernated: false,
            broken: false,
        };
        let yes = Param::Bool(true);
        let params = [
            ("clientInfo", Param::Map(&[("protocolVersion", Param::Text(PROTOCOL)), ("appId", Param::Text("sdk"))])),
            ("asyncProgress", yes),
            (
                "subscriptions",
                Param::Map(&[
                    ("client", Param::Map(&[("status", yes)])),
                    ("setup", Param::Map(&[("progress", yes)])),
                    ("shell", Param::Map(&[("status", yes)])),
                ]),
            ),
        ];
        agent.call("client/join", &params)?;
        Ok(agent)
    }

    /// Sends a request; its number, for [`Agent::reply`].
    pub(crate) fn send(&mut self, method: &str, params: &[(&str, Param<'_>)]) -> Result<u64> {
        let id = self.next;
        self.next += 1;
        let secrets = self.host.secrets();
        let size = |content: &[u8]| match content.len() {
            length if length < SHORTEST_PLACEHOLDER => length as u64,
            _ => secrets.filled_size(content),
        };
        let frame = frame::request(method, params, id, &size).map_err(|error| error.during(self.operation))?;
        let sent = self.socket.send(Message::Binary(frame));
        sent.map_err(|error| self.cut(error))?;
        Ok(id)
    }

    /// Does without the reply to a request.
    pub(crate) fn forget(&mut self, id: u64) {
        self.unheard.insert(id);
    }

    /// Waits for a reply.
    pub(crate) fn reply(&mut self, id: u64, method: &str) -> Result<Value> {
        let until = self.host.clock().monotonic() + REQUEST;
        loop {
            if let Some(result) = self.replies.remove(&id) {
                return result.map_err(|failure| failure::error(failure, self.operation, method, &self.sandbox));
            }
            let left = until.saturating_sub(self.host.clock().monotonic());
            if left.is_zero() {
                let message = format!("the sandbox's agent did not answer `{method}` within {} s", REQUEST.as_secs());
                return Err(Error::new(code::TIMEOUT, self.operation, message).subject(&self.sandbox));
            }
            self.turn(left, Beside::default())?;
        }
    }

    /// Sends a request and waits for its reply.
    pub(crate) fn call(&mut self, method: &str, params: &[(&str, Param<'_>)]) -> Result<Value> {
        let id = self.send(method, params)?;
        self.reply(id, method)
    }

    /// Takes one message, where there is one; or waits for one, for what is beside it, or until the time is over.
    pub(crate) fn turn(&mut self, longest: Duration, beside: Beside<'_, '_>) -> Result<()> {
        self.keep_alive()?;
        let received = self.socket.try_receive();
        match received.map_err(|error| self.cut(error))? {
            Some(message) => self.take(message),
            None if self.is_silent() => {
                let error = Error::new(code::UNAVAILABLE, self.operation, "it says nothing any more");
                Err(self.cut(error))
            }
            None => {
                let wait = longest.min(KEEP_ALIVE);
                self.socket.wait(beside.input, beside.terminal, wait);
                Ok(())
            }
        }
    }

    fn keep_alive(&mut self) -> Result<()> {
        let now = self.host.clock().monotonic();
        if self.beaten <= self.heard && now.saturating_sub(self.heard) >= HEARTBEAT {
            self.beaten = now;
            let sent = self.socket.send(Message::Text(String::new()));
            sent.map_err(|error| self.cut(error))?;
        }
        if now.saturating_sub(self.kept) >= KEEP_ALIVE {
            self.kept = now;
            let id = self.send("system/update", &[])?;
            self.forget(id);
        }
        Ok(())
    }

    /// Whether nobody answers. It counts from the question on: a call may wait for long for who takes its output, and
    /// what came meanwhile is still there.
    fn is_silent(&self) -> bool {
        self.beaten > self.heard && self.host.clock().monotonic().saturating_sub(self.beaten) >= SILENCE
    }

    fn take(&mut self, message: Message) -> Result<()> {
        self.heard = self.host.clock().monotonic();
        let Message::Binary(frame) = message else { return Ok(()) };
        let incoming = frame::decode(&frame).map_err(|error| error.during(self.operation).subject(&self.sandbox))?;
        match incoming {
            Incoming::Reply { id, .. } if self.unheard.remove(&id) => {}
            Incoming::Reply { id, result } => drop(self.replies.insert(id, result)),
            Incoming::Notification { method, params } => match method.as_str() {
                "system/hibernate" => self.hibernated = true,
                "setup/progress" => self.setup = Some(params),
                "system/initStatus" => {}
                method => self.events.extend(shell::event(method, &params)),
            },
        }
        Ok(())
    }

    /// The next thing that happened to a shell.
    pub(crate) fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The set-up's progress, if it was told since the last time.
    pub(crate) fn progress(&mut self) -> Option<Value> {
        self.setup.take()
    }

    /// Whether the connection ended for no reason of the sandbox's, so that another one may do.
    pub(crate) fn is_cut(&self) -> bool {
        self.broken && !self.hibernated
    }

    fn cut(&mut self, error: Error) -> Error {
        // What was said last may be why.
        while let Ok(Some(message)) = self.socket.try_receive() {
            if self.take(message).is_err() {
                break;
            }
        }
        if self.hibernated {
            return Error::new(code::UNAVAILABLE, self.operation, "the sandbox hibernates")
                .subject(&self.sandbox)
                .hint(format!("`pcoder instance resume {}`, and try again", self.sandbox));
        }
        if matches!(error.code.as_str(), code::UNAVAILABLE | code::NETWORK) {
            self.broken = true;
            return Error::new(
                code::UNAVAILABLE,
                self.operation,
                format!("the sandbox's agent is gone: {}", error.message),
            )
            .subject(&self.sandbox);
        }
        error.during(self.operation)
    }
}

/// The connection was not made.
fn unreachable(error: Error, operation: &str, url: &str) -> Error {
    let denied = error.code == code::DENIED;
    let error = Error { subject: Some(url.to_owned()), ..error.during(operation) };
    if denied { error.hint(config::elsewhere("agent", url)) } else { error }
}

/// A token as a part of a query.
fn escaped(token: &str) -> String {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let one = |byte: u8| if harmless(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    token.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stays_in_its_place() {
        assert_eq!(escaped("ey.J_a-1~"), "ey.J_a-1~");
        assert_eq!(escaped("a&b=c#+é"), "a%26b%3Dc%23%2B%C3%A9");
    }

    #[test]
    fn an_address_outside_of_the_setting_names_the_setting() {
        let error = unreachable(Error::new(code::DENIED, "websocket.connect", "m"), "provider.exec", "wss://a.b/c");
        assert_eq!((error.operation.as_str(), error.code.as_str()), ("provider.exec", "denied"));
        assert!(error.hint.is_some_and(|hint| hint.contains("plugins.provider-codesandbox.agent wss://a.b`")));
        let error = unreachable(Error::new(code::NETWORK, "websocket.connect", "m"), "provider.exec", "wss://a.b/c");
        assert_eq!((error.subject.as_deref(), error.hint), (Some("wss://a.b/c"), None));
    }
}
