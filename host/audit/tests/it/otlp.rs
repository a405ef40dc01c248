//! Sending records away.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use pcoder_audit::otlp::Exporter;
use pcoder_audit::{Error, Filter, Rotation, read};
use serde_json::Value;

use crate::collector::{Answer, Collector};
use crate::world::World;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);
/// Above any deadline of these tests, below any of the exporter's own.
const SLACK: Duration = Duration::from_secs(5);

fn records(count: u64) -> Vec<Value> {
    let world = World::with(count, Rotation::default());
    read(&world.file(), &Filter::default()).unwrap().map(|it| it.unwrap()).collect()
}

fn start(endpoint: &str, records: &[Value]) -> Exporter {
    let exporter = Exporter::start(endpoint, "1.2.3").unwrap();
    records.iter().for_each(|it| exporter.record(it));
    exporter
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|it| it.key == key).unwrap_or_else(|| panic!("{key} in {attributes:?}"));
    match found.value.clone().unwrap().value.unwrap() {
        Any::StringValue(it) => it,
        Any::IntValue(it) => it.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_record_is_a_log_record_and_each_call_a_span_of_its_trace() {
    let collector = Collector::start([]).await;
    let records = records(6);
    let exported = start(&format!("{}/base/", collector.endpoint), &records).finish(LONG).await;
    assert_eq!((exported.sent, exported.dropped, exported.spans), (6, 0, 2));
    assert!(exported.error.is_none());
    let requests = collector.requests();
    assert_eq!(requests.iter().map(|it| &*it.path).collect::<Vec<_>>(), ["/base/v1/logs", "/base/v1/traces"]);
    assert!(requests.iter().all(|it| it.content_type == "application/x-protobuf"));
    let resource = collector.log_requests()[0].resource_logs[0].resource.clone().unwrap().attributes;
    assert_eq!(
        (text(&resource, "service.name"), text(&resource, "service.version")),
        ("pcoder".into(), "1.2.3".into())
    );

    let logs = collector.logs();
    for (log, record) in logs.iter().zip(&records) {
        for field in ["plugin", "call", "operation", "event", "hash", "prev", "digest"] {
            assert_eq!(text(&log.attributes, &format!("pcoder.{field}")), record[field]);
        }
        assert_eq!(text(&log.attributes, "pcoder.seq"), record["seq"].to_string());
        assert_eq!(log.time_unix_nano, record["time_ms"].as_u64().unwrap() * 1_000_000);
    }
    // The first is a denial.
    assert_eq!((&*logs[0].severity_text, &*logs[0].event_name), ("WARN", "pcoder.decision"));
    assert_eq!((&*logs[1].severity_text, &*logs[1].event_name), ("INFO", "pcoder.effect"));
    assert_eq!(text(&logs[1].attributes, "pcoder.class"), "files");

    let spans = collector.spans();
    assert_eq!(spans[0].name, "provider.exec");
    assert_eq!(spans[0].end_time_unix_nano - spans[0].start_time_unix_nano, 12_000_000);
    assert!(logs[..3].iter().all(|it| it.trace_id == spans[0].trace_id));
    assert_eq!((spans[0].trace_id.len(), spans[0].span_id.len()), (16, 8));
    assert_ne!(spans[0].trace_id, spans[1].trace_id);
    assert_ne!(spans[0].span_id, spans[1].span_id);
}

#[tokio::test]
async fn many_records_go_in_several_requests_and_none_twice() {
    let collector = Collector::start([]).await;
    let exported = start(&collector.endpoint, &records(1_200)).finish(LONG).await;
    assert_eq!((exported.sent, exported.dropped, exported.spans), (1_200, 0, 400));
    assert!(collector.log_requests().len() >= 3);
    let mut seqs: Vec<u64> =
        collector.logs().iter().map(|it| text(&it.attributes, "pcoder.seq").parse().unwrap()).collect();
    seqs.dedup();
    assert_eq!(seqs, Vec::from_iter(1..=1_200));
}

#[tokio::test]
async fn it_sends_without_being_told_to_finish() {
    let collector = Collector::start([]).await;
    let exporter = start(&collector.endpoint, &records(1));
    collector.arrived(1).await;
    assert_eq!(exporter.finish(LONG).await.sent, 1);
}

#[tokio::test]
async fn a_collector_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    let collector = Collector::start([Answer::Status("503 Busy"), Answer::Status("429 Slower")]).await;
    let exported = start(&collector.endpoint, &records(1)).finish(LONG).await;
    assert_eq!((exported.sent, exported.dropped, collector.requests().len()), (1, 0, 3));

    let collector = Collector::start([Answer::Status("400 No")]).await;
    let exported = start(&collector.endpoint, &records(1)).finish(LONG).await;
    assert_eq!((exported.sent, exported.dropped, collector.requests().len()), (0, 1, 1));
    let error = exported.error.unwrap();
    assert_eq!(error.to_string(), "the collector did not take the audit: it answered 400 Bad Request");
}

#[tokio::test]
async fn what_the_collector_says_it_rejected_counts_as_dropped() {
    let collector = Collector::start([Answer::TakeAllBut(2)]).await;
    let exported = start(&collector.endpoint, &records(6)).finish(LONG).await;
    assert_eq!((exported.sent, exported.dropped, exported.spans), (4, 2, 2));
}

#[tokio::test]
async fn a_collector_that_is_down_slow_or_always_busy_does_not_hold_anybody_up() {
    let down = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let slow = Collector::start([Answer::Never, Answer::Never]).await;
    let busy = Collector::start([Answer::Status("503 Busy"); 50]).await;
    for endpoint in [&down, &slow.endpoint, &busy.endpoint] {
        let started = Instant::now();
        let exporter = start(endpoint, &records(3));
        let exported = exporter.finish(Duration::from_millis(300)).await;
        assert!(started.elapsed() < SLACK, "{endpoint}");
        assert_eq!((exported.sent, exported.dropped), (0, 3));
        assert!(matches!(exported.error, Some(Error::Export { .. })), "{exported:?}");
    }
    // One that is down is given up by itself as well.
    let exported = start(&down, &records(3)).finish(LONG).await;
    assert!(exported.error.unwrap().to_string().contains("refused"));
}

#[tokio::test]
async fn a_full_queue_drops_and_counts_and_never_waits() {
    let collector = Collector::start([Answer::Never]).await;
    let exporter = start(&collector.endpoint, &records(1));
    collector.arrived(1).await;
    let record = &records(1)[0];
    let started = Instant::now();
    for _ in 0..10_000 {
        exporter.record(record);
    }
    assert!(started.elapsed() < SLACK);
    let exported = exporter.finish(Duration::from_millis(100)).await;
    assert_eq!((exported.sent, exported.dropped), (0, 10_001));
}

#[tokio::test]
async fn an_address_that_cannot_be_used_is_refused_and_not_shown() {
    for endpoint in ["localhost:4318", "ftp://user:secret@host", "http//user:secret@host", ""] {
        let error = Exporter::start(endpoint, "1").unwrap_err();
        assert!(matches!(error, Error::Endpoint { .. }) && error.hint().contains("4318"));
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}
