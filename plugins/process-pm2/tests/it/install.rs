//! PM2 itself, from npm, once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const VERSION: &str = "7.0.4";

/// The folder with the program `pm2`; nothing without npm, and then the test is left out. With `CI` set that is a
/// failure.
pub(crate) fn pm2() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(install).as_deref()
}

fn install() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (whole, bin) = (root.join(format!("pm2-{VERSION}")), "node_modules/.bin");
    if whole.join(bin).join("pm2").exists() {
        return Some(whole.join(bin));
    }
    let fresh = tempfile::tempdir_in(root).unwrap();
    let npm = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--no-update-notifier", &format!("pm2@{VERSION}"), "--prefix"])
        .arg(fresh.path())
        .arg("--cache")
        .arg(root.join("npm-cache"))
        .output();
    let problem = match npm {
        // Another test process may have been faster; then its installation is as good.
        Ok(output) if output.status.success() => match fs::rename(fresh.path(), &whole) {
            Ok(()) => return Some(whole.join(bin)),
            Err(_) if whole.join(bin).join("pm2").exists() => return Some(whole.join(bin)),
            Err(error) => error.to_string(),
        },
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => format!("npm: {error}"),
    };
    assert!(std::env::var_os("CI").is_none(), "PM2 cannot be installed: {problem}");
    eprintln!("left out, because PM2 cannot be installed: {problem}");
    None
}
