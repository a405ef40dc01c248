//! Packages from npm that tests need: each one is installed once, for all tests and later runs.
//!
//! Where one cannot be installed, it says so, and the tests that need it are left out. With `CI` set, that is a failure.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "all of it is for tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs};

/// The folder with the program `pm2`, the version that every test uses.
pub fn pm2(root: &Path) -> Option<PathBuf> {
    Some(installed(root, "pm2", "7.0.4")?.join("node_modules/.bin"))
}

/// The folder whose `node_modules` has the package. `root` is `CARGO_TARGET_TMPDIR`, which only the tests know.
pub fn installed(root: &Path, package: &str, version: &str) -> Option<PathBuf> {
    static FOLDERS: Mutex<BTreeMap<PathBuf, Option<PathBuf>>> = Mutex::new(BTreeMap::new());
    let whole = root.join(format!("{}-{version}", package.trim_start_matches('@').replace('/', "-")));
    // Held meanwhile: the tests of one process wait for the first one. One that failed is not tried again by the others.
    let mut folders = FOLDERS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let install = || match install(root, &whole, &format!("{package}@{version}")) {
        Ok(()) => Some(whole.clone()),
        Err(problem) => {
            assert!(env::var_os("CI").is_none(), "{package} cannot be installed: {problem}");
            eprintln!("left out, because {package} cannot be installed: {problem}");
            None
        }
    };
    folders.entry(whole.clone()).or_insert_with(install).clone()
}

fn install(root: &Path, whole: &Path, package: &str) -> Result<(), String> {
    if whole.exists() {
        return Ok(());
    }
    // Whole or not at all, for other processes and later runs too.
    let fresh = tempfile::tempdir_in(root).unwrap();
    let npm = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts", package, "--prefix"])
        .arg(fresh.path())
        .arg("--cache")
        .arg(root.join("npm-cache"))
        .output();
    match npm {
        Ok(output) if output.status.success() => match fs::rename(fresh.path(), whole) {
            // Another test process may have been faster; then its installation is as good.
            Err(error) if !whole.exists() => Err(error.to_string()),
            _ => Ok(()),
        },
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(format!("npm: {error}")),
    }
}
