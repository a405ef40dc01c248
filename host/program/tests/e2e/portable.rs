//! Portable folders: made, moved, run by somebody else, compared.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Outcome, World, finish, start, wait};
use crate::trace::{self, Written};

/// Somebody else, whom every system knows.
const NOBODY: u32 = 65534;

fn export(world: &World, folder: &Path, more: &[&str]) -> Outcome {
    finish(export_command(world, folder, more), "")
}

fn export_command(world: &World, folder: &Path, more: &[&str]) -> Command {
    let mut command = world.pcoder(&["bundle", "export"]);
    command.arg(folder).args(more);
    command
}

/// The problems that are found, as path and words.
fn problems(world: &World, folder: &Path) -> Vec<(String, String)> {
    let mut command = world.pcoder(&["bundle", "verify", "--json"]);
    command.arg(folder);
    let outcome = finish(command, "");
    let report = outcome.json();
    let problems: Vec<_> = report["problems"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| ["path", "problem"].map(|name| it[name].as_str().expect("a text").to_owned()).into())
        .collect();
    assert_eq!(outcome.code, Some(if problems.is_empty() { 0 } else { 5 }), "{outcome:#?}");
    assert_eq!(report["whole"], problems.is_empty());
    problems
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries.map(|it| it.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

fn platform(folder: &Path) -> String {
    let manifest = std::fs::read_to_string(folder.join("bundle.json")).expect("a list");
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    manifest["platform"].as_str().expect("a platform").to_owned()
}

/// A folder that others can reach, on a disk: the one for the tests' files is in a home where continuous integration
/// runs.
fn common_ground() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let open =
        |path: &Path| path.ancestors().all(|it| it.metadata().is_ok_and(|data| data.permissions().mode() & 0o001 != 0));
    let places = [env!("CARGO_TARGET_TMPDIR"), "/var/tmp", "/tmp"].map(PathBuf::from);
    let place = places.into_iter().find(|it| open(it)).expect("a place that is everybody's");
    let folder = tempfile::Builder::new().prefix("e2e-portable-").tempdir_in(place).expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("a mode");
    folder
}

fn succeeds(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

fn give(folder: &Path, user: u32) {
    let owner = format!("{user}:{user}");
    assert!(succeeds("chown", &["-R", &owner, folder.to_str().expect("a path")]), "it is root's to give");
}

/// What a traced run may write to outside of its folder: devices, which are no files on a disk, and what the kernel
/// keeps of processes.
fn is_no_file(path: &Path) -> bool {
    const DEVICES: [&str; 8] = [
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/tty",
        "/dev/ptmx",
        "/dev/random",
        "/dev/urandom",
        "/dev/pts/ptmx",
    ];
    let in_pts =
        path.strip_prefix("/dev/pts").is_ok_and(|rest| rest.to_str().is_some_and(|it| it.parse::<u32>().is_ok()));
    DEVICES.iter().any(|device| path == Path::new(device))
        || in_pts
        || path.starts_with("/proc")
        // Memory that has a name for `ls` and none for anybody who opens it.
        || path.to_str().is_some_and(|it| it.starts_with("/memfd:"))
}

/// What a portable folder promises: moved, somebody else's, offline, and nothing is written but in it.
#[test]
fn a_folder_that_was_moved_runs_offline_for_somebody_else_and_writes_nowhere_else() {
    let world = World::new();
    let ground = common_ground();
    let made = ground.path().join("made here");
    let exported = export(&world, &made, &["--json"]).printed().to_owned();
    let exported: Value = serde_json::from_str(&exported).expect("JSON");
    assert!(exported["engines"].as_array().is_some_and(|it| it.len() >= 5), "{exported}");
    let bundle = ground.path().join("moved to a st\u{ef}ck's \u{e9} folder");
    std::fs::rename(&made, &bundle).expect("moved");
    let home = ground.path().join("a home");
    let traces = ground.path().join("traces");
    for folder in [&home, &traces] {
        std::fs::create_dir(folder).expect("a folder");
    }

    let root = rustix::process::geteuid().is_root();
    let mut words: Vec<String> = Vec::new();
    let mut add = |more: &[&str]| words.extend(more.iter().map(|&it| it.to_owned()));
    let namespace: &[&str] = if root { &["-n"] } else { &["-rn"] };
    if succeeds("unshare", &[namespace, &["ip", "link", "set", "lo", "up"]].concat()) {
        add(&["unshare"]);
        add(namespace);
        add(&["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
    } else {
        eprintln!("notice: not offline, because `unshare` and `ip` do not work here (no namespaces?)");
    }
    let into = traces.join("t");
    add(&["strace", "-f", "-ff", "-y", "-qq", "--seccomp-bpf", "--decode-pids=pidns", "-ttt"]);
    add(&["-e", trace::CALLS, "-e", trace::NO_RING, "-o", into.to_str().expect("a path")]);
    if root {
        let user = NOBODY.to_string();
        add(&["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups", "--"]);
        give(&bundle, NOBODY);
        give(&home, NOBODY);
    } else {
        eprintln!("notice: the same user runs it, because only root can become another one");
    }
    add(&[bundle.join("pcoder").to_str().expect("a path"), "demo", "--json"]);
    // Where nobody has namespaces, Codex' folder in `/tmp` is made; then the other agent is looked at alone.
    let both = crate::private_tmp::possible(&world);
    add(if both { &[] } else { &["claude"] });
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env_clear().current_dir("/");
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LANG", "C.UTF-8").env("TERM", "xterm");
    command.env("HOME", &home);
    let outcome = finish(command, "");
    let shown = outcome.printed();
    let shown: Value = serde_json::from_str(shown).expect("JSON");
    assert_eq!(shown["shown"].as_array().map(Vec::len), Some(if both { 10 } else { 5 }), "{shown}");

    let written = trace::read(&traces, Path::new("/"));
    let inside = written.iter().filter(|it| it.path.starts_with(&bundle)).count();
    assert!(inside > 100, "the trace saw what was written: {inside}");
    let outside = |it: &&Written| !it.path.starts_with(&bundle) && !is_no_file(&it.path);
    let outside: Vec<String> = written.iter().filter(outside).map(Written::to_string).collect();
    assert!(outside.is_empty(), "written outside of the folder:\n{}", outside.join("\n"));
    assert!(names(&home).is_empty(), "the home is as it was: {:?}", names(&home));
    assert_eq!(problems(&world, &bundle), [], "and so is the program");

    let mut naming = Vec::new();
    naming_paths(&bundle, &[&made, &bundle], &mut naming);
    let state = bundle.join("state");
    // The audit says what was run and where: that is what it is for.
    naming.retain(|path| *path != state.join("audit.jsonl"));
    assert!(naming.is_empty(), "these files say where the folder is or was: {naming:#?}");
}

/// The files that hold one of these paths, but for the engines' own.
fn naming_paths(folder: &Path, paths: &[&Path], found: &mut Vec<PathBuf>) {
    use std::os::unix::ffi::OsStrExt as _;
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let data = path.symlink_metadata().expect("it is there");
        if data.is_dir() {
            if !path.ends_with("state/engines") {
                naming_paths(&path, paths, found);
            }
            continue;
        }
        let bytes = if data.is_symlink() {
            std::fs::read_link(&path).expect("a link").as_os_str().as_bytes().to_vec()
        } else if data.is_file() {
            std::fs::read(&path).expect("a file")
        } else {
            continue;
        };
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|it| it == needle);
        if paths.iter().any(|it| holds(it.as_os_str().as_bytes())) {
            found.push(path);
        }
    }
}

#[test]
fn a_changed_a_missing_and_an_extra_file_are_found() {
    let world = World::without_engines();
    let bundle = world.path("the bundle");
    export(&world, &bundle, &["--no-engines"]).printed();
    assert_eq!(problems(&world, &bundle), []);
    let programs = format!("bin/{}", platform(&bundle));
    std::fs::write(bundle.join("licences/LICENSE-MIT"), "Everything is allowed.").expect("a file");
    let wrapper = bundle.join("pcoder.cmd");
    let text = std::fs::read_to_string(&wrapper).expect("a file");
    std::fs::write(&wrapper, text.replace("setlocal", "setlocaL")).expect("the same size");
    std::fs::remove_file(bundle.join("licences/ENGINES.txt")).expect("it is there");
    std::fs::write(bundle.join(&programs).join("version.dll"), "").expect("a file");
    std::os::unix::fs::symlink("pcoder", bundle.join("link")).expect("a link");
    // What belongs to the user or to a system that looked at the folder.
    std::fs::create_dir_all(bundle.join("state/auth/claude")).expect("a folder");
    std::fs::write(bundle.join("state/settings.toml"), "version = 1\n").expect("a file");
    std::fs::write(bundle.join(".DS_Store"), "").expect("a file");
    let found = problems(&world, &bundle);
    let expected = [
        (format!("{programs}/version.dll"), "does not belong there"),
        ("licences/ENGINES.txt".to_owned(), "is missing"),
        ("licences/LICENSE-MIT".to_owned(), "has another size"),
        ("link".to_owned(), "does not belong there"),
        ("pcoder.cmd".to_owned(), "was changed"),
    ]
    .map(|(path, problem)| (path, problem.to_owned()));
    assert_eq!(found, expected);
}

/// The pcoder of a folder looks at its own, and at its engines, whose digests are in the program.
#[test]
fn an_engine_that_was_changed_or_removed_is_found() {
    let world = World::new();
    let bundle = world.path("bundle");
    export(&world, &bundle, &["--engine", "codex-acp"]).printed();
    let own = |args: &[&str]| {
        let mut command = Command::new(bundle.join("pcoder"));
        command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        finish(command, "")
    };
    assert!(own(&["bundle", "verify"]).printed().contains("the bundle is whole"));
    let listed = own(&["engine", "list", "--json"]);
    listed.printed();
    assert_eq!(listed.json()["folder"], bundle.join("state").to_str().expect("a path"));

    let engine = bundle.join("state/engines/codex-acp");
    let version = names(&engine).into_iter().next().expect("a version");
    let package = engine.join(&version).join("package");
    std::fs::write(package.join("one more.js"), "").expect("a file");
    let outcome = own(&["bundle", "verify"]);
    assert_eq!(outcome.code, Some(5));
    assert!(outcome.stdout.contains("one more.js: does not belong there"), "{outcome:#?}");
    std::fs::remove_dir_all(&engine).expect("removed");
    let outcome = own(&["bundle", "verify"]);
    assert_eq!(outcome.code, Some(5));
    assert!(
        outcome.stdout.contains("state/engines/codex-acp/") && outcome.stdout.contains("is missing"),
        "{outcome:#?}"
    );
}

#[test]
fn an_engine_that_is_not_installed_is_an_error_that_names_the_command_and_makes_nothing() {
    let world = World::without_engines();
    let bundle = world.path("bundle");
    let outcome = export(&world, &bundle, &["--engine", "claude"]);
    assert_eq!(outcome.code, Some(3), "{outcome:#?}");
    assert!(outcome.stderr.contains("pcoder engine install claude"), "{outcome:#?}");
    assert!(!bundle.exists());
}

/// A project with a space, quotes and a dollar goes through the wrapper as it is, however the wrapper is started.
#[test]
fn the_wrapper_takes_folders_and_arguments_with_spaces_and_quotes() {
    let world = World::without_engines();
    let bundle = world.path("it's a \"bundle\" \u{e9}\n");
    export(&world, &bundle, &["--no-engines"]).printed();
    let wrapper = bundle.join("pcoder");
    let links = world.path("links");
    std::fs::create_dir(&links).expect("a folder");
    std::os::unix::fs::symlink(&wrapper, links.join("absolute")).expect("a link");
    std::os::unix::fs::symlink("absolute", links.join("relative")).expect("a link");
    let project = "no 'such' \"project\" $HOME `id` * ";
    let run = |program: &Path, first: &[&Path], cwd: &Path| {
        let mut command = Command::new(program);
        command.args(first).args(["run", "claude", "--project", project]).current_dir(cwd).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", world.path("home"));
        let outcome = finish(command, "");
        assert_eq!(outcome.code, Some(3), "{outcome:#?}");
        assert!(outcome.stderr.contains(project.trim_end()), "{outcome:#?}");
    };
    let elsewhere = world.path("project");
    run(&wrapper, &[], &elsewhere);
    run(Path::new("./pcoder"), &[], &bundle);
    run(&links.join("absolute"), &[], &elsewhere);
    run(&links.join("relative"), &[], &elsewhere);
    run(Path::new("sh"), &[Path::new("pcoder")], &bundle);
    run(Path::new("sh"), &[&links.join("relative")], &elsewhere);
    assert!(names(&world.path("home")).is_empty(), "{:?}", names(&world.path("home")));
}

/// It is read here and run on Windows: every path is in quotes, and lines end as `cmd` needs them for its labels.
#[test]
fn the_wrapper_for_windows_quotes_its_folder_and_passes_arguments_on() {
    let world = World::without_engines();
    let bundle = world.path("bundle");
    export(&world, &bundle, &["--no-engines"]).printed();
    let text = std::fs::read_to_string(bundle.join("pcoder.cmd")).expect("a file");
    assert!(text.lines().count() > 5 && text.matches('\n').count() == text.matches("\r\n").count());
    assert!(text.contains("\r\n\"%PCODER_PROGRAM%\" %*\r\n"), "{text}");
    assert!(text.contains("exit /b %ERRORLEVEL%") && text.contains("setlocal DisableDelayedExpansion"), "{text}");
    for (at, _) in text.match_indices("%~dp0") {
        // In quotes: an odd number of them before it on its line.
        let line = text[..at].rsplit('\n').next().expect("a line");
        assert_eq!(line.matches('"').count() % 2, 1, "{line}");
    }
}

#[test]
fn an_export_that_is_killed_leaves_no_half_folder_and_the_next_one_cleans_up() {
    let world = World::new();
    let parent = world.path("disk");
    std::fs::create_dir(&parent).expect("a folder");
    let bundle = parent.join("bundle");
    let mut exporting = export_command(&world, &bundle, &[]).stderr(Stdio::piped()).spawn().expect("pcoder starts");
    let lines = BufReader::new(exporting.stderr.take().expect("a pipe")).lines();
    wait("it copies", move || {
        assert!(lines.map_while(Result::ok).any(|line| line == "bundle: copying"), "it said that it copies");
    });
    exporting.kill().expect("it runs");
    wait("it has ended", move || exporting.wait().expect("a child"));
    assert!(!bundle.exists());
    assert_eq!(names(&parent).len(), 1, "what it was making: {:?}", names(&parent));
    export(&world, &bundle, &["--no-engines"]).printed();
    assert_eq!(names(&parent), ["bundle".to_owned()].into());
    assert_eq!(problems(&world, &bundle), []);
}

#[test]
fn of_two_exports_at_once_one_makes_the_folder_and_the_other_says_that_it_is_there() {
    let world = World::without_engines();
    let parent = world.path("disk");
    std::fs::create_dir(&parent).expect("a folder");
    let bundle = parent.join("bundle");
    let both = [(); 2].map(|()| start(export_command(&world, &bundle, &["--no-engines"]), ""));
    let mut outcomes = both.map(|it| it.finish());
    outcomes.sort_by_key(|it| it.code);
    assert_eq!(outcomes[0].code, Some(0), "{outcomes:#?}");
    assert_eq!(outcomes[1].code, Some(1), "{outcomes:#?}");
    assert!(
        outcomes[1].stderr.contains("made that folder meanwhile") || outcomes[1].stderr.contains("a bundle already")
    );
    assert_eq!(names(&parent), ["bundle".to_owned()].into());
    assert_eq!(problems(&world, &bundle), []);
}

#[test]
fn an_update_renews_the_program_and_keeps_what_was_written_in_the_folder() {
    let world = World::without_engines();
    let parent = world.path("disk");
    std::fs::create_dir(&parent).expect("a folder");
    let bundle = parent.join("bundle");
    export(&world, &bundle, &["--no-engines"]).printed();
    let refused = export(&world, &bundle, &["--no-engines"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("--update"), "{refused:#?}");

    let kept =
        ["auth/claude/.credentials.json", "audit.jsonl", "settings.toml", "profiles/work.toml", "plugins/p/file"];
    for name in kept {
        let path = bundle.join("state").join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, name).expect("a file");
    }
    for gone in ["cache/code", "tmp/left"] {
        std::fs::create_dir_all(bundle.join("state").join(gone)).expect("a folder");
    }
    std::fs::write(bundle.join("licences/LICENSE-MIT"), "changed").expect("a file");
    std::fs::write(bundle.join("extra"), "").expect("a file");

    // Somebody uses it: an engine's lock is held.
    let lock = bundle.join("state/locks/claude@1@linux-x64.lock");
    std::fs::create_dir_all(lock.parent().expect("a folder")).expect("a folder");
    let lock = std::fs::File::create(&lock).expect("a file");
    lock.lock_shared().expect("a lock");
    let busy = export(&world, &bundle, &["--no-engines", "--update"]);
    assert_eq!(busy.code, Some(1));
    assert!(busy.stderr.contains("in use"), "{busy:#?}");
    lock.unlock().expect("unlocked");

    let updated = export(&world, &bundle, &["--no-engines", "--update", "--json"]);
    updated.printed();
    assert_eq!(updated.json()["updated"], true);
    for name in kept {
        assert_eq!(std::fs::read_to_string(bundle.join("state").join(name)).expect("kept"), name);
    }
    assert!(!bundle.join("extra").exists() && !bundle.join("state/tmp").exists());
    assert_eq!(problems(&world, &bundle), []);
    assert_eq!(names(&parent), ["bundle".to_owned()].into());
}

#[test]
fn the_licences_of_all_that_it_is_made_of_go_along_with_their_texts() {
    let world = World::without_engines();
    let bundle = world.path("bundle");
    export(&world, &bundle, &["--no-engines"]).printed();
    let text = std::fs::read_to_string(bundle.join("licences/THIRD-PARTY.txt")).expect("a file");
    let (list, texts) = text.split_once("\nThe text of ").expect("texts below the list");
    let crates: Vec<&str> = list.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect();
    assert!(crates.len() > 200 && crates.iter().any(|it| it.starts_with("wasmtime 48.")), "{}", crates.len());
    // A few publish their crate without it; the list has the place of their source.
    let without: Vec<&&str> = crates.iter().filter(|it| !texts.contains(**it)).collect();
    assert!(without.len() * 10 < crates.len(), "no text: {without:?}");
    assert!(texts.contains("Permission is hereby granted, free of charge") && texts.contains("Apache License"));
}

/// Logins and the audit stay; plugins go along, without what is this machine's; profiles and settings when asked for.
#[test]
fn plugins_go_along_and_logins_stay() {
    // Of the bytes `abc`.
    const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let world = World::without_engines();
    let own = world.path("pcoder");
    for (name, text) in [
        ("components/x.wasm", "abc"),
        ("auth.toml", "version = 1\n"),
        ("auth/claude/.credentials.json", "{}"),
        ("audit.jsonl", ""),
        ("settings.toml", "version = 1\n"),
        ("profiles/work.toml", "version = 1\ntool = \"claude\"\n"),
    ] {
        let path = own.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }
    std::fs::rename(own.join("components/x.wasm"), own.join(format!("components/{SHA256}.wasm"))).expect("named");
    let lock = format!(
        "version = 1\n[[plugin]]\nname = \"provider-box\"\nkind = \"provider\"\nversion = \"1.0.0\"\nsha256 = \"{SHA256}\"\n\
         source = \"box.wasm\"\nadded-unix-ms = 1\n[plugin.roots]\ndata = \"{}\"\n",
        world.path("data").display()
    );
    std::fs::write(own.join("plugins.lock"), lock).expect("a file");

    let plain = world.path("plain");
    let outcome = export(&world, &plain, &["--no-engines", "--json"]);
    outcome.printed();
    assert_eq!(outcome.json()["plugins"], serde_json::json!(["provider-box"]));
    assert_eq!(outcome.json()["plugins_to_grant_again"], serde_json::json!(["provider-box"]));
    assert_eq!(names(&plain.join("state")), ["components", "plugins.lock"].map(str::to_owned).into());
    let mut naming = Vec::new();
    naming_paths(&plain, &[&world.path("")], &mut naming);
    assert!(naming.is_empty(), "{naming:?}");
    assert_eq!(problems(&world, &plain), []);
    std::fs::write(plain.join(format!("state/components/{SHA256}.wasm")), "abd").expect("a file");
    let found = problems(&world, &plain);
    assert_eq!(found.len(), 1);
    assert!(found[0].1.contains("was changed (the plugin `provider-box`)"), "{found:?}");

    let more = world.path("more");
    export(&world, &more, &["--no-engines", "--profiles", "--settings"]).printed();
    let expected = ["components", "plugins.lock", "profiles", "settings.toml"].map(str::to_owned);
    assert_eq!(names(&more.join("state")), expected.into());
}
