//! The SDK's HTTP, from a real component through the real host: what arrives on both sides, and which code each failure
//! gets.

use std::io::Write as _;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pcoder_runtime::call::CallContext;
use pcoder_tests::{Grant, House};

use crate::http::{Server, answer, ok};

const METHODS: &str = "[\"GET\", \"POST\", \"PUT\", \"PATCH\", \"DELETE\"]";

/// Granted: everything below this URL on loopback. `limits` goes into the manifest.
fn granted(url: &str, limits: &str) -> House {
    let net = format!("[[net]]\nurl = \"{url}\"\nmethods = {METHODS}\naddresses = [\"loopback\"]\n{limits}");
    House::provider(&net, Grant::All)
}

async fn step(house: &House, step: &[&str]) -> String {
    house.step(CallContext::default(), step).await
}

/// The code of an answer, its subject and its hint.
fn parts(answer: &str) -> (&str, &str, &str) {
    let (code, _) = answer.split_once(' ').unwrap_or((answer, ""));
    let mut brackets = answer.rsplit(" [").map(|part| part.trim_end_matches(']'));
    let (hint, subject) = (brackets.next().unwrap_or_default(), brackets.next().unwrap_or_default());
    (code, subject, hint)
}

#[tokio::test]
async fn a_request_arrives_whole_and_so_does_its_answer() {
    let server = Server::start(|_| answer(201, "X-Kind: Box\r\nx-kind: two\r\n", "made é"));
    let house = granted(&server.url("/"), "");
    let url = server.url("/v1/boxes?q=a%20b#fragment");
    let got = step(&house, &["http.body", "POST", &url, "X-Asked: yes", "the body é"]).await;
    assert!(got.starts_with("ok 201 ") && got.ends_with(" made é"), "{got}");
    assert!(got.contains("x-kind: Box; ") && got.contains("x-kind: two; "), "{got}");
    let head = server.requests().remove(0);
    assert!(head.starts_with("POST /v1/boxes?q=a%20b HTTP/1.1\r\n"), "{head}");
    for header in ["x-asked: yes", "content-type: text/x-test", "content-length: 11"] {
        assert!(head.contains(&format!("\r\n{header}\r\n")), "{header}: {head}");
    }
    assert_eq!(server.bodies(), ["the body é".as_bytes()]);
}

#[tokio::test]
async fn a_large_request_arrives_whole() {
    let server = Server::start(|_| ok("thanks"));
    let house = granted(&server.url("/"), "");
    let got = step(&house, &["http.large-body", "PUT", &server.url("/"), "", "5000001"]).await;
    assert!(got.ends_with(" thanks"), "{got}");
    assert_eq!(server.bodies().iter().map(Vec::len).collect::<Vec<_>>(), [5_000_001]);
    assert!(server.bodies()[0].iter().all(|byte| *byte == b'x'));
}

#[tokio::test]
async fn a_request_without_a_body_says_so_in_a_way_that_every_server_takes() {
    let server = Server::start(|_| ok("hi"));
    let house = granted(&server.url("/"), "");
    for method in ["GET", "DELETE", "POST", "PUT", "PATCH"] {
        let got = step(&house, &["http", method, &server.url("/")]).await;
        assert!(got.starts_with("ok 200 "), "{method}: {got}");
    }
    for head in server.requests() {
        // Servers that speak HTTP/1.0, and some in front of APIs, refuse chunks, or a `POST` that has no length.
        assert!(!head.contains("transfer-encoding"), "{head}");
        let expects_one = ["POST", "PUT", "PATCH"].iter().any(|method| head.starts_with(method));
        assert_eq!(head.contains("\r\ncontent-length: 0\r\n"), expects_one, "{head}");
    }
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again_when_it_says() {
    let seen = AtomicUsize::new(0);
    let server = Server::start(move |_| match seen.fetch_add(1, Ordering::SeqCst) {
        0 => answer(429, "Retry-After: 1\r\n", "secret-in-body"),
        _ => ok("hi"),
    });
    let house = granted(&server.url("/"), "");
    let started = Instant::now();
    let got = step(&house, &["http.retry", "GET", &server.url("/"), "3"]).await;
    assert!(got.ends_with(" hi"), "{got}");
    assert_eq!(server.requests().len(), 2);
    assert!(started.elapsed() >= Duration::from_secs(1), "it did not wait: {:?}", started.elapsed());
}

#[tokio::test]
async fn a_server_that_asks_for_too_much_patience_is_left_alone() {
    let server = Server::start(|_| answer(429, "retry-after: 3600\r\n", "secret-in-body"));
    let house = granted(&server.url("/"), "");
    let got = step(&house, &["http.retry", "GET", &server.url("/?key=1"), "3"]).await;
    assert_eq!(parts(&got).0, "rate-limited", "{got}");
    assert_eq!(parts(&got).2, "attempt Some(1), retry after Some(3600000) ms");
    assert!(!got.contains("secret-in-body"), "{got}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn statuses_become_their_codes_and_only_passing_ones_are_tried_again() {
    for (status, code, tries) in [
        (400, "invalid", 1),
        (401, "unauthenticated", 1),
        (403, "denied", 1),
        (404, "not-found", 1),
        (409, "conflict", 1),
        (500, "server", 3),
        (502, "unavailable", 3),
        (503, "unavailable", 3),
    ] {
        let server = Server::start(move |_| answer(status, "", "secret-in-body"));
        let house = granted(&server.url("/"), "");
        let url = server.url("/x");
        let got = step(&house, &["http.retry", "GET", &url, "3"]).await;
        let attempt = format!("attempt Some({tries}), retry after None ms");
        assert_eq!(parts(&got), (code, url.as_str(), attempt.as_str()), "{status}: {got}");
        assert!(got.contains(&status.to_string()) && !got.contains("secret-in-body"), "{got}");
        assert_eq!(server.requests().len(), tries, "{status}");
    }
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_a_limit() {
    let large = "x".repeat(3 << 20);
    let told = answer(200, "", &large);
    let untold = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{large}");
    for answer in [told, untold] {
        let server = Server::start(move |_| answer.clone());
        let house = granted(&server.url("/"), "[limits]\noutput-mib = 1\n");
        let got = step(&house, &["http", "GET", &server.url("/?key=1")]).await;
        let shown = &got[..got.len().min(200)];
        assert_eq!((parts(shown).0, parts(shown).1), ("limit", server.url("/").as_str()), "{shown}");
        house.goes_on().await;
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_or_breaks_off_is_the_network() {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let url = format!("http://{nobody}/");
    let house = granted(&url, "");
    let mut answers = Vec::new();
    for step_of_it in [&["http", "GET", &url][..], &["http.large-body", "POST", &url, "", "5000000"]] {
        answers.push(step(&house, step_of_it).await);
    }
    for broken in ["HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort", "HTTP/1.1 200", "this is not HTTP\r\n\r\n"] {
        let server = Server::start(|_| broken.to_owned());
        answers.push(step(&granted(&server.url("/"), ""), &["http", "GET", &server.url("/")]).await);
    }
    // No TLS where TLS was asked for: the test's server waits for the end of a head, so this one says something first.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("https://{}/", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        }
    });
    answers.push(step(&granted(&url, ""), &["http", "GET", &url]).await);
    for got in answers {
        assert_eq!(parts(&got).0, "network", "{got}");
        assert!(!got.contains("ErrorCode"), "for people: {got}");
    }
}

#[tokio::test]
async fn a_server_that_never_agrees_on_tls_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let authority = silent.local_addr().expect("an address").to_string();
    let house = granted(&format!("https://{authority}/"), "");
    assert_eq!(step(&house, &["http.impatient", &authority, "50"]).await, "ok ErrorCode::ConnectionTimeout");
}

#[tokio::test]
async fn a_refusal_stays_a_refusal_whatever_is_sent_with_it() {
    let server = Server::start(|_| ok("hi"));
    let (url, elsewhere) = (server.url("/api/"), server.url("/other"));
    let net = |addresses: &str| {
        let net = format!("[[net]]\nurl = \"{url}\"\nmethods = {METHODS}\naddresses = [{addresses}]\n");
        House::provider(&net, Grant::All)
    };
    for size in ["1", "5000000"] {
        for (house, url) in [(net("\"loopback\""), &elsewhere), (net(""), &url)] {
            let got = step(&house, &["http.large-body", "POST", url, "", size]).await;
            assert_eq!((parts(&got).0, parts(&got).1), ("denied", url.as_str()), "{size} bytes: {got}");
        }
    }
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn an_answer_that_comes_before_the_whole_request_was_sent_is_the_answer() {
    let server = Server::impatient(|_| answer(413, "", "too much"));
    let house = granted(&server.url("/"), "");
    // More than the buffers between the two hold.
    let got = step(&house, &["http.large-body", "POST", &server.url("/"), "", "40000000"]).await;
    assert!(got.starts_with("ok 413 ") && got.ends_with(" too much"), "{got}");
}

#[tokio::test]
async fn a_call_that_used_up_its_decisions_is_told_so() {
    let server = Server::start(|_| ok("hi"));
    let house = granted(&server.url("/"), "");
    let url = server.url("/");
    let steps: [&[&str]; 2] = [&["until", "limit", "files.read", "box", "x"], &["http", "GET", &url]];
    let answers = house.script(CallContext::default(), &steps).await.expect("the call");
    assert_eq!(parts(&answers[1]).0, "limit", "{answers:?}");
    assert_eq!(server.requests().len(), 0);
}
