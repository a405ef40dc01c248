//! `cargo xtask windows`: what is written for Windows compiles, looked at from a machine that is none.

use crate::Failure;
use crate::build::run;
use crate::debian;
use crate::toolchain::Toolchain;
use crate::workspace::root;

const TARGET: &str = "x86_64-pc-windows-gnu";
/// Crates with parts in C are compiled in full.
const COMPILER: &str = "x86_64-w64-mingw32-gcc";
const PACKAGES: [&str; 1] = ["gcc-mingw-w64-x86-64"];

/// Checks the program and everything that it links. Nothing is linked or run.
pub(crate) fn check() -> Result<(), Failure> {
    let missing = || if debian::on_path(COMPILER) { Vec::new() } else { PACKAGES.to_vec() };
    if !missing().is_empty() {
        let advice = format!("it takes a C compiler for Windows. On Debian: {}", debian::install_command(&PACKAGES));
        debian::install(&PACKAGES, "a C compiler for Windows", missing, &advice)?;
    }
    let mut cargo = Toolchain::find_for(TARGET)?.cargo(TARGET, &["check", "--package", "pcoder-cli"]);
    // Apart from what is built for this machine: another compiler may do it.
    cargo.current_dir(root()).args(["--target-dir", "target/windows"]);
    cargo.env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", COMPILER);
    run(&mut cargo)
}
