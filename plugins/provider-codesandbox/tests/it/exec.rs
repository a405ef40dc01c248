use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pcoder_fake_codesandbox::{Agent, Options};
use pcoder_sdk::testing::FakeStdio;
use pcoder_sdk::{CommandSpec, ExitStatus, Provider as _};
use provider_codesandbox::CodeSandbox;

use crate::world::{World, code, exec_on, failure, with_both_agents};

const SECRET: &str = "pcoder-secret-0123456789abcdef0123456789abcdef";

with_both_agents! {
    a_command_has_its_output_its_errors_and_its_code
    words_arrive_as_they_are
    a_command_cannot_ask_a_terminal_and_reads_nothing_by_itself
    a_nul_is_refused_before_anything_is_asked
    long_commands_and_much_input_and_output_pass
    input_and_output_are_streams
    a_command_need_not_read_its_input
    a_command_whose_output_nobody_takes_is_ended
    a_command_that_cannot_be_waited_for_is_ended
    a_terminal_is_a_terminal
    an_interrupt_that_is_typed_ends_the_command
    secrets_of_the_user_arrive_and_are_only_filled_on_the_way
    a_connection_that_breaks_off_is_made_anew_and_a_command_runs_once
    a_sandbox_that_hibernates_meanwhile_is_told_and_not_woken
    commands_run_side_by_side
    a_sandbox_does_not_hibernate_under_a_command
}

fn a_command_has_its_output_its_errors_and_its_code(agent: Agent) {
    let world = World::of(agent);
    let id = world.boot();
    let spec = CommandSpec::shell("cat; printf 'a\\000\\377\\r\\n'; echo err >&2; exit 7");
    let output = world.exec(&id, spec, b"in\0\xff").unwrap();
    assert_eq!(output.status, ExitStatus::Exited(7));
    assert_eq!(output.stdout, b"in\0\xffa\0\xff\r\n");
    assert_eq!(output.stderr, b"err\n");
    let killed = world.exec(&id, CommandSpec::shell("kill -9 $$"), b"").unwrap();
    assert_eq!(killed.status, ExitStatus::Exited(137));
    let absent = world.exec(&id, CommandSpec::argv("no-such-program", ["x"]), b"").unwrap();
    assert_eq!(absent.status, ExitStatus::Exited(127));
    assert!(String::from_utf8(absent.stderr).unwrap().contains("no-such-program"));
    // Nothing is left but what this command has itself.
    assert_eq!(world.printed(&id, "ls -A /tmp | wc -l"), "1\n");
}

fn words_arrive_as_they_are(agent: Agent) {
    let world = World::of(agent);
    let id = world.boot();
    let words = ["it's", "\"$(x)\"", "a\nb", "", "-n", "*", "~", "\\", "é\u{1}", "a  b"];
    let spec = CommandSpec::argv("printf", ["%s\\0"].into_iter().chain(words))
        .in_dir("~/it's here")
        .with_env("KEY", "it's\n$HOME")
        .with_path_entry("~/bin");
    assert_ne!(world.exec(&id, spec.clone(), b"").unwrap().status, ExitStatus::Exited(0), "there is no such folder");
    world.printed(&id, "mkdir ~/\"it's here\"");
    let output = world.exec(&id, spec, b"").unwrap();
    assert_eq!(output.text(), words.map(|word| format!("{word}\0")).concat());
    let spec = CommandSpec::shell("pwd; printf '%s\\n' \"$KEY\" \"$HOME\" \"${PATH%%:*}\"")
        .with_env("KEY", "it's\n$HOME")
        .with_path_entry("~/bin");
    let home = "/project/workspace";
    let output = world.exec(&id, spec, b"").unwrap();
    assert_eq!(output.text(), format!("{home}\nit's\n$HOME\n{home}\n{home}/bin\n"));
}

fn a_command_cannot_ask_a_terminal_and_reads_nothing_by_itself(agent: Agent) {
    let world = World::of(agent);
    let id = world.boot();
    let output = world.exec(&id, CommandSpec::shell("cat; cat /dev/tty 2>/dev/null || echo none; tty"), b"").unwrap();
    assert_eq!(output.text(), "none\nnot a tty\n");
}

fn a_nul_is_refused_before_anything_is_asked(agent: Agent) {
    let world = World::of(agent);
    let id = world.boot();
    let before = world.fake.requests().len();
    for spec in
        [CommandSpec::argv("a\0b", ["x"]), CommandSpec::shell("x\0"), CommandSpec::argv("a", ["b"]).with_env("A=B", "")]
    {
        assert_eq!(code(world.exec(&id, spec, b"")), "invalid");
    }
    assert_eq!(world.fake.requests().len(), before);
}

fn long_commands_and_much_input_and_output_pass(agent: Agent) {
    let world = World::with(Options { agent, max_frame: 5 << 20, ..Options::default() });
    let id = world.boot();
    let script = format!("printf %s '{}' | wc -c", "x".repeat(200 << 10));
    assert_eq!(world.exec(&id, CommandSpec::shell(script), b"").unwrap().text(), "204800\n");
    let words = vec!["y".repeat(100 << 10); 10];
    let output = world.exec(&id, CommandSpec::argv("printf", ["%s".to_owned()].into_iter().chain(words)), b"").unwrap();
    assert_eq!(output.stdout, "y".repeat(1000 << 10).into_bytes());
    // Neither text nor a multiple of anything.
    let content: Vec<u8> = (0..10_485_763_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let host = world.host();
    CodeSandbox.write_file(host.provider(), &id, "~/large", &content, pcoder_sdk::WriteOptions::plain()).unwrap();
    let output = world.exec(&id, CommandSpec::shell("cat ~/large; cat ~/large >&2"), b"").unwrap();
    assert!(output.stdout == content && output.stderr == content);
    let output = world.exec(&id, CommandSpec::shell("cat"), &content).unwrap();
    assert!(output.stdout == content && output.stderr.is_empty());
    let output = CodeSandbox.capture(host.provider(), &id, &CommandSpec::shell("cat ~/large"), b"").unwrap();
    assert!(output.stdout == content);
}

/// What is printed while the command runs is answered while it runs.
fn input_and_output_are_streams(agent: Agent) {
    let world = World::of(agent);
    let id = world.boot();
    let (sender, pieces) = mpsc::channel();
    let stdio = Rc::new(FakeStdio::new("").fed_by(pieces));
    let host = world.host();
    let (seen, mut sender) = (stdio.clone(), Some(sender));
    let turns = Rc::new(Cell::new(0));
    let counted = turns.clone();
    host.while_waiting(move || {
        let written = seen.written();
        let wanted: &[u8] = match counted.get() {
            0 => b"begin\n",
            1 => b"begin\none\xff\n",
            _ => return,
        };
        if written == wanted {
            counted.set(counted.get() + 1);
            match counted.get() {
                1 => sender.as_ref().unwrap().send(b"one\xff\n".to_vec()).unwrap(),
                _ => drop(sender.take()),
            }
        }
    });
    let spec = CommandSpec::shell("echo begin; cat; echo end; exit 4");
    let status = CodeSandbox.exec(host.provider(), &id, spec, stdio.handle()).unwrap();
    assert_eq!(status, ExitStatus::Exited(4));
    assert_eq!(stdio.written(), b"begin\none\xff\nend\n");
    assert_eq!(turns.get(), 2);
}

fn a_command_need_not_read_its_input(agent: Agent) {
    let world = World::of(agent);
    let id = world.boot();
    let input = vec![b'x'; 6 << 20];
    let output = world.exec(&id, CommandSpec::shell("head -c 3; exit 5"), &input).unwrap();
    assert_eq!((output.status, output.text().as_str()), (ExitStatus::Exited(5), "xxx"));
    // It ends while its input does not.
    let (sender, pieces) = mpsc::channel();
    let stdio = FakeStdio::new("").fed_by(pieces);
    let output = exec_on(&world.host(), &id, CommandSpec::shell("echo done"), stdio).unwrap();
    assert_eq!(output.text(), "done\n");
    drop(sender);
}

fn a_command_whose_output_nobody_takes_is_ended(agent: Agent) {
    let world = World::of(agent);
    let id = world.boot();
    let stdio = FakeStdio::new("").closed_after(10);
    let output = exec_on(&world.host(), &id, CommandSpec::shell("echo begin; sleep 1; exec yes"), stdio).unwrap();
    assert_eq!((output.status, output.text().as_str()), (ExitStatus::Exited(143), "begin\n"));
    assert_eq!(world.printed(&id, "ls -A /tmp | wc -l; ps -e | grep -c yes || true"), "1\n0\n");
}

fn a_command_that_cannot_be_waited_for_is_ended(agent: Agent) {
    let world = World::of(agent);
    let id = world.boot();
    world.fault(match agent {
        Agent::Pitcher => "shell/create=missing:shellId,skip=3",
        _ => "pint.execs.post=missing:id,skip=6",
    });
    let error = failure(world.exec(&id, CommandSpec::shell("echo $$ >~/pid; exec sleep 600"), b""));
    assert_eq!(error.code, "server");
    // It may have begun before it was given up. Then its guard ends it, and removes its folder.
    let gone = "while d=$(ls -A /tmp | grep -vF \"$MINE\"); [ -n \"$d\" ]; do sleep 0.1; done; \
                if [ -e ~/pid ] && kill -0 \"$(cat ~/pid)\"; then ps -ef; else echo gone; fi";
    let gone = format!("MINE=$(basename \"$(dirname \"$(readlink /proc/$$/fd/1)\")\"); {gone}");
    assert_eq!(world.printed(&id, &gone), "gone\n");
}

fn a_terminal_is_a_terminal(agent: Agent) {
    let world = World::of(agent);
    let id = world.boot();
    let (sender, pieces) = mpsc::channel();
    let stdio = Rc::new(FakeStdio::new("").with_terminal(91, 33).fed_by(pieces));
    let host = world.host();
    let seen = stdio.clone();
    let step = Cell::new(0);
    host.while_waiting(move || {
        let written = String::from_utf8_lossy(&seen.written()).into_owned();
        if step.get() == 0 && written.contains("33 91") {
            step.set(1);
            seen.resize(70, 20);
        } else if step.get() == 1 && written.contains("20 70") {
            step.set(2);
            sender.send("hé\r".as_bytes().to_vec()).unwrap();
        }
    });
    let script = "test -t 0 && test -t 1 && test -t 2 && echo tty; stty size; \
                  while [ \"$(stty size)\" = '33 91' ]; do sleep 0.05; done; stty size; \
                  read -r word; printf 'got<%s>' \"$word\"; pwd; exit 3";
    let spec = CommandSpec::argv("bash", ["-c", script]);
    let status = CodeSandbox.exec(host.provider(), &id, spec, stdio.handle()).unwrap();
    let written = String::from_utf8(stdio.written()).unwrap();
    assert_eq!(status, ExitStatus::Exited(3), "{written}");
    assert!(written.starts_with("tty\r\n33 91\r\n"), "{written:?}");
    assert!(written.ends_with("got<hé>/project/workspace\r\n"), "{written:?}");
    assert_eq!(stdio.written_to_error(), b"");
    assert_eq!(world.printed(&id, "ls -A /tmp | wc -l"), "1\n");
}

/// What a terminal shows is nowhere else: it goes on where the connection broke off, over another one.
#[test]
fn a_terminal_over_pint_goes_on_over_another_connection() {
    let world = World::of(Agent::PintAlone);
    let id = world.boot();
    for skip in 0..3 {
        // The stream ends behind what it said, and the next ones do not come about: not with this connection.
        world.fault(&format!("pint.execs.io.get=cut:1,skip={skip}"));
        world.fault(&format!("pint.execs.io.get=drop-before,skip={skip},times=4"));
        let stdio = Rc::new(FakeStdio::new("").with_terminal(80, 24));
        let spec = CommandSpec::shell("echo one; sleep 0.2; echo two; sleep 0.2; echo three; exit 3");
        let host = world.host();
        let status = CodeSandbox.exec(host.provider(), &id, spec, stdio.handle());
        world.fake.faults().clear();
        assert_eq!(status, Ok(ExitStatus::Exited(3)), "{skip}");
        let written = String::from_utf8(stdio.written()).unwrap();
        assert_eq!(written, "one\r\ntwo\r\nthree\r\n", "{skip}");
    }
}

fn an_interrupt_that_is_typed_ends_the_command(agent: Agent) {
    let world = World::of(agent);
    let id = world.boot();
    let (sender, pieces) = mpsc::channel();
    let stdio = Rc::new(FakeStdio::new("").with_terminal(80, 24).fed_by(pieces));
    let host = world.host();
    sender.send(b"go\r".to_vec()).unwrap();
    let (seen, typed) = (stdio.clone(), Cell::new(false));
    host.while_waiting(move || {
        // It answers, so it runs: an interrupt that comes while a shell is about to replace itself can be lost.
        if !typed.get() && seen.written().ends_with(b"go\r\ngo\r\n") {
            typed.set(true);
            sender.send(b"\x03".to_vec()).unwrap();
        }
    });
    let spec = CommandSpec::shell("exec cat");
    let status = CodeSandbox.exec(host.provider(), &id, spec, stdio.handle()).unwrap();
    assert_eq!(status, ExitStatus::Exited(130));
}

fn secrets_of_the_user_arrive_and_are_only_filled_on_the_way(agent: Agent) {
    let world = World::of(agent);
    let id = world.boot();
    let value = "v".repeat(300);
    let host = world.host().secret(SECRET, &value);
    let spec = CommandSpec::shell("printf %s \"$TOKEN\"; cat").with_env("TOKEN", SECRET);
    let output = exec_on(&host, &id, spec, FakeStdio::new(format!("<{SECRET}>"))).unwrap();
    assert_eq!(output.text(), format!("{value}<{value}>"));
    let content = format!("{}{SECRET}", "x".repeat(5 << 20));
    let options = pcoder_sdk::WriteOptions::plain().with_mode(0o600);
    CodeSandbox.write_file_atomic(host.provider(), &id, "~/s", content.as_bytes(), options).unwrap();
    let read = CodeSandbox.read_file(host.provider(), &id, "~/s").unwrap();
    assert!(read == content.replace(SECRET, &value).into_bytes());
    // A value that cannot stand for itself travels as base64.
    let host = world.host().secret(SECRET, "two\nlines' \"");
    let spec = CommandSpec::shell(format!("x=\"$({})\"; printf '<%s>' \"$x\"", pcoder_sdk::shell::print(SECRET)));
    assert_eq!(exec_on(&host, &id, spec, FakeStdio::new("")).unwrap().text(), "<two\nlines' \">");
}

#[test]
fn what_pint_answers_wrongly_is_an_error() {
    let world = World::of(Agent::PintAlone);
    let id = world.boot();
    for (fault, expected) in [
        ("pint.execs.post=403", "denied"),
        ("pint.execs.post=429,times=9", "rate-limited"),
        ("pint.execs.post=500", "server"),
        ("pint.execs.post=missing:id", "server"),
        ("pint.execs.post=truncated", "server"),
        ("pint.execs.io.get=404,times=9", "process"),
        ("pint.execs.io.get=cut:0,times=99", "unavailable"),
    ] {
        world.fault(fault);
        let error = world.exec(&id, CommandSpec::shell("echo x; exec sleep 1"), b"").expect_err(fault);
        assert_eq!((error.code.as_str(), error.operation.as_str()), (expected, "provider.exec"), "{fault}: {error:?}");
        world.fake.faults().clear();
    }
    let host = world.host().deny(&format!("http://{}/pint/", world.fake.agents_address()));
    let error = failure(exec_on(&host, &id, CommandSpec::shell("x"), FakeStdio::new("")));
    assert_eq!(error.code, "denied");
    assert!(error.hint.unwrap().contains("plugins.provider-codesandbox.pint"));
}

#[test]
fn messages_may_come_in_any_order() {
    let world = World::with(Options { shuffle_notifications: true, ..Options::default() });
    let id = world.boot();
    for turn in 0..10 {
        let spec = CommandSpec::shell(format!("cat; echo {turn}; echo err >&2; exit {turn}"));
        let output = world.exec(&id, spec, b"in\n").unwrap();
        assert_eq!(output.status, ExitStatus::Exited(turn));
        assert_eq!((output.text(), output.stderr), (format!("in\n{turn}\n"), b"err\n".to_vec()));
    }
}

fn a_connection_that_breaks_off_is_made_anew_and_a_command_runs_once(agent: Agent) {
    let world = World::of(agent);
    let id = world.boot();
    let methods: &[(&str, u32)] = match agent {
        Agent::Pitcher => &[
            ("client/join", 1),
            ("shell/create", 3),
            ("fs/writeFile", 3),
            ("fs/stat", 2),
            ("fs/readFile", 2),
            ("shell/terminate", 1),
        ],
        // Every command that a command takes, each with its input and its output.
        _ => &[("pint.execs.post", 14), ("pint.execs.io.post", 4), ("pint.execs.io.get", 10), ("pint.execs.delete", 3)],
    };
    for &(method, times) in methods {
        for skip in 0..times {
            for what in ["drop-before", "drop-after", if agent == Agent::Pitcher { "close:1011" } else { "cut:1" }] {
                world.fault(&format!("{method}={what},skip={skip}"));
                world.printed_or_cut(&id, method, what);
                world.fake.faults().clear();
                assert_eq!(world.printed(&id, "ls -A /tmp | wc -l"), "1\n", "{method} {skip} {what}");
            }
        }
    }
    // Its own, and no other. One that was killed dies when it comes to run again.
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let left = world.printed(&id, "ps -e | grep -c tail");
        if left == "2\n" {
            break;
        }
        assert!(Instant::now() < until, "{left} followers are left");
    }
    if agent != Agent::Pitcher {
        return;
    }
    for what in ["exit-before-reply", "out-after-exit", "late-reply", "slow:200"] {
        for skip in 0..3 {
            world.fault(&format!("shell/create={what},skip={skip}"));
            world.printed_or_cut(&id, "shell/create", what);
            world.fake.faults().clear();
        }
    }
}

impl World {
    /// Runs a command whose every run is counted.
    fn printed_or_cut(&self, id: &str, method: &str, what: &str) {
        let spec = CommandSpec::shell("echo x >>~/count; cat; echo out; echo err >&2; exit 6");
        let output = self.exec(id, spec, b"in\n").unwrap_or_else(|error| panic!("{method} {what}: {error:?}"));
        assert_eq!(output.status, ExitStatus::Exited(6), "{method} {what}");
        assert_eq!((output.text().as_str(), output.stderr.as_slice()), ("in\nout\n", &b"err\n"[..]), "{method} {what}");
        let host = self.host();
        assert_eq!(CodeSandbox.read_file(host.provider(), id, "~/count").unwrap(), b"x\n", "{method} {what}");
        CodeSandbox.delete_file(host.provider(), id, "~/count").unwrap();
    }
}

#[test]
fn what_the_agent_answers_wrongly_is_an_error() {
    let world = World::new();
    let id = world.boot();
    for (fault, expected) in [
        ("client/join=error:2", "denied"),
        ("shell/create=error:3", "rate-limited"),
        ("shell/create=error:200,skip=1", "denied"),
        ("shell/create=missing:shellId", "server"),
        ("shell/create=null:status,skip=1", "server"),
        ("shell/create=truncated,skip=2", "server"),
        ("fs/writeFile=error:102,errno=28", "io"),
        ("fs/stat=missing:size", "server"),
    ] {
        world.fault(fault);
        let error = world.exec(&id, CommandSpec::shell("echo x; exec sleep 1"), b"").expect_err(fault);
        assert_eq!((error.code.as_str(), error.operation.as_str()), (expected, "provider.exec"), "{fault}: {error:?}");
        world.fake.faults().clear();
    }
    world.fault("fs/readFile=null:content");
    let host = world.host();
    let captured = CodeSandbox.capture(host.provider(), &id, &CommandSpec::shell("echo x"), b"");
    assert_eq!(code(captured), "server");
    let host = world.host().allow("wss://elsewhere.example/");
    let error = failure(exec_on(&host, &id, CommandSpec::shell("x"), FakeStdio::new("")));
    assert_eq!(error.code, "denied");
    assert!(error.hint.unwrap().contains("plugins.provider-codesandbox.agent"));
}

fn a_sandbox_that_hibernates_meanwhile_is_told_and_not_woken(agent: Agent) {
    let world = World::of(agent);
    let id = world.boot();
    let host = world.host();
    let stdio = Rc::new(FakeStdio::new(""));
    let (seen, done) = (stdio.clone(), Cell::new(false));
    let (other, stopped) = (world.host(), id.clone());
    host.while_waiting(move || {
        if !done.get() && seen.written() == b"begun\n" {
            done.set(true);
            CodeSandbox.stop(other.provider(), &stopped).unwrap();
        }
    });
    let spec = CommandSpec::shell("echo begun; exec sleep 600");
    let error = failure(CodeSandbox.exec(host.provider(), &id, spec, stdio.handle()));
    assert_eq!(error.code, "unavailable", "{error:?}");
    assert!(error.hint.unwrap().contains("resume"));
    assert_eq!(world.fake.sandboxes(), [(id.clone(), false)]);
    // What needs it wakes it.
    assert_eq!(world.printed(&id, "echo up"), "up\n");
}

fn commands_run_side_by_side(agent: Agent) {
    let world = World::of(agent);
    let ids = [world.boot(), world.boot()];
    std::thread::scope(|scope| {
        for turn in 0..6 {
            let (world, id) = (&world, &ids[turn % 2]);
            scope.spawn(move || {
                for round in 0..2 {
                    let text = format!("{turn} {round} {}", "z".repeat(100_000));
                    let output =
                        world.exec(id, CommandSpec::shell("cat; cat >&2 <<E\nerr\nE"), text.as_bytes()).unwrap();
                    assert_eq!((output.text(), output.stderr), (text, b"err\n".to_vec()));
                }
            });
        }
    });
    for id in &ids {
        assert_eq!(world.printed(id, "ls -A /tmp | wc -l"), "1\n");
    }
    world.wait_until(|fake| fake.requests().iter().all(|request| request.status.is_some()));
    if agent == Agent::Pitcher {
        assert!(world.asked("client/join") >= 16);
    }
}

fn a_sandbox_does_not_hibernate_under_a_command(agent: Agent) {
    let world = World::of(agent);
    let host = world.host();
    let mut wanted = crate::world::options();
    wanted.options = vec![pcoder_sdk::Setting::new("hibernation-timeout-seconds", "12")];
    let id = CodeSandbox.boot(host.provider(), wanted).unwrap().id;
    assert_eq!(world.printed(&id, "sleep 16; echo awake"), "awake\n");
    if agent == Agent::Pitcher {
        assert!(world.asked("system/update") >= 1);
    }
    let starts = world.fake.requests().into_iter().filter(|request| request.operation == "vm.start");
    let asked: Vec<_> = starts.map(|start| start.body.unwrap().to_string()).collect();
    assert_eq!(asked, [r#"{"hibernation_timeout_seconds":12}"#, "{}"], "it was not started again");
}
