//! `websocket`: whole messages, both ways. Capability `net` with the scheme `ws` or `wss`.
//!
//! A connection takes the way of every other one (`dial.rs`). It is opened by hyper, as a request is: tungstenite's own
//! handshake writes every header that it sends into its log, and headers carry secrets.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, error::CapacityError};
use url::{Position, Url};
use wasmtime::component::{Resource, ResourceTableError};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use super::dial::{CONNECT, Metered, OverBudget, dial};
use crate::bindings::host::pcoder::plugin::types::{Error as WitError, Setting};
use crate::bindings::host::pcoder::plugin::websocket::{Host, HostConnection, Message as WitMessage};
use crate::call::{CallState, HEADERS};
use crate::capability::net::Channel;
use crate::capability::secrets::Place;
use crate::error::{Error, code};
use crate::gate::Gate;
use crate::secrets::Broker;

/// The largest message, either way: the largest value that crosses the boundary.
const MESSAGE: usize = 16 << 20;
/// Messages that wait for the plugin before the other side has to. Their bytes are within the call's budget.
const WAITING: usize = 16;
/// What a connection reads and writes at once.
const BUFFER: usize = 16 << 10;
/// How long the other side may take to answer the request for a WebSocket.
const ANSWER: Duration = Duration::from_secs(30);
/// How long saying good-bye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Headers that belong to the protocol, and so to the host.
const OWN: [&str; 13] = [
    "host",
    "connection",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "expect",
    "keep-alive",
];

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// An open connection. Dropping it closes it.
pub struct WebSocket {
    url: Url,
    sink: SplitSink<Socket, Message>,
    inbox: mpsc::Receiver<Result<Message, Error>>,
    /// What `ready` took out of the inbox.
    next: Option<Result<Message, Error>>,
    /// Why nothing comes any more.
    ended: Option<Error>,
    /// Reads, and so answers pings, also while the plugin computes. Ended with this.
    _reader: JoinSet<()>,
}

impl WebSocket {
    fn new(url: Url, socket: Socket) -> Self {
        let (sink, stream) = socket.split();
        let (sender, inbox) = mpsc::channel(WAITING);
        let mut reader = JoinSet::new();
        reader.spawn(read(stream, sender));
        Self { url, sink, inbox, next: None, ended: None, _reader: reader }
    }

    fn receive(&mut self) -> Result<Option<Message>, Error> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone());
        }
        let next = match self.next.take() {
            Some(next) => next,
            None => match self.inbox.try_recv() {
                Ok(next) => next,
                Err(mpsc::error::TryRecvError::Empty) => return Ok(None),
                Err(mpsc::error::TryRecvError::Disconnected) => Err(closed("")),
            },
        };
        match next {
            Ok(message) => Ok(Some(message)),
            Err(error) => Err(self.ended.insert(error).clone()),
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for WebSocket {
    async fn ready(&mut self) {
        if self.next.is_none() && self.ended.is_none() {
            self.next = Some(self.inbox.recv().await.unwrap_or_else(|| Err(closed(""))));
        }
    }
}

async fn read(mut stream: SplitStream<Socket>, inbox: mpsc::Sender<Result<Message, Error>>) {
    while let Some(next) = stream.next().await {
        let next = match next {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => Ok(message),
            Ok(Message::Close(frame)) => {
                Err(closed(&frame.map_or_else(String::new, |frame| format!(" ({})", u16::from(frame.code)))))
            }
            // The next turn of the loop answers a ping.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
            Err(error) => Err(failed("websocket.receive", &error)),
        };
        let ended = next.is_err();
        if inbox.send(next).await.is_err() {
            return;
        }
        if ended {
            // Answers the other side's good-bye.
            while let Some(Ok(_)) = stream.next().await {}
            return;
        }
    }
}

impl Host for CallState {
    async fn connect(&mut self, url: String, headers: Vec<Setting>) -> Result<Resource<WebSocket>, WitError> {
        const OPERATION: &str = "websocket.connect";
        let invalid = |message: &str| Error::new(code::INVALID, OPERATION, message);
        let url = Url::parse(&url).map_err(|error| invalid(&format!("not a URL: {error}")))?;
        if !matches!(url.scheme(), "ws" | "wss") {
            return Err(invalid("the scheme must be wss or ws").into());
        }
        let permit = self.gate.authorize(Channel { verb: "open", url: url.clone(), subject: None })?;
        let result = open(&self.gate, &self.context.secrets, &url, headers).await;
        let socket = permit.finish(0, result)?;
        Ok(self.keep(OPERATION, WebSocket::new(url, socket))?)
    }
}

impl HostConnection for CallState {
    async fn send(&mut self, this: Resource<WebSocket>, message: WitMessage) -> Result<(), WitError> {
        const OPERATION: &str = "websocket.send";
        let socket = self.table.get_mut(&this).map_err(|error| lost(OPERATION, &error))?;
        let place = Place::Request(socket.url.clone());
        let secrets = &self.context.secrets;
        let message = match message {
            WitMessage::Text(text) => Message::text(secrets.fill(&text, &place, false, &self.gate)?.into_owned()),
            WitMessage::Binary(bytes) => match secrets.fill_bytes(&bytes, &place, false, &self.gate)? {
                Cow::Borrowed(_) => Message::binary(bytes),
                Cow::Owned(filled) => Message::binary(filled),
            },
        };
        Ok(socket.sink.send(message).await.map_err(|error| failed(OPERATION, &error))?)
    }

    async fn receive(&mut self, this: Resource<WebSocket>) -> Result<Option<WitMessage>, WitError> {
        let socket = self.table.get_mut(&this).map_err(|error| lost("websocket.receive", &error))?;
        let secrets = &self.context.secrets;
        Ok(socket.receive()?.map(|message| match message {
            Message::Text(text) => WitMessage::Text(secrets.redact_text(text.as_str().to_owned())),
            // Without changing their number: what says lengths beforehand stays readable.
            other => {
                let mut bytes = Vec::from(other.into_data());
                secrets.mask(&mut bytes);
                WitMessage::Binary(bytes)
            }
        }))
    }

    async fn subscribe(&mut self, this: Resource<WebSocket>) -> Resource<DynPollable> {
        // As everywhere: a full table must not trap. The guest gets a handle that is not in it.
        subscribe(&mut self.table, this).unwrap_or_else(|_| Resource::new_own(u32::MAX))
    }

    async fn drop(&mut self, this: Resource<WebSocket>) -> wasmtime::Result<()> {
        let mut socket = self.table.delete(this)?;
        // The other side may not listen, and it is closed in any case.
        let _ = tokio::time::timeout(GOODBYE, socket.sink.close()).await;
        Ok(())
    }
}

/// Dials, and asks for a WebSocket.
async fn open(gate: &Arc<Gate>, secrets: &Broker, url: &Url, settings: Vec<Setting>) -> Result<Socket, Error> {
    const OPERATION: &str = "websocket.connect";
    let mut headers = headers(gate, secrets, url, settings)?;
    let key = generate_key();
    let own = |text: &str| {
        HeaderValue::from_str(text).map_err(|_| Error::new(code::INVALID, OPERATION, "the URL has no usable host"))
    };
    headers.insert(header::HOST, own(&url[Position::BeforeHost..Position::AfterPort])?);
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(header::SEC_WEBSOCKET_KEY, own(&key)?);
    // What is sent is what was checked: the address in normal form.
    let mut request = Request::get(&url[Position::BeforePath..Position::AfterQuery])
        .body(Empty::<Bytes>::new())
        .map_err(|_| Error::new(code::INVALID, OPERATION, "not a path"))?;
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL).cloned();
    *request.headers_mut() = headers;

    let stream = Metered::new(dial(gate, None, url, CONNECT).await?, Arc::clone(gate), OPERATION);
    let broken = |error: hyper::Error| {
        OverBudget::behind(&error).unwrap_or_else(|| Error::new(code::NETWORK, OPERATION, error.to_string()))
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let upgraded = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        check(&response, &key, offered.as_ref()).map_err(|error| error.subject(without_query(url)))?;
        hyper::upgrade::on(response).await.map_err(broken)
    };
    let connection = connection.with_upgrades();
    let both = async {
        tokio::pin!(upgraded);
        tokio::select! {
            biased;
            result = &mut upgraded => result,
            // It has ended, well or not: what it was for says how.
            _ = connection => upgraded.await,
        }
    };
    let upgraded = tokio::time::timeout(ANSWER, both)
        .await
        .map_err(|_| Error::new(code::TIMEOUT, OPERATION, "no answer in time").subject(without_query(url)))??;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_message_size(Some(MESSAGE))
        .max_frame_size(Some(MESSAGE));
    Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config)).await)
}

/// The plugin's headers, with values in the place of placeholders.
fn headers(gate: &Arc<Gate>, secrets: &Broker, url: &Url, settings: Vec<Setting>) -> Result<HeaderMap, Error> {
    const OPERATION: &str = "websocket.connect";
    let size: usize = settings.iter().map(|it| it.name.len() + it.value.len()).sum();
    if size > HEADERS {
        let message = format!("its headers are larger than {} KiB", HEADERS >> 10);
        return Err(Error::new(code::LIMIT, OPERATION, message));
    }
    let mut headers = HeaderMap::new();
    for setting in settings {
        let invalid = |message: &str| {
            Error::new(code::INVALID, OPERATION, message).subject(crate::text::for_people(&setting.name, 128))
        };
        let name = HeaderName::try_from(&setting.name).map_err(|_| invalid("not a header's name"))?;
        if OWN.contains(&name.as_str()) {
            return Err(invalid("the host sets this header"));
        }
        let text = secrets.fill(&setting.value, &Place::Request(url.clone()), false, gate)?;
        let mut value = HeaderValue::from_str(&text).map_err(|_| invalid("not a header's value"))?;
        value.set_sensitive(matches!(text, std::borrow::Cow::Owned(_)));
        headers.append(name, value);
    }
    Ok(headers)
}

/// Whether the other side agreed (RFC 6455, 4.1).
fn check(response: &Response<hyper::body::Incoming>, key: &str, offered: Option<&HeaderValue>) -> Result<(), Error> {
    const OPERATION: &str = "websocket.connect";
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let code = match status.as_u16() {
            401 | 403 => code::UNAUTHENTICATED,
            404 | 410 => code::NOT_FOUND,
            429 => code::RATE_LIMITED,
            408 | 502..=504 => code::UNAVAILABLE,
            _ => code::SERVER,
        };
        return Err(Error::new(code, OPERATION, format!("the server answered with status {}", status.as_u16())));
    }
    let has = |name: HeaderName, value: &str| {
        response.headers().get(name).and_then(|it| it.to_str().ok()).is_some_and(|it| it.eq_ignore_ascii_case(value))
    };
    let chosen = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
    let chosen_was_offered = match (chosen, offered.and_then(|it| it.to_str().ok())) {
        (None, _) => true,
        (Some(chosen), Some(offered)) => offered.split(',').any(|it| it.trim().as_bytes() == chosen.as_bytes()),
        (Some(_), None) => false,
    };
    // The key's answer is compared as it is: it is base64.
    let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
    let keyed = accepted.is_some_and(|it| it.as_bytes() == derive_accept_key(key.as_bytes()).as_bytes());
    let plain = !response.headers().contains_key(header::SEC_WEBSOCKET_EXTENSIONS);
    if has(header::UPGRADE, "websocket") && has(header::CONNECTION, "upgrade") && keyed && plain && chosen_was_offered {
        Ok(())
    } else {
        Err(Error::new(code::SERVER, OPERATION, "the server's answer opens no WebSocket"))
    }
}

fn without_query(url: &Url) -> String {
    url[..Position::AfterPath].to_owned()
}

fn closed(how: &str) -> Error {
    Error::new(code::UNAVAILABLE, "websocket.receive", format!("the other side closed the connection{how}"))
}

fn lost(operation: &'static str, error: &ResourceTableError) -> Error {
    Error::new(code::INTERNAL, operation, error.to_string())
}

fn failed(operation: &'static str, error: &tungstenite::Error) -> Error {
    use tungstenite::Error as Failure;
    if let Some(over) = OverBudget::behind(error) {
        return over;
    }
    match error {
        Failure::ConnectionClosed | Failure::AlreadyClosed | Failure::Io(_) => {
            Error::new(code::UNAVAILABLE, operation, format!("the connection is closed: {error}"))
        }
        Failure::Capacity(CapacityError::MessageTooLong { .. }) => {
            Error::new(code::LIMIT, operation, format!("a message is larger than {} MiB", MESSAGE >> 20))
        }
        Failure::Protocol(tungstenite::error::ProtocolError::SendAfterClosing) => {
            Error::new(code::UNAVAILABLE, operation, "the connection is closed")
        }
        other => Error::new(code::SERVER, operation, other.to_string()),
    }
}
