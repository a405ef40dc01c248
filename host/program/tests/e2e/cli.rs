//! The command line: help, lists, errors, and what scripts read.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{World, finish};

/// The names of an object's fields.
fn fields(object: &Value) -> BTreeSet<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn help() {
    let world = World::without_engines();
    insta::assert_snapshot!(finish(world.pcoder(&["--help"]), "").printed(), @r#"
        Runs coding agents on a machine that you choose

        Usage: pcoder [OPTIONS] <COMMAND>

        Work:
          run          Run a coding agent in a project
          list-tools   List the agents that `run` knows
          demo         Show real agents at work, offline, without an account

        Machines:
          instance     Start, use and end machines of a provider
          process      Start and watch processes that go on when pcoder has ended
          smoke        Try a provider from boot to an agent's answer

        Set up:
          setup        Set pcoder up: the default tool, its engine, its login
          auth         Log tools in and out
          profile      Choose a key, a model, a service for a tool
          secret       Put secrets into the system's keyring
          config       Show and change settings, and where each comes from
          engine       Install, check, move and remove the agents' own programs
          bundle       Make a folder with pcoder and its engines that runs from a stick, and check one

        Trust:
          plugin       Add plugins, and say what each may do
          audit        Show what plugins did, and check that the record is whole

        Help:
          doctor       Look for what is missing, and say what mends it
          runtime      Look at what this machine can run, and bring what virtual machines need
          completions  Print completions for a shell
          man          Print manual pages
          help         Print this message or the help of a command

        Options:
          -v, --verbose...           Say more; twice for every step
              --otlp-endpoint <URL>  Send the audit there too, as OpenTelemetry over HTTP
          -h, --help                 Print help
          -V, --version              Print version

        Examples:
          pcoder setup                                 from nothing to a first run
          pcoder run claude                            in this folder and this terminal
          pcoder run codex --profile work -- exec "fix the tests"
          pcoder plugin add ./provider-box.wasm        asks before it grants anything
          pcoder doctor

        Exit codes:
          0  it worked                    6  a login or a key is missing
          1  it failed                    7  denied: a grant is missing
          2  the command line is wrong  130  stopped with Ctrl-C
          3  something is not there
          4  the network                `run` passes on the tool's own exit code,
          5  bytes are not right        and 128+N when signal N ended it.
        "#);
}

#[test]
fn help_of_run() {
    let world = World::without_engines();
    insta::assert_snapshot!(finish(world.pcoder(&["run", "--help"]), "").printed(), @r#"
        Run a coding agent in a project

        Usage: pcoder run [OPTIONS] [TOOL] [-- <ARGS>...]

        Arguments:
          [TOOL]
                  The agent; `pcoder list-tools` shows them [default: the setting `tool`, which is claude]

          [ARGS]...
                  The agent's own arguments

        Options:
              --profile <NAME>
                  How it uses the tool: a key, a model, a service; `pcoder profile list` shows them

          -v, --verbose...
                  Say more; twice for every step

              --otlp-endpoint <URL>
                  Send the audit there too, as OpenTelemetry over HTTP

              --provider <PROVIDER>
                  The machine that it runs on [default: the setting `provider`, which is `local`: this one]

              --mode <MODE>
                  The kind of machine that it runs on

                  Possible values:
                  - host-native:    This machine, without isolation
                  - linux-portable: A Linux machine that needs no installation
                  - linux-wsl:      The Linux that Windows brings
                  - auto:           The portable Linux machine where it can be started, else this machine

              --project <PATH>
                  The project's folder [default: this folder]

              --engine-version <VERSION>
                  The engine's version [default: the pinned one]

              --json
                  Capture what the agent prints, and print one JSON object when it has ended

              --no-install
                  Fail instead of downloading a missing engine

              --private-tmp
                  Give it a `/tmp` of its own, in memory, which is gone with it (Linux)

          -h, --help
                  Print help (see a summary with '-h')

        On another machine:
              --image <IMAGE>
                  Boot this image, snapshot or template [default: the provider's]

              --instance <INSTANCE>
                  Use an instance that is there, and leave it running

              --network <NETWORK>
                  What the machine that is booted reaches [default: the provider's]

                  Possible values:
                  - none:       Nothing
                  - restricted: The model, the npm registry and the setting `network-allow`, by a proxy on
                    this host
                  - full:       All that this host reaches

              --option <NAME=VALUE>
                  More that the provider knows of the machine that is booted, as `memory-mib=4096`

              --keep
                  Leave the instance running that was booted

              --no-sync
                  Do not bring the project there

              --no-sync-back
                  Do not bring the project's changes back

              --ignore <PATTERN>
                  What is not synced, as in `.gitignore`, beside `.git` and `node_modules`

        Examples:
          pcoder run claude                             the agent, in this folder and this terminal
          pcoder run codex --project ../app             in another folder
          pcoder run claude --profile work              with another key, model or service
          pcoder run claude -- -p "fix the tests"       with the agent's own arguments
        "#);
}

#[test]
fn without_a_command_the_help_is_shown_and_it_is_an_error() {
    let world = World::without_engines();
    let outcome = finish(world.pcoder(&[]), "");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""));
    assert!(outcome.stderr.contains("Usage: pcoder"), "{outcome:#?}");
}

#[test]
fn a_misspelled_command_is_an_error_with_the_usage() {
    let world = World::without_engines();
    insta::assert_snapshot!(finish(world.pcoder(&["rum"]), "").shown(), @r"
        exit 2
        -- stderr
        error: unrecognized subcommand 'rum'

          tip: a similar subcommand exists: 'run'

        Usage: pcoder [OPTIONS] <COMMAND>

        For more information, try '--help'.
        ");
}

#[test]
fn tools_for_people() {
    let world = World::without_engines();
    insta::assert_snapshot!(finish(world.pcoder(&["list-tools"]), "").printed(), @r"
        TOOL    ENGINE   STATE                      WHAT IT IS
        claude  0.3.316  downloaded when first run  Anthropic's coding agent
        codex   0.166.0  downloaded when first run  OpenAI's coding agent
        ");
}

#[test]
fn tools_for_scripts() {
    let world = World::new();
    let list = finish(world.pcoder(&["list-tools", "--json"]), "").json();
    assert_eq!(list["schema_version"], 1);
    let tools = list["tools"].as_array().expect("a list");
    assert_eq!(tools.iter().map(|it| it["name"].as_str().expect("a name")).collect::<Vec<_>>(), ["claude", "codex"]);
    for tool in tools {
        let expected = ["description", "engines", "installed", "name", "title", "version"];
        assert_eq!(fields(tool), BTreeSet::from(expected));
        assert_eq!(tool["installed"], true, "{tool}");
    }
}

#[test]
fn plugins_for_people() {
    let world = World::without_engines();
    insta::assert_snapshot!(finish(world.pcoder(&["plugin", "list"]), "").printed(), @r"
        PLUGIN                KIND             VERSION  FROM         WHAT IT IS
        agent-claude          agent            0.1.0    built in     Launches Claude Code. It computes command lines and can reach nothing.
        agent-codex           agent            0.1.0    built in     Launches Codex. It computes command lines and can reach nothing.
        credentials-claude    credentials      0.1.0    built in     Puts a Claude login onto an instance, without seeing it.
        credentials-codex     credentials      0.1.0    built in     Puts a Codex login onto an instance, without seeing it.
        process-pm2           process-manager  0.1.0    built in     Keeps processes running on the instance with PM2, which must be installed there.
        process-shell         process-manager  0.1.0    built in     Runs a process once, to its end, on the instance.
        provider-codesandbox  provider         0.1.0    built in     Runs commands in sandboxes of CodeSandbox.
        provider-local        provider         0.1.0    built in     Runs commands on the machine that pcoder runs on.
        provider-morph        provider         0.1.0    built in     Runs commands on instances of Morph Cloud.
        provider-qemu         provider         0.1.0    built in     Runs Linux machines on this host, in QEMU.
        ");
}

#[test]
fn a_plugin_says_what_it_asks_for_and_what_it_can_never_do() {
    let world = World::without_engines();
    let shown = finish(world.pcoder(&["plugin", "inspect", "provider-local"]), "");
    let filters = [("[0-9a-f]{64}", "[DIGEST]"), (r"[0-9.]+ KiB", "[SIZE]")];
    insta::with_settings!({ filters => filters }, { insta::assert_snapshot!(shown.printed(), @r"
        provider-local 0.1.0 (provider)
          Runs commands on the machine that pcoder runs on.
          contract 0.1.0, [SIZE], sha256 [DIGEST]

        Asks for:
          run as called
              Runs the command that you asked for, and nothing else.
          read and write files of `called`
              Reads and writes the file that you asked for, and nothing else.

        Can never (it does not import what that needs):
          reach the network
          name secrets
          touch the instance that it is called for
        ") });
    let shown = finish(world.pcoder(&["plugin", "inspect", "agent-claude", "--json"]), "").json();
    let expected = ["granted", "impossible", "plugin", "problem", "schema_version", "serves"];
    assert_eq!(fields(&shown), BTreeSet::from(expected));
    assert_eq!((&shown["serves"], &shown["problem"]), (&Value::Bool(true), &Value::Null));
    assert!(shown["impossible"].as_array().is_some_and(|it| !it.is_empty()), "{shown}");
}

#[test]
fn a_file_that_is_no_plugin_is_refused_with_the_reason() {
    let world = World::without_engines();
    let inspect = |name: &str, content: &[u8]| {
        std::fs::write(world.path("project").join(name), content).expect("a file");
        let outcome = finish(world.pcoder(&["plugin", "inspect", name]), "");
        outcome.shown().replace(&world.path("").display().to_string(), "[WORLD]/")
    };
    insta::assert_snapshot!(inspect("text.wasm", b"#!/bin/sh\n"), @r"
        exit 2
        -- stderr
        error: it is not WebAssembly
          in plugin.inspect: [WORLD]/project/text.wasm

        hint: give the component that `cargo xtask plugins` or your build made, a file that ends in `.wasm`
        ");
    insta::assert_snapshot!(inspect("empty.wasm", b""), @r"
        exit 2
        -- stderr
        error: it is not WebAssembly
          in plugin.inspect: [WORLD]/project/empty.wasm

        hint: give the component that `cargo xtask plugins` or your build made, a file that ends in `.wasm`
        ");
    insta::assert_snapshot!(inspect("module.wasm", b"\0asm\x01\0\0\0"), @r"
        exit 2
        -- stderr
        error: it is a core module, not a component
          in plugin.inspect: [WORLD]/project/module.wasm

        hint: turn it into a component with `wasm-tools component new`, or build it with pcoder's SDK
        ");
    insta::assert_snapshot!(inspect("bare.wasm", b"\0asm\x0d\0\x01\0"), @r"
        exit 2
        -- stderr
        error: it has no manifest (the custom section `pcoder:manifest`)
          in plugin.inspect: [WORLD]/project/bare.wasm

        hint: pcoder's SDK embeds `plugin.toml`; see docs/plugins.md
        ");
    insta::assert_snapshot!(inspect("cut.wasm", b"\0asm\x0d\0\x01\0\x00\xff\xff\x03"), @r"
        exit 2
        -- stderr
        error: it is not valid WebAssembly: unexpected end-of-file (at offset 0xc)
          in plugin.inspect: [WORLD]/project/cut.wasm
        ");
    insta::assert_snapshot!(finish(world.pcoder(&["plugin", "inspect", "nothing"]), "").shown(), @r"
        exit 3
        -- stderr
        error: there is no plugin and no file of that name
          in plugin.inspect: nothing

        hint: `pcoder plugin list` shows the plugins
        ");
}

#[test]
fn engines_for_scripts() {
    let world = World::without_engines();
    let list = finish(world.pcoder(&["engine", "list", "--json"]), "").json();
    assert_eq!(fields(&list), BTreeSet::from(["engines", "folder", "schema_version"]));
    assert_eq!(list["folder"].as_str(), world.path("pcoder").to_str());
    let engines = list["engines"].as_array().expect("a list");
    let defaults: BTreeSet<_> =
        engines.iter().filter(|it| it["default"] == true).map(|it| it["name"].as_str().expect("a name")).collect();
    assert_eq!(defaults, BTreeSet::from(["claude", "claude-agent-acp", "codex", "codex-acp", "node"]));
    for engine in engines {
        let expected = ["default", "download_bytes", "name", "state", "unpacked_bytes", "version"];
        assert_eq!(fields(engine), BTreeSet::from(expected));
        assert_eq!(engine["state"], "not installed");
    }
    assert!(!world.path("pcoder").exists(), "looking creates nothing");
}

#[test]
fn an_engine_that_is_not_there_is_an_error_and_its_absence_none() {
    let world = World::without_engines();
    insta::assert_snapshot!(finish(world.pcoder(&["engine", "install", "emacs"]), "").shown(), @r"
        exit 2
        -- stderr
        error: there is no engine called `emacs`
          in engine: emacs

        hint: engines are `claude`, `claude-agent-acp`, `codex`, `codex-acp`, `node`
        ");
    insta::assert_snapshot!(finish(world.pcoder(&["engine", "verify", "codex"]), "").shown(), @r"
        exit 3
        -- stderr
        error: `codex` 0.166.0 is not installed
          in engine: codex

        hint: `pcoder engine install codex`
        ");
    insta::assert_snapshot!(finish(world.pcoder(&["engine", "remove", "codex"]), "").shown(), @r"
        exit 0
        -- stderr
        codex was not installed
        ");
}

#[test]
fn without_a_network_an_installation_says_so_and_leaves_nothing() {
    let world = World::without_engines();
    let outcome = finish(world.pcoder(&["engine", "install", "codex-acp"]), "");
    assert_eq!(outcome.code, Some(4), "{outcome:#?}");
    assert!(outcome.stderr.contains("error: ") && outcome.stderr.contains("hint: "), "{outcome:#?}");
    let offline = finish(world.pcoder(&["engine", "install", "codex-acp", "--offline"]), "");
    assert_eq!(offline.code, Some(4), "{offline:#?}");
    let list = finish(world.pcoder(&["engine", "list", "--json"]), "").json();
    assert!(list["engines"].as_array().expect("a list").iter().all(|it| it["state"] == "not installed"), "{list}");
}

/// Every command whose output could be coloured, to a pipe: with and without the variable that asks for no colours.
#[test]
fn what_is_not_a_terminal_gets_no_escape_sequences() {
    let world = World::without_engines();
    let commands: [&[&str]; 9] = [
        &["--help"],
        &["rum"],
        &["list-tools"],
        &["doctor"],
        &["runtime", "probe"],
        &["plugin", "list"],
        &["plugin", "inspect", "nothing"],
        &["engine", "list"],
        &["run", "claude", "--project", "nowhere"],
    ];
    for args in commands {
        for no_color in [false, true] {
            let mut command = world.pcoder(args);
            if no_color {
                command.env("NO_COLOR", "1");
            }
            let outcome = finish(command, "");
            let text = format!("{}{}", outcome.stdout, outcome.stderr);
            assert!(!text.is_empty() && !text.contains('\u{1b}'), "{args:?}: {text:?}");
        }
    }
}

/// `pcoder … | head -1`: the reader goes away before anything is written.
#[cfg(unix)]
#[test]
fn a_closed_pipe_is_quiet() {
    let world = World::without_engines();
    for args in [["plugin", "list"].as_slice(), &["doctor"], &["doctor", "--json"], &["--help"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = world.pcoder(args);
        let child = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).spawn().expect("pcoder starts");
        // It holds a copy of the pipe's end.
        drop(command);
        let output = child.wait_with_output().expect("pcoder ends");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
        assert_ne!(output.status.code(), Some(101), "{args:?} panicked");
    }
}

#[test]
fn errors_are_json_on_standard_error_where_json_was_asked_for() {
    let world = World::without_engines();
    let commands: [&[&str]; 5] = [
        &["run", "emacs", "--json"],
        &["run", "--project", "nowhere", "--json"],
        &["plugin", "inspect", "nothing", "--json"],
        &["engine", "verify", "codex", "--json"],
        &["demo", "emacs", "--json"],
    ];
    for args in commands {
        let outcome = finish(world.pcoder(args), "");
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(3), ""), "{args:?}");
        let error: Value = serde_json::from_str(&outcome.stderr).unwrap_or_else(|it| panic!("{it}: {outcome:#?}"));
        assert_eq!(error["schema_version"], 1);
        assert_eq!(error["error"]["code"], "not-found", "{error}");
        assert!(error["error"]["message"].is_string() && error["error"]["hint"].is_string(), "{error}");
    }
}

#[test]
fn a_wrong_command_line_is_json_too_where_json_was_asked_for() {
    let world = World::without_engines();
    let record = |args: &[&str]| {
        let outcome = finish(world.pcoder(args), "");
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{args:?}");
        let error: Value = serde_json::from_str(&outcome.stderr).unwrap_or_else(|it| panic!("{it}: {outcome:#?}"));
        assert_eq!((&error["schema_version"], &error["error"]["code"]), (&Value::from(1), &Value::from("invalid")));
        error["error"].clone()
    };
    let misspelled = record(&["engine", "verfy", "x", "--json"]);
    insta::assert_snapshot!(serde_json::to_string_pretty(&misspelled).expect("JSON"), @r#"
        {
          "code": "invalid",
          "message": "unrecognized subcommand 'verfy'",
          "operation": "arguments",
          "subject": "verfy",
          "hint": "did you mean `verify`? `pcoder engine --help` shows how it is written"
        }
        "#);
    for args in [
        &["--json"][..],
        &["--json", "doctor"],
        &["rum", "--json"],
        &["run", "--json", "--project"],
        &["run", "claude", "too much", "--json", "--", "-p"],
        &["doctor", "--json=yes"],
        &["engine", "verify", "--json"],
        &["engine", "install", "--json", "--from", "a", "--offline"],
    ] {
        let error = record(args);
        assert!(error["message"].is_string() && error["hint"].is_string(), "{error}");
    }
    // The agent's own `--json` is none of pcoder's.
    let outcome = finish(world.pcoder(&["run", "codex", "--no-such", "--", "exec", "--json"]), "");
    assert_eq!(outcome.code, Some(2), "{outcome:#?}");
    assert!(outcome.stderr.starts_with("error: "), "{outcome:#?}");
}

#[test]
fn every_name_in_json_is_in_snake_case_and_every_answer_has_the_version_of_its_shape() {
    fn names(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, it)| {
                found.insert(name.clone());
                names(it, found);
            }),
            Value::Array(items) => items.iter().for_each(|it| names(it, found)),
            _ => {}
        }
    }
    let world = World::without_engines();
    let commands: [&[&str]; 9] = [
        &["list-tools"],
        &["doctor"],
        &["runtime", "probe"],
        &["engine", "list"],
        &["engine", "prune"],
        &["engine", "remove", "codex"],
        &["plugin", "list"],
        &["plugin", "inspect", "provider-local"],
        &["plugin", "inspect", "process-shell"],
    ];
    for args in commands {
        let answer = finish(world.pcoder(&[args, &["--json"]].concat()), "").json();
        assert_eq!(answer["schema_version"], 1, "{args:?}");
        let mut found = BTreeSet::new();
        names(&answer, &mut found);
        let plain = |name: &String| name.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_');
        assert!(found.iter().all(plain), "{args:?}: {found:?}");
    }
}
