//! `stdio`: a command's streams as something to hand on.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal as _, PipeReader, PipeWriter};
use std::process::Stdio as Handle;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pcoder_service::passing::Outputs;
use tokio_util::bytes::Bytes;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::pipe::{
    AsyncReadStream, AsyncWriteStream, ClosedInputStream, MemoryInputPipe, SinkOutputStream,
};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, OutputStream, Pollable, StreamError, StreamResult, subscribe,
};

use super::ends::{Ends, Sizes};
use super::raw_terminal::RawTerminal;
use crate::bindings::host::pcoder::plugin::stdio::{Host, HostStdio, TerminalSize};
use crate::bindings::host::pcoder::plugin::types::Error as WitError;
use crate::call::CallState;
use crate::error::{Error, code};

/// An input that fits into what lies between two processes, in bytes.
pub(crate) const SHORT: usize = 64 << 10;

/// Where a command's input comes from.
#[derive(Debug)]
pub enum Input {
    /// This process's own standard input, terminal or not.
    Inherit,
    /// Nothing: it ends at once.
    Null,
    /// These bytes.
    Bytes(Vec<u8>),
    /// A pipe.
    Pipe(PipeReader),
}

impl Input {
    /// How many bytes there are, where that is known beforehand.
    fn size(&self) -> Option<u64> {
        match self {
            Self::Null => Some(0),
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Inherit => own_input_size(),
            Self::Pipe(_) => None,
        }
    }
}

/// How much of this process's own input is left, where it is a file or the null device.
fn own_input_size() -> Option<u64> {
    #[cfg(unix)]
    let own = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned().ok()?;
    #[cfg(windows)]
    let own = std::os::windows::io::AsHandle::as_handle(&std::io::stdin()).try_clone_to_owned().ok()?;
    // The same open file, so its position is that of the input.
    let mut file = std::fs::File::from(own);
    let metadata = file.metadata().ok()?;
    if metadata.is_file() {
        let position = std::io::Seek::stream_position(&mut file).ok()?;
        return Some(metadata.len().saturating_sub(position));
    }
    #[cfg(unix)]
    if std::os::unix::fs::FileTypeExt::is_char_device(&metadata.file_type()) {
        use std::os::unix::fs::MetadataExt as _;
        let null = std::fs::metadata("/dev/null").ok()?;
        return (null.rdev() == metadata.rdev()).then_some(0);
    }
    None
}

/// Where a command's output goes.
#[derive(Debug)]
pub enum Output {
    /// This process's own, terminal or not.
    Inherit,
    /// Nowhere.
    Null,
    /// A pipe.
    Pipe(PipeWriter),
}

/// What a caller gives a command for its streams. Each can be taken once.
#[derive(Debug)]
pub struct Stdio {
    terminal: bool,
    stdin: Option<Input>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    lender: Option<Weak<Mutex<Option<Stdio>>>>,
}

/// Streams that come back when nobody took any of them: then the command did not begin, and can be run again.
#[derive(Debug)]
pub struct Lent(Arc<Mutex<Option<Stdio>>>);

impl Lent {
    /// The streams, once the call has ended that they were lent to.
    pub fn back(self) -> Option<Stdio> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Stdio {
    fn drop(&mut self) {
        let Some(lender) = self.lender.take().and_then(|it| it.upgrade()) else { return };
        if let Ok((stdin, stdout, stderr)) = self.all() {
            *lender.lock().unwrap_or_else(PoisonError::into_inner) = Some(Self::new(stdin, stdout, stderr));
        }
    }
}

impl Stdio {
    /// These streams.
    pub fn new(stdin: Input, stdout: Output, stderr: Output) -> Self {
        let terminal = matches!((&stdin, &stdout), (Input::Inherit, Output::Inherit))
            && std::io::stdin().is_terminal()
            && std::io::stdout().is_terminal();
        Self { terminal, stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr), lender: None }
    }

    /// Lends them to a call.
    pub fn lend(mut self) -> (Self, Lent) {
        let lent = Arc::new(Mutex::new(None));
        self.lender = Some(Arc::downgrade(&lent));
        (self, Lent(lent))
    }

    /// This process's own streams.
    pub fn inherit() -> Self {
        Self::new(Input::Inherit, Output::Inherit, Output::Inherit)
    }

    /// This process's own output, and no input.
    pub fn without_input() -> Self {
        Self::new(Input::Null, Output::Inherit, Output::Inherit)
    }

    /// Whether they are a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether its input is short, or typed.
    pub(crate) fn is_short(&self) -> bool {
        self.terminal || self.stdin.as_ref().and_then(Input::size).is_some_and(|it| it <= SHORT as u64)
    }

    /// Takes all three to give them to another call.
    pub(crate) fn hand_on(&mut self) -> Result<Self, Error> {
        let (stdin, stdout, stderr) = self.all()?;
        Ok(Self::new(stdin, stdout, stderr))
    }

    /// Changes input that is all there. A stream stays as it is.
    pub(crate) fn change_input(&mut self, change: impl FnOnce(&[u8]) -> Result<Vec<u8>, Error>) -> Result<(), Error> {
        if let Some(Input::Bytes(bytes)) = &mut self.stdin {
            *bytes = change(bytes)?;
        }
        Ok(())
    }

    /// Takes all three for a program that the host starts.
    pub(crate) fn take(&mut self) -> Result<Streams, Error> {
        let (stdin, stdout, stderr) = self.all()?;
        Ok(Streams {
            terminal: self.terminal,
            stdin: match stdin {
                Input::Inherit => Handle::inherit(),
                Input::Null => Handle::null(),
                Input::Bytes(bytes) => fed(bytes)?.into(),
                Input::Pipe(pipe) => pipe.into(),
            },
            stdout: output_handle(stdout),
            stderr: output_handle(stderr),
        })
    }

    /// Takes all three to be pumped by the host, but for what somebody else writes to.
    pub(crate) fn ends_beside(&mut self, passed: Passed) -> Result<Ends, Error> {
        let (stdin, stdout, stderr) = self.all()?;
        let beside = |is_passed: bool, output| if is_passed { Output::Null } else { output };
        Ends::new(stdin, beside(passed.stdout, stdout), beside(passed.stderr, stderr))
    }

    /// The outputs that somebody else may write to as well as this process. A terminal is none: what is written to it
    /// has to stop with this process, and is for its own foreground.
    pub(crate) fn outputs(&self) -> Outputs {
        let open = |output: &Option<Output>, own: fn() -> Option<File>| match output.as_ref()? {
            Output::Inherit => own(),
            Output::Null => None,
            Output::Pipe(pipe) => open_again(pipe),
        };
        Outputs {
            stdout: open(&self.stdout, || open_again(&std::io::stdout())),
            stderr: open(&self.stderr, || open_again(&std::io::stderr())),
        }
    }

    fn all(&mut self) -> Result<(Input, Output, Output), Error> {
        match (self.stdin.take(), self.stdout.take(), self.stderr.take()) {
            (Some(stdin), Some(stdout), Some(stderr)) => Ok((stdin, stdout, stderr)),
            _ => Err(taken("stdio")),
        }
    }
}

/// Which of a command's outputs somebody else writes to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Passed {
    stdout: bool,
    stderr: bool,
}

impl Passed {
    pub(crate) fn of(outputs: &Outputs) -> Self {
        Self { stdout: outputs.stdout.is_some(), stderr: outputs.stderr.is_some() }
    }

    pub(crate) fn any(self) -> bool {
        self.stdout || self.stderr
    }
}

/// The same open file, where it is no terminal and waits for whoever reads: what is set otherwise is set for everybody
/// who has it open.
#[cfg(unix)]
fn open_again(output: &impl std::os::fd::AsFd) -> Option<File> {
    use rustix::fs::{OFlags, fcntl_getfl};
    let output = output.as_fd();
    let waits = fcntl_getfl(output).is_ok_and(|flags| !flags.contains(OFlags::NONBLOCK));
    if output.is_terminal() || !waits {
        return None;
    }
    output.try_clone_to_owned().ok().map(File::from)
}

/// On Windows nothing is passed.
#[cfg(windows)]
fn open_again<T>(_: &T) -> Option<File> {
    None
}

/// A pipe that these bytes come out of. A command that does not read its input keeps a thread until it ends, and no
/// longer.
pub(super) fn fed(bytes: Vec<u8>) -> Result<PipeReader, Error> {
    use std::io::Write as _;
    let failed = |error: std::io::Error| Error::io("stdio", "a pipe", &error);
    let (reader, mut writer) = std::io::pipe().map_err(failed)?;
    let feed = move || drop(writer.write_all(&bytes));
    std::thread::Builder::new().name("standard input".to_owned()).spawn(feed).map_err(failed)?;
    Ok(reader)
}

fn output_handle(output: Output) -> Handle {
    match output {
        Output::Inherit => Handle::inherit(),
        Output::Null => Handle::null(),
        Output::Pipe(pipe) => pipe.into(),
    }
}

/// Streams as a program gets them.
pub struct Streams {
    pub(crate) terminal: bool,
    pub(crate) stdin: Handle,
    pub(crate) stdout: Handle,
    pub(crate) stderr: Handle,
}

fn taken(which: &str) -> Error {
    Error::new(code::CONFLICT, "stdio", format!("{which} was taken already"))
        .hint("a stream can be taken once, and not after the stdio was handed on")
}

fn lost(error: impl std::fmt::Display) -> WitError {
    Error::new(code::INTERNAL, "stdio", error.to_string()).into()
}

#[wasmtime_wasi::async_trait]
impl Pollable for Sizes {
    async fn ready(&mut self) {
        self.changed().await;
    }
}

impl Host for CallState {}

impl HostStdio for CallState {
    async fn terminal(&mut self, this: Resource<Stdio>) -> Option<TerminalSize> {
        self.table.get(&this).ok().and_then(Stdio::size)
    }

    async fn subscribe_resize(&mut self, this: Resource<Stdio>) -> Resource<DynPollable> {
        let terminal = self.table.get(&this).is_ok_and(Stdio::is_terminal);
        self.push_pollable(Sizes::of(terminal))
    }

    async fn input_size(&mut self, this: Resource<Stdio>) -> Option<u64> {
        self.table.get(&this).ok().and_then(|it| it.stdin.as_ref()).and_then(Input::size)
    }

    async fn stdin(&mut self, this: Resource<Stdio>) -> Result<Resource<DynInputStream>, WitError> {
        let stdio = self.table.get_mut(&this).map_err(lost)?;
        let input = stdio.stdin.take().ok_or_else(|| taken("standard input"))?;
        // The plugin carries it to a terminal elsewhere.
        if stdio.terminal && self.raw.is_none() {
            self.raw = RawTerminal::enter();
        }
        let stream: DynInputStream = match input {
            Input::Inherit => Box::new(AsyncReadStream::new(tokio::io::stdin())),
            Input::Null => Box::new(ClosedInputStream),
            Input::Bytes(bytes) => Box::new(MemoryInputPipe::new(bytes)),
            Input::Pipe(pipe) => Box::new(AsyncReadStream::new(pipe_reader(pipe).map_err(WitError::from)?)),
        };
        self.table.push(stream).map_err(lost)
    }

    async fn stdout(&mut self, this: Resource<Stdio>) -> Result<Resource<DynOutputStream>, WitError> {
        let output = self.table.get_mut(&this).map_err(lost)?.stdout.take().ok_or_else(|| taken("standard output"))?;
        let stream = output_stream(output, tokio::io::stdout())?;
        self.table.push(stream).map_err(lost)
    }

    async fn stderr(&mut self, this: Resource<Stdio>) -> Result<Resource<DynOutputStream>, WitError> {
        let output = self.table.get_mut(&this).map_err(lost)?.stderr.take().ok_or_else(|| taken("standard error"))?;
        let stream = output_stream(output, tokio::io::stderr())?;
        self.table.push(stream).map_err(lost)
    }

    async fn drop(&mut self, this: Resource<Stdio>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

/// What a stream holds back before a guest must wait.
const BUFFER: usize = 64 * 1024;

fn output_stream(
    output: Output,
    own: impl tokio::io::AsyncWrite + Send + Unpin + 'static,
) -> Result<DynOutputStream, WitError> {
    Ok(match output {
        Output::Inherit => Box::new(Leaving(AsyncWriteStream::new(BUFFER, own))),
        Output::Null => Box::new(SinkOutputStream),
        Output::Pipe(pipe) => Box::new(Leaving(AsyncWriteStream::new(BUFFER, pipe_writer(pipe)?))),
    })
}

/// A stream whose reader may leave. To a guest that is the stream's end, and not a failure that it cannot tell from
/// others.
struct Leaving(AsyncWriteStream);

impl Leaving {
    fn told<T>(result: StreamResult<T>) -> StreamResult<T> {
        result.map_err(|error| match error {
            StreamError::LastOperationFailed(inner)
                if inner.downcast_ref::<std::io::Error>().is_some_and(|it| it.kind() == ErrorKind::BrokenPipe) =>
            {
                StreamError::Closed
            }
            other => other,
        })
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Leaving {
    async fn ready(&mut self) {
        self.0.ready().await;
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Leaving {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        Self::told(self.0.write(bytes))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Self::told(self.0.flush())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Self::told(self.0.check_write())
    }

    async fn cancel(&mut self) {
        self.0.cancel().await;
    }
}

/// The async side of a pipe's reading end.
///
/// # Errors
/// `io` outside of an async runtime.
pub fn pipe_reader(pipe: PipeReader) -> Result<impl tokio::io::AsyncRead + Send + Unpin + 'static, Error> {
    #[cfg(unix)]
    let reader = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe.into())
        .map_err(|error| Error::io("stdio", "pipe", &error))?;
    #[cfg(not(unix))]
    let reader = tokio::fs::File::from_std(std::fs::File::from(std::os::windows::io::OwnedHandle::from(pipe)));
    Ok(reader)
}

/// The async side of a pipe's writing end.
///
/// # Errors
/// `io` outside of an async runtime.
pub fn pipe_writer(pipe: PipeWriter) -> Result<impl tokio::io::AsyncWrite + Send + Unpin + 'static, Error> {
    #[cfg(unix)]
    let writer = tokio::net::unix::pipe::Sender::from_owned_fd(pipe.into())
        .map_err(|error| Error::io("stdio", "pipe", &error))?;
    #[cfg(not(unix))]
    let writer = tokio::fs::File::from_std(std::fs::File::from(std::os::windows::io::OwnedHandle::from(pipe)));
    Ok(writer)
}

impl CallState {
    fn push_pollable<T: Pollable + 'static>(&mut self, pollable: T) -> Resource<DynPollable> {
        // A full table must not trap: the guest gets a handle that is not in it, and its next use fails.
        self.table
            .push(pollable)
            .and_then(|resource| {
                subscribe(&mut self.table, resource).map_err(|_| wasmtime::component::ResourceTableError::Full)
            })
            .unwrap_or_else(|_| Resource::new_own(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_were_lent_come_back_when_nobody_took_one() {
        let stdio = || Stdio::new(Input::Bytes(b"in".to_vec()), Output::Null, Output::Null);
        let (unused, lent) = stdio().lend();
        drop(unused);
        let mut again = lent.back().expect("they come back");
        assert!(again.hand_on().is_ok());
        let (mut used, lent) = stdio().lend();
        let moved = used.hand_on();
        drop((used, moved));
        assert!(lent.back().is_none());
        let (mut begun, lent) = stdio().lend();
        begun.stdin.take();
        drop(begun);
        assert!(lent.back().is_none());
        let (kept, lent) = stdio().lend();
        assert!(lent.back().is_none());
        drop(kept);
    }
}
