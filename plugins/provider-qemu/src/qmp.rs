//! QMP: QEMU's protocol. One JSON object a line; an answer carries its command's number.
//!
//! A talk may find what another one left: answers that nobody waited for, events, the greeting. So numbers begin
//! somewhere else in each talk, and whatever is not the answer is an event or nothing.

use std::collections::VecDeque;
use std::time::Duration;

use pcoder_sdk::host::{Clock, ProviderHost, Talk};
use pcoder_sdk::{Error, Result, code, text};
use serde::Deserialize;
use serde_json::{Value, json};

/// How long QEMU may take for an answer. Software that emulates on a busy machine keeps it waiting.
const ANSWER: Duration = Duration::from_secs(20);
/// Events that nobody asked for yet; the oldest go first.
const EVENTS: usize = 256;

/// A talk with a QEMU.
pub(crate) struct Qmp<'a> {
    talk: Box<dyn Talk>,
    clock: &'a dyn Clock,
    operation: &'static str,
    /// How long an answer may take.
    answer: Duration,
    next: u64,
    events: VecDeque<Event>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Event {
    #[serde(rename = "event")]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) data: Value,
}

#[derive(Deserialize)]
struct Answer {
    id: Value,
    #[serde(default)]
    error: Option<Refusal>,
    #[serde(rename = "return", default)]
    value: Value,
}

#[derive(Deserialize)]
struct Refusal {
    class: String,
    desc: String,
}

impl<'a> Qmp<'a> {
    /// Begins a talk, once those are through who came before.
    pub(crate) fn open(
        host: ProviderHost<'a>,
        operation: &'static str,
        service: &str,
        patience: Duration,
    ) -> Result<Self> {
        let talk = host.services().talk(service, patience).map_err(|error| error.during(operation))?;
        // Whole numbers up to here are the same in every reader of JSON.
        let next = host.random().bits() >> 16;
        Ok(Self { talk, clock: host.clock(), operation, answer: ANSWER, next, events: VecDeque::new() })
    }

    /// The same for what can be done without.
    #[must_use]
    pub(crate) fn answering_within(self, answer: Duration) -> Self {
        Self { answer, ..self }
    }

    /// What it is for.
    pub(crate) fn operation(&self) -> &'static str {
        self.operation
    }

    /// What has to be said once before any other command. To say it again is refused, and no harm.
    pub(crate) fn negotiate(&mut self) -> Result<()> {
        self.ask(&json!({ "execute": "qmp_capabilities" })).map(drop)
    }

    /// Runs a command and returns its answer's value.
    pub(crate) fn run(&mut self, command: &str) -> Result<Value> {
        self.send(&json!({ "execute": command }))
    }

    pub(crate) fn run_with(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.send(&json!({ "execute": command, "arguments": arguments }))
    }

    /// A command of the monitor for people, which answers in words.
    pub(crate) fn monitor(&mut self, line: &str) -> Result<String> {
        let answer = self.run_with("human-monitor-command", json!({ "command-line": line }))?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    fn send(&mut self, message: &Value) -> Result<Value> {
        let refused = match self.ask(message)? {
            Ok(value) => return Ok(value),
            Err(refused) => refused,
        };
        // Whoever was to say the first word was killed before that.
        let refused = match refused.class == "CommandNotFound" {
            true => {
                self.negotiate()?;
                match self.ask(message)? {
                    Ok(value) => return Ok(value),
                    Err(refused) => refused,
                }
            }
            false => refused,
        };
        let command = message.get("execute").and_then(Value::as_str).unwrap_or_default();
        let words = text::tail(refused.desc.as_bytes(), 1, 300);
        Err(Error::new(code::PROCESS, self.operation, format!("QEMU refused `{command}`: {words}")))
    }

    fn ask(&mut self, message: &Value) -> Result<std::result::Result<Value, Refusal>> {
        self.next += 1;
        let mut message = message.clone();
        if let Some(fields) = message.as_object_mut() {
            fields.insert("id".to_owned(), self.next.into());
        }
        self.talk.send(&message.to_string()).map_err(|error| error.during(self.operation))?;
        let started = self.clock.monotonic();
        loop {
            let left = self.answer.saturating_sub(self.clock.monotonic().saturating_sub(started));
            if left.is_zero() {
                let message = format!("QEMU gave no answer within {} s", self.answer.as_secs());
                return Err(Error::new(code::TIMEOUT, self.operation, message));
            }
            match self.line()? {
                None => self.talk.wait(left),
                Some(line) => match serde_json::from_str::<Answer>(&line) {
                    Ok(answer) if answer.id.as_u64() == Some(self.next) => {
                        return Ok(answer.error.map_or(Ok(answer.value), Err));
                    }
                    // Somebody else's.
                    Ok(_) => {}
                    Err(_) => self.note(&line),
                },
            }
        }
    }

    fn line(&self) -> Result<Option<String>> {
        self.talk.try_receive().map_err(|error| error.during(self.operation))
    }

    fn note(&mut self, line: &str) {
        if let Ok(event) = serde_json::from_str(line) {
            if self.events.len() == EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(event);
        }
    }

    /// The events that came, once each. Those that are there when QEMU ends come before the error that says so.
    pub(crate) fn events(&mut self) -> Result<Vec<Event>> {
        // Bounded, so that one that never stops talking does not keep anybody.
        for _ in 0..EVENTS {
            match self.line() {
                Ok(Some(line)) => self.note(&line),
                Ok(None) => break,
                Err(error) if self.events.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(self.events.drain(..).collect())
    }

    /// Waits for something to be said.
    pub(crate) fn wait(&self, longest: Duration) {
        self.talk.wait(longest);
    }

    /// Waits until QEMU's output ends, and says whether it did.
    pub(crate) fn ends_within(&mut self, longest: Duration) -> bool {
        let started = self.clock.monotonic();
        loop {
            match self.line() {
                Err(_) => return true,
                Ok(Some(_)) => {}
                Ok(None) => {
                    let left = longest.saturating_sub(self.clock.monotonic().saturating_sub(started));
                    if left.is_zero() {
                        return false;
                    }
                    self.talk.wait(left);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcoder_sdk::ServiceSpec;
    use pcoder_sdk::host::Services as _;
    use pcoder_sdk::testing::{FakeHost, Folder, Program};

    /// Answers each command with these lines, in which `ID` is the command's number.
    struct Lines(Vec<&'static str>, VecDeque<Vec<&'static str>>);

    impl Program for Lines {
        fn goes_on(&mut self, _: Duration, _: &Folder) -> Vec<String> {
            self.0.drain(..).map(str::to_owned).collect()
        }

        fn told(&mut self, line: &str, _: &Folder) -> Vec<String> {
            let message: Value = serde_json::from_str(line).unwrap();
            let id = message["id"].to_string();
            self.1.pop_front().unwrap_or_default().iter().map(|it| it.replace("ID", &id)).collect()
        }
    }

    fn talking<T>(
        first: &[&'static str],
        answers: &[&[&'static str]],
        run: impl FnOnce(&mut Qmp<'_>) -> T,
    ) -> (T, usize) {
        let (first, answers) = (first.to_vec(), answers.iter().map(|it| it.to_vec()).collect::<VecDeque<_>>());
        let host = FakeHost::new().running(move |_, _| Ok(Box::new(Lines(first.clone(), answers.clone()))));
        let spec = ServiceSpec { program: "q".to_owned(), args: Vec::new(), folder: ".".to_owned() };
        host.start("q", &spec).unwrap();
        let mut qmp = Qmp::open(host.provider(), "o", "q", Duration::ZERO).unwrap();
        let result = run(&mut qmp);
        let events = qmp.events().unwrap().len();
        (result, events)
    }

    #[test]
    fn an_answer_is_found_among_what_is_none() {
        let first =
            [r#"{"QMP":{"version":{}}}"#, r#"{"return":{},"id":7}"#, "", "garbage", "[1]", "7", r#"{"event":7}"#];
        let answer =
            [r#"{"event":"STOP","timestamp":{}}"#, r#"{"id":null,"return":1}"#, r#"{"id":ID,"return":{"a":1}}"#];
        let (result, events) = talking(&first, &[&answer], |qmp| qmp.run("query-status"));
        assert_eq!((result, events), (Ok(json!({ "a": 1 })), 1));
    }

    #[test]
    fn a_refusal_is_told_without_control_characters() {
        let answer = [r#"{"id":ID,"error":{"class":"GenericError","desc":"no\u001b[31m"}}"#];
        let (result, _) = talking(&[], &[&answer], |qmp| qmp.run("x"));
        assert_eq!(result.map_err(|it| it.message), Err("QEMU refused `x`: no[31m".to_owned()));
    }

    #[test]
    fn the_first_word_is_said_where_it_was_not() {
        let expecting =
            [r#"{"id":ID,"error":{"class":"CommandNotFound","desc":"Expecting capabilities negotiation"}}"#];
        let done = [r#"{"id":ID,"return":2}"#];
        let (result, _) = talking(&[], &[&expecting, &[r#"{"id":ID,"return":{}}"#], &done], |qmp| qmp.run("x"));
        assert_eq!(result, Ok(json!(2)));
        // It was said before, and there is no such command.
        let (result, _) = talking(&[], &[&expecting, &expecting, &expecting], |qmp| qmp.run("x"));
        assert!(result.is_err());
    }

    #[test]
    fn one_that_says_nothing_is_given_up() {
        let (result, _) = talking(&[], &[], |qmp| qmp.run("x"));
        assert_eq!(result.map_err(|it| it.code), Err(code::TIMEOUT.to_owned()));
    }
}
