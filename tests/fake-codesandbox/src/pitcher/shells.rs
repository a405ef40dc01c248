//! Shells, which are commands: `shell/*`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pcoder_fake_machine::{Io, Run, Running, Terminal};
use rmpv::Value;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Caller;
use super::wire::{PitcherError, Request, code, value};
use crate::cloud::{blocking, word};
use crate::sandbox::{Access, Sandbox};

/// How many chunks of output a shell keeps for who opens it later.
const MAX_BUFFER: usize = 1000;
/// How long output may take to come once the command has ended, from what it left behind on the terminal.
const DRAIN: Duration = Duration::from_millis(30);

#[derive(Debug, Clone, Copy, Deserialize, Default)]
pub(super) struct Size {
    cols: Option<u16>,
    rows: Option<u16>,
}

#[derive(Debug, Deserialize, Default)]
pub(super) struct Create {
    pub(super) command: Option<String>,
    pub(super) cwd: Option<String>,
    pub(super) size: Option<Size>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(rename = "isSystemShell")]
    pub(super) system: Option<bool>,
}

#[derive(Deserialize)]
struct Of {
    #[serde(rename = "shellId")]
    shell: String,
    input: Option<String>,
    size: Option<Size>,
    name: Option<String>,
}

/// When a shell's messages come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Order {
    /// The first one comes this long after the creation, or once a request names the shell.
    pub(super) delay: Duration,
    pub(super) out_after_exit: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Running,
    Finished,
    Error,
    Killed,
    Restarting,
}

#[derive(Debug)]
struct State {
    name: String,
    status: Status,
    exit_code: Option<i32>,
    buffer: Vec<String>,
    /// The connections that get the output: those that created or opened it.
    attached: BTreeSet<u64>,
    input: Option<mpsc::UnboundedSender<Vec<u8>>>,
    kill: Option<CancellationToken>,
    terminal: Option<Terminal>,
}

/// One shell.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(super) id: String,
    /// `TERMINAL` or `COMMAND`.
    kind: String,
    command: Option<String>,
    cwd: String,
    size: (u16, u16),
    system: bool,
    access: Access,
    order: Order,
    /// Cancelled when its messages need not wait any more.
    known: CancellationToken,
    state: Mutex<State>,
    ended: watch::Sender<bool>,
}

pub(crate) type Shells = Mutex<BTreeMap<String, Arc<Shell>>>;

impl Shell {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its end; the exit code, if it was not killed.
    pub(super) async fn end(&self) -> Option<i32> {
        let mut ended = self.ended.subscribe();
        // The sender lives in `self`.
        let _ = ended.wait_for(|ended| *ended).await;
        self.state().exit_code
    }

    /// Its record; an open one has the output so far.
    pub(super) fn record(&self, open: bool) -> serde_json::Value {
        let state = self.state();
        let status = match state.status {
            Status::Running => "RUNNING",
            Status::Finished => "FINISHED",
            Status::Error => "ERROR",
            Status::Killed => "KILLED",
            Status::Restarting => "RESTARTING",
        };
        let mut record = json!({"shellId": self.id, "name": state.name, "status": status, "shellType": self.kind});
        if let Some(code) = state.exit_code {
            record["exitCode"] = code.into();
        }
        if self.kind == "COMMAND" {
            record["startCommand"] = self.command.clone().unwrap_or_default().into();
        } else {
            record["ownerUsername"] = self.access.username.as_str().into();
            record["isSystemShell"] = self.system.into();
        }
        if open {
            record["buffer"] = state.buffer.clone().into();
        }
        record
    }

    /// Ends it for good, where it has not ended.
    pub(super) fn kill(&self) {
        let mut state = self.state();
        if state.status == Status::Running {
            state.status = Status::Killed;
        }
        if let Some(kill) = &state.kill {
            kill.cancel();
        }
    }

    fn arguments(&self) -> Run {
        let mut env = environment(&self.access);
        env.push(("CSB_SHELL_ID".into(), OsString::from(&self.id)));
        let args = self.command.iter().flat_map(|command| ["-c".into(), command.into()]).collect();
        let io = Io::Terminal { columns: self.size.0, rows: self.size.1 };
        Run { program: "/bin/bash".into(), args, env, cwd: self.cwd.clone(), io }
    }
}

/// The environment of commands.
pub(crate) fn environment(access: &Access) -> Vec<(OsString, OsString)> {
    let env = [
        ("HOME", access.home.as_str()),
        ("USER", &access.username),
        ("LOGNAME", &access.username),
        ("SHELL", "/bin/bash"),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("LANG", "C.UTF-8"),
        ("TERM", "xterm-256color"),
        ("CSB", "true"),
    ];
    env.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// Starts a shell.
pub(super) async fn create(
    sandbox: &Arc<Sandbox>,
    access: &Access,
    connection: Option<u64>,
    create: Create,
    order: Order,
) -> Result<Arc<Shell>, PitcherError> {
    let size = create.size.unwrap_or_default();
    let shell = Arc::new(Shell {
        id: word(12),
        kind: create.kind.filter(|kind| kind == "COMMAND").unwrap_or_else(|| "TERMINAL".to_owned()),
        cwd: create.cwd.filter(|cwd| !cwd.is_empty()).unwrap_or_else(|| access.workspace.clone()),
        size: (size.cols.unwrap_or(128), size.rows.unwrap_or(24)),
        system: create.system.unwrap_or(false),
        access: access.clone(),
        order,
        known: CancellationToken::new(),
        state: Mutex::new(State {
            name: create.command.clone().unwrap_or_else(|| "bash".to_owned()),
            status: Status::Running,
            exit_code: None,
            buffer: Vec::new(),
            attached: connection.into_iter().collect(),
            input: None,
            kill: None,
            terminal: None,
        }),
        command: create.command,
        ended: watch::Sender::new(false),
    });
    start(sandbox, &shell).await.map_err(|error| PitcherError::new(code::CRITICAL, error.to_string()))?;
    sandbox.agent.shells().insert(shell.id.clone(), shell.clone());
    Ok(shell)
}

/// Starts its process; what it prints and how it ends is told from now on.
async fn start(sandbox: &Arc<Sandbox>, shell: &Arc<Shell>) -> io::Result<()> {
    let (machine, run) = (sandbox.machine.clone(), shell.arguments());
    let running = blocking(move || machine.spawn(run)).await?;
    let (input, inputs) = mpsc::unbounded_channel();
    let kill = CancellationToken::new();
    {
        let mut state = shell.state();
        state.status = Status::Running;
        state.exit_code = None;
        state.input = Some(input);
        state.kill = Some(kill.clone());
        state.terminal = running.terminal().cloned();
    }
    shell.ended.send_replace(false);
    tokio::spawn(pump(sandbox.clone(), shell.clone(), running, inputs, kill));
    Ok(())
}

/// Moves bytes between a shell's process and the connections until it ends.
async fn pump(
    sandbox: Arc<Sandbox>,
    shell: Arc<Shell>,
    mut running: Running,
    mut inputs: mpsc::UnboundedReceiver<Vec<u8>>,
    killed: CancellationToken,
) {
    let (Some(mut stdin), Some(mut stdout)) = (running.stdin.take(), running.stdout.take()) else { return };
    let writing = tokio::spawn(async move {
        while let Some(bytes) = inputs.recv().await {
            if stdin.write_all(&bytes).await.is_err() {
                break;
            }
        }
    });
    tokio::select! {
        () = shell.known.cancelled() => {}
        () = tokio::time::sleep(shell.order.delay) => {}
    }
    let mut text = Text::default();
    let mut last = None;
    let mut tell = |out: String| {
        // A terminal whose last words are to come late: each chunk waits for the next.
        let out = if shell.order.out_after_exit { last.replace(out) } else { Some(out) };
        if let Some(out) = out {
            output(&sandbox, &shell, out);
        }
    };
    let mut buffer = vec![0; 16 << 10];
    let mut open = true;
    let status = loop {
        tokio::select! {
            read = stdout.read(&mut buffer), if open => match read {
                Ok(count) if count > 0 => text.push(&buffer[..count]).map(&mut tell).unwrap_or_default(),
                _ => open = false,
            },
            status = running.wait() => break status,
            () = killed.cancelled() => {
                running.kill();
                break running.wait().await;
            }
        }
    };
    while open
        && let Ok(Ok(count)) = tokio::time::timeout(DRAIN, stdout.read(&mut buffer)).await
        && count > 0
    {
        text.push(&buffer[..count]).map(&mut tell).unwrap_or_default();
    }
    text.end().map(&mut tell).unwrap_or_default();
    writing.abort();
    let code = status.map_or(-1, |status| {
        use std::os::unix::process::ExitStatusExt as _;
        status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
    });
    let told = {
        let mut state = shell.state();
        state.input = None;
        state.terminal = None;
        state.kill = None;
        let told = state.status == Status::Running;
        if told {
            state.exit_code = Some(code);
            state.status = if code == 0 { Status::Finished } else { Status::Error };
        }
        told
    };
    if told {
        let params = json!({"shellId": shell.id, "shellType": shell.kind, "exitCode": code});
        sandbox.agent.notify("shell/exit", &value(params));
    }
    if let Some(out) = last {
        output(&sandbox, &shell, out);
    }
    shell.ended.send_replace(true);
}

fn output(sandbox: &Sandbox, shell: &Shell, out: String) {
    let mut state = shell.state();
    if state.buffer.len() >= MAX_BUFFER {
        state.buffer.remove(0);
    }
    let params = value(json!({"shellId": shell.id, "out": out}));
    state.buffer.push(out);
    // Told under the lock, so that who opens it gets each chunk once.
    sandbox.agent.notify_some(&state.attached, "shell/out", &params);
}

/// Text out of bytes that are cut anywhere.
#[derive(Default)]
struct Text(Vec<u8>);

impl Text {
    /// What is whole; the beginning of a character waits for its end.
    fn push(&mut self, bytes: &[u8]) -> Option<String> {
        self.0.extend_from_slice(bytes);
        let tail = match std::str::from_utf8(&self.0) {
            Err(error) if error.error_len().is_none() => self.0.split_off(error.valid_up_to()),
            // Bytes that never become a character are replaced; they may be followed by the beginning of one.
            Err(_) => self.0.split_off(self.0.len() - incomplete(&self.0)),
            Ok(_) => Vec::new(),
        };
        let whole = std::mem::replace(&mut self.0, tail);
        (!whole.is_empty()).then(|| String::from_utf8_lossy(&whole).into_owned())
    }

    fn end(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.0);
        (!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned())
    }
}

/// How many bytes at the end are the beginning of a character.
fn incomplete(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last();
    let tail = last.map_or(&[][..], |chunk| chunk.invalid());
    let begun = std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none());
    if begun { tail.len() } else { 0 }
}

/// Answers a method of shells but `shell/create`, or none where it is another.
pub(super) async fn answer(caller: &Caller, request: &Request) -> Option<Result<Value, PitcherError>> {
    if request.method == "shell/list" {
        let shells: Vec<_> = caller.sandbox.agent.shells().values().map(|shell| shell.record(false)).collect();
        return Some(Ok(value(json!({"shells": shells}))));
    }
    let known = ["in", "open", "close", "resize", "rename", "restart", "terminate"];
    let verb = request.method.strip_prefix("shell/").filter(|verb| known.contains(verb))?;
    Some(of_shell(caller, request, verb).await)
}

async fn of_shell(caller: &Caller, request: &Request, verb: &str) -> Result<Value, PitcherError> {
    let of: Of = request.params()?;
    let agent = &caller.sandbox.agent;
    let shell = agent.shells().get(&of.shell).cloned();
    let shell = shell.ok_or_else(|| PitcherError::new(code::SHELL_NOT_FOUND, "Shell not found"))?;
    shell.known.cancel();
    if !caller.access.write && verb != "open" && verb != "close" {
        return Err(PitcherError::new(code::SHELL_NOT_ACCESSIBLE, "Shell is not accessible"));
    }
    let resize = |size: Option<Size>| {
        if let Some(Size { cols: Some(columns), rows: Some(rows) }) = size
            && let Some(terminal) = &shell.state().terminal
        {
            // A terminal that was left is as good as resized.
            let _ = terminal.resize(columns, rows);
        }
    };
    match verb {
        "in" => {
            resize(of.size);
            let state = shell.state();
            let input = state.input.as_ref().ok_or_else(|| PitcherError::new(code::SHELL_CLOSED, "Shell is closed"))?;
            // Its reader ends with the shell, whose end is told by itself.
            let _ = input.send(of.input.unwrap_or_default().into_bytes());
        }
        "open" => {
            resize(of.size);
            shell.state().attached.extend(caller.connection);
            return Ok(value(shell.record(true)));
        }
        "close" => {
            if let Some(connection) = &caller.connection {
                shell.state().attached.remove(connection);
            }
        }
        "resize" => resize(of.size),
        "rename" => {
            shell.state().name = of.name.unwrap_or_default();
            agent.notify("shell/rename", &value(json!({"shell": shell.record(false)})));
        }
        "restart" => {
            {
                let mut state = shell.state();
                state.status = Status::Restarting;
                state.buffer.clear();
                if let Some(kill) = &state.kill {
                    kill.cancel();
                }
            }
            shell.end().await;
            let started = start(&caller.sandbox, &shell).await;
            started.map_err(|error| PitcherError::new(code::CRITICAL, error.to_string()))?;
            agent.notify("shell/restart", &value(json!({"shellId": shell.id})));
        }
        _ => {
            shell.kill();
            shell.end().await;
            let params = json!({"shellId": shell.id, "author": caller.access.username});
            agent.notify("shell/terminate", &value(params));
            return Ok(value(shell.record(false)));
        }
    }
    Ok(Value::Nil)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_is_cut_comes_whole() {
        let mut text = Text::default();
        assert_eq!(text.push("a€".as_bytes().get(..3).unwrap()).as_deref(), Some("a"));
        assert_eq!(text.push(&"€".as_bytes()[2..]).as_deref(), Some("€"));
        assert_eq!(text.push(b"\xff\xe2\x82").as_deref(), Some("\u{fffd}"));
        assert_eq!(text.push(b"\xac").as_deref(), Some("€"));
        assert_eq!(text.push(b"\xe2"), None);
        assert_eq!(text.end().as_deref(), Some("\u{fffd}"));
    }
}
