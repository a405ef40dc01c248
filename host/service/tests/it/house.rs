//! A place for one test's services.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pcoder_service::{Error, Launcher, Services, Spec, State, Status, Talk};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};

/// The tests' program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_service-test-program");

/// Longer than anything here takes on a machine that has other things to do.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) struct House {
    pub(crate) folder: TempDir,
    pub(crate) sockets: TempDir,
    pub(crate) services: Services,
}

impl House {
    pub(crate) fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let sockets = tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o700)).tempdir().unwrap();
        let launcher = Launcher {
            program: PROGRAM.into(),
            supervise: vec!["supervise".into()],
            become_program: vec!["become".into()],
        };
        let services = Services::new(folder.path().join("services"), sockets.path(), launcher);
        Self { folder, sockets, services }
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.folder.path().join("services")
    }

    pub(crate) async fn start(&self, name: &str, args: &[&str]) -> Result<Status, Error> {
        self.services.start(name, "a test", spec(args), |command| command.spawn()).await
    }

    pub(crate) async fn talk(&self, name: &str) -> Conversation {
        Conversation::new(self.services.talk(name, LONG).await.unwrap())
    }

    pub(crate) fn state(&self, name: &str) -> Option<State> {
        self.services.status(name).unwrap().map(|it| it.state)
    }

    /// Waits for a state.
    pub(crate) async fn until(&self, name: &str, state: impl Fn(Option<State>) -> bool) {
        until(|| state(self.state(name))).await;
    }

    /// The supervisor's process id.
    pub(crate) fn supervisor(&self, name: &str) -> i32 {
        let record = std::fs::read(self.files().join(name).join("service.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        i32::try_from(record["supervisor"].as_u64().unwrap()).unwrap()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // A test that failed leaves none running.
        for service in self.services.list().unwrap_or_default() {
            if matches!(service.state, State::Running | State::Starting) {
                kill(self.supervisor(&service.name));
            }
        }
    }
}

pub(crate) fn spec(args: &[&str]) -> Spec {
    Spec { program: PROGRAM.into(), args: args.iter().map(Into::into).collect(), cwd: "/".into(), env: Vec::new() }
}

pub(crate) fn kill(pid: i32) {
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL);
}

/// Whether a process is there, and has not just ended.
pub(crate) fn lives(pid: u32) -> bool {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::test_kill_process(pid).is_ok()
        && !std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
            .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('Z')))
}

pub(crate) async fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came to that");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A talk in lines.
pub(crate) struct Conversation {
    input: Box<dyn tokio::io::AsyncWrite + Send + Unpin>,
    output: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
}

impl Conversation {
    pub(crate) fn new(talk: Talk) -> Self {
        Self { input: talk.input, output: BufReader::new(talk.output) }
    }

    pub(crate) async fn say(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        self.input.flush().await.unwrap();
    }

    /// The next line; empty at the end.
    pub(crate) async fn hear(&mut self) -> String {
        let mut line = String::new();
        tokio::time::timeout(LONG, self.output.read_line(&mut line)).await.unwrap().unwrap();
        line.trim_end().to_owned()
    }
}
