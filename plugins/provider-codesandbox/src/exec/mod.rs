//! Commands. See [`scripts`] for what of it happens in the sandbox.

mod command;
mod feeder;
mod follower;
mod place;
mod scripts;
mod terminal;

use std::io::{self, Read as _};

use pcoder_sdk::host::{Input, ProviderHost, Stdio};
use pcoder_sdk::{CommandSpec, Error, ExitStatus, Output, Result, code};

use self::command::{Running, Streams};

const OPERATION: &str = "provider.exec";

/// Input up to this many bytes goes as a file, all at once.
const WHOLE: u64 = 4 << 20;

/// What a command reads.
enum Feeding<'a> {
    /// All of it.
    Whole(Vec<u8>),
    /// As it comes.
    Stream(Input<'a>),
}

/// Runs a command that is connected to `stdio`.
pub(crate) fn exec(host: ProviderHost<'_>, id: &str, spec: &CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus> {
    if let Some(size) = stdio.terminal() {
        return terminal::run(host, id, spec, stdio, size);
    }
    let feeding = match stdio.input_size() {
        Some(size) if size <= WHOLE => {
            let mut input = Vec::new();
            stdio.stdin()?.read_to_end(&mut input).map_err(|error| failed(&error))?;
            Feeding::Whole(input)
        }
        _ => Feeding::Stream(stdio.input()?),
    };
    let (mut out, mut err) = (stdio.stdout()?, stdio.stderr()?);
    Running::begin(host, id, spec, feeding, true)?.finish(Streams { out: &mut *out, err: &mut *err })
}

/// Runs a command with its streams in memory.
pub(crate) fn capture(host: ProviderHost<'_>, id: &str, spec: &CommandSpec, input: &[u8]) -> Result<Output> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    // Nobody looks at the output before it is whole, so nothing brings it earlier.
    let running = Running::begin(host, id, spec, Feeding::Whole(input.to_vec()), false)?;
    let status = running.finish(Streams { out: &mut stdout, err: &mut stderr })?;
    Ok(Output { status, stdout, stderr })
}

/// One of the caller's streams failed.
fn failed(error: &io::Error) -> Error {
    Error::new(code::IO, OPERATION, error.to_string())
}
