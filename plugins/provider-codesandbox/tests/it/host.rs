//! A host that really speaks HTTP and WebSockets, has the real time, and fills placeholders of secrets as pcoder does.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use pcoder_sdk::host::{
    Clock, Files, Http, Input, Log, Process, ProviderHost, Random, Secrets, Services, Settings, Ssh, Stdio, Talk,
    Target, WebSocket, WebSockets,
};
use pcoder_sdk::http::{Arriving, Body, Request, Response};
use pcoder_sdk::types::{ServiceSpec, ServiceStatus};
use pcoder_sdk::{
    CommandSpec, Endpoint, Entry, Error, ExitStatus, Level, Message, Output, Result, Setting, WriteOptions, code,
};
use tungstenite::Error as Broken;
use tungstenite::protocol::WebSocketConfig;

/// What stands for the key of the API.
const KEY: &str = "pcoder-secret-00000000000000000000000000000000";

type Hook = Box<dyn FnMut()>;

/// The host of one call after another.
pub(crate) struct RealHost {
    settings: BTreeMap<String, String>,
    begun: Instant,
    /// How long an answer may take.
    patience: Duration,
    /// Where WebSockets may lead; anywhere without.
    allowed: Option<String>,
    /// Where requests may not lead.
    denied: Option<String>,
    /// The plugin's own files.
    state: RefCell<BTreeMap<String, Vec<u8>>>,
    shared: Rc<Shared>,
}

/// What WebSockets have of it too.
#[derive(Default)]
struct Shared {
    /// Values by placeholder.
    secrets: RefCell<BTreeMap<String, String>>,
    /// Called while a call waits.
    hook: RefCell<Option<Hook>>,
}

impl Shared {
    fn fill(&self, content: &[u8]) -> Vec<u8> {
        let mut filled = content.to_vec();
        for (placeholder, value) in &*self.secrets.borrow() {
            filled = replace(&filled, placeholder.as_bytes(), value.as_bytes());
            let encoded = base64::engine::general_purpose::STANDARD.encode(value);
            let stands = placeholder.replace("pcoder-secret-", "pcoder-base64-");
            filled = replace(&filled, stands.as_bytes(), encoded.as_bytes());
        }
        filled
    }
}

impl RealHost {
    pub(crate) fn new(endpoint: &str, key: &str) -> Self {
        let mut settings = BTreeMap::new();
        for (name, value) in [("endpoint", endpoint), ("template", "69vrxg"), ("preview", "csb.app")] {
            settings.insert(name.to_owned(), value.to_owned());
        }
        let host = Self {
            settings,
            begun: Instant::now(),
            patience: Duration::from_secs(30),
            allowed: None,
            denied: None,
            state: RefCell::default(),
            shared: Rc::default(),
        };
        host.secret(KEY, key)
    }

    pub(crate) fn provider(&self) -> ProviderHost<'_> {
        ProviderHost::double(self)
    }

    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A secret of the user's, by what stands for it.
    pub(crate) fn secret(self, placeholder: &str, value: &str) -> Self {
        self.shared.secrets.borrow_mut().insert(placeholder.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub(crate) fn allow(mut self, address: &str) -> Self {
        self.allowed = Some(address.to_owned());
        self
    }

    pub(crate) fn deny(mut self, address: &str) -> Self {
        self.denied = Some(address.to_owned());
        self
    }

    /// How many files the plugin keeps.
    pub(crate) fn files_kept(&self) -> usize {
        self.state.borrow().len()
    }

    /// Sets what is called while a call waits.
    pub(crate) fn while_waiting(&self, hook: impl FnMut() + 'static) {
        *self.shared.hook.borrow_mut() = Some(Box::new(hook));
    }
}

fn replace(content: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut rest = content;
    let mut replaced = Vec::with_capacity(content.len());
    while let Some(at) = memmem(rest, from) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    replaced.extend_from_slice(rest);
    replaced
}

/// The first byte is looked for first: contents are large.
fn memmem(content: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = content[from..].iter().position(|byte| *byte == needle[0]) {
        if content[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

impl Http for RealHost {
    fn send(&self, request: &Request) -> Result<Response> {
        let mut response = self.ask(request, Some(self.patience))?;
        let body = response.body_mut().with_config().limit(u64::MAX).read_to_vec().map_err(not_sent)?;
        Ok(Response { status: response.status().as_u16(), headers: headers_of(&response), body })
    }

    fn open(&self, request: &Request) -> Result<Arriving> {
        let response = self.ask(request, None)?;
        let (status, headers) = (response.status().as_u16(), headers_of(&response));
        let (sender, pieces) = mpsc::channel();
        let waiter = std::thread::current();
        let mut reader = response.into_body().into_reader();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            loop {
                let piece = match reader.read(&mut buffer) {
                    Ok(0) => break,
                    piece => piece.map(|count| buffer[..count].to_vec()),
                };
                let broken = piece.is_err();
                if sender.send(piece).is_err() || broken {
                    break;
                }
                waiter.unpark();
            }
            drop(sender);
            waiter.unpark();
        });
        Ok(Arriving { status, headers, body: Body::fed_by(pieces) })
    }

    fn wait(
        &self,
        bodies: &mut [&mut Body],
        mut input: Option<&mut Input<'_>>,
        terminal: Option<Stdio<'_>>,
        longest: Duration,
    ) {
        let until = Instant::now() + longest;
        let size = || terminal.and_then(Stdio::terminal).map(|size| (size.columns, size.rows));
        let before = size();
        while Instant::now() < until && !bodies.iter_mut().any(|body| body.is_ready()) {
            if let Some(hook) = self.shared.hook.borrow_mut().as_mut() {
                hook();
            }
            if input.as_mut().is_some_and(|input| input.is_ready()) || size() != before {
                return;
            }
            // Whoever reads a body ends it. What tests feed tells nobody.
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

fn not_sent(error: ureq::Error) -> Error {
    let code = if matches!(error, ureq::Error::Timeout(_)) { code::TIMEOUT } else { code::NETWORK };
    Error::new(code, "http.send", error.to_string())
}

fn headers_of(response: &ureq::http::Response<ureq::Body>) -> Vec<(String, String)> {
    let headers = response.headers().iter();
    headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
}

impl RealHost {
    /// Sends a request with its placeholders filled; with a time for the whole, or without.
    fn ask(&self, request: &Request, time: Option<Duration>) -> Result<ureq::http::Response<ureq::Body>> {
        let denied = self.denied.as_ref().is_some_and(|denied| request.url.starts_with(denied.as_str()));
        if denied {
            return Err(Error::new(code::DENIED, "http.send", "this plugin was not granted the address"));
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(time)
            .timeout_recv_response(Some(self.patience))
            .build();
        let mut builder = ureq::http::Request::builder().method(request.method.as_str()).uri(&request.url);
        for (name, value) in &request.headers {
            builder = builder.header(name, String::from_utf8(self.shared.fill(value.as_bytes())).unwrap());
        }
        let agent = ureq::Agent::new_with_config(config);
        let sent = match request.body.is_empty() {
            true => agent.run(builder.body(()).unwrap()),
            false => agent.run(builder.body(self.shared.fill(&request.body)).unwrap()),
        };
        sent.map_err(not_sent)
    }
}

impl WebSockets for RealHost {
    fn connect(&self, url: &str, headers: &[Setting]) -> Result<Box<dyn WebSocket>> {
        const OPERATION: &str = "websocket.connect";
        assert!(headers.is_empty());
        if self.allowed.as_ref().is_some_and(|allowed| !url.starts_with(allowed.as_str())) {
            return Err(Error::new(code::DENIED, OPERATION, "this plugin was not granted the address"));
        }
        let network = |error: String| Error::new(code::NETWORK, OPERATION, error);
        let authority = url.split('/').nth(2).unwrap();
        let stream = TcpStream::connect(authority).map_err(|error| network(error.to_string()))?;
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let config = WebSocketConfig::default().max_message_size(Some(16 << 20)).max_frame_size(Some(16 << 20));
        let socket = match tungstenite::client::client_with_config(url, stream, Some(config)) {
            Ok((socket, _)) => socket,
            Err(tungstenite::HandshakeError::Failure(Broken::Http(response))) => {
                let code = match response.status().as_u16() {
                    401 | 403 => code::UNAUTHENTICATED,
                    404 | 410 => code::NOT_FOUND,
                    429 => code::RATE_LIMITED,
                    408 | 502..=504 => code::UNAVAILABLE,
                    _ => code::SERVER,
                };
                let message = format!("the server answered with status {}", response.status().as_u16());
                return Err(Error::new(code, OPERATION, message));
            }
            Err(error) => return Err(network(error.to_string())),
        };
        socket.get_ref().set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        Ok(Box::new(Socket { socket: RefCell::new(socket), inbox: RefCell::default(), shared: self.shared.clone() }))
    }
}

struct Socket {
    socket: RefCell<tungstenite::WebSocket<TcpStream>>,
    inbox: RefCell<VecDeque<Result<Message>>>,
    shared: Rc<Shared>,
}

impl Socket {
    /// Takes what arrives within a millisecond.
    fn look(&self) {
        if matches!(self.inbox.borrow().back(), Some(Err(_))) {
            return;
        }
        let closed = |how: String| Error::new(code::UNAVAILABLE, "websocket.receive", how);
        let next = match self.socket.borrow_mut().read() {
            Ok(tungstenite::Message::Text(text)) => Ok(Message::Text(text.as_str().to_owned())),
            Ok(tungstenite::Message::Binary(bytes)) => Ok(Message::Binary(bytes.to_vec())),
            Ok(tungstenite::Message::Close(frame)) => Err(closed(format!("the other side closed ({frame:?})"))),
            Ok(_) => return,
            Err(Broken::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return,
            Err(error) => Err(closed(error.to_string())),
        };
        self.inbox.borrow_mut().push_back(next);
    }
}

impl WebSocket for Socket {
    fn send(&self, message: Message) -> Result<()> {
        let message = match message {
            Message::Text(text) => tungstenite::Message::text(text),
            Message::Binary(bytes) => tungstenite::Message::binary(self.shared.fill(&bytes)),
        };
        let sent = self.socket.borrow_mut().send(message);
        sent.map_err(|error| Error::new(code::UNAVAILABLE, "websocket.send", error.to_string()))
    }

    fn try_receive(&self) -> Result<Option<Message>> {
        if self.inbox.borrow().is_empty() {
            self.look();
        }
        let mut inbox = self.inbox.borrow_mut();
        // What ended it is said each time.
        if let Some(Err(error)) = inbox.front() {
            return Err(error.clone());
        }
        inbox.pop_front().transpose()
    }

    fn receive(&self) -> Result<Message> {
        loop {
            if let Some(message) = self.try_receive()? {
                return Ok(message);
            }
        }
    }

    fn wait(&self, mut input: Option<&mut Input<'_>>, terminal: Option<Stdio<'_>>, longest: Duration) {
        let until = Instant::now() + longest;
        let size = || terminal.and_then(Stdio::terminal).map(|size| (size.columns, size.rows));
        let before = size();
        while Instant::now() < until && self.inbox.borrow().is_empty() {
            if let Some(hook) = self.shared.hook.borrow_mut().as_mut() {
                hook();
            }
            if input.as_mut().is_some_and(|input| input.is_ready()) || size() != before {
                return;
            }
            self.look();
        }
    }
}

impl Secrets for RealHost {
    fn get(&self, name: &str) -> Result<String> {
        match name {
            "CSB_API_KEY" => Ok(KEY.to_owned()),
            _ => Err(Error::new(code::DENIED, "secrets.get", "this plugin was not granted the secret").subject(name)),
        }
    }

    fn filled_size(&self, content: &[u8]) -> u64 {
        self.shared.fill(content).len() as u64
    }
}

impl Settings for RealHost {
    fn get(&self, name: &str) -> Option<String> {
        self.settings.get(name).cloned()
    }
}

impl Clock for RealHost {
    fn now_ms(&self) -> u64 {
        u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Ten times as fast, so that trying again takes no time.
    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration / 10);
    }
}

impl Random for RealHost {
    fn bits(&self) -> u64 {
        RandomState::new().build_hasher().finish()
    }
}

impl Log for RealHost {
    fn log(&self, _: Level, _: &str) {}
}

/// What no provider of the cloud asks for.
fn never<T>(operation: &str) -> Result<T> {
    Err(Error::new(code::DENIED, operation, "this plugin was not granted it"))
}

impl Process for RealHost {
    fn run(&self, _: &CommandSpec, _: Stdio<'_>) -> Result<ExitStatus> {
        never("process.run")
    }

    fn capture(&self, _: &CommandSpec, _: &[u8]) -> Result<Output> {
        never("process.capture")
    }
}

impl Files for RealHost {
    fn read(&self, root: &str, path: &str) -> Result<Vec<u8>> {
        assert_eq!(root, "state");
        let absent = || Error::new(code::NOT_FOUND, "files.read", "there is no such file").subject(path);
        self.state.borrow().get(path).cloned().ok_or_else(absent)
    }

    fn write(&self, _: &str, _: &str, _: &[u8], _: WriteOptions) -> Result<()> {
        never("files.write")
    }

    fn write_atomic(&self, root: &str, path: &str, content: &[u8], options: WriteOptions) -> Result<()> {
        assert_eq!((root, options.mode), ("state", Some(0o600)));
        self.state.borrow_mut().insert(path.to_owned(), content.to_vec());
        Ok(())
    }

    fn list(&self, _: &str, _: &str) -> Result<Vec<Entry>> {
        never("files.list")
    }

    fn stat(&self, _: &str, _: &str) -> Result<Entry> {
        never("files.stat")
    }

    fn rename(&self, _: &str, _: &str, _: &str) -> Result<()> {
        never("files.rename")
    }

    fn remove(&self, root: &str, path: &str, _: bool) -> Result<()> {
        assert_eq!(root, "state");
        let absent = || Error::new(code::NOT_FOUND, "files.remove", "there is no such file").subject(path);
        self.state.borrow_mut().remove(path).map(drop).ok_or_else(absent)
    }

    fn create_directory(&self, _: &str, _: &str, _: Option<u32>) -> Result<()> {
        never("files.create-directory")
    }
}

impl Target for RealHost {
    fn home_dir(&self) -> Result<String> {
        never("target.home-dir")
    }

    fn run(&self, _: &CommandSpec, _: &[u8]) -> Result<Output> {
        never("target.run")
    }

    fn exec(&self, _: &CommandSpec, _: Stdio<'_>) -> Result<ExitStatus> {
        never("target.exec")
    }

    fn read_file(&self, _: &str) -> Result<Vec<u8>> {
        never("target.read-file")
    }

    fn write_file(&self, _: &str, _: &[u8], _: WriteOptions) -> Result<()> {
        never("target.write-file")
    }

    fn write_file_atomic(&self, _: &str, _: &[u8], _: WriteOptions) -> Result<()> {
        never("target.write-file-atomic")
    }

    fn file_exists(&self, _: &str) -> Result<bool> {
        never("target.file-exists")
    }

    fn create_directory(&self, _: &str, _: Option<u32>) -> Result<()> {
        never("target.create-directory")
    }

    fn delete_file(&self, _: &str) -> Result<()> {
        never("target.delete-file")
    }

    fn delete_directory(&self, _: &str) -> Result<()> {
        never("target.delete-directory")
    }
}

impl Services for RealHost {
    fn start(&self, _: &str, _: &ServiceSpec) -> Result<ServiceStatus> {
        never("service.start")
    }

    fn status(&self, _: &str) -> Result<Option<ServiceStatus>> {
        never("service.status")
    }

    fn list(&self) -> Result<Vec<ServiceStatus>> {
        never("service.list")
    }

    fn stop(&self, _: &str, _: Duration) -> Result<Option<ExitStatus>> {
        never("service.stop")
    }

    fn remove(&self, _: &str) -> Result<()> {
        never("service.remove")
    }

    fn log_tail(&self, _: &str, _: u32) -> Result<Vec<u8>> {
        never("service.log-tail")
    }

    fn talk(&self, _: &str, _: Duration) -> Result<Box<dyn Talk>> {
        never("service.talk")
    }
}

impl Ssh for RealHost {
    fn exec(&self, _: &Endpoint, _: &CommandSpec, _: Stdio<'_>) -> Result<ExitStatus> {
        never("ssh.exec")
    }

    fn capture(&self, _: &Endpoint, _: &CommandSpec, _: &[u8]) -> Result<Output> {
        never("ssh.capture")
    }

    fn public_key(&self, _: &str) -> Result<String> {
        never("ssh.public-key")
    }

    fn read_file(&self, _: &Endpoint, _: &str) -> Result<Vec<u8>> {
        never("ssh.read-file")
    }

    fn write_file(&self, _: &Endpoint, _: &str, _: &[u8], _: WriteOptions) -> Result<()> {
        never("ssh.write-file")
    }

    fn forward(&self, _: &Endpoint, _: u16) -> Result<u16> {
        never("ssh.forward")
    }
}
