//! What the tests start: a supervisor, and programs for it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test's helper: what it prints is its result, and it fails by panicking"
)]

use std::ffi::OsString;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use pcoder_service::{Launcher, Services, Spec};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = args.iter().filter_map(|it| it.to_str()).collect();
    match words[..] {
        ["supervise"] => match pcoder_service::supervise(io::stdin(), io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        #[cfg(target_os = "linux")]
        ["become", supervisor, program, ..] => {
            let error = pcoder_service::become_program(supervisor.parse().unwrap(), program.as_ref(), &args[3..]);
            eprintln!("{error}");
            ExitCode::from(127)
        }
        // Starts a service and is gone.
        ["start", folder, sockets, name, ref program @ ..] => {
            start(folder, sockets, name, program);
            ExitCode::SUCCESS
        }
        // Gives back each line, until it is told to end.
        ["echo"] => {
            for line in io::stdin().lock().lines() {
                let line = line.unwrap();
                if let Some(code) = line.strip_prefix("exit ") {
                    println!("good-bye");
                    return ExitCode::from(code.parse::<u8>().unwrap());
                }
                println!("{line}");
            }
            ExitCode::SUCCESS
        }
        // Writes numbered lines for ever.
        ["count"] => {
            let mut out = io::stdout().lock();
            for number in 0_u64.. {
                if writeln!(out, "{number}").is_err() {
                    break;
                }
            }
            ExitCode::SUCCESS
        }
        // Says what it has, on both streams.
        ["tell"] => {
            let mut variables: Vec<String> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
            variables.sort();
            println!("{} in {}", variables.join(" "), std::env::current_dir().unwrap().display());
            eprintln!("this is for the log");
            drop(io::stdin().read_to_end(&mut Vec::new()));
            ExitCode::SUCCESS
        }
        _ => ExitCode::from(2),
    }
}

fn start(folder: &str, sockets: &str, name: &str, program: &[&str]) {
    let own = std::env::current_exe().unwrap();
    let launcher =
        Launcher { program: own.clone(), supervise: vec!["supervise".into()], become_program: vec!["become".into()] };
    let services = Services::new(folder, sockets, launcher);
    let spec = Spec { program: own, args: program.iter().map(Into::into).collect(), cwd: "/".into(), env: Vec::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), services.start(name, "a test", spec, |it| it.spawn()))
            .await
            .unwrap()
            .unwrap();
    });
}
