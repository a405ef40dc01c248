//! Clients against a server of one answer, which keeps what it was asked.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

/// Answers one request, and gives its head.
async fn server(answer: &'static str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        String::from_utf8(head).unwrap()
    });
    (address, asked)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const NO_TUNNEL: &str = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";

fn through(https: Option<&str>, http: Option<&str>, except: Option<&str>) -> ClientOptions {
    let url = |text: &str| text.parse().unwrap();
    let proxies = Proxies { https: https.map(url), http: http.map(url), except: except.map(str::to_owned) };
    ClientOptions { proxies, ..ClientOptions::default() }
}

#[tokio::test]
async fn each_scheme_has_its_proxy_and_the_proxy_its_password() {
    let (address, asked) = server(NO_TUNNEL).await;
    let options = through(Some(&format!("http://ada:hunter2@{address}")), Some("http://127.0.0.1:1"), None);
    // The name cannot be looked up: whoever goes around the proxy says so.
    let error = options.build().unwrap().get("https://server.invalid/secret").send().await.unwrap_err();
    let said = crate::reason(error);
    assert!(!said.contains("hunter2") && !said.contains("secret") && !said.contains("dns"), "{said}");
    let head = asked.await.unwrap();
    assert!(head.starts_with("CONNECT server.invalid:443 HTTP/1.1\r\n"), "{head}");
    assert!(head.to_lowercase().contains("proxy-authorization: basic"), "{head}");

    let (address, asked) = server(OK).await;
    let options = through(Some("http://127.0.0.1:1"), Some(&format!("http://{address}")), None);
    let answer = options.build().unwrap().get("http://server.invalid/path").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let head = asked.await.unwrap();
    assert!(head.starts_with("GET http://server.invalid/path HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("user-agent: {}\r\n", options.agent)), "{head}");
}

#[tokio::test]
async fn an_exception_is_reached_without_the_proxy() {
    for except in ["127.0.0.1", "example.com,127.0.0.0/8", "*"] {
        let (address, asked) = server(OK).await;
        let options = through(None, Some("http://127.0.0.1:1"), Some(except));
        let answer = options.build().unwrap().get(format!("http://{address}/")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{except}");
        assert!(asked.await.unwrap().starts_with("GET / HTTP/1.1\r\n"));
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let (address, asked) =
        server("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n").await;
    let client = ClientOptions::default().build().unwrap();
    assert_eq!(client.get(format!("http://{address}/")).send().await.unwrap().status(), 302);
    asked.await.unwrap();
}

#[tokio::test]
async fn a_failure_is_told_with_its_cause_and_without_the_address() {
    // Nobody listens on port 1.
    let error =
        ClientOptions::default().build().unwrap().get("http://127.0.0.1:1/?key=hunter2").send().await.unwrap_err();
    let said = crate::reason(error);
    assert!(said.to_lowercase().contains("refused") && !said.contains("hunter2"), "{said}");
    assert_eq!(said.matches("tcp connect error").count(), 1, "{said}");
}

#[test]
fn a_proxys_password_is_in_no_error_and_no_debug() {
    let options = through(Some("http://ada:hunter2@proxy.example"), None, Some("localhost"));
    let shown = format!("{options:?} {:?}", options.build().unwrap());
    assert!(shown.contains("Proxies { https: true, http: false, except: Some(\"localhost\") }"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn what_is_no_proxy_is_refused_instead_of_gone_around() {
    for (https, http, subject) in [
        (Some("socks5://ada:hunter2@127.0.0.1:1"), None, "the https proxy"),
        (None, Some("ftp://ada:hunter2@127.0.0.1:1"), "the http proxy"),
    ] {
        let error = through(https, http, None).build().unwrap_err();
        assert_eq!(error.to_string(), format!("{subject} cannot be used: it is not an http or https address"));
        assert!(!format!("{error:?} {}", error.hint()).contains("hunter2"));
    }
}

#[test]
fn a_certificate_that_is_none_is_refused() {
    let extra_roots = vec![CertificateDer::from(b"no certificate".to_vec())];
    let error = ClientOptions { extra_roots, ..ClientOptions::default() }.build().unwrap_err();
    assert_eq!(error.subject, "the certificates");
}
