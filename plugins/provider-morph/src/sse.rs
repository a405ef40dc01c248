//! What the events of `exec/sse` say.
//!
//! Two forms of them are described. The official clients read unnamed events of JSON (`{"type":"stdout","content":…}`); a
//! page of the service's documents shows named ones of plain text (`event: stdout`). Both are understood.

use std::collections::VecDeque;
use std::io::Read;

use pcoder_sdk::sse::{self, Parser};
use serde::Deserialize;
use serde_json::Value;

/// What an event says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Stdout(String),
    Stderr(String),
    /// The shell has ended with this code.
    Exit(i32),
    /// The service failed, in its own words.
    Failed(String),
}

/// How much of the stream is read at once.
const PIECE: usize = 16 << 10;

/// Reads events until the stream ends.
pub(crate) struct Events<R> {
    stream: R,
    parser: Parser,
    /// Those that arrived together.
    arrived: VecDeque<Event>,
}

impl<R: Read> Events<R> {
    pub(crate) fn of(stream: R) -> Self {
        Self { stream, parser: Parser::default(), arrived: VecDeque::new() }
    }

    /// The next event; nothing at the end. Events that mean nothing here are passed over.
    pub(crate) fn next(&mut self) -> std::io::Result<Option<Event>> {
        let mut buffer = [0; PIECE];
        loop {
            if let Some(event) = self.arrived.pop_front() {
                return Ok(Some(event));
            }
            match self.stream.read(&mut buffer)? {
                0 => return Ok(self.parser.finish().as_ref().and_then(understood)),
                count => self.arrived.extend(self.parser.push(&buffer[..count]).iter().filter_map(understood)),
            }
        }
    }
}

#[derive(Deserialize)]
struct Unnamed {
    r#type: String,
    #[serde(default)]
    content: Value,
}

fn understood(event: &sse::Event) -> Option<Event> {
    let data = event.data.as_str();
    let (kind, content) = match event.name.as_str() {
        "" | "message" => {
            let event: Unnamed = serde_json::from_str(data).ok()?;
            let content = match event.content {
                Value::String(text) => text,
                other => other.to_string(),
            };
            (event.r#type, content)
        }
        name => (name.to_owned(), data.to_owned()),
    };
    match kind.as_str() {
        "stdout" => Some(Event::Stdout(content)),
        "stderr" => Some(Event::Stderr(content)),
        "exit_code" | "exit" => content.trim().parse().ok().map(Event::Exit),
        "error" => Some(Event::Failed(content)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<Event> {
        let mut events = Events::of(text.as_bytes());
        std::iter::from_fn(|| events.next().unwrap()).collect()
    }

    fn out(text: &str) -> Event {
        Event::Stdout(text.to_owned())
    }

    #[test]
    fn both_forms_say_the_same() {
        let expected = [out("a\nb"), Event::Stderr("c".into()), Event::Exit(3)];
        let unnamed = "data: {\"type\":\"stdout\",\"content\":\"a\\nb\"}\n\n: kept alive\n\n\
                       data: {\"type\":\"stderr\",\"content\":\"c\"}\r\n\r\n\
                       data: {\"type\":\"exit_code\",\"content\":3}\n\ndata: [DONE]\n\n";
        assert_eq!(all(unnamed), expected);
        let named = "event: stdout\ndata: a\ndata: b\n\nid: 1\nevent: stderr\ndata:c\n\nevent: exit\ndata: 3\n\n";
        assert_eq!(all(named), expected);
        assert_eq!(all("event: error\ndata: no room\n\n"), [Event::Failed("no room".into())]);
    }

    #[test]
    fn a_stream_that_breaks_off_says_what_it_said() {
        assert_eq!(all("data: {\"type\":\"stdout\",\"content\":\"a\"}"), [out("a")]);
        assert_eq!(all("data: {\"type\":\"stdout\",\"con"), []);
        assert_eq!(all("event: stdout\n\n"), []);
        assert_eq!(all(""), []);
    }
}
