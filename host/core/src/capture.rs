//! A command whose output is kept.

use pcoder_runtime::Error;
use pcoder_runtime::contract::ExitStatus;
use pcoder_runtime::host::stdio::{Input, Output, Stdio, pipe_reader};
use tokio::io::AsyncReadExt as _;

/// What a command gets as its standard input.
#[derive(Debug)]
pub enum Feed {
    /// Nothing: it ends at once.
    Nothing,
    /// This process's own.
    Inherit,
    /// These bytes.
    Bytes(Vec<u8>),
}

/// What was kept of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The first bytes.
    pub bytes: Vec<u8>,
    /// There were more, which were read and dropped.
    pub cut: bool,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Captured {
    /// How.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Kept,
    /// Its standard error.
    pub stderr: Kept,
}

/// Gives `run` pipes, and keeps at most `limit` bytes of each.
pub(crate) async fn capture(
    input: Feed,
    limit: u64,
    run: impl AsyncFnOnce(Stdio) -> Result<ExitStatus, Error>,
) -> Result<Captured, Error> {
    let (stdout_end, stdout) = pipe()?;
    let (stderr_end, stderr) = pipe()?;
    let stdin = match input {
        Feed::Nothing => Input::Null,
        Feed::Inherit => Input::Inherit,
        Feed::Bytes(bytes) => Input::Bytes(bytes),
    };
    let stdio = Stdio::new(stdin, Output::Pipe(stdout), Output::Pipe(stderr));
    let (status, stdout, stderr) = tokio::try_join!(run(stdio), keep(stdout_end, limit), keep(stderr_end, limit))?;
    Ok(Captured { status, stdout, stderr })
}

pub(crate) fn pipe() -> Result<(std::io::PipeReader, std::io::PipeWriter), Error> {
    std::io::pipe().map_err(|error| failed(&error))
}

fn failed(error: &std::io::Error) -> Error {
    Error::io("run", "a pipe", error)
}

async fn keep(end: std::io::PipeReader, limit: u64) -> Result<Kept, Error> {
    let mut reader = pipe_reader(end)?;
    let mut bytes = Vec::new();
    (&mut reader).take(limit).read_to_end(&mut bytes).await.map_err(|error| failed(&error))?;
    // The rest is read and dropped, or the command would wait for a reader for ever.
    let rest = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await.map_err(|error| failed(&error))?;
    Ok(Kept { bytes, cut: rest > 0 })
}
