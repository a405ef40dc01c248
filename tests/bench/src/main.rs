//! `cargo xtask bench`: pcoder beside what its users would otherwise use, each pair in one run, as ratios.
//!
//! Usage: `pcoder-bench PCODER PLUGINS EXTISM MIRROR [PART…]`: the program, the folder of its plugins' components, a
//! provider as an Extism plugin, the program that serves a folder as an npm registry, and, for less than all, the parts:
//! `calls`, `processes`, `streaming`, `install`. Prints the table of docs/performance.md.

mod calls;
mod install;
mod measure;
mod processes;

use std::path::PathBuf;
use std::process::ExitCode;

use measure::Row;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [pcoder, plugins, extism, mirror, parts @ ..] = &arguments[..] else {
        eprintln!("usage: pcoder-bench PCODER PLUGINS EXTISM MIRROR [PART...]");
        return ExitCode::from(2);
    };
    match run([pcoder, plugins, extism, mirror], parts) {
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

fn run([pcoder, plugins, extism, mirror]: [&PathBuf; 4], only: &[PathBuf]) -> Result<Vec<Row>, Failure> {
    type Part<'a> = (&'static str, Box<dyn Fn() -> Result<Vec<Row>, Failure> + 'a>);
    let parts: [Part<'_>; 4] = [
        ("calls", Box::new(|| calls::rows(plugins, extism))),
        ("processes", Box::new(|| processes::rows(pcoder))),
        ("streaming", Box::new(|| calls::streaming(plugins))),
        ("install", Box::new(|| install::rows(pcoder, mirror))),
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
