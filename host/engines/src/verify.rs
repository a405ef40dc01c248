//! The deep check: every byte of an installed engine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use crate::error::{At, Error, Result};
use crate::findings::{Stamps, is_executable, write_damaged, write_whole};
use crate::install_lock::Hold;
use crate::ledger::{FileRecord, Ledger, TREE};
use crate::lock_file::Locked;
use crate::store::{Condition, Inner, Store};

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
    /// Reads every file of an engine and compares, with the list of files beside it and with the digest of the tree in
    /// `engines.lock`. What it finds is remembered: an engine with problems counts as damaged until it is installed again or
    /// found whole.
    ///
    /// # Errors
    /// It is not installed, or its ledger is damaged; it is being replaced; the disk fails. A file that is wrong is not an
    /// error of this function but a [`Problem`].
    pub fn verify(&self, name: &str, version: Option<&str>) -> Result<VerifyReport> {
        let locked = self.inner.lookup(name, version)?;
        if self.inner.inspect(locked)? == Condition::Missing {
            return Err(locked.not_installed());
        }
        let _hold = Hold::take(&self.inner.locks, &locked.key(), &locked.subject())?;
        self.inner.compare(locked)
    }
}

impl Inner {
    /// The deep check. The caller sees to it that nobody replaces the engine meanwhile.
    pub(crate) fn compare(&self, locked: Locked<'_>) -> Result<VerifyReport> {
        let folder = self.engine_folder(locked);
        let (_, files) = self.listed(locked)?;
        // Before anything is read: what is changed while it is read is not taken for what was compared.
        let stamps = Stamps::of(&folder, &files);
        let report = look(&folder.join(TREE), &files, Depth::Contents)?;
        if report.problems.is_empty() {
            write_whole(&folder, stamps);
        } else {
            write_damaged(&folder, report.problems.len());
        }
        Ok(report)
    }

    /// An engine's ledger and its list of files, which is the one that the lock file names. It says nothing of the files
    /// themselves.
    pub(crate) fn listed(&self, locked: Locked<'_>) -> Result<(Ledger, Vec<FileRecord>)> {
        let folder = self.engine_folder(locked);
        let damaged = |detail: String| locked.damaged(detail);
        let ledger = match Ledger::read(&folder) {
            Ok(Some(ledger)) => ledger,
            Ok(None) => return Err(damaged("it has no ledger".to_owned())),
            Err(error @ Error::Invalid { .. }) => return Err(damaged(error.to_string())),
            Err(error) => return Err(error),
        };
        if !ledger.matches(locked) {
            return Err(damaged("its ledger is another engine's".to_owned()));
        }
        let files = ledger.read_files(&folder, locked).map_err(|error| match error {
            Error::Io { ref source, .. } if source.kind() != std::io::ErrorKind::NotFound => error,
            error => {
                write_damaged(&folder, 0);
                damaged(error.to_string())
            }
        })?;
        Ok((ledger, files))
    }

    /// Before its files are handed on: is there everything that should be, and nothing else? Whoever reads them sees what
    /// is in them.
    pub(crate) fn check_names(&self, locked: Locked<'_>, files: &[FileRecord]) -> Result<()> {
        let folder = self.engine_folder(locked);
        let report = look(&folder.join(TREE), files, Depth::Names)?;
        let Some(first) = report.problems.first() else {
            return Ok(());
        };
        write_damaged(&folder, report.problems.len());
        Err(locked.damaged(format!("`{}` {}", first.path, first.kind.words())))
    }
}

/// How closely files are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// What is there, of what size and kind.
    Names,
    /// Every byte too.
    Contents,
}

fn look(tree: &Path, files: &[FileRecord], depth: Depth) -> Result<VerifyReport> {
    let mut expected: BTreeMap<String, &FileRecord> = files.iter().map(|file| (file.path.to_string(), file)).collect();
    let mut report = VerifyReport::default();
    walk(tree, "", &mut expected, &mut report, depth)?;
    report.problems.extend(expected.into_keys().map(|path| Problem { path, kind: ProblemKind::Missing }));
    report.problems.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(report)
}

fn walk(
    folder: &Path,
    prefix: &str,
    expected: &mut BTreeMap<String, &FileRecord>,
    report: &mut VerifyReport,
    depth: Depth,
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
            walk(&path, &format!("{name}/"), expected, report, depth)?;
            continue;
        }
        let kind = match expected.remove(&name) {
            None => Some(ProblemKind::Extra),
            Some(_) if !data.is_file() => Some(ProblemKind::NotAFile),
            Some(file) if data.len() != file.size => Some(ProblemKind::Size),
            Some(file) => {
                report.files += 1;
                report.bytes += file.size;
                if depth == Depth::Contents && hash(&path)? != file.blake3 {
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
