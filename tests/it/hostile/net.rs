//! Destinations that were not granted, by every road that leads there.

use pcoder_runtime::call::CallContext;
use pcoder_tests::{Grant, House};
use tokio_util::sync::CancellationToken;

use super::code;
use crate::http::{Server, ok, redirect};

fn context() -> CallContext {
    CallContext::default()
}

/// Granted: this URL, and these kinds of address.
fn granted(url: &str, addresses: &str) -> House {
    let net = format!("[[net]]\nurl = \"{url}\"\nmethods = [\"GET\"]\naddresses = [{addresses}]\n");
    House::provider(&net, Grant::All)
}

async fn get(house: &House, url: &str) -> String {
    house.step(context(), &["http", "GET", url]).await
}

#[tokio::test]
async fn what_was_granted_is_reached_and_nothing_beside_it() {
    let (server, other) = (Server::start(|_| ok("hi")), Server::start(|_| ok("other")));
    let house = granted(&server.url("/api/"), "\"loopback\"");
    assert!(get(&house, &server.url("/api/x?q=1")).await.ends_with(" hi"));
    let seen = server.requests();
    assert!(seen[0].starts_with("GET /api/x?q=1 HTTP/1.1\r\n"), "{seen:?}");
    assert!(seen[0].contains(&format!("host: 127.0.0.1:{}\r\n", server.port())), "{seen:?}");
    let port = server.port();
    for url in [
        other.url("/api/"),
        server.url("/"),
        server.url("/apix"),
        server.url("/api/../admin"),
        server.url("/api/%2e%2e/admin"),
        server.url("/api/..%2fadmin"),
        format!("http://localhost:{port}/api/"),
        format!("http://127.0.0.2:{port}/api/"),
        format!("http://user:pass@127.0.0.1:{port}/api/"),
        format!("http://127.0.0.1:{port}@localhost:{port}/api/"),
        format!("https://127.0.0.1:{port}/api/"),
    ] {
        let answer = get(&house, &url).await;
        assert!(["denied", "invalid"].contains(&code(&answer)), "{url}: {answer}");
    }
    for method in ["POST", "DELETE", "HEAD", "CONNECT", "PROPFIND", "get "] {
        let answer = house.step(context(), &["http", method, &server.url("/api/")]).await;
        assert!(["denied", "invalid"].contains(&code(&answer)), "{method}: {answer}");
    }
    assert_eq!(server.requests().len(), 1);
    assert_eq!(other.requests().len(), 0);
    house.goes_on().await;
}

#[tokio::test]
async fn what_is_sent_is_what_was_checked() {
    // A path that only normalisation brings under the grant: a server that does not normalise would see `/admin/…`.
    let server = Server::start(|_| ok("hi"));
    let house = granted(&server.url("/api/"), "\"loopback\"");
    for path in ["/admin/../api/x", "/admin/%2e%2e/api/x", "/admin/.%2E/api/x", "/./api/x"] {
        let answer = get(&house, &server.url(path)).await;
        assert!(["ok", "denied", "invalid"].contains(&code(&answer)), "{path}: {answer}");
    }
    for head in server.requests() {
        assert!(head.starts_with("GET /api/x HTTP/1.1\r\n"), "{head}");
    }
}

#[tokio::test]
async fn special_addresses_need_a_grant_of_their_own_in_every_spelling() {
    let server = Server::start(|_| ok("hi"));
    let port = server.port();
    // The URL is granted, the kind of address is not.
    for host in [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "0.0.0.0",
        "0",
        "[::]",
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.100.100.200",
        "255.255.255.255",
        "224.0.0.1",
    ] {
        let url = format!("http://{host}:{port}/");
        let house = granted(&url, "");
        let answer = get(&house, &url).await;
        // A name that this machine does not know is no way in either.
        let unknown = code(&answer) == "network" && host.starts_with(|it: char| it.is_ascii_alphabetic());
        assert!(code(&answer) == "denied" || unknown, "{host}: {answer}");
        let connections = house.effects().into_iter().filter(|(_, verb, _)| *verb == "connect").count();
        assert_eq!(connections, 0, "{host}");
    }
    assert_eq!(server.requests().len(), 0);
    // A grant for one kind of address is not one for another.
    let url = format!("http://127.0.0.1:{port}/");
    assert_eq!(code(&get(&granted(&url, "\"private\", \"link-local\""), &url).await), "denied");
    assert!(get(&granted(&url, "\"loopback\""), &url).await.ends_with(" hi"));
    // Another spelling of a granted address is the same address.
    let spelled = format!("http://0x7f.1:{port}/");
    assert!(get(&granted(&url, "\"loopback\""), &spelled).await.ends_with(" hi"));
    // Addresses that are nowhere cannot be granted.
    let nowhere = format!("http://0.0.0.0:{port}/");
    let all = "\"loopback\", \"private\", \"link-local\"";
    assert_eq!(code(&get(&granted(&nowhere, all), &nowhere).await), "denied");
}

#[tokio::test]
async fn a_redirect_is_a_request_like_any_other() {
    let inside = Server::start(|_| ok("the inside"));
    let targets = [
        inside.url("/"),
        format!("http://localhost:{}/", inside.port()),
        format!("http://2130706433:{}/", inside.port()),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
    ];
    for target in targets {
        let location = target.clone();
        let server = Server::start(move |_| redirect(&location));
        let house = granted(&server.url("/"), "\"loopback\"");
        let answer = house.step(context(), &["http.follow", &server.url("/")]).await;
        assert_eq!(code(&answer), "denied", "{target}: {answer}");
        assert_eq!(server.requests().len(), 1);
        // Not following it is left to the plugin: the host followed nothing by itself.
        let answer = get(&house, &server.url("/")).await;
        assert!(answer.starts_with("ok 302 "), "{answer}");
    }
    assert_eq!(inside.requests().len(), 0);
    let target = inside.url("/deep");
    let server = Server::start(move |_| redirect(&target));
    let both = format!(
        "[[net]]\nurl = \"{}\"\nmethods = [\"GET\"]\naddresses = [\"loopback\"]\n\
         [[net]]\nurl = \"{}\"\nmethods = [\"GET\"]\naddresses = [\"loopback\"]\n",
        server.url("/"),
        inside.url("/")
    );
    let house = House::provider(&both, Grant::All);
    let answer = house.step(context(), &["http.follow", &server.url("/")]).await;
    assert!(answer.ends_with(" the inside"), "{answer}");
}

#[tokio::test]
async fn a_request_does_not_outlive_its_call() {
    let server = Server::start(|_| String::new());
    let house = granted(&server.url("/"), "\"loopback\"");
    let cancel = CancellationToken::new();
    let context = CallContext { cancel: Some(cancel.clone()), ..CallContext::default() };
    let url = server.url("/");
    let step: [&[&str]; 1] = [&["http", "GET", &url]];
    let call = house.script(context, &step);
    let stop = async {
        while server.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(call, stop);
    assert!(result.expect_err("it was stopped").is("cancelled"));
    let closed = tokio::task::spawn_blocking(move || server.was_closed()).await.expect("a thread");
    assert!(closed, "the connection stayed open");
    house.goes_on().await;
}

#[tokio::test]
async fn an_answer_without_end_is_bounded() {
    let server = Server::start(|_| ok(&"x".repeat(8 << 20)));
    let net = format!(
        "[[net]]\nurl = \"{}\"\nmethods = [\"GET\"]\naddresses = [\"loopback\"]\n[limits]\noutput-mib = 1\n",
        server.url("/")
    );
    let house = House::provider(&net, Grant::All);
    let answer = get(&house, &server.url("/")).await;
    assert!(answer.starts_with("limit "), "{}", &answer[..80.min(answer.len())]);
    house.goes_on().await;
}
