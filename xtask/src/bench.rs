//! `cargo xtask bench`: the tables of docs/performance.md.

mod vm;

use std::process::Command;

use crate::Failure;
use crate::build::{build, run, target};
use crate::plugins::{guest_build, module_path};
use crate::toolchain::Toolchain;
use crate::workspace::root;

/// A provider as an Extism plugin.
const EXTISM: &str = "extism-provider";

/// Builds pcoder and what it is compared with, and prints a table: that of virtual machines, or that of all else.
pub(crate) fn bench(args: &[&str]) -> Result<(), Failure> {
    match args {
        [] => {}
        ["vm", parts @ ..] => return vm::bench(parts),
        [other, ..] => return Err(format!("there is no benchmark `{other}`, only `vm`")),
    }
    let program = build()?;
    let cargo = crate::build::plain_cargo;
    println!("building the benchmark (Extism brings a Wasmtime of its own: this takes a while)");
    run(cargo().current_dir(root()).args(["build", "--release", "-p", "pcoder-engines", "--example", "mirror"]))?;
    run(cargo().current_dir(root()).args(["build", "--release", "-p", "pcoder-fake-morph", "--bin", "fake-morph"]))?;
    let (folder, workspace) = (target().join("bench"), root().join("tests").join("bench"));
    run(cargo().current_dir(&workspace).args(["build", "--release", "--target-dir"]).arg(&folder))?;
    let guests = folder.join("guest");
    run(guest_build(&Toolchain::find()?, &workspace, &guests).args(["-p", EXTISM]))?;
    run(Command::new(folder.join("release").join("pcoder-bench"))
        .arg(program)
        .arg(root().join("target").join("plugins"))
        .arg(module_path(&guests, EXTISM))
        .arg(target().join("release").join("examples").join("mirror"))
        .arg(target().join("release").join("fake-morph")))
}
