//! A collector on the loopback, with faults on demand.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// What it does with a request.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Take,
    /// Takes all but so many.
    TakeAllBut(i64),
    Status(&'static str),
    /// Says nothing, and keeps the connection.
    Never,
}

/// A request that came.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
}

#[derive(Default)]
struct State {
    script: VecDeque<Answer>,
    requests: Vec<Request>,
}

pub(crate) struct Collector {
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
    arrived: Arc<Semaphore>,
}

impl Collector {
    /// Answers by the script, and then takes everything.
    pub(crate) async fn start(script: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { script: script.into_iter().collect(), requests: Vec::new() }));
        let arrived = Arc::new(Semaphore::new(0));
        let (its_state, its_arrived) = (Arc::clone(&state), Arc::clone(&arrived));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&its_state), Arc::clone(&its_arrived)));
            }
        });
        Self { endpoint, state, arrived }
    }

    /// Waits until so many requests have come since the last time.
    pub(crate) async fn arrived(&self, requests: u32) {
        self.arrived.acquire_many(requests).await.unwrap().forget();
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    pub(crate) fn log_requests(&self) -> Vec<ExportLogsServiceRequest> {
        let requests = self.requests().into_iter().filter(|it| it.path.ends_with("/v1/logs"));
        requests.map(|it| ExportLogsServiceRequest::decode(&it.body[..]).unwrap()).collect()
    }

    pub(crate) fn logs(&self) -> Vec<LogRecord> {
        let resources = self.log_requests().into_iter().flat_map(|it| it.resource_logs);
        resources.flat_map(|it| it.scope_logs).flat_map(|it| it.log_records).collect()
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        let requests = self.requests().into_iter().filter(|it| it.path.ends_with("/v1/traces"));
        requests
            .flat_map(|it| ExportTraceServiceRequest::decode(&it.body[..]).unwrap().resource_spans)
            .flat_map(|it| it.scope_spans)
            .flat_map(|it| it.spans)
            .collect()
    }
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>, arrived: Arc<Semaphore>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = next(&mut stream).await {
        let answer = {
            let mut state = state.lock().unwrap();
            state.requests.push(request);
            state.script.pop_front().unwrap_or(Answer::Take)
        };
        arrived.add_permits(1);
        let (status, body) = match answer {
            Answer::Take => ("200 OK", Vec::new()),
            Answer::TakeAllBut(rejected_log_records) => {
                let partial = ExportLogsPartialSuccess { rejected_log_records, error_message: String::new() };
                let answer = ExportLogsServiceResponse { partial_success: Some(partial) };
                ("200 OK", answer.encode_to_vec())
            }
            Answer::Status(status) => (status, Vec::new()),
            Answer::Never => std::future::pending().await,
        };
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
        if stream.write_all(&[head.as_bytes(), &body].concat()).await.is_err() {
            return;
        }
    }
}

async fn next(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut length, mut content_type) = (0, String::new());
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "content-type" => content_type = value.trim().to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { path, content_type, body })
}
