//! `__service`: keeps a program running that outlives the call of the plugin that started it.

use std::process::ExitCode;

use crate::output::note;

/// On the first thread: what it starts ends with the thread that started it.
pub(crate) fn supervise() -> ExitCode {
    match pcoder_core::supervise(std::io::stdin(), std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever started this was told already, if there still is one.
            note(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// `__ssh-keeper`: keeps connections that outlive the command that opened them.
pub(crate) fn keep_ssh() -> ExitCode {
    match pcoder_core::runtime::keep_ssh(std::io::stdin(), std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
pub(crate) fn become_program(arguments: &crate::args::ServiceProgram) -> ExitCode {
    let error = pcoder_core::become_program(arguments.supervisor, &arguments.program, &arguments.args);
    // In the service's log.
    note(&format!("{}: {error}", arguments.program.display()));
    ExitCode::from(127)
}
