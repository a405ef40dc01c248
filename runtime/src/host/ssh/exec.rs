//! A command on another machine, with the caller's streams.

use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::connect::Connection;
use super::failed;
use super::keeper::{FAILED, OUTPUTS};
use crate::bindings::host::pcoder::plugin::stdio::TerminalSize;
use crate::bindings::host::pcoder::plugin::types::ExitStatus;
use crate::error::{Error, code};
use crate::gate::Gate;
use crate::host::ends::{Ends, Sizes};
use crate::host::raw_terminal::RawTerminal;
use crate::host::stdio::Passed;
use crate::shell::quote;
use crate::text;

const OPERATION: &str = "ssh.exec";

/// What every server takes as one command line. Dropbear takes 9,000 bytes and ends the connection at more
/// (`MAX_CMD_LEN`), and Linux takes 128 KiB as one word, which is what a server makes of a line.
const LONGEST_LINE: usize = 8000;

/// Keeps a script where its user alone reads it, in memory where there is a place for that: it may have secrets in it. One
/// that is not started after this, because its caller has left, stays there.
const KEEP: &str = "umask 077; d=/dev/shm; [ -w \"$d\" ] || d=${TMPDIR:-/tmp}; \
                    f=$(mktemp \"$d/pcoder.XXXXXX\") && cat >\"$f\" && printf %s \"$f\"";

/// An output that is kept, within what the call may still move.
#[derive(Clone)]
pub(super) struct Kept {
    written: Arc<Mutex<Result<Vec<u8>, Error>>>,
    gate: Arc<Gate>,
}

impl Kept {
    pub(super) fn new(gate: &Arc<Gate>) -> Self {
        Self { written: Arc::new(Mutex::new(Ok(Vec::new()))), gate: Arc::clone(gate) }
    }

    /// What was written.
    ///
    /// # Errors
    /// `limit` when that was too much.
    pub(super) fn take(&self) -> Result<Vec<u8>, Error> {
        std::mem::replace(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner), Ok(Vec::new()))
    }
}

impl AsyncWrite for Kept {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.gate.budget().charge("ssh.capture", bytes.len() as u64) {
            *written = Err(error);
        }
        match &mut *written {
            Ok(kept) => {
                kept.extend_from_slice(bytes);
                Poll::Ready(Ok(bytes.len()))
            }
            // The command ends as one whose reader has left, and `take` says why that was.
            Err(_) => Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The terminal that the command gets.
pub(super) struct Terminal {
    pub(super) term: String,
    pub(super) size: TerminalSize,
}

/// Runs a command to its end. The other side of the connection writes to what it was passed.
pub(super) async fn run(
    connection: &Connection,
    gate: &Arc<Gate>,
    line: String,
    terminal: Option<Terminal>,
    ends: Ends,
    passed: Passed,
) -> Result<ExitStatus, Error> {
    let broken = |error: russh::Error| failed(OPERATION, &error);
    let line = if line.len() > LONGEST_LINE { script(connection, gate, &line).await? } else { line };
    let channel = connection.handle.channel_open_session().await.map_err(broken)?;
    let (mut reader, writer) = channel.split();
    let has_terminal = terminal.is_some();
    if passed.any() {
        writer.set_env(false, OUTPUTS, "").await.map_err(broken)?;
    }
    if let Some(Terminal { term, size }) = terminal {
        let (columns, rows) = (size.columns.into(), size.rows.into());
        writer.request_pty(true, &term, columns, rows, 0, 0, &[]).await.map_err(broken)?;
        agreed(&mut reader, "the other side gives no terminal").await?;
    }
    writer.exec(true, line).await.map_err(broken)?;
    agreed(&mut reader, "the other side runs no commands").await?;
    let Ends { stdin, mut stdout, mut stderr } = ends;
    let _raw = has_terminal.then(RawTerminal::enter);
    let status = output(&mut reader, &mut stdout, &mut stderr, passed);
    tokio::select! {
        biased;
        status = status => status,
        never = input(&writer, stdin) => match never {},
        never = resizes(&writer, has_terminal) => match never {},
    }
}

/// A line that runs one that is too long to be sent as one. It takes it away before anything else.
async fn script(connection: &Connection, gate: &Arc<Gate>, line: &str) -> Result<String, Error> {
    let broken = |error: russh::Error| failed(OPERATION, &error);
    let channel = connection.handle.channel_open_session().await.map_err(broken)?;
    let (mut reader, writer) = channel.split();
    writer.exec(true, KEEP).await.map_err(broken)?;
    agreed(&mut reader, "the other side runs no commands").await?;
    writer.data_bytes(format!("rm -f -- \"$0\"\n{line}\n").into_bytes()).await.map_err(broken)?;
    writer.eof().await.map_err(broken)?;
    let (mut name, mut said) = (Kept::new(gate), Kept::new(gate));
    let status = output(&mut reader, &mut name, &mut said, Passed::default()).await?;
    let (name, said) = (name.take()?, said.take()?);
    match String::from_utf8(name) {
        Ok(name) if status == ExitStatus::Exited(0) && name.starts_with('/') => Ok(format!("exec sh {}", quote(&name))),
        _ => {
            let message = format!("a command line of {} bytes could not be kept there", line.len());
            Err(Error::new(code::PROCESS, OPERATION, message)
                .subject(text::for_people(&String::from_utf8_lossy(&said), 400))
                .hint("it takes `mktemp` and a folder that can be written to on the other side: `/dev/shm` or `/tmp`"))
        }
    }
}

/// Waits for the answer to what was asked for.
async fn agreed(reader: &mut ChannelReadHalf, refusal: &str) -> Result<(), Error> {
    loop {
        match reader.wait().await {
            Some(ChannelMsg::Success) => return Ok(()),
            Some(ChannelMsg::Failure) => return Err(Error::new(code::UNSUPPORTED, OPERATION, refusal)),
            Some(ChannelMsg::Close) | None => return Err(failed(OPERATION, &russh::Error::Disconnect)),
            Some(_) => {}
        }
    }
}

/// Passes on what the command writes, to its end.
async fn output(
    reader: &mut ChannelReadHalf,
    stdout: &mut (dyn tokio::io::AsyncWrite + Send + Unpin),
    stderr: &mut (dyn tokio::io::AsyncWrite + Send + Unpin),
    passed: Passed,
) -> Result<ExitStatus, Error> {
    let mut status = None;
    while let Some(message) = reader.wait().await {
        let written = match message {
            ChannelMsg::Data { data } => write(stdout, &data).await,
            ChannelMsg::ExtendedData { data, ext: 1 } => write(stderr, &data).await,
            ChannelMsg::ExtendedData { data, ext: FAILED } if passed.any() => Err(told(&data)),
            ChannelMsg::ExitStatus { exit_status } => {
                status = Some(ExitStatus::Exited(exit_status.cast_signed()));
                Ok(())
            }
            ChannelMsg::ExitSignal { signal_name, .. } => {
                status = number(&signal_name).map(ExitStatus::Signaled);
                Ok(())
            }
            ChannelMsg::Close => break,
            _ => Ok(()),
        };
        match written {
            // Who reads it has left: for the user it ends as if a pipe had ended it, and the channel closes behind it.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitStatus::Signaled(13)),
            written => written.map_err(|error| Error::io(OPERATION, "output", &error))?,
        }
    }
    status.ok_or_else(|| {
        Error::new(code::UNAVAILABLE, OPERATION, "the connection was lost before the command told how it ended")
    })
}

/// The error that the other side had with an output that it was passed.
fn told(data: &[u8]) -> std::io::Error {
    match str::from_utf8(data).ok().and_then(|it| it.parse().ok()) {
        Some(number) if number != 0 => std::io::Error::from_raw_os_error(number),
        _ => std::io::Error::other("what is written to it is not taken"),
    }
}

async fn write(to: &mut (dyn tokio::io::AsyncWrite + Send + Unpin), data: &[u8]) -> std::io::Result<()> {
    to.write_all(data).await?;
    to.flush().await
}

enum Never {}

/// Feeds the command, and tells it when there is no more.
async fn input(writer: &ChannelWriteHalf<Msg>, mut stdin: impl AsyncRead + Unpin) -> Never {
    let mut buffer = vec![0; 16 << 10];
    // A stream that cannot be read has ended, and a command that does not read its input is no error.
    while let Ok(length @ 1..) = stdin.read(&mut buffer).await {
        if writer.data_bytes(buffer[..length].to_vec()).await.is_err() {
            return std::future::pending().await;
        }
    }
    let _ = writer.eof().await;
    std::future::pending().await
}

/// Tells the command that its terminal has another size.
async fn resizes(writer: &ChannelWriteHalf<Msg>, terminal: bool) -> Never {
    let mut sizes = Sizes::of(terminal);
    loop {
        sizes.changed().await;
        if let Some((width, height)) = terminal_size::terminal_size() {
            let _ = writer.window_change(width.0.into(), height.0.into(), 0, 0).await;
        }
    }
}

/// A signal's number where the command ran. Those that SSH names have one number on every system but for a few, whose
/// Linux number is taken.
fn number(signal: &Sig) -> Option<i32> {
    Some(match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::USR1 => 10,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        Sig::TERM => 15,
        Sig::Custom(name) => match name.as_str() {
            "TRAP" => 5,
            "BUS" => 7,
            "USR2" => 12,
            "XCPU" => 24,
            "XFSZ" => 25,
            "SYS" => 31,
            _ => return None,
        },
    })
}
