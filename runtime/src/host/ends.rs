//! A command's streams as the host itself reads and writes them, where it does the transport.

use tokio::io::{AsyncRead, AsyncWrite};

use super::stdio::{Input, Output, Stdio, pipe_reader, pipe_writer};
use crate::bindings::host::pcoder::plugin::stdio::TerminalSize;
use crate::error::Error;

/// The three streams, to be pumped.
pub(crate) struct Ends {
    pub(crate) stdin: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) stdout: Box<dyn AsyncWrite + Send + Unpin>,
    pub(crate) stderr: Box<dyn AsyncWrite + Send + Unpin>,
}

impl Ends {
    pub(crate) fn new(stdin: Input, stdout: Output, stderr: Output) -> Result<Self, Error> {
        Ok(Self {
            stdin: match stdin {
                Input::Inherit => own_input()?,
                Input::Null => Box::new(tokio::io::empty()),
                Input::Bytes(bytes) => Box::new(std::io::Cursor::new(bytes)),
                Input::Pipe(pipe) => Box::new(pipe_reader(pipe)?),
            },
            stdout: writer(stdout, || Box::new(tokio::io::stdout()))?,
            stderr: writer(stderr, || Box::new(tokio::io::stderr()))?,
        })
    }
}

fn writer(
    output: Output,
    own: impl FnOnce() -> Box<dyn AsyncWrite + Send + Unpin>,
) -> Result<Box<dyn AsyncWrite + Send + Unpin>, Error> {
    Ok(match output {
        Output::Inherit => own(),
        Output::Null => Box::new(tokio::io::sink()),
        Output::Pipe(pipe) => Box::new(pipe_writer(pipe)?),
    })
}

/// This process's own standard input, read for as long as somebody wants it and no longer: a read that is under way
/// when a command has ended would take the first line that is meant for whoever comes next.
#[cfg(unix)]
fn own_input() -> Result<Box<dyn AsyncRead + Send + Unpin>, Error> {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::io::Errno;

    let failed = |error: std::io::Error| Error::io("stdio", "standard input", &error);
    let (reader, mut writer) = std::io::pipe().map_err(failed)?;
    let pump = move || {
        let stdin = std::io::stdin();
        let mut buffer = [0; 16 << 10];
        loop {
            // The pipe says `ERR` once its reader is gone.
            let mut both = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&writer, PollFlags::empty())];
            match poll(&mut both, None) {
                Err(Errno::INTR) => continue,
                Err(_) => return,
                Ok(_) if !both[1].revents().is_empty() => return,
                Ok(_) => {}
            }
            match rustix::io::read(stdin.as_fd(), &mut buffer) {
                Err(Errno::INTR | Errno::AGAIN) => {}
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    if writer.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
            }
        }
    };
    std::thread::Builder::new().name("standard input".to_owned()).spawn(pump).map_err(failed)?;
    Ok(Box::new(pipe_reader(reader)?))
}

#[cfg(not(unix))]
fn own_input() -> Result<Box<dyn AsyncRead + Send + Unpin>, Error> {
    Ok(Box::new(tokio::io::stdin()))
}

/// The sizes that this process's terminal gets, one after the other. The first one is there after the first change.
pub(crate) struct Sizes {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Sizes {
    /// Those of a terminal; never ready for other streams.
    pub(crate) fn of(terminal: bool) -> Self {
        #[cfg(unix)]
        let signal = terminal
            .then(|| tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change()).ok())
            .flatten();
        #[cfg(not(unix))]
        let _ = terminal;
        Self {
            #[cfg(unix)]
            signal,
        }
    }

    /// Waits for a change.
    pub(crate) async fn changed(&mut self) {
        #[cfg(unix)]
        match &mut self.signal {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
        // Windows has no signal for it: whoever asks looks again twice a second.
        #[cfg(not(unix))]
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

impl Stdio {
    /// The terminal's size, or nothing when they are none.
    pub(crate) fn size(&self) -> Option<TerminalSize> {
        let (width, height) = self.is_terminal().then(terminal_size::terminal_size).flatten()?;
        Some(TerminalSize { columns: width.0, rows: height.0 })
    }
}
