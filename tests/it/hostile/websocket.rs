//! WebSockets to where they may not go, and with more than they may carry.

use std::sync::Arc;

use pcoder_runtime::call::CallContext;
use pcoder_tests::{Grant, House};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::{assert_nowhere, code};
use crate::double::secrets;
use crate::http::{Server as HttpServer, redirect};
use crate::logs;
use crate::websocket::{Server, text};

/// Granted: this URL, and these kinds of address.
fn granted(url: &str, addresses: &str) -> House {
    House::provider(&format!("[[net]]\nurl = \"{url}\"\naddresses = [{addresses}]\n"), Grant::All)
}

async fn say(house: &House, url: &str, message: &str) -> String {
    house.step(CallContext::default(), &["ws", url, "", message]).await
}

#[tokio::test]
async fn what_was_granted_is_reached_and_nothing_beside_it() {
    let (server, other) = (Server::echo(), Server::echo());
    let house = granted(&server.url("/api/"), "\"loopback\"");
    let url = server.url("/api/x?q=1");
    let step = ["ws", &url, "x-mine: 1", "hé", "binary:bytes"];
    assert_eq!(house.step(CallContext::default(), &step).await, "ok hé binary:bytes");
    let seen = server.requests().remove(0);
    assert!(seen.starts_with("GET /api/x?q=1\n"), "{seen}");
    assert!(seen.contains(&format!("\nhost: 127.0.0.1:{}\n", server.port())), "{seen}");
    assert!(seen.contains("\nx-mine: 1\n"), "{seen}");
    let port = server.port();
    for url in [
        other.url("/api/"),
        server.url("/"),
        server.url("/apix"),
        server.url("/api/../admin"),
        server.url("/api/..%2fadmin"),
        format!("ws://localhost:{port}/api/"),
        format!("ws://127.0.0.2:{port}/api/"),
        format!("ws://user:pass@127.0.0.1:{port}/api/"),
        format!("wss://127.0.0.1:{port}/api/"),
        format!("http://127.0.0.1:{port}/api/"),
        format!("file://127.0.0.1:{port}/api/"),
    ] {
        let answer = say(&house, &url, "x").await;
        assert!(["denied", "invalid"].contains(&code(&answer)), "{url}: {answer}");
    }
    // The grant of a WebSocket is not one of requests.
    let answer = house.step(CallContext::default(), &["http", "GET", &server.url("/api/x")]).await;
    assert_ne!(code(&answer), "ok", "{answer}");
    assert_eq!((server.requests().len(), other.requests().len()), (1, 0));
    house.goes_on().await;
}

#[tokio::test]
async fn the_headers_of_the_protocol_are_the_hosts() {
    let server = Server::echo();
    let house = granted(&server.url("/"), "\"loopback\"");
    let url = server.url("/");
    for header in [
        "Host: evil.test",
        "Connection: close",
        "upgrade: h2c",
        "Sec-WebSocket-Key: x",
        "sec-websocket-extensions: permessage-deflate",
        "transfer-encoding: chunked",
        "content-length: 1",
        "two words: x",
        "x: a\r\nhost: evil.test",
    ] {
        let answer = house.step(CallContext::default(), &["ws", &url, header]).await;
        assert_eq!(code(&answer), "invalid", "{header}: {answer}");
    }
    let giant = format!("x: {}", "x".repeat(200_000));
    assert_eq!(code(&house.step(CallContext::default(), &["ws", &url, &giant]).await), "limit");
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn special_addresses_need_a_grant_of_their_own_in_every_spelling() {
    let server = Server::echo();
    let port = server.port();
    for host in ["127.0.0.1", "localhost", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "169.254.169.254"] {
        let url = format!("ws://{host}:{port}/");
        let house = granted(&url, "");
        let answer = say(&house, &url, "x").await;
        assert_eq!(code(&answer), "denied", "{host}: {answer}");
        let connections = house.effects().into_iter().filter(|(_, verb, _)| *verb == "connect").count();
        assert_eq!(connections, 0, "{host}");
    }
    let url = server.url("/");
    assert_eq!(code(&say(&granted(&url, "\"private\""), &url, "x").await), "denied");
    assert_eq!(server.requests().len(), 0);
    assert_eq!(say(&granted(&url, "\"loopback\""), &url, "x").await, "ok x");
}

#[tokio::test]
async fn an_answer_that_opens_no_websocket_is_an_error() {
    let inside = Server::echo();
    let target = inside.url("/").replace("ws://", "http://");
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n";
    for (answer, expected) in [
        ("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_owned(), "unauthenticated"),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(), "not-found"),
        (redirect(&target), "server"),
        (crate::http::ok("hi"), "server"),
        (format!("{switch}\r\n"), "server"),
        (format!("{switch}sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"), "server"),
        ("nonsense\r\n\r\n".to_owned(), "network"),
    ] {
        let shown = answer.clone();
        let server = HttpServer::start(move |_| answer.clone());
        let url = server.url("/").replace("http://", "ws://");
        let house = granted(&url, "\"loopback\"");
        let got = say(&house, &url, "x").await;
        assert_eq!(code(&got), expected, "{shown}: {got}");
        assert_eq!(server.requests().len(), 1);
    }
    assert_eq!(inside.requests().len(), 0, "a redirect was followed");
}

#[tokio::test]
async fn a_value_goes_only_where_its_grant_says_and_does_not_come_back() {
    logs::capture();
    let value = "s3cret-over-a-websocket-0101";
    // It says what it was told, in both kinds of message.
    let server = Server::start(|socket, head| {
        let authorization = head.lines().find(|it| it.starts_with("authorization: ")).unwrap_or_default().to_owned();
        while socket.read().is_ok_and(|it| it.is_text()) {
            let told = text(format!("you said {authorization}!"));
            if socket.send(told).is_err() {
                return;
            }
            if socket.read().is_ok_and(|it| it.is_binary()) {
                let _ = socket.send(Message::binary(authorization.clone().into_bytes()));
            }
        }
    });
    let grants = |to: &str| {
        let url = server.url("/");
        format!("[[net]]\nurl = \"{url}\"\naddresses = [\"loopback\"]\n[[secrets]]\nname = \"KEY\"\nto = [\"{to}\"]\n")
    };
    let context = || CallContext { secrets: secrets(&[("KEY", value)]), ..CallContext::default() };
    let url = server.url("/api/x");
    let steps: [&[&str]; 2] =
        [&["secrets.get", "KEY"], &["ws", &url, "authorization: Bearer {0}", "a {0}", "binary:b"]];
    let other_scheme = server.url("/api/").replace("ws://", "http://");
    for elsewhere in ["wss://api.example.test/", "target", "exec", &server.url("/other/"), &other_scheme] {
        let house = House::provider(&grants(elsewhere), Grant::All);
        let answers = house.script(context(), &steps).await.expect("the call");
        assert_eq!(code(&answers[1]), "denied", "{elsewhere}: {answers:?}");
        assert_nowhere(value, &house, &answers);
    }
    assert_eq!(server.requests().len(), 0);
    let house = House::provider(&grants(&server.url("/api/")), Grant::All);
    let answers = house.script(context(), &steps).await.expect("the call");
    assert!(server.requests()[0].contains(&format!("authorization: Bearer {value}\n")));
    let placeholder = answers[0].trim_start_matches("ok ");
    let shown = format!("authorization: Bearer {placeholder}");
    // Bytes keep their number: what says lengths beforehand must stay readable.
    let masked = format!("authorization: Bearer {}", "*".repeat(value.len()));
    assert_eq!(answers[1], format!("ok you said {shown}! binary:{masked}"));
    assert_nowhere(value, &house, &answers);
}

#[tokio::test]
async fn a_flood_of_messages_is_a_limit_in_both_directions() {
    const SMALL: &str = "[limits]\noutput-mib = 1\n";
    // It sends for as long as somebody takes it.
    let flood = Server::start(|socket, _| while socket.send(Message::binary(vec![b'x'; 100_000])).is_ok() {});
    let request = |url: &str| format!("[[net]]\nurl = \"{url}\"\naddresses = [\"loopback\"]\n{SMALL}");
    let house = House::provider(&request(&flood.url("/")), Grant::All);
    let answer = house.step(CallContext::default(), &["ws.listen", &flood.url("/"), ""]).await;
    assert!(answer.starts_with("limit ") && answer.contains("then Some(\"limit\")"), "{answer}");
    let sink = Server::start(|_, _| ());
    let house = House::provider(&request(&sink.url("/")), Grant::All);
    let answer = house.step(CallContext::default(), &["ws.flood", &sink.url("/"), "", "100000"]).await;
    assert_eq!(code(&answer), "limit", "{answer}");
    house.goes_on().await;
}

#[tokio::test]
async fn one_message_has_a_limit() {
    let server = Server::start(|socket, _| drop(socket.send(Message::binary(vec![b'x'; 17 << 20]))));
    let house = granted(&server.url("/"), "\"loopback\"");
    let answer = house.step(CallContext::default(), &["ws.listen", &server.url("/"), ""]).await;
    assert!(answer.starts_with("limit a message is larger than 16 MiB after 0"), "{answer}");
    house.goes_on().await;
}

#[tokio::test]
async fn connections_are_handles() {
    let server = Server::echo();
    let net = format!("[[net]]\nurl = \"{}\"\naddresses = [\"loopback\"]\n[limits]\nhandles = 8\n", server.url("/"));
    let house = House::provider(&net, Grant::All);
    assert_eq!(house.step(CallContext::default(), &["ws.many", &server.url("/"), "", "4"]).await, "ok 4");
    let answer = house.step(CallContext::default(), &["ws.many", &server.url("/"), "", "20"]).await;
    assert!(answer.starts_with("limit ") && answer.contains("more handles than its limit of 8"), "{answer}");
    house.goes_on().await;
}

#[tokio::test]
async fn the_host_answers_pings_while_the_plugin_does_something_else() {
    let (sender, answered) = std::sync::mpsc::channel();
    let server = Server::start(move |socket, _| {
        socket.send(Message::Ping("are you there".into())).expect("a ping");
        let _ = sender.send(socket.read().is_ok_and(|it| it == Message::Pong("are you there".into())));
    });
    let house = granted(&server.url("/"), "\"loopback\"");
    let cancel = CancellationToken::new();
    let context = CallContext { cancel: Some(cancel.clone()), ..CallContext::default() };
    let url = server.url("/");
    let step: [&[&str]; 1] = [&["ws.hold", &url]];
    let stop = async {
        let answered = tokio::task::spawn_blocking(move || answered.recv_timeout(std::time::Duration::from_secs(20)));
        assert_eq!(answered.await.expect("a thread"), Ok(true));
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(house.script(context, &step), stop);
    assert!(result.expect_err("it was stopped").is("cancelled"));
}

#[tokio::test]
async fn a_close_is_told_with_its_code() {
    use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
    let server = Server::start(|socket, _| {
        socket.send(text("one")).expect("a message");
        socket.close(Some(CloseFrame { code: CloseCode::Policy, reason: "go away".into() })).expect("a close");
    });
    let house = granted(&server.url("/"), "\"loopback\"");
    let answer = house.step(CallContext::default(), &["ws.listen", &server.url("/"), ""]).await;
    let told = "unavailable the other side closed the connection (1008) after 1, then Some(\"unavailable\")";
    assert!(answer.starts_with(told), "{answer}");
}

/// Makes a call of one step that waits for ever, and ends it: at its deadline, or once `until` is there.
async fn ended(house: &House, step: &[&str], deadline: bool, until: impl Future<Output = ()>) {
    let cancel = CancellationToken::new();
    let context = CallContext {
        cancel: Some(cancel.clone()),
        deadline: deadline.then(|| Some(std::time::Duration::from_secs(1))),
        ..CallContext::default()
    };
    let stop = async {
        until.await;
        if !deadline {
            cancel.cancel();
        }
    };
    let steps = [step];
    let (result, ()) = tokio::join!(house.script(context, &steps), stop);
    assert!(result.expect_err("it was stopped").is(if deadline { "timeout" } else { "cancelled" }));
    house.goes_on().await;
}

async fn was_closed(server: &Arc<Server>) -> bool {
    let server = Arc::clone(server);
    tokio::task::spawn_blocking(move || server.was_closed()).await.expect("a thread")
}

#[tokio::test]
async fn a_connection_that_is_dropped_is_closed() {
    let server = Arc::new(Server::echo());
    let house = granted(&server.url("/"), "\"loopback\"");
    let closed = async { assert!(was_closed(&server).await, "the connection stayed open") };
    ended(&house, &["ws.close", &server.url("/")], false, closed).await;
}

#[tokio::test]
async fn a_connection_does_not_outlive_its_call() {
    for deadline in [false, true] {
        let server = Arc::new(Server::echo());
        let house = granted(&server.url("/"), "\"loopback\"");
        let opened = async {
            while server.requests().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        ended(&house, &["ws.hold", &server.url("/")], deadline, opened).await;
        assert!(was_closed(&server).await, "the connection stayed open");
    }
}
