//! `cargo xtask bench`: pcoder beside what its users would otherwise use, each pair in one run, as ratios.
//!
//! Usage: `pcoder-bench PCODER PLUGINS MIRROR`: the program, the folder of its plugins' components, and the program
//! that serves a folder as an npm registry. Prints the table of docs/performance.md.

mod calls;
mod install;
mod measure;
mod processes;

use std::path::PathBuf;
use std::process::ExitCode;

use measure::Row;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [pcoder, plugins, mirror] = &arguments[..] else {
        eprintln!("usage: pcoder-bench PCODER PLUGINS MIRROR");
        return ExitCode::from(2);
    };
    match run(pcoder, plugins, mirror) {
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

fn run(pcoder: &std::path::Path, plugins: &std::path::Path, mirror: &std::path::Path) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    // Each part's rows are shown as they come: the last part takes a minute.
    let mut add = |part: Vec<Row>| {
        eprint!("{}", measure::table(&part));
        rows.extend(part);
    };
    add(calls::rows(plugins)?);
    add(processes::rows(pcoder)?);
    add(calls::streaming(plugins)?);
    add(install::rows(pcoder, mirror)?);
    Ok(rows)
}
