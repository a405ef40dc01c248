//! Commands, whose streams are apart, and tasks.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::Stream;
use jiff::Timestamp;
use pcoder_fake_machine::{Io, Run, Running};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Answer, Call, Done, data, events};
use crate::cloud::{ApiError, blocking, word};
use crate::options::Task;
use crate::pitcher::{Caller, environment};

const TERMINAL: Io = Io::Terminal { columns: 200, rows: 80 };

#[derive(Debug, Default)]
struct State {
    /// `RUNNING`, `EXITED` or `STOPPED`.
    status: &'static str,
    exit_code: i32,
    events: Vec<Value>,
    input: Option<mpsc::UnboundedSender<Vec<u8>>>,
    stop: Option<CancellationToken>,
}

#[derive(Debug)]
struct Exec {
    id: String,
    number: u64,
    command: String,
    args: Vec<String>,
    interactive: bool,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

/// The commands of one sandbox.
#[derive(Debug)]
pub(crate) struct Execs {
    all: Mutex<BTreeMap<String, Arc<Exec>>>,
    tasks: Mutex<BTreeMap<String, String>>,
    changed: watch::Sender<u64>,
}

impl Default for Execs {
    fn default() -> Self {
        Self { all: Mutex::default(), tasks: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Execs {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Exec>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// Ends all of them.
    pub(crate) fn clear(&self) {
        for exec in std::mem::take(&mut *self.all()).into_values() {
            exec.stop();
        }
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.changed.send_modify(|count| *count += 1);
    }

    /// Whoever waits for output looks whether the sandbox is still there.
    pub(crate) fn wake(&self) {
        for exec in self.all().values() {
            exec.changed.send_modify(|count| *count += 1);
        }
    }

    fn show(&self) -> Value {
        let mut all: Vec<_> = self.all().values().cloned().collect();
        all.sort_by_key(|exec| exec.number);
        json!({"execs": all.iter().map(|exec| exec.show()).collect::<Vec<_>>()})
    }
}

impl Exec {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self) -> Value {
        let state = self.state();
        json!({
            "id": self.id,
            "command": self.command,
            "args": self.args,
            "status": state.status,
            "pid": 1000 + self.number,
            "interactive": self.interactive,
            "exitCode": state.exit_code,
        })
    }

    fn stop(&self) {
        if let Some(stop) = &self.state().stop {
            stop.cancel();
        }
    }

    fn event(&self, kind: &str, output: &[u8], exit_code: Option<i32>) {
        let mut state = self.state();
        let text = String::from_utf8_lossy(output);
        let sequence = state.events.len() + 1;
        let mut event = json!({"type": kind, "output": text, "sequence": sequence, "timestamp": Timestamp::now()});
        if let Some(code) = exit_code {
            event["exitCode"] = code.into();
        }
        state.events.push(event);
        drop(state);
        self.changed.send_modify(|count| *count += 1);
    }
}

/// Answers what is below `execs`.
pub(super) async fn answer(caller: &Caller, call: &Call, rest: &str) -> Done {
    let execs = &caller.sandbox.agent.execs;
    let (id, io) = rest.split_once('/').unwrap_or((rest, ""));
    let exec = execs.all().get(id).cloned();
    let known = || exec.clone().ok_or_else(|| ApiError::new(404, "exec not found"));
    match (call.method.as_str(), id.is_empty(), io) {
        ("GET", true, "") => data(execs.show()),
        ("POST", true, "") => {
            let args = call.body["args"].as_array().into_iter().flatten();
            let args = args.filter_map(Value::as_str).map(str::to_owned).collect();
            let interactive = call.body["interactive"].as_bool().unwrap_or(false);
            let exec = create(caller, call.text("command")?, args, interactive)?;
            if call.body["autorun"].as_bool().unwrap_or(true) {
                start(caller, &exec).await?;
            }
            Ok(Answer::Data(201, exec.show()))
        }
        ("GET", false, "") => data(known()?.show()),
        ("PUT", false, "") => {
            let exec = known()?;
            if call.body["status"] != "running" {
                return Err(ApiError::new(400, "status must be running"));
            }
            start(caller, &exec).await?;
            data(exec.show())
        }
        ("DELETE", false, "") => {
            known()?.stop();
            execs.all().remove(id);
            execs.changed.send_modify(|count| *count += 1);
            data(json!({"message": "Exec deleted successfully"}))
        }
        ("GET", false, "io") => Ok(Answer::Events(events(output(caller.clone(), known()?, call.last)))),
        ("POST", false, "io") => {
            let exec = known()?;
            let input = call.text("input")?;
            if call.text("type")? == "stdin" {
                let state = exec.state();
                let sender = state.input.as_ref().ok_or_else(|| ApiError::new(409, "exec is not running"))?;
                // Its reader ends with the command, whose end is told by itself.
                let _ = sender.send(input.into_bytes());
            }
            data(exec.show())
        }
        _ => Err(ApiError::not_found()),
    }
}

fn create(caller: &Caller, command: String, args: Vec<String>, interactive: bool) -> Result<Arc<Exec>, ApiError> {
    if !caller.access.write {
        return Err(ApiError::of_status(403));
    }
    let execs = &caller.sandbox.agent.execs;
    let exec = Arc::new(Exec {
        id: word(12),
        number: *execs.changed.borrow(),
        command,
        args,
        interactive,
        state: Mutex::new(State { status: "STOPPED", ..State::default() }),
        changed: watch::Sender::new(0),
    });
    execs.all().insert(exec.id.clone(), exec.clone());
    execs.changed.send_modify(|count| *count += 1);
    Ok(exec)
}

async fn start(caller: &Caller, exec: &Arc<Exec>) -> io::Result<()> {
    if exec.state().status == "RUNNING" {
        return Ok(());
    }
    let run = Run {
        program: OsString::from(&exec.command),
        args: exec.args.iter().map(OsString::from).collect(),
        env: environment(&caller.access),
        cwd: caller.access.workspace.clone(),
        io: if exec.interactive { TERMINAL } else { Io::Pipes },
    };
    let machine = caller.sandbox.machine.clone();
    let running = blocking(move || machine.spawn(run)).await?;
    let (input, inputs) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    {
        let mut state = exec.state();
        state.status = "RUNNING";
        state.input = Some(input);
        state.stop = Some(stop.clone());
    }
    caller.sandbox.agent.execs.changed.send_modify(|count| *count += 1);
    tokio::spawn(pump(caller.clone(), exec.clone(), running, inputs, stop));
    Ok(())
}

async fn pump(
    caller: Caller,
    exec: Arc<Exec>,
    mut running: Running,
    mut inputs: mpsc::UnboundedReceiver<Vec<u8>>,
    stop: CancellationToken,
) {
    let stdin = running.stdin.take();
    let writing = tokio::spawn(async move {
        let Some(mut stdin) = stdin else { return };
        while let Some(bytes) = inputs.recv().await {
            if stdin.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let out = tokio::spawn(read(running.stdout.take(), exec.clone(), "stdout"));
    let err = tokio::spawn(read(running.stderr.take(), exec.clone(), "stderr"));
    let (status, stopped) = tokio::select! {
        status = running.wait() => (status, false),
        () = stop.cancelled() => {
            running.kill();
            (running.wait().await, true)
        }
    };
    // What a daemon keeps open is not waited for.
    let both = async { (out.await, err.await) };
    let _ = tokio::time::timeout(std::time::Duration::from_millis(200), both).await;
    writing.abort();
    let code =
        status.map_or(-1, |status| status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1));
    {
        let mut state = exec.state();
        state.status = if stopped { "STOPPED" } else { "EXITED" };
        state.exit_code = code;
        state.input = None;
        state.stop = None;
    }
    exec.event("stdout", b"", Some(code));
    caller.sandbox.agent.execs.changed.send_modify(|count| *count += 1);
}

async fn read(stream: Option<Box<dyn AsyncRead + Send + Unpin>>, exec: Arc<Exec>, kind: &'static str) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count) = stream.read(&mut buffer).await
        && count > 0
    {
        exec.event(kind, &buffer[..count], None);
    }
}

/// The output from a place on, to the end of the command or of the sandbox's run.
fn output(caller: Caller, exec: Arc<Exec>, last: u64) -> impl Stream<Item = Value> {
    async_stream::stream! {
        let mut changed = exec.changed.subscribe();
        let mut next = usize::try_from(last).unwrap_or(usize::MAX);
        loop {
            changed.borrow_and_update();
            let (new, ended) = {
                let state = exec.state();
                (state.events.get(next..).unwrap_or_default().to_vec(), state.status != "RUNNING")
            };
            next += new.len();
            let told = new.last().is_some_and(|event| event.get("exitCode").is_some());
            for event in new {
                yield event;
            }
            if told || !caller.sandbox.running() || (ended && exec.state().events.len() <= next) {
                return;
            }
            // The sender lives in `exec`.
            let _ = changed.changed().await;
        }
    }
}

/// The list of commands, whenever it changes.
pub(super) fn changes(caller: Caller) -> impl Stream<Item = Value> {
    async_stream::stream! {
        let mut changed = caller.sandbox.agent.execs.changed.subscribe();
        while caller.sandbox.running() {
            changed.borrow_and_update();
            yield caller.sandbox.agent.execs.show();
            // The sender lives in the sandbox.
            let _ = changed.changed().await;
        }
    }
}

fn show_task(caller: &Caller, task: &Task) -> Value {
    let execs = &caller.sandbox.agent.execs;
    let exec = execs.tasks.lock().unwrap_or_else(PoisonError::into_inner).get(&task.name).cloned();
    let running = exec.as_ref().and_then(|id| execs.all().get(id).cloned());
    let status = match running.as_ref().map(|exec| exec.state().status) {
        Some("RUNNING") => "RUNNING",
        Some("EXITED") => "FINISHED",
        Some(_) => "KILLED",
        None => "IDLE",
    };
    let at = caller.sandbox.created;
    json!({
        "id": task.name, "name": task.name, "command": task.command,
        "status": status, "execId": exec.unwrap_or_default(), "startTime": at, "endTime": at,
        "config": {"name": task.name, "command": task.command, "runAtStart": false,
            "restartOn": {}, "preview": {"port": task.port}},
    })
}

/// Answers what is below `tasks`.
pub(super) async fn tasks(caller: &Caller, call: &Call, rest: &str) -> Done {
    let tasks = &caller.cloud.options.tasks;
    if rest.is_empty() {
        return data(json!({"tasks": tasks.iter().map(|task| show_task(caller, task)).collect::<Vec<_>>()}));
    }
    let (id, actions) = rest.split_once('/').unwrap_or((rest, ""));
    let task = tasks.iter().find(|task| task.name == id);
    let task = task.ok_or_else(|| ApiError::new(404, "task not found"))?;
    if actions.is_empty() {
        return data(json!({"task": show_task(caller, task)}));
    }
    let execs = &caller.sandbox.agent.execs;
    let before = execs.tasks.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
    if let Some(exec) = before.and_then(|exec| execs.all().get(&exec).cloned()) {
        exec.stop();
    }
    match call.action.as_deref() {
        Some("start" | "restart") => {
            let exec = create(caller, "bash".to_owned(), vec!["-c".to_owned(), task.command.clone()], false)?;
            start(caller, &exec).await?;
            execs.tasks.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), exec.id.clone());
        }
        Some("stop") => {}
        _ => return Err(ApiError::new(400, "Unknown actionType")),
    }
    data(show_task(caller, task))
}
