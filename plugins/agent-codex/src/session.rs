//! One unattended session: `codex exec` with the prompt on its standard input.
//!
//! `-` and standard input, always: a prompt that begins with a dash or is the name of a subcommand would be taken for
//! one, and an open input that stays silent would block. The prompt travels as base64, which nothing on the way can
//! misread.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pcoder_sdk::{Error, Result, SessionInput, name, setting, shell};

/// The longest script: it is one argument of `sh -c`, and Linux takes 128 KiB.
const SCRIPT_LIMIT: usize = 120 * 1024;

/// The process's name: `cx-` and what is left of the one that was asked for.
pub(crate) fn name(input: &SessionInput) -> String {
    name::sanitize(&format!("cx-{}", input.name.as_deref().unwrap_or("session")))
}

/// The script.
pub(crate) fn script(input: &SessionInput, program: &str) -> Result<String> {
    let invalid = |message: &str| Error::invalid("agent.to-process-spec", message);
    if input.prompt.trim().is_empty() {
        return Err(invalid("the prompt is empty"));
    }
    let mut words: Vec<&str> = vec![program, "exec", "--json", "--skip-git-repo-check"];
    if let Some(model) = &input.model {
        words.extend(["-m", model]);
    }
    match setting(&input.launch.options, "permission-mode") {
        None => {}
        Some("bypass") => words.push("--dangerously-bypass-approvals-and-sandbox"),
        Some(mode @ ("read-only" | "workspace-write")) => words.extend(["-s", mode]),
        Some(_) => {
            return Err(invalid("`permission-mode` is read-only, workspace-write or bypass"));
        }
    }
    words.extend(input.launch.args.iter().map(String::as_str));
    // Exec's own options go before the word.
    if let Some(session) = &input.resume {
        if session.starts_with('-') {
            return Err(invalid("this is not a session of Codex"));
        }
        words.extend(["resume", session]);
    }
    words.push("-");
    // Codex has no option for it: what is added to the system prompt goes in front of the prompt.
    let text = match input.system_prompt.as_deref().filter(|system| !system.is_empty()) {
        Some(system) => format!("{system}\n\n{}", input.prompt),
        None => input.prompt.clone(),
    };
    let script = format!("printf %s {} | base64 -d | {}", STANDARD.encode(text), shell::join(words));
    if script.len() > SCRIPT_LIMIT {
        return Err(invalid("the prompt is too long for a command line")
            .hint("put the long part into a file of the project and name it in the prompt"));
    }
    Ok(script)
}
