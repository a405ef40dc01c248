//! The templates for plugins in other languages: real components, made by those languages' own tools.

use std::sync::Arc;

use pcoder_runtime::Runtime;
use pcoder_runtime::artifact::Cache;
use pcoder_runtime::audit::{Memory, Sink};
use pcoder_runtime::call::CallContext;
use pcoder_runtime::capability::Class::{Files, Net, Secrets};
use pcoder_runtime::contract::agent::{Launch, SessionInput};
use pcoder_runtime::contract::provider::BootOptions;
use pcoder_runtime::contract::{Command, ExitStatus, Output, Setting};
use pcoder_runtime::inspect::inspect;
use pcoder_runtime::manifest::Capabilities;
use pcoder_runtime::process::Processes;
use pcoder_tests::{Grant, House, template};

use crate::double::secrets;
use crate::http::Server;
use crate::logs;
use crate::streams;

const AGENT: &str = "agent-hello";
const PROVIDER: &str = "provider-box";

fn launch(args: &[&str]) -> Launch {
    Launch {
        engines: Vec::new(),
        args: args.iter().map(|&it| it.to_owned()).collect(),
        cwd: "/work".to_owned(),
        home_dir: "/home".to_owned(),
        env: vec![Setting { name: "A".to_owned(), value: "b".to_owned() }],
        options: Vec::new(),
    }
}

fn words(command: Command) -> Vec<String> {
    match command {
        Command::Argv(argv) => std::iter::once(argv.program).chain(argv.args).collect(),
        Command::Shell(script) => panic!("{script}"),
    }
}

#[tokio::test]
async fn an_agent_in_javascript_answers_every_question() {
    logs::capture();
    let house = House::template(AGENT, "", Grant::Nothing);
    let agent = house.plugin.agent().expect("an agent");
    let context = CallContext::default;
    let info = agent.info(context()).await.expect("info");
    assert_eq!((info.name.as_str(), &info.environment[..]), ("hello", &["HELLO_*".to_owned()][..]));
    let spec = agent.command(context(), &launch(&["grüße", "'quoted'"])).await.expect("a command");
    assert_eq!((spec.cwd.as_deref(), spec.env.len()), (Some("/work"), 1));
    assert_eq!(words(spec.command), ["printf", "hello %s\\n", "grüße 'quoted'"]);
    assert_eq!(logs::with("hello with 2 arguments").len(), 1);
    let input = SessionInput {
        prompt: "fix it".to_owned(),
        system_prompt: None,
        model: None,
        name: None,
        resume: None,
        launch: launch(&[]),
    };
    let process = agent.to_process_spec(context(), &input).await.expect("a process");
    assert_eq!(words(process.command.command)[2], "fix it");
    assert_eq!(logs::with("an unattended session").len(), 1, "what it prints is its log");
    let refused = agent.acp(context(), &launch(&[])).await.expect_err("it does not");
    assert_eq!((refused.code.as_ref(), refused.operation.as_ref()), ("unsupported", "agent.acp"));
    assert_eq!(info.account_environment, ["HELLO_KEY", "HELLO_URL"]);
    assert_eq!(info.api_key_variable.as_deref(), Some("HELLO_KEY"));
    let login = agent.login_command(context(), &launch(&[])).await.expect_err("it has none");
    let logout = agent.logout_command(context(), &launch(&[])).await.expect_err("it has none");
    assert_eq!([login.operation.as_ref(), logout.operation.as_ref()], ["agent.login-command", "agent.logout-command"]);
    let output =
        |code| Output { status: ExitStatus::Exited(code), stdout: b"hello you\n".to_vec(), stderr: Vec::new() };
    assert!(agent.auth_status(context(), &output(0)).await.expect("a state").logged_in);
    assert!(agent.auth_status(context(), &output(1)).await.expect_err("it failed").is("process"));
}

/// A service of boxes: one box, that echoes what it is told to run.
fn service() -> Server {
    Server::start(|head| {
        let body = |status: &str, more: &str, body: &str| {
            format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{more}connection: close\r\n\r\n{body}", body.len())
        };
        match head.lines().next().unwrap_or_default() {
            "POST /v1/boxes HTTP/1.1" => body("200 OK", "", "box-1\n"),
            "POST /v1/boxes/box-1/exec HTTP/1.1" => body("200 OK", "x-exit-code: 7\r\n", "hi\n"),
            "GET /v1/boxes/box-1 HTTP/1.1" | "DELETE /v1/boxes/box-1 HTTP/1.1" => body("200 OK", "", ""),
            _ => body("404 Not Found", "", "a secret of the service's own"),
        }
    })
}

fn boot(api: &str) -> BootOptions {
    BootOptions {
        image: None,
        name: None,
        ttl_seconds: None,
        ttl_action: None,
        project: None,
        options: vec![Setting { name: "api".to_owned(), value: api.to_owned() }],
    }
}

#[tokio::test]
async fn a_provider_in_python_uses_the_network_files_and_secrets_through_the_gate() {
    logs::capture();
    let (server, state) = (service(), tempfile::tempdir().expect("a folder"));
    let api = server.url("/v1/boxes");
    let request = format!(
        "[[net]]\nurl = \"{api}\"\nmethods = [\"GET\", \"POST\", \"DELETE\"]\naddresses = [\"loopback\"]\n\
         [[secrets]]\nname = \"BOX_API_KEY\"\nto = [\"{api}\"]\n\
         [[files]]\nroot = \"state\"\naccess = \"read-write\"\n"
    );
    let context = || CallContext {
        roots: [("state".to_owned(), state.path().to_owned())].into(),
        secrets: secrets(&[("BOX_API_KEY", "value-of-the-key")]),
        ..CallContext::default()
    };
    let house = House::template(PROVIDER, &request, Grant::All);
    let boxes = house.plugin.provider().expect("a provider");
    let started = boxes.boot(context(), &boot(&api)).await.expect("a box");
    assert_eq!((started.id.as_str(), started.status.as_str()), ("box-1", "ready"));
    assert_eq!(logs::with("started box-1").len(), 1, "what it prints is its log");
    // The value is in the request, put there by the host; the plugin had a placeholder.
    assert!(server.requests()[0].contains("authorization: Bearer value-of-the-key"), "{:?}", server.requests());
    // Another instance answers each call: what it knows is in its file.
    assert_eq!(boxes.list(context()).await.expect("boxes").len(), 1);
    assert!(state.path().join("boxes.json").is_file());
    let command = pcoder_tests::argv("echo", &["hi"]);
    let (stdio, output) = streams::piped();
    let status = boxes.exec(context(), "box-1", &command, stdio).await.expect("it ran");
    assert_eq!((status, streams::read_to_end(output).await.as_str()), (ExitStatus::Exited(7), "hi\n"));
    let missing = boxes.get(context(), "../admin").await.expect_err("no box");
    assert!(missing.is("not-found"), "{missing:?}");
    boxes.terminate(context(), "box-1").await.expect("it is gone");
    assert!(boxes.list(context()).await.expect("boxes").is_empty());
    assert!(boxes.fork(context(), "box-1").await.expect_err("it cannot").is("unsupported"));
    for class in [Net, Files, Secrets] {
        assert!(house.decisions().iter().any(|it| it.0 == class && it.2), "{class:?} was not asked for");
    }
    // Nothing granted: nothing happens, and the answer is a value.
    let (server, house) = (service(), House::template(PROVIDER, &request, Grant::Nothing));
    let boxes = house.plugin.provider().expect("a provider");
    let denied = boxes.boot(context(), &boot(&server.url("/v1/boxes"))).await.expect_err("denied");
    assert!(denied.is("denied") && server.requests().is_empty(), "{denied:?}");
}

#[test]
fn a_template_says_what_it_can_never_do() {
    let agent = inspect(&template(AGENT)).expect("a plugin");
    assert_eq!(agent.impossible().len(), 5, "{:?}", agent.imports);
    let provider = inspect(&template(PROVIDER)).expect("a plugin");
    assert_eq!(
        provider.impossible(),
        ["run programs on this host", "touch the instance that it is called for"],
        "{:?}",
        provider.imports
    );
}

/// The compiled code that is kept of a template, and since when.
fn kept(name: &str) -> Vec<(std::ffi::OsString, std::time::SystemTime)> {
    let folder = std::fs::read_dir(pcoder_tests::template_code(name)).expect("a folder");
    let entry = |it: std::fs::DirEntry| (it.file_name(), it.metadata().and_then(|it| it.modified()).expect("a time"));
    let mut entries: Vec<_> = folder.map(|it| entry(it.expect("an entry"))).collect();
    entries.sort();
    entries
}

#[test]
fn a_large_component_is_compiled_once_and_fits_a_program_that_makes_few_calls() {
    let _turn = pcoder_tests::template_turn();
    for name in [AGENT, PROVIDER] {
        // The first one may find what an earlier run compiled. The second one finds it for certain.
        let mut times = Vec::new();
        for _ in 0..2 {
            let cache = Cache::open(&pcoder_tests::template_code(name)).expect("a cache");
            let sink: Arc<dyn Sink> = Arc::new(Memory::default());
            let runtime = Runtime::with_room(4, sink, Processes::new(false), Some(cache)).expect("a runtime");
            runtime.load(&template(name), None, |_| Capabilities::default()).expect("it loads");
            times.push(kept(name));
        }
        assert!(!times[0].is_empty() && times[0] == times[1], "{name} was compiled again");
    }
}
