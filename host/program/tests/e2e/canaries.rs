//! No secret value is anywhere that it does not belong: not in a file, a log, an error, an event, the audit or another
//! process's arguments, whatever source it came from.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::component::third_party;
use crate::support::{Outcome, World, finish};

/// Each is as no other text here is.
const ENVIRONMENT: &str = "canary-1-environment-Zq7";
const FILE: &str = "canary-2-file-Xw4";
const COMMAND: &str = "canary-3-command-Vt9";
const KEYRING: &str = "canary-4-keyring-Lm2";
const ALL: [&str; 4] = [ENVIRONMENT, FILE, COMMAND, KEYRING];

fn assert_clean(what: &str, text: &[u8]) {
    for canary in ALL {
        assert!(!text.windows(canary.len()).any(|it| it == canary.as_bytes()), "{canary} is in {what}");
    }
}

fn assert_folder_clean(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.symlink_metadata().expect("an entry").file_type() {
            kind if kind.is_dir() => assert_folder_clean(&path),
            kind if kind.is_file() => assert_clean(&path.display().to_string(), &std::fs::read(&path).expect("a file")),
            _ => {}
        }
    }
}

/// Reads the arguments of every process of this world again and again while something runs.
struct Watch {
    ended: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<String>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Watch {
    fn start() -> Self {
        let (ended, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (until, into) = (Arc::clone(&ended), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                let Ok(entries) = std::fs::read_dir("/proc") else { return };
                for entry in entries.filter_map(Result::ok) {
                    if let Ok(words) = std::fs::read(entry.path().join("cmdline"))
                        && ALL.iter().any(|it| words.windows(it.len()).any(|found| found == it.as_bytes()))
                    {
                        into.lock().expect("a list").push(String::from_utf8_lossy(&words).replace('\0', " "));
                    }
                }
                std::thread::yield_now();
            }
        });
        Self { ended, seen, thread }
    }

    fn finish(self) -> Vec<String> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("a watch");
        self.seen.lock().expect("a list").clone()
    }
}

fn clean(what: &str, outcome: &Outcome) {
    assert_clean(&format!("the output of {what}"), outcome.stdout.as_bytes());
    assert_clean(&format!("the errors of {what}"), outcome.stderr.as_bytes());
}

/// With a keyring that is really there, when it can be.
fn keyring() -> Option<Keyring> {
    Keyring::start()
}

#[cfg(target_os = "linux")]
#[test]
fn no_secret_is_anywhere_that_it_does_not_belong() {
    let world = World::new();
    std::fs::write(world.path("key.txt"), FILE).expect("a secret");
    // The value is in a file that the command reads, not in the reference.
    std::fs::write(world.path("said.txt"), COMMAND).expect("a secret");
    let keyring = keyring();
    let file = format!("file:{}", world.path("key.txt").display());
    let said = format!("command:cat {}", world.path("said.txt").display());
    let mut sources = vec![("env:CANARY", ENVIRONMENT), (file.as_str(), FILE), (said.as_str(), COMMAND)];
    let with = |args: &[&str]| {
        let mut command = world.pcoder(&[&["-vvv"], args].concat());
        command.env("CANARY", ENVIRONMENT);
        if let Some(keyring) = &keyring {
            command.envs(keyring.environment());
        }
        command
    };
    if keyring.is_some() {
        let stored = finish(with(&["secret", "set", "canary"]), KEYRING);
        assert_eq!(stored.code, Some(0), "{stored:#?}");
        clean("secret set", &stored);
        sources.push(("keyring:canary", KEYRING));
    }

    let watch = Watch::start();
    let endpoint = world.server().anthropic_url();
    for (number, (reference, value)) in sources.iter().enumerate() {
        let profile = format!("p{number}");
        let make = ["profile", "create", &profile, "--tool", "claude", "--key", reference, "--endpoint", &endpoint];
        clean("profile create", &finish(with(&[&make[..], &["--env", &format!("MORE={reference}")]].concat()), ""));
        clean("secret check", &finish(with(&["secret", "check", reference]), ""));
        // It arrives where it belongs.
        let prompt = format!("@say used {number}");
        let used = finish(with(&["run", "claude", "--profile", &profile, "--", "-p"]), &prompt);
        assert_eq!(used.printed().trim(), format!("used {number}"));
        clean("run", &used);
        let requests = world.server().requests();
        let request = requests.iter().find(|it| it.prompt.contains(&format!("used {number}"))).expect("it was asked");
        assert!(request.credentials.are(value), "{reference}");
        clean("run --json", &finish(with(&["run", "claude", "--json", "--profile", &profile, "--", "-p"]), "@say x"));
        clean("auth login", &finish(with(&["auth", "login", "claude", "--api-key", reference]), ""));
        clean("auth status", &finish(with(&["auth", "status", "claude", "--json"]), ""));
        clean("doctor", &finish(with(&["doctor", "--json"]), ""));

        // A plugin names it, and it is denied, and fails, with the value issued.
        let wide = "[[exec]]\nprogram = \"as called\"\n[[files]]\nroot = \"state\"\naccess = \"read-write\"\n\
                    [[net]]\nurl = \"http://127.0.0.1:9/v1\"\nmethods = [\"GET\"]\naddresses = [\"loopback\"]\n\
                    [[secrets]]\nname = \"THIRDPARTY_KEY\"\nto = [\"http://127.0.0.1:9/v1\"]\n";
        third_party(&world.path("project"), "it.wasm", &format!("1.0.{number}"), wide);
        clean("plugin add", &finish(with(&["plugin", "add", "it.wasm", "--yes"]), ""));
        clean("config set", &finish(with(&["config", "set", "secrets.THIRDPARTY_KEY", reference]), ""));
        let asks = format!("asks{number}");
        let url = "THIRDPARTY_URL=value:http://127.0.0.1:9/v1";
        let make = ["profile", "create", &asks, "--tool", "claude", "--provider", "thirdparty", "--env", url];
        clean("profile create", &finish(with(&make), ""));
        let failed = finish(with(&["run", "claude", "--profile", &asks, "--", "-p"]), "@say never");
        assert_ne!(failed.code, Some(0), "nobody listens there: {failed:#?}");
        clean("a run that fails", &failed);
    }
    // References that lead nowhere, or are no references but the secret itself.
    for pasted in ALL {
        for args in [
            ["auth", "login", "claude", "--api-key", pasted],
            ["profile", "create", "x", "--tool=claude", &format!("--key={pasted}")],
            ["config", "set", "secrets.X", pasted, "--json"],
        ] {
            let outcome = finish(with(&args), "");
            assert_ne!(outcome.code, Some(0), "{args:?}");
            clean("a pasted key", &outcome);
        }
    }
    clean("audit show", &finish(with(&["audit", "show", "--all", "--json"]), ""));
    clean("config", &finish(with(&["config", "--json"]), ""));
    // What was typed above stands in pcoder's own arguments; in no other process's.
    let seen: Vec<String> = watch.finish().into_iter().filter(|it| !it.contains("/pcoder ")).collect();
    assert!(seen.is_empty(), "{seen:#?}");
    assert_folder_clean(&world.path("pcoder"));
    assert_folder_clean(&world.path("tmp"));
}

/// GNOME's keyring on a bus of its own.
pub(crate) struct Keyring {
    address: String,
    folder: tempfile::TempDir,
    bus: std::process::Child,
}

impl Keyring {
    pub(crate) fn start() -> Option<Self> {
        use std::io::{BufRead as _, BufReader, Write as _};
        use std::process::{Command, Stdio};
        let folder = tempfile::tempdir().expect("a folder");
        let started = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address=1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut bus) = started else { return Self::missing("dbus-daemon") };
        let mut address = String::new();
        BufReader::new(bus.stdout.take().expect("a pipe")).read_line(&mut address).expect("an address");
        let this = Self { address: address.trim().to_owned(), folder, bus };
        let daemon = Command::new("gnome-keyring-daemon")
            .args(["--unlock", "--components=secrets"])
            .envs(this.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut daemon) = daemon else { return Self::missing("gnome-keyring-daemon") };
        daemon.stdin.take().expect("a pipe").write_all(b"pw").expect("a password");
        // It goes on in the background, and its parent ends when the keyring is open.
        assert!(daemon.wait().expect("a child").success(), "the keyring did not open");
        Some(this)
    }

    fn missing(program: &str) -> Option<Self> {
        assert!(std::env::var_os("CI").is_none(), "`{program}` does not run; `cargo xtask test` installs it");
        eprintln!("notice: without the keyring, because `{program}` does not run here");
        None
    }

    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let folder = self.folder.path().display().to_string();
        vec![
            ("DBUS_SESSION_BUS_ADDRESS", self.address.clone()),
            ("XDG_RUNTIME_DIR", folder.clone()),
            ("XDG_DATA_HOME", folder),
        ]
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        // Its services end with the bus.
        drop(self.bus.kill());
        drop(self.bus.wait());
    }
}
