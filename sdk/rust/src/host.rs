//! What a plugin can reach, as traits: the real host behind them in a component, a
//! [`FakeHost`](crate::testing::FakeHost) in a test.
//!
//! Each kind of plugin gets the struct that names what its world imports ([`ProviderHost`], …), so that reaching for
//! something that the world does not have is an error of the compiler.

use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use crate::bindings::host::pcoder::plugin::stdio as raw;
use crate::error::Result;
use crate::http::{Arriving, Body, Request, Response};
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::FakeStdio;
use crate::types::{
    CommandSpec, Endpoint, Entry, ExitStatus, Level, Message, Output, ServiceSpec, ServiceStatus, Setting,
    TerminalSize, WriteOptions,
};

pub(crate) mod real;

/// A command's standard streams, to be handed on or, by plugins with a protocol of their own, to be taken.
#[derive(Clone, Copy)]
pub struct Stdio<'a>(Streams<'a>);

#[derive(Clone, Copy)]
enum Streams<'a> {
    Host(&'a raw::Stdio),
    #[cfg(not(target_arch = "wasm32"))]
    Fake(&'a FakeStdio),
}

impl<'a> Stdio<'a> {
    pub(crate) fn from_host(stdio: &'a raw::Stdio) -> Self {
        Self(Streams::Host(stdio))
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn from_fake(stdio: &'a FakeStdio) -> Self {
        Self(Streams::Fake(stdio))
    }

    /// The host's own resource, for plugins that pump several streams with `wasi:io/poll`. Nothing in a test.
    pub fn resource(self) -> Option<&'a raw::Stdio> {
        match self.0 {
            Streams::Host(stdio) => Some(stdio),
            #[cfg(not(target_arch = "wasm32"))]
            Streams::Fake(_) => None,
        }
    }

    /// The terminal's size, or nothing when the streams are not a terminal.
    pub fn terminal(self) -> Option<TerminalSize> {
        match self.0 {
            Streams::Host(stdio) => stdio.terminal(),
            #[cfg(not(target_arch = "wasm32"))]
            Streams::Fake(stdio) => stdio.terminal(),
        }
    }

    /// How many bytes the input has, where all of it is there already. Nothing for a stream.
    pub fn input_size(self) -> Option<u64> {
        match self.0 {
            Streams::Host(stdio) => stdio.input_size(),
            #[cfg(not(target_arch = "wasm32"))]
            Streams::Fake(stdio) => stdio.input_size(),
        }
    }

    /// Takes what the command's standard input is to be fed from. Reading blocks.
    ///
    /// # Errors
    /// When it was taken or handed on before.
    pub fn stdin(self) -> Result<Box<dyn io::Read + 'a>> {
        match self.0 {
            Streams::Host(stdio) => Ok(Box::new(real::Input(stdio.stdin()?))),
            #[cfg(not(target_arch = "wasm32"))]
            Streams::Fake(stdio) => Ok(Box::new(io::Cursor::new(stdio.take_input()?))),
        }
    }

    /// Takes what the command's standard input is to be fed from, for plugins that wait for several things at once: see
    /// [`WebSocket::wait`] and [`Http::wait`].
    ///
    /// # Errors
    /// When it was taken or handed on before.
    pub fn input(self) -> Result<Input<'a>> {
        match self.0 {
            Streams::Host(stdio) => Ok(Input(Source::Host(stdio.stdin()?, PhantomData))),
            #[cfg(not(target_arch = "wasm32"))]
            Streams::Fake(stdio) => Ok(Input(Source::Fake(stdio.feed()?))),
        }
    }

    /// Takes what the command's standard output goes to. Writing blocks until the host has taken the bytes.
    ///
    /// # Errors
    /// When it was taken or handed on before.
    pub fn stdout(self) -> Result<Box<dyn io::Write + 'a>> {
        match self.0 {
            Streams::Host(stdio) => Ok(Box::new(real::Writer(stdio.stdout()?))),
            #[cfg(not(target_arch = "wasm32"))]
            Streams::Fake(stdio) => Ok(Box::new(stdio.output()?)),
        }
    }

    /// Takes what the command's standard error goes to. Writing blocks until the host has taken the bytes.
    ///
    /// # Errors
    /// When it was taken or handed on before.
    pub fn stderr(self) -> Result<Box<dyn io::Write + 'a>> {
        match self.0 {
            Streams::Host(stdio) => Ok(Box::new(real::Writer(stdio.stderr()?))),
            #[cfg(not(target_arch = "wasm32"))]
            Streams::Fake(stdio) => Ok(Box::new(stdio.error()?)),
        }
    }
}

/// A command's standard input, which is taken without waiting.
pub struct Input<'a>(Source<'a>);

enum Source<'a> {
    Host(real::InputStream, PhantomData<&'a ()>),
    #[cfg(not(target_arch = "wasm32"))]
    Fake(crate::testing::Feed<'a>),
}

/// What there is of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// These bytes; not none.
    Bytes(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// Nothing any more.
    End,
}

impl Input<'_> {
    /// Takes what is there, at most this many bytes.
    ///
    /// # Errors
    /// When the stream failed.
    pub fn take(&mut self, most: usize) -> io::Result<Piece> {
        match &mut self.0 {
            Source::Host(stream, _) => real::take(stream, most),
            #[cfg(not(target_arch = "wasm32"))]
            Source::Fake(feed) => Ok(feed.take(most)),
        }
    }

    /// Whether [`Input::take`] has something else to say than [`Piece::Nothing`].
    pub fn is_ready(&mut self) -> bool {
        match &mut self.0 {
            Source::Host(stream, _) => stream.subscribe().ready(),
            #[cfg(not(target_arch = "wasm32"))]
            Source::Fake(feed) => feed.is_ready(),
        }
    }
}

/// Programs on the host that pcoder runs on. Capability `exec`.
#[expect(clippy::missing_errors_doc, reason = "every method gives the contract's error, documented in types.wit")]
pub trait Process {
    /// Runs a command to its end, connected to `stdio`.
    fn run(&self, spec: &CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus>;
    /// Runs a command to its end, feeds it `input`, and returns what it wrote.
    fn capture(&self, spec: &CommandSpec, input: &[u8]) -> Result<Output>;
}

/// Programs on the host that outlive the call. Capability `service`.
#[expect(clippy::missing_errors_doc, reason = "every method gives the contract's error, documented in service.wit")]
pub trait Services {
    /// Starts a program, which runs until it ends or is stopped.
    fn start(&self, name: &str, spec: &ServiceSpec) -> Result<ServiceStatus>;
    /// Describes a service.
    fn status(&self, name: &str) -> Result<Option<ServiceStatus>>;
    /// Lists the plugin's services.
    fn list(&self) -> Result<Vec<ServiceStatus>>;
    /// Ends a service: it is asked to end, and made to after `grace`.
    fn stop(&self, name: &str, grace: Duration) -> Result<Option<ExitStatus>>;
    /// Forgets a service that has ended, and its log.
    fn remove(&self, name: &str) -> Result<()>;
    /// The end of what it wrote to standard error.
    fn log_tail(&self, name: &str, bytes: u32) -> Result<Vec<u8>>;
    /// Talks with a service, once those are through who came before.
    fn talk(&self, name: &str, patience: Duration) -> Result<Box<dyn Talk>>;
}

/// A talk with a service; dropping it ends the talk.
#[expect(clippy::missing_errors_doc, reason = "every method gives the contract's error, documented in service.wit")]
pub trait Talk {
    /// Sends a message: a JSON object.
    fn send(&self, message: &str) -> Result<()>;
    /// Takes the next line without waiting.
    fn try_receive(&self) -> Result<Option<String>>;
    /// Waits until there is a line or none will come, or until the time is over.
    fn wait(&self, longest: Duration);
}

/// Files on the host that pcoder runs on, by root and path. Capability `files`.
#[expect(clippy::missing_errors_doc, reason = "every method gives the contract's error, documented in types.wit")]
pub trait Files {
    /// Reads a whole file.
    fn read(&self, root: &str, path: &str) -> Result<Vec<u8>>;
    /// Writes a whole file in place.
    fn write(&self, root: &str, path: &str, content: &[u8], options: WriteOptions) -> Result<()>;
    /// Writes a whole file so that readers see the old one or the new one.
    fn write_atomic(&self, root: &str, path: &str, content: &[u8], options: WriteOptions) -> Result<()>;
    /// Lists a folder, sorted by name.
    fn list(&self, root: &str, path: &str) -> Result<Vec<Entry>>;
    /// Describes one path.
    fn stat(&self, root: &str, path: &str) -> Result<Entry>;
    /// Renames within one root.
    fn rename(&self, root: &str, from: &str, to: &str) -> Result<()>;
    /// Removes a file, or a folder with all that it holds when `recursive`.
    fn remove(&self, root: &str, path: &str, recursive: bool) -> Result<()>;
    /// Creates a folder and the missing ones above it.
    fn create_directory(&self, root: &str, path: &str, mode: Option<u32>) -> Result<()>;
}

/// The one instance that the call is about. Capability `target`.
#[expect(clippy::missing_errors_doc, reason = "every method gives the contract's error, documented in types.wit")]
pub trait Target {
    /// The home folder on the instance, absolute.
    fn home_dir(&self) -> Result<String>;
    /// Runs a command to its end, feeds it `input`, and returns what it wrote.
    fn run(&self, spec: &CommandSpec, input: &[u8]) -> Result<Output>;
    /// Runs a command with these streams.
    fn exec(&self, spec: &CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus>;
    /// Reads a whole file.
    fn read_file(&self, path: &str) -> Result<Vec<u8>>;
    /// Writes a whole file in place. The content may hold placeholders from [`Secrets::get`].
    fn write_file(&self, path: &str, content: &[u8], options: WriteOptions) -> Result<()>;
    /// Writes a whole file so that readers see the old one or the new one. The content may hold placeholders.
    fn write_file_atomic(&self, path: &str, content: &[u8], options: WriteOptions) -> Result<()>;
    /// Whether there is a file or a folder.
    fn file_exists(&self, path: &str) -> Result<bool>;
    /// Creates a folder and the missing ones above it.
    fn create_directory(&self, path: &str, mode: Option<u32>) -> Result<()>;
    /// Removes a file. One that is not there is no error.
    fn delete_file(&self, path: &str) -> Result<()>;
    /// Removes a folder with all that it holds. One that is not there is no error.
    fn delete_directory(&self, path: &str) -> Result<()>;
}

/// SSH, spoken by the host. Capability `net` with the scheme `ssh`.
#[expect(clippy::missing_errors_doc, reason = "every method gives the contract's error, documented in types.wit")]
pub trait Ssh {
    /// Runs a command there with these streams.
    fn exec(&self, endpoint: &Endpoint, spec: &CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus>;
    /// Runs a command there to its end, feeds it `input`, and returns what it wrote.
    fn capture(&self, endpoint: &Endpoint, spec: &CommandSpec, input: &[u8]) -> Result<Output>;
    /// The public half of the private key that a placeholder from [`Secrets::get`] stands for.
    fn public_key(&self, credential: &str) -> Result<String>;
    /// Reads a whole file there.
    fn read_file(&self, endpoint: &Endpoint, path: &str) -> Result<Vec<u8>>;
    /// Writes a whole file there.
    fn write_file(&self, endpoint: &Endpoint, path: &str, content: &[u8], options: WriteOptions) -> Result<()>;
    /// Forwards a port of the host's loopback to `port` there and returns the local one.
    fn forward(&self, endpoint: &Endpoint, port: u16) -> Result<u16>;
}

/// WebSockets, spoken by the host. Capability `net` with the scheme `ws` or `wss`.
pub trait WebSockets {
    /// Connects. Header values may hold placeholders from [`Secrets::get`].
    ///
    /// # Errors
    /// The contract's.
    fn connect(&self, url: &str, headers: &[Setting]) -> Result<Box<dyn WebSocket>>;
}

/// An open WebSocket; dropping it closes it.
#[expect(clippy::missing_errors_doc, reason = "every method gives the contract's error, documented in websocket.wit")]
pub trait WebSocket {
    /// Sends one message.
    fn send(&self, message: Message) -> Result<()>;
    /// Takes the next message without waiting.
    fn try_receive(&self) -> Result<Option<Message>>;
    /// Takes the next message, waiting for it.
    fn receive(&self) -> Result<Message>;
    /// Waits until there is a message or the connection has ended, until the input has something, until the terminal
    /// was resized since it was last asked for its size, or until the time is over, whichever is first. Which it was,
    /// they say themselves.
    fn wait(&self, input: Option<&mut Input<'_>>, terminal: Option<Stdio<'_>>, longest: Duration);
}

/// HTTP, spoken by the host. Capability `net` with the scheme `http` or `https`.
pub trait Http {
    /// Sends a request and reads its whole answer. Header values may hold placeholders from [`Secrets::get`]. Every
    /// status is an answer; [`crate::http::check`] makes errors of those that are failures.
    ///
    /// # Errors
    /// When there is no answer: `denied`, `invalid`, `network`, `timeout`, `limit`.
    fn send(&self, request: &Request) -> Result<Response>;

    /// Sends a request and returns once the answer begins, for one that is read while it arrives.
    ///
    /// # Errors
    /// As [`Http::send`].
    fn open(&self, request: &Request) -> Result<Arriving>;

    /// Waits until one of the bodies has something or has ended, until the input has something, until the terminal was
    /// resized since it was last asked for its size, or until the time is over, whichever is first. Which it was, they
    /// say themselves.
    fn wait(
        &self,
        bodies: &mut [&mut Body],
        input: Option<&mut Input<'_>>,
        terminal: Option<Stdio<'_>>,
        longest: Duration,
    );
}

/// Secrets, by name. Capability `secrets`.
pub trait Secrets {
    /// A placeholder, for which the host puts the value in where a grant allows it to go.
    ///
    /// # Errors
    /// `denied` without a grant, `unauthenticated` when the user has not set it.
    fn get(&self, name: &str) -> Result<String>;

    /// How many bytes a content has once every placeholder in it has been filled, for protocols that say a length
    /// beforehand.
    fn filled_size(&self, content: &[u8]) -> u64;
}

/// What the plugin's user set for it. It needs no grant.
pub trait Settings {
    /// The value of a setting that the manifest names: the user's, or the manifest's default.
    fn get(&self, name: &str) -> Option<String>;
}

/// The time.
pub trait Clock {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
    /// Waits.
    fn sleep(&self, duration: Duration);
}

/// Random numbers.
pub trait Random {
    /// Sixty-four random bits.
    fn bits(&self) -> u64;
}

/// The plugin's log. It needs no grant.
pub trait Log {
    /// Writes one line.
    fn log(&self, level: Level, message: &str);
}

/// Everything that a host offers, for a double of it in tests. Implemented by whatever implements the traits.
pub trait Everything:
    Process + Services + Files + Target + Ssh + WebSockets + Http + Secrets + Settings + Clock + Random + Log
{
}

impl<T> Everything for T where
    T: Process + Services + Files + Target + Ssh + WebSockets + Http + Secrets + Settings + Clock + Random + Log
{
}

#[derive(Clone, Copy)]
enum Side<'a> {
    Real(PhantomData<&'a ()>),
    #[cfg(not(target_arch = "wasm32"))]
    Double(&'a dyn Everything),
}

/// Makes the struct of one kind of plugin. A method for each interface instead of a field: an interface that a plugin
/// never asks for is then not linked, and its component does not import it.
macro_rules! host {
    ($(#[$doc:meta])* $name:ident { $($(#[$method_doc:meta])* $method:ident: $interface:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name<'a>(Side<'a>);

        impl<'a> $name<'a> {
            pub(crate) fn real() -> Self {
                Self(Side::Real(PhantomData))
            }

            /// A double of the host, for tests.
            #[cfg(not(target_arch = "wasm32"))]
            pub fn double(double: &'a dyn Everything) -> Self {
                Self(Side::Double(double))
            }

            $(
                $(#[$method_doc])*
                pub fn $method(self) -> &'a dyn $interface {
                    match self.0 {
                        Side::Real(_) => &real::Host,
                        #[cfg(not(target_arch = "wasm32"))]
                        Side::Double(double) => double,
                    }
                }
            )+
        }
    };
}

host! {
    /// What a provider can reach.
    ProviderHost {
        /// Programs on the host.
        process: Process,
        /// Programs on the host that outlive the call.
        services: Services,
        /// Files on the host.
        files: Files,
        /// SSH.
        ssh: Ssh,
        /// WebSockets.
        websockets: WebSockets,
        /// HTTP.
        http: Http,
        /// Secrets.
        secrets: Secrets,
        /// What its user set for it.
        settings: Settings,
        /// The time.
        clock: Clock,
        /// Random numbers.
        random: Random,
        /// The log.
        log: Log,
    }
}

host! {
    /// What a process manager can reach.
    ProcessManagerHost {
        /// The call's instance.
        target: Target,
        /// Files on the host.
        files: Files,
        /// What its user set for it.
        settings: Settings,
        /// The time.
        clock: Clock,
        /// Random numbers.
        random: Random,
        /// The log.
        log: Log,
    }
}

host! {
    /// What an agent can reach: it only computes.
    AgentHost {
        /// The log.
        log: Log,
    }
}

host! {
    /// What a credentials installer can reach.
    CredentialsHost {
        /// The call's instance.
        target: Target,
        /// Secrets.
        secrets: Secrets,
        /// The time.
        clock: Clock,
        /// Random numbers.
        random: Random,
        /// The log.
        log: Log,
    }
}
