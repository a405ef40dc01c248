//! Every documented exit code, with what is said beside it.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::Value;

use crate::component::{PLAIN, named, third_party};
use crate::support::{Outcome, World, finish};

fn filters() -> Vec<(&'static str, &'static str)> {
    vec![("[0-9a-f]{64}", "[DIGEST]"), (r"\S*e2e-\w+", "[WORLD]")]
}

/// The codes of the table in README.md. 130 is in the snapshot of an export that is stopped (`errors/bundles.rs`), the
/// words of 4 in that of engines (`errors/runs.rs`); 128+N and the tool's own code are pinned where tools run.
#[test]
fn every_documented_exit_code() {
    let world = World::without_engines();
    let pcoder = |args: &[&str]| finish(world.pcoder(args), "");
    third_party(&world.path("project"), "it.wasm", "1.0.0", PLAIN);
    named(&world.path("project"), "taken.wasm", "agent-claude", "1.0.0", PLAIN);
    let mut all = String::new();
    let mut record = |code: i32, args: &[&str], outcome: Outcome| {
        assert_eq!(outcome.code, Some(code), "{args:?}: {outcome:#?}");
        let json: Value = match code {
            0 => Value::Null,
            _ => serde_json::from_str(&outcome.stderr).unwrap_or_else(|error| panic!("{error}: {outcome:#?}")),
        };
        let word = json["error"]["code"].as_str().unwrap_or("-").to_owned();
        let message = json["error"]["message"].as_str().unwrap_or("-").to_owned();
        all += &format!("{code}  {word:<16} pcoder {}: {message}\n", args.join(" "));
    };
    let commands: [(i32, &[&str]); 14] = [
        (0, &["config", "--json"]),
        (2, &["config", "set", "tool", "--json"]),
        (2, &["config", "set", "tool", "No Name", "--json"]),
        (2, &["plugin", "add", "it.wasm", "--only", "all", "--json"]),
        (2, &["profile", "create", "x", "--tool", "claude", "--endpoint", "https://x", "--json"]),
        (3, &["profile", "show", "nobody", "--json"]),
        (3, &["plugin", "remove", "provider-none", "--json"]),
        (3, &["run", "claude", "--mode", "linux-wsl", "--json"]),
        (4, &["engine", "install", "codex-acp", "--json"]),
        (5, &["plugin", "add", "it.wasm", "--sha256", "00", "--json"]),
        (6, &["secret", "check", "env:NOT_SET", "--json"]),
        (6, &["auth", "login", "claude", "--api-key", "file:/nowhere/key", "--json"]),
        (7, &["plugin", "add", "it.wasm", "--json"]),
        (1, &["plugin", "add", "./", "--json"]),
    ];
    for (code, args) in commands {
        let outcome = pcoder(args);
        let message_differs = args.contains(&"install");
        if message_differs {
            // Of the network, every system says something else; Linux' words are with the other errors.
            assert_eq!(outcome.code, Some(code), "{outcome:#?}");
            continue;
        }
        record(code, args, outcome);
    }
    insta::with_settings!({ filters => filters() }, { insta::assert_snapshot!(all, @r#"
        0  -                pcoder config --json: -
        2  invalid          pcoder config set tool --json: the following required arguments were not provided: <VALUE>
        2  invalid          pcoder config set tool No Name --json: `No Name` is no name, expected a-z, 0-9 and -
        2  invalid          pcoder plugin add it.wasm --only all --json: there is no such class of capability
        2  invalid          pcoder profile create x --tool claude --endpoint https://x --json: `endpoint` needs `auth = "api"`: a login would be sent there
        3  not-found        pcoder profile show nobody --json: there is no profile of that name
        3  not-found        pcoder plugin remove provider-none --json: there is no plugin of that name
        3  unsupported      pcoder run claude --mode linux-wsl --json: this pcoder has no provider `wsl`, which that mode needs
        5  integrity        pcoder plugin add it.wasm --sha256 00 --json: its sha256 is [DIGEST], and not the one that was named
        6  unauthenticated  pcoder secret check env:NOT_SET --json: this environment variable is not set
        6  unauthenticated  pcoder auth login claude --api-key file:/nowhere/key --json: cannot find it: No such file or directory (os error 2)
        7  denied           pcoder plugin add it.wasm --json: nobody is there to agree to what it asks for
        1  io               pcoder plugin add ./ --json: it is not a file
        "#) });
}

/// A collector that takes whatever it is sent, and says which paths that was.
fn collector() -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let taken = std::thread::spawn(move || {
        let mut paths = Vec::new();
        while !(paths.iter().any(|it| it == "/v1/logs") && paths.iter().any(|it| it == "/v1/traces")) {
            let (mut stream, _) = listener.accept().expect("a request");
            let mut request = Vec::new();
            let mut buffer = [0_u8; 4096];
            loop {
                let count = stream.read(&mut buffer).expect("a request");
                request.extend_from_slice(&buffer[..count]);
                let text = String::from_utf8_lossy(&request).into_owned();
                let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
                let length = head
                    .lines()
                    .filter_map(|line| line.split_once(':'))
                    .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                    .map_or(0, |(_, value)| value.trim().parse::<usize>().expect("a number"));
                if count == 0 || request.len() >= head.len() + 4 + length {
                    paths.push(head.split(' ').nth(1).unwrap_or_default().to_owned());
                    break;
                }
            }
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer.as_bytes()).expect("an answer");
        }
        paths
    });
    (address, taken)
}

#[test]
fn the_audit_goes_to_a_collector_too_where_a_flag_says_so_and_a_collector_that_is_gone_costs_nothing() {
    let world = World::without_engines();
    let (address, taken) = collector();
    let outcome = finish(world.pcoder(&["list-tools", "--otlp-endpoint", &address]), "");
    assert!(outcome.printed().contains("claude") && outcome.stderr.is_empty(), "{outcome:#?}");
    let paths = taken.join().expect("a collector");
    assert!(paths.contains(&"/v1/logs".to_owned()) && paths.contains(&"/v1/traces".to_owned()), "{paths:?}");

    // Nobody listens there: the command does its work, and says what did not arrive.
    let gone = finish(world.pcoder(&["list-tools", "--otlp-endpoint", "http://127.0.0.1:9"]), "");
    assert!(gone.printed().contains("claude") && gone.stderr.contains("did not reach the collector"), "{gone:#?}");
    let wrong = finish(world.pcoder(&["list-tools", "--otlp-endpoint", "nowhere"]), "");
    assert_eq!(wrong.code, Some(2), "{wrong:#?}");
}
