//! One unattended session: `codex exec` with the prompt on its standard input.

use pcoder_sdk::{Error, Result, SessionInput, setting, shell};

use crate::account;

/// The script.
pub(crate) fn script(input: &SessionInput, program: &str) -> Result<String> {
    let invalid = |message: &str| Error::invalid("agent.to-process-spec", message);
    let account = input.launch.account()?;
    let options = account::options(&input.launch, &account);
    let mut words: Vec<&str> = vec![program, "exec"];
    words.extend(options.iter().map(String::as_str));
    words.extend(["--json", "--skip-git-repo-check"]);
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
    // `-` and standard input, always: an open input that stays silent would block.
    words.push("-");
    // Codex has no option for it: what is added to the system prompt goes in front of the prompt.
    input.script_with_system_prompt(&shell::join(words))
}
