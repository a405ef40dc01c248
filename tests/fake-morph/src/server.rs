//! The fake itself: its listeners, and the way of a request.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::response::Response;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::answer::{Outcome, Refusal, json_answer, no_content, refusal};
use crate::api::{self, Call};
use crate::control::{self, Dropped, instead, spoil};
use crate::exec;
use crate::fault::{FaultKind, Faults};
use crate::input::Query;
use crate::operation::{Operation, Route, route};
use crate::options::{Options, StartError};
use crate::world::World;
use crate::{keys, ssh};

/// The oldest record makes room for the newest.
const MAX_RECORDS: usize = 16_384;
const MAX_BODY: usize = 64 << 20;
/// How often what has expired is looked for when nobody asks.
const SWEEP: Duration = Duration::from_millis(100);

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path, with `/api`.
    pub path: String,
    /// The query as it was written; empty if there was none.
    pub query: String,
    /// The body.
    pub body: Vec<u8>,
    /// The headers but for `authorization`, by name.
    pub headers: Vec<(String, String)>,
    /// Which operation it is.
    pub operation: Option<Operation>,
}

impl Seen {
    /// As `GET /__fake/requests` tells it; the body as text.
    pub(crate) fn show(&self) -> Value {
        json!({ "method": self.method, "path": self.path, "query": self.query,
                "body": String::from_utf8_lossy(&self.body), "headers": self.headers,
                "operation": self.operation.map(Operation::name) })
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) world: Arc<World>,
    pub(crate) faults: Faults,
    seen: Mutex<VecDeque<Seen>>,
}

impl Shared {
    pub(crate) fn seen(&self) -> MutexGuard<'_, VecDeque<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running fake. Dropping it ends it, with all instances.
#[derive(Debug)]
pub struct FakeMorph {
    shared: Arc<Shared>,
    address: SocketAddr,
    ssh_address: SocketAddr,
    host_key: String,
    tasks: TaskTracker,
    _temporary: Option<TempDir>,
}

impl FakeMorph {
    /// Starts a fake; it answers when this returns. Needs a Tokio runtime of several threads.
    ///
    /// # Errors
    /// A port cannot be listened on, or the root folder cannot be used.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let (root, temporary) = match &options.root {
            Some(root) => (root.clone(), None),
            None => {
                let folder = tempfile::Builder::new().prefix("fake-morph-").tempdir();
                let folder = folder.map_err(|error| StartError::new("no temporary folder", error))?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        let unusable = |error| StartError::new(format!("the folder {} cannot be used", root.display()), error);
        std::fs::create_dir_all(&root).map_err(unusable)?;
        let root: PathBuf = root.canonicalize().map_err(unusable)?;
        let host_key = keys::host_key(&root).map_err(unusable)?;
        let public = host_key.public_key().to_openssh();
        let public = public.map_err(|error| unusable(std::io::Error::other(error)))?;
        let (listener, address) = listen(options.port).await?;
        let (gateway, ssh_address) = listen(options.ssh_port).await?;
        let world = Arc::new(World::new(options, root));
        let shared = Arc::new(Shared { world: Arc::clone(&world), faults: Faults::default(), seen: Mutex::default() });
        let tasks = TaskTracker::new();
        let ending = world.ending.clone();
        let (serving, tracker) = (Arc::clone(&shared), tasks.clone());
        tasks.spawn(async move { ending.run_until_cancelled(serve(serving, listener, tracker)).await });
        let ending = world.ending.clone();
        let serving = ssh::serve(Arc::clone(&world), gateway, host_key, tasks.clone());
        tasks.spawn(async move { ending.run_until_cancelled(serving).await });
        tasks.spawn(sweep(world));
        Ok(Self { shared, address, ssh_address, host_key: public, tasks, _temporary: temporary })
    }

    /// The base URL for clients (`MORPH_BASE_URL`).
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/api", self.address)
    }

    /// Where the SSH gateway listens.
    #[must_use]
    pub fn ssh_address(&self) -> SocketAddr {
        self.ssh_address
    }

    /// The gateway's host key, as a line of `known_hosts` has it after the host's name.
    #[must_use]
    pub fn ssh_host_key(&self) -> &str {
        &self.host_key
    }

    /// The requests so far, in the order in which they came; those below `/__fake` are none.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.seen().iter().cloned().collect()
    }

    /// How often the SSH gateway ran something so far: a line, a shell or a file server.
    #[must_use]
    pub fn gateway_runs(&self) -> usize {
        self.shared.world.gateway_runs.load(Ordering::Relaxed)
    }

    /// The faults that are to happen.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.shared.faults.clone()
    }

    /// Puts the fake's clock forward, for times to live.
    pub fn advance(&self, by: Duration) {
        self.shared.world.clock.advance(by);
    }

    /// Ends the fake and its instances, and waits for that.
    ///
    /// # Errors
    /// The instances' folders cannot be removed.
    pub async fn stop(self) -> std::io::Result<()> {
        self.shared.world.ending.cancel();
        let world = Arc::clone(&self.shared.world);
        let ended = tokio::task::spawn_blocking(move || world.end()).await;
        self.tasks.close();
        self.tasks.wait().await;
        ended.map_err(std::io::Error::other)?
    }
}

impl Drop for FakeMorph {
    fn drop(&mut self) {
        self.shared.world.ending.cancel();
        // What stays is in a folder that the caller chose, or that goes with this.
        let _ = self.shared.world.end();
    }
}

async fn listen(port: u16) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |error| StartError::new(format!("cannot listen on 127.0.0.1:{port}"), error);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

async fn sweep(world: Arc<World>) {
    loop {
        tokio::select! {
            () = world.ending.cancelled() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
        let world = Arc::clone(&world);
        if tokio::task::spawn_blocking(move || world.sweep()).await.is_err() {
            return;
        }
    }
}

async fn serve(shared: Arc<Shared>, listener: TcpListener, tasks: TaskTracker) {
    loop {
        // An accept that fails, for want of descriptors, is tried again.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        let ending = shared.world.ending.clone();
        let service = service_fn(move |request| {
            let shared = Arc::clone(&shared);
            // Of its own, so that an operation is whole when its client has gone.
            let answer = tokio::spawn(async move { request_answer(&shared, request).await });
            async move { answer.await.unwrap_or(Err(Dropped)) }
        });
        tasks.spawn(async move {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A client that goes, or a fault, is no failure of this side.
            let _ = ending.run_until_cancelled(connection).await;
        });
    }
}

async fn request_answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Response, Dropped> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return Ok(refusal(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large")));
    };
    let body = body.to_bytes().to_vec();
    let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
    if let Some(what) = path.strip_prefix("/__fake/") {
        return Ok(control::control(shared, &head.method, what, &body));
    }
    let found = path.strip_prefix("/api/").map_or(Route::Unknown, |path| route(&head.method, path));
    let operation = if let Route::Found(operation, _) = &found { Some(*operation) } else { None };
    record(shared, &head.method, &path, &query, &head.headers, &body, operation);
    let fault = shared.faults.take(operation, head.method.as_str(), &path);
    match &fault {
        Some(FaultKind::DropBefore) => return Err(Dropped),
        Some(what @ FaultKind::Status { after: false, .. }) => return instead(&shared.world, what).ok_or(Dropped),
        Some(FaultKind::Slow { millis }) => tokio::time::sleep(Duration::from_millis(*millis)).await,
        _ => {}
    }
    let response = if authorized(&head.headers, &shared.world.options.key) {
        match found {
            Route::Found(operation, ids) => {
                let call = Call { operation, ids, query: Query::new(&query), body };
                operate(&shared.world, call).await
            }
            Route::OtherMethod => refusal(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")),
            Route::Unknown => refusal(Refusal::new(StatusCode::NOT_FOUND, "Not Found")),
        }
    } else {
        refusal(Refusal::new(StatusCode::UNAUTHORIZED, "Invalid API key"))
    };
    match &fault {
        Some(what) => spoil(&shared.world, what, response).await,
        None => Ok(response),
    }
}

fn authorized(headers: &HeaderMap, key: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    given.and_then(|given| given.strip_prefix("Bearer ")) == Some(key)
}

fn record(
    shared: &Shared,
    method: &Method,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    body: &[u8],
    operation: Option<Operation>,
) {
    let headers = headers
        .iter()
        .filter(|(name, _)| *name != header::AUTHORIZATION)
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let seen = Seen {
        method: method.to_string(),
        path: path.to_owned(),
        query: query.to_owned(),
        body: body.to_vec(),
        headers,
        operation,
    };
    let mut all = shared.seen();
    if all.len() == MAX_RECORDS {
        all.pop_front();
    }
    all.push_back(seen);
}

async fn operate(world: &Arc<World>, call: Call) -> Response {
    let outcome: Outcome = match call.operation {
        Operation::InstanceExec | Operation::InstanceExecSse => {
            let sweeper = Arc::clone(world);
            if let Err(error) = tokio::task::spawn_blocking(move || sweeper.sweep()).await {
                return refusal(Refusal::broken(error));
            }
            if call.operation == Operation::InstanceExecSse {
                return exec::stream(world, call.id(), &call.body).await.unwrap_or_else(refusal);
            }
            exec::exec(world, call.id(), &call.body).await
        }
        _ => {
            let world = Arc::clone(world);
            let answer = tokio::task::spawn_blocking(move || {
                world.sweep();
                api::answer(&world, &call)
            });
            answer.await.unwrap_or_else(|error| Err(Refusal::broken(error)))
        }
    };
    match outcome {
        Ok(Value::Null) => no_content(),
        Ok(value) => json_answer(StatusCode::OK, &value),
        Err(refused) => refusal(refused),
    }
}
