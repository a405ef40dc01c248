//! Requests to the proxy. hyper reads and writes them: what goes on is made anew from what was understood, so that a
//! request that two readers take for different ones is never passed on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::hosts::Place;
use super::out::{NoWay, Way, authority, client};
use super::{Shared, Why};

/// How many connections there are at once; more wait.
const CONNECTIONS: usize = 256;
/// The largest head of a request.
const LARGEST_HEAD: usize = 64 << 10;
/// How long to wait when the system has no more connections to give.
const PAUSE: Duration = Duration::from_millis(100);

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// The value of the header that has the credential.
pub(super) fn header(user: &str, token: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{token}")))
}

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>, head: Duration) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let shared_by_requests = Arc::clone(&shared);
        shared.work.spawn(async move {
            let place = Arc::new(place);
            let service = service_fn(|request| {
                let (shared, place) = (Arc::clone(&shared_by_requests), Arc::clone(&place));
                // A tunnel goes on when its request was answered, and counts for as long as it does.
                async move { Ok::<_, Infallible>(answer(&shared, request, place).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(head)
                .max_buf_size(LARGEST_HEAD)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            // What fails is the machine's affair, and it has been told.
            drop(connection.await);
        });
    }
}

async fn answer<P: Send + 'static>(shared: &Arc<Shared>, request: Request<Incoming>, place: P) -> Answer {
    if !may_ask(shared, request.headers()) {
        let mut answer = told(StatusCode::PROXY_AUTHENTICATION_REQUIRED, "this proxy is another run's".to_owned());
        answer.headers_mut().insert(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"pcoder\""));
        return answer;
    }
    let result = match *request.method() {
        Method::CONNECT => connect(shared, request, place).await,
        // It has the other side say what it got, which may have the credential of this host's own proxy.
        Method::TRACE => Err(Box::new(told(StatusCode::METHOD_NOT_ALLOWED, "pcoder: no TRACE".to_owned()))),
        _ => forward(shared, request).await,
    };
    result.unwrap_or_else(|answer| *answer)
}

fn may_ask(shared: &Shared, headers: &HeaderMap) -> bool {
    let said = headers.get(header::PROXY_AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    <[u8; 32]>::from(Sha256::digest(said)) == shared.credential
}

/// A tunnel, for whatever its ends speak.
async fn connect<P: Send + 'static>(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    counted: P,
) -> Result<Answer, Box<Answer>> {
    let place = place(request.uri(), None).ok_or_else(unclear)?;
    allowed(shared, &place)?;
    let mut out = shared.out.tunnel(&place, &shared.work).await.map_err(|error| no_way(shared, &place, error))?;
    shared.work.spawn(async move {
        let _counted = counted;
        if let Ok(machine) = hyper::upgrade::on(request).await {
            drop(tokio::io::copy_bidirectional(&mut TokioIo::new(machine), &mut out).await);
        }
    });
    Ok(Response::new(Full::default().map_err(never).boxed()))
}

/// A plain request, in the form that only proxies get.
async fn forward(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Box<Answer>> {
    if request.uri().scheme_str() != Some("http") {
        return Err(unclear());
    }
    let place = place(request.uri(), Some(80)).ok_or_else(unclear)?;
    allowed(shared, &place)?;
    let way = shared.out.way("http", &place).await.map_err(|error| no_way(shared, &place, error))?;
    let (mut parts, body) = request.into_parts();
    parts.version = Version::HTTP_11;
    without_hops(&mut parts.headers);
    // One host, the one that was looked at: another in `Host` would be the server's to believe.
    let named = HeaderValue::from_str(&host_header(&place)).map_err(|_| unclear())?;
    parts.headers.insert(header::HOST, named);
    let path = parts.uri.path_and_query().map_or("/", |it| it.as_str()).to_owned();
    let (stream, uri) = match way {
        Way::Direct(stream) => (stream, path),
        Way::Through(stream, proxy) => {
            if let Some(login) = proxy.basic_auth() {
                parts.headers.insert(header::PROXY_AUTHORIZATION, login.clone());
            }
            (stream, format!("http://{}{path}", host_header(&place)))
        }
    };
    parts.uri = uri.parse::<Uri>().map_err(|_| unclear())?;
    let failed = |error: hyper::Error| no_way(shared, &place, NoWay::Failed(error.to_string()));
    let mut sender = client(stream, &shared.work).await.map_err(failed)?;
    let response = sender.send_request(Request::from_parts(parts, body)).await.map_err(failed)?;
    let (mut parts, body) = response.into_parts();
    without_hops(&mut parts.headers);
    parts.version = Version::HTTP_11;
    Ok(Response::from_parts(parts, body.boxed()))
}

/// Where a request goes, or that it does not say so clearly.
fn place(uri: &Uri, usual: Option<u16>) -> Option<Place> {
    let authority = uri.authority()?;
    if authority.as_str().contains('@') {
        return None;
    }
    // The parser takes a port that is too large for none.
    let port = match authority.as_str().strip_prefix(authority.host())? {
        "" => usual?,
        rest => {
            let digits = rest.strip_prefix(':').filter(|it| it.bytes().all(|byte| byte.is_ascii_digit()))?;
            digits.parse().ok().filter(|it| *it != 0)?
        }
    };
    Place::new(authority.host(), port)
}

fn host_header(place: &Place) -> String {
    if place.port == 80 { place.host.to_string() } else { authority(place) }
}

fn allowed(shared: &Shared, place: &Place) -> Result<(), Box<Answer>> {
    if shared.rules.allow.iter().any(|it| it.holds(place)) {
        return Ok(());
    }
    let host = place.to_string();
    shared.refuse(Why::NotAllowed, &host);
    let body = format!(
        "pcoder: this machine's network is restricted, and {host} is not among the hosts that it may reach. Whoever runs \
         it can allow that on the host: {}",
        shared.rules.allowing(&host)
    );
    Err(Box::new(told(StatusCode::FORBIDDEN, body)))
}

fn no_way(shared: &Shared, place: &Place, why: NoWay) -> Box<Answer> {
    Box::new(match why {
        NoWay::Inside => {
            shared.refuse(Why::Inside, &place.to_string());
            let body = format!(
                "pcoder: {place} leads into the host or its network, and a machine whose network is restricted gets there \
                 only by the address of a model on the host that the run's profile names"
            );
            told(StatusCode::FORBIDDEN, body)
        }
        NoWay::Failed(why) => told(StatusCode::BAD_GATEWAY, format!("pcoder: {place} cannot be reached: {why}")),
    })
}

fn unclear() -> Box<Answer> {
    let body = "pcoder: this is a proxy. It takes `CONNECT HOST:PORT`, and requests with a whole `http` address";
    Box::new(told(StatusCode::BAD_REQUEST, body.to_owned()))
}

fn told(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Full::from(format!("{body}\n")).map_err(never).boxed());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

fn never(it: Infallible) -> hyper::Error {
    match it {}
}

/// Headers for the next one on the line alone, those that `Connection` names among them.
fn without_hops(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .filter_map(|it| it.trim().parse().ok())
        .collect();
    let known = ["keep-alive", "proxy-connection"].map(HeaderName::from_static);
    let hops = [
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    for name in named.into_iter().chain(known).chain(hops) {
        // How long a body is, is not the line's but the message's.
        if name != header::CONTENT_LENGTH {
            headers.remove(name);
        }
    }
}
