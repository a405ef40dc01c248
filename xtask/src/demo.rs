//! `cargo xtask demo`: from a fresh clone to real agents at work.

use std::process::Command;

use crate::Failure;
use crate::build::{build, run};

/// Builds, installs and shows.
pub(crate) fn demo(args: &[&str]) -> Result<(), Failure> {
    let program = build()?;
    println!("running `pcoder demo`: it installs the pinned engines where they are missing\n");
    run(Command::new(program).arg("demo").args(args))
}
