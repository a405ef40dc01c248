//! Talking with a program: what a client sends is its input, and its output is what the client gets.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::process::{ChildStdin, ChildStdout};

/// What is moved at once.
const CHUNK: usize = 64 << 10;

/// A program's ends. Whoever has them is the one who talks.
#[derive(Debug)]
pub(crate) struct Ends {
    stdin: ChildStdin,
    stdout: ChildStdout,
    /// Output that was read and that nobody has got yet: the one who would have got it went away.
    left: Vec<u8>,
}

impl Ends {
    pub(crate) fn new(stdin: ChildStdin, stdout: ChildStdout) -> Self {
        Self { stdin, stdout, left: Vec::new() }
    }

    /// Until the client goes away, or the program's output ends. Nothing of that is an error of anybody's.
    ///
    /// While nobody talks, nobody reads: a program that writes more than a pipe holds waits, and nothing is lost.
    pub(crate) async fn talk(&mut self, from: impl AsyncRead + Unpin, to: impl AsyncWrite + Unpin) {
        let Self { stdin, stdout, left } = self;
        // Both at once and each for itself: a program that waits for its output to be read reads no input.
        tokio::select! {
            _ = input(from, stdin) => {}
            _ = output(stdout, left, to) => {}
        }
    }
}

async fn input(mut from: impl AsyncRead + Unpin, stdin: &mut ChildStdin) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut open = true;
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        // A program that closed its input may still have something to say.
        if let (true, Some(bytes)) = (open, buffer.get(..read)) {
            open = stdin.write_all(bytes).await.is_ok();
        }
    }
}

async fn output(stdout: &mut ChildStdout, left: &mut Vec<u8>, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        if left.is_empty() {
            left.reserve(CHUNK);
            if stdout.read_buf(left).await? == 0 {
                return to.shutdown().await;
            }
        }
        // Kept until all of it was taken: a client that goes away in between has not seen it, or not whole.
        to.write_all(left).await?;
        to.flush().await?;
        left.clear();
    }
}
