//! A command line that is wrong, said to scripts in the record that every other error is.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, Parser as _};
use pcoder_core::runtime::Error;
use pcoder_core::runtime::error::code;
use pcoder_core::runtime::text::for_people;

use crate::args::Arguments;
use crate::output;

/// The arguments, or the exit code of a program that has said what is wrong with them, or has shown its help.
pub(crate) fn parse(words: &[OsString]) -> Result<Arguments, ExitCode> {
    Arguments::try_parse_from(words).map_err(|error| {
        if error.use_stderr() && asks_for_json(words) {
            return output::fail(&record(words, &error), true);
        }
        // A reader that has gone away is no error.
        drop(error.print());
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(u8::MAX))
    })
}

/// Whether `--json` stands anywhere before the agent's own arguments. clap knows no more of a line that it refuses.
fn asks_for_json(words: &[OsString]) -> bool {
    let ours = words.iter().take_while(|word| *word != "--");
    ours.into_iter().any(|word| word == "--json" || word.to_str().is_some_and(|word| word.starts_with("--json=")))
}

fn record(words: &[OsString], error: &clap::Error) -> Error {
    let rendered = error.render().to_string();
    // clap shows a message, tips and the usage, with empty lines between them.
    let message: Vec<&str> = rendered.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let message = message.join(" ");
    let plain = message.strip_prefix("error: ").unwrap_or(&message);
    let help = format!("`{} --help` shows how it is written", command(words));
    let hint = match suggestions(error).as_slice() {
        [] => help,
        names => format!("did you mean {}? {help}", names.join(" or ")),
    };
    let wrong = Error::new(code::INVALID, "arguments", for_people(plain, 400)).hint(hint);
    match subject(error) {
        Some(subject) => wrong.subject(for_people(subject, 400)),
        None => wrong,
    }
}

fn subject(error: &clap::Error) -> Option<&str> {
    [ContextKind::InvalidSubcommand, ContextKind::InvalidArg].into_iter().find_map(|kind| match error.get(kind)? {
        ContextValue::String(name) => Some(name.as_str()),
        ContextValue::Strings(names) => names.first().map(String::as_str),
        _ => None,
    })
}

fn suggestions(error: &clap::Error) -> Vec<String> {
    let kinds = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    let names = kinds.into_iter().filter_map(|kind| error.get(kind)).flat_map(|value| match value {
        ContextValue::String(name) => vec![name.clone()],
        ContextValue::Strings(names) => names.clone(),
        _ => Vec::new(),
    });
    names.map(|name| format!("`{name}`")).collect()
}

/// The command that the line names, as far as there is one.
fn command(words: &[OsString]) -> String {
    let mut command = Arguments::command();
    let mut path = command.get_name().to_owned();
    for word in words.iter().skip(1).filter_map(|word| word.to_str()).filter(|word| !word.starts_with('-')) {
        let Some(found) = command.find_subcommand(word) else { break };
        path = format!("{path} {}", found.get_name());
        command = found.clone();
    }
    path
}
