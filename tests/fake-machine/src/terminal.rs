//! Pseudo terminals.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};

/// The near end of a pseudo terminal, to change its size: clones are the same one.
#[derive(Clone, Debug)]
pub struct Terminal(Arc<OwnedFd>);

impl Terminal {
    /// Changes the size; the foreground process group of the terminal is told by `SIGWINCH`.
    ///
    /// # Errors
    /// The system refuses.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        Ok(tcsetwinsize(&self.0, size(columns, rows))?)
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// A terminal's three near ends and the far one.
pub(crate) struct Ends {
    pub(crate) terminal: Terminal,
    pub(crate) input: Sender,
    pub(crate) output: Output,
    pub(crate) far: File,
}

pub(crate) fn open(columns: u16, rows: u16) -> io::Result<Ends> {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&near)?;
    unlockpt(&near)?;
    tcsetwinsize(&near, size(columns, rows))?;
    let name = ptsname(&near, Vec::new())?;
    let far = rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::fcntl_setfl(&near, rustix::fs::fcntl_getfl(&near)? | OFlags::NONBLOCK)?;
    // A terminal is polled, read and written as a pipe is, and Tokio's safe streams for descriptors are named so.
    let input = Sender::from_owned_fd_unchecked(near.try_clone()?)?;
    let output = Output(Receiver::from_owned_fd_unchecked(near.try_clone()?)?);
    Ok(Ends { terminal: Terminal(Arc::new(near)), input, output, far: File::from(far) })
}

/// What a terminal shows.
pub(crate) struct Output(Receiver);

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_read(context, buffer) {
            // What Linux says when nobody has the far end open any more.
            Poll::Ready(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}
