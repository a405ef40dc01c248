//! The contract's records, and how to build them.

pub use crate::bindings::agent::exports::pcoder::plugin::agent::{AgentInfo, AuthState, Engine, Launch, SessionInput};
pub use crate::bindings::credentials::exports::pcoder::plugin::credentials::Profile;
pub use crate::bindings::host::pcoder::plugin::files::Entry;
pub use crate::bindings::host::pcoder::plugin::log::Level;
pub use crate::bindings::host::pcoder::plugin::service::{ServiceSpec, ServiceStatus};
pub use crate::bindings::host::pcoder::plugin::ssh::Endpoint;
pub use crate::bindings::host::pcoder::plugin::stdio::TerminalSize;
pub use crate::bindings::host::pcoder::plugin::types::{
    Argv, Command, CommandSpec, Error, ExitStatus, Output, ProcessSpec, Restart, RestartLimits, Setting, WriteOptions,
};
pub use crate::bindings::host::pcoder::plugin::websocket::Message;
pub use crate::bindings::process_manager::exports::pcoder::plugin::process_manager::{
    ManagerInfo, ProcessInfo, ProcessLogs,
};
pub use crate::bindings::provider::exports::pcoder::plugin::provider::{BootOptions, Instance, ProviderInfo};

use crate::error::code;
use crate::text;

impl Setting {
    /// One name with its value.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

/// The value of a name in a list of settings; the last one counts, as it does in an environment.
pub fn setting<'a>(settings: &'a [Setting], name: &str) -> Option<&'a str> {
    settings.iter().rev().find(|setting| setting.name == name).map(|setting| setting.value.as_str())
}

/// Whether a setting of that name says `true`.
pub fn is_true(settings: &[Setting], name: &str) -> bool {
    setting(settings, name) == Some("true")
}

impl CommandSpec {
    /// A program with its arguments. No shell sees them.
    pub fn argv<S: Into<String>>(program: impl Into<String>, args: impl IntoIterator<Item = S>) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self::from(Command::Argv(Argv { program: program.into(), args }))
    }

    /// A script for `sh -c`. Quote every word that came from elsewhere with [`crate::shell::quote`].
    pub fn shell(script: impl Into<String>) -> Self {
        Self::from(Command::Shell(script.into()))
    }

    /// Sets the working folder.
    #[must_use]
    pub fn in_dir(mut self, cwd: impl Into<String>) -> Self {
        self.cwd = Some(cwd.into());
        self
    }

    /// Adds a variable.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push(Setting::new(name, value));
        self
    }

    /// Adds a folder behind those that already go in front of `PATH`.
    #[must_use]
    pub fn with_path_entry(mut self, folder: impl Into<String>) -> Self {
        self.path_entries.push(folder.into());
        self
    }

    /// Sets the name for people.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

impl From<Command> for CommandSpec {
    fn from(command: Command) -> Self {
        Self { command, cwd: None, env: Vec::new(), path_entries: Vec::new(), name: None }
    }
}

impl ExitStatus {
    /// Whether it ended with code 0.
    pub fn success(&self) -> bool {
        matches!(self, Self::Exited(0))
    }

    /// The code as a shell reports it: 128 and the signal's number after a signal.
    pub fn code(&self) -> i32 {
        match self {
            Self::Exited(code) => *code,
            Self::Signaled(signal) => signal.saturating_add(128),
        }
    }

    /// How it ended, for people: `exit code 3`, `signal 9`.
    pub fn describe(&self) -> String {
        match self {
            Self::Exited(code) => format!("exit code {code}"),
            Self::Signaled(signal) => format!("signal {signal}"),
        }
    }
}

impl Output {
    /// What a command that returned `code` wrote.
    pub fn new(code: i32, stdout: impl Into<Vec<u8>>, stderr: impl Into<Vec<u8>>) -> Self {
        Self { status: ExitStatus::Exited(code), stdout: stdout.into(), stderr: stderr.into() }
    }

    /// Standard output as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The error of a command that did not do what `operation` ran it for: how it ended, and the last line that it
    /// wrote to standard error. `command` is what people know it by.
    pub fn failure(&self, operation: impl Into<String>, command: &str) -> Error {
        let ended = format!("`{command}` ended with {}", self.status.describe());
        let said = text::tail(&self.stderr, 1, 200);
        Error::new(code::PROCESS, operation, if said.is_empty() { ended } else { format!("{ended}: {said}") })
    }
}

impl AuthState {
    /// Nobody is logged in.
    pub fn logged_out() -> Self {
        Self { logged_in: false, method: "none".to_owned(), account: None }
    }

    /// Somebody is logged in: by `api-key`, `oauth`, `token`, or the agent's own word.
    pub fn logged_in(method: impl Into<String>) -> Self {
        Self { logged_in: true, method: method.into(), account: None }
    }
}

impl ProcessSpec {
    /// A command that runs once, in one copy.
    pub fn once(command: CommandSpec) -> Self {
        Self { command, restart: Restart::Never, instances: None, max_memory: None, options: Vec::new() }
    }
}

impl WriteOptions {
    /// Neither folders nor a mode nor an owner.
    pub fn plain() -> Self {
        Self { create_parents: false, mode: None, owner: None }
    }

    /// Creates the folders above the file.
    #[must_use]
    pub fn with_parents(mut self) -> Self {
        self.create_parents = true;
        self
    }

    /// Sets the permission bits, for example `0o600`.
    #[must_use]
    pub fn with_mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Gives the file to somebody: `user`, `user:group` or `:group`, names or numbers.
    #[must_use]
    pub fn with_owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// Whom the file is to belong to, as one word for `chown`, which takes it for nothing else.
    ///
    /// # Errors
    ///
    /// `invalid` where it is neither `user` nor `user:group` nor `:group`.
    pub fn chown_operand(&self, operation: &str) -> Result<Option<&str>, Error> {
        let Some(owner) = self.owner.as_deref() else { return Ok(None) };
        let name = |name: &str| {
            let harmless = |it: char| !it.is_control() && !it.is_whitespace() && !matches!(it, '/' | ':');
            !name.is_empty() && !name.starts_with('-') && name.chars().all(harmless)
        };
        let (user, group) = owner.split_once(':').map_or((owner, None), |(user, group)| (user, Some(group)));
        if (name(user) || (user.is_empty() && group.is_some())) && group.is_none_or(name) {
            return Ok(Some(owner));
        }
        let message = "an owner is `user`, `user:group` or `:group`";
        Err(Error::invalid(operation, message).subject(owner.escape_debug().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_one_word_that_is_no_option() {
        let word =
            |owner: &str| WriteOptions::plain().with_owner(owner).chown_operand("o").map(|it| it.map(str::to_owned));
        for owner in ["root", "0", "root:adm", "0:4", ":adm", "a.b-c$", r"DOMAIN\user", "naïve"] {
            assert_eq!(word(owner), Ok(Some(owner.to_owned())));
        }
        for owner in ["", ":", "root:", "-R", "a:-R", "--reference=/x", "a b", "a\n", "a\0", "../x", "a:b:c"] {
            assert_eq!(word(owner).map_err(|error| error.code), Err("invalid".to_owned()), "{owner:?}");
        }
        assert_eq!(WriteOptions::plain().chown_operand("o"), Ok(None));
    }

    #[test]
    fn a_failure_says_how_it_ended_and_what_was_said_last() {
        let error = Output::new(127, "", "first\nno such program\n").failure("agent.auth-status", "claw status");
        assert_eq!(error.line(), "agent.auth-status: `claw status` ended with exit code 127: no such program");
        assert_eq!(error.code, code::PROCESS);
        let silent = Output { status: ExitStatus::Signaled(9), stdout: Vec::new(), stderr: Vec::new() };
        assert_eq!(silent.failure("o", "claw").message, "`claw` ended with signal 9");
    }
}
