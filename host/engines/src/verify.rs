//! The deep check: every byte of an installed engine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use crate::error::{At, Error, Result};
use crate::install_lock::Hold;
use crate::ledger::{FileRecord, Ledger, TREE};
use crate::store::{Condition, Store};

/// What is wrong with one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, below the engine's root, with `/`.
    pub path: String,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// Kinds of [`Problem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// It is not there.
    Missing,
    /// It has another size.
    Size,
    /// It has other bytes.
    Content,
    /// It should be executable and is not.
    Mode,
    /// It is a link, a folder or a device.
    NotAFile,
    /// Nobody installed it.
    Extra,
}

impl ProblemKind {
    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Missing => "is missing",
            Self::Size => "has another size",
            Self::Content => "was changed",
            Self::Mode => "is not executable",
            Self::NotAFile => "is not a file",
            Self::Extra => "does not belong there",
        }
    }
}

/// The outcome of [`Store::verify`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Files that were read.
    pub files: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Empty when all is well.
    pub problems: Vec<Problem>,
}

impl Store {
    /// Reads every file of an engine and compares.
    ///
    /// # Errors
    /// It is not installed, or its ledger is damaged; it is being replaced; the disk fails. A file that is wrong is not an
    /// error of this function but a [`Problem`].
    pub fn verify(&self, name: &str, version: Option<&str>) -> Result<VerifyReport> {
        let locked = self.inner.lookup(name, version)?;
        let folder = self.inner.engine_folder(locked);
        if self.inner.inspect(locked)? == Condition::Missing {
            return Err(locked.not_installed());
        }
        let _hold = Hold::take(&self.inner.locks, &locked.key(), &locked.subject())?;
        let damaged = |detail: &str| Error::Integrity {
            package: locked.subject(),
            detail: format!("{detail}; installing it again replaces it"),
        };
        let ledger = Ledger::read(&folder)?.ok_or_else(|| damaged("it has no ledger"))?;
        if !ledger.matches(locked) {
            return Err(damaged("its ledger is another engine's"));
        }
        let tree = folder.join(TREE);
        let mut expected: BTreeMap<String, FileRecord> =
            ledger.read_files(&folder)?.into_iter().map(|file| (file.path.to_string(), file)).collect();
        let mut report = VerifyReport::default();
        walk(&tree, "", &mut expected, &mut report)?;
        report.problems.extend(expected.into_keys().map(|path| Problem { path, kind: ProblemKind::Missing }));
        report.problems.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(report)
    }
}

fn walk(
    folder: &Path,
    prefix: &str,
    expected: &mut BTreeMap<String, FileRecord>,
    report: &mut VerifyReport,
) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("read", folder, error)),
    };
    for entry in entries {
        let entry = entry.at("read", folder)?;
        let path = entry.path();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let data = fs::symlink_metadata(&path).at("read", &path)?;
        if data.is_dir() && !expected.contains_key(&name) {
            walk(&path, &format!("{name}/"), expected, report)?;
            continue;
        }
        let kind = match expected.remove(&name) {
            None => Some(ProblemKind::Extra),
            Some(_) if !data.is_file() => Some(ProblemKind::NotAFile),
            Some(file) if data.len() != file.size => Some(ProblemKind::Size),
            Some(file) => {
                report.files += 1;
                report.bytes += file.size;
                if hash(&path)? != file.blake3 {
                    Some(ProblemKind::Content)
                } else if file.executable && !is_executable(&data) {
                    Some(ProblemKind::Mode)
                } else {
                    None
                }
            }
        };
        report.problems.extend(kind.map(|kind| Problem { path: name, kind }));
    }
    Ok(())
}

fn hash(path: &Path) -> Result<String> {
    let mut file = File::open(path).at("open", path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut buffer).at("read", path)?;
        match buffer.get(..read) {
            Some([]) | None => return Ok(hasher.finalize().to_hex().to_string()),
            Some(bytes) => hasher.update(bytes),
        };
    }
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
