//! Lines in, lines out.
//!
//! The protocol crate parses and answers what it is given; this filter stands before it, so that what is no message of
//! the protocol (a banner, a log line, JSON or not) is dropped, not answered, and a line without an end costs no memory.

use std::io;

use agent_client_protocol::{Client, ConnectTo, Lines};
use futures_util::{SinkExt, StreamExt as _, future};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::bytes::Bytes;
use tokio_util::codec::{AnyDelimiterCodec, AnyDelimiterCodecError, FramedRead, FramedWrite};

use crate::error::Closed;
use crate::state::Connection;

/// What every message has, and what only a message has.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: std::borrow::Cow<'a, str>,
    method: Option<IgnoredAny>,
    id: Option<IgnoredAny>,
}

fn message(line: &Bytes) -> Option<String> {
    let text = std::str::from_utf8(line).ok()?.trim();
    let envelope: Envelope<'_> = serde_json::from_str(text).ok()?;
    let is_message = envelope.jsonrpc == "2.0" && (envelope.method.is_some() || envelope.id.is_some());
    is_message.then(|| text.to_owned())
}

/// The transport of one connection.
pub(crate) fn transport<R, W>(
    reader: R,
    writer: W,
    max_line: usize,
    connection: std::sync::Arc<Connection>,
) -> impl ConnectTo<Client>
where
    R: AsyncRead + Send + 'static,
    W: AsyncWrite + Send + 'static,
{
    let codec = |limit| AnyDelimiterCodec::new_with_max_length(b"\n".to_vec(), b"\n".to_vec(), limit);
    let failing = connection.clone();
    let incoming = FramedRead::new(reader, codec(max_line)).filter_map(move |line| {
        future::ready(match line {
            Ok(line) => {
                let message = message(&line);
                if message.is_none() && !line.trim_ascii().is_empty() {
                    connection.ignored_line();
                }
                message.map(Ok)
            }
            Err(AnyDelimiterCodecError::MaxChunkLengthExceeded) => {
                connection.close(Closed::LineTooLong { limit: max_line });
                Some(Err(io::ErrorKind::InvalidData.into()))
            }
            Err(AnyDelimiterCodecError::Io(error)) => {
                connection.close(Closed::Io(error.to_string()));
                Some(Err(error))
            }
        })
    });
    let outgoing = FramedWrite::new(writer, codec(usize::MAX));
    let outgoing = SinkExt::<String>::sink_map_err(outgoing, move |error| {
        let error = match error {
            AnyDelimiterCodecError::Io(error) => error,
            AnyDelimiterCodecError::MaxChunkLengthExceeded => io::ErrorKind::InvalidInput.into(),
        };
        // An agent that is gone is noticed here or by its end of output, whichever is first; it is the same fact.
        failing.close(match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Closed::AgentEnded,
            _ => Closed::Io(error.to_string()),
        });
        error
    });
    Lines::new(Box::pin(outgoing), Box::pin(incoming))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_pass() {
        let passes = |line: &'static str| message(&Bytes::from_static(line.as_bytes())).is_some();
        assert!(passes(r#"{"jsonrpc":"2.0","id":0,"result":{}}"#));
        assert!(passes(r#"  {"jsonrpc":"2.0","method":"session/update","params":{}}  "#));
        assert!(passes(r#"{"jsonrpc":"2.0","id":"a","method":"x"}"#));
        for garbage in [
            "",
            "ready",
            "{",
            "[]",
            "17",
            r#"{"level":"info","msg":"started"}"#,
            r#"{"jsonrpc":"1.0","id":0,"result":{}}"#,
            r#"{"jsonrpc":"2.0"}"#,
            r#"[{"jsonrpc":"2.0","id":0,"result":{}}]"#,
        ] {
            assert!(!passes(garbage), "{garbage}");
        }
        assert!(message(&Bytes::from_static(b"\xff\xfe")).is_none());
    }
}
