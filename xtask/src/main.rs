//! The build's own steps. `cargo xtask help` lists them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a build tool talks to its user")]

mod bench;
mod build;
mod check;
mod component;
mod debian;
mod demo;
mod dependencies;
mod guest_image;
mod plugins;
mod templates;
mod toolchain;
mod vendor_wit;
mod windows;
mod workspace;

use std::process::ExitCode;

/// Why a step failed: one message for people, several lines where that helps.
type Failure = String;

const HELP: &str = "\
usage: cargo xtask COMMAND

  build                 build pcoder with its plugins, into target/release
  demo [TOOL…]          build, then let the real Claude Code and Codex work, offline and without an account
  test                  build, install the engines, run every test
  lint                  formatting, clippy, documentation, contracts, licences and known vulnerabilities
  dependencies          only the licences and known vulnerabilities
  bench                 time pcoder beside what its users would otherwise use
  bench vm [PART…]      the same for virtual machines; the parts are boot, exec, bulk and sync
  engines-lock [ARGS…]  write engines.lock from the npm registry; --check compares
  guest-image [--out DIR] [--force] [--mirror URL] [--boot N]
                        build the portable machine's kernel and disk from Debian's packages, into target/guest; with
                        --boot, also start it so many times, and fail if it hangs once
  plugins [NAME…]       build the plugins in plugins/ into target/plugins/NAME.wasm, with those of the tests and the
                        examples beside them; or only the named ones
  templates             build the templates for plugins in JavaScript and Python, with npm and pip, into target/templates
  vendor-wit [--check]  copy the WASI contracts out of the locked Wasmtime, and the contract into the SDK; with
                        --check, only compare
  windows               check that pcoder compiles for Windows, from any system
  help                  print this
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<(), Failure> {
    match args {
        [] | ["help" | "-h" | "--help"] => {
            print!("{HELP}");
            Ok(())
        }
        ["build"] => build::build().map(drop),
        ["demo", tools @ ..] => demo::demo(tools),
        ["test"] => check::test(),
        ["lint"] => check::lint(),
        ["dependencies"] => dependencies::check(),
        ["bench", args @ ..] => bench::bench(args),
        ["engines-lock", args @ ..] => engines_lock(args),
        ["plugins", names @ ..] => plugins::build(names),
        ["templates"] => templates::build(),
        ["guest-image", args @ ..] => guest_image::run(args),
        ["windows"] => windows::check(),
        ["vendor-wit"] => vendor_wit::run(vendor_wit::Mode::Write),
        ["vendor-wit", "--check"] => vendor_wit::run(vendor_wit::Mode::Check),
        other => Err(format!("`cargo xtask {}` is not a command\n\n{HELP}", other.join(" "))),
    }
}

/// The generator is a program of the engine store's crate, which knows the lock file's format.
fn engines_lock(args: &[&str]) -> Result<(), Failure> {
    let mut cargo = build::plain_cargo();
    cargo.current_dir(workspace::root()).args([
        "run",
        "--release",
        "-p",
        "pcoder-engines",
        "--features",
        "generator",
        "--bin",
        "engines-lock",
        "--",
        "engines.lock",
    ]);
    build::run(cargo.args(args))
}
