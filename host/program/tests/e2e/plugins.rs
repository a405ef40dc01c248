//! A stranger's plugin, from the first look to its removal.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::Value;

use crate::component::{PLAIN, refusable, third_party};
use crate::support::{Outcome, World, finish};

fn pcoder(world: &World, args: &[&str]) -> Outcome {
    finish(world.pcoder(args), "")
}

/// Times, digests and places are not the same twice.
fn shown(outcome: &Outcome) -> String {
    outcome.shown()
}

fn filters() -> Vec<(&'static str, &'static str)> {
    vec![
        ("[0-9a-f]{64}", "[DIGEST]"),
        ("offset 0x[0-9a-f]+", "offset [OFFSET]"),
        ("sha256 [0-9a-f]{16}…", "sha256 [SHORT]…"),
        (r"[0-9.]+ KiB", "[SIZE]"),
        (r"\S*e2e-\w+", "[WORLD]"),
    ]
}

pub(crate) const WIDER: &str = r#"
[[net]]
url = "http://127.0.0.1/v1"
methods = ["GET"]
addresses = ["loopback"]
reason = "Asks its service."

[[secrets]]
name = "THIRDPARTY_KEY"
to = ["http://127.0.0.1/v1"]
reason = "Logs in there."
"#;

/// Of its digest, what a person compares.
#[test]
fn a_strangers_plugin_is_shown_refused_without_consent_and_asked_about_again_when_it_was_rebuilt() {
    let world = World::new();
    let folder = world.path("project");
    third_party(&folder, "first.wasm", "1.0.0", PLAIN);

    // What it asks for is shown, and without anybody's word nothing is added.
    let refused = pcoder(&world, &["plugin", "add", "first.wasm"]);
    insta::with_settings!({ filters => filters() }, { insta::assert_snapshot!(shown(&refused), @r"
        exit 7
        -- stderr
        provider-thirdparty 1.0.0 (provider)
          Runs commands here, and keeps count of them.
          contract 0.1.0, [SIZE], sha256 [DIGEST]

        Asks for:
          run as called
              Runs the command that you asked for.
          read and write files of `state`
              Counts the commands that it ran.

        Can never (it does not import what that needs):
          touch the instance that it is called for

        error: nobody is there to agree to what it asks for
          in plugin.add: provider-thirdparty

        hint: nothing was changed; `--yes` grants what is shown, `--only CLASS,…` a part of it
        ") });
    assert!(!world.path("pcoder").join("plugins.lock").exists());
    let unknown = pcoder(&world, &["run", "claude", "--provider", "thirdparty"]);
    assert_eq!(unknown.code, Some(3), "{unknown:#?}");

    let added = pcoder(&world, &["plugin", "add", "first.wasm", "--yes", "--json"]);
    assert_eq!((added.code, &added.json()["asked"]), (Some(0), &Value::from("everything")), "{added:#?}");
    let again = pcoder(&world, &["plugin", "add", "first.wasm", "--json"]);
    assert_eq!((again.code, &again.json()["asked"]), (Some(0), &Value::from("nothing")), "the very same bytes");

    // It does what it was granted.
    let project = world.project("p");
    let run = || {
        let mut command = world.pcoder(&["run", "claude", "--provider", "thirdparty", "--project"]);
        command.arg(&project).args(["--", "-p"]);
        finish(command, "@say through a stranger")
    };
    assert_eq!(run().printed().trim(), "through a stranger");
    let count = world.path("pcoder").join("plugins/provider-thirdparty/count.txt");
    assert_eq!(std::fs::read_to_string(&count).expect("its own file"), "1");

    // Rebuilt with nothing more, it is other bytes all the same; with more, only that is asked about.
    third_party(&folder, "second.wasm", "1.0.1", PLAIN);
    let other = pcoder(&world, &["plugin", "add", "second.wasm"]);
    insta::with_settings!({ filters => filters() }, { insta::assert_snapshot!(shown(&other), @r"
        exit 7
        -- stderr
        provider-thirdparty is there already, as other bytes: version 1.0.0, sha256 [SHORT]… (these are version 1.0.1, sha256 [SHORT]…).
        It asks for nothing more. It would keep:
          run as called
              Runs the command that you asked for.
          read and write files of `state`
              Counts the commands that it ran.

        error: nobody is there to agree to what it asks for
          in plugin.add: provider-thirdparty

        hint: nothing was changed; `--yes` grants what is shown, `--only CLASS,…` a part of it
        ") });
    third_party(&folder, "third.wasm", "1.1.0", &format!("{PLAIN}{WIDER}"));
    let widened = pcoder(&world, &["plugin", "add", "third.wasm"]);
    insta::with_settings!({ filters => filters() }, { insta::assert_snapshot!(shown(&widened), @r"
        exit 7
        -- stderr
        provider-thirdparty is there already, as other bytes: version 1.0.0, sha256 [SHORT]… (these are version 1.1.0, sha256 [SHORT]…).
        Beyond what was granted, it asks for:
          reach GET http://127.0.0.1/v1, also at loopback addresses
              Asks its service.
          name the secret THIRDPARTY_KEY, for http://127.0.0.1/v1
              Logs in there.

        error: nobody is there to agree to what it asks for
          in plugin.add: provider-thirdparty

        hint: nothing was changed; `--yes` grants what is shown, `--only CLASS,…` a part of it
        ") });
    let listed = pcoder(&world, &["plugin", "list", "--json"]).json();
    let version = |list: &Value| {
        let all = list["plugins"].as_array().expect("a list").clone();
        all.into_iter().find(|it| it["name"] == "provider-thirdparty").expect("it is there")["version"].clone()
    };
    assert_eq!(version(&listed), "1.0.0", "refused, the old one stays");
    assert_eq!(run().printed().trim(), "through a stranger");

    // A part of it: the rest is denied, and the denial names the command.
    let part = pcoder(&world, &["plugin", "add", "third.wasm", "--yes", "--only=", "--json"]);
    assert_eq!(version(&pcoder(&world, &["plugin", "list", "--json"]).json()), "1.1.0", "{part:#?}");
    assert_eq!(run().printed().trim(), "through a stranger", "what was granted before stays");

    // What it did is on record, with its digest.
    let digest = added.json()["sha256"].as_str().expect("a digest").to_owned();
    let audit = pcoder(&world, &["audit", "show", "--plugin", "provider-thirdparty", "--all", "--json"]);
    let records: Vec<Value> =
        audit.printed().lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
    let schema: Value = serde_json::from_str(include_str!("../../../../docs/audit.schema.json")).expect("JSON");
    let schema = jsonschema::draft202012::new(&schema).expect("a schema");
    let everything = pcoder(&world, &["audit", "show", "--all", "--json"]);
    for line in everything.printed().lines() {
        let record: Value = serde_json::from_str(line).expect("a record");
        assert!(schema.is_valid(&record), "{line}: {:?}", schema.validate(&record).map_err(|it| it.to_string()));
    }
    let effect = records.iter().find(|it| it["event"] == "effect" && it["class"] == "exec").expect("it ran something");
    assert_eq!(
        [&effect["digest"], &effect["verb"], &effect["outcome"]],
        [&Value::from(digest), &Value::from("run"), &Value::from("ok")]
    );
    assert!(
        records
            .iter()
            .any(|it| it["class"] == "files" && it["verb"] == "write-atomic" && it["target"] == "state:count.txt"),
        "{records:#?}"
    );

    // And a line that was changed by hand is named.
    let verified = pcoder(&world, &["audit", "verify"]);
    assert!(verified.printed().starts_with("the audit is whole: "), "{verified:#?}");
    let file = world.path("pcoder/audit.jsonl");
    let text = std::fs::read_to_string(&file).expect("the audit");
    let line = text.lines().position(|line| line.contains("\"target\":\"state:count.txt\"")).expect("a line");
    let changed: Vec<String> = text
        .lines()
        .enumerate()
        .map(|(at, it)| if at == line { it.replacen("count.txt", "other.txt", 1) } else { it.to_owned() })
        .collect();
    std::fs::write(&file, changed.join("\n") + "\n").expect("changed by hand");
    let verified = pcoder(&world, &["audit", "verify"]);
    assert_eq!(verified.code, Some(5), "{verified:#?}");
    assert!(verified.stdout.contains(&format!("audit.jsonl, line {},", line + 1)), "{verified:#?}");
    assert!(verified.stdout.contains("the line was changed"), "{verified:#?}");
}

/// A service that says what key it was asked with.
fn service() -> (u16, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a request");
        let mut request = Vec::new();
        let mut buffer = [0_u8; 4096];
        while !request.windows(4).any(|it| it == b"\r\n\r\n") {
            let count = stream.read(&mut buffer).expect("a request");
            request.extend_from_slice(&buffer[..count]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").expect("an answer");
        String::from_utf8_lossy(&request).into_owned()
    });
    (port, asked)
}

#[test]
fn a_denial_names_the_command_that_grants_it_and_that_command_does() {
    let world = World::new();
    let folder = world.path("project");
    let (port, asked) = service();
    let url = format!("http://127.0.0.1:{port}/v1");
    let wider = WIDER.replace("http://127.0.0.1/v1", &url);
    third_party(&folder, "it.wasm", "1.0.0", &format!("{PLAIN}{wider}"));
    pcoder(&world, &["plugin", "add", "it.wasm", "--yes", "--only", "exec,files"]).printed();
    let env = format!("THIRDPARTY_URL=value:{url}");
    let made =
        pcoder(&world, &["profile", "create", "asks", "--tool", "claude", "--provider", "thirdparty", "--env", &env]);
    assert_eq!(made.code, Some(0), "{made:#?}");
    std::fs::write(world.path("key.txt"), "canary-of-a-stranger-7\n").expect("a secret");
    let reference = format!("file:{}", world.path("key.txt").display());
    pcoder(&world, &["config", "set", "secrets.THIRDPARTY_KEY", &reference]).printed();

    let project = world.project("p");
    let run = || {
        let mut command = world.pcoder(&["run", "claude", "--profile", "asks", "--json", "--project"]);
        command.arg(&project).args(["--", "-p"]);
        finish(command, "@say asked")
    };
    for class in ["secrets", "net"] {
        let denied = run();
        let error: Value = serde_json::from_str(&denied.stderr).unwrap_or_else(|it| panic!("{it}: {denied:#?}"));
        assert_eq!((denied.code, &error["error"]["code"]), (Some(7), &Value::from("denied")), "{denied:#?}");
        let hint = error["error"]["hint"].as_str().unwrap_or_default().to_owned();
        let command = format!("pcoder plugin grant provider-thirdparty {class}");
        if class == "secrets" {
            assert!(hint.contains(&command), "{denied:#?}");
        }
        let words: Vec<&str> = command.split(' ').skip(1).chain(["--yes"]).collect();
        pcoder(&world, &words).printed();
    }
    assert_eq!(run().json()["stdout"].as_str().map(str::trim), Some("asked"));
    let request = asked.join().expect("it was asked");
    assert!(request.contains("x-key: canary-of-a-stranger-7\r\n"), "the host put the value in: {request}");

    // Taken away again, it is denied again.
    pcoder(&world, &["plugin", "revoke", "provider-thirdparty", "net"]).printed();
    assert_eq!(run().code, Some(7));
    pcoder(&world, &["plugin", "remove", "provider-thirdparty", "--purge"]).printed();
    assert!(!world.path("pcoder/plugins/provider-thirdparty").exists());
    let components = std::fs::read_dir(world.path("pcoder/components")).expect("a folder").count();
    assert_eq!(components, 0, "its bytes are gone too");
    assert_eq!(run().code, Some(3));
}

#[test]
fn what_is_built_in_can_be_narrowed_and_given_back() {
    let world = World::new();
    let run = || finish(world.run("claude", &world.project("p"), &["-p"]), "@say here");
    pcoder(&world, &["plugin", "revoke", "provider-local", "exec"]).printed();
    let denied = run();
    assert_eq!(denied.code, Some(7), "{denied:#?}");
    assert!(denied.stderr.contains("`pcoder plugin grant provider-local exec`"), "{denied:#?}");
    pcoder(&world, &["plugin", "grant", "provider-local", "exec", "--yes"]).printed();
    assert_eq!(run().printed().trim(), "here");
    let lock = std::fs::read_to_string(world.path("pcoder/plugins.lock")).expect("the lock");
    assert!(!lock.contains("provider-local"), "as it was made: {lock}");
    let kept = pcoder(&world, &["plugin", "remove", "provider-local"]);
    assert_eq!(kept.code, Some(3), "{kept:#?}");
}

#[test]
fn what_cannot_be_added_is_refused_with_the_reason_and_leaves_nothing() {
    let world = World::without_engines();
    let folder = world.path("project");
    refusable(&folder);
    third_party(&folder, "program.wasm", "1.0.0", "[[exec]]\nprogram = \"no-such-program-here\"\nargs = [\"ls\"]\n");
    std::fs::write(folder.join("text.wasm"), "no component").expect("a file");
    let good = std::fs::read(folder.join("good.wasm")).expect("a file");
    std::fs::write(folder.join("cut.wasm"), &good[..good.len() / 2]).expect("a file");
    let refused = |args: &[&str]| shown(&pcoder(&world, &[&["plugin", "add", "--yes"], args].concat()));
    let all = [
        refused(&["impostor.wasm"]),
        refused(&["misnamed.wasm"]),
        refused(&["rooted.wasm"]),
        refused(&["program.wasm"]),
        refused(&["text.wasm"]),
        refused(&["cut.wasm"]),
        refused(&["nowhere.wasm"]),
        refused(&["good.wasm", "--sha256", "0000"]),
        refused(&["good.wasm", "--only", "everything"]),
        refused(&["http://example.com/x.wasm"]),
        refused(&["https://127.0.0.1:9/x.wasm"]),
        refused(&["."]),
    ];
    insta::with_settings!({ filters => filters() }, { insta::assert_snapshot!(all.join("\n"), @r"
        exit 1
        -- stderr
        error: a plugin of that name is built in
          in plugin.add: provider-local

        hint: a plugin that was added cannot take its place; its author can give it another name

        exit 2
        -- stderr
        error: the name of a provider begins with `provider-`
          in plugin.add: thirdparty

        hint: its author names it so in `plugin.toml`

        exit 2
        -- stderr
        provider-thirdparty 1.0.0 (provider)
          Runs commands here, and keeps count of them.
          contract 0.1.0, [SIZE], sha256 [DIGEST]

        Asks for:
          read files of `data`

        Can never (it does not import what that needs):
          touch the instance that it is called for

        error: no folder is named for a root that it asks for
          in plugin.add: data

        hint: `--root data=FOLDER`, or leave `files` out: `--only CLASS,…`

        exit 3
        -- stderr
        provider-thirdparty 1.0.0 (provider)
          Runs commands here, and keeps count of them.
          contract 0.1.0, [SIZE], sha256 [DIGEST]

        Asks for:
          run no-such-program-here ls

        Can never (it does not import what that needs):
          touch the instance that it is called for

        error: there is no such program on the PATH
          in process.run: no-such-program-here

        hint: install it first, or leave `exec` out of what is granted: `--only CLASS,…`

        exit 2
        -- stderr
        error: it is not WebAssembly
          in plugin.inspect: text.wasm

        hint: give the component that `cargo xtask plugins` or your build made, a file that ends in `.wasm`

        exit 2
        -- stderr
        error: it is not valid WebAssembly: unexpected end-of-file (at offset [OFFSET])
          in plugin.inspect: cut.wasm

        exit 3
        -- stderr
        error: it is not there (os error 2)
          in plugin.add: [WORLD]/project/nowhere.wasm

        hint: give a component's file, or its `https://` address

        exit 5
        -- stderr
        error: its sha256 is [DIGEST], and not the one that was named
          in plugin.add: good.wasm

        hint: if `0000` is what its author published, name that

        exit 2
        -- stderr
        error: there is no such class of capability
          in plugin.grant: everything

        hint: the classes are exec, service, files, net, secrets and target

        exit 2
        -- stderr
        error: http://example.com/x.wasm: only https can be trusted with a program
          in plugin.add: http://example.com/x.wasm

        hint: use an `https://` address, or give a file

        exit 4
        -- stderr
        plugin: downloading
        error: cannot fetch `https://127.0.0.1:9/x.wasm`: error sending request: client error (Connect): tcp connect error: Connection refused (os error 111)
          in plugin.add: https://127.0.0.1:9/x.wasm

        hint: check the address, the network and the proxy; or download it elsewhere and give the file

        exit 1
        -- stderr
        error: it is not a file
          in plugin.add: [WORLD]/project/.

        hint: give a component's file, or its `https://` address
        ") });
    assert!(!world.path("pcoder/plugins.lock").exists());
}

#[test]
fn a_component_that_was_changed_after_it_was_added_does_not_run() {
    let world = World::new();
    third_party(&world.path("project"), "it.wasm", "1.0.0", PLAIN);
    let added = pcoder(&world, &["plugin", "add", "it.wasm", "--yes", "--json"]).json();
    let digest = added["sha256"].as_str().expect("a digest");
    let component = world.path("pcoder/components").join(format!("{digest}.wasm"));
    let mut bytes = std::fs::read(&component).expect("the component");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&component, bytes).expect("changed");
    let outcome = pcoder(&world, &["run", "claude", "--provider", "thirdparty"]);
    assert_eq!(outcome.code, Some(5), "{outcome:#?}");
    assert!(outcome.stderr.contains("other bytes than the ones that were added"), "{outcome:#?}");
    assert!(pcoder(&world, &["plugin", "list"]).printed().contains("broken"));
}

#[test]
fn a_policy_narrows_every_grant_and_one_that_cannot_be_enforced_stops_everything() {
    let world = World::new();
    let policy = world.path("policy.toml");
    let run = |text: &str| {
        std::fs::write(&policy, text).expect("a policy");
        let mut command = world.run("claude", &world.project("p"), &["-p"]);
        command.env("PCODER_POLICY", &policy);
        finish(command, "@say allowed")
    };
    let agents = "version = 1\n[[plugin]]\nname = \"agent-*\"\n";
    let all = format!("{agents}[[plugin]]\nname = \"provider-local\"\nall = true\n");
    assert_eq!(run(&all).printed().trim(), "allowed");

    let nothing = run(agents);
    assert_eq!(nothing.code, Some(7), "{nothing:#?}");
    assert!(nothing.stderr.contains("does not let the plugin `provider-local` run"), "{nothing:#?}");

    let narrow = run(&format!(
        "{agents}[[plugin]]\nname = \"provider-local\"\nfiles = [{{ root = \"called\", access = \"read\" }}]\n"
    ));
    assert_eq!(narrow.code, Some(7), "{narrow:#?}");
    assert!(
        narrow.stderr.contains("capability in the policy") && narrow.stderr.contains("ask the administrator"),
        "{narrow:#?}"
    );

    let other_bytes =
        run(&format!("{agents}[[plugin]]\nname = \"provider-*\"\nall = true\nsha256 = [\"{}\"]\n", "0".repeat(64)));
    assert_eq!(other_bytes.code, Some(7), "{other_bytes:#?}");

    let unknown = run(&format!("{all}allow-everything = true\n"));
    assert_eq!(unknown.code, Some(2), "{unknown:#?}");
    assert!(unknown.stderr.contains("unknown field `allow-everything`"), "{unknown:#?}");

    // Where the policy wants a record of everything, nothing happens without one.
    let strict = format!("audit-required = true\n{all}")
        .replace("audit-required = true\nversion = 1\n", "version = 1\naudit-required = true\n");
    assert_eq!(run(&strict).printed().trim(), "allowed");
    let audit = world.path("pcoder/audit.jsonl");
    std::fs::remove_file(&audit).expect("the audit");
    drop(std::fs::remove_file(world.path("pcoder/audit.head")));
    std::fs::create_dir(&audit).expect("a folder in its place");
    let unrecorded = run(&strict);
    assert_eq!(unrecorded.code, Some(7), "{unrecorded:#?}");
    assert!(unrecorded.stderr.contains("could not be recorded"), "{unrecorded:#?}");
    assert_eq!(run(&all).printed().trim(), "allowed", "without that rule it is a warning");
}

/// A compiler's input is a stranger's: it works in a process that has limits before it reads a byte.
#[cfg(target_os = "linux")]
#[test]
fn a_component_is_compiled_in_a_process_with_limits() {
    use std::process::Stdio;
    let world = World::without_engines();
    let mut command = world.pcoder(&["__compile"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the compiler starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // More than a pipe holds: when it is written, the other side reads.
    stdin.write_all(&vec![b'x'; 256 << 10]).expect("it reads");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).expect("it runs");
    let of = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {limits}"));
        line[name.len()..].split_whitespace().next().expect("a limit").to_owned()
    };
    assert_eq!(of("Max cpu time"), "600");
    assert_eq!(of("Max address space"), (6_u64 << 30).to_string());
    assert_eq!(of("Max file size"), "0");
    assert_eq!(of("Max core file size"), "0");
    assert_eq!(of("Max open files"), "64");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("it cannot be compiled: "), "{output:?}");
}
