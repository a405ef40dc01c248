//! Where a process's variables are, and where they are not.

use std::fs;
use std::path::Path;

use pcoder_sdk::{CommandSpec, ProcessManager as _};
use process_pm2::Pm2;

use crate::machine::{Home, PLACEHOLDER, SECRET, mode, until};

/// Every file below a folder that holds a text.
fn holding(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(holding(&entry.path(), text));
        } else if kind.is_file() && String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).contains(text) {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found
}

#[test]
fn a_secret_reaches_the_process_and_nobody_else() {
    let Some(home) = Home::new() else { return };
    // The instance's own variables may be secrets too.
    let machine = home.machine().with_env("INSTANCE_TOKEN", "hunter2-of-the-instance").with_env("name", "it's");
    let script = "printf '%s|%s|%s|%s' \"$TOKEN\" \"$INSTANCE_TOKEN\" \"$name\" \"${pm_id-none}\"; sleep 1000";
    let command = CommandSpec::shell(script).with_env("TOKEN", PLACEHOLDER).with_env("EMPTY", "");
    machine.start("secret", command).unwrap();
    let expected = format!("{SECRET}|hunter2-of-the-instance|it's|none");
    until("it has it", || (machine.out("secret") == expected).then_some(()));

    home.pm2(&["save", "-s"]);
    assert!(home.path(".pm2/dump.pm2").exists());
    assert_eq!(Home::processes("hunter2"), []);
    for shown in [home.pm2(&["jlist", "-s"]), home.pm2(&["describe", "secret"]), home.pm2(&["env", "0"])] {
        assert!(shown.contains("secret") || shown.contains("PM2_HOME"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert!(!format!("{:?}", machine.info("secret")).contains("hunter2"));
    let mut files = holding(&home.path(".pm2"), "hunter2");
    files.sort();
    assert_eq!(files, ["base", "environment", "out.log"], "ours, and what the process wrote itself");

    let run = fs::read_dir(home.path(".pm2/pcoder/run")).unwrap().next().unwrap().unwrap().path();
    assert_eq!((mode(&run), mode(&run.join("environment")), mode(&run.join("base"))), (0o700, 0o600, 0o600));
    // Started again by PM2, it has them still.
    home.pm2(&["restart", "secret", "-s"]);
    until("again", || (machine.out("secret") == expected.repeat(2)).then_some(()));
    Pm2.delete(machine.host(), "secret").unwrap();
    home.pm2(&["save", "--force", "-s"]);
    assert_eq!(holding(&home.path(".pm2"), "hunter2"), Vec::<String>::new());
    assert!(!Path::new("/tmp/pwned").exists());
}

#[test]
fn a_process_has_the_instances_environment_and_its_own() {
    for home in Home::of_each_shell() {
        the_environment_is_whole(&home);
    }
}

fn the_environment_is_whole(home: &Home) {
    let machine = home.machine().with_env("KEPT", "a\nb 'c' \"$d\"").with_env("CHANGED", "old").with_env("run", "mine");
    let folder = home.path("it's a $(folder)");
    fs::create_dir(&folder).unwrap();
    let command = CommandSpec::argv("env", ["-0"])
        .in_dir("~/it's a $(folder)")
        .with_env("CHANGED", "new")
        .with_env("TWICE", "1")
        .with_env("TWICE", "2")
        .with_env("HOSTILE", "\n'\"`id`$(id)\\ \r\u{1}\u{7f}é日\u{81}\n\n")
        .with_env("HOME", "/elsewhere")
        .with_path_entry("/first entry");
    machine.start("env", command).unwrap();
    machine.until_status("env", "finished");
    let out = machine.out("env");
    let variables: Vec<(&str, &str)> = out.split_terminator('\0').map(|line| line.split_once('=').unwrap()).collect();
    let value = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    assert_eq!(value("KEPT"), Some("a\nb 'c' \"$d\""));
    assert_eq!(value("CHANGED"), Some("new"));
    assert_eq!(value("TWICE"), Some("2"));
    assert_eq!(value("HOSTILE"), Some("\n'\"`id`$(id)\\ \r\u{1}\u{7f}é日\u{81}\n\n"));
    assert_eq!(value("HOME"), Some("/elsewhere"));
    assert_eq!(value("run"), Some("mine"));
    assert!(value("PATH").unwrap().starts_with("/first entry:"));
    assert_eq!(value("PWD"), folder.to_str());
    for pm2s in ["pm_id", "NODE_CHANNEL_FD", "PM2_HOME", "PCODER_PM2_RUN", "name", "args", "_pcoder_name"] {
        assert_eq!(value(pm2s), None, "{pm2s}");
    }
}
