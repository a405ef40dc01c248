//! One unattended session: `claude -p` with the prompt on its standard input.
//!
//! The prompt and the system prompt travel as base64: no shell, no process manager and no API on the way can misread
//! them. The prompt goes in by a pipe, where one that begins with a dash is no option.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pcoder_sdk::{Error, Result, SessionInput, name, setting, shell};

/// The model where none was asked for.
const MODEL: &str = "sonnet";

/// The longest script: it is one argument of `sh -c`, and Linux takes 128 KiB.
const SCRIPT_LIMIT: usize = 120 * 1024;

/// The process's name: `cc-` and what is left of the one that was asked for.
pub(crate) fn name(input: &SessionInput) -> String {
    name::sanitize(&format!("cc-{}", input.name.as_deref().unwrap_or("session")))
}

/// The script.
pub(crate) fn script(input: &SessionInput, program: &str) -> Result<String> {
    let invalid = |message: &str| Error::invalid("agent.to-process-spec", message);
    if input.prompt.trim().is_empty() {
        return Err(invalid("the prompt is empty"));
    }
    let mut words = vec![program, "-p", "--output-format", "stream-json", "--verbose"];
    if let Some(session) = &input.resume {
        words.extend(["--resume", session]);
    }
    words.extend(["--model", input.model.as_deref().unwrap_or(MODEL)]);
    match setting(&input.launch.options, "permission-mode") {
        None => {}
        Some("bypass") => words.push("--dangerously-skip-permissions"),
        Some(mode @ ("default" | "acceptEdits" | "plan" | "dontAsk")) => words.extend(["--permission-mode", mode]),
        Some(_) => {
            return Err(invalid("`permission-mode` is default, acceptEdits, plan, dontAsk or bypass"));
        }
    }
    let mut command = shell::join(words);
    if let Some(system) = input.system_prompt.as_deref().filter(|system| !system.is_empty()) {
        command.push_str(&format!(r#" --append-system-prompt "$({})""#, decoded(system)));
    }
    if !input.launch.args.is_empty() {
        command.push(' ');
        command.push_str(&shell::join(&input.launch.args));
    }
    let script = format!("{} | {command}", decoded(&input.prompt));
    if script.len() > SCRIPT_LIMIT {
        return Err(invalid("the prompt is too long for a command line")
            .hint("put the long part into a file of the project and name it in the prompt"));
    }
    Ok(script)
}

fn decoded(text: &str) -> String {
    format!("printf %s {} | base64 -d", STANDARD.encode(text))
}
