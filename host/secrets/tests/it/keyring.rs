//! A real keyring, in a session of its own: GNOME Keyring on a D-Bus that nothing else speaks on, with its files in a
//! folder of the test. Which bus is asked is said by the environment, so each test is this binary again as another
//! process: it is started with the one test below, which does as its environment tells, and otherwise passes.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use pcoder_secrets::{Error, keyring_has, keyring_remove, keyring_set};
use secrecy::SecretString;

use crate::{error, resolver, value, wrong};

const TOLD: &str = "PCODER_SECRETS_TEST_CHILD";
const CANARY: &str = "sk-canary-7f3a9c";
const NAME: &str = "box.example/token é";

#[tokio::test]
async fn asks_the_keyring_when_told() {
    let Some(told) = std::env::var_os(TOLD) else { return };
    let folder = PathBuf::from(std::env::var_os("HOME").unwrap());
    match told.to_str().unwrap() {
        "all" => stores_reads_and_removes(&folder).await,
        "unreachable" => is_unreachable(&folder).await,
        "silent" => is_silent(&folder).await,
        other => panic!("told {other}"),
    }
    println!("done: {}", told.display());
}

async fn stores_reads_and_removes(folder: &Path) {
    let resolver = resolver(folder, &[]);
    let entry = format!("keyring:{NAME}");
    assert!(!keyring_has(NAME).await.unwrap());
    assert!(!keyring_remove(NAME).await.unwrap());
    assert_eq!(wrong(&resolver, &entry).await, format!("{entry}: the system's keyring has no such entry"));
    let hint = error(&resolver, &entry).await.hint();
    assert_eq!(hint, format!("store it in the keyring: service `pcoder`, user `{NAME}`"));

    keyring_set(NAME, SecretString::from("the first")).await.unwrap();
    keyring_set("other", SecretString::from("another")).await.unwrap();
    assert_eq!(value(&resolver, &entry).await, "the first");
    keyring_set(NAME, SecretString::from(CANARY)).await.unwrap();
    assert_eq!(value(&resolver, &entry).await, CANARY);
    assert!(keyring_has(NAME).await.unwrap());
    let files = files(folder);
    assert!(files.iter().any(|it| it.extension().is_some_and(|it| it == "keyring")), "{files:?}");
    for file in files {
        let content = fs::read(&file).unwrap_or_default();
        let found = content.windows(CANARY.len()).any(|it| it == CANARY.as_bytes());
        assert!(!found, "the value is in {}", file.display());
    }

    assert!(keyring_remove(NAME).await.unwrap());
    assert!(!keyring_remove(NAME).await.unwrap());
    assert!(!keyring_has(NAME).await.unwrap());
    assert!(matches!(error(&resolver, &entry).await, Error::NoEntry { .. }));
    assert_eq!(value(&resolver, "keyring:other").await, "another");

    assert!(matches!(keyring_set("", SecretString::from("x")).await, Err(Error::Malformed { .. })));
    assert!(matches!(keyring_set("x", SecretString::from("")).await, Err(Error::Empty { .. })));
    assert!(matches!(keyring_set("x", SecretString::from("a\0")).await, Err(Error::Nul { .. })));
}

async fn is_unreachable(folder: &Path) {
    let resolver = resolver(folder, &[]);
    let started = Instant::now();
    let text = wrong(&resolver, "keyring:x").await;
    assert!(text.starts_with("keyring:x: the system's keyring cannot be reached: "), "{text}");
    let error = error(&resolver, "keyring:x").await;
    assert!(error.hint().contains("start a Secret Service in your session"), "{}", error.hint());
    assert!(matches!(keyring_has("x").await, Err(Error::NoKeyring { .. })));
    assert!(matches!(keyring_remove("x").await, Err(Error::NoKeyring { .. })));
    assert!(matches!(keyring_set("x", SecretString::from(CANARY)).await, Err(Error::NoKeyring { .. })));
    assert!(started.elapsed() < Duration::from_secs(8));
}

async fn is_silent(folder: &Path) {
    let mut resolver = resolver(folder, &[]);
    resolver.keyring_deadline = Duration::from_millis(300);
    assert_eq!(wrong(&resolver, "keyring:x").await, "keyring:x: the system's keyring did not answer within 0.3 s");
}

/// Has the one test above do something, in a program that gets nothing of this process's environment.
fn child(mut program: Command, told: &str, home: &Path, address: Option<&str>) {
    program.env_clear().env("PATH", "/usr/bin:/bin").env(TOLD, told).env("LC_ALL", "C.UTF-8");
    for variable in ["HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
        program.env(variable, home);
    }
    program.envs(address.map(|it| ("DBUS_SESSION_BUS_ADDRESS", it)));
    let Output { status, stdout, stderr } = program.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success() && stdout.contains(&format!("done: {told}")), "{status}\n{stdout}\n{stderr}");
    assert!(!stderr.contains(CANARY) && !stdout.contains(CANARY), "{stdout}\n{stderr}");
}

const THIS_TEST: [&str; 3] = ["--exact", "keyring::asks_the_keyring_when_told", "--nocapture"];

fn this_test() -> Command {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(THIS_TEST);
    program
}

#[test]
fn a_value_is_stored_read_and_removed_and_is_nowhere_in_plain() {
    let there = |name: &str| ["/usr/bin", "/bin"].iter().any(|it| Path::new(it).join(name).exists());
    if !there("gnome-keyring-daemon") || !there("dbus-run-session") {
        assert!(std::env::var_os("CI").is_none(), "the packages `gnome-keyring` and `dbus` are needed");
        println!("left out: it needs the packages `gnome-keyring` and `dbus`");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut session = Command::new("dbus-run-session");
    session.args(["--", "sh", "-c"]);
    session.arg("printf pw | gnome-keyring-daemon --unlock --components=secrets >&2 && exec \"$@\"");
    session.arg("sh").arg(std::env::current_exe().unwrap()).args(THIS_TEST);
    child(session, "all", home.path(), None);
}

#[test]
fn without_a_keyring_it_says_so_at_once() {
    let home = tempfile::tempdir().unwrap();
    let nowhere = format!("unix:path={}/nothing", home.path().display());
    child(this_test(), "unreachable", home.path(), Some(&nowhere));
    // A bus on which nobody speaks for a keyring is tried too, where there is one.
    if Path::new("/usr/bin/dbus-run-session").exists() {
        // Without the files that say who could be started.
        let config = home.path().join("bus.conf");
        let text = "<busconfig><type>session</type><listen>unix:tmpdir=/tmp</listen><policy context=\"default\">\
                    <allow send_destination=\"*\"/><allow own=\"*\"/><allow receive_sender=\"*\"/></policy></busconfig>";
        fs::write(&config, text).unwrap();
        let mut session = Command::new("dbus-run-session");
        session.arg("--config-file").arg(&config).arg("--").arg(std::env::current_exe().unwrap()).args(THIS_TEST);
        child(session, "unreachable", home.path(), None);
    }
}

#[test]
fn a_bus_that_never_answers_is_given_up_at_the_deadline() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("bus");
    let _nobody_accepts = UnixListener::bind(&path).unwrap();
    child(this_test(), "silent", home.path(), Some(&format!("unix:path={}", path.display())));
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|it| it.unwrap());
    let each = |it: fs::DirEntry| match it.file_type().unwrap() {
        kind if kind.is_dir() => files(&it.path()),
        kind if kind.is_file() => vec![it.path()],
        _ => Vec::new(),
    };
    entries.flat_map(each).collect()
}
