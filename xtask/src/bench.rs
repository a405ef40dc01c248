//! `cargo xtask bench`: the table of docs/performance.md.

use std::process::Command;

use crate::Failure;
use crate::build::{build, run, target};
use crate::workspace::root;

/// Builds pcoder and what it is compared with, and prints the table.
pub(crate) fn bench() -> Result<(), Failure> {
    let program = build()?;
    let cargo = || Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    println!("building the benchmark (Extism brings a Wasmtime of its own: this takes a while)");
    run(cargo().current_dir(root()).args(["build", "--release", "-p", "pcoder-engines", "--example", "mirror"]))?;
    let folder = target().join("bench");
    run(cargo()
        .current_dir(root().join("tests").join("bench"))
        .args(["build", "--release", "--target-dir"])
        .arg(&folder))?;
    run(Command::new(folder.join("release").join("pcoder-bench"))
        .arg(program)
        .arg(root().join("target").join("plugins"))
        .arg(target().join("release").join("examples").join("mirror")))
}
