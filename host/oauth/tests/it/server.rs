//! An authorisation server on a loopback port, with a thread of its own.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use pcoder_oauth::{Clock, Http, HttpOptions, Service, TokenFormat, Tokens, Url, claude};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{Barrier, Notify};

/// What every test's clock says until it says something else.
pub(crate) const NOW: i64 = 1_800_000_000_000;
/// Is in every secret of a test, and must be in nothing that is shown.
pub(crate) const SECRET: &str = "hunter2";

/// How the next token requests are answered.
#[derive(Clone)]
pub(crate) enum Mood {
    /// As a good server does.
    Good,
    /// Good, without a new refresh token.
    KeepsRefresh,
    /// With this status, headers and body.
    Says(u16, Vec<(&'static str, String)>, String),
    /// Never.
    Hangs,
    /// Good, after the notification.
    Waits(Arc<Notify>),
}

struct Granted {
    challenge: String,
    redirect_uri: String,
    state: String,
}

#[derive(Default)]
struct Inner {
    codes: HashMap<String, Granted>,
    refresh: HashSet<String>,
    issued: u32,
    requests: Vec<Value>,
    complaints: Vec<String>,
}

pub(crate) struct Server {
    inner: Arc<Mutex<Inner>>,
    mood: Arc<Mutex<Mood>>,
    base: Url,
    arrived: Mutex<Receiver<()>>,
    runtime: Option<tokio::runtime::Runtime>,
}

struct Shared {
    inner: Arc<Mutex<Inner>>,
    mood: Arc<Mutex<Mood>>,
    arrived: Sender<()>,
    meeting: Barrier,
    format: TokenFormat,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(TokenFormat::Json)
    }

    pub(crate) fn with(format: TokenFormat) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("it");
        let (arrived, receiver) = channel();
        let (inner, mood) = (Arc::<Mutex<Inner>>::default(), Arc::new(Mutex::new(Mood::Good)));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("set");
        let base = format!("http://{}", listener.local_addr().expect("bound")).parse().expect("a URL");
        let shared =
            Arc::new(Shared { inner: inner.clone(), mood: mood.clone(), arrived, meeting: Barrier::new(2), format });
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("taken over");
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| respond(&shared, request));
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Self { inner, mood, base, arrived: Mutex::new(receiver), runtime: Some(runtime) }
    }

    pub(crate) fn mood(&self, mood: Mood) {
        *self.mood.lock().expect("it") = mood;
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        self.base.join(path).expect("a URL")
    }

    pub(crate) fn service(&self) -> Service {
        let mut service = claude::service(claude::Mode::Subscription).expect("it");
        service.authorize_url = self.url("/authorize?gateway=1");
        service.token_url = self.url("/token");
        service
    }

    /// Waits until a token request is there.
    pub(crate) fn request_arrived(&self) {
        self.arrived.lock().expect("it").recv_timeout(Duration::from_secs(60)).expect("a request");
    }

    /// Does what the user does in a browser, and gives the code and the state.
    pub(crate) fn allow(&self, url: &Url) -> (String, String) {
        let query: HashMap<_, _> = url.query_pairs().into_owned().collect();
        let of = |name: &str| query.get(name).unwrap_or_else(|| panic!("{name} in {url}")).clone();
        assert_eq!(url.path(), "/authorize");
        assert_eq!((of("code").as_str(), of("response_type").as_str(), of("gateway").as_str()), ("true", "code", "1"));
        assert_eq!((of("client_id").as_str(), of("code_challenge_method").as_str()), (claude::CLIENT_ID, "S256"));
        assert_eq!(of("scope"), claude::SCOPES.join(" "));
        let mut inner = self.inner.lock().expect("it");
        let code = format!("code-{SECRET}-{}", inner.codes.len());
        let (challenge, redirect_uri, state) = (of("code_challenge"), of("redirect_uri"), of("state"));
        inner.codes.insert(code.clone(), Granted { challenge, redirect_uri, state: state.clone() });
        (code, state)
    }

    /// A login of some time ago.
    pub(crate) fn login(&self, expires_at_ms: i64) -> Tokens {
        let mut inner = self.inner.lock().expect("it");
        let (access, refresh) = issue(&mut inner);
        Tokens {
            access: access.into(),
            refresh: Some(refresh.into()),
            expires_at_ms: Some(expires_at_ms),
            scopes: vec!["user:inference".to_owned(), "user:profile".to_owned()],
            subscription_type: Some("max".to_owned()),
        }
    }

    /// Another client uses this refresh token up.
    pub(crate) fn use_up(&self, tokens: &Tokens) {
        use secrecy::ExposeSecret as _;
        let refresh = tokens.refresh.as_ref().expect("one").expose_secret();
        assert!(self.inner.lock().expect("it").refresh.remove(refresh));
    }

    /// The bodies of all token requests.
    pub(crate) fn requests(&self) -> Vec<Value> {
        self.inner.lock().expect("it").requests.clone()
    }

    /// What was wrong with requests.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.inner.lock().expect("it").complaints.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Also from within another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn issue(inner: &mut Inner) -> (String, String) {
    inner.issued += 1;
    let (access, refresh) = (format!("access-{SECRET}-{}", inner.issued), format!("refresh-{SECRET}-{}", inner.issued));
    inner.refresh.insert(refresh.clone());
    (access, refresh)
}

async fn respond(shared: &Shared, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    if parts.uri.path() == "/meet" {
        shared.meeting.wait().await;
        return Ok(Response::new(Full::default()));
    }
    let kind = parts.headers.get("content-type").and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
    let fields: Option<Value> = match shared.format {
        TokenFormat::Json if kind == "application/json" => serde_json::from_slice(&body).ok(),
        TokenFormat::Form if kind == "application/x-www-form-urlencoded" => {
            let pairs = url::form_urlencoded::parse(&body).into_owned();
            Some(Value::Object(pairs.map(|(name, value)| (name, Value::String(value))).collect()))
        }
        _ => None,
    };
    let mood = shared.mood.lock().expect("it").clone();
    shared.inner.lock().expect("it").requests.push(fields.clone().unwrap_or_default());
    let _ = shared.arrived.send(());
    let keeps = match mood {
        Mood::Good => false,
        Mood::KeepsRefresh => true,
        Mood::Says(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            return Ok(response.body(Full::from(body)).expect("a response"));
        }
        Mood::Hangs => std::future::pending().await,
        Mood::Waits(notify) => {
            notify.notified().await;
            false
        }
    };
    let mut inner = shared.inner.lock().expect("it");
    let verdict = match fields {
        Some(fields) if parts.method == Method::POST && parts.uri.path() == "/token" => {
            grant(&mut inner, &fields, shared.format)
        }
        _ => Err(("invalid_request", format!("{} {} {kind}", parts.method, parts.uri))),
    };
    let (status, body) = match verdict {
        Ok(scope) => {
            let (access, refresh) = issue(&mut inner);
            let mut answer = json!({
                "token_type": "Bearer", "access_token": access, "expires_in": 28_800, "scope": scope,
                "refresh_token": refresh, "account": {"uuid": "x"},
            });
            if keeps {
                answer.as_object_mut().expect("an object").remove("refresh_token");
            }
            (200, answer)
        }
        Err((code, complaint)) => {
            inner.complaints.push(complaint);
            (400, json!({"error": code, "error_description": format!("it is {SECRET}")}))
        }
    };
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(Full::from(body.to_string())).expect("a response"))
}

/// The granted scopes, or an error code and what is wrong.
fn grant(inner: &mut Inner, fields: &Value, format: TokenFormat) -> Result<String, (&'static str, String)> {
    let of = |name: &str| fields[name].as_str().unwrap_or_default();
    let bad = |code, what: &str| Err((code, format!("{what} in {fields}")));
    if of("client_id") != claude::CLIENT_ID {
        return bad("invalid_client", "client_id");
    }
    match of("grant_type") {
        "authorization_code" => {
            // A code is good for one try.
            let Some(granted) = inner.codes.remove(of("code")) else { return bad("invalid_grant", "code") };
            if URL_SAFE_NO_PAD.encode(Sha256::digest(of("code_verifier"))) != granted.challenge {
                return bad("invalid_grant", "code_verifier");
            }
            if of("redirect_uri") != granted.redirect_uri {
                return bad("invalid_grant", "redirect_uri");
            }
            if format == TokenFormat::Json && of("state") != granted.state {
                return bad("invalid_request", "state");
            }
            Ok("user:inference user:profile".to_owned())
        }
        "refresh_token" => {
            if !inner.refresh.remove(of("refresh_token")) {
                return bad("invalid_grant", "refresh_token");
            }
            if of("scope") != "user:inference user:profile" {
                return bad("invalid_scope", "scope");
            }
            Ok(of("scope").to_owned())
        }
        _ => bad("unsupported_grant_type", "grant_type"),
    }
}

/// A client with this deadline.
pub(crate) fn http_within(deadline: Duration) -> Http {
    Http::new(HttpOptions { deadline, ..HttpOptions::default() }).expect("a client")
}

pub(crate) fn http() -> Http {
    http_within(Duration::from_secs(60))
}

pub(crate) fn clock() -> Clock {
    Clock::new(|| NOW)
}

/// An error, in every form in which it is shown.
pub(crate) fn shown(error: &pcoder_oauth::Error) -> String {
    let shown = format!("{error} | {error:?} | {}", error.hint());
    assert!(!shown.contains(SECRET), "{shown}");
    shown
}
