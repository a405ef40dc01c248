//! Sends records to a collector, by OTLP over HTTP with protobuf.
//!
//! Each record is one log record, and each `call` event a span as well. The trace's id is made from the call's name, so
//! that all records of a call are found together. `docs/audit.md` has the table.
//!
//! The messages are those of `opentelemetry-proto`. The official exporter, `opentelemetry-otlp`, is not used: it reads
//! its endpoint, headers and timeouts from the process's environment, log records can be made by the SDK's own logger
//! only, and the SDK does not tell its caller how many it dropped.

mod encode;
mod send;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Url;
use serde_json::Value;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use encode::Batch;
use send::Collector;

/// How many records wait at most. More are dropped, and counted.
const QUEUE: usize = 4_096;
/// How many records one request has at most.
const BATCH: usize = 512;
/// How long a record waits for others.
const LINGER: Duration = Duration::from_secs(1);

/// Sends records in the background. Dropping it gives up what was not sent.
#[derive(Debug)]
pub struct Exporter {
    queue: Sender<Value>,
    counts: Arc<Counts>,
    task: Task,
}

/// Ends with its owner.
#[derive(Debug)]
struct Task(JoinHandle<Option<Error>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What became of the records.
#[derive(Debug)]
#[non_exhaustive]
pub struct Exported {
    /// Records that the collector took.
    pub sent: u64,
    /// Records that it did not: the queue was full, it refused them, or the time was over.
    pub dropped: u64,
    /// Spans that it took.
    pub spans: u64,
    /// Why something was dropped, the last time.
    pub error: Option<Error>,
}

#[derive(Debug, Default)]
struct Counts {
    given: AtomicU64,
    sent: AtomicU64,
    spans: AtomicU64,
}

impl Exporter {
    /// Starts to send to `<endpoint>/v1/logs` and `<endpoint>/v1/traces`, on the Tokio runtime that this is called in.
    /// Nothing is sent before the first record.
    ///
    /// # Errors
    /// `Endpoint` when it is no address of `http` or `https`.
    pub fn start(endpoint: &str, service_version: &str) -> Result<Self> {
        let mut base = Url::parse(endpoint).map_err(|error| Error::Endpoint { reason: error.to_string() })?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(Error::Endpoint { reason: "it begins with neither `http://` nor `https://`".to_owned() });
        }
        base.set_query(None);
        base.set_fragment(None);
        let collector = Collector::new(&base)?;
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|_| Error::Endpoint { reason: "it was started outside of a Tokio runtime".to_owned() })?;
        let (queue, records) = channel(QUEUE);
        let counts = Arc::<Counts>::default();
        let task = runtime.spawn(run(records, collector, Arc::clone(&counts), service_version.to_owned()));
        Ok(Self { queue, counts, task: Task(task) })
    }

    /// Takes one record, as it stands in the file: with `seq` and `hash`, the collector's copy proves the file's chain.
    /// It never waits: where the queue is full, the record is dropped and counted.
    pub fn record(&self, record: &Value) {
        self.counts.given.fetch_add(1, Ordering::Relaxed);
        // What is not sent in the end counts as dropped.
        if let Ok(place) = self.queue.try_reserve() {
            place.send(record.clone());
        }
    }

    /// Sends what is left, for at most so long, and says what became of all.
    pub async fn finish(self, deadline: Duration) -> Exported {
        let Self { queue, counts, mut task } = self;
        drop(queue);
        let error = match tokio::time::timeout(deadline, &mut task.0).await {
            Ok(ended) => ended.unwrap_or_else(|error| Some(Error::Export { reason: error.to_string() })),
            Err(_) => Some(Error::Export { reason: format!("it took longer than {} ms", deadline.as_millis()) }),
        };
        drop(task);
        let (given, sent) = (counts.given.load(Ordering::Relaxed), counts.sent.load(Ordering::Relaxed));
        Exported { sent, dropped: given.saturating_sub(sent), spans: counts.spans.load(Ordering::Relaxed), error }
    }
}

/// Sends batches until the queue is closed and empty. Gives back why something was not sent.
async fn run(
    mut records: Receiver<Value>,
    collector: Collector,
    counts: Arc<Counts>,
    version: String,
) -> Option<Error> {
    let mut problem = None;
    let mut batch = Vec::with_capacity(BATCH);
    while fill(&mut records, &mut batch).await {
        let Batch { logs, records, traces, spans } = Batch::of(&batch, &version);
        batch.clear();
        match collector.send_logs(logs, records).await {
            Ok(taken) => drop(counts.sent.fetch_add(taken, Ordering::Relaxed)),
            Err(error) => problem = Some(error),
        }
        if spans == 0 {
            continue;
        }
        match collector.send_traces(traces, spans).await {
            Ok(taken) => drop(counts.spans.fetch_add(taken, Ordering::Relaxed)),
            Err(error) => problem = Some(error),
        }
    }
    problem
}

/// Waits for a record, and then a little for more.
async fn fill(records: &mut Receiver<Value>, batch: &mut Vec<Value>) -> bool {
    if records.recv_many(batch, BATCH).await == 0 {
        return false;
    }
    let more = async { while batch.len() < BATCH && records.recv_many(batch, BATCH - batch.len()).await > 0 {} };
    drop(tokio::time::timeout(LINGER, more).await);
    true
}
