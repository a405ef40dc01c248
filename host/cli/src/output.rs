//! What people and scripts read.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table};
use pcoder_core::runtime::Error;
use pcoder_core::runtime::error::code;
use serde::Serialize;

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
        #[derive(Serialize)]
        struct Failure<'a> {
            schema_version: u32,
            error: &'a Error,
        }
        let failure = Failure { schema_version: 1, error };
        if let Ok(text) = serde_json::to_string(&failure) {
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

/// A result as JSON, indented, with a line end.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Error> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|error| Error::new(code::INTERNAL, "print", error.to_string()))?;
    text.push('\n');
    print(&text)
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
