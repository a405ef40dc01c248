//! What starting a process will do, computed before anything is changed.

use pcoder_sdk::{Command, code};
use pcoder_sdk::{CommandSpec, Error, ProcessSpec, Restart, RestartLimits, Result, Setting, name, path, shell};

/// What the caller was doing when a plan cannot be made.
pub(crate) const OPERATION: &str = "process-manager.start";

const SUPERVISE: &str = include_str!("scripts/supervise.sh");
const ENTER: &str = include_str!("scripts/enter.sh");

/// The longest command as one line, in bytes. Linux takes 128 KiB in one argument; a provider may quote it once more.
const LONGEST_LINE: usize = 96 * 1024;

/// Longer than any process runs, in milliseconds: no run is long enough to make PM2 forget the ones before.
const NEVER_LONG_ENOUGH: u64 = 1_000_000_000_000;

/// A process as PM2 is to start it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The name in PM2's list.
    pub name: String,
    /// What the shell on the instance runs: change folder, load the environment, become the command.
    pub line: String,
    /// The process's variables, for the private file.
    pub env: Vec<Setting>,
    /// Flags of `pm2 start`.
    pub flags: Vec<String>,
    /// How long a run must be not to count as a failure, in milliseconds. PM2 has no flag for it.
    pub min_uptime: Option<u64>,
    /// Whether the command takes the supervisor's place. PM2 measures the memory of the one process that it started, so
    /// a bound needs this; the exit code is then what PM2 says.
    pub direct: bool,
}

impl Plan {
    /// Makes the plan.
    ///
    /// # Errors
    /// `invalid` for what cannot be right, `limit` for a command that is too long for the instance.
    pub fn new(spec: &ProcessSpec) -> Result<Self> {
        let invalid = |message: &str, subject: &str| Err(Error::invalid(OPERATION, message).subject(subject));
        if let Some(option) = spec.options.first() {
            return invalid("this is not an option of the process manager `pm2`", &option.name);
        }
        if spec.instances == Some(0) {
            return invalid("at least one copy of a process runs", "instances");
        }
        if spec.max_memory == Some(0) {
            return invalid("a process needs some memory", "max-memory");
        }
        let (mut flags, min_uptime) = restart(&spec.restart);
        if let Some(copies) = spec.instances.filter(|copies| *copies > 1) {
            flags.extend(["-i".to_owned(), copies.to_string()]);
        }
        if let Some(bytes) = spec.max_memory {
            flags.extend(["--max-memory-restart".to_owned(), bytes.to_string()]);
        }
        Ok(Self {
            name: name::sanitize(spec.command.name.as_deref().unwrap_or("process")),
            line: line(&spec.command)?,
            env: checked(&spec.command.env)?,
            flags,
            min_uptime,
            direct: spec.max_memory.is_some(),
        })
    }

    /// The private file: each variable as a line `TOKEN NAME` and its value in the lines below. `token` is in no value.
    pub fn environment(&self, token: &str) -> String {
        let mut text = format!("{token}\n");
        for Setting { name, value } in &self.env {
            text.push_str(&format!("{token} {name}\n{value}\n"));
        }
        text + token + " \n"
    }

    /// The arguments of the driver's verb `start` for a run with this folder.
    pub(crate) fn arguments(&self, folder: &str) -> Vec<String> {
        let min_uptime = self.min_uptime.map_or_else(String::new, |limit| limit.to_string());
        let mode = if self.direct { "direct" } else { "record" };
        let mut arguments = vec![folder.to_owned(), self.name.clone(), min_uptime, self.line.clone(), mode.to_owned()];
        arguments.extend([code_of(SUPERVISE), code_of(ENTER)]);
        arguments.extend(self.flags.iter().cloned());
        arguments
    }
}

/// How a run's command is entered from a shell, for tests that do it without PM2: the arguments of `sh`.
#[cfg(not(target_arch = "wasm32"))]
pub fn enter_argv(folder: &str, line: &str) -> Vec<String> {
    ["-c", &code_of(ENTER), "sh", folder, line].map(str::to_owned).to_vec()
}

/// A script without its comments, which are for us and would travel with every call.
pub(crate) fn code_of(script: &str) -> String {
    script.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n")
}

/// PM2 gives up at the failure with this number, so that there was one restart less. A run counts as a failure when it is
/// shorter than `min_uptime`, and only as long as the process is younger than both multiplied; PM2's own values are 16
/// and a second.
fn restart(restart: &Restart) -> (Vec<String>, Option<u64>) {
    match restart {
        Restart::Never => (vec!["--no-autorestart".to_owned()], None),
        Restart::OnExit(RestartLimits { max_restarts: None, .. }) => {
            (vec!["--max-restarts".to_owned(), u32::MAX.to_string()], None)
        }
        Restart::OnExit(RestartLimits { max_restarts: Some(most), min_uptime_ms }) => (
            vec!["--max-restarts".to_owned(), most.saturating_add(1).to_string()],
            Some(min_uptime_ms.unwrap_or(NEVER_LONG_ENOUGH)),
        ),
    }
}

/// The command as one line. Its folder and the folders on its path are the instance's, whatever `HOME` it is to have, so
/// that the environment comes after the change of folder.
fn line(spec: &CommandSpec) -> Result<String> {
    let cwd = spec.cwd.as_deref().unwrap_or("~");
    // With any folder as home: this is about the form.
    path::absolute(cwd, "/home").map_err(|error| error.during(OPERATION))?;
    if let Command::Argv(argv) = &spec.command
        && (argv.program.is_empty() || argv.program.starts_with('-'))
    {
        return Err(Error::invalid(OPERATION, "this cannot be the name of a program")
            .subject(argv.program.escape_debug().to_string()));
    }
    let rest = CommandSpec { cwd: None, env: Vec::new(), ..spec.clone() };
    let rest = shell::line(&rest).map_err(|error| error.during(OPERATION))?;
    let line = format!(r#"cd {} && load_environment <"$1/environment" && {rest}"#, shell::quote_path(cwd));
    if line.len() > LONGEST_LINE {
        let message = format!("the command is {} bytes long, and {LONGEST_LINE} is the most", line.len());
        return Err(Error::new(code::LIMIT, OPERATION, message)
            .hint("put what is long into a file on the instance, and let the command read it"));
    }
    Ok(line)
}

fn checked(env: &[Setting]) -> Result<Vec<Setting>> {
    for Setting { name, value } in env {
        let wrong =
            |message: &str| Err(Error::invalid(OPERATION, message.to_owned()).subject(name.escape_debug().to_string()));
        if !shell::is_name(name) {
            return wrong("this cannot be the name of an environment variable");
        }
        if value.contains('\0') {
            return wrong("an environment variable cannot hold a NUL character");
        }
    }
    Ok(env.to_vec())
}

#[cfg(test)]
mod tests;
