//! Two processes and one refresh token.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use pcoder_oauth::{Clock, CredentialsFile, Url, claude, ensure_fresh};

use crate::fresh::Home;
use crate::server::{NOW, Server, http};

const TOLD: &str = "PCODER_OAUTH_TEST_CHILD";

#[test]
fn two_processes_make_one_request() {
    let server = Server::start();
    let home = Home::due(&server);
    let told = serde_json::json!([server.url("/token").as_str(), home.file.path(), home.lock]).to_string();
    let start = || {
        Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "children::child", "--ignored", "--nocapture"])
            .env(TOLD, &told)
            .stdout(Stdio::piped())
            .spawn()
            .expect("started")
    };
    let children = [start(), start()];
    let mut said: Vec<String> = children
        .map(|child| {
            let output = child.wait_with_output().expect("ended");
            assert!(output.status.success(), "{output:?}");
            let text = String::from_utf8(output.stdout).expect("text");
            let (_, word) = text.split_once("freshness=").expect("it says what it did");
            word.split_whitespace().next().expect("a word").to_owned()
        })
        .to_vec();
    said.sort();
    assert_eq!(said, ["Fresh", "Refreshed"]);
    assert_eq!((server.requests().len(), server.complaints().len()), (1, 0));
    assert_eq!(home.tokens().expires_at_ms, Some(NOW + 28_800_000));
}

/// Is one of the two. Its clock waits, the first time, until the other has also read the file that is due.
#[test]
#[ignore = "a part of `two_processes_make_one_request`"]
fn child() {
    let Ok(told) = std::env::var(TOLD) else { return };
    let [url, file, lock]: [String; 3] = serde_json::from_str(&told).expect("three");
    let token_url: Url = url.parse().expect("a URL");
    let address = format!("127.0.0.1:{}", token_url.port().expect("one"));
    let first = AtomicBool::new(true);
    let clock = Clock::new(move || {
        if first.swap(false, Ordering::Relaxed) {
            let mut stream = TcpStream::connect(&address).expect("connected");
            stream.write_all(b"GET /meet HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("asked");
            stream.read_to_end(&mut Vec::new()).expect("met");
        }
        NOW
    });
    let mut service = claude::service(claude::Mode::Subscription).expect("a service");
    service.token_url = token_url;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let file = CredentialsFile::new(file);
    let freshness = runtime.block_on(ensure_fresh(&file, lock.as_ref(), &service, &clock, &http())).expect("fresh");
    println!("freshness={freshness:?}");
}
