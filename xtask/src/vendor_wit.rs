//! `cargo xtask vendor-wit`: the WASI contracts beside ours are those of the Wasmtime that we are locked to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::workspace::{at, contract, entries, root, write_if_changed};

/// The published crate whose copy of WASI 0.2 is taken.
const SOURCE: &str = "wasmtime-wasi-http";

/// What to do about a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Copy.
    Write,
    /// Fail, naming the files.
    Check,
}

/// Compares or copies.
pub(crate) fn run(mode: Mode) -> Result<(), Failure> {
    let (version, source) = source()?;
    let folder = contract().join("deps");
    let wanted = read(&source.join("wit").join("deps"))?;
    let differences = differences(&wanted, &if folder.is_dir() { read(&folder)? } else { BTreeMap::new() });
    match mode {
        Mode::Write => {
            for difference in &differences {
                println!("{difference}");
            }
            for (name, bytes) in &wanted {
                write_if_changed(&folder.join(name), bytes)?;
            }
            for path in entries(&folder)? {
                if path.file_name().is_some_and(|name| !wanted.contains_key(&*name.to_string_lossy())) {
                    fs::remove_file(&path).map_err(at(&path))?;
                }
            }
            println!("{} files as in {SOURCE} {version}", wanted.len());
            Ok(())
        }
        Mode::Check if differences.is_empty() => Ok(()),
        Mode::Check => Err(format!(
            "{} is not what {SOURCE} {version} ships:\n  {}\nrun `cargo xtask vendor-wit`",
            folder.display(),
            differences.join("\n  ")
        )),
    }
}

/// The version and the folder of the locked crate.
fn source() -> Result<(String, PathBuf), Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root())
        .args(["metadata", "--format-version", "1"])
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
    locate(&metadata).ok_or_else(|| format!("{SOURCE} is not in Cargo.lock exactly once"))
}

fn locate(metadata: &serde_json::Value) -> Option<(String, PathBuf)> {
    let mut found = metadata["packages"].as_array()?.iter().filter(|package| package["name"] == SOURCE);
    let package = found.next()?;
    if found.next().is_some() {
        return None;
    }
    let manifest = Path::new(package["manifest_path"].as_str()?);
    Some((package["version"].as_str()?.to_owned(), manifest.parent()?.to_path_buf()))
}

fn read(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let mut files = BTreeMap::new();
    for path in entries(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.insert(name, fs::read(&path).map_err(at(&path))?);
    }
    Ok(files)
}

fn differences(wanted: &BTreeMap<String, Vec<u8>>, found: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let missing = wanted.keys().filter(|name| !found.contains_key(*name)).map(|name| format!("{name}: missing"));
    let other = found.iter().filter_map(|(name, bytes)| match wanted.get(name) {
        None => Some(format!("{name}: not in the source")),
        Some(wanted) if wanted != bytes => Some(format!("{name}: differs")),
        Some(_) => None,
    });
    missing.chain(other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(files: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn every_kind_of_drift_is_named() {
        let wanted = files(&[("a.wit", "1"), ("b.wit", "2"), ("c.wit", "3")]);
        assert!(differences(&wanted, &wanted).is_empty());
        let found = files(&[("a.wit", "1"), ("b.wit", "x"), ("d.wit", "4")]);
        assert_eq!(differences(&wanted, &found), ["c.wit: missing", "b.wit: differs", "d.wit: not in the source"]);
    }

    #[test]
    fn the_crate_is_found_once() {
        let one = serde_json::json!({"packages": [
            {"name": "other", "version": "1.0.0", "manifest_path": "/o/Cargo.toml"},
            {"name": SOURCE, "version": "48.0.8", "manifest_path": "/w/Cargo.toml"},
        ]});
        assert_eq!(locate(&one), Some(("48.0.8".to_owned(), PathBuf::from("/w"))));
        assert_eq!(locate(&serde_json::json!({"packages": []})), None);
        let two = serde_json::json!({"packages": [
            {"name": SOURCE, "version": "1", "manifest_path": "/a/Cargo.toml"},
            {"name": SOURCE, "version": "2", "manifest_path": "/b/Cargo.toml"},
        ]});
        assert_eq!(locate(&two), None);
    }
}
