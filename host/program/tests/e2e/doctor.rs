//! `doctor` on machines that are bare, good and broken; `runtime probe`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::engines::copied;
use crate::support::{Outcome, World, finish};

/// The names of everything in a folder; none where there is no folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).map_or_else(|_| Vec::new(), |entries| entries.collect());
    entries.into_iter().map(|it| it.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// What `doctor --json` printed, once it is what its schema says.
fn report(outcome: &Outcome) -> Value {
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/doctor.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(schema).expect("the schema")).expect("JSON");
    let validator = jsonschema::draft202012::new(&schema).expect("a schema");
    let report = outcome.json();
    let errors: Vec<String> =
        validator.iter_errors(&report).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{report:#}");
    let expected = match report["status"].as_str() {
        Some("ok") => 0,
        Some("warning") => 1,
        _ => 2,
    };
    assert_eq!(outcome.code, Some(expected), "{outcome:#?}");
    report
}

fn check<'a>(report: &'a Value, id: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("a list");
    checks.iter().find(|it| it["id"] == id).unwrap_or_else(|| panic!("no `{id}`: {report:#}"))
}

/// The checks that are not well, by their names.
fn findings(report: &Value) -> BTreeSet<&str> {
    let checks = report["checks"].as_array().expect("a list").iter();
    checks.filter(|it| it["status"] != "ok").map(|it| it["id"].as_str().expect("a name")).collect()
}

fn doctor(world: &World, more: &[&str]) -> Command {
    world.pcoder(&[&["doctor", "--json"], more].concat())
}

/// A machine on which nothing has been set up: no engine, no key, no terminal.
fn bare(world: &World, args: &[&str]) -> Command {
    let mut command = world.pcoder(args);
    command.env_remove("TERM").env_remove("ANTHROPIC_API_KEY");
    command
}

/// Claude Code has a key in its environment. Codex is not logged in, and has a service of its own in its configuration: of
/// that nothing is known here, so it is no finding as long as one tool can be used.
#[test]
fn a_machine_on_which_everything_works_is_well_to_the_last_check() {
    let world = World::new();
    let outcome = finish(doctor(&world, &[]), "");
    let report = report(&outcome);
    assert_eq!((findings(&report), outcome.code), (BTreeSet::new(), Some(0)), "{report:#}");
    let expected =
        ["auth.claude", "auth.codex", "clock.sane", "disk.free", "disk.locks", "engine.claude", "provider.local"];
    for id in expected {
        check(&report, id);
    }
    assert!(check(&report, "provider.local")["meaning"].as_str().is_some_and(|it| it.contains("this machine")));
    assert!(
        check(&report, "auth.claude")["measured"].as_str().is_some_and(|it| it.starts_with("logged in")),
        "{report:#}"
    );
}

#[test]
fn a_bare_machine_gets_the_commands_that_set_it_up() {
    let world = World::without_engines();
    let outcome = finish(bare(&world, &["doctor"]), "");
    let filters = [(r"\S*e2e-\w+", "[WORLD]"), (r"[0-9]+ MiB", "[FREE]")];
    insta::with_settings!({ filters => filters }, { insta::assert_snapshot!(outcome.shown(), @r"
        exit 1
        -- stdout
        [ok] runtime.engine -> the WebAssembly engine runs
        [ok] folder.cache -> [WORLD]/pcoder/cache can be written to
        [ok] folder.code-cache -> [WORLD]/pcoder/cache/code is its owner's alone
        [ok] folder.data -> [WORLD]/pcoder can be written to
        [ok] folder.leftovers -> none of a pcoder that was killed
        [ok] folder.permissions -> pcoder's own files are their owner's alone
        [ok] audit.file -> what plugins do is added to [WORLD]/pcoder/audit.jsonl
        [ok] state.auth -> [WORLD]/pcoder/auth.toml is made when it is needed
        [ok] state.environment -> no variable holds a setting that cannot be
        [ok] state.plugins-lock -> [WORLD]/pcoder/plugins.lock is made when it is needed
        [ok] state.project -> there is no pcoder.toml in this folder
        [ok] state.settings -> [WORLD]/pcoder/settings.toml is made when it is needed
        [ok] policy.system -> there is none: grants alone decide
        [ok] plugin.agent-claude -> Anthropic's coding agent
        [ok] plugin.agent-codex -> OpenAI's coding agent
        [ok] plugin.credentials-claude -> 2 profiles
        [ok] plugin.credentials-codex -> 2 profiles
        [ok] plugin.process-pm2 -> Keeps processes running with PM2: list, logs, restarts
        [ok] plugin.process-shell -> Runs a process once, to its end; keeps neither list nor logs
        [ok] plugin.provider-codesandbox -> Sandboxes of CodeSandbox
        [ok] plugin.provider-local -> This machine, without isolation
        [ok] plugin.provider-morph -> Instances of Morph Cloud
        [ok] plugin.provider-qemu -> Linux machines on this host, in QEMU
        [ok] provider.codesandbox -> it answers; commands run elsewhere
        [ok] provider.local -> it answers; no isolation
        [ok] provider.morph -> it answers; commands run elsewhere
        [ok] provider.qemu -> it answers; commands run elsewhere
        [warn] engine.claude -> 0.3.316 is not installed
               it is downloaded when a tool that needs it is first run, and a run without a network fails
               mend it: `pcoder engine install claude`
        [warn] engine.claude-agent-acp -> 0.100.0 is not installed
               it is downloaded when a tool that needs it is first run, and a run without a network fails
               mend it: `pcoder engine install claude-agent-acp`
        [warn] engine.codex -> 0.166.0 is not installed
               it is downloaded when a tool that needs it is first run, and a run without a network fails
               mend it: `pcoder engine install codex`
        [warn] engine.codex-acp -> 2.6.0 is not installed
               it is downloaded when a tool that needs it is first run, and a run without a network fails
               mend it: `pcoder engine install codex-acp`
        [warn] engine.node -> 22.23.2 is not installed
               it is downloaded when a tool that needs it is first run, and a run without a network fails
               mend it: `pcoder engine install node`
        [ok] auth.claude -> not known before its engine is installed
        [ok] auth.codex -> not known before its engine is installed
        [ok] disk.free -> [FREE] free in [WORLD]/pcoder, [FREE] free in [WORLD]/tmp
        [ok] disk.locks -> files can be locked in [WORLD]/pcoder/locks
        [ok] disk.permissions -> files in [WORLD]/pcoder can be their owner's alone
        [ok] clock.sane -> it is right by years, and even
        [warn] terminal.type -> TERM is not set
               agents run with `pcoder run … --json`, and cannot be used interactively
               mend it: run it in a terminal, or set TERM, as `TERM=xterm-256color`
        [ok] host.accel -> no virtual machine is set up: `pcoder runtime bootstrap` sets one up
        [ok] vm.image -> no virtual machine is set up: `pcoder runtime bootstrap` sets one up
        [ok] vm.qemu -> no virtual machine is set up: `pcoder runtime bootstrap` sets one up
        [ok] proxy.http -> HTTP_PROXY is not set
        [ok] proxy.https -> HTTPS_PROXY is not set

        44 checks: 38 ok, 6 warnings, 0 failures
        ") });
    // Asking plugins who they are is a call like any other: it is audited, and starts the runtime with its cache.
    let made = names(&world.path("pcoder"));
    let known = ["audit.head", "audit.jsonl", "cache", "locks"];
    assert!(made.iter().all(|it| known.contains(&it.as_str())), "it mends nothing by itself: {made:?}");
    report(&finish(bare(&world, &["doctor", "--json"]), ""));
}

#[cfg(unix)]
#[test]
fn no_place_for_files_is_a_failure() {
    let world = World::without_engines();
    let mut command = doctor(&world, &[]);
    // No folder for its files can be there, whoever runs it.
    command.env("PCODER_HOME", "/dev/null/pcoder");
    let report = report(&finish(command, ""));
    assert_eq!(check(&report, "folder.data")["status"], "fail", "{report:#}");
}

const CANARY: &str = "hunter2-CANARY";

/// Plants ten faults and more, and returns the command that finds them.
fn broken(world: &World, args: &[&str]) -> Command {
    let home = world.path("pcoder");
    let engine = copied(world);
    std::fs::write(engine.join("package/dist/index.js"), "// cut short\n").expect("a file");
    std::fs::create_dir_all(home.join("profiles")).expect("a folder");
    let plugin = format!(
        "version = 1\n[[plugin]]\nname = \"provider-box\"\nkind = \"provider\"\nversion = \"1.0.0\"\nsha256 = \"{}\"\n\
         source = \"box.wasm\"\nadded-unix-ms = 1\n",
        "0".repeat(64)
    );
    let unset = "tool = \"claude\"\nauth = \"api\"\nkey = \"env:NOBODY_SET_THIS\"\n";
    let files = [
        ("settings.toml", "tool = \"claude\"\ninstal = \"ask\"\n"),
        ("auth.toml", "version = 99\n"),
        ("plugins.lock", &plugin),
        ("profiles/odd.toml", "tool = \"claude\"\nmodle = \"x\"\n"),
        ("profiles/unset.toml", unset),
        ("locks", "a file in the place of a folder"),
    ];
    for (name, text) in files {
        std::fs::write(home.join(name), text).expect("a file");
    }
    std::fs::create_dir(home.join("audit.jsonl")).expect("a folder in the place of a file");
    std::fs::write(world.path("policy.toml"), "version = 1\nproviders = []\n").expect("a file");
    let mut command = world.pcoder(args);
    command.env("PCODER_POLICY", world.path("policy.toml"));
    command.env("HTTPS_PROXY", format!("socks5://me:{CANARY}@proxy.example:1080"));
    command.env("TERM", "dumb");
    command
}

#[test]
fn every_fault_of_a_broken_machine_is_named_with_what_mends_it_and_without_secrets() {
    let world = World::without_engines();
    let command = broken(&world, &["doctor", "--json"]);
    let outcome = finish(command, "");
    let report = report(&outcome);
    assert_eq!(outcome.code, Some(2));
    for (id, status, measured, remedy) in [
        ("state.settings", "fail", "settings.toml: line 2, column 1: unknown field `instal`", "settings.toml"),
        ("state.auth", "fail", "newer pcoder", "auth.toml: use the newer pcoder"),
        ("profile.odd", "fail", "line 2, column 1: unknown field `modle`", "profiles/odd.toml"),
        ("profile.unset", "fail", "NOBODY_SET_THIS", "profiles/unset.toml"),
        ("plugin.provider-box", "fail", ".wasm", "`pcoder plugin remove provider-box`"),
        ("policy.PCODER_POLICY", "fail", "line 2, column 1: unknown field `providers`", "policy.toml"),
        ("engine.codex-acp", "fail", "damaged", "`pcoder engine install codex-acp`"),
        ("audit.file", "fail", "audit.jsonl is no file", "audit.jsonl"),
        ("disk.locks", "fail", "locks", "locks"),
        ("proxy.https", "fail", "`socks5` is not supported (socks5://proxy.example:1080)", "`HTTPS_PROXY`"),
        ("proxy.exceptions", "warning", "127.0.0.1", "NO_PROXY"),
        ("terminal.type", "warning", "dumb", "TERM=xterm-256color"),
        ("engine.claude", "warning", "not installed", "`pcoder engine install claude`"),
    ] {
        let found = check(&report, id);
        assert_eq!(found["status"], status, "{found:#}");
        let says = |field: &str, text: &str| found[field].as_str().is_some_and(|it| it.contains(text));
        assert!(says("measured", measured) && says("remedy", remedy), "{id}: {found:#}");
    }
    // Nothing that is well is taken for broken.
    for id in ["runtime.engine", "folder.data", "disk.permissions", "clock.sane", "policy.system", "proxy.http"] {
        assert_eq!(check(&report, id)["status"], "ok", "{report:#}");
    }
    let people = finish(broken_again(&world), "");
    for text in [&outcome.stdout, &outcome.stderr, &people.stdout, &people.stderr] {
        assert!(!text.contains(CANARY), "{text}");
    }
    assert_eq!(people.code, Some(2));
}

/// The same machine, for people.
fn broken_again(world: &World) -> Command {
    let mut command = world.pcoder(&["doctor"]);
    command.env("PCODER_POLICY", world.path("policy.toml"));
    command.env("HTTPS_PROXY", format!("socks5://me:{CANARY}@proxy.example:1080"));
    command.env("TERM", "dumb");
    command
}

#[cfg(unix)]
#[test]
fn fix_narrows_permissions_and_removes_leftovers_and_changes_no_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::without_engines();
    let home = world.path("pcoder");
    std::fs::create_dir_all(home.join("auth/claude/config")).expect("a folder");
    let broken = "tool = [ # half a line";
    let chmod = |name: &str, mode| {
        std::fs::set_permissions(home.join(name), std::fs::Permissions::from_mode(mode)).expect("chmod");
    };
    let mode = |name: &str| home.join(name).metadata().expect("it is there").permissions().mode() & 0o777;
    for (name, text) in [("settings.toml", broken), ("audit.jsonl", ""), (".new-abc", "half")] {
        std::fs::write(home.join(name), text).expect("a file");
        chmod(name, 0o666);
    }
    chmod("auth/claude/config", 0o777);
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3 * 24 * 3600);
    let leftover = std::fs::File::options().write(true).open(home.join(".new-abc")).expect("a file");
    leftover.set_modified(old).expect("a time");

    let before = report(&finish(doctor(&world, &[]), ""));
    for id in ["folder.permissions", "folder.leftovers"] {
        let found = check(&before, id);
        assert_eq!((&found["status"], &found["fixable"]), (&"warning".into(), &true.into()), "{found:#}");
    }
    assert_eq!((mode("settings.toml"), home.join(".new-abc").exists()), (0o666, true), "it mends nothing by itself");

    let outcome = finish(doctor(&world, &["--fix"]), "");
    let after = report(&outcome);
    for id in ["folder.permissions", "folder.leftovers"] {
        let found = check(&after, id);
        assert_eq!((&found["status"], &found["fixable"]), (&"ok".into(), &false.into()), "{found:#}");
        assert!(found["fixed"].is_string(), "{found:#}");
    }
    assert_eq!((mode("settings.toml"), mode("audit.jsonl"), mode("auth/claude/config")), (0o644, 0o600, 0o700));
    assert!(!home.join(".new-abc").exists());
    // Only its user can know what was meant.
    assert_eq!(std::fs::read_to_string(home.join("settings.toml")).expect("a file"), broken);
    assert_eq!((check(&after, "state.settings")["status"].as_str(), outcome.code), (Some("fail"), Some(2)));
}

#[test]
fn a_probe_ends_with_what_it_recommends() {
    let world = World::without_engines();
    let probe = |args: &[&str]| {
        let mut command = world.pcoder(&[&["runtime", "probe"], args].concat());
        // Whatever this machine has.
        command.env("PCODER_QEMU", "/nowhere/qemu");
        finish(command, "")
    };
    let people = probe(&[]);
    assert_eq!(people.printed().lines().last(), Some("recommended_backend=host-native"), "{people:#?}");
    assert!(people.stdout.contains("host.os") && people.stderr.is_empty(), "{people:#?}");
    let probe = probe(&["--json"]).json();
    let fields: BTreeSet<&str> = probe.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        BTreeSet::from(["accelerators", "facts", "qemu", "reason", "recommended_backend", "schema_version", "version"])
    );
    let facts = probe["facts"].as_array().expect("a list");
    assert!(facts.iter().all(|it| it["category"] == "host" && it["status"] == "ok"), "{probe:#}");
    let known: BTreeSet<&str> = facts.iter().map(|it| it["id"].as_str().expect("a name")).collect();
    for id in
        ["host.arch", "host.container", "host.cpus", "host.disk", "host.kvm", "host.memory", "host.os", "host.wsl"]
    {
        assert!(known.contains(id), "{known:?}");
    }
    assert!(names(&world.path("pcoder")).is_empty(), "looking creates nothing");
}
