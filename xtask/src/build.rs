//! `cargo xtask build`: the program, with its plugins compiled and embedded.
//!
//! Plugins are compiled ahead of time by the very program that will run them. So it is built twice: first without
//! plugins, then with them. The second build compiles one crate.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::workspace::{entries, root};

/// What Cargo builds, the same for every step: another selection means other features of shared crates, and with them
/// Wasmtime again.
pub(crate) const SELECTION: [&str; 2] = ["--release", "--workspace"];

/// Builds everything and returns the program.
pub(crate) fn build() -> Result<PathBuf, Failure> {
    crate::plugins::build(&[])?;
    println!("building pcoder (the first time takes a while: Wasmtime is compiled)");
    cargo(&["build", "--bins", "--lib"])?;
    let program = program();
    let plugins = root().join("target").join("plugins");
    let components: Vec<PathBuf> =
        entries(&plugins)?.into_iter().filter(|path| path.extension().is_some_and(|it| it == "wasm")).collect();
    remove_stale(&plugins, &components)?;
    run(Command::new(&program).args(["__precompile", "--target", &host_triple()?]).args(&components))?;
    cargo(&["build", "--bins", "--lib"])?;
    Ok(program)
}

/// Compiled code of plugins that are gone would be embedded for ever.
fn remove_stale(folder: &Path, components: &[PathBuf]) -> Result<(), Failure> {
    for path in entries(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let known = components.iter().any(|component| {
            let stem = component.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with(&format!("{stem}."))
        });
        if !known {
            std::fs::remove_file(&path).map_err(crate::workspace::at(&path))?;
        }
    }
    Ok(())
}

/// The triple that Cargo builds for when none is named: the compiler's own.
fn host_triple() -> Result<String, Failure> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output =
        Command::new(rustc).current_dir(root()).arg("-vV").output().map_err(|error| format!("rustc: {error}"))?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .ok_or_else(|| "rustc does not say what it builds for".to_owned())
}

/// Where the program is put.
pub(crate) fn program() -> PathBuf {
    target().join("release").join(format!("pcoder{}", std::env::consts::EXE_SUFFIX))
}

/// Cargo's folder for what it builds for the host.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// One Cargo command on the whole workspace.
pub(crate) fn cargo(args: &[&str]) -> Result<(), Failure> {
    cargo_with(args, &[])
}

/// The same with more environment.
pub(crate) fn cargo_with(args: &[&str], env: &[(&str, &str)]) -> Result<(), Failure> {
    let (command, rest) = args.split_first().ok_or("no Cargo command")?;
    let mut cargo = plain_cargo();
    cargo.current_dir(root()).arg(command).args(SELECTION).args(rest).envs(env.iter().copied());
    if let Some(registry) = npm_registry() {
        cargo.env("PCODER_NPM_REGISTRY", registry);
    }
    run(&mut cargo)
}

/// Cargo as somebody starts it who is not started by Cargo. What it says of this program in the environment, `ring`'s
/// build script watches: it would be built anew, with all that needs it, whenever one command follows another.
pub(crate) fn plain_cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let said = name.to_str().is_some_and(|it| it.starts_with("CARGO_PKG_") || it.starts_with("CARGO_MANIFEST_"));
        if said {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// The registry that a build takes for its users' default: the one of the builder's npm. Users' own configuration comes
/// first when engines are installed.
fn npm_registry() -> Option<String> {
    if let Ok(chosen) = std::env::var("PCODER_NPM_REGISTRY") {
        return Some(chosen);
    }
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let output = Command::new(npm).args(["config", "get", "registry"]).current_dir(root()).output().ok()?;
    let registry = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && registry.starts_with("http")).then_some(registry)
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| format!("{shown}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{shown}` failed ({status})")) }
}
