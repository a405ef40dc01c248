//! Shells, which are the agent's commands: `shell/*`. Each runs on a terminal of its own.

use std::time::Duration;

use pcoder_sdk::{Error, Result, TerminalSize, code};
use rmpv::Value;

use super::Agent;
use super::frame::{Param, field};
use crate::agent::{Beside, Event, Started};

/// The size that the official client gives terminals that nobody looks at.
const SIZE: TerminalSize = TerminalSize { columns: 128, rows: 24 };
/// How long a helper's command may take.
const HELPER: Duration = Duration::from_secs(300);
/// The most of a helper's output that is kept.
const HELPER_OUTPUT: usize = 4096;

/// What a notification says of a shell; nothing where it is about something else.
pub(super) fn event(method: &str, params: &Value) -> Option<Event> {
    let shell = || field(params, "shellId").and_then(Value::as_str).map(str::to_owned);
    match method {
        "shell/out" => {
            let text = field(params, "out").and_then(Value::as_str)?.to_owned();
            Some(Event::Output { shell: shell()?, text })
        }
        "shell/exit" => Some(Event::Exit { shell: shell()?, code: exit_code(params) }),
        "shell/terminate" => Some(Event::Terminated { shell: shell()? }),
        _ => None,
    }
}

fn exit_code(value: &Value) -> Option<i32> {
    field(value, "exitCode").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok())
}

impl Agent<'_> {
    /// Starts a shell that runs this command.
    pub(crate) fn start_shell(&mut self, command: &str, size: Option<TerminalSize>) -> Result<Started> {
        let id = self.send_shell(command, size)?;
        self.started(id)
    }

    fn send_shell(&mut self, command: &str, size: Option<TerminalSize>) -> Result<u64> {
        let TerminalSize { columns, rows } = size.unwrap_or(SIZE);
        let params = [
            ("command", Param::Text(command)),
            ("size", Param::Map(&[("cols", Param::Number(columns.into())), ("rows", Param::Number(rows.into()))])),
            ("type", Param::Text("TERMINAL")),
            ("isSystemShell", Param::Bool(true)),
        ];
        self.send("shell/create", &params)
    }

    fn started(&mut self, id: u64) -> Result<Started> {
        let answer = self.reply(id, "shell/create")?;
        self.shell("shell/create", &answer)
    }

    /// Gets what a shell of another connection prints from now on.
    pub(crate) fn open_shell(&mut self, shell: &str) -> Result<Started> {
        const METHOD: &str = "shell/open";
        let size = Param::Map(&[("cols", Param::Number(128)), ("rows", Param::Number(24))]);
        let answer = self.call(METHOD, &[("shellId", Param::Text(shell)), ("size", size)])?;
        self.shell(METHOD, &answer)
    }

    fn shell(&self, method: &str, answer: &Value) -> Result<Started> {
        let shell = field(answer, "shellId").and_then(Value::as_str).filter(|id| !id.is_empty());
        let id = shell.ok_or_else(|| self.wrong(method, "shellId"))?.to_owned();
        let ended = match field(answer, "status").and_then(Value::as_str) {
            Some("RUNNING" | "RESTARTING") => None,
            Some("FINISHED" | "ERROR" | "KILLED") => Some(exit_code(answer)),
            _ => return Err(self.wrong(method, "status")),
        };
        Ok(Started { id, ended })
    }

    /// Types into a shell.
    pub(crate) fn type_in(&mut self, shell: &str, text: &str, size: Option<TerminalSize>) -> Result<u64> {
        let TerminalSize { columns, rows } = size.unwrap_or(SIZE);
        let params = [
            ("shellId", Param::Text(shell)),
            ("input", Param::Text(text)),
            ("size", Param::Map(&[("cols", Param::Number(columns.into())), ("rows", Param::Number(rows.into()))])),
        ];
        self.send("shell/in", &params)
    }

    /// Resizes a shell's terminal.
    pub(crate) fn resize(&mut self, shell: &str, TerminalSize { columns, rows }: TerminalSize) -> Result<u64> {
        let params = [
            ("shellId", Param::Text(shell)),
            ("size", Param::Map(&[("cols", Param::Number(columns.into())), ("rows", Param::Number(rows.into()))])),
        ];
        self.send("shell/resize", &params)
    }

    /// Ends a shell, whatever runs in it. One that is gone is no error.
    pub(crate) fn terminate(&mut self, shell: &str) -> Result<()> {
        match self.call("shell/terminate", &[("shellId", Param::Text(shell))]) {
            Err(error) if !matches!(error.code.as_str(), code::NOT_FOUND | code::CONFLICT) => Err(error),
            _ => Ok(()),
        }
    }

    /// Runs a helper's command to its end: its code, and what it wrote to its terminal.
    pub(crate) fn helper(&mut self, command: &str) -> Result<(i32, String)> {
        let Started { id, ended } = self.start_shell(command, None)?;
        let until = self.host.clock().monotonic() + HELPER;
        let mut others = Vec::new();
        let mut output = String::new();
        let mut code = ended;
        loop {
            while let Some(event) = self.event() {
                match event {
                    Event::Output { shell, text } if shell == id => {
                        output.push_str(&text);
                        let surplus = output.len().saturating_sub(HELPER_OUTPUT);
                        let cut = (surplus..=output.len()).find(|at| output.is_char_boundary(*at)).unwrap_or(0);
                        output.drain(..cut);
                    }
                    Event::Exit { shell, code: told } if shell == id => code = Some(told),
                    Event::Terminated { shell } if shell == id => code = Some(None),
                    event => others.push(event),
                }
            }
            if let Some(code) = code {
                self.events.extend(others);
                let ended = || Error::new(code::PROCESS, self.operation, "somebody ended a command of this call's");
                return code.map(|code| (code, output)).ok_or_else(|| ended().subject(&self.sandbox));
            }
            let left = until.saturating_sub(self.host.clock().monotonic());
            if left.is_zero() {
                let message = format!("a helper's command did not end within {} s", HELPER.as_secs());
                return Err(Error::new(code::TIMEOUT, self.operation, message).subject(&self.sandbox));
            }
            self.turn(left, Beside::default())?;
        }
    }
}
