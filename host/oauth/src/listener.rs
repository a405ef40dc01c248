//! The loopback redirect (RFC 8252, 7.3): a small web server for one request.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::authorization::Authorization;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::http::Http;
use crate::pasted::{self, Pasted};
use crate::service::Service;
use crate::tokens::Tokens;

/// Browsers open spare connections; more than these wait until one ends.
const MAX_CONNECTIONS: usize = 16;
/// Of a request's line and headers.
const MAX_REQUEST: usize = 16 * 1024;
/// For a whole request and its answer.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// After the system refused a connection.
const PAUSE: Duration = Duration::from_millis(20);

const ARRIVED: &str = "The login has arrived. You can close this page and go back to pcoder.";
const DENIED: &str = "The login was not granted. You can close this page and go back to pcoder.";
const NOT_MINE: &str = "This is not the login that pcoder waits for.";
const NOT_FOUND: &str = "There is nothing here.";

/// A login whose code arrives on a port of this machine. The port closes when this is dropped.
pub struct Listening {
    authorization: Arc<Authorization>,
    listener: TcpListener,
    path: Arc<str>,
}

impl Listening {
    pub(crate) async fn begin(service: &Service) -> Result<Self> {
        let loopback = service.loopback.as_ref().ok_or_else(|| Error::Config {
            subject: "the loopback redirect",
            detail: "this service has none".to_owned(),
        })?;
        let failed = |source| Error::Listen { port: loopback.port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, loopback.port)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let redirect_uri = format!("http://{}:{port}{}", loopback.host, loopback.path);
        let authorization = Arc::new(Authorization::begin_at(service, redirect_uri)?);
        Ok(Self { authorization, listener, path: loopback.path.as_str().into() })
    }

    /// The login itself: its [`url`](Authorization::url), and [`finish`](Authorization::finish) for a browser on another
    /// machine. That one fails to reach this port, and its address bar has the URL to paste.
    pub fn authorization(&self) -> &Authorization {
        &self.authorization
    }

    /// Waits for the browser and exchanges the code it brings. Requests for another path, with another method or with a
    /// wrong state are answered with an error, and the wait goes on.
    ///
    /// # Errors
    /// `NotInTime` after `patience`, `Denied`, and then as [`Authorization::finish`].
    pub async fn wait(&self, patience: Duration, http: &Http, clock: &Clock) -> Result<Tokens> {
        let pasted = tokio::time::timeout(patience, self.receive())
            .await
            .unwrap_or(Err(Error::NotInTime { waited: patience }))?;
        self.authorization.exchange(&pasted.code, http, clock).await
    }

    async fn receive(&self) -> Result<Pasted> {
        // Many at once: a spare connection that says nothing must not keep the browser's request waiting.
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(serve(stream, self.authorization.clone(), self.path.clone()));
                    }
                    // One that was gone before it was taken, or too many open files: others may come.
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
                Some(ended) = connections.join_next() => {
                    if let Ok(Some(outcome)) = ended {
                        return outcome;
                    }
                }
            }
        }
    }
}

/// Serves one connection to its end. The outcome is told after the page was sent.
async fn serve(stream: TcpStream, authorization: Arc<Authorization>, path: Arc<str>) -> Option<Result<Pasted>> {
    let slot = Arc::new(Mutex::new(None));
    let service = service_fn(|request: Request<Incoming>| {
        let (status, text, outcome) = answer(&request, &authorization, &path);
        if outcome.is_some() {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
        }
        std::future::ready(Ok::<_, Infallible>(page(status, text)))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(MAX_REQUEST)
        .serve_connection(TokioIo::new(stream), service);
    // A browser that went away after its request still brought the code.
    drop(tokio::time::timeout(REQUEST_DEADLINE, connection).await);
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The state comes first: what others send neither ends the login nor is looked at.
fn answer<B>(
    request: &Request<B>,
    authorization: &Authorization,
    path: &str,
) -> (StatusCode, &'static str, Option<Result<Pasted>>) {
    if request.uri().path() != path {
        return (StatusCode::NOT_FOUND, NOT_FOUND, None);
    }
    if request.method() != Method::GET {
        return (StatusCode::METHOD_NOT_ALLOWED, NOT_MINE, None);
    }
    let query = request.uri().query().unwrap_or_default();
    if !pasted::state_of(query).is_some_and(|state| authorization.is_mine(&state)) {
        return (StatusCode::BAD_REQUEST, NOT_MINE, None);
    }
    match pasted::parse_query(query) {
        Ok(pasted) => (StatusCode::OK, ARRIVED, Some(Ok(pasted))),
        Err(error @ Error::Denied { .. }) => (StatusCode::OK, DENIED, Some(Err(error))),
        Err(_) => (StatusCode::BAD_REQUEST, NOT_MINE, None),
    }
}

/// Nothing of the request is in it.
fn page(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let html = format!("<!doctype html><meta charset=utf-8><title>pcoder</title><p>{text}</p>\n");
    let mut response = Response::new(Full::new(Bytes::from(html)));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
