//! A code that is pasted, and what a server can answer.

use std::time::Duration;

use pcoder_oauth::{Authorization, Error, TokenFormat, Url, claude, refresh};
use secrecy::ExposeSecret as _;

use crate::server::{Mood, NOW, SECRET, Server, clock, http, http_within, shown};

#[tokio::test]
async fn a_pasted_code_in_each_form_becomes_tokens() {
    let server = Server::start();
    for form in ["CODE#STATE", " CODE#STATE \n", "CODE", "URL?code=CODE&state=STATE"] {
        let authorization = Authorization::begin(&server.service()).expect("begun");
        let (code, state) = server.allow(authorization.url());
        let pasted = form.replace("CODE", &code).replace("STATE", &state).replace("URL", claude::MANUAL_REDIRECT_URI);
        let tokens = authorization.finish(&pasted, &http(), &clock()).await.expect(form);
        assert!(tokens.access.expose_secret().starts_with("access-"));
        assert!(tokens.refresh.expect("one").expose_secret().starts_with("refresh-"));
        assert_eq!(tokens.expires_at_ms, Some(NOW + 28_800_000));
        assert_eq!(tokens.scopes, ["user:inference", "user:profile"]);
    }
    assert_eq!(server.complaints(), [""; 0]);
}

#[tokio::test]
async fn a_wrong_state_is_refused_before_anything_is_sent() {
    let server = Server::start();
    let (mine, other) = (Authorization::begin(&server.service()), Authorization::begin(&server.service()));
    let (mine, other) = (mine.expect("begun"), other.expect("begun"));
    let (code, state) = server.allow(other.url());
    let error = mine.finish(&format!("{code}#{state}"), &http(), &clock()).await.expect_err("of another login");
    assert!(matches!(error, Error::WrongState), "{}", shown(&error));
    let error = mine.finish(&format!("{code}#{state}x"), &http(), &clock()).await.expect_err("wrong");
    assert!(matches!(error, Error::WrongState), "{}", shown(&error));
    assert!(server.requests().is_empty());
    // Without its state PKCE is what holds.
    let error = mine.finish(&code, &http(), &clock()).await.expect_err("another verifier's");
    assert!(matches!(error, Error::LoginExpired { .. }) && server.complaints()[0].starts_with("code_verifier"));
    assert!(shown(&error).contains("log in again"));
}

#[tokio::test]
async fn the_authorise_url_pasted_back_is_no_code() {
    let server = Server::start();
    let authorization = Authorization::begin(&server.service()).expect("begun");
    let error = authorization.finish(authorization.url().as_str(), &http(), &clock()).await.expect_err("no code");
    assert!(matches!(error, Error::Pasted { .. }) && server.requests().is_empty(), "{}", shown(&error));
}

#[tokio::test]
async fn a_server_that_takes_forms_gets_a_form_without_the_state() {
    let server = Server::with(TokenFormat::Form);
    let mut service = server.service();
    service.token_format = TokenFormat::Form;
    let authorization = Authorization::begin(&service).expect("begun");
    let (code, state) = server.allow(authorization.url());
    let tokens = authorization.finish(&format!("{code}#{state}"), &http(), &clock()).await.expect("tokens");
    refresh(&service, &tokens, &http(), &clock()).await.expect("refreshed");
    assert_eq!(server.complaints(), [""; 0]);
    assert!(server.requests()[0].get("state").is_none());
}

#[tokio::test]
async fn a_refresh_takes_the_new_token_or_keeps_the_old_one() {
    let server = Server::start();
    let first = server.login(NOW);
    let second = refresh(&server.service(), &first, &http(), &clock()).await.expect("rotated");
    assert!(second.refresh.as_ref().expect("one").expose_secret().ends_with("-2"));
    assert_eq!(second.subscription_type.as_deref(), Some("max"));
    server.mood(Mood::KeepsRefresh);
    let third = refresh(&server.service(), &second, &http(), &clock()).await.expect("kept");
    assert!(third.refresh.as_ref().expect("one").expose_secret().ends_with("-2"));
    assert!(third.access.expose_secret().ends_with("-3"));
    let error = refresh(&server.service(), &first, &http(), &clock()).await.expect_err("used twice");
    assert!(matches!(error, Error::LoginExpired { .. }), "{}", shown(&error));
    let none = pcoder_oauth::Tokens { refresh: None, ..third };
    let error = refresh(&server.service(), &none, &http(), &clock()).await.expect_err("nothing to refresh with");
    assert!(matches!(error, Error::NoRefreshToken), "{}", shown(&error));
}

#[tokio::test]
async fn whatever_a_server_answers_becomes_an_error_that_does_not_repeat_it() {
    let server = Server::start();
    let tokens = server.login(NOW);
    let elsewhere = server.url("/elsewhere").to_string();
    let says = |status, headers, body: String| Mood::Says(status, headers, body);
    let error = |code: &str| format!(r#"{{"error":"{code}","error_description":"{SECRET}"}}"#);
    let cases: Vec<(Mood, &str, &str)> = vec![
        (says(400, vec![], error("invalid_grant")), "LoginExpired", "log in again"),
        (says(401, vec![], error("invalid_client")), "Refused", "401 (invalid_client)"),
        (says(400, vec![], error(SECRET)), "Refused", "answers 400 |"),
        (says(429, vec![("retry-after", "7".to_owned())], error("slow_down")), "RateLimited", "try again in 7 s"),
        (says(429, vec![], SECRET.to_owned()), "RateLimited", "some minutes"),
        (says(500, vec![], SECRET.to_owned()), "Refused", "try again later"),
        (says(503, vec![("retry-after", "9".to_owned())], String::new()), "Refused", "try again in 9 s"),
        (says(500, vec![], error("invalid_grant")), "Refused", "500 (invalid_grant)"),
        (says(302, vec![("location", elsewhere)], String::new()), "Refused", "answers 302"),
        (says(200, vec![], format!("<html>{SECRET}")), "Answer", "not a JSON object"),
        (says(200, vec![], format!("\"{SECRET}\"")), "Answer", "not a JSON object"),
        (says(200, vec![], String::new()), "Answer", "not a JSON object"),
        (says(200, vec![], format!(r#"{{"access_token":{{"{SECRET}":1}}}}"#)), "Answer", "no access token"),
        (says(200, vec![], format!(r#"{{"access_token":"{}"}}"#, "x".repeat(64 * 1024))), "Answer", "64 KiB"),
        (says(500, vec![], SECRET.repeat(64 * 1024)), "Refused", "answers 500"),
    ];
    let count = cases.len();
    for (mood, variant, text) in cases {
        server.mood(mood);
        let error = refresh(&server.service(), &tokens, &http(), &clock()).await.expect_err(text);
        let shown = shown(&error);
        assert!(format!("{error:?}").starts_with(variant) && shown.contains(text), "{variant} {text}: {shown}");
    }
    assert_eq!(server.requests().len(), count, "no redirect was followed and nothing tried twice");
}

#[tokio::test]
async fn a_server_that_hangs_or_is_not_there_is_an_error_in_time() {
    let server = Server::start();
    let tokens = server.login(NOW);
    server.mood(Mood::Hangs);
    let soon = http_within(Duration::from_millis(200));
    let error = refresh(&server.service(), &tokens, &soon, &clock()).await.expect_err("hangs");
    assert!(matches!(error, Error::Timeout { .. }), "{}", shown(&error));
    let mut service = server.service();
    // A port that is bound and does not listen belongs to nobody else.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
    service.token_url.set_port(Some(socket.local_addr().expect("bound").port())).expect("a port");
    let error = refresh(&service, &tokens, &http(), &clock()).await.expect_err("nobody");
    assert!(matches!(error, Error::Network { .. }) && shown(&error).contains("check the network"), "{error:?}");
}

#[tokio::test]
async fn a_token_is_not_sent_in_the_clear_to_another_machine() {
    let server = Server::start();
    let tokens = server.login(NOW);
    let mut service = server.service();
    service.token_url = Url::parse("http://a.example/token").expect("a URL");
    let error = refresh(&service, &tokens, &http(), &clock()).await.expect_err("in the clear");
    assert!(matches!(error, Error::Config { .. }), "{}", shown(&error));
    assert!(matches!(Authorization::begin(&service), Err(Error::Config { .. })));
}
