//! Runs the driver script on the instance and says what its endings mean.

use pcoder_sdk::host::ProcessManagerHost;
use pcoder_sdk::{CommandSpec, Error, ExitStatus, Output, Result, code, text};

use crate::plan::code_of;

const DRIVER: &str = include_str!("scripts/driver.sh");

/// How much of what PM2 said goes into an error's message: lines, and characters.
const SAID_LINES: usize = 2;
const SAID_LIMIT: usize = 300;

/// The driver during one operation of the contract.
#[derive(Clone, Copy)]
pub(crate) struct Driver<'a> {
    pub(crate) host: ProcessManagerHost<'a>,
    pub(crate) operation: &'static str,
}

impl Driver<'_> {
    /// Runs one verb of the script. Its standard output may hold secrets and is in no error.
    pub(crate) fn run(self, verb: &str, arguments: impl IntoIterator<Item = String>) -> Result<Output> {
        let mut words = vec!["-c".to_owned(), code_of(DRIVER), "pcoder-pm2".to_owned(), verb.to_owned()];
        words.extend(arguments);
        let spec = CommandSpec::argv("sh", words).named(format!("pm2 {verb}"));
        let output = self.host.target().run(&spec, &[]).map_err(|error| error.during(self.operation))?;
        match output.status {
            ExitStatus::Exited(0) => Ok(output),
            _ => Err(self.failure(verb, &output)),
        }
    }

    fn failure(self, verb: &str, output: &Output) -> Error {
        let error = |code: &str, message: &str| Error::new(code, self.operation, message);
        match output.status.code() {
            41 => error(code::NOT_FOUND, "PM2 is not installed on the instance, or not on its `PATH`")
                .subject("pm2")
                .hint("install it there: `npm install -g pm2`"),
            42 => error(code::INVALID, "`PM2_HOME` must be an absolute path of at most 98 bytes: sockets are in it")
                .hint("set a shorter `PM2_HOME` on the instance"),
            43 => error(code::UNAVAILABLE, "another call to PM2 takes too long"),
            44 => {
                error(code::TIMEOUT, "PM2 does not answer").hint("`pm2 kill` on the instance ends all it runs, and it")
            }
            46 => error(code::IO, &said("a file in PM2's folder cannot be written", output)),
            47 => error(code::INTEGRITY, "PM2's list cannot be read"),
            48 => error(code::ALREADY_EXISTS, "there is a process of this name; delete it first, or take another"),
            49 => error(code::PROCESS, "what the process started does not end"),
            50 => error(code::CONFLICT, "the process was deleted while it was started"),
            45 => error(code::PROCESS, &said(&format!("`pm2 {verb}` failed"), output)),
            _ => error(code::PROCESS, &said(&format!("`pm2 {verb}` ended with {}", output.status.describe()), output)),
        }
    }
}

fn said(message: &str, output: &Output) -> String {
    let said = text::tail(&output.stderr, SAID_LINES, SAID_LIMIT);
    if said.is_empty() { message.to_owned() } else { format!("{message}: {said}") }
}
