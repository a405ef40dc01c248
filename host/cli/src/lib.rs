//! The `pcoder` command line: arguments in, terminal out, nothing else.
//!
//! It is a library so that the program itself (`host/program`), which embeds the plugins, is one small crate: touching a
//! plugin compiles that crate again and nothing else.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod exit;
#[cfg(test)]
mod hints;
mod output;
mod progress;
mod signals;
mod usage;

use std::ffi::OsString;
use std::process::ExitCode;

pub use pcoder_core::Bundled;
use pcoder_core::runtime::Error;
use pcoder_core::runtime::process::{GuardCommand, guard};
use pcoder_core::{Pcoder, Surroundings};

use crate::args::Command;

/// Everything that the program does. `bundled` are the plugins that it was built with.
pub fn main(bundled: &'static [Bundled]) -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let arguments = match usage::parse(&words) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    if let Command::Guard = arguments.command {
        guard(std::io::stdin().lock());
        return ExitCode::SUCCESS;
    }
    output::start_logging(arguments.verbose);
    let json = arguments.command.json();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&Error::io("start", "the async runtime", &error), json),
    };
    let result = runtime.block_on(dispatch(arguments.command, bundled));
    // A thread that still waits on standard input must not keep the program.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => output::fail(&error, json),
    }
}

async fn dispatch(command: Command, bundled: &'static [Bundled]) -> Result<ExitCode, Error> {
    if let Command::Precompile(arguments) = command {
        return commands::precompile::precompile(&arguments);
    }
    let pcoder = Pcoder::new(surroundings()?, bundled, true)?;
    pcoder.processes().guard_with(GuardCommand {
        // This very program, also when its file was replaced or removed meanwhile.
        program: "/proc/self/exe".into(),
        name: "pcoder".into(),
        args: vec!["__guard".into()],
    });
    match command {
        Command::Run(arguments) => commands::run::run(&pcoder, arguments).await,
        Command::ListTools(arguments) => commands::tools::list(&pcoder, &arguments).await,
        Command::Doctor(arguments) => commands::doctor::doctor(&pcoder, &arguments).await,
        Command::Engine(arguments) => commands::engine::engine(&pcoder, arguments).await,
        Command::Plugin(arguments) => commands::plugin::plugin(&pcoder, &arguments),
        Command::Demo(arguments) => commands::demo::demo(&pcoder, arguments).await,
        Command::Precompile(arguments) => commands::precompile::precompile(&arguments),
        Command::Guard => Ok(ExitCode::SUCCESS),
    }
}

/// The one place that reads the process's environment.
fn surroundings() -> Result<Surroundings, Error> {
    Ok(Surroundings {
        environment: std::env::vars_os().collect(),
        cwd: std::env::current_dir().map_err(|error| {
            Error::io("start", "the working folder", &error).hint("it may have been deleted: `cd` somewhere else")
        })?,
        executable: std::env::current_exe().ok(),
    })
}
