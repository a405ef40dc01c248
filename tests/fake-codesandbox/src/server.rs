//! The listeners, and what is behind each address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tower::ServiceExt as _;

use crate::cloud::{ApiError, Cloud};
use crate::fault::{Fault, Faults, What};
use crate::options::Options;
use crate::pitcher::{Caller, Done, call, ports, socket};
use crate::record::{Message, Recorded};
use crate::{pint, preview, rest};

/// Files in a request's body are as large as tests need.
const MAX_BODY: usize = 256 << 20;
/// How long what `fs/download` packed can be fetched.
const DOWNLOAD: Duration = Duration::from_secs(300);

/// The fake did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be listened on.
    #[error("cannot listen on 127.0.0.1:{port}")]
    Listen {
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The folder of the instances cannot be made.
    #[error("cannot make {}", path.display())]
    Root {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A running fake. Dropping it stops it too, with every instance.
#[derive(Debug)]
pub struct FakeCodeSandbox {
    cloud: Arc<Cloud>,
    tasks: Vec<JoinHandle<()>>,
    _folder: Option<tempfile::TempDir>,
}

impl FakeCodeSandbox {
    /// Starts a fake; it accepts connections when this returns. Needs a Tokio runtime.
    ///
    /// # Errors
    /// The port cannot be listened on, or the folder cannot be made.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let failed = |path: PathBuf| move |source| StartError::Root { path, source };
        let (root, folder) = match &options.root {
            Some(root) => {
                std::fs::create_dir_all(root).map_err(failed(root.clone()))?;
                (root.clone(), None)
            }
            None => {
                let folder = tempfile::Builder::new().prefix("fake-codesandbox-").tempdir();
                let folder = folder.map_err(failed(std::env::temp_dir()))?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        let (api, api_address) = listen(options.port).await?;
        let (agents, agents_address) = listen(0).await?;
        let cloud = Arc::new(Cloud::new(options, root, api_address, agents_address));
        let tasks = vec![
            tokio::spawn(accept(api, cloud.clone(), api_router(&cloud))),
            tokio::spawn(accept(agents, cloud.clone(), agents_router(&cloud))),
            tokio::spawn(cloud.clone().watch_idle()),
            tokio::spawn(ports::watch(cloud.clone())),
        ];
        Ok(Self { cloud, tasks, _folder: folder })
    }

    /// The address of the REST API: what `CSB_BASE_URL` is.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.cloud.api)
    }

    /// Where the agents listen, and the ports of instances ([`crate`] says how those are asked for).
    #[must_use]
    pub fn agents_address(&self) -> SocketAddr {
        self.cloud.agents
    }

    /// The requests to the REST API and to Pint so far, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.cloud.records.requests()
    }

    /// The requests to agents so far, oldest first.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.cloud.records.messages()
    }

    /// What goes wrong next.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.cloud.faults
    }

    /// The ids of the sandboxes that exist, and whether each is running.
    #[must_use]
    pub fn sandboxes(&self) -> Vec<(String, bool)> {
        self.cloud.sandboxes().iter().map(|sandbox| (sandbox.id.clone(), sandbox.running())).collect()
    }

    /// Waits until this is so, looking whenever a request was made or answered; whether it became so within `limit`.
    pub async fn wait_until(&self, limit: Duration, so: impl Fn(&Self) -> bool) -> bool {
        let mut changed = self.cloud.records.subscribe();
        let wait = async {
            loop {
                changed.borrow_and_update();
                if so(self) {
                    return;
                }
                // The sender lives in `self`.
                let _ = changed.changed().await;
            }
        };
        tokio::time::timeout(limit, wait).await.is_ok()
    }

    /// Cuts every connection, ends every instance, and removes the folder if it was a temporary one.
    pub async fn stop(mut self) {
        self.cloud.stop.cancel();
        for task in self.tasks.drain(..) {
            // One that panicked has said so.
            let _ = task.await;
        }
        let cloud = self.cloud.clone();
        let _ = tokio::task::spawn_blocking(move || cloud.end()).await;
    }
}

impl Drop for FakeCodeSandbox {
    fn drop(&mut self) {
        self.cloud.stop.cancel();
        self.cloud.end();
    }
}

async fn listen(port: u16) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { port, source };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

fn api_router(cloud: &Arc<Cloud>) -> Router {
    Router::new()
        .route("/__fake/faults", get(pending).post(push).delete(clear))
        .route("/__fake/requests", get(requests))
        .fallback(rest::answer)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(cloud.clone())
}

fn agents_router(cloud: &Arc<Cloud>) -> Router {
    Router::new()
        .route("/__download/{id}", get(download))
        .route("/pint/{sandbox}/{*rest}", any(pint::answer))
        .route("/{sandbox}", get(connect).post(over_http))
        .route("/{sandbox}/", get(connect).post(over_http))
        .fallback(|| async { rest::nowhere() })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(cloud.clone())
}

/// Accepts connections until the fake stops, and cuts them then.
async fn accept(listener: TcpListener, cloud: Arc<Cloud>, router: Router) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cloud.stop.cancelled() => return,
        };
        // What fails to be accepted is gone already.
        let Ok((stream, _)) = stream else { continue };
        tokio::spawn(serve(stream, cloud.clone(), router.clone()));
    }
}

async fn serve(stream: TcpStream, cloud: Arc<Cloud>, router: Router) {
    // Latency is what small messages are about.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let (router, cloud) = (router.clone(), cloud.clone());
        async move {
            if let Some(port) = preview::asked_for(&cloud, request.headers()) {
                return Ok(preview::answer(&cloud, port, request).await);
            }
            let Ok(response) = router.oneshot(request.map(Body::new)).await;
            // An error is the one way to end a connection without an answer.
            if rest::is_dropped(&response) {
                Err(io::Error::from(io::ErrorKind::ConnectionAborted))
            } else {
                Ok(response)
            }
        }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A client that goes is no error.
        _ = connection.with_upgrades() => {}
        () = cloud.stop.cancelled() => {}
    }
}

async fn pending(State(cloud): State<Arc<Cloud>>) -> Response {
    rest::json_answer(200, json!(cloud.faults.pending()).to_string())
}

/// Adds a fault, or a list of them, as JSON or as text.
async fn push(State(cloud): State<Arc<Cloud>>, body: String) -> Response {
    let faults = match serde_json::from_str::<Value>(&body) {
        Ok(Value::Array(faults)) => faults.into_iter().map(serde_json::from_value).collect::<Result<Vec<Fault>, _>>(),
        Ok(Value::String(text)) => return push_text(&cloud, &text),
        Ok(fault) => serde_json::from_value(fault).map(|fault| vec![fault]),
        Err(_) => return push_text(&cloud, body.trim()),
    };
    match faults {
        Ok(faults) => {
            faults.into_iter().for_each(|fault| cloud.faults.push(fault));
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => rest::error_answer(&ApiError::new(400, error.to_string())),
    }
}

fn push_text(cloud: &Cloud, text: &str) -> Response {
    match text.parse() {
        Ok(fault) => {
            cloud.faults.push(fault);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => rest::error_answer(&ApiError::new(400, error.to_string())),
    }
}

async fn clear(State(cloud): State<Arc<Cloud>>) -> Response {
    cloud.faults.clear();
    StatusCode::NO_CONTENT.into_response()
}

async fn requests(State(cloud): State<Arc<Cloud>>) -> Response {
    let all = json!({"requests": cloud.records.requests(), "messages": cloud.records.messages()});
    rest::json_answer(200, all.to_string())
}

async fn download(State(cloud): State<Arc<Cloud>>, Path(id): Path<String>) -> Response {
    let downloads = cloud.downloads.lock().unwrap_or_else(PoisonError::into_inner);
    match downloads.get(&id) {
        Some((at, bytes)) if at.elapsed() < DOWNLOAD => {
            ([(header::CONTENT_TYPE, "application/zip")], bytes.clone()).into_response()
        }
        _ => rest::nowhere(),
    }
}

/// Who asks an agent, by the token in the query.
fn caller(cloud: &Arc<Cloud>, id: &str, query: Option<&str>) -> Result<Caller, ApiError> {
    let query = rest::form(query.unwrap_or_default());
    let token = query.iter().find(|(key, _)| key == "token").map_or("", |(_, value)| value.as_str());
    let sandbox = cloud.get(id).ok_or_else(ApiError::not_found)?;
    let access = sandbox.access(token).ok_or_else(|| ApiError::of_status(401))?;
    Ok(Caller { cloud: cloud.clone(), sandbox, access, connection: None })
}

/// The handshake of a WebSocket.
async fn connect(State(cloud): State<Arc<Cloud>>, Path(id): Path<String>, mut request: Request) -> Response {
    match cloud.faults.take("connect") {
        Some(What::Status { status, retry_after, limit, errors, html }) => {
            return rest::on_demand(&cloud, status, retry_after, limit, errors, html);
        }
        Some(What::DropBefore | What::DropAfter) => return rest::dropped(),
        Some(What::Silent) => return rest::silence(&cloud).await,
        Some(What::Slow { ms }) => tokio::time::sleep(Duration::from_millis(ms)).await,
        _ => {}
    }
    let caller = match caller(&cloud, &id, request.uri().query()) {
        Ok(caller) => caller,
        Err(error) => return rest::error_answer(&error),
    };
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let Some(key) = key else { return rest::error_answer(&ApiError::new(400, "A WebSocket is expected")) };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // One that did not come about has no connection to speak on.
        if let Ok(upgraded) = upgrade.await {
            socket::serve(upgraded, caller).await;
        }
    });
    let headers = [
        (header::CONNECTION, "Upgrade".to_owned()),
        (header::UPGRADE, "websocket".to_owned()),
        (header::SEC_WEBSOCKET_ACCEPT, key),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// The variant of the protocol without a WebSocket, and so without notifications.
async fn over_http(
    State(cloud): State<Arc<Cloud>>,
    Path(id): Path<String>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let caller = match caller(&cloud, &id, uri.query()) {
        Ok(caller) => caller,
        Err(error) => return rest::error_answer(&error),
    };
    let packed = "application/x-msgpack";
    if headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != packed) {
        return rest::error_answer(&ApiError::new(415, "application/x-msgpack is expected"));
    }
    let request = match crate::pitcher::Request::decode(&body) {
        Ok(request) => request,
        Err(reason) => return rest::error_answer(&ApiError::new(400, reason)),
    };
    match call(&caller, &request).await {
        Done::Reply(bytes) | Done::LateReply(bytes) => ([(header::CONTENT_TYPE, packed)], bytes).into_response(),
        Done::Silence => rest::silence(&cloud).await,
        Done::Cut | Done::Close(_) => rest::dropped(),
    }
}
