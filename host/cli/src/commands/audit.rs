//! `audit …`.

use std::process::ExitCode;

use pcoder_core::audit_store::{Filter, read, verify, verify_against};
use pcoder_core::runtime::Error;
use pcoder_core::runtime::text::for_people;
use pcoder_core::{Pcoder, from_audit};
use serde_json::{Value, json};

use crate::args::{Audit, AuditShow, AuditVerify};
use crate::output::{note, print, print_json, table};

pub(crate) fn audit(pcoder: &Pcoder, command: &Audit) -> Result<ExitCode, Error> {
    match command {
        Audit::Show(arguments) => show(pcoder, arguments),
        Audit::Verify(arguments) => check(pcoder, arguments),
    }
}

fn show(pcoder: &Pcoder, arguments: &AuditShow) -> Result<ExitCode, Error> {
    let filter = Filter {
        plugin: arguments.plugin.clone(),
        call: arguments.call.clone(),
        denied: arguments.denied,
        last: (!arguments.all).then_some(arguments.last),
        ..Filter::default()
    };
    let records = read(&pcoder.layout().audit(), &filter).map_err(|error| from_audit(&error))?;
    if arguments.json.json {
        // One record a line: there may be very many.
        for record in records {
            let mut line = record.map_err(|error| from_audit(&error))?.to_string();
            line.push('\n');
            print(&line)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let rows = records.map(|record| record.map(|it| row(&it))).collect::<Result<Vec<_>, _>>();
    let rows = rows.map_err(|error| from_audit(&error))?;
    if rows.is_empty() {
        note("nothing is on record");
        return Ok(ExitCode::SUCCESS);
    }
    print(&table(&["time", "plugin", "digest", "operation", "what", "target", "outcome", "bytes", "ms"], rows))?;
    Ok(ExitCode::SUCCESS)
}

fn row(record: &Value) -> Vec<String> {
    let text = |field: &str| for_people(record.get(field).and_then(Value::as_str).unwrap_or_default(), 120);
    let number = |field: &str| record.get(field).and_then(Value::as_u64).map(|it| it.to_string()).unwrap_or_default();
    let event = text("event");
    let what = match event.as_str() {
        "call" => "call ended".to_owned(),
        _ => format!("{} {}", text("class"), text("verb")),
    };
    let outcome = match event.as_str() {
        "decision" if record.get("rule").is_none_or(Value::is_null) => "DENIED".to_owned(),
        "decision" => format!("allowed by `{}`", text("rule")),
        _ => text("outcome"),
    };
    let mut digest = text("digest");
    digest.truncate(12);
    let time = record.get("time_ms").and_then(Value::as_u64).map(utc).unwrap_or_default();
    vec![time, text("plugin"), digest, text("operation"), what, text("target"), outcome, number("bytes"), number("ms")]
}

/// A time as people and sorting like it, in UTC.
fn utc(ms: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms);
    humantime::format_rfc3339_millis(time).to_string()
}

fn check(pcoder: &Pcoder, arguments: &AuditVerify) -> Result<ExitCode, Error> {
    let file = pcoder.layout().audit();
    let report = match &arguments.head {
        Some(head) => verify_against(&file, head),
        None => verify(&file),
    };
    let report = report.map_err(|error| from_audit(&error))?;
    let intact = report.is_intact();
    if arguments.json.json {
        print_json(&json!({ "intact": intact, "report": report }))?;
    } else {
        for problem in &report.problems {
            print(&format!("{problem}\n"))?;
        }
        for torn in &report.torn {
            note(&format!("{}, line {}: cut short by a crash; the records around it are whole", torn.file, torn.line));
        }
        for legacy in &report.legacy {
            note(&format!("{legacy}: of the time before the chain; it is not verified"));
        }
        let head = report
            .head
            .as_ref()
            .map_or_else(String::new, |head| format!(", up to record {} with the hash\n{}", head.seq, head.hash));
        if intact {
            print(&format!("the audit is whole: {} records{head}\n", report.records))?;
        } else {
            let problems = match report.problems.len() as u64 + report.more_problems {
                1 => "one problem".to_owned(),
                count => format!("{count} problems"),
            };
            note(&format!("the audit is NOT whole: {problems}"));
        }
    }
    Ok(ExitCode::from(if intact { 0 } else { 5 }))
}
