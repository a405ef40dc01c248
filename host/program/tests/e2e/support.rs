//! A place for one test: folders, an environment, a model server, and programs that end with it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use pcoder_model_server::environment::{self, OFFLINE_KEY, Variable};
use pcoder_model_server::{ModelServer, Options};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Whatever takes longer has stopped. It is long because machines that build are busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Where the tests wait. Nobody looks again and again whether something has happened: the system says when it has.
fn waiting() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("tokio"))
}

/// Looks again and again until there is something, for what tells nobody that it has happened.
#[cfg(unix)]
pub(crate) fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    looking(what, Duration::from_millis(10), DEADLINE, look)
}

/// The same for what takes long, and the longer the more often one looks.
#[cfg(unix)]
pub(crate) fn until_at_last<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    looking(what, Duration::from_secs(2), 2 * DEADLINE, look)
}

#[cfg(unix)]
fn looking<T>(what: &str, again: Duration, longest: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + longest;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "waited {longest:?} in vain until {what}");
        std::thread::sleep(again);
    }
}

async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    timeout(DEADLINE, event).await.unwrap_or_else(|_| panic!("waited {DEADLINE:?} in vain until {what}"))
}

/// Waits for what blocks until it has happened, and fails the test when it does not in time.
pub(crate) fn wait<T: Send + 'static>(what: &str, event: impl FnOnce() -> T + Send + 'static) -> T {
    waiting().block_on(async { within(what, tokio::task::spawn_blocking(event)).await }).expect("no panic")
}

/// Everything that one test has to itself.
pub(crate) struct World {
    folder: tempfile::TempDir,
    engines: Option<OsString>,
    runtime: tokio::runtime::Runtime,
    server: Option<ModelServer>,
    more: Vec<(&'static str, OsString)>,
}

impl World {
    /// With the engines that `cargo xtask test` installed.
    pub(crate) fn new() -> Self {
        let engines = std::env::var_os("PCODER_TEST_ENGINES").unwrap_or_else(|| {
            panic!(
                "the end-to-end tests run the real engines, and `PCODER_TEST_ENGINES` does not say where they are: \
                 run `cargo xtask test`, which installs them first"
            )
        });
        Self::with(Some(engines))
    }

    /// With an engine store of its own, in which there is nothing.
    pub(crate) fn without_engines() -> Self {
        Self::with(None)
    }

    fn with(engines: Option<OsString>) -> Self {
        // Not in the folder for temporary files: Codex leaves out its helpers when its home is there.
        let folder = tempfile::Builder::new().prefix("e2e-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        for name in ["home", "tmp", "claude", "codex", "project"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("tokio");
        let server = runtime.block_on(ModelServer::start(Options::default())).expect("a model server");
        let config = environment::codex_config(&server.openai_url());
        std::fs::write(folder.path().join("codex/config.toml"), config).expect("a configuration");
        Self { folder, engines, runtime, server: Some(server), more: Vec::new() }
    }

    /// One more variable of every program.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.more.push((name, value.into()));
    }

    pub(crate) fn server(&self) -> &ModelServer {
        self.server.as_ref().expect("it runs as long as the test")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("the test's folder").join(name)
    }

    /// A project of this name, created.
    pub(crate) fn project(&self, name: &str) -> PathBuf {
        let project = self.path("project").join(name);
        std::fs::create_dir_all(&project).expect("a project");
        project
    }

    /// The whole environment of a program that is started here. Nothing of the user's is in it, and what points the
    /// engines here keeps them off every other network.
    pub(crate) fn environment(&self) -> Vec<(String, OsString)> {
        let mut all: Vec<(String, OsString)> = vec![
            ("PATH".into(), std::env::var_os("PATH").unwrap_or_default()),
            ("HOME".into(), self.path("home").into()),
            ("USERPROFILE".into(), self.path("home").into()),
            ("TMPDIR".into(), self.path("tmp").into()),
            ("TERM".into(), "xterm-256color".into()),
            ("LANG".into(), "C.UTF-8".into()),
            ("PCODER_HOME".into(), self.path("pcoder").into()),
            // Nobody listens there: whatever would be downloaded fails.
            ("npm_config_registry".into(), "http://127.0.0.1:9/".into()),
        ];
        if let Some(engines) = &self.engines {
            all.push(("PCODER_ENGINES".into(), engines.clone()));
        }
        #[cfg(windows)]
        all.push(("SystemRoot".into(), std::env::var_os("SystemRoot").unwrap_or_default()));
        let server = self.server();
        let variables = [
            environment::claude(&server.anthropic_url(), OFFLINE_KEY, &self.path("claude")),
            environment::codex(OFFLINE_KEY, &self.path("codex")),
        ];
        all.extend(variables.into_iter().flatten().map(|Variable { name, value, .. }| (name.into(), value.into())));
        all.extend(self.more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        all
    }

    /// The program with these arguments, in this world's environment.
    pub(crate) fn pcoder(&self, args: &[&str]) -> Command {
        self.command(env!("CARGO_BIN_EXE_pcoder"), args)
    }

    /// Any program, in this world's environment.
    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(self.environment()).current_dir(self.path("project"));
        command
    }

    /// `pcoder run TOOL --project … -- ARGS`.
    pub(crate) fn run(&self, tool: &str, project: &Path, args: &[&str]) -> Command {
        let mut command = self.pcoder(&["run", tool, "--project"]);
        command.arg(project).arg("--").args(args);
        command
    }

    /// Waits until an engine has asked the model with a prompt that holds this.
    pub(crate) fn wait_for_prompt(&self, part: &str) {
        loop {
            let requests = self.server().requests();
            if requests.iter().any(|request| request.prompt.contains(part)) {
                return;
            }
            let another = self.server().wait_for_requests(requests.len() + 1, DEADLINE);
            assert!(waiting().block_on(another), "the model was never asked `{part}`");
        }
    }

    /// Whether an engine has asked the model with a prompt that holds this.
    pub(crate) fn asked(&self, part: &str) -> bool {
        self.server().requests().iter().any(|request| request.prompt.contains(part))
    }

    /// The processes that were started here and still run: each one's environment names the test's folder.
    #[cfg(target_os = "linux")]
    pub(crate) fn processes(&self) -> Vec<Process> {
        let ours = format!("PCODER_HOME={}", self.path("pcoder").display());
        let entries = std::fs::read_dir("/proc").expect("/proc");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        pids.filter_map(|pid| {
            // Not readable, and empty for one that has ended and waits for its parent.
            let environ = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
            let environ = String::from_utf8_lossy(&environ).into_owned();
            let mine = environ.split('\0').any(|variable| variable == ours);
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let command = String::from_utf8_lossy(&words).replace('\0', " ").trim().to_owned();
            let of_a_call = environ.split('\0').any(|variable| variable.starts_with("PCODER_CALL="));
            mine.then_some(Process { pid, command, of_a_call })
        })
        .collect()
    }

    /// Waits until nothing that was started here runs.
    #[cfg(target_os = "linux")]
    pub(crate) fn wait_until_all_is_gone(&self) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while let Some(process) = self.processes().first() {
            assert!(process.ends_before(deadline), "still there: {:#?}", self.processes());
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A test that failed half-way must not leave engines behind.
        #[cfg(target_os = "linux")]
        for process in self.processes() {
            if let Some(pid) = rustix::process::Pid::from_raw(process.pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        if let Some(server) = self.server.take() {
            // A stream that sleeps is cut: dropping the server ends it, waiting for it would not.
            let _inside = self.runtime.enter();
            drop(server);
        }
    }
}

/// One running program.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) command: String,
    /// A plugin's call started it: its environment says which.
    pub(crate) of_a_call: bool,
}

#[cfg(target_os = "linux")]
impl Process {
    /// Waits for its end; whether it came in time.
    fn ends_before(&self, deadline: std::time::Instant) -> bool {
        use rustix::event::{PollFd, PollFlags, poll};
        let pid = rustix::process::Pid::from_raw(self.pid).expect("a process");
        let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
            return true;
        };
        let left = deadline.saturating_duration_since(std::time::Instant::now()).try_into().expect("a time");
        poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)).is_ok_and(|ended| ended > 0)
    }
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Nothing when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// What it printed, when it did so with success.
    pub(crate) fn printed(&self) -> &str {
        assert!(self.code == Some(0), "{}", self.shown());
        &self.stdout
    }

    /// Its standard output, as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// For snapshots: the exit code and both streams.
    pub(crate) fn shown(&self) -> String {
        let code = self.code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        let part = |name: &str, text: &str| if text.is_empty() { String::new() } else { format!("-- {name}\n{text}") };
        format!("exit {code}\n{}{}", part("stdout", &self.stdout), part("stderr", &self.stderr))
    }
}

/// A program that runs, with pipes. It is killed when it is dropped.
pub(crate) struct Running {
    child: tokio::process::Child,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
}

/// Starts a program with this standard input, which ends.
pub(crate) fn start(mut command: Command, input: &str) -> Running {
    let _inside = waiting().enter();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    let mut child = command.kill_on_drop(true).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    // One that does not read it ends, and this with it.
    tokio::spawn(async move { drop(stdin.write_all(input.as_bytes()).await) });
    let stdout = tokio::spawn(text(child.stdout.take().expect("a pipe")));
    let stderr = tokio::spawn(text(child.stderr.take().expect("a pipe")));
    Running { child, stdout, stderr }
}

async fn text(mut stream: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    drop(stream.read_to_end(&mut bytes).await);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs a program with this standard input to its end.
pub(crate) fn finish(command: Command, input: &str) -> Outcome {
    start(command, input).finish()
}

impl Running {
    /// Sends it a signal.
    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.try_into().expect("an id")));
        let pid = pid.expect("nobody has waited for its end");
        rustix::process::kill_process(pid, signal).expect("it runs, or waits for us");
    }

    /// Sends it a signal again and again until it has ended: of signals of a kind that are pending, it sees one.
    #[cfg(unix)]
    pub(crate) fn signal_until_it_ends(&mut self, signal: rustix::process::Signal) {
        const AGAIN: Duration = Duration::from_millis(10);
        waiting().block_on(within("it has ended", async {
            loop {
                self.signal(signal);
                if timeout(AGAIN, self.child.wait()).await.is_ok() {
                    break;
                }
            }
        }));
    }

    /// Ends it in the way that nothing can catch.
    #[cfg(target_os = "linux")]
    pub(crate) fn kill(mut self) {
        waiting().block_on(within("it was killed", self.child.kill())).expect("it runs");
    }

    /// Waits for its end and for all that it printed.
    pub(crate) fn finish(mut self) -> Outcome {
        waiting().block_on(async {
            let status = within("the program has ended", self.child.wait()).await.expect("a child");
            let stdout = within("its output is closed", self.stdout).await.expect("a reader");
            let stderr = within("its errors are closed", self.stderr).await.expect("a reader");
            Outcome { code: status.code(), stdout, stderr }
        })
    }
}
