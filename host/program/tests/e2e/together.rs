//! Fifty processes at once that change profiles, settings, grants and engines, a tenth of them killed: every file stays
//! valid, and nothing is lost that was reported done.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::component::{PLAIN, named};
use crate::support::{World, finish};

const AT_ONCE: usize = 50;
const FOR: Duration = Duration::from_secs(60);

/// What was reported done, and must be there at the end.
#[derive(Default)]
struct Done {
    profiles: BTreeSet<String>,
    removed_profiles: BTreeSet<String>,
    secrets: BTreeSet<String>,
    plugins: BTreeSet<String>,
    removed_plugins: BTreeSet<String>,
    revoked: BTreeSet<String>,
    /// Killed before they said anything: either way is right.
    unsure: BTreeSet<String>,
}

fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_dir() {
            copied(&entry.path(), &to.join(entry.file_name()));
        } else if entry.file_name() != "stamps.json" {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
        }
    }
}

#[cfg(unix)]
#[test]
fn fifty_processes_at_once_lose_nothing_that_was_reported_done() {
    let world = World::without_engines();
    // The smallest engine, in a store of this world's own, and as a file to import.
    let engines = std::env::var_os("PCODER_TEST_ENGINES").map(PathBuf::from).expect("as every test needs it");
    copied(&engines.join("engines/codex-acp/2.6.0-any"), &world.path("pcoder/engines/codex-acp/2.6.0-any"));
    let export = world.path("export");
    let mut command = world.pcoder(&["engine", "export", "codex-acp", "--to"]);
    command.arg(&export);
    finish(command, "").printed();
    let components = world.path("components");
    std::fs::create_dir(&components).expect("a folder");

    let (number, done) = (AtomicU64::new(0), Mutex::new(Done::default()));
    let until = Instant::now() + FOR;
    std::thread::scope(|scope| {
        for worker in 0..AT_ONCE {
            let (world, number, done, components, export) = (&world, &number, &done, &components, &export);
            scope.spawn(move || {
                while Instant::now() < until {
                    one(world, number.fetch_add(1, Ordering::Relaxed), worker, components, export, done);
                }
            });
        }
    });
    let done = done.into_inner().expect("the list");
    let rounds = number.load(Ordering::Relaxed);
    assert!(rounds > 100 && done.profiles.len() > 5 && done.plugins.len() > 1, "it did something: {rounds}");

    // Every file is valid, and holds what was reported.
    let json = |args: &[&str]| {
        let outcome = finish(world.pcoder(&[args, &["--json"]].concat()), "");
        assert_eq!(outcome.code, Some(0), "{outcome:#?}");
        outcome.json()
    };
    let names = |list: &serde_json::Value, what: &str| -> BTreeSet<String> {
        let all = list[what].as_array().expect("a list").iter();
        all.map(|it| {
            assert!(it["problem"].is_null(), "{it}");
            it["name"].as_str().expect("a name").to_owned()
        })
        .collect()
    };
    let profiles = names(&json(&["profile", "list"]), "profiles");
    let missing: Vec<_> =
        done.profiles.difference(&done.removed_profiles).filter(|it| !profiles.contains(*it)).collect();
    let sure: Vec<_> = missing.iter().filter(|it| !done.unsure.contains(**it)).collect();
    assert!(sure.is_empty(), "profiles that were lost: {sure:?}");
    assert!(done.removed_profiles.iter().all(|it| !profiles.contains(it)), "profiles that came back");

    let settings = json(&["config"]);
    let set: BTreeSet<String> = settings["settings"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| it["name"].as_str().expect("a name").to_owned())
        .collect();
    let lost: Vec<_> = done.secrets.iter().filter(|it| !set.contains(*it)).collect();
    assert!(lost.is_empty(), "settings that were lost: {lost:?}");

    let list = json(&["plugin", "list"]);
    let plugins = names(&list, "plugins");
    let lost: Vec<_> = done
        .plugins
        .difference(&done.removed_plugins)
        .filter(|it| !plugins.contains(*it) && !done.unsure.contains(*it))
        .collect();
    assert!(lost.is_empty(), "plugins that were lost: {lost:?}");
    let back = done.removed_plugins.iter().filter(|it| plugins.contains(*it) && !done.unsure.contains(*it));
    assert_eq!(back.count(), 0, "plugins that came back");
    for name in done.revoked.iter().filter(|it| plugins.contains(*it) && !done.unsure.contains(*it)) {
        let granted = json(&["plugin", "inspect", name]);
        assert!(granted["granted"]["exec"].is_null(), "a grant came back: {granted}");
    }

    // Engines: whole, or gone and importable again.
    let mut import = world.pcoder(&["engine", "import"]);
    import.arg(&export);
    finish(import, "").printed();
    assert_eq!(finish(world.pcoder(&["engine", "verify", "codex-acp"]), "").code, Some(0));
    let verified = finish(world.pcoder(&["audit", "verify"]), "");
    assert_eq!(verified.code, Some(0), "{verified:#?}");
    let litter: Vec<PathBuf> = std::fs::read_dir(world.path("pcoder/profiles"))
        .expect("a folder")
        .map(|it| it.expect("an entry").path())
        .filter(|it| it.extension().is_some_and(|it| it == "toml"))
        .filter(|it| std::fs::read_to_string(it).is_ok_and(|text| !text.contains("version = 1")))
        .collect();
    assert!(litter.is_empty(), "{litter:?}");
}

/// One command, which every tenth time is killed at some moment.
fn one(world: &World, number: u64, worker: usize, components: &Path, export: &Path, done: &Mutex<Done>) {
    let (profile, secret) = (format!("p{number}"), format!("secrets.S{number}"));
    let plugin = format!("provider-w{worker}");
    let file = components.join(format!("{plugin}.wasm"));
    let file_text = file.display().to_string();
    let export = export.display().to_string();
    let last = done.lock().expect("the list").profiles.iter().next_back().cloned().unwrap_or_default();
    let args: Vec<&str> = match number % 8 {
        0 | 1 => vec!["profile", "create", &profile, "--tool", "claude", "--use"],
        2 | 3 => vec!["config", "set", &secret, "env:NAME"],
        4 => {
            named(components, &format!("{plugin}.wasm"), &plugin, &format!("1.0.{number}"), PLAIN);
            vec!["plugin", "add", &file_text, "--yes"]
        }
        5 => vec!["plugin", "revoke", &plugin, "exec"],
        6 => vec![
            "engine",
            if number % 16 == 6 { "remove" } else { "import" },
            if number % 16 == 6 { "codex-acp" } else { &export },
        ],
        _ if number.is_multiple_of(3) => vec!["plugin", "remove", &plugin],
        _ => vec!["profile", "remove", &last],
    };
    let mut command = world.pcoder(&args);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("pcoder starts");
    // Whole groups of eight, so that every kind of command is among them.
    let killed = number / 8 % 10 == 9;
    if killed {
        // Some moment: how far it is by then, the machine decides.
        std::thread::sleep(Duration::from_micros(number * 7919 % 40_000));
        drop(child.kill());
    }
    let output = child.wait_with_output().expect("pcoder ends");
    let ok = output.status.success();
    let mut done = done.lock().expect("the list");
    // What the command is about can have been done before it was killed.
    let subject = match number % 8 {
        0 | 1 => profile.clone(),
        4 | 5 => plugin.clone(),
        7 if number.is_multiple_of(3) => plugin.clone(),
        7 => last.clone(),
        _ => secret.clone(),
    };
    if killed && !ok {
        done.unsure.insert(subject);
        return;
    }
    if !ok {
        // Two can want the same; what must not be is a crash or a damaged file.
        let words = String::from_utf8_lossy(&output.stderr);
        let expected = [
            "there is no plugin",
            "there is no profile",
            "another pcoder",
            "in use",
            "not installed",
            "was locked",
            "is no name",
        ];
        assert!(expected.iter().any(|it| words.contains(it)), "{args:?}: {words}");
        return;
    }
    match number % 8 {
        0 | 1 => drop(done.profiles.insert(profile)),
        2 | 3 => drop(done.secrets.insert(secret)),
        4 => {
            done.removed_plugins.remove(&plugin);
            done.revoked.remove(&plugin);
            done.plugins.insert(plugin);
        }
        5 => drop(done.revoked.insert(plugin)),
        7 if number.is_multiple_of(3) => {
            done.revoked.remove(&plugin);
            done.removed_plugins.insert(plugin);
        }
        7 => drop(done.removed_profiles.insert(last)),
        _ => {}
    }
}
