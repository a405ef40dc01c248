//! What people and scripts read.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table};
use pcoder_core::runtime::Error;
use pcoder_core::runtime::error::code;
use serde::Serialize;
use serde_json::{Value, json};

use crate::exit;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default().bold();

/// Lines of plugins and of pcoder itself, on standard error.
pub(crate) fn start_logging(verbose: u8) {
    use tracing_subscriber::filter::LevelFilter;
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .without_time()
        .with_target(false);
    // There is only one start, so there is no subscriber yet.
    drop(subscriber.try_init());
}

/// A line for people, on standard error.
pub(crate) fn note(line: &str) {
    anstream::eprintln!("{line}");
}

/// Shows an error and turns it into an exit code: message, subject, hint; or the record itself, for scripts.
pub(crate) fn fail(error: &Error, json: bool) -> ExitCode {
    if json {
        if let Ok(text) = serde_json::to_string(&Answer::new(&json!({ "error": error }))) {
            anstream::eprintln!("{text}");
        }
        return ExitCode::from(exit::of_error(error));
    }
    anstream::eprintln!("{ERROR}error{ERROR:#}: {}", error.message);
    if let Some(subject) = &error.subject {
        // On one line: a path with line ends must not look like a part of the message.
        anstream::eprintln!("  in {}: {}", error.operation, subject.replace('\n', "\\n"));
    } else {
        anstream::eprintln!("  in {}", error.operation);
    }
    if let Some(hint) = &error.hint {
        anstream::eprintln!("\n{HINT}hint{HINT:#}: {hint}");
    }
    ExitCode::from(exit::of_error(error))
}

/// A result, on standard output. A reader that has gone away is no error: `pcoder … | head` ends quietly.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("print", "standard output", &error))
        }
        _ => Ok(()),
    }
}

/// What scripts read, of every command: the version of its shape, then its own fields, in snake case.
#[derive(Serialize)]
struct Answer<'a, T> {
    schema_version: u32,
    #[serde(flatten)]
    fields: &'a T,
}

impl<'a, T: Serialize> Answer<'a, T> {
    fn new(fields: &'a T) -> Self {
        Self { schema_version: 1, fields }
    }
}

/// A result as JSON, indented, with a line end. `fields` is a record; the version of its shape is put in front.
pub(crate) fn print_json(fields: &impl Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(&Answer::new(fields)).map_err(|error| not_json(&error))?;
    text.push('\n');
    print(&text)
}

/// A record whose fields are named as in a manifest, with the names that JSON has everywhere else.
pub(crate) fn snake_case(record: &impl Serialize) -> Result<Value, Error> {
    fn renamed(value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                Value::Object(fields.into_iter().map(|(name, it)| (name.replace('-', "_"), renamed(it))).collect())
            }
            Value::Array(items) => Value::Array(items.into_iter().map(renamed).collect()),
            other => other,
        }
    }
    serde_json::to_value(record).map(renamed).map_err(|error| not_json(&error))
}

fn not_json(error: &serde_json::Error) -> Error {
    Error::new(code::INTERNAL, "print", error.to_string())
}

/// A table without lines, that scripts can still cut into columns.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 1));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

/// Bytes, as people say them.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifests_fields_are_named_as_all_of_json_is() {
        use pcoder_core::runtime::manifest::LimitsRequest;
        let limits = LimitsRequest { cpu_seconds: Some(1), memory_mib: Some(2), ..LimitsRequest::default() };
        let shown = snake_case(&json!({ "asks": [limits] })).expect("a record");
        assert_eq!(shown, json!({ "asks": [{ "cpu_seconds": 1, "memory_mib": 2 }] }));
    }
}
