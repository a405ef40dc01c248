//! The store by hand: `engine STORE install|find|verify|remove|list|prune|hold [NAME] [VERSION] [FILE|-]`, and
//! `engine STORE export|copy NAME VERSION FOLDER`, `engine STORE import FILE|FOLDER`. A version may be `-`.
//!
//! The integration tests kill this program, and run two of it at once; the benchmarks measure it. Npm's configuration
//! is the environment's. `PCODER_TEST_LOCK` names another lock file than the built-in one.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use pcoder_engines::{
    Condition, EnginesLock, Environment, Error, ImportOptions, InstallOptions, NetworkConfig, NpmPlaces, Phase,
    Platform, Progress, Source, Store,
};
use tokio_util::sync::CancellationToken;

struct Lines(Instant);

impl Progress for Lines {
    fn phase(&self, phase: Phase) {
        eprintln!("{:6.3} {}", self.0.elapsed().as_secs_f64(), phase.word());
    }
    fn message(&self, message: &str) {
        eprintln!("{:6.3} {message}", self.0.elapsed().as_secs_f64());
    }
}

async fn run(words: &[String], start: Instant) -> Result<(), Error> {
    let word = |at: usize| words.get(at).map(String::as_str).filter(|word| *word != "-");
    let (root, verb) = (PathBuf::from(word(0).unwrap_or("store")), word(1).unwrap_or("list"));
    let (name, version) = (word(2).unwrap_or("claude"), word(3));
    let environment: Environment = std::env::vars_os().collect();
    let lock = match environment.get("PCODER_TEST_LOCK") {
        Some(path) => {
            let path = PathBuf::from(path);
            let text = std::fs::read_to_string(&path).map_err(|source| Error::Io { action: "read", path, source })?;
            EnginesLock::parse(&text)?
        }
        None => EnginesLock::embedded()?,
    };
    let store = Store::new(root, lock, Platform::detect(Path::new("/"))?);
    match verb {
        "install" => {
            let source = match word(4) {
                Some("offline") => Source::Offline,
                Some(file) => Source::File(file.into()),
                None => {
                    let home = std::env::home_dir();
                    let places = NpmPlaces { home: home.as_deref(), ..NpmPlaces::default() };
                    Source::Registry(Arc::new(NetworkConfig::from_npm(&environment, places, None)?))
                }
            };
            let mut options = InstallOptions::new(source);
            options.environment = environment;
            let cancel = CancellationToken::new();
            let engine = store.install(name, version, &options, Arc::new(Lines(start)), cancel).await?;
            println!("{}", engine.entrypoint.display());
        }
        "find" => {
            let found = store.find(name, version)?;
            let before = Instant::now();
            store.find(name, version)?;
            eprintln!("found in {:?}", before.elapsed());
            println!("{found:#?}");
        }
        "verify" => {
            let report = store.verify(name, version)?;
            println!("{report:?}");
            if !report.problems.is_empty() {
                return Err(Error::Invalid {
                    subject: name.to_owned(),
                    detail: "it is not whole".to_owned(),
                    hint: "install it again".to_owned(),
                });
            }
        }
        "export" => {
            let folder = PathBuf::from(word(4).unwrap_or("."));
            let (progress, cancel) = (Arc::new(Lines(start)), CancellationToken::new());
            println!("{:?}", store.export(&[(name, version)], &folder, progress, cancel).await?);
        }
        "import" => {
            let options = ImportOptions { environment, ..ImportOptions::default() };
            let (progress, cancel) = (Arc::new(Lines(start)), CancellationToken::new());
            println!("{:?}", store.import(Path::new(name), &options, progress, cancel).await?);
        }
        "copy" => {
            let other = Store::new(word(4).unwrap_or("other").into(), store.lock().clone(), store.platform());
            let (progress, cancel) = (Arc::new(Lines(start)), CancellationToken::new());
            println!("{:?}", store.copy_to(name, version, &other, progress, cancel).await?);
        }
        "remove" => println!("{}", store.remove(name, version)?),
        "prune" => println!("{:?}", store.prune(&[])?),
        "hold" => {
            let (engine, _hold) = store.hold(name, version)?;
            println!("{}", engine.entrypoint.display());
            // Until the other end is closed.
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        }
        _ => {
            for line in store.list()? {
                let condition = match line.condition {
                    Condition::Installed(_) => "installed".to_owned(),
                    other => format!("{other:?}"),
                };
                println!("{} {}{} {condition}", line.name, line.version, if line.default { " (default)" } else { "" });
            }
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let start = Instant::now();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = run(&words, start).await;
    eprintln!("{:6.3} end", start.elapsed().as_secs_f64());
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        status.lines().filter(|line| line.starts_with("VmHWM")).for_each(|line| eprintln!("{line}"));
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error[{}]: {error}\nhint: {}", error.code(), error.hint().unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}
