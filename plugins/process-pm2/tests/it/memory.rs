//! What needs more memory than it may is started again.

use std::fs;

use pcoder_sdk::{CommandSpec, ProcessInfo, ProcessManager as _, ProcessSpec, Restart, RestartLimits};
use process_pm2::Pm2;

use crate::machine::{Home, Machine, until};

/// Much more than Node.js needs, and much less than the program takes.
const LIMIT: u64 = 150_000_000;

/// Is small, until a file says that it is to grow; the file is gone then, so that the next one is small.
const GROWS: &str = "
    console.log('small ' + process.env.VALUE);
    let held;
    setInterval(() => {
        if (!held && fs.existsSync(process.argv[1])) {
            fs.unlinkSync(process.argv[1]);
            held = Buffer.alloc(400e6, 1);
        }
    }, 20);
";

/// The first look at which it was started again so often, and runs.
fn started_again(machine: &Machine<'_>, name: &str, times: u32) -> ProcessInfo {
    until(&format!("{name} is started again"), || {
        let info = machine.info(name);
        (info.restarts == Some(times) && info.status == "online" && info.pid.is_some()).then_some(info)
    })
}

#[test]
fn a_process_that_needs_too_much_memory_is_started_again_however_it_is_to_be_otherwise() {
    let Some(home) = Home::new() else { return };
    // The daemon looks every half a minute; who starts it may say otherwise, and pcoder does not.
    home.pm2_with(&[("PM2_WORKER_INTERVAL", "300")], &["ping", "-s"]);
    let machine = home.machine();
    let never_again = Restart::OnExit(RestartLimits { max_restarts: Some(0), min_uptime_ms: None });
    let exits = "process.on('SIGINT', () => process.exit(7));";
    // To PM2 an end by its own signal is a success, and that is not believed.
    for (name, restart, script, code) in [
        ("once", Restart::Never, GROWS.to_owned(), None),
        ("limited", never_again, GROWS.to_owned(), None),
        ("polite", Restart::Never, format!("{exits}{GROWS}"), Some(7)),
    ] {
        let file = home.path(&format!("grow-{name}"));
        let command = CommandSpec::argv("node", ["-e", &script, file.to_str().unwrap()]);
        let command = command.with_env("VALUE", "it's the same\n").named(name);
        let spec = ProcessSpec { restart, max_memory: Some(LIMIT), ..ProcessSpec::once(command) };
        let mut before = Pm2.start(machine.host(), spec).unwrap();
        assert_eq!((before.status.as_str(), before.restarts, before.exit_code), ("online", Some(0), None), "{name}");
        let said = "small it's the same\n\n";
        // Twice, because what was started again is bounded too.
        for times in 1..=2 {
            until("it runs", || (machine.out(name) == said.repeat(times as usize)).then_some(()));
            assert_eq!(machine.info(name).restarts, Some(times - 1), "{name} is small enough");
            fs::write(&file, "").unwrap();
            let info = started_again(&machine, name, times);
            assert!(info.pid != before.pid && info.started_ms > before.started_ms, "{name}: {before:?}, {info:?}");
            assert_eq!(info.exit_code, code, "{name}");
            assert!(!fs::exists(format!("/proc/{}", before.pid.unwrap())).unwrap(), "{name}: the one before is gone");
            before = info;
        }
        until("it runs", || (machine.out(name) == said.repeat(3)).then_some(()));
        // This is how it is found should the daemon die.
        let run = fs::read_dir(home.path(".pm2/pcoder/run")).unwrap().next().unwrap().unwrap().path();
        let mut files = fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().path());
        let file = files.find(|file| file.file_stem().is_some_and(|stem| stem == "pid")).unwrap();
        let pid = fs::read_to_string(file).unwrap();
        assert!(pid.starts_with(&format!("{} ", before.pid.unwrap())), "{name}: {pid}");

        Pm2.stop(machine.host(), name).unwrap();
        let info = machine.info(name);
        assert_eq!((info.status.as_str(), info.pid, info.restarts), ("stopped", None, Some(2)), "{name}");
        Pm2.delete(machine.host(), name).unwrap();
        assert_eq!(fs::read_dir(home.path(".pm2/pcoder/run")).unwrap().count(), 0);
    }
}
