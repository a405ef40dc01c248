//! Every import of every world, function by function: gated, or harmless. And for each one that is gated,
//! what happens without a grant (nothing, and a typed answer) and with one (it, once).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use pcoder_runtime::Runtime;
use pcoder_runtime::audit::Nowhere;
use pcoder_runtime::capability::Class::{self, Exec, Files, Net, Secrets, Service, Target};
use pcoder_runtime::inspect::{Guard as Declared, imports_of, inspect};
use pcoder_runtime::manifest::{Capabilities, Kind};
use pcoder_runtime::process::Processes;
use pcoder_tests::{Grant, House, root};
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{ManglingAndAbi, PackageId, Resolve, WorldItem};

use crate::double::{Instance, secrets};
use crate::http::Server;
use crate::{sshd, websocket};

/// How one function is guarded.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Guard {
    /// By the gate, as this class and verb.
    Gated(Class, &'static str),
    /// It reaches nothing that could be granted, for this reason.
    Harmless(&'static str),
}
use Guard::{Gated, Harmless};

/// Interfaces whose functions are all alike, each named.
const ALIKE: &[(&str, Guard, &str)] = &[
    ("pcoder:plugin/types", Harmless("types only"), ""),
    ("pcoder:plugin/log", Harmless("lines are bounded, redacted and made safe to show"), "log"),
    (
        "pcoder:plugin/stdio",
        Harmless("the caller gave these streams to this very call"),
        "stdio.terminal stdio.subscribe-resize stdio.input-size stdio.stdin stdio.stdout stdio.stderr",
    ),
    (
        "pcoder:plugin/secrets",
        Harmless("counts bytes, with values whose placeholders a gated function gave out"),
        "filled-size",
    ),
    ("pcoder:plugin/settings", Harmless("says what its user set for it, by the names in its manifest"), "get"),
    (
        "pcoder:plugin/service",
        Harmless("hears what a program says to a talk that a gated function began"),
        "conversation.receive conversation.subscribe",
    ),
    (
        "pcoder:plugin/websocket",
        Harmless("moves messages of a connection that a gated function opened, within the call's budget"),
        "connection.send connection.receive connection.subscribe",
    ),
    ("wasi:io/error", Harmless("describes errors of streams that the call has already"), "error.to-debug-string"),
    ("wasi:io/poll", Harmless("waits, within the call's deadline"), "pollable.ready pollable.block poll"),
    (
        "wasi:io/streams",
        Harmless("moves bytes of streams that a gated function gave out"),
        "input-stream.read input-stream.blocking-read input-stream.skip input-stream.blocking-skip \
         input-stream.subscribe output-stream.check-write output-stream.write \
         output-stream.blocking-write-and-flush output-stream.flush output-stream.blocking-flush \
         output-stream.subscribe output-stream.write-zeroes output-stream.blocking-write-zeroes-and-flush \
         output-stream.splice output-stream.blocking-splice",
    ),
    (
        "wasi:clocks/monotonic-clock",
        Harmless("tells time, and waits within the call's deadline"),
        "now resolution subscribe-instant subscribe-duration",
    ),
    ("wasi:clocks/wall-clock", Harmless("tells time"), "now resolution"),
    ("wasi:random/random", Harmless("gives random bytes"), "get-random-bytes get-random-u64"),
    (
        "wasi:http/types",
        Harmless("builds requests and reads answers; sends nothing"),
        "fields.constructor fields.from-list fields.get fields.has fields.set fields.delete fields.append \
         fields.entries fields.clone incoming-request.method incoming-request.path-with-query \
         incoming-request.scheme incoming-request.authority incoming-request.headers incoming-request.consume \
         outgoing-request.constructor outgoing-request.body outgoing-request.method outgoing-request.set-method \
         outgoing-request.path-with-query outgoing-request.set-path-with-query outgoing-request.scheme \
         outgoing-request.set-scheme outgoing-request.authority outgoing-request.set-authority \
         outgoing-request.headers request-options.constructor request-options.connect-timeout \
         request-options.set-connect-timeout request-options.first-byte-timeout \
         request-options.set-first-byte-timeout request-options.between-bytes-timeout \
         request-options.set-between-bytes-timeout response-outparam.set incoming-response.status \
         incoming-response.headers incoming-response.consume incoming-body.stream incoming-body.finish \
         future-trailers.subscribe future-trailers.get outgoing-response.constructor outgoing-response.status-code \
         outgoing-response.set-status-code outgoing-response.headers outgoing-response.body outgoing-body.write \
         outgoing-body.finish future-incoming-response.subscribe future-incoming-response.get http-error-code",
    ),
    ("wasi:random/insecure", Harmless("gives random bytes"), "get-insecure-random-bytes get-insecure-random-u64"),
    ("wasi:random/insecure-seed", Harmless("gives random bytes"), "insecure-seed"),
    (
        "wasi:cli/environment",
        Harmless("no variables, no arguments, no working folder"),
        "get-environment get-arguments initial-cwd",
    ),
    ("wasi:cli/exit", Harmless("ends this one call, as a crash"), "exit exit-with-code"),
    ("wasi:cli/stdin", Harmless("an input that has ended"), "get-stdin"),
    ("wasi:cli/stdout", Harmless("the plugin's log, with its limits"), "get-stdout"),
    ("wasi:cli/stderr", Harmless("the plugin's log, with its limits"), "get-stderr"),
    ("wasi:cli/terminal-input", Harmless("there is no terminal"), ""),
    ("wasi:cli/terminal-output", Harmless("there is no terminal"), ""),
    ("wasi:cli/terminal-stdin", Harmless("there is no terminal"), "get-terminal-stdin"),
    ("wasi:cli/terminal-stdout", Harmless("there is no terminal"), "get-terminal-stdout"),
    ("wasi:cli/terminal-stderr", Harmless("there is no terminal"), "get-terminal-stderr"),
    ("wasi:filesystem/preopens", Harmless("an empty list"), "get-directories"),
    (
        "wasi:filesystem/types",
        Harmless("works on descriptors, and nobody gives one out"),
        "descriptor.read-via-stream descriptor.write-via-stream descriptor.append-via-stream \
         descriptor.advise descriptor.sync-data descriptor.get-flags descriptor.get-type descriptor.set-size \
         descriptor.set-times descriptor.read descriptor.write descriptor.read-directory descriptor.sync \
         descriptor.create-directory-at descriptor.stat descriptor.stat-at descriptor.set-times-at \
         descriptor.link-at descriptor.open-at descriptor.readlink-at descriptor.remove-directory-at \
         descriptor.rename-at descriptor.symlink-at descriptor.unlink-file-at descriptor.is-same-object \
         descriptor.metadata-hash descriptor.metadata-hash-at directory-entry-stream.read-directory-entry \
         filesystem-error-code",
    ),
    ("wasi:sockets/network", Harmless("a handle that allows nothing"), ""),
    ("wasi:sockets/instance-network", Harmless("gives a handle that allows nothing"), "instance-network"),
    (
        "wasi:sockets/ip-name-lookup",
        Harmless("every lookup is refused before it is made"),
        "resolve-address-stream.resolve-next-address resolve-address-stream.subscribe resolve-addresses",
    ),
    ("wasi:sockets/tcp-create-socket", Harmless("every socket is refused before it is made"), "create-tcp-socket"),
    ("wasi:sockets/udp-create-socket", Harmless("every socket is refused before it is made"), "create-udp-socket"),
    (
        "wasi:sockets/tcp",
        Harmless("works on sockets, and none is ever created"),
        "tcp-socket.start-bind tcp-socket.finish-bind tcp-socket.start-connect tcp-socket.finish-connect \
         tcp-socket.start-listen tcp-socket.finish-listen tcp-socket.accept tcp-socket.local-address \
         tcp-socket.remote-address tcp-socket.is-listening tcp-socket.address-family \
         tcp-socket.set-listen-backlog-size tcp-socket.keep-alive-enabled tcp-socket.set-keep-alive-enabled \
         tcp-socket.keep-alive-idle-time tcp-socket.set-keep-alive-idle-time tcp-socket.keep-alive-interval \
         tcp-socket.set-keep-alive-interval tcp-socket.keep-alive-count tcp-socket.set-keep-alive-count \
         tcp-socket.hop-limit tcp-socket.set-hop-limit tcp-socket.receive-buffer-size \
         tcp-socket.set-receive-buffer-size tcp-socket.send-buffer-size tcp-socket.set-send-buffer-size \
         tcp-socket.subscribe tcp-socket.shutdown",
    ),
    (
        "wasi:sockets/udp",
        Harmless("works on sockets, and none is ever created"),
        "udp-socket.start-bind udp-socket.finish-bind udp-socket.stream udp-socket.local-address \
         udp-socket.remote-address udp-socket.address-family udp-socket.unicast-hop-limit \
         udp-socket.set-unicast-hop-limit udp-socket.receive-buffer-size udp-socket.set-receive-buffer-size \
         udp-socket.send-buffer-size udp-socket.set-send-buffer-size udp-socket.subscribe \
         incoming-datagram-stream.receive incoming-datagram-stream.subscribe \
         outgoing-datagram-stream.check-send outgoing-datagram-stream.send outgoing-datagram-stream.subscribe",
    ),
];

/// One gated function, and a call of it.
struct Case {
    /// `interface function`, without versions.
    function: &'static str,
    /// The class and the verb of the first check.
    guard: (Class, &'static str),
    /// How a guest calls it; nothing where no guest can, and the reason is in `more`.
    call: &'static [&'static str],
    /// The further checks of one such call.
    more: &'static [(Class, &'static str)],
}

const fn case(function: &'static str, class: Class, verb: &'static str, call: &'static [&'static str]) -> Case {
    Case { function, guard: (class, verb), call, more: &[] }
}

const GATED: &[Case] = &[
    Case {
        more: &[(Net, "connect")],
        ..case("wasi:http/outgoing-handler handle", Net, "request", &["http", "GET", "URL"])
    },
    Case { more: &[(Net, "connect")], ..case("pcoder:plugin/websocket connect", Net, "open", &["ws", "WEBSOCKET"]) },
    Case {
        more: &[(Net, "connect")],
        ..case("pcoder:plugin/ssh read-file", Net, "read", &["ssh.read", "ENDPOINT", "/etc/passwd"])
    },
    Case {
        more: &[(Net, "connect")],
        ..case("pcoder:plugin/ssh write-file", Net, "write", &["ssh.write", "ENDPOINT", "PROOF", "text"])
    },
    Case {
        more: &[(Net, "connect")],
        ..case("pcoder:plugin/ssh capture", Net, "exec", &["ssh.capture", "ENDPOINT", "mkdir PROOF"])
    },
    // Without a placeholder, which is another check, there is nothing to ask about.
    Case {
        more: &[(Secrets, "public-key")],
        ..case("pcoder:plugin/ssh public-key", Secrets, "get", &["ssh.public-key", "LOGIN"])
    },
    Case {
        more: &[(Net, "connect")],
        ..case("pcoder:plugin/ssh forward", Net, "forward", &["ssh.forward", "ENDPOINT", "22"])
    },
    // Through `exec`, because only that has streams.
    Case { more: &[(Net, "connect")], ..case("pcoder:plugin/ssh exec", Net, "exec", &["exec", "ENDPOINT"]) },
    case("pcoder:plugin/process run", Exec, "run", &["exec", "mark"]),
    case("pcoder:plugin/process capture", Exec, "run", &["process.capture", "/bin/mkdir", "PROOF"]),
    // Its folder is one of the plugin's own.
    Case {
        more: &[(Files, "start")],
        ..case("pcoder:plugin/service start", Service, "start", &["service.start", "a", ".", "/bin/mkdir", "proof"])
    },
    case("pcoder:plugin/service status", Service, "status", &["service.status", "a"]),
    case("pcoder:plugin/service list", Service, "list", &["service.list"]),
    case("pcoder:plugin/service stop", Service, "stop", &["service.stop", "a"]),
    case("pcoder:plugin/service remove", Service, "remove", &["service.remove", "a"]),
    case("pcoder:plugin/service log-tail", Service, "log-tail", &["service.log-tail", "a"]),
    // Both need a program that runs: `service.rs` has them.
    case("pcoder:plugin/service talk", Service, "talk", &[]),
    case("pcoder:plugin/service conversation.send", Service, "send", &[]),
    case("pcoder:plugin/files read", Files, "read", &["files.read", "box", "file"]),
    case("pcoder:plugin/files write", Files, "write", &["files.write", "box", "proof", "text"]),
    case("pcoder:plugin/files write-atomic", Files, "write-atomic", &["files.write-atomic", "box", "proof", "text"]),
    case("pcoder:plugin/files list", Files, "list", &["files.list", "box", "."]),
    case("pcoder:plugin/files stat", Files, "stat", &["files.stat", "box", "file"]),
    // Both names are targets.
    Case {
        more: &[(Files, "rename")],
        ..case("pcoder:plugin/files rename", Files, "rename", &["files.rename", "box", "file", "proof"])
    },
    case("pcoder:plugin/files remove", Files, "remove", &["files.remove", "box", "file"]),
    case(
        "pcoder:plugin/files create-directory",
        Files,
        "create-directory",
        &["files.create-directory", "box", "proof"],
    ),
    case("pcoder:plugin/secrets get", Secrets, "get", &["secrets.get", "KEY"]),
    case("pcoder:plugin/target home-dir", Target, "home-dir", &["target.home-dir"]),
    case("pcoder:plugin/target run", Target, "run", &["target.run", "true"]),
    // No guest of a world with `target` can have a `stdio` to give it.
    case("pcoder:plugin/target exec", Target, "exec", &[]),
    case("pcoder:plugin/target read-file", Target, "read-file", &["target.read-file", "/a"]),
    case("pcoder:plugin/target write-file", Target, "write-file", &["target.write-file", "/a", "text"]),
    case(
        "pcoder:plugin/target write-file-atomic",
        Target,
        "write-file-atomic",
        &["target.write-file-atomic", "/a", "t"],
    ),
    case("pcoder:plugin/target file-exists", Target, "file-exists", &["target.file-exists", "/a"]),
    case("pcoder:plugin/target create-directory", Target, "create-directory", &["target.create-directory", "/a"]),
    case("pcoder:plugin/target delete-file", Target, "delete-file", &["target.delete-file", "/a"]),
    case("pcoder:plugin/target delete-directory", Target, "delete-directory", &["target.delete-directory", "/a"]),
];

/// `interface function` to its guard.
fn table() -> BTreeMap<String, Guard> {
    let alike = ALIKE.iter().flat_map(|(interface, guard, functions)| {
        functions.split_whitespace().map(move |function| (format!("{interface} {function}"), *guard))
    });
    let gated = GATED.iter().map(|case| (case.function.to_owned(), Gated(case.guard.0, case.guard.1)));
    alike.chain(gated).collect()
}

/// The contract, with the WASI that is vendored beside it.
fn contract() -> (Resolve, PackageId) {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root().join("wit").join("pcoder-plugin@0.1.0")).expect("the contract");
    (resolve, package)
}

/// What a plugin may name as an import: the imports of its world in `wit/`, and those of `wasi:cli/imports`, which is
/// everything of WASI but HTTP. Interface (with version) to functions.
fn imports(kind: Kind) -> BTreeMap<String, BTreeSet<String>> {
    let (resolve, package) = contract();
    let (_, wasi) = resolve.packages.iter().find(|(_, it)| it.name.to_string().starts_with("wasi:cli@")).expect("WASI");
    let mut found = BTreeMap::new();
    for world in [resolve.packages[package].worlds[kind.world()], wasi.worlds["imports"]] {
        for (key, item) in &resolve.worlds[world].imports {
            let WorldItem::Interface { id, .. } = item else { panic!("{key:?} is not an interface") };
            let functions = resolve.interfaces[*id].functions.keys().map(|name| plain(name)).collect();
            found.insert(resolve.name_world_key(key), functions);
        }
    }
    found
}

/// `[method]stdio.stdin` is `stdio.stdin`.
fn plain(name: &str) -> String {
    match name.strip_prefix("[constructor]") {
        Some(resource) => format!("{resource}.constructor"),
        None => name.rsplit(']').next().unwrap_or(name).to_owned(),
    }
}

/// Functions that ask about something else than their interface does: whose key a login is with is about a secret, and
/// nobody is connected to.
const OF_ANOTHER_CLASS: [&str; 1] = ["pcoder:plugin/ssh public-key"];

fn unversioned(interface: &str) -> &str {
    interface.split('@').next().unwrap_or(interface)
}

#[test]
fn every_function_of_every_world_is_in_the_table_and_the_table_has_no_other() {
    let table = table();
    let mut seen = BTreeSet::new();
    for kind in Kind::ALL {
        for (interface, functions) in imports(kind) {
            for function in functions {
                let name = format!("{} {function}", unversioned(&interface));
                assert!(table.contains_key(&name), "{kind}: `{name}` is guarded by nobody; add it to the matrix");
                seen.insert(name);
            }
        }
    }
    let stale: Vec<_> = table.keys().filter(|name| !seen.contains(*name)).collect();
    assert!(stale.is_empty(), "in no world: {stale:?}");
}

#[test]
fn what_the_runtime_declares_is_what_the_worlds_import() {
    let table = table();
    for kind in Kind::ALL {
        let declared: BTreeMap<_, _> = imports_of(kind).into_iter().map(|it| (it.name.to_owned(), it.guard)).collect();
        for (interface, functions) in imports(kind) {
            let guards: Vec<Guard> =
                functions.iter().map(|it| table[&format!("{} {it}", unversioned(&interface))]).collect();
            match declared.get(&interface) {
                None => panic!("{kind}: {interface} is served by nobody"),
                Some(Declared::Harmless(reason)) => {
                    assert!(!reason.is_empty());
                    assert!(guards.iter().all(|it| matches!(it, Harmless(_))), "{kind}: {interface} needs the gate");
                }
                Some(Declared::Gated(class)) => {
                    // What works on a resource that a gated function made needs no gate of its own.
                    let gated = guards.iter().filter(|it| matches!(it, Gated(other, _) if other == class)).count();
                    let harmless = guards.iter().filter(|it| matches!(it, Harmless(_))).count();
                    let others = functions
                        .iter()
                        .filter(|it| OF_ANOTHER_CLASS.contains(&format!("{} {it}", unversioned(&interface)).as_str()));
                    let all = gated + harmless + others.count();
                    assert!(gated > 0 && all == guards.len(), "{kind}: {interface} is {class:?}");
                }
            }
        }
        let in_world = imports(kind);
        let more: Vec<_> = declared.keys().filter(|it| !in_world.contains_key(*it)).collect();
        assert!(more.is_empty(), "{kind}: the runtime offers what the world does not import: {more:?}");
    }
}

/// A component that imports all these interfaces with every function that they have, and exports what its kind does.
fn importing(kind: Kind, interfaces: &BTreeSet<String>) -> Vec<u8> {
    let (mut resolve, _) = contract();
    let imports: String = interfaces.iter().map(|name| format!("import {name};\n")).collect();
    let text = format!("package test:all;\nworld all {{ {imports} export pcoder:plugin/{kind}@0.1.0; }}");
    let package = resolve.push_str("all.wit", &text).expect("a world");
    let world = resolve.packages[package].worlds["all"];
    let mut module = dummy_module(&resolve, world, ManglingAndAbi::Standard32);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("metadata");
    let encoder = ComponentEncoder::default().validate(true).module(&module).expect("a module");
    let component = { encoder }.encode().expect("a component");
    let manifest =
        format!("description = \"x\"\nname = \"x\"\nversion = \"1.0.0\"\nkind = \"{kind}\"\ncontract = \"0.1.0\"\n");
    pcoder_tests::with_manifest(component, &manifest)
}

#[test]
fn the_linker_has_every_function_that_is_declared_and_no_other_interface() {
    let runtime = Runtime::new(Arc::new(Nowhere), Processes::new(false), None).expect("a runtime");
    let names = |kind: Kind| imports(kind).into_keys().collect::<BTreeSet<String>>();
    for kind in Kind::ALL {
        let served = names(kind);
        // What only other kinds have. Types come along with whatever uses them.
        let others: Vec<String> = Kind::ALL.into_iter().flat_map(names).filter(|it| !served.contains(it)).collect();
        assert!(!others.is_empty(), "{kind} has everything");
        let whole = importing(kind, &served);
        let inspection = inspect(&whole).expect("a plugin");
        let imported: BTreeSet<String> = inspection.imports.iter().cloned().collect();
        assert_eq!(imported, served, "{kind}");
        if let Err(error) = runtime.load(&whole, None, |_| Capabilities::default()) {
            panic!("{kind}: {error:?}");
        }
        for other in others {
            let component = importing(kind, &[other.clone()].into());
            let refused = runtime.load(&component, None, |_| Capabilities::default()).err().expect("refused");
            assert!(refused.is("unsupported"), "{other}: {refused:?}");
        }
    }
}

/// What a call could have changed.
struct Scene {
    folder: tempfile::TempDir,
    server: Server,
    sockets: websocket::Server,
    machine: sshd::Server,
    instance: Arc<Instance>,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("box")).expect("a folder");
        std::fs::write(folder.path().join("box/file"), "content").expect("a file");
        Self {
            folder,
            server: Server::start(|_| "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi".into()),
            sockets: websocket::Server::echo(),
            machine: sshd::Server::start(),
            instance: Arc::default(),
        }
    }

    fn state(&self) -> (Vec<String>, usize, Vec<String>) {
        let requests = self.server.requests().len() + self.sockets.requests().len() + self.machine.connections();
        (tree(self.folder.path()), requests, self.instance.calls())
    }

    fn request(&self, kind: Kind) -> String {
        let files = "[[files]]\nroot = \"box\"\naccess = \"read-write\"\n";
        let target = "[target]\n";
        let secrets = "[[secrets]]\nname = \"KEY\"\nto = [\"target\"]\n";
        match kind {
            Kind::Provider => format!(
                "{files}{secrets}[[secrets]]\nname = \"LOGIN\"\nto = [\"ssh://127.0.0.1:*/\"]\n\
                 [[files]]\nroot = \"state\"\naccess = \"read-write\"\n\
                 [[service]]\nprogram = \"/bin/mkdir\"\noptions = [\"proof\"]\n\
                 [[exec]]\nprogram = \"as called\"\n[[exec]]\nprogram = \"/bin/mkdir\"\nargs = [\"<any>\"]\n\
                 [[net]]\nurl = \"{}\"\nmethods = [\"GET\"]\naddresses = [\"loopback\"]\n\
                 [[net]]\nurl = \"{}\"\naddresses = [\"loopback\"]\n\
                 [[net]]\nurl = \"{}\"\naddresses = [\"loopback\"]\n",
                self.server.url("/"),
                self.sockets.url("/"),
                self.machine.url()
            ),
            Kind::ProcessManager => format!("{files}{target}"),
            Kind::Credentials => format!("{secrets}{target}"),
            _ => String::new(),
        }
    }

    fn context(&self) -> pcoder_runtime::call::CallContext {
        pcoder_runtime::call::CallContext {
            roots: ["box", "state"].map(|root| (root.to_owned(), self.folder.path().join("box"))).into(),
            services: Some(Arc::new(crate::services(self.folder.path()))),
            target: Some(Arc::clone(&self.instance) as _),
            secrets: secrets(&[("KEY", "value-of-the-key"), ("LOGIN", &sshd::key("user"))]),
            ..Default::default()
        }
    }

    /// Makes the call and says with which code it ended; an empty one when it succeeded.
    async fn call(&self, kind: Kind, case: &Case, house: &House) -> String {
        let (url, socket) = (self.server.url("/"), self.sockets.url("/"));
        let endpoint = self.machine.endpoint(&sshd::key("user")).join(pcoder_tests::SEPARATOR);
        let proof = self.folder.path().join("proof").display().to_string();
        let call: Vec<&str> = case
            .call
            .iter()
            .map(|word| match *word {
                "URL" => url.as_str(),
                "WEBSOCKET" => socket.as_str(),
                "ENDPOINT" => endpoint.as_str(),
                "PROOF" => proof.as_str(),
                other => other,
            })
            .collect();
        let joined = call.join(pcoder_tests::SEPARATOR);
        let code = |result: Result<(), pcoder_runtime::Error>| match result {
            Ok(()) => String::new(),
            Err(error) => {
                assert!(!error.is("denied") || error.hint.is_some(), "a denial names the way out: {error:?}");
                error.code.to_string()
            }
        };
        match kind {
            Kind::Provider if call[0] == "exec" => {
                let command = pcoder_tests::argv("/bin/mkdir", &[&proof]);
                let mut context = self.context();
                context.called.command = Some(command.clone());
                let stdio = crate::streams::nothing();
                let id = if case.guard.0 == Net { format!("ssh\u{1f}{endpoint}") } else { "as it is".to_owned() };
                let provider = house.plugin.provider().expect("a provider");
                code(provider.exec(context, &id, &command, stdio).await.map(drop))
            }
            Kind::Provider => {
                let answer = house.step(self.context(), &call).await;
                let (code, rest) = answer.split_once(' ').expect("an answer");
                assert!(code != "denied" || call[0] == "http" || rest.contains("`pcoder plugin "), "{answer}");
                if code == "ok" { String::new() } else { code.to_owned() }
            }
            Kind::ProcessManager => {
                let mut command = pcoder_tests::argv("true", &[]);
                command.name = Some(joined);
                let spec = pcoder_runtime::contract::ProcessSpec {
                    command,
                    restart: pcoder_runtime::contract::Restart::Never,
                    instances: None,
                    max_memory: None,
                    options: Vec::new(),
                };
                let manager = house.plugin.process_manager().expect("a manager");
                code(manager.start(self.context(), &spec).await.map(drop))
            }
            _ => {
                let installer = house.plugin.credentials().expect("an installer");
                code(installer.install(self.context(), &joined).await)
            }
        }
    }
}

/// Everything below a folder, with sizes.
fn tree(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(tree(&path));
        }
        found.push(format!("{} {}", path.display(), path.metadata().map_or(0, |it| it.len())));
    }
    found.sort();
    found
}

fn cases(kind: Kind) -> Vec<&'static Case> {
    let imported: BTreeSet<String> = imports(kind)
        .into_iter()
        .flat_map(|(interface, functions)| {
            let interface = unversioned(&interface).to_owned();
            functions.into_iter().map(move |function| format!("{interface} {function}"))
        })
        .collect();
    GATED.iter().filter(|case| imported.contains(case.function) && !case.call.is_empty()).collect()
}

const KINDS: [(Kind, &str); 3] = [
    (Kind::Provider, "hostile"),
    (Kind::ProcessManager, "hostile-manager"),
    (Kind::Credentials, "hostile-credentials"),
];

#[tokio::test]
async fn without_a_grant_nothing_happens_and_the_answer_is_a_value() {
    for (kind, component) in KINDS {
        for case in cases(kind) {
            let scene = Scene::new();
            let house = House::load(component, &scene.request(kind), Grant::Nothing);
            let before = scene.state();
            assert_eq!(scene.call(kind, case, &house).await, "denied", "{kind}: {}", case.function);
            assert_eq!(scene.state(), before, "{kind}: {} did something", case.function);
            let (class, verb) = case.guard;
            assert_eq!(house.decisions(), [(class, verb, false)], "{kind}: {}", case.function);
            assert_eq!(house.effects(), [], "{kind}: {}", case.function);
        }
    }
}

#[tokio::test]
async fn what_was_never_asked_for_cannot_be_granted() {
    for (kind, component) in KINDS {
        for case in cases(kind) {
            let scene = Scene::new();
            let wide = scene.request(kind);
            let house = House::load(component, "", Grant::Only(&wide));
            let before = scene.state();
            assert_eq!(scene.call(kind, case, &house).await, "denied", "{kind}: {}", case.function);
            assert_eq!(scene.state(), before, "{kind}: {} did something", case.function);
        }
    }
}

#[tokio::test]
async fn with_a_grant_it_happens_once() {
    for (kind, component) in KINDS {
        for case in cases(kind) {
            let scene = Scene::new();
            let house = House::load(component, &scene.request(kind), Grant::All);
            let before = scene.state();
            assert_eq!(scene.call(kind, case, &house).await, "", "{kind}: {}", case.function);
            let after = scene.state();
            match case.guard {
                (Net, _) => assert_eq!(after.1, 1),
                (Target, verb) => assert_eq!(after.2, [verb]),
                (Files, "read" | "list" | "stat") | (Secrets, _) => assert_eq!(after, before),
                (Service, verb) if verb != "start" => assert_eq!(after, before),
                _ => assert_ne!(after.0, before.0, "{kind}: {} did nothing", case.function),
            }
            let checks: Vec<_> = std::iter::once(case.guard).chain(case.more.iter().copied()).collect();
            let decisions: Vec<_> = checks.iter().map(|&(class, verb)| (class, verb, true)).collect();
            assert_eq!(house.decisions(), decisions, "{kind}: {}", case.function);
            let mut effects = house.effects();
            effects.sort();
            let mut expected: Vec<_> = checks.iter().map(|&(class, verb)| (class, verb, "ok".to_owned())).collect();
            expected.sort();
            assert_eq!(effects, expected, "{kind}: {}", case.function);
        }
    }
}
