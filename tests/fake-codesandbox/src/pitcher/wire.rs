//! The messages of the agent: one msgpack value each.

use std::io;

use rmpv::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Codes of error replies, as the SDK's `PitcherErrorCode` has them.
pub(crate) mod code {
    pub(crate) const CRITICAL: i64 = 0;
    pub(crate) const FEATURE_UNAVAILABLE: i64 = 1;
    pub(crate) const NO_ACCESS: i64 = 2;
    pub(crate) const RATE_LIMIT: i64 = 3;
    pub(crate) const INVALID_ID: i64 = 100;
    pub(crate) const INVALID_PATH: i64 = 101;
    pub(crate) const RAWFS: i64 = 102;
    pub(crate) const SHELL_NOT_ACCESSIBLE: i64 = 200;
    pub(crate) const SHELL_CLOSED: i64 = 201;
    pub(crate) const SHELL_NOT_FOUND: i64 = 204;
    pub(crate) const TASK_NOT_FOUND: i64 = 601;
    pub(crate) const COMMAND_NOT_FOUND: i64 = 704;
}

/// An error reply.
#[derive(Debug, Clone)]
pub(crate) struct PitcherError {
    pub(crate) code: i64,
    pub(crate) message: String,
    /// `data.errno`, which errors of files have, as null where it is not known.
    pub(crate) errno: Option<Option<i64>>,
}

impl PitcherError {
    pub(crate) fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), errno: None }
    }

    /// An error of the file system, by its number on Linux.
    pub(crate) fn errno(errno: i32) -> Self {
        io::Error::from_raw_os_error(errno).into()
    }

    /// What a fault asks for.
    pub(crate) fn of_fault(code: i64, errno: Option<i64>, message: Option<String>) -> Self {
        let message = message.unwrap_or_else(|| {
            let known = match code {
                code::CRITICAL => "Critical error",
                code::FEATURE_UNAVAILABLE => "Feature unavailable",
                code::NO_ACCESS => "No access",
                code::RATE_LIMIT => "Rate limit exceeded",
                code::INVALID_ID => "Invalid id",
                code::INVALID_PATH => "Invalid path",
                code::RAWFS => match errno.and_then(|errno| i32::try_from(errno).ok()) {
                    Some(errno) => return Self::errno(errno).message,
                    None => "File system error",
                },
                code::SHELL_NOT_ACCESSIBLE => "Shell is not accessible",
                code::SHELL_CLOSED => "Shell is closed",
                code::SHELL_NOT_FOUND => "Shell not found",
                code::TASK_NOT_FOUND => "Task not found",
                code::COMMAND_NOT_FOUND => "Command not found",
                _ => "Error on demand",
            };
            known.to_owned()
        });
        Self { code, message, errno: (code == code::RAWFS || errno.is_some()).then_some(errno) }
    }
}

impl From<io::Error> for PitcherError {
    fn from(error: io::Error) -> Self {
        let text = error.to_string();
        // The standard library adds the number, which has its own place here.
        let message = text.split(" (os error").next().unwrap_or(&text).to_owned();
        Self { code: code::RAWFS, message, errno: Some(error.raw_os_error().map(i64::from)) }
    }
}

/// A request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) id: Value,
    pub(crate) method: String,
    pub(crate) params: Value,
}

impl Request {
    /// The request in a frame, or why it is none.
    pub(crate) fn decode(frame: &[u8]) -> Result<Self, String> {
        let mut rest = frame;
        let value = rmpv::decode::read_value(&mut rest).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err(format!("{} bytes after the message", rest.len()));
        }
        let Value::Map(fields) = value else { return Err("the message is no map".to_owned()) };
        let (mut id, mut method, mut params) = (None, None, Value::Nil);
        for (key, value) in fields {
            match key.as_str() {
                Some("id") if value.is_number() => id = Some(value),
                Some("method") => method = value.as_str().map(str::to_owned),
                Some("params") => params = value,
                _ => {}
            }
        }
        let (Some(id), Some(method)) = (id, method) else { return Err("a request has a method and an id".to_owned()) };
        Ok(Self { id, method, params })
    }

    /// The parameters, which may be nil.
    pub(crate) fn params<T: DeserializeOwned>(&self) -> Result<T, PitcherError> {
        let params = if self.params.is_nil() { Value::Map(Vec::new()) } else { self.params.clone() };
        rmpv::ext::from_value(params)
            .map_err(|error| PitcherError::new(code::CRITICAL, format!("Invalid params of {}: {error}", self.method)))
    }
}

/// A value of the wire, of texts, numbers, lists and maps. (A structure would become a list.)
pub(crate) fn value(of: impl Serialize) -> Value {
    // Nothing that is sent can fail: keys are texts.
    rmpv::ext::to_value(of).unwrap_or(Value::Nil)
}

pub(crate) fn reply(request: &Request, result: &Result<Value, PitcherError>) -> Vec<u8> {
    let status = u8::from(result.is_err());
    let mut fields = vec![field("id", request.id.clone()), field("method", request.method.as_str().into())];
    fields.push(field("status", status.into()));
    match result {
        Ok(result) => fields.push(field("result", result.clone())),
        Err(error) => {
            let mut content = vec![field("code", error.code.into()), field("message", error.message.as_str().into())];
            if let Some(errno) = error.errno {
                content.push(field("data", Value::Map(vec![field("errno", errno.map_or(Value::Nil, Value::from))])));
            }
            fields.push(field("error", Value::Map(content)));
        }
    }
    encode(&Value::Map(fields))
}

pub(crate) fn notification(method: &str, params: Value) -> Vec<u8> {
    encode(&Value::Map(vec![field("method", method.into()), field("params", params)]))
}

pub(crate) fn field(name: &str, value: Value) -> (Value, Value) {
    (name.into(), value)
}

fn encode(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to memory does not fail.
    let _ = rmpv::encode::write_value(&mut bytes, value);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the SDK 2.4.2 sends it.
    const WRITE: &[u8] =
        b"\x83\xa6method\xacfs/writeFile\xa6params\x84\xa4path\xa1b\xa7content\xc4\x02\x00\xff\xa6create\xc3\
        \xa9overwrite\xc3\xa2id\x05";

    #[test]
    fn a_recorded_request_is_read() {
        let request = Request::decode(WRITE).unwrap();
        assert_eq!((request.method.as_str(), request.id.as_u64()), ("fs/writeFile", Some(5)));
        let content = request.params.as_map().unwrap().iter().find(|(key, _)| key.as_str() == Some("content"));
        assert_eq!(content.unwrap().1.as_slice(), Some(&[0, 0xff][..]));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for frame in [&WRITE[..20], &[0xc0][..], &[WRITE, &[0]].concat(), &[0x81, 0xa2, b'i', b'd', 1][..]] {
            assert!(Request::decode(frame).is_err(), "{frame:?}");
        }
    }

    #[test]
    fn an_error_reply_has_its_number() {
        let request = Request::decode(WRITE).unwrap();
        let bytes = reply(&request, &Err(PitcherError::errno(2)));
        let value: serde_json::Value =
            rmpv::ext::from_value(rmpv::decode::read_value(&mut &bytes[..]).unwrap()).unwrap();
        let error = serde_json::json!({"code": 102, "message": "No such file or directory", "data": {"errno": 2}});
        assert_eq!(value, serde_json::json!({"id": 5, "method": "fs/writeFile", "status": 1, "error": error}));
    }
}
