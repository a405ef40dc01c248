//! The `pcoder` program: the command line with the plugins that it was built with.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use pcoder_cli::Bundled;

/// Written by `build.rs`.
const BUNDLED: &[Bundled] = include!(concat!(env!("OUT_DIR"), "/bundled.rs"));

/// What the program is made of, with licences. Written by `build.rs`.
const THIRD_PARTY: &str = include_str!(concat!(env!("OUT_DIR"), "/third-party.txt"));

fn main() -> ExitCode {
    pcoder_cli::main(BUNDLED, THIRD_PARTY)
}
