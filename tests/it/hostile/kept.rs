//! Connections that outlive a call: who gets them, and what does not stay open on them.

use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pcoder_runtime::call::{CallContext, Called};
use pcoder_runtime::contract::{Command, CommandSpec, ExitStatus};
use pcoder_runtime::host::stdio::{Input, Output, Stdio};
use pcoder_runtime::{Error, SshKeepers};
use pcoder_tests::{Grant, House, SEPARATOR, argv};
use russh::client::{Config, Handler, connect_stream};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::assert_nowhere;
use crate::sshd::{Server, key};
use crate::streams::{nothing, piped, read_line, read_to_end};

/// The keepers of one test, which end with it.
struct Kept {
    keepers: Arc<SshKeepers>,
    sockets: TempDir,
    house: House,
    server: Arc<Server>,
}

impl Kept {
    fn new() -> Self {
        let server = Arc::new(Server::start());
        let net = format!("[[net]]\nurl = \"{}\"\naddresses = [\"loopback\"]\n", server.url());
        let sockets = tempfile::tempdir().expect("a folder");
        let keepers = Arc::new(SshKeepers {
            program: env!("CARGO_BIN_EXE_supervisor").into(),
            args: vec!["keep-ssh".into(), sockets.path().into()],
            sockets: sockets.path().join("s"),
        });
        Self { keepers, sockets, house: House::provider(&net, Grant::All), server }
    }

    /// What the host asks a call to do, and who keeps connections.
    fn context(&self, spec: &CommandSpec) -> CallContext {
        CallContext {
            called: Called { command: Some(spec.clone()), ..Called::default() },
            ssh_keepers: Some(Arc::clone(&self.keepers)),
            ..CallContext::default()
        }
    }

    async fn exec_with(&self, context: CallContext, spec: &CommandSpec, stdio: Stdio) -> Result<ExitStatus, Error> {
        let id = format!("ssh{SEPARATOR}{}", self.server.endpoint(&key("user")).join(SEPARATOR));
        self.house.plugin.provider().expect("a provider").exec(context, &id, spec, stdio).await
    }

    async fn exec(&self, spec: &CommandSpec, stdio: Stdio) -> Result<ExitStatus, Error> {
        self.exec_with(self.context(spec), spec, stdio).await
    }

    async fn says(&self, script: &str) -> String {
        let (stdio, reader) = piped();
        self.exec(&shell(script), stdio).await.expect("it runs");
        read_to_end(reader).await
    }

    /// A command that does this and then waits for the gate, whatever becomes of its streams.
    fn waits(&self, script: &str) -> (CommandSpec, Gate) {
        let path = self.sockets.path().join("gate");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        (shell(&format!("{script}; exec cat '{}'", path.display())), Gate(path))
    }

    fn sockets(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.keepers.sockets).into_iter().flatten();
        entries.map(|it| it.expect("an entry").path()).collect()
    }

    fn processes(&self) -> Vec<Pid> {
        let mine = self.sockets.path().to_str().expect("Unicode");
        let pids =
            std::fs::read_dir("/proc").expect("/proc").filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok());
        let is_mine = |pid: &i32| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split('\0').skip(1).take(2).eq(["keep-ssh", mine])
        };
        pids.filter(is_mine).filter_map(Pid::from_raw).collect()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for pid in self.processes() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// What a command waits for, and reads then.
struct Gate(PathBuf);

impl Gate {
    async fn open(self, text: &'static str) {
        let write = move || std::fs::write(&self.0, text).expect("somebody waits");
        tokio::task::spawn_blocking(write).await.expect("a thread");
    }
}

fn shell(script: &str) -> CommandSpec {
    CommandSpec { command: Command::Shell(script.to_owned()), ..argv("sh", &[]) }
}

#[tokio::test]
async fn calls_use_a_connection_again_and_never_two_at_once() {
    let kept = Kept::new();
    for round in 0..3 {
        assert_eq!(kept.says("echo hi").await, "hi\n", "{round}");
    }
    assert_eq!((kept.server.connections(), kept.processes().len()), (1, 1));
    let (stdout_reader, stdout) = std::io::pipe().expect("a pipe");
    let (spec, gate) = kept.waits("echo here");
    let stuck = kept.exec(&spec, Stdio::new(Input::Null, Output::Pipe(stdout), Output::Null));
    let meanwhile = async {
        let (line, rest) = read_line(stdout_reader).await;
        assert_eq!(line, "here");
        // The next one has a connection of its own.
        assert_eq!(kept.says("echo beside").await, "beside\n");
        gate.open("more").await;
        read_to_end(rest).await
    };
    let (status, rest) = tokio::join!(stuck, meanwhile);
    assert_eq!((status.expect("it ends"), rest.as_str()), (ExitStatus::Exited(0), "more"));
    assert_eq!((kept.server.connections(), kept.processes().len()), (2, 1));
}

#[tokio::test]
async fn a_command_over_a_kept_connection_is_one_like_any_other() {
    let kept = Kept::new();
    let status = async |script: &str| kept.exec(&shell(script), nothing()).await.expect("it runs");
    assert_eq!(status("exit 7").await, ExitStatus::Exited(7));
    assert_eq!(status("kill -TERM $$").await, ExitStatus::Signaled(15));
    // One that has much to say goes over a connection of its own: both sides could wait for each other.
    for (bytes, connections) in [(60_000, 1), (3_000_000, 2)] {
        let bytes: Vec<u8> = (0..bytes).map(|it: u32| (it % 251) as u8).collect();
        let (mut stdout_reader, stdout) = std::io::pipe().expect("a pipe");
        let (mut stderr_reader, stderr) = std::io::pipe().expect("a pipe");
        let reads = tokio::task::spawn_blocking(move || {
            let (mut out, mut err) = (Vec::new(), String::new());
            stdout_reader.read_to_end(&mut out).expect("bytes");
            stderr_reader.read_to_string(&mut err).expect("text");
            (out, err)
        });
        let stdio = Stdio::new(Input::Bytes(bytes.clone()), Output::Pipe(stdout), Output::Pipe(stderr));
        let spec = shell("cat; head -c 3000000 /dev/zero; echo done >&2");
        assert_eq!(kept.exec(&spec, stdio).await.expect("it runs"), ExitStatus::Exited(0));
        let (out, err) = reads.await.expect("a thread");
        assert!(out.starts_with(&bytes) && out.len() == bytes.len() + 3_000_000, "{} bytes came", out.len());
        assert_eq!((err.as_str(), kept.server.connections()), ("done\n", connections));
    }
}

/// Which file something has open, as the kernel names it.
fn file_of(path: &str) -> Option<String> {
    Some(std::fs::read_link(path).ok()?.to_str()?.to_owned())
}

#[tokio::test]
async fn a_keeper_writes_to_the_commands_outputs_itself_and_leaves_them_with_it() {
    let kept = Kept::new();
    assert_eq!(kept.says("echo hi").await, "hi\n");
    let (stdout_reader, stdout) = std::io::pipe().expect("a pipe");
    let pipe = file_of(&format!("/proc/self/fd/{}", stdout.as_raw_fd())).expect("a name");
    let has_it = || {
        let processes = kept.processes();
        let folders = processes.iter().map(|pid| format!("/proc/{}/fd", pid.as_raw_nonzero()));
        let entries = folders.filter_map(|it| std::fs::read_dir(it).ok()).flatten().flatten();
        entries.filter_map(|it| file_of(it.path().to_str()?)).any(|it| it == pipe)
    };
    let (spec, gate) = kept.waits("echo here");
    let call = kept.exec(&spec, Stdio::new(Input::Null, Output::Pipe(stdout), Output::Null));
    let meanwhile = async {
        let (line, rest) = read_line(stdout_reader).await;
        assert_eq!(line, "here");
        assert!(has_it(), "the keeper");
        gate.open("more").await;
        rest
    };
    let (status, rest) = tokio::join!(call, meanwhile);
    assert_eq!(status.expect("it ends"), ExitStatus::Exited(0));
    // Whoever reads to the end is not kept waiting by a keeper that stays.
    assert!(!has_it(), "the keeper has left it");
    assert_eq!((read_to_end(rest).await.as_str(), kept.processes().len()), ("more", 1));
}

#[tokio::test]
async fn two_outputs_that_are_one_pipe_have_all_that_was_said() {
    let kept = Kept::new();
    let count = "i=0; while [ $i -lt 200 ]; do echo out $i; echo err $i >&2; i=$((i + 1)); done";
    // A server may tell of the two as it likes, but not of what each has said.
    let said = kept.says(count).await;
    for stream in ["out", "err"] {
        let lines: Vec<u32> = said.lines().filter_map(|it| it.strip_prefix(stream)?.trim().parse().ok()).collect();
        assert_eq!(lines, (0..200).collect::<Vec<_>>(), "{said}");
    }
}

#[tokio::test]
async fn an_output_that_takes_no_more_ends_the_command() {
    let kept = Kept::new();
    let (reader, stdout) = std::io::pipe().expect("a pipe");
    drop(reader);
    let stdio = Stdio::new(Input::Null, Output::Pipe(stdout), Output::Null);
    assert_eq!(kept.exec(&shell("yes"), stdio).await.expect("it ends"), ExitStatus::Signaled(13));
    // Also one that says nothing more.
    let quiet = "echo much; exec sleep 60";
    let (reader, stdout) = std::io::pipe().expect("a pipe");
    drop(reader);
    let spec = shell(quiet);
    let call = kept.exec(&spec, Stdio::new(Input::Null, Output::Pipe(stdout), Output::Null));
    let status = tokio::time::timeout(Duration::from_secs(30), call).await.expect("it does not wait for the command");
    assert_eq!(status.expect("it ends"), ExitStatus::Signaled(13));
    for script in ["echo much", "echo some >&2; echo much", quiet] {
        let full = OwnedFd::from(std::fs::File::options().write(true).open("/dev/full").expect("a device"));
        let stdio = Stdio::new(Input::Null, Output::Pipe(full.into()), Output::Null);
        let error = kept.exec(&shell(script), stdio).await.expect_err("there is no room");
        assert!(error.is("io") && error.to_string().contains("No space left"), "{error}");
    }
    assert_eq!(kept.says("echo again").await, "again\n");
}

#[tokio::test]
async fn a_file_that_is_not_to_be_so_large_is_the_commands_error_and_not_the_keepers_end() {
    use rustix::process::{Resource, Rlimit, prlimit};
    let kept = Kept::new();
    assert_eq!(kept.says("echo hi").await, "hi\n");
    let keepers = kept.processes();
    let limit = |current| Rlimit { current, maximum: None };
    let before = prlimit(keepers.first().copied(), Resource::Fsize, limit(Some(1000))).expect("it is limited");
    assert_eq!(before.maximum, None, "this test would lower what cannot be raised again");
    let file = tempfile::tempfile().expect("a file");
    let stdout = OwnedFd::from(file.try_clone().expect("a file"));
    let stdio = Stdio::new(Input::Null, Output::Pipe(stdout.into()), Output::Null);
    let error = kept.exec(&shell("head -c 3000 /dev/zero; exec sleep 60"), stdio).await.expect_err("it is too large");
    assert!(error.is("io") && error.to_string().contains("File too large"), "{error}");
    assert_eq!(file.metadata().expect("a file").len(), 1000);
    assert_eq!((kept.says("echo again").await.as_str(), kept.processes()), ("again\n", keepers));
}

#[tokio::test]
async fn a_keeper_that_is_killed_leaves_no_output_open_and_no_command_waited_for() {
    let kept = Kept::new();
    let (stdout_reader, stdout) = std::io::pipe().expect("a pipe");
    let (spec, gate) = kept.waits("echo here");
    let call = kept.exec(&spec, Stdio::new(Input::Null, Output::Pipe(stdout), Output::Null));
    let kill = async {
        let (line, rest) = read_line(stdout_reader).await;
        for pid in kept.processes() {
            kill_process(pid, Signal::KILL).expect("it runs");
        }
        line + &read_to_end(rest).await
    };
    let (result, said) = tokio::join!(call, kill);
    assert!(result.expect_err("nobody knows how it ended").is("unavailable"));
    assert_eq!(said, "here");
    gate.open("").await;
    assert_eq!(kept.says("echo again").await, "again\n");
}

#[tokio::test]
async fn a_keeper_that_stands_still_gets_no_output_and_is_not_waited_for() {
    let kept = Kept::new();
    assert_eq!(kept.says("echo one").await, "one\n");
    for pid in kept.processes() {
        kill_process(pid, Signal::STOP).expect("it runs");
    }
    // To the end of what is said, which nobody else has open.
    let said = tokio::time::timeout(Duration::from_secs(100), kept.says("echo two"));
    assert_eq!(said.await.expect("the machine is asked then"), "two\n");
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_keeps_nobody() {
    let kept = Kept::new();
    let cancel = CancellationToken::new();
    let (reader, stdout) = std::io::pipe().expect("a pipe");
    let (errors_reader, stderr) = std::io::pipe().expect("a pipe");
    let spec = shell("echo begins >&2; yes");
    let context = CallContext { cancel: Some(cancel.clone()), ..kept.context(&spec) };
    let call = kept.exec_with(context, &spec, Stdio::new(Input::Null, Output::Pipe(stdout), Output::Pipe(stderr)));
    let stop = async {
        assert_eq!(read_line(errors_reader).await.0, "begins");
        // It is full: a pipe has 16 pages, and none of them takes another line in part.
        let is_full = || rustix::io::ioctl_fionread(&reader).is_ok_and(|it| it > 60_000);
        let fills = async {
            while !is_full() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), fills).await.expect("it is full");
        assert_eq!(kept.says("echo beside").await, "beside\n");
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(call, stop);
    assert!(result.expect_err("it was stopped").is("cancelled"));
    assert_eq!(kept.says("echo again").await, "again\n");
    // What waited for its reader is there, and then it is closed.
    assert!(read_to_end(reader).await.lines().all(|it| it.starts_with('y') || it.is_empty()));
}

#[tokio::test]
async fn an_output_that_others_wait_for_in_another_way_is_not_passed() {
    let kept = Kept::new();
    let (mut reader, stdout) = std::io::pipe().expect("a pipe");
    rustix::fs::fcntl_setfl(&stdout, rustix::fs::OFlags::NONBLOCK).expect("it is set");
    let reads = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes.len())
    });
    // More than a pipe holds.
    let stdio = Stdio::new(Input::Null, Output::Pipe(stdout), Output::Null);
    let status = kept.exec(&shell("head -c 1000000 /dev/zero"), stdio).await.expect("it runs");
    assert_eq!((status, reads.await.expect("a thread").expect("bytes")), (ExitStatus::Exited(0), 1_000_000));
}

/// How long a shell waits, in the keeper.
const WAITS: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_shell_waits_for_the_next_command_and_not_for_long() {
    let kept = Kept::new();
    // For how long there has been the process that ran this.
    let age = async || {
        let said = kept.says("read -r now _ </proc/uptime; read -r stat </proc/$$/stat; echo $now $stat").await;
        let number = |index: usize| said.split(' ').nth(index).and_then(|it| it.parse::<f64>().ok()).expect("a number");
        // The 22nd field of `stat` is when it started (`proc_pid_stat(5)`).
        number(0) - number(22) / rustix::param::clock_ticks_per_second() as f64
    };
    age().await;
    // It grows older meanwhile, which is what is seen.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let waited = age().await;
    assert!(waited > 2.0, "{waited}");
    tokio::time::sleep(WAITS + Duration::from_millis(500)).await;
    let waited = age().await;
    assert!(waited < 5.0, "{waited}");
    // It reads one line.
    assert_eq!(kept.says("echo a\necho b").await, "a\nb\n");
    assert_eq!(kept.says("printf '%s\\n' 'it'\\''s  \\ $x'; cat").await, "it's  \\ $x\n");
    assert_eq!(kept.server.connections(), 1);
}

#[tokio::test]
async fn what_a_call_leaves_open_ends_with_it() {
    let kept = Kept::new();
    let cancel = CancellationToken::new();
    let (stdout_reader, stdout) = std::io::pipe().expect("a pipe");
    let (spec, gate) = kept.waits("echo here");
    let context = CallContext { cancel: Some(cancel.clone()), ..kept.context(&spec) };
    let call = kept.exec_with(context, &spec, Stdio::new(Input::Null, Output::Pipe(stdout), Output::Null));
    let stop = async {
        assert_eq!(read_line(stdout_reader).await.0, "here");
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(call, stop);
    assert!(result.expect_err("it was stopped").is("cancelled"));
    let server = Arc::clone(&kept.server);
    assert!(tokio::task::spawn_blocking(move || server.was_closed()).await.expect("a thread"), "it stayed open");
    gate.open("").await;
    assert_eq!(kept.says("echo again").await, "again\n");
    assert_eq!((kept.server.connections(), kept.processes().len()), (2, 1));
}

#[tokio::test]
async fn what_a_plugin_does_by_itself_keeps_nothing() {
    let kept = Kept::new();
    let spec = shell("echo hi");
    let context = CallContext { called: Called::default(), ..kept.context(&spec) };
    assert_eq!(kept.exec_with(context, &spec, nothing()).await.expect("it runs"), ExitStatus::Exited(0));
    assert_eq!((kept.sockets(), kept.processes()), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_keeper_that_was_killed_or_whose_socket_is_gone_is_replaced() {
    let kept = Kept::new();
    assert_eq!(kept.says("echo one").await, "one\n");
    for pid in kept.processes() {
        kill_process(pid, Signal::KILL).expect("it runs");
    }
    assert_eq!(kept.says("echo two").await, "two\n");
    for socket in kept.sockets() {
        std::fs::remove_file(socket).expect("a socket");
    }
    assert_eq!(kept.says("echo three").await, "three\n");
    let nobody = SshKeepers { program: "/nowhere/program".into(), ..(*kept.keepers).clone() };
    for socket in kept.sockets() {
        std::fs::remove_file(socket).expect("a socket");
    }
    let spec = shell("exit 4");
    let context = CallContext { ssh_keepers: Some(Arc::new(nobody)), ..kept.context(&spec) };
    assert_eq!(kept.exec_with(context, &spec, nothing()).await.expect("it runs"), ExitStatus::Exited(4));
}

/// Somebody who speaks with a keeper without a machine's key.
struct Stranger(Arc<std::sync::Mutex<Option<String>>>);

impl Handler for Stranger {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &russh::keys::PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let line = key.public_key().to_openssh().ok();
        *self.0.lock().expect("a key") = line;
        Ok(true)
    }
}

#[tokio::test]
async fn who_does_not_have_the_machines_key_gets_nothing_of_a_keeper() {
    let kept = Kept::new();
    assert_eq!(kept.says("echo hi").await, "hi\n");
    let sockets = kept.sockets();
    let [socket] = &sockets[..] else { panic!("one keeper: {sockets:?}") };
    let seen = Arc::new(std::sync::Mutex::new(None));
    let mut stream = tokio::net::UnixStream::connect(socket).await.expect("it listens");
    // The keeper says that it is there, and this that it hands over no outputs.
    assert_eq!(tokio::io::AsyncReadExt::read_u8(&mut stream).await.expect("a byte"), b'+');
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"0").await.expect("it is written");
    let stranger = Stranger(Arc::clone(&seen));
    let mut handle = connect_stream(Arc::new(Config::default()), stream, stranger).await.expect("a greeting");
    let host_key = seen.lock().expect("a key").clone().expect("a host key");
    for guess in ["", "pcoder", &key("user"), &key("host.pub"), &host_key] {
        let answer = handle.authenticate_password("pcoder", guess).await;
        assert!(!answer.is_ok_and(|it| it.success()), "{guess}");
    }
    // Nor does it say who it stands for.
    assert_ne!(host_key.split(' ').nth(1), key("host.pub").split(' ').nth(1));
    assert_nowhere(&key("user"), &kept.house, &[]);
}

/// As on Windows, where anybody may have made a pipe of that name.
#[tokio::test]
async fn a_socket_of_somebody_elses_hears_nothing() {
    let kept = Kept::new();
    assert_eq!(kept.says("echo hi").await, "hi\n");
    for pid in kept.processes() {
        kill_process(pid, Signal::KILL).expect("it runs");
    }
    let sockets = kept.sockets();
    let [socket] = &sockets[..] else { panic!("one keeper: {sockets:?}") };
    std::fs::remove_file(socket).expect("a socket");
    let listener = tokio::net::UnixListener::bind(socket).expect("a socket");
    let host_key = russh::keys::decode_secret_key(&key("other"), None).expect("a key");
    let config = Arc::new(russh::server::Config { keys: vec![host_key], ..russh::server::Config::default() });
    let heard = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ears = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Which outputs are handed over, once somebody is there to take them.
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"+").await.expect("somebody listens");
            tokio::io::AsyncReadExt::read_u8(&mut stream).await.expect("a byte");
            if let Ok(session) = russh::server::run_stream(Arc::clone(&config), stream, Ears(Arc::clone(&ears))).await {
                drop(session.await);
            }
        }
    });
    // The machine itself is asked then.
    assert_eq!(kept.says("echo still").await, "still\n");
    assert!(!heard.load(std::sync::atomic::Ordering::SeqCst), "it was logged in to");
}

/// Takes any login.
struct Ears(Arc<std::sync::atomic::AtomicBool>);

impl russh::server::Handler for Ears {
    type Error = russh::Error;

    async fn auth_password(&mut self, _: &str, _: &str) -> Result<russh::server::Auth, russh::Error> {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        Ok(russh::server::Auth::Accept)
    }
}
