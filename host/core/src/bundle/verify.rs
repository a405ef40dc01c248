//! Comparing a portable folder with what was exported.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pcoder_engines::{Condition, EnginesLock, Platform, Store};
use pcoder_runtime::Error;
use pcoder_runtime::error::code;
use serde::Serialize;

use super::MANIFEST;
use super::files::digest;
use super::manifest::{BundledFile, Manifest};
use crate::errors::{from_engines, from_state};
use crate::grants::PluginsLock;
use crate::layout::{PORTABLE_STATE, absolute};
use crate::{Layout, Pcoder};

const OPERATION: &str = "bundle.verify";

/// What systems put into folders that somebody looks at. Nothing reads or starts it.
const OF_THE_SYSTEM: [&str; 3] = [".DS_Store", "Thumbs.db", "desktop.ini"];

/// Something that is not as it was exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BundleProblem {
    /// The file, below the folder.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

/// How a portable folder stands.
#[derive(Clone, Debug, Serialize)]
pub struct BundleReport {
    /// The folder.
    pub folder: PathBuf,
    /// The version of the pcoder in it.
    pub pcoder_version: String,
    /// The platform that it is for.
    pub platform: Platform,
    /// Files that were read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Empty when all is well.
    pub problems: Vec<BundleProblem>,
}

impl BundleReport {
    fn problem(&mut self, path: impl Into<String>, problem: impl Into<String>) {
        let path = pcoder_runtime::text::for_people(&path.into(), 400);
        self.problems.push(BundleProblem { path, problem: problem.into() });
    }
}

impl Pcoder {
    /// Reads every file of a portable folder and compares: program, starters and licences with `bundle.json`, and
    /// nothing else may be there; engines with `engines.lock`; plugins that were added with `plugins.lock`. The rest of
    /// `state` is its user's. Without a folder, the one that this program is in.
    ///
    /// `bundle.json` is not signed: this finds what a disk or an accident changed. Who can write to the folder can
    /// write that file as well; the digests of engines are in the program.
    ///
    /// # Errors
    /// `not-found` for what is no bundle; `invalid` without a folder outside of one; `io`.
    pub fn verify_bundle(&self, folder: Option<&Path>) -> Result<BundleReport, Error> {
        let folder = match (folder, self.layout().portable_folder()) {
            (Some(folder), _) => absolute(&self.surroundings().cwd, folder),
            (None, Some(own)) => own.to_path_buf(),
            (None, None) => {
                return Err(Error::new(code::INVALID, OPERATION, "this pcoder is in no bundle, and none was named")
                    .hint("name the folder: `pcoder bundle verify DIR`"));
            }
        };
        let manifest = Manifest::read(&folder)?;
        let mut report = BundleReport {
            folder: folder.clone(),
            pcoder_version: manifest.pcoder_version.clone(),
            platform: manifest.platform,
            files: 0,
            bytes: 0,
            problems: Vec::new(),
        };
        compare_files(&folder, &manifest, &mut report)?;
        let layout = Layout::of_portable(&folder, self.surroundings())?;
        compare_engines(&layout, &manifest, &mut report)?;
        compare_plugins(&layout, &mut report)?;
        report.problems.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(report)
    }
}

/// Everything outside of `state`.
fn compare_files(folder: &Path, manifest: &Manifest, report: &mut BundleReport) -> Result<(), Error> {
    let mut expected: BTreeMap<&str, &BundledFile> =
        manifest.files.iter().map(|file| (file.path.as_str(), file)).collect();
    walk(folder, "", &mut expected, report)?;
    for path in expected.into_keys() {
        report.problem(path, "is missing");
    }
    Ok(())
}

fn walk(
    folder: &Path,
    prefix: &str,
    expected: &mut BTreeMap<&str, &BundledFile>,
    report: &mut BundleReport,
) -> Result<(), Error> {
    let failed = |path: &Path, error: &std::io::Error| Error::io(OPERATION, path.display().to_string(), error);
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, &error))? {
        let entry = entry.map_err(|error| failed(folder, &error))?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if prefix.is_empty() && (name == PORTABLE_STATE || name == MANIFEST) {
            continue;
        }
        let shown = format!("{prefix}{name}");
        let data = fs::symlink_metadata(&path).map_err(|error| failed(&path, &error))?;
        let file = expected.remove(shown.as_str());
        match file {
            None if data.is_dir() => walk(&path, &format!("{shown}/"), expected, report)?,
            // macOS puts a second file beside each one where the file system has no room for what it wants to add.
            None if OF_THE_SYSTEM.contains(&name.as_str()) || name.starts_with("._") => {}
            None => report.problem(shown, "does not belong there"),
            Some(_) if !data.is_file() => report.problem(shown, "is not a file"),
            Some(file) if data.len() != file.size => report.problem(shown, "has another size"),
            Some(file) => {
                let (size, sha256) = digest(&path).map_err(|error| failed(&path, &error))?;
                report.files += 1;
                report.bytes += size;
                if sha256 != file.sha256 {
                    report.problem(shown, "was changed");
                } else if file.executable && !is_executable(&data) {
                    report.problem(shown, "is not executable");
                }
            }
        }
    }
    Ok(())
}

#[cfg(unix)]
fn is_executable(data: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    data.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn is_executable(_data: &fs::Metadata) -> bool {
    true
}

/// The engines that were exported, and every other one that is there.
fn compare_engines(layout: &Layout, manifest: &Manifest, report: &mut BundleReport) -> Result<(), Error> {
    let lock = EnginesLock::embedded().map_err(|error| from_engines(&error))?;
    let store = Store::new(layout.store.clone(), lock, manifest.platform).with_locks(layout.locks.clone());
    let listed = store.list().map_err(|error| from_engines(&error))?;
    let shown = |name: &str, version: &str| format!("{PORTABLE_STATE}/engines/{name}/{version}");
    for engine in &manifest.engines {
        let known = listed.iter().find(|it| it.name == engine.name && it.version == engine.version);
        match known.map(|it| &it.condition) {
            Some(Condition::Missing) => report.problem(shown(&engine.name, &engine.version), "is missing"),
            Some(Condition::Unsupported(_)) | None => report.problem(
                shown(&engine.name, &engine.version),
                "is not in this program's engines.lock: verify it with the bundle's own program",
            ),
            _ => {}
        }
    }
    for engine in listed {
        let place = shown(&engine.name, &engine.version);
        match engine.condition {
            Condition::Installed(_) | Condition::Damaged(_) => {}
            // Its version stands for its folder there.
            Condition::Superseded => {
                if !manifest.engines.iter().any(|it| it.name == engine.name && engine.version.starts_with(&it.version))
                {
                    report.problem(place, "is not in this program's engines.lock: `pcoder engine prune` deletes it");
                }
                continue;
            }
            _ => continue,
        }
        match store.verify(&engine.name, Some(&engine.version)) {
            Ok(found) => {
                report.files += found.files;
                report.bytes += found.bytes;
                for problem in found.problems {
                    report.problem(format!("{place}: {}", problem.path), problem.kind.words());
                }
            }
            Err(error) if error.code() == "integrity" => report.problem(place, error.to_string()),
            Err(error) => return Err(from_engines(&error)),
        }
    }
    Ok(())
}

/// The plugins that were added, by the digest that each was granted with.
fn compare_plugins(layout: &Layout, report: &mut BundleReport) -> Result<(), Error> {
    let file = pcoder_state::File::<PluginsLock>::new(layout.plugins_lock(), &layout.locks);
    let lock = match file.read() {
        Ok(lock) => lock,
        Err(error @ pcoder_state::Error::Io { .. }) => return Err(from_state(OPERATION, &error)),
        Err(error) => {
            report.problem(format!("{PORTABLE_STATE}/plugins.lock"), error.to_string());
            return Ok(());
        }
    };
    for entry in lock.plugins.iter().filter(|entry| !entry.is_built_in()) {
        let shown = format!("{PORTABLE_STATE}/components/{}.wasm", entry.sha256);
        let path = layout.component(&entry.sha256);
        match digest(&path) {
            Ok((size, sha256)) => {
                report.files += 1;
                report.bytes += size;
                if sha256 != entry.sha256 {
                    report.problem(shown, format!("was changed (the plugin `{}`)", entry.name));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                report.problem(shown, format!("is missing (the plugin `{}`)", entry.name));
            }
            Err(error) => return Err(Error::io(OPERATION, path.display().to_string(), &error)),
        }
    }
    Ok(())
}
