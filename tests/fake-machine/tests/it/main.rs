//! Integration tests: real commands in instances.
#![cfg(target_os = "linux")]
// The lints' exception for tests does not reach a test's helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::fs;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use pcoder_fake_machine::{Confinement, Io, Layout, Machine, Run, Running};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(30);

fn layout() -> Layout {
    Layout { home: "/root".to_owned(), folders: vec!["/project".to_owned()], ..Layout::default() }
}

fn machine(folder: &Path) -> Machine {
    Machine::new(&folder.join("one"), layout()).expect("an instance")
}

fn line(script: &str) -> Run {
    Run {
        program: "sh".into(),
        args: vec!["-c".into(), script.into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into()), ("HOME".into(), "/root".into())],
        cwd: "/root".to_owned(),
        io: Io::Pipes,
    }
}

async fn finish(mut running: Running) -> (String, String, ExitStatus) {
    drop(running.stdin.take());
    let (mut out, mut err) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (running.stdout.take().unwrap(), running.stderr.take().unwrap());
    let whole = async {
        let (read, read_too) = tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err));
        read.and(read_too).expect("output");
        running.wait().await.expect("an end")
    };
    let status = timeout(LONG, whole).await.expect("the command ends");
    (out, err, status)
}

async fn output(machine: &Machine, script: &str) -> String {
    let (out, err, status) = finish(machine.spawn(line(script)).expect("a command")).await;
    assert!(status.success(), "{script}: {status} {err}");
    out
}

/// Whether this machine confines at all; where it does not, there is nothing to show.
fn confined(machine: &Machine) -> bool {
    let confined = machine.confinement() != Confinement::Folder;
    if !confined {
        assert!(std::env::var_os("CI").is_none(), "neither root nor user namespaces");
        eprintln!("skipped: neither root nor user namespaces here");
    }
    confined
}

#[tokio::test]
async fn a_command_has_its_streams_arguments_environment_and_status() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    let mut run = line("cat; echo \"$1|$NAME\"; echo oh >&2; exit 7");
    run.args.extend(["sh".into(), "a b'\"$\n".into()]);
    run.env.push(("NAME".into(), "value".into()));
    let mut running = machine.spawn(run).unwrap();
    running.stdin.as_mut().unwrap().write_all(b"in\n").await.unwrap();
    let (out, err, status) = finish(running).await;
    assert_eq!((out.as_str(), err.as_str(), status.code()), ("in\na b'\"$\n|value\n", "oh\n", Some(7)));
}

#[tokio::test]
async fn the_environment_is_the_given_one_alone() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    if confined(&machine) {
        let names = output(&machine, "env | cut -d= -f1 | sort | tr '\\n' ' '").await;
        assert_eq!(names.replace("OLDPWD ", ""), "HOME PATH PWD ");
    }
}

#[tokio::test]
async fn its_folders_are_its_own_and_the_system_is_read_only() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    if !confined(&machine) {
        return;
    }
    assert_eq!(
        output(&machine, "echo $HOME; pwd; ls -A . /project /tmp").await,
        "/root\n/root\n.:\n\n/project:\n\n/tmp:\n"
    );
    output(&machine, "echo 1 > a; echo 2 > /tmp/b; mkdir /project/c").await;
    assert_eq!(fs::read_to_string(machine.path("/root/a").unwrap()).unwrap(), "1\n");
    assert_eq!(fs::read_to_string(machine.path("/tmp/b").unwrap()).unwrap(), "2\n");
    assert!(machine.path("/project/c").unwrap().is_dir());
    assert_eq!(machine.path("/root/../etc/passwd"), None);
    assert_eq!(machine.path("root"), None);
    let (_, err, status) = finish(machine.spawn(line("touch /usr/bin/pcoder-was-here")).unwrap()).await;
    assert!(!status.success() && err.contains("Read-only"), "{err}");
}

#[tokio::test]
async fn a_mount_point_deep_in_a_folder_that_lacks_it_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout {
        home: "/home/agent-of-nobody".to_owned(),
        folders: ["/usr/lib/no/such", "/no/such", "/no/other"].map(str::to_owned).to_vec(),
        ..Layout::default()
    };
    let machine = Machine::new(folder.path(), layout).unwrap();
    if !confined(&machine) {
        return;
    }
    let before = fs::read_dir("/usr/lib").unwrap().count();
    let mut run = line("touch f /usr/lib/no/such/f /no/such/f /no/other/f && ls -A /usr/lib | wc -l");
    run.cwd = "/home/agent-of-nobody".to_owned();
    let (out, err, status) = finish(machine.spawn(run).unwrap()).await;
    assert!(status.success(), "{err}");
    assert_eq!(out, format!("{}\n", before + 1));
    assert!(machine.path("/no/such/f").unwrap().exists());
}

#[tokio::test]
async fn processes_of_the_machine_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    if confined(&machine) {
        // The holder is a shell until it becomes `cat`, a moment after it said that it is there.
        let settled = "until read -r init </proc/1/comm && [ \"$init\" = cat ]; do :; done";
        // The holder, and the shell that asks.
        let count = "set -- /proc/[0-9]*; echo $#; cat /proc/1/comm";
        assert_eq!(output(&machine, &format!("{settled}; {count}")).await, "2\ncat\n");
    }
}

#[tokio::test]
async fn a_signal_is_told_as_one() {
    use std::os::unix::process::ExitStatusExt;
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    let (_, _, status) = finish(machine.spawn(line("kill -TERM $$")).unwrap()).await;
    assert_eq!(status.signal(), Some(15));
    let (_, _, status) = finish(machine.spawn(line("sh -c 'kill -TERM $$'; exit $?")).unwrap()).await;
    assert_eq!(status.code(), Some(143));
}

#[tokio::test]
async fn a_program_or_a_folder_that_is_not_there_ends_as_in_a_shell() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    if !confined(&machine) {
        return;
    }
    let mut run = line("true");
    run.program = "no-such-program".into();
    let (_, err, status) = finish(machine.spawn(run).unwrap()).await;
    assert_eq!(status.code(), Some(127), "{err}");
    let mut run = line("true");
    run.cwd = "/no/such/folder".to_owned();
    let (_, err, status) = finish(machine.spawn(run).unwrap()).await;
    assert!(!status.success() && err.contains("/no/such/folder"), "{err}");
}

#[tokio::test]
async fn a_killed_command_takes_its_group_along() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    let mut running = machine.spawn(line("sleep 1000 & echo started; wait")).unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    assert_eq!(timeout(LONG, lines.next_line()).await.unwrap().unwrap().as_deref(), Some("started"));
    running.kill();
    // The end of the output: nobody holds it any more.
    assert_eq!(timeout(LONG, lines.next_line()).await.unwrap().unwrap(), None);
    assert!(!timeout(LONG, running.wait()).await.unwrap().unwrap().success());
}

#[tokio::test]
async fn a_daemon_survives_its_command_and_ends_with_the_instance() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    if !confined(&machine) {
        return;
    }
    output(&machine, "mkfifo /tmp/alive").await;
    let pipe = machine.path("/tmp/alive").unwrap();
    // Twice forked, in a session of its own, with everything closed but the pipe.
    output(&machine, "(setsid sh -c 'exec 3>/tmp/alive; sleep 1000' </dev/null >/dev/null 2>&1 &)").await;
    let mut reader = timeout(LONG, tokio::fs::File::open(&pipe)).await.unwrap().unwrap();
    assert_eq!(output(&machine, "grep -l '^sleep' /proc/[0-9]*/comm | wc -l").await, "1\n");
    let ended = tokio::task::spawn_blocking(move || machine.end());
    assert_eq!(timeout(LONG, reader.read(&mut [0])).await.unwrap().unwrap(), 0);
    ended.await.unwrap();
    assert!(!folder.path().join("one").exists());
}

#[tokio::test]
async fn orphans_leave_no_zombies() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    if !confined(&machine) {
        return;
    }
    output(&machine, "for i in 1 2 3; do (sh -c 'exit 0' &); done").await;
    let left = "while grep -q ') Z ' /proc/[0-9]*/stat 2>/dev/null; do :; done; echo none";
    assert_eq!(output(&machine, left).await, "none\n");
}

#[tokio::test]
async fn a_fork_has_the_files_and_nothing_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    output(&machine, "echo 1 > $HOME/a; chmod 754 $HOME/a; ln -s a $HOME/l; (sleep 1000 >/dev/null 2>&1 &)").await;
    let other = machine.fork(&folder.path().join("two")).unwrap();
    assert_eq!(output(&other, "cd $HOME; stat -c %a a; readlink l; cat l").await, "754\na\n1\n");
    output(&other, "echo 2 > $HOME/a").await;
    assert_eq!(output(&machine, "cat $HOME/a").await, "1\n");
    if confined(&machine) {
        assert_eq!(output(&other, "grep -l '^sleep' /proc/[0-9]*/comm | wc -l").await, "0\n");
        assert_eq!(output(&machine, "grep -l '^sleep' /proc/[0-9]*/comm | wc -l").await, "1\n");
    }
}

#[tokio::test]
async fn a_paused_instance_stands_still_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    for _ in 0..20 {
        let mut running = machine.spawn(line("while :; do echo x; done")).unwrap();
        let mut stdout = running.stdout.take().unwrap();
        let mut some = vec![0; 1000];
        stdout.read_exact(&mut some).await.unwrap();
        machine.pause().unwrap();
        assert_eq!(machine.spawn(line("true")).err().map(|error| error.kind()), Some(std::io::ErrorKind::WouldBlock));
        // What is in the pipe comes out, and then nothing more.
        let drained = async { while stdout.read(&mut some).await.unwrap() > 0 {} };
        assert!(timeout(Duration::from_millis(50), drained).await.is_err());
        machine.resume().unwrap();
        timeout(LONG, stdout.read_exact(&mut some)).await.unwrap().unwrap();
        running.kill();
        timeout(LONG, running.wait()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_command_that_ends_right_after_a_pause_is_told_to_have_ended() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    for _ in 0..20 {
        let mut running = machine.spawn(line("read -r line; echo $line")).unwrap();
        machine.pause().unwrap();
        machine.resume().unwrap();
        running.stdin.as_mut().unwrap().write_all(b"on\n").await.unwrap();
        let (out, _, status) = finish(running).await;
        assert_eq!((out.as_str(), status.code()), ("on\n", Some(0)));
    }
}

#[tokio::test]
async fn a_paused_instance_can_be_ended() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    let mut running = machine.spawn(line("echo on; sleep 1000")).unwrap();
    let mut first = [0; 3];
    running.stdout.as_mut().unwrap().read_exact(&mut first).await.unwrap();
    machine.pause().unwrap();
    machine.end();
    assert!(!timeout(LONG, running.wait()).await.unwrap().unwrap().success());
    assert!(machine.spawn(line("true")).is_err() && machine.pause().is_err());
}

#[tokio::test]
async fn a_reboot_ends_what_runs_and_keeps_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    output(&machine, "echo 1 > $HOME/a").await;
    let mut running = machine.spawn(line("echo on; sleep 1000")).unwrap();
    let mut first = [0; 3];
    running.stdout.as_mut().unwrap().read_exact(&mut first).await.unwrap();
    machine.reboot().unwrap();
    assert!(!timeout(LONG, running.wait()).await.unwrap().unwrap().success());
    assert_eq!(output(&machine, "cat $HOME/a").await, "1\n");
}

#[tokio::test]
async fn a_terminal_has_a_size_job_control_and_an_interrupt_key() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    let script = "trap 'stty size; exit 5' WINCH; stty size; : >/dev/tty && echo tty; while :; do sleep 0.01; done";
    let mut run = line(script);
    run.io = Io::Terminal { columns: 81, rows: 25 };
    let mut running = machine.spawn(run).unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    let mut next = async || timeout(LONG, lines.next_line()).await.unwrap().unwrap();
    assert_eq!(next().await.as_deref(), Some("25 81"));
    assert_eq!(next().await.as_deref(), Some("tty"));
    running.terminal().unwrap().resize(100, 40).unwrap();
    assert_eq!(next().await.as_deref(), Some("40 100"));
    assert_eq!(next().await, None);
    assert_eq!(timeout(LONG, running.wait()).await.unwrap().unwrap().code(), Some(5));

    // It answers, so it runs: an interrupt that comes while bash is about to replace itself is lost.
    let mut run = line("exec cat");
    run.io = Io::Terminal { columns: 80, rows: 24 };
    let mut running = machine.spawn(run).unwrap();
    running.stdin.as_mut().unwrap().write_all(b"on\n").await.unwrap();
    let mut first = [0; 8];
    running.stdout.as_mut().unwrap().read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"on\r\non\r\n");
    running.stdin.as_mut().unwrap().write_all(&[3]).await.unwrap();
    let status = timeout(LONG, running.wait()).await.unwrap().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(2));
}

#[tokio::test]
async fn an_interactive_shell_on_a_terminal_has_job_control() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path());
    let mut run = line("");
    run.program = "bash".into();
    run.args = vec!["--norc".into(), "-i".into()];
    run.env.push(("PS1".into(), "> ".into()));
    run.io = Io::Terminal { columns: 80, rows: 24 };
    let mut running = machine.spawn(run).unwrap();
    running.stdin.as_mut().unwrap().write_all(b"sleep 1000 &\nkill %1; wait; exit 3\n").await.unwrap();
    let mut out = String::new();
    timeout(LONG, running.stdout.take().unwrap().read_to_string(&mut out)).await.unwrap().unwrap();
    assert!(out.contains("[1]") && out.contains("Terminated") && !out.contains("no job control"), "{out}");
    assert_eq!(timeout(LONG, running.wait()).await.unwrap().unwrap().code(), Some(3));
}

#[test]
fn a_layout_with_a_path_that_is_not_plain_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for path in ["root", "/", "/root/", "/a/../b", "/a b", ""] {
        let layout = Layout { home: path.to_owned(), ..Layout::default() };
        assert!(Machine::new(folder.path(), layout).is_err(), "{path}");
    }
}

#[test]
fn an_idle_instance_is_a_folder_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let machines: Vec<Machine> =
        (0..100).map(|number| Machine::new(&folder.path().join(number.to_string()), layout()).unwrap()).collect();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 100);
    drop(machines);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn programs_of_this_machine_are_seen_where_they_are_said_to_be_and_stay_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let programs = tempfile::tempdir().unwrap();
    fs::write(programs.path().join("p"), "program").unwrap();
    let shared = vec![(programs.path().to_path_buf(), "/opt/its/programs".to_owned())];
    let machine =
        Machine::new(folder.path(), Layout { home: "/root".to_owned(), shared, ..Layout::default() }).unwrap();
    if !confined(&machine) {
        return;
    }
    assert_eq!(output(&machine, "cat /opt/its/programs/p; ! touch /opt/its/programs/q").await, "program");
    assert_eq!(fs::read_dir(programs.path()).unwrap().count(), 1);
}
