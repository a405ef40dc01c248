//! `cargo xtask vendor-wit`: the WASI contracts beside ours are those of the Wasmtime that we are locked to, and the
//! SDK's package holds the contract that it was made for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

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

/// Files by their names below a folder, with `/` between the parts.
type Files = BTreeMap<String, Vec<u8>>;

/// Compares or copies.
pub(crate) fn run(mode: Mode) -> Result<(), Failure> {
    let (version, source) = source()?;
    let wanted = read(&source.join("wit").join("deps"))?;
    sync(mode, &wanted, &contract().join("deps"), &format!("what {SOURCE} {version} ships"))?;
    sdk(mode)
}

/// Compares or copies the contract that is in the SDK's package. A package cannot read files outside of itself.
pub(crate) fn sdk(mode: Mode) -> Result<(), Failure> {
    let contract = contract();
    let source = contract.strip_prefix(root()).unwrap_or(&contract).display();
    sync(mode, &read(&contract)?, &root().join("sdk").join("rust").join("wit"), &format!("what is in {source}"))
}

fn sync(mode: Mode, wanted: &Files, folder: &Path, source: &str) -> Result<(), Failure> {
    let found = if folder.is_dir() { read(folder)? } else { Files::new() };
    let differences = differences(wanted, &found);
    let shown = folder.strip_prefix(root()).unwrap_or(folder).display();
    match mode {
        Mode::Write => {
            for difference in &differences {
                println!("{shown}/{difference}");
            }
            for (name, bytes) in wanted {
                write_if_changed(&folder.join(name), bytes)?;
            }
            for name in found.keys().filter(|name| !wanted.contains_key(*name)) {
                let path = folder.join(name);
                fs::remove_file(&path).map_err(at(&path))?;
            }
            println!("{shown}: {} files, {source}", wanted.len());
            Ok(())
        }
        Mode::Check if differences.is_empty() => Ok(()),
        Mode::Check => {
            Err(format!("{shown} is not {source}:\n  {}\nrun `cargo xtask vendor-wit`", differences.join("\n  ")))
        }
    }
}

/// The version and the folder of the locked crate.
fn source() -> Result<(String, PathBuf), Failure> {
    let output = crate::build::plain_cargo()
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

fn read(folder: &Path) -> Result<Files, Failure> {
    let mut files = Files::new();
    for path in entries(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            files.extend(read(&path)?.into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            files.insert(name, fs::read(&path).map_err(at(&path))?);
        }
    }
    Ok(files)
}

fn differences(wanted: &Files, found: &Files) -> Vec<String> {
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

    fn files(files: &[(&str, &str)]) -> Files {
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
    fn a_folder_becomes_what_is_wanted() {
        let folder = std::env::temp_dir().join(format!("xtask-sync-{}", std::process::id()));
        let wanted = files(&[("a.wit", "1"), ("deps/b.wit", "2")]);
        let stale = folder.join("deps").join("old.wit");
        write_if_changed(&stale, b"3").expect("the test's own folder");
        let refusal = sync(Mode::Check, &wanted, &folder, "the source").expect_err("it differs");
        assert!(refusal.contains("a.wit: missing") && refusal.contains("deps/old.wit: not in the source"), "{refusal}");
        assert!(stale.is_file(), "a check changes nothing");
        assert_eq!(sync(Mode::Write, &wanted, &folder, "the source"), Ok(()));
        assert_eq!(read(&folder), Ok(wanted.clone()));
        assert_eq!(sync(Mode::Check, &wanted, &folder, "the source"), Ok(()));
        fs::remove_dir_all(&folder).expect("the test's own folder");
    }

    #[test]
    fn the_package_of_the_sdk_holds_the_contract() {
        assert_eq!(sdk(Mode::Check), Ok(()));
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
