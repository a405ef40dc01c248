//! Signals to `pcoder run` where there is no terminal, and what is left afterwards: nothing.

use rustix::process::Signal;

use crate::support::{Running, World, finish, start, wait};

/// A claude session in the middle of its answer.
const ANSWERING: &str = "@say one moment\n@sleep 600\n@say too late";

#[test]
fn ctrl_c_without_a_terminal_interrupts_the_agent_whose_exit_code_follows() {
    let world = World::new();
    let project = world.project("p");
    let claude = start(world.run("claude", &project, &["-p"]), ANSWERING);
    world.wait_for_prompt("@sleep 600");
    claude.signal(Signal::INT);
    let outcome = claude.finish();
    // Claude Code's own: it takes an interruption for an end like any other.
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");

    let codex =
        start(world.run("codex", &project, &["exec", "--skip-git-repo-check", "-"]), "@sleep 601\n@say too late");
    world.wait_for_prompt("@sleep 601");
    codex.signal(Signal::INT);
    let outcome = codex.finish();
    assert_eq!(outcome.code, Some(1), "Codex' own: {outcome:#?}");
    #[cfg(target_os = "linux")]
    world.wait_until_all_is_gone();
}

/// A tool of Claude Code is in a session of its own, which signals to the agent's group do not reach; the older engine
/// leaves it behind.
#[cfg(target_os = "linux")]
struct Tool {
    command: String,
    /// What it waits for: as long as this is open, the other side has no end.
    _pipe: std::fs::File,
}

#[cfg(target_os = "linux")]
impl Tool {
    fn runs(&self, world: &World) -> bool {
        world.processes().iter().any(|it| it.command == self.command)
    }
}

#[cfg(target_os = "linux")]
fn running_a_tool(world: &World, version: &str) -> (Running, Tool) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let pipe = world.path("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    // Claude Code refuses to wait long for a command that only waits, and sees no further than this.
    let script = format!("exec cat '{}'\n", pipe.display());
    std::fs::write(world.project("p").join("wait.sh"), script).expect("a script");
    let mut command = world.pcoder(&["run", "claude", "--engine-version", version, "--project"]);
    command.arg(world.project("p")).args(["--", "-p", "--allowedTools", "Bash(sh *)"]);
    let running = start(command, "@sh sh ./wait.sh\n@say too late");
    let command = format!("cat {}", pipe.display());
    // A pipe opens when its other side does.
    let open = move || std::fs::OpenOptions::new().write(true).open(pipe);
    let tool = Tool { command, _pipe: wait("the agent's tool runs", open).expect("a pipe") };
    assert!(tool.runs(world), "{:#?}", world.processes());
    (running, tool)
}

#[cfg(target_os = "linux")]
#[test]
fn a_request_to_end_leaves_no_process_behind() {
    for version in ["0.3.316", "0.3.156"] {
        let world = World::new();
        let (running, _tool) = running_a_tool(&world, version);
        assert!(world.processes().iter().any(|it| it.of_a_call), "the call's name is in the environment");
        running.signal(Signal::TERM);
        let outcome = running.finish();
        assert_eq!(outcome.code, Some(143), "the agent's own end is passed on: {outcome:#?}");
        assert!(world.processes().is_empty(), "gone when pcoder is: {:#?}", world.processes());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_lost_connection_leaves_no_process_behind() {
    let world = World::new();
    let (running, _tool) = running_a_tool(&world, "0.3.156");
    running.signal(Signal::HUP);
    let outcome = running.finish();
    assert_eq!(outcome.code, Some(129), "{outcome:#?}");
    assert!(world.processes().is_empty(), "gone when pcoder is: {:#?}", world.processes());
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_twice_ends_an_agent_that_does_not_listen() {
    let world = World::new();
    let mut command = world.pcoder(&["run", "claude", "--json", "--project"]);
    command.arg(world.project("p")).args(["--", "-p"]);
    let mut running = start(command, ANSWERING);
    world.wait_for_prompt("@sleep 600");
    // Stopped, it can not even be interrupted.
    for process in world.processes().iter().filter(|it| it.of_a_call) {
        let pid = rustix::process::Pid::from_raw(process.pid).expect("a process");
        rustix::process::kill_process(pid, Signal::STOP).expect("stopped");
    }
    running.signal_until_it_ends(Signal::INT);
    let answered = running.finish();
    assert_eq!(answered.code, Some(130), "{answered:#?}");
    assert!(answered.stderr.contains("\"cancelled\""), "{answered:#?}");
    world.wait_until_all_is_gone();
}

#[test]
fn ctrl_c_stops_an_installation_and_nothing_is_half_installed() {
    let world = World::without_engines();
    let registry = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", registry.local_addr().expect("a port"));
    let running = start(world.pcoder(&["engine", "install", "codex-acp", "--json", "--registry", &url]), "");
    // Asked, and never answered.
    let _asked = wait("the registry is asked", move || registry.accept().expect("a connection"));
    running.signal(Signal::INT);
    let outcome = running.finish();
    assert_eq!(outcome.code, Some(130), "{outcome:#?}");
    assert!(outcome.stderr.contains("\"cancelled\""), "{outcome:#?}");
    let list = finish(world.pcoder(&["engine", "list", "--json"]), "").json();
    assert!(list["engines"].as_array().expect("a list").iter().all(|it| it["state"] == "not installed"), "{list}");
}

/// Nobody can catch `SIGKILL`, so the guard ends the agent and its tools. Nothing stands in the way of the next run,
/// neither a lock nor a half-written file.
#[cfg(target_os = "linux")]
#[test]
fn after_kill_9_nothing_goes_on_and_the_next_run_works() {
    let world = World::new();
    let (running, _tool) = running_a_tool(&world, "0.3.316");
    running.kill();
    world.wait_until_all_is_gone();
    let outcome = finish(world.run("claude", &world.project("p"), &["-p"]), "@say still works");
    assert_eq!(outcome.printed().trim(), "still works");
    let audit = std::fs::read_to_string(world.path("pcoder/audit.jsonl")).expect("the audit");
    for line in audit.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}
