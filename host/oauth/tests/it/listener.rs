//! A code that arrives on a loopback port.

use std::time::Duration;

use pcoder_oauth::{Authorization, Error, Listening, Url};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::{Server, clock, http, shown};

const LONG: Duration = Duration::from_secs(60);

/// Where the browser is sent.
fn redirect(listening: &Listening) -> Url {
    let url = listening.authorization().url().clone();
    let (_, redirect) = url.query_pairs().find(|(name, _)| name == "redirect_uri").expect("it");
    let redirect = Url::parse(&redirect).expect("a URL");
    assert_eq!((redirect.host_str(), redirect.path()), (Some("localhost"), "/callback"));
    redirect
}

async fn connect(listening: &Listening) -> TcpStream {
    TcpStream::connect(("127.0.0.1", redirect(listening).port().expect("one"))).await.expect("connected")
}

/// The whole answer to a request.
async fn ask(listening: &Listening, method: &str, target: &str) -> String {
    let mut stream = connect(listening).await;
    let request = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    drop(stream.write_all(request.as_bytes()).await);
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    String::from_utf8_lossy(&answer).into_owned()
}

async fn begin(server: &Server) -> Listening {
    Authorization::begin_with_listener(&server.service()).await.expect("begun")
}

#[tokio::test]
async fn the_browser_brings_the_code_and_others_do_not_disturb() {
    let server = Server::start();
    let listening = begin(&server).await;
    let (code, state) = server.allow(listening.authorization().url());
    let browser = async {
        // A spare connection, as browsers open them.
        let _spare = connect(&listening).await;
        for (method, target, status) in [
            ("GET", "/favicon.ico".to_owned(), "404"),
            ("GET", "/callback".to_owned(), "400"),
            ("GET", format!("/callback?code={code}"), "400"),
            ("GET", format!("/callback?code={code}&state=wrong"), "400"),
            ("GET", "/callback?error=access_denied".to_owned(), "400"),
            ("GET", "/callback?error=access_denied&state=wrong".to_owned(), "400"),
            ("GET", format!("/callback?state={state}"), "400"),
            ("POST", format!("/callback?code={code}&state={state}"), "405"),
            ("GET", format!("/callback?{}", "x".repeat(64 * 1024)), ""),
            ("nonsense", String::new(), ""),
        ] {
            let answer = ask(&listening, method, &target).await;
            assert!(!answer.contains("HTTP/1.1 200") && answer.contains(status), "{method} {target}: {answer}");
        }
        let answer = ask(&listening, "GET", &format!("/callback?code={code}&state={state}")).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("close this page"), "{answer}");
        assert!(answer.contains("no-store") && !answer.contains(&code) && !answer.contains(&state), "{answer}");
    };
    let (http, clock) = (http(), clock());
    let (tokens, ()) = tokio::join!(listening.wait(LONG, &http, &clock), browser);
    assert_eq!(tokens.expect("tokens").scopes.len(), 2);
    assert_eq!(server.complaints(), [""; 0]);
}

#[tokio::test]
async fn a_denial_with_the_right_state_ends_the_wait() {
    let server = Server::start();
    let listening = begin(&server).await;
    let (_, state) = server.allow(listening.authorization().url());
    let target = format!("/callback?error=access_denied&state={state}");
    let (http, clock) = (http(), clock());
    let (result, answer) = tokio::join!(listening.wait(LONG, &http, &clock), ask(&listening, "GET", &target));
    let error = result.expect_err("denied");
    assert!(shown(&error).contains("access_denied") && answer.contains("not granted"), "{answer}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn nobody_comes() {
    let server = Server::start();
    let listening = begin(&server).await;
    let port = redirect(&listening).port().expect("one");
    let error = listening.wait(Duration::from_millis(20), &http(), &clock()).await.expect_err("nobody");
    assert!(matches!(error, Error::NotInTime { .. }), "{}", shown(&error));
    drop(listening);
    TcpStream::connect(("127.0.0.1", port)).await.expect_err("closed");
}

#[tokio::test]
async fn the_url_of_a_browser_on_another_machine_can_be_pasted() {
    let server = Server::start();
    let listening = begin(&server).await;
    let (code, state) = server.allow(listening.authorization().url());
    let mut url = redirect(&listening);
    url.query_pairs_mut().append_pair("code", &code).append_pair("state", &state);
    listening.authorization().finish(url.as_str(), &http(), &clock()).await.expect("tokens");
}

#[tokio::test]
async fn a_service_without_a_loopback_redirect_says_so_and_a_taken_port_too() {
    let server = Server::start();
    let mut service = server.service();
    let taken = server.url("/").port().expect("one");
    service.loopback.as_mut().expect("one").port = taken;
    let Err(error) = Authorization::begin_with_listener(&service).await else { panic!("taken") };
    assert!(shown(&error).contains(&taken.to_string()));
    service.loopback = None;
    let Err(error) = Authorization::begin_with_listener(&service).await else { panic!("none") };
    assert!(matches!(error, Error::Config { .. }), "{}", shown(&error));
}
