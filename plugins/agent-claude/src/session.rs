//! One unattended session: `claude -p` with the prompt on its standard input.

use pcoder_sdk::{Error, Result, SessionInput, setting, shell};

/// The model where none was asked for.
const MODEL: &str = "sonnet";

/// The script.
pub(crate) fn script(input: &SessionInput, program: &str) -> Result<String> {
    let mut words = vec![program, "-p", "--output-format", "stream-json", "--verbose"];
    if let Some(session) = &input.resume {
        words.extend(["--resume", session]);
    }
    words.extend(["--model", input.model.as_deref().or(input.launch.account()?.model).unwrap_or(MODEL)]);
    match setting(&input.launch.options, "permission-mode") {
        None => {}
        Some("bypass") => words.push("--dangerously-skip-permissions"),
        Some(mode @ ("default" | "acceptEdits" | "plan" | "dontAsk")) => words.extend(["--permission-mode", mode]),
        Some(_) => {
            let message = "`permission-mode` is default, acceptEdits, plan, dontAsk or bypass";
            return Err(Error::invalid("agent.to-process-spec", message));
        }
    }
    let mut command = shell::join(words);
    if let Some(system) = input.added_system_prompt() {
        command.push_str(&format!(r#" --append-system-prompt "$({})""#, shell::print(system)));
    }
    if !input.launch.args.is_empty() {
        command.push(' ');
        command.push_str(&shell::join(&input.launch.args));
    }
    input.script(&command)
}
