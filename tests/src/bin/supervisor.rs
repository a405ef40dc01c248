//! What keeps the services of tests: `supervisor supervise` owns one, `supervisor become PID PROGRAM ARGUMENTS` becomes
//! its program. `supervisor keep-ssh WHOSE` keeps connections; WHOSE tells those of one test from others.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = args.iter().filter_map(|it| it.to_str()).collect();
    match words[..] {
        ["supervise"] => match pcoder_service::supervise(std::io::stdin(), std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        ["keep-ssh", _] => match pcoder_runtime::keep_ssh(std::io::stdin(), std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        #[cfg(target_os = "linux")]
        ["become", supervisor, program, ..] => {
            let supervisor = supervisor.parse().unwrap_or_default();
            drop(pcoder_service::become_program(supervisor, program.as_ref(), args.get(3..).unwrap_or_default()));
            ExitCode::from(127)
        }
        _ => ExitCode::from(2),
    }
}
