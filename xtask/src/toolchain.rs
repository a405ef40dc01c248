//! Which compiler builds the plugins.
//!
//! Plugins are `wasm32-unknown-unknown` crates, and two compilers can make them:
//!
//! 1. the active toolchain, when the target's standard library is installed in it. `rustup` installs it by itself
//!    because `rust-toolchain.toml` names the target;
//! 2. Debian's compiler, where rustup cannot bring the target. Debian ships the sources of the standard library, and
//!    `-Zbuild-std` compiles them; `RUSTC_BOOTSTRAP=1` lets a stable compiler do that.
//!
//! The second one is installed with `apt-get` when it is missing and we may do that.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::debian::{self, install_command, on_path};
use crate::workspace::root;

/// The target of every plugin.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

const CARGO: &str = "/usr/bin/cargo";
const RUSTC: &str = "/usr/bin/rustc";
const LINKER: &str = "wasm-ld-22";
const PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-22"];

/// What rustup and `cargo run` put into the environment, and what must not reach another cargo.
const FOREIGN: [&str; 9] = [
    "RUSTUP_TOOLCHAIN",
    "CARGO",
    "RUSTC",
    "RUSTDOC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "LD_LIBRARY_PATH",
];

/// A compiler that can build plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The one that runs us.
    Active,
    /// Debian's, with the standard library compiled on the way.
    Debian,
}

/// A guest's stack: what a plugin needs, not the megabyte that the linker would give. Every page of a guest's memory is
/// looked at when its instance ends.
const STACK: &str = "-Clink-arg=-zstack-size=131072";

impl Toolchain {
    /// Chooses one, installing Debian's where that is possible.
    pub(crate) fn find() -> Result<Self, Failure> {
        if active_has_target(TARGET) {
            return Ok(Self::Active);
        }
        if missing_packages().is_empty() {
            return Ok(Self::Debian);
        }
        install()?;
        Ok(Self::Debian)
    }

    /// What is going to happen, for people.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Active => "with the active toolchain",
            Self::Debian => {
                "with Debian's compiler, because the active toolchain has no standard library for wasm32-unknown-unknown"
            }
        }
    }

    /// The same for another target: the active one when it has it, else Debian's, which must be there.
    pub(crate) fn find_for(target: &str) -> Result<Self, Failure> {
        if active_has_target(target) {
            return Ok(Self::Active);
        }
        if missing_packages().is_empty() {
            return Ok(Self::Debian);
        }
        install()?;
        Ok(Self::Debian)
    }

    /// A `cargo build` for the plugins' target, before packages and profile are named.
    pub(crate) fn cargo_build(&self) -> Command {
        let mut command = self.cargo(TARGET, &["build", "--release"]);
        command.env("CARGO_ENCODED_RUSTFLAGS", remapped(&root(), cargo_home().as_deref()));
        if matches!(self, Self::Debian) {
            command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", LINKER);
        }
        command
    }

    /// Cargo with these words, for a target.
    pub(crate) fn cargo(&self, target: &str, words: &[&str]) -> Command {
        let mut command = match self {
            Self::Active => Command::new("cargo"),
            Self::Debian => Command::new(CARGO),
        };
        for name in FOREIGN {
            // The toolchain that cargo chose for us stays the one for the plugins.
            if !(matches!(self, Self::Active) && name == "RUSTUP_TOOLCHAIN") {
                command.env_remove(name);
            }
        }
        command.args(words).args(["--target", target]);
        if matches!(self, Self::Debian) {
            command.args(["-Z", "build-std=std,panic_abort"]).env("RUSTC", RUSTC).env("RUSTC_BOOTSTRAP", "1");
        }
        command
    }
}

/// Flags that keep this machine's folders out of the plugins, whose panics name source files: grants are pinned to
/// bytes, and the bytes should not depend on where they were built.
fn remapped(root: &Path, cargo_home: Option<&Path>) -> String {
    let mut flags = vec![STACK.to_owned(), format!("--remap-path-prefix={}=.", root.display())];
    if let Some(home) = cargo_home {
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    flags.join("\u{1f}")
}

fn cargo_home() -> Option<PathBuf> {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    named.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
}

fn active_has_target(target: &str) -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let Ok(output) = Command::new(rustc).args(["--print", "target-libdir", "--target", target]).output() else {
        return false;
    };
    let folder = String::from_utf8_lossy(&output.stdout);
    output.status.success() && holds_std(Path::new(folder.trim()))
}

fn holds_std(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libstd-") && name.ends_with(".rlib")
        })
    })
}

fn missing_packages() -> Vec<&'static str> {
    PACKAGES.into_iter().zip([is_file(RUSTC), is_file(CARGO), has_sources(), on_path(LINKER)]).fold(
        Vec::new(),
        |mut missing, (package, present)| {
            if !present {
                missing.push(package);
            }
            missing
        },
    )
}

fn is_file(path: &str) -> bool {
    Path::new(path).is_file()
}

/// Whether Debian's compiler finds the sources of its own standard library.
fn has_sources() -> bool {
    let Ok(output) = Command::new(RUSTC).args(["--print", "sysroot"]).output() else {
        return false;
    };
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    sysroot.join("lib/rustlib/src/rust/library/std/Cargo.toml").is_file()
}

fn install() -> Result<(), Failure> {
    let advice = format!(
        "the plugins need a compiler for {TARGET}. Either run\n\n    rustup target add {TARGET}\n\nor, on Debian,\n\n    \
         {}\n\nand then this command again",
        install_command(&PACKAGES)
    );
    debian::install(&PACKAGES, &format!("a compiler for {TARGET}"), missing_packages, &advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(command: &Command) -> Vec<(String, Option<String>)> {
        command
            .get_envs()
            .map(|(name, value)| {
                (name.to_string_lossy().into_owned(), value.map(|value| value.to_string_lossy().into_owned()))
            })
            .collect()
    }

    #[test]
    fn debians_cargo_sees_nothing_of_ours() {
        let command = Toolchain::Debian.cargo_build();
        let variables = variables(&command);
        for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC_WRAPPER"] {
            assert!(variables.contains(&(name.to_owned(), None)), "{name}");
        }
        assert!(variables.contains(&("RUSTC".to_owned(), Some(RUSTC.to_owned()))));
        assert!(command.get_args().any(|arg| arg == "build-std=std,panic_abort"));
    }

    #[test]
    fn the_active_toolchain_stays_the_chosen_one() {
        let command = Toolchain::Active.cargo_build();
        assert!(!variables(&command).iter().any(|(name, _)| name == "RUSTUP_TOOLCHAIN"));
        assert!(!command.get_args().any(|arg| arg.to_string_lossy().contains("build-std")));
    }

    #[test]
    fn folders_of_this_machine_are_renamed() {
        let flags = remapped(Path::new("/w/main"), Some(Path::new("/h/.cargo")));
        assert_eq!(
            flags,
            "-Clink-arg=-zstack-size=131072\u{1f}--remap-path-prefix=/w/main=.\u{1f}--remap-path-prefix=/h/.cargo=/cargo"
        );
    }

    #[test]
    fn a_folder_without_std_is_no_target() {
        assert!(!holds_std(Path::new("/nonexistent")));
        assert!(!holds_std(Path::new(env!("CARGO_MANIFEST_DIR"))));
    }
}
