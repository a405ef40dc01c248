//! The agent's messages: one msgpack map each, in a binary frame.
//!
//! Requests are written by hand, because a placeholder of a secret changes its length when the host fills it: the length
//! in front of a text or bytes is the one that it will have.

use pcoder_sdk::{Error, Result, code};
use rmp::encode::{write_bin_len, write_bool, write_map_len, write_str_len, write_uint};
use rmpv::Value;

/// A parameter of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Param<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
    Bool(bool),
    Number(u64),
    Map(&'a [(&'a str, Param<'a>)]),
}

/// A request in one frame. `size` says how many bytes a content has once it is filled.
pub(crate) fn request(
    method: &str,
    params: &[(&str, Param<'_>)],
    id: u64,
    size: &dyn Fn(&[u8]) -> u64,
) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    let written = (|| {
        write_map_len(&mut frame, 3)?;
        text(&mut frame, "method", &plain)?;
        text(&mut frame, method, &plain)?;
        text(&mut frame, "params", &plain)?;
        param(&mut frame, Param::Map(params), size)?;
        text(&mut frame, "id", &plain)?;
        write_uint(&mut frame, id)?;
        Ok::<(), Oversized>(())
    })();
    written.map_err(|Oversized| Error::invalid("pitcher.send", "a message is larger than the protocol allows"))?;
    Ok(frame)
}

/// What does not fit into the format's lengths. Writing to memory does not fail otherwise.
struct Oversized;

impl<E: rmp::encode::RmpWriteErr> From<rmp::encode::ValueWriteError<E>> for Oversized {
    fn from(_: rmp::encode::ValueWriteError<E>) -> Self {
        Self
    }
}

impl From<std::io::Error> for Oversized {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

impl From<std::num::TryFromIntError> for Oversized {
    fn from(_: std::num::TryFromIntError) -> Self {
        Self
    }
}

fn plain(content: &[u8]) -> u64 {
    content.len() as u64
}

fn text(frame: &mut Vec<u8>, content: &str, size: &dyn Fn(&[u8]) -> u64) -> Result<(), Oversized> {
    write_str_len(frame, u32::try_from(size(content.as_bytes()))?)?;
    frame.extend_from_slice(content.as_bytes());
    Ok(())
}

fn param(frame: &mut Vec<u8>, value: Param<'_>, size: &dyn Fn(&[u8]) -> u64) -> Result<(), Oversized> {
    match value {
        Param::Text(content) => text(frame, content, size)?,
        Param::Bytes(content) => {
            write_bin_len(frame, u32::try_from(size(content))?)?;
            frame.extend_from_slice(content);
        }
        Param::Bool(value) => write_bool(frame, value)?,
        Param::Number(value) => drop(write_uint(frame, value)?),
        // As the SDK: what has no parameters has an empty map.
        Param::Map(fields) => {
            write_map_len(frame, u32::try_from(fields.len())?)?;
            for (name, value) in fields {
                text(frame, name, &plain)?;
                param(frame, *value, size)?;
            }
        }
    }
    Ok(())
}

/// An error that the agent replied.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) errno: Option<i64>,
}

/// What the agent sends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Incoming {
    Reply { id: u64, result: Result<Value, Failure> },
    Notification { method: String, params: Value },
}

/// The message in a frame. What has an `id` is a reply, what has none a notification; of a reply, what has an `error` is
/// one, and the `result` may be nil.
pub(crate) fn decode(frame: &[u8]) -> Result<Incoming> {
    let unreadable = |what: &str| Error::new(code::SERVER, "pitcher.receive", format!("a message of the agent {what}"));
    let mut rest = frame;
    let value = rmpv::decode::read_value(&mut rest).map_err(|_| unreadable("is cut off or is no msgpack"))?;
    if !rest.is_empty() {
        return Err(unreadable("has bytes behind its end"));
    }
    let Value::Map(fields) = value else { return Err(unreadable("is no map")) };
    let (mut id, mut method, mut params, mut result, mut error) = (None, None, Value::Nil, None, None);
    for (key, value) in fields {
        match key.as_str() {
            Some("id") if !value.is_nil() => {
                id = Some(value.as_u64().ok_or_else(|| unreadable("has an id that is no number"))?);
            }
            Some("method") => method = value.as_str().map(str::to_owned),
            Some("params") => params = value,
            Some("result") => result = Some(value),
            Some("error") if !value.is_nil() => error = Some(value),
            _ => {}
        }
    }
    match (id, method) {
        (Some(id), _) => {
            let result = match (error, result) {
                (Some(error), _) => Err(failure(&error)),
                (None, Some(result)) => Ok(result),
                (None, None) => return Err(unreadable("is a reply without `result` and `error`")),
            };
            Ok(Incoming::Reply { id, result })
        }
        (None, Some(method)) => Ok(Incoming::Notification { method, params }),
        (None, None) => Err(unreadable("has neither `id` nor `method`")),
    }
}

fn failure(error: &Value) -> Failure {
    let message = field(error, "message").and_then(Value::as_str).unwrap_or_default();
    // A code that is missing is as bad as the worst.
    let code = field(error, "code").and_then(Value::as_i64).unwrap_or(0);
    let errno = field(error, "data").and_then(|data| field(data, "errno")).and_then(Value::as_i64);
    Failure { code, message: message.to_owned(), errno }
}

/// A field of a map.
pub(crate) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.as_map()?.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<char> = text.chars().filter(|it| !it.is_whitespace()).collect();
        let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    /// As the SDK 2.4.2 was seen to send them.
    #[test]
    fn requests_are_those_of_the_sdk() {
        let setup = hex("83a66d6574686f64a973657475702f676574a6706172616d7380a2696401");
        assert_eq!(request("setup/get", &[], 1, &plain).unwrap(), setup);
        let read = hex("83a66d6574686f64ab66732f7265616446696c65a6706172616d7381a470617468a162a2696406");
        assert_eq!(request("fs/readFile", &[("path", Param::Text("b"))], 6, &plain).unwrap(), read);
        let write =
            hex("83a66d6574686f64ac66732f777269746546696c65a6706172616d7384a470617468a162a7636f6e74656e74c40200ff
             a6637265617465c3a96f7665727772697465c3a2696405");
        let params = [
            ("path", Param::Text("b")),
            ("content", Param::Bytes(&[0, 0xff])),
            ("create", Param::Bool(true)),
            ("overwrite", Param::Bool(true)),
        ];
        assert_eq!(request("fs/writeFile", &params, 5, &plain).unwrap(), write);
    }

    #[test]
    fn a_length_is_the_one_after_filling() {
        let placeholder = "pcoder-secret-0123456789abcdef0123456789abcdef";
        let value = "v".repeat(300);
        let size = |content: &[u8]| {
            let text = String::from_utf8_lossy(content);
            text.replace(placeholder, &value).len() as u64
        };
        let content = format!("a{placeholder}b");
        let params = [("path", Param::Text(&content)), ("content", Param::Bytes(content.as_bytes()))];
        let frame = request("fs/writeFile", &params, 5, &size).unwrap();
        // What the host does on the way out; the frame is bytes, of which the texts are whole.
        let filled: Vec<u8> = {
            let mut rest = frame.as_slice();
            let mut filled = Vec::new();
            while let Some(at) = rest.windows(placeholder.len()).position(|it| it == placeholder.as_bytes()) {
                filled.extend_from_slice(&rest[..at]);
                filled.extend_from_slice(value.as_bytes());
                rest = &rest[at + placeholder.len()..];
            }
            filled.extend_from_slice(rest);
            filled
        };
        let read = rmpv::decode::read_value(&mut filled.as_slice()).unwrap();
        let params = field(&read, "params").unwrap();
        assert_eq!(field(params, "path").unwrap().as_str(), Some(format!("a{value}b").as_str()));
        assert_eq!(field(params, "content").unwrap().as_slice(), Some(format!("a{value}b").as_bytes()));
    }

    fn encoded(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).unwrap();
        bytes
    }

    fn map(fields: &[(&str, Value)]) -> Value {
        Value::Map(fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect())
    }

    #[test]
    fn replies_and_notifications_are_told_apart() {
        let reply = map(&[("id", 3.into()), ("method", "m".into()), ("status", 0.into()), ("result", Value::Nil)]);
        assert_eq!(decode(&encoded(&reply)), Ok(Incoming::Reply { id: 3, result: Ok(Value::Nil) }));
        let error =
            map(&[("code", 102.into()), ("message", "No such file".into()), ("data", map(&[("errno", 2.into())]))]);
        let failed = map(&[("id", 3.into()), ("error", error)]);
        let failure = Failure { code: 102, message: "No such file".to_owned(), errno: Some(2) };
        assert_eq!(decode(&encoded(&failed)), Ok(Incoming::Reply { id: 3, result: Err(failure) }));
        let told = map(&[("method", "shell/exit".into()), ("params", 1.into())]);
        let expected = Incoming::Notification { method: "shell/exit".to_owned(), params: 1.into() };
        assert_eq!(decode(&encoded(&told)), Ok(expected));
    }

    #[test]
    fn what_is_no_message_is_an_error_of_the_server() {
        let whole = encoded(&map(&[("id", 3.into()), ("result", "abc".into())]));
        let behind = [whole.as_slice(), &[0]].concat();
        let frames = [
            &whole[..whole.len() - 1],
            &behind,
            &[],
            &encoded(&Value::Nil),
            &encoded(&map(&[("id", "x".into()), ("result", Value::Nil)])),
            &encoded(&map(&[("id", 1.into())])),
            &encoded(&map(&[("x", 1.into())])),
            // An array that says it has four thousand million elements.
            &[0xdd, 0xff, 0xff, 0xff, 0xff],
        ];
        for frame in frames {
            assert_eq!(decode(frame).unwrap_err().code, "server", "{frame:?}");
        }
    }
}
