//! Records as messages of OTLP.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span, status};
use prost::Message as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::read::is_denied;

/// Records, encoded.
pub(crate) struct Batch {
    /// The body for `/v1/logs`.
    pub(crate) logs: Vec<u8>,
    /// How many records it has.
    pub(crate) records: u64,
    /// The body for `/v1/traces`.
    pub(crate) traces: Vec<u8>,
    /// How many spans it has.
    pub(crate) spans: u64,
}

impl Batch {
    pub(crate) fn of(records: &[Value], version: &str) -> Self {
        let resource = Resource {
            attributes: vec![text("service.name", "pcoder"), text("service.version", version)],
            ..Resource::default()
        };
        let scope = InstrumentationScope {
            name: "pcoder.audit".to_owned(),
            version: version.to_owned(),
            ..InstrumentationScope::default()
        };
        let spans: Vec<Span> = records.iter().filter_map(span_of).collect();
        let count = spans.len() as u64;
        let traces = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource.clone()),
                scope_spans: vec![ScopeSpans { scope: Some(scope.clone()), spans, ..ScopeSpans::default() }],
                ..ResourceSpans::default()
            }],
        };
        let log_records = records.iter().map(log_of).collect();
        let logs = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(resource),
                scope_logs: vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }],
                ..ResourceLogs::default()
            }],
        };
        Self { logs: logs.encode_to_vec(), records: records.len() as u64, traces: traces.encode_to_vec(), spans: count }
    }
}

fn log_of(record: &Value) -> LogRecord {
    let time = nanos(number(record, "time_ms"));
    let warn = is_denied(record) || has_failed(record);
    let (severity, severity_text) = if warn { (SeverityNumber::Warn, "WARN") } else { (SeverityNumber::Info, "INFO") };
    let event = string(record, "event");
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: severity.into(),
        severity_text: severity_text.to_owned(),
        body: Some(value(sentence(record))),
        attributes: attributes(record),
        trace_id: trace_id(record),
        event_name: if event.is_empty() { String::new() } else { format!("pcoder.{event}") },
        ..LogRecord::default()
    }
}

/// A call's span. It ends when its record was written.
fn span_of(record: &Value) -> Option<Span> {
    let trace_id = trace_id(record);
    if string(record, "event") != "call" || trace_id.is_empty() {
        return None;
    }
    let end = number(record, "time_ms");
    let code = if has_failed(record) { status::StatusCode::Error } else { status::StatusCode::Ok };
    let message = if has_failed(record) { string(record, "outcome").to_owned() } else { String::new() };
    // A call's name may have several operations, and one of them more than once: the record itself is what differs.
    let identity = Sha256::digest(record.to_string());
    Some(Span {
        trace_id,
        span_id: identity.iter().take(8).copied().collect(),
        name: string(record, "operation").to_owned(),
        kind: span::SpanKind::Internal.into(),
        start_time_unix_nano: nanos(end.saturating_sub(number(record, "ms"))),
        end_time_unix_nano: nanos(end),
        attributes: attributes(record),
        status: Some(Status { message, code: code.into() }),
        ..Span::default()
    })
}

/// `decision exec run git: denied`.
fn sentence(record: &Value) -> String {
    let words = ["event", "class", "verb", "target"].map(|field| string(record, field));
    let words: Vec<_> = words.into_iter().filter(|it| !it.is_empty()).collect();
    let outcome = match string(record, "event") {
        "decision" if is_denied(record) => "denied",
        "decision" => "allowed",
        _ => string(record, "outcome"),
    };
    if outcome.is_empty() { words.join(" ") } else { format!("{}: {outcome}", words.join(" ")) }
}

fn has_failed(record: &Value) -> bool {
    !matches!(string(record, "outcome"), "" | "ok")
}

/// The same for all records of a call. Empty where there is no call.
fn trace_id(record: &Value) -> Vec<u8> {
    match string(record, "call") {
        "" => Vec::new(),
        call => Sha256::digest(call).iter().take(16).copied().collect(),
    }
}

/// Every field except the time, as `pcoder.FIELD`.
fn attributes(record: &Value) -> Vec<KeyValue> {
    let fields = record.as_object().into_iter().flatten();
    fields
        .filter(|(name, value)| *name != "time_ms" && !value.is_null())
        .map(|(name, field)| KeyValue { key: format!("pcoder.{name}"), value: Some(any(field)), ..KeyValue::default() })
        .collect()
}

fn any(field: &Value) -> AnyValue {
    let value = match field {
        Value::Bool(it) => any_value::Value::BoolValue(*it),
        Value::String(it) => any_value::Value::StringValue(it.clone()),
        Value::Number(it) => match (it.as_i64(), it.as_f64()) {
            (Some(it), _) => any_value::Value::IntValue(it),
            (None, Some(it)) => any_value::Value::DoubleValue(it),
            (None, None) => any_value::Value::StringValue(it.to_string()),
        },
        other => any_value::Value::StringValue(other.to_string()),
    };
    AnyValue { value: Some(value) }
}

fn text(key: &str, text: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value(text.to_owned())), ..KeyValue::default() }
}

fn value(text: String) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(text)) }
}

fn string<'a>(record: &'a Value, field: &str) -> &'a str {
    record.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn number(record: &Value, field: &str) -> u64 {
    record.get(field).and_then(Value::as_u64).unwrap_or_default()
}

fn nanos(ms: u64) -> u64 {
    ms.saturating_mul(1_000_000)
}
