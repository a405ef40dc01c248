//! The host itself: each trait of [`crate::host`] over the generated imports.
//!
//! Outside of WebAssembly there is no host; the generated imports would abort. Nothing reaches them there, because only
//! the exports of a component make a real host.

use std::io;
use std::time::Duration;

#[cfg(target_arch = "wasm32")]
use super::Streams;
use super::{
    Clock, Files, Http, Input as Awaited, Log, Piece, Process, Random, Secrets, Services, Settings, Source, Ssh, Stdio,
    Talk, Target, WebSocket, WebSockets,
};
use crate::bindings::host::pcoder::plugin::{
    files, log, process, secrets, service, settings, ssh, stdio, target, websocket,
};
use crate::bindings::host::wasi::clocks::{monotonic_clock, wall_clock};
use crate::bindings::host::wasi::io::error::Error as StreamFailure;
use crate::bindings::host::wasi::io::poll::{Pollable, poll};
pub(crate) use crate::bindings::host::wasi::io::streams::InputStream;
use crate::bindings::host::wasi::io::streams::{OutputStream, StreamError};
use crate::bindings::host::wasi::random::random;
use crate::error::Result;
use crate::http::{Arriving, Body, Request, Response};
use crate::types::{
    CommandSpec, Endpoint, Entry, ExitStatus, Level, Message, Output, ServiceSpec, ServiceStatus, Setting, WriteOptions,
};

/// The host that a component runs in.
pub(crate) struct Host;

/// The host's own handle. A test's streams have none, and a test has no real host.
#[cfg(target_arch = "wasm32")]
fn handle<'a>(stdio: Stdio<'a>, _operation: &str) -> Result<&'a stdio::Stdio> {
    let Streams::Host(stdio) = stdio.0;
    Ok(stdio)
}

#[cfg(not(target_arch = "wasm32"))]
fn handle<'a>(stdio: Stdio<'a>, operation: &str) -> Result<&'a stdio::Stdio> {
    stdio.resource().ok_or_else(|| crate::Error::invalid(operation, "a test's streams reached the real host"))
}

impl Process for Host {
    fn run(&self, spec: &CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus> {
        process::run(spec, handle(stdio, "process.run")?)
    }

    fn capture(&self, spec: &CommandSpec, input: &[u8]) -> Result<Output> {
        process::capture(spec, input)
    }
}

/// As the contract has it.
fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

impl Services for Host {
    fn start(&self, name: &str, spec: &ServiceSpec) -> Result<ServiceStatus> {
        service::start(name, spec)
    }

    fn status(&self, name: &str) -> Result<Option<ServiceStatus>> {
        service::status(name)
    }

    fn list(&self) -> Result<Vec<ServiceStatus>> {
        service::list()
    }

    fn stop(&self, name: &str, grace: Duration) -> Result<Option<ExitStatus>> {
        service::stop(name, milliseconds(grace))
    }

    fn remove(&self, name: &str) -> Result<()> {
        service::remove(name)
    }

    fn log_tail(&self, name: &str, bytes: u32) -> Result<Vec<u8>> {
        service::log_tail(name, bytes)
    }

    fn talk(&self, name: &str, patience: Duration) -> Result<Box<dyn Talk>> {
        Ok(Box::new(service::talk(name, milliseconds(patience))?))
    }
}

impl Talk for service::Conversation {
    fn send(&self, message: &str) -> Result<()> {
        Self::send(self, message)
    }

    fn try_receive(&self) -> Result<Option<String>> {
        Self::receive(self)
    }

    fn wait(&self, longest: Duration) {
        wait_for(vec![self.subscribe()], None, None, longest);
    }
}

impl Files for Host {
    fn read(&self, root: &str, path: &str) -> Result<Vec<u8>> {
        files::read(root, path)
    }

    fn write(&self, root: &str, path: &str, content: &[u8], options: WriteOptions) -> Result<()> {
        files::write(root, path, content, &options)
    }

    fn write_atomic(&self, root: &str, path: &str, content: &[u8], options: WriteOptions) -> Result<()> {
        files::write_atomic(root, path, content, &options)
    }

    fn list(&self, root: &str, path: &str) -> Result<Vec<Entry>> {
        files::list(root, path)
    }

    fn stat(&self, root: &str, path: &str) -> Result<Entry> {
        files::stat(root, path)
    }

    fn rename(&self, root: &str, from: &str, to: &str) -> Result<()> {
        files::rename(root, from, to)
    }

    fn remove(&self, root: &str, path: &str, recursive: bool) -> Result<()> {
        files::remove(root, path, recursive)
    }

    fn create_directory(&self, root: &str, path: &str, mode: Option<u32>) -> Result<()> {
        files::create_directory(root, path, mode)
    }
}

impl Target for Host {
    fn home_dir(&self) -> Result<String> {
        target::home_dir()
    }

    fn run(&self, spec: &CommandSpec, input: &[u8]) -> Result<Output> {
        target::run(spec, input)
    }

    fn exec(&self, spec: &CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus> {
        target::exec(spec, handle(stdio, "target.exec")?)
    }

    fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        target::read_file(path)
    }

    fn write_file(&self, path: &str, content: &[u8], options: WriteOptions) -> Result<()> {
        target::write_file(path, content, &options)
    }

    fn write_file_atomic(&self, path: &str, content: &[u8], options: WriteOptions) -> Result<()> {
        target::write_file_atomic(path, content, &options)
    }

    fn file_exists(&self, path: &str) -> Result<bool> {
        target::file_exists(path)
    }

    fn create_directory(&self, path: &str, mode: Option<u32>) -> Result<()> {
        target::create_directory(path, mode)
    }

    fn delete_file(&self, path: &str) -> Result<()> {
        target::delete_file(path)
    }

    fn delete_directory(&self, path: &str) -> Result<()> {
        target::delete_directory(path)
    }
}

impl Ssh for Host {
    fn exec(&self, endpoint: &Endpoint, spec: &CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus> {
        ssh::exec(endpoint, spec, handle(stdio, "ssh.exec")?)
    }

    fn capture(&self, endpoint: &Endpoint, spec: &CommandSpec, input: &[u8]) -> Result<Output> {
        ssh::capture(endpoint, spec, input)
    }

    fn public_key(&self, credential: &str) -> Result<String> {
        ssh::public_key(credential)
    }

    fn read_file(&self, endpoint: &Endpoint, path: &str) -> Result<Vec<u8>> {
        ssh::read_file(endpoint, path)
    }

    fn write_file(&self, endpoint: &Endpoint, path: &str, content: &[u8], options: WriteOptions) -> Result<()> {
        ssh::write_file(endpoint, path, content, &options)
    }

    fn forward(&self, endpoint: &Endpoint, port: u16) -> Result<u16> {
        ssh::forward(endpoint, port)
    }
}

impl WebSockets for Host {
    fn connect(&self, url: &str, headers: &[Setting]) -> Result<Box<dyn WebSocket>> {
        Ok(Box::new(websocket::connect(url, headers)?))
    }
}

impl WebSocket for websocket::Connection {
    fn send(&self, message: Message) -> Result<()> {
        Self::send(self, &message)
    }

    fn try_receive(&self) -> Result<Option<Message>> {
        Self::receive(self)
    }

    fn receive(&self) -> Result<Message> {
        loop {
            if let Some(message) = Self::receive(self)? {
                return Ok(message);
            }
            self.subscribe().block();
        }
    }

    fn wait(&self, input: Option<&mut Awaited<'_>>, terminal: Option<Stdio<'_>>, longest: Duration) {
        wait_for(vec![self.subscribe()], input, terminal, longest);
    }
}

/// Waits until one of these is ready, or the input or the terminal, or until the time is over.
fn wait_for(
    mut awaited: Vec<Pollable>,
    input: Option<&mut Awaited<'_>>,
    terminal: Option<Stdio<'_>>,
    longest: Duration,
) {
    let nanoseconds = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    awaited.push(monotonic_clock::subscribe_duration(nanoseconds));
    if let Some(Awaited(Source::Host(stream, _))) = input {
        awaited.push(stream.subscribe());
    }
    awaited.extend(terminal.and_then(Stdio::resource).map(stdio::Stdio::subscribe_resize));
    poll(&awaited.iter().collect::<Vec<_>>());
}

impl Http for Host {
    fn send(&self, request: &Request) -> Result<Response> {
        crate::http::wasi::send(request)
    }

    fn open(&self, request: &Request) -> Result<Arriving> {
        crate::http::wasi::open(request)
    }

    fn wait(
        &self,
        bodies: &mut [&mut Body],
        input: Option<&mut Awaited<'_>>,
        terminal: Option<Stdio<'_>>,
        longest: Duration,
    ) {
        wait_for(bodies.iter().filter_map(|body| body.subscribe()).collect(), input, terminal, longest);
    }
}

impl Secrets for Host {
    fn get(&self, name: &str) -> Result<String> {
        secrets::get(name)
    }

    fn filled_size(&self, content: &[u8]) -> u64 {
        secrets::filled_size(content)
    }
}

impl Settings for Host {
    fn get(&self, name: &str) -> Option<String> {
        settings::get(name)
    }
}

impl Clock for Host {
    fn now_ms(&self) -> u64 {
        let now = wall_clock::now();
        now.seconds.saturating_mul(1000).saturating_add(u64::from(now.nanoseconds / 1_000_000))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(monotonic_clock::now())
    }

    fn sleep(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        monotonic_clock::subscribe_duration(nanoseconds).block();
    }
}

impl Random for Host {
    fn bits(&self) -> u64 {
        random::get_random_u64()
    }
}

impl Log for Host {
    fn log(&self, level: Level, message: &str) {
        log::log(level, message);
    }
}

/// How much is read or written at once. The contract of `blocking-write-and-flush` allows no more than 4096.
const CHUNK: usize = 4096;

pub(crate) struct Input(pub(crate) InputStream);

impl io::Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read(&self.0, buffer)
    }
}

/// Takes the bytes that are there.
pub(crate) fn take(stream: &InputStream, most: usize) -> io::Result<Piece> {
    match stream.read(u64::try_from(most).unwrap_or(u64::MAX)) {
        Ok(bytes) if bytes.is_empty() => Ok(Piece::Nothing),
        Ok(bytes) => Ok(Piece::Bytes(bytes)),
        Err(StreamError::Closed) => Ok(Piece::End),
        Err(StreamError::LastOperationFailed(error)) => Err(failed(&error)),
    }
}

/// Waits for bytes of a stream and puts them into `buffer`.
pub(crate) fn read(stream: &InputStream, buffer: &mut [u8]) -> io::Result<usize> {
    let wanted = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
    if wanted == 0 {
        return Ok(0);
    }
    loop {
        match stream.blocking_read(wanted) {
            // An empty list is "nothing yet", not the end.
            Ok(bytes) if bytes.is_empty() => {}
            Ok(bytes) => {
                let length = bytes.len().min(buffer.len());
                buffer[..length].copy_from_slice(&bytes[..length]);
                return Ok(length);
            }
            Err(StreamError::Closed) => return Ok(0),
            Err(StreamError::LastOperationFailed(error)) => return Err(failed(&error)),
        }
    }
}

/// The host describes an error for those who debug it, on many lines; people read the first one.
fn failed(error: &StreamFailure) -> io::Error {
    io::Error::other(error.to_debug_string().lines().next().unwrap_or_default().to_owned())
}

pub(crate) struct Writer(pub(crate) OutputStream);

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(CHUNK);
        match self.0.blocking_write_and_flush(&bytes[..length]) {
            Ok(()) => Ok(length),
            Err(StreamError::Closed) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(StreamError::LastOperationFailed(error)) => Err(failed(&error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
