//! Writes `engines.lock`, or with `--check` says whether it still is what the registry says.
//!
//! `engines-lock FILE [--check] [--fresh] [--registry URL]`. `--fresh` downloads and measures everything again instead of what
//! changed.
#![allow(clippy::print_stderr, reason = "a program for the terminal")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pcoder_engines::generator::{Generator, Previous};
use pcoder_engines::{Environment, Error, NetworkConfig, NpmPlaces};

struct Arguments {
    file: PathBuf,
    check: bool,
    fresh: bool,
    registry: Option<String>,
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let (mut file, mut check, mut fresh, mut registry) = (None, false, false, None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--check" => check = true,
            "--fresh" => fresh = true,
            "--registry" => registry = Some(words.next().ok_or("--registry needs an address")?),
            _ if word.starts_with('-') || file.is_some() => {
                return Err(format!("unknown argument `{word}`"));
            }
            _ => file = Some(PathBuf::from(word)),
        }
    }
    Ok(Arguments { file: file.ok_or("which file?")?, check, fresh, registry })
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match arguments(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("error: {problem}\n\nusage: engines-lock FILE [--check] [--fresh] [--registry URL]");
            return ExitCode::from(2);
        }
    };
    match run(&arguments).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(inner) = cause {
                eprintln!("  caused by: {inner}");
                cause = inner.source();
            }
            if let Some(hint) = error.hint() {
                eprintln!("\nhint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let io = |action, source| Error::Io { action, path: arguments.file.clone(), source };
    let old = match std::fs::read_to_string(&arguments.file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !arguments.check => String::new(),
        Err(error) => return Err(io("read", error)),
    };
    let previous = if arguments.fresh { None } else { Previous::read(&old) };
    let environment: Environment = std::env::vars_os().collect();
    let home = std::env::home_dir();
    let places = NpmPlaces { home: home.as_deref(), project: Some(Path::new(".")), prefix: None };
    let network = NetworkConfig::from_npm(&environment, places, arguments.registry.as_deref())?;
    let say = |line: &str| eprintln!("{line}");
    let new = Generator::new(network, previous.as_ref(), &say)?.generate().await?.to_text()?;
    if new == old {
        eprintln!("{} is up to date", arguments.file.display());
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.check {
        eprintln!("error: {} is not what the registry says", arguments.file.display());
        for (number, (old, new)) in
            old.lines().zip(new.lines()).enumerate().filter(|(_, (old, new))| old != new).take(5)
        {
            eprintln!("  line {}: `{}` is now `{}`", number + 1, old.trim(), new.trim());
        }
        eprintln!("\nhint: `cargo xtask engines-lock`");
        return Ok(ExitCode::FAILURE);
    }
    std::fs::write(&arguments.file, new).map_err(|error| io("write", error))?;
    eprintln!("{} written", arguments.file.display());
    Ok(ExitCode::SUCCESS)
}
