//! The ledger: what was installed, from what, and how each file should be.
//!
//! Two files in the version's folder, beside `package/`: `ledger.json` is small and read whenever an engine is looked
//! for; `files.json` lists every file and is read to verify. Files are flushed before the folder is renamed into place, so
//! a folder with a ledger is whole.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{At, Error, Result};
use crate::lock_file::Locked;
use crate::safe_path::SafePath;
use crate::sri::Sri;
use crate::tree::TreeDigest;

/// Name of the ledger in a version's folder.
pub(crate) const LEDGER: &str = "ledger.json";
/// Name of the list of files.
pub(crate) const FILES: &str = "files.json";
/// The folder with the engine itself.
pub(crate) const TREE: &str = "package";

const FORMAT: u32 = 1;
/// Up to so many files are looked at each time an engine is looked for. An adapter has thousands.
const QUICK: usize = 96;

/// What was installed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ledger {
    pub(crate) format: u32,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) platform: String,
    pub(crate) entrypoint: SafePath,
    pub(crate) path: Vec<SafePath>,
    pub(crate) packages: Vec<PackageRecord>,
    pub(crate) downloaded_at_unix_ms: u64,
    pub(crate) pcoder_version: String,
    /// The first line of the answer to `--version`.
    pub(crate) smoke: Option<String>,
    pub(crate) files: u64,
    pub(crate) size: u64,
    /// blake3 of `files.json`.
    pub(crate) files_blake3: String,
    /// What the quick check looks at.
    pub(crate) quick: Vec<QuickRecord>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PackageRecord {
    pub(crate) id: String,
    pub(crate) integrity: Sri,
    /// Hexadecimal, of the tarball. None where there was no tarball: an engine that was imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<String>,
    pub(crate) size: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuickRecord {
    pub(crate) path: SafePath,
    pub(crate) size: u64,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileRecord {
    pub(crate) path: SafePath,
    pub(crate) size: u64,
    pub(crate) blake3: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) executable: bool,
}

/// Everything that goes into a ledger.
pub(crate) struct Facts {
    pub(crate) packages: Vec<PackageRecord>,
    pub(crate) files: Vec<FileRecord>,
    pub(crate) smoke: Option<String>,
    pub(crate) now_unix_ms: u64,
    pub(crate) pcoder_version: String,
}

impl Ledger {
    /// Writes both files into `folder`, flushed.
    pub(crate) fn write(folder: &Path, locked: Locked<'_>, facts: &Facts) -> Result<()> {
        let files = to_json(&facts.files)?;
        let ledger = Self {
            format: FORMAT,
            name: locked.name.to_owned(),
            version: locked.version.to_owned(),
            platform: locked.platform.to_owned(),
            entrypoint: locked.build.entrypoint.clone(),
            path: locked.build.path.clone(),
            packages: facts.packages.clone(),
            downloaded_at_unix_ms: facts.now_unix_ms,
            pcoder_version: facts.pcoder_version.clone(),
            smoke: facts.smoke.clone(),
            files: facts.files.len() as u64,
            size: facts.files.iter().map(|file| file.size).sum(),
            files_blake3: blake3::hash(&files).to_hex().to_string(),
            quick: quick(&locked.build.entrypoint, &facts.files),
        };
        write_flushed(&folder.join(FILES), &files)?;
        write_flushed(&folder.join(LEDGER), &to_json(&ledger)?)
    }

    /// Reads a ledger; none where there is none.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(LEDGER);
        match fs::read(&path) {
            Ok(bytes) => from_json::<Self>(&path, &bytes).map(Some),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(Error::io("read", &path, error)),
        }
    }

    /// Reads the list of files, which must be the one that this ledger was written with, and the one that the lock file
    /// names: who changes an engine can change its ledger as well.
    pub(crate) fn read_files(&self, folder: &Path, locked: Locked<'_>) -> Result<Vec<FileRecord>> {
        let path = folder.join(FILES);
        let bytes = fs::read(&path).at("read", &path)?;
        if blake3::hash(&bytes).to_hex().as_str() != self.files_blake3 {
            return Err(damaged(&path, "it is not the list that was written"));
        }
        let files: Vec<FileRecord> = from_json(&path, &bytes)?;
        if TreeDigest::of(&files) != locked.build.tree {
            return Err(damaged(&path, "it is not the list of files that engines.lock names"));
        }
        Ok(files)
    }

    /// Is it the ledger of this entry of the lock file? The same version with other bytes is another engine.
    pub(crate) fn matches(&self, locked: Locked<'_>) -> bool {
        self.format == FORMAT
            && self.name == locked.name
            && self.version == locked.version
            && self.platform == locked.platform
            && self.entrypoint == locked.build.entrypoint
            && self.path == locked.build.path
            && self.packages.len() == locked.build.packages.len()
            && self
                .packages
                .iter()
                .zip(&locked.build.packages)
                .all(|(have, want)| have.integrity == want.integrity && have.size == want.size)
    }

    /// Looks at the quick files' sizes, and says what is wrong.
    pub(crate) fn quick_check(&self, folder: &Path) -> Option<String> {
        let tree = folder.join(TREE);
        self.quick.iter().find_map(|file| {
            let path = file.path.below(&tree);
            match fs::symlink_metadata(&path) {
                Ok(data) if data.is_file() && data.len() == file.size => None,
                Ok(data) if data.is_file() => {
                    Some(format!("`{}` has {} bytes, not {}", file.path, data.len(), file.size))
                }
                Ok(_) => Some(format!("`{}` is not a file", file.path)),
                Err(_) => Some(format!("`{}` is not there", file.path)),
            }
        })
    }
}

/// All files of a small engine; of a big tree its entry point and its packages' own descriptions.
fn quick(entrypoint: &SafePath, files: &[FileRecord]) -> Vec<QuickRecord> {
    let all = files.len() <= QUICK;
    let record = |file: &FileRecord| QuickRecord { path: file.path.clone(), size: file.size };
    let (first, rest): (Vec<_>, Vec<_>) = files.iter().partition(|file| file.path == *entrypoint);
    first
        .into_iter()
        .chain(rest.into_iter().filter(|file| all || file.path.as_str().ends_with("package.json")))
        .take(QUICK)
        .map(record)
        .collect()
}

pub(crate) fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::internal(format!("a record cannot be written: {error}")))
}

fn from_json<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| damaged(path, &error.to_string()))
}

fn damaged(path: &Path, detail: &str) -> Error {
    Error::Invalid {
        subject: format!("`{}`", path.display()),
        detail: detail.to_owned(),
        hint: "`pcoder engine install` replaces it".to_owned(),
    }
}

fn write_flushed(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = fs::File::create(path)?;
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    };
    write().at("write", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As versions wrote it that knew no digest of the tree: a store that they filled stays in use.
    const OLD: &str = r#"{"format":1,"name":"x","version":"1.0.0","platform":"any","entrypoint":"x.js","path":[],"packages":[{"id":"x@1.0.0","integrity":"sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==","sha256":"e3b0","size":1}],"downloaded_at_unix_ms":1,"pcoder_version":"0.1.0","smoke":null,"files":1,"size":1,"files_blake3":"af13","quick":[{"path":"x.js","size":1}]}"#;

    #[test]
    fn a_ledger_of_an_older_version_is_read_and_written_as_it_was() {
        let ledger: Ledger = serde_json::from_str(OLD).unwrap();
        assert_eq!(serde_json::to_string(&ledger).unwrap(), OLD);
    }
}
