//! Server-sent events, read as they arrive (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its type; empty where it has none.
    pub name: String,
    /// Its data, lines joined with line feeds.
    pub data: String,
}

/// Makes events of a stream's bytes, in pieces of any size.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// A carriage return ended the last line; a line feed behind it belongs to it.
    returned: bool,
    name: String,
    data: Option<String>,
}

impl Parser {
    /// Takes what arrived, and returns the events that it makes whole. Those without data are none.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in bytes {
            let belongs = std::mem::take(&mut self.returned) && byte == b'\n';
            match byte {
                _ if belongs => {}
                b'\n' | b'\r' => {
                    self.returned = byte == b'\r';
                    events.extend(self.end_of_line());
                }
                other => self.line.push(other),
            }
        }
        events
    }

    /// The event that the stream ended in, where its server sends no empty line behind the last one. It may be cut off.
    pub fn finish(&mut self) -> Option<Event> {
        let last = if self.line.is_empty() { None } else { self.end_of_line() };
        last.or_else(|| self.end_of_line())
    }

    fn end_of_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            return self.data.take().map(|data| Event { name, data });
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match (field, &mut self.data) {
            ("event", _) => value.clone_into(&mut self.name),
            ("data", Some(data)) => {
                data.push('\n');
                data.push_str(value);
            }
            ("data", none) => *none = Some(value.to_owned()),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn events_come_however_they_are_cut() {
        let text = "data: a\ndata:b\n\n: a comment\n\nid: 1\r\nevent: x\r\ndata:  é\r\n\r\nevent: y\n\ndata\r\rdata: z";
        let expected = [event("", "a\nb"), event("x", " é"), event("", "")];
        for size in 1..=text.len() {
            let mut parser = Parser::default();
            let events: Vec<_> = text.as_bytes().chunks(size).flat_map(|piece| parser.push(piece)).collect();
            assert_eq!(events, expected, "{size}");
            assert_eq!((parser.finish(), parser.finish()), (Some(event("", "z")), None));
        }
    }
}
