//! Requests to the collector, and which failures are worth another try.

use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use pcoder_http::{ClientOptions, reason, retry_after};
use prost::Message;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response, StatusCode, Url};

use crate::error::{Error, Result};

/// For one request. A collector is near.
const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);
/// A collector that wants a longer pause is not waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest answer that is read.
const MAX_ANSWER: usize = 64 << 10;

pub(crate) struct Collector {
    client: Client,
    logs: Url,
    traces: Url,
}

enum Failure {
    Again { reason: String, after: Option<Duration> },
    Fatal(String),
}

impl Collector {
    pub(crate) fn new(base: &Url) -> Result<Self> {
        // Not by a proxy: the audit goes to the one address that was named.
        let options =
            ClientOptions { connect: CONNECT, certificates: base.scheme() == "https", ..ClientOptions::default() };
        let client = options.build().map_err(|error| Error::Endpoint { reason: error.to_string() })?;
        let below = |path: &str| {
            let mut url = base.clone();
            url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
            url
        };
        Ok(Self { client, logs: below("v1/logs"), traces: below("v1/traces") })
    }

    /// Gives back how many of the records the collector took.
    pub(crate) async fn send_logs(&self, body: Vec<u8>, records: u64) -> Result<u64> {
        let answer: ExportLogsServiceResponse = self.send(&self.logs, body).await?;
        let rejected = answer.partial_success.map_or(0, |it| it.rejected_log_records);
        Ok(records.saturating_sub(u64::try_from(rejected).unwrap_or_default()))
    }

    /// Gives back how many of the spans the collector took.
    pub(crate) async fn send_traces(&self, body: Vec<u8>, spans: u64) -> Result<u64> {
        let answer: ExportTraceServiceResponse = self.send(&self.traces, body).await?;
        let rejected = answer.partial_success.map_or(0, |it| it.rejected_spans);
        Ok(spans.saturating_sub(u64::try_from(rejected).unwrap_or_default()))
    }

    async fn send<T: Message + Default>(&self, url: &Url, body: Vec<u8>) -> Result<T> {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .with_max_times(5)
            .build();
        loop {
            let (reason, after) = match self.once(url, body.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Fatal(reason)) => return Err(Error::Export { reason }),
                Err(Failure::Again { reason, after }) => (reason, after),
            };
            match (pauses.next(), after) {
                (Some(pause), after) if after.is_none_or(|it| it <= LONGEST_PAUSE) => {
                    tokio::time::sleep(after.unwrap_or(pause)).await;
                }
                _ => return Err(Error::Export { reason }),
            }
        }
    }

    async fn once<T: Message + Default>(&self, url: &Url, body: Vec<u8>) -> Result<T, Failure> {
        let again = |error: reqwest::Error| Failure::Again { reason: reason(error), after: None };
        let request = self.client.post(url.clone()).header(CONTENT_TYPE, "application/x-protobuf").body(body);
        let request = request.timeout(PATIENCE);
        let mut response = request.send().await.map_err(again)?;
        let status = response.status();
        if !status.is_success() {
            return Err(judge(status, &response));
        }
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(again)? {
            if answer.len() + chunk.len() > MAX_ANSWER {
                break;
            }
            answer.extend_from_slice(&chunk);
        }
        // It took them; what else it says is only worth reading when it is what the protocol says.
        Ok(T::decode(&answer[..]).unwrap_or_default())
    }
}

/// The protocol names the four that may be tried again.
fn judge(status: StatusCode, response: &Response) -> Failure {
    let reason = format!("it answered {status}");
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            Failure::Again { reason, after: retry_after(response.headers(), SystemTime::now()) }
        }
        _ => Failure::Fatal(reason),
    }
}
