//! `cargo xtask bench`: pcoder beside what its users would otherwise use, each pair in one run, as ratios.
//!
//! Usage: `pcoder-bench PCODER PLUGINS EXTISM MIRROR FAKE_MORPH [PART…]`: the program, the folder of its plugins'
//! components, a provider as an Extism plugin, the program that serves a folder as an npm registry, a stand-in for Morph
//! Cloud, and, for less than all, the parts: `calls`, `processes`, `streaming`, `install`, `remote`. Prints the table of
//! docs/performance.md.

mod calls;
mod install;
mod measure;
mod processes;
mod remote;

use std::path::PathBuf;
use std::process::ExitCode;

use measure::Row;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [pcoder, plugins, extism, mirror, fake_morph, parts @ ..] = &arguments[..] else {
        eprintln!("usage: pcoder-bench PCODER PLUGINS EXTISM MIRROR FAKE_MORPH [PART...]");
        return ExitCode::from(2);
    };
    match run([pcoder, plugins, extism, mirror, fake_morph], parts) {
        Ok(rows) => {
            print!("{}", measure::table(&rows));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn run([pcoder, plugins, extism, mirror, fake_morph]: [&PathBuf; 5], only: &[PathBuf]) -> Result<Vec<Row>, Failure> {
    type Part<'a> = (&'static str, Box<dyn Fn() -> Result<Vec<Row>, Failure> + 'a>);
    let parts: [Part<'_>; 5] = [
        ("calls", Box::new(|| calls::rows(plugins, extism))),
        ("processes", Box::new(|| processes::rows(pcoder))),
        ("streaming", Box::new(|| calls::streaming(plugins))),
        ("install", Box::new(|| install::rows(pcoder, mirror))),
        ("remote", Box::new(|| remote::rows(pcoder, fake_morph))),
    ];
    if let Some(unknown) = only.iter().find(|part| parts.iter().all(|(name, _)| part.as_os_str() != *name)) {
        return Err(format!("there is no part `{}`", unknown.display()).into());
    }
    let mut rows = Vec::new();
    for (name, part) in parts {
        if only.is_empty() || only.iter().any(|it| it.as_os_str() == name) {
            let part = part()?;
            // Shown as they come: the last part takes a minute.
            eprint!("{}", measure::table(&part));
            rows.extend(part);
        }
    }
    Ok(rows)
}
