//! Talking with a program: what a client sends is its input, and its output is what the client gets, both in whole lines.
//!
//! A client can go away at any moment. So only lines that came whole are handed to the program, and a client hears from
//! the beginning of a line on: what one client left half said is nothing that another one says.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::time::timeout;

/// What is moved at once.
const CHUNK: usize = 64 << 10;
/// The longest line that a program is told.
const LINE: usize = 2 << 20;
/// How long a program may take to read what it is told. One that does not read at all must not keep others waiting.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program's ends. Whoever has them is the one who talks.
#[derive(Debug)]
pub(crate) struct Ends {
    stdin: Told,
    stdout: Heard,
}

#[derive(Debug)]
struct Told {
    stdin: ChildStdin,
    /// A line was cut while it was written.
    mid_line: bool,
}

#[derive(Debug)]
struct Heard {
    stdout: ChildStdout,
    /// Output that was read and that nobody has got yet.
    left: Vec<u8>,
    /// What was handed out last ended in the middle of a line.
    mid_line: bool,
}

impl Ends {
    pub(crate) fn new(stdin: ChildStdin, stdout: ChildStdout) -> Self {
        Self { stdin: Told { stdin, mid_line: false }, stdout: Heard { stdout, left: Vec::new(), mid_line: false } }
    }

    /// Until the client goes away, or the program's output ends. Nothing of that is an error of anybody's.
    ///
    /// While nobody talks, nobody reads: a program that writes more than a pipe holds waits.
    pub(crate) async fn talk(&mut self, from: impl AsyncRead + Unpin, to: impl AsyncWrite + Unpin) {
        let Self { stdin, stdout } = self;
        // Both at once and each for itself: a program that waits for its output to be read reads no input.
        let mut input = std::pin::pin!(stdin.take_from(from));
        let gone = tokio::select! {
            _ = &mut input => false,
            handed = stdout.hand_to(to) => handed.is_err(),
        };
        if gone {
            // It said something and did not stay to hear the answer.
            drop(timeout(PATIENCE, input).await);
        }
    }
}

impl Told {
    async fn take_from(&mut self, mut from: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut lines = Vec::with_capacity(CHUNK);
        loop {
            if from.read_buf(&mut lines).await? == 0 {
                return Ok(());
            }
            let whole = lines.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            if lines.len() - whole > LINE {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.tell(lines.get(..whole).unwrap_or_default()).await?;
            lines.drain(..whole);
        }
    }

    async fn tell(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        // What is left of a line that was cut becomes one by itself, and no beginning of this one.
        let end = std::mem::replace(&mut self.mid_line, true);
        let told = async {
            if end {
                self.stdin.write_all(b"\n").await?;
            }
            self.stdin.write_all(lines).await
        };
        match timeout(PATIENCE, told).await.map_err(io::Error::from)? {
            // A program that closed its input may still have something to say.
            Ok(()) | Err(_) => self.mid_line = false,
        }
        Ok(())
    }
}

impl Heard {
    async fn hand_to(&mut self, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
        while self.mid_line {
            if self.left.is_empty() && self.read().await? == 0 {
                return to.shutdown().await;
            }
            let line = self.left.iter().position(|&byte| byte == b'\n');
            self.left.drain(..line.map_or(self.left.len(), |at| at + 1));
            self.mid_line = line.is_none();
        }
        loop {
            if self.left.is_empty() && self.read().await? == 0 {
                return to.shutdown().await;
            }
            let written = to.write(&self.left).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.mid_line = self.left.get(written - 1) != Some(&b'\n');
            self.left.drain(..written);
            to.flush().await?;
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        self.left.reserve(CHUNK);
        self.stdout.read_buf(&mut self.left).await
    }
}
