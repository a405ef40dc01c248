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
use pcoder_core::grants::CompileCommand;
use pcoder_core::runtime::Error;
use pcoder_core::runtime::call::Starter;
use pcoder_core::runtime::process::{GuardCommand, guard};
use pcoder_core::{Launcher, Pcoder, Surroundings};

use crate::args::{Arguments, Command};

/// Everything that the program does. `bundled` are the plugins that it was built with, and `third_party` is the list of
/// what it is made of, with licences.
pub fn main(bundled: &'static [Bundled], third_party: &'static str) -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let arguments = match usage::parse(&words) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    if let Command::Guard = arguments.command {
        guard(std::io::stdin().lock());
        return ExitCode::SUCCESS;
    }
    if let Command::Compile = arguments.command {
        return compile();
    }
    if let Command::Service = arguments.command {
        return commands::service::supervise();
    }
    if let Command::SshKeeper = arguments.command {
        return commands::service::keep_ssh();
    }
    #[cfg(target_os = "linux")]
    if let Command::ServiceProgram(arguments) = &arguments.command {
        return commands::service::become_program(arguments);
    }
    #[cfg(target_os = "linux")]
    if let Command::PrivateTmp(arguments) = &arguments.command {
        return commands::private_tmp::become_command(arguments);
    }
    output::start_logging(arguments.verbose);
    let json = arguments.command.json();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&Error::io("start", "the async runtime", &error), json),
    };
    let result = runtime.block_on(dispatch(arguments, bundled, third_party));
    // A thread that still waits on standard input must not keep the program.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => output::fail(&error, json),
    }
}

/// A component on standard input, its code on standard output, and nothing else done.
fn compile() -> ExitCode {
    match pcoder_core::grants::compile_child(std::io::stdin().lock(), std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, for whoever started this.
            output::note(&error.message);
            ExitCode::FAILURE
        }
    }
}

/// How long the last of the audit has to reach its collector when a command has ended.
const EXPORT: std::time::Duration = std::time::Duration::from_secs(5);

async fn dispatch(
    arguments: Arguments,
    bundled: &'static [Bundled],
    third_party: &'static str,
) -> Result<ExitCode, Error> {
    match &arguments.command {
        Command::Precompile(arguments) => return commands::precompile::precompile(arguments),
        Command::Completions(arguments) => return commands::manual::completions(arguments),
        Command::Man(arguments) => return commands::manual::man(arguments),
        _ => {}
    }
    let pcoder = Pcoder::new(surroundings()?, bundled, true)?;
    // This very program, also when its file was replaced or removed meanwhile.
    let own = own_program(&pcoder);
    pcoder.processes().guard_with(GuardCommand {
        program: own.clone(),
        name: "pcoder".into(),
        args: vec!["__guard".into()],
    });
    pcoder.keep_services_with(Launcher {
        program: own.clone(),
        supervise: vec!["__service".into()],
        // What follows is the program's, whatever it looks like.
        become_program: vec!["__service-program".into(), "--".into()],
    });
    pcoder.keep_connections_with(own.clone(), vec!["__ssh-keeper".into()]);
    pcoder.private_tmp_with(Starter { program: own.clone(), args: vec!["__private-tmp".into()] });
    pcoder.compile_with(CompileCommand { program: own, args: vec!["__compile".into()] });
    let collector = collector(&pcoder, arguments.otlp_endpoint.as_deref());
    let result = match collector {
        Ok(()) => command(&pcoder, arguments.command, third_party).await,
        // What mends a setting must work while it is wrong.
        Err(_) if matches!(arguments.command, Command::Config(_) | Command::Doctor(_)) => {
            command(&pcoder, arguments.command, third_party).await
        }
        Err(error) => Err(error),
    };
    if let Some(exported) = pcoder.finish_export(EXPORT).await
        && exported.dropped > 0
    {
        let reason = exported.error.map(|error| format!(": {error}")).unwrap_or_default();
        output::note(&format!(
            "warning: {} records of the audit did not reach the collector{reason}",
            exported.dropped
        ));
    }
    result
}

/// Sends the audit where the command line or the settings say.
fn collector(pcoder: &Pcoder, flag: Option<&str>) -> Result<(), Error> {
    match pcoder.settings(None)?.get("otlp-endpoint", flag)?.value {
        Some(endpoint) => pcoder.export_audit(&endpoint),
        None => Ok(()),
    }
}

async fn command(pcoder: &Pcoder, command: Command, third_party: &'static str) -> Result<ExitCode, Error> {
    match command {
        Command::Run(arguments) => commands::run::run(pcoder, arguments).await,
        Command::ListTools(arguments) => commands::tools::list(pcoder, &arguments).await,
        Command::Doctor(arguments) => commands::doctor::doctor(pcoder, &arguments).await,
        Command::Engine(arguments) => commands::engine::engine(pcoder, arguments).await,
        Command::Plugin(arguments) => commands::plugin::plugin(pcoder, arguments).await,
        Command::Bundle(arguments) => commands::bundle::bundle(pcoder, arguments, third_party).await,
        Command::Demo(arguments) => commands::demo::demo(pcoder, arguments).await,
        Command::Runtime(arguments) => commands::runtime::runtime(pcoder, arguments).await,
        Command::Instance(command) => commands::instance::instance(pcoder, command).await,
        Command::Process(command) => commands::process::process(pcoder, command).await,
        Command::Smoke(arguments) => commands::smoke::smoke(pcoder, arguments).await,
        Command::Setup(arguments) => commands::setup::setup(pcoder, arguments).await,
        Command::Auth(arguments) => commands::auth::auth(pcoder, arguments).await,
        Command::Profile(arguments) => commands::profile::profile(pcoder, arguments),
        Command::Secret(arguments) => commands::secret::secret(pcoder, arguments).await,
        Command::Config(arguments) => commands::config::config(pcoder, &arguments),
        Command::Audit(arguments) => commands::audit::audit(pcoder, &arguments),
        Command::Precompile(_)
        | Command::Completions(_)
        | Command::Man(_)
        | Command::Guard
        | Command::Compile
        | Command::PrivateTmp(_)
        | Command::Service
        | Command::SshKeeper
        | Command::ServiceProgram(_) => Ok(ExitCode::SUCCESS),
    }
}

/// How this program starts itself.
fn own_program(pcoder: &Pcoder) -> std::path::PathBuf {
    let own = pcoder.surroundings().executable.clone();
    if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { own.unwrap_or_else(|| "pcoder".into()) }
}

/// The one place that reads the process's environment.
fn surroundings() -> Result<Surroundings, Error> {
    Ok(Surroundings {
        environment: std::env::vars_os().collect(),
        cwd: std::env::current_dir().map_err(|error| {
            Error::io("start", "the working folder", &error).hint("it may have been deleted: `cd` somewhere else")
        })?,
        executable: std::env::current_exe().ok(),
        system_policy: Some(pcoder_core::grants::system_place()),
    })
}
