//! What an installation leaves in `package/`, as one digest.
//!
//! A tarball is gone once it is unpacked, and a ledger is only as good as the folder that it lies in. So `engines.lock` says
//! what the unpacked tree is, too: an engine that comes from another machine, or was changed together with its ledger,
//! is known by that.
//!
//! The digest is the blake3 of a text with a line for the format and one for each file, sorted by path as bytes:
//!
//! ```text
//! pcoder-tree 1
//! <blake3 of the file, 64 hexadecimal digits> <size in decimal> <x when it is executable, else -> <path>
//! ```
//!
//! A [`SafePath`](crate::safe_path::SafePath) has no line feed in it, so no two trees have one text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ledger::FileRecord;
use crate::lock_file::Build;

const HEAD: &str = "pcoder-tree 1\n";
const PREFIX: &str = "blake3-";

/// Digest of an unpacked tree. Written as `blake3-` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TreeDigest([u8; 32]);

impl TreeDigest {
    /// Of a tree's files, in any order.
    pub(crate) fn of(files: &[FileRecord]) -> Self {
        let mut sorted: Vec<&FileRecord> = files.iter().collect();
        sorted.sort_by(|a, b| a.path.as_str().cmp(b.path.as_str()));
        let mut hasher = blake3::Hasher::new();
        hasher.update(HEAD.as_bytes());
        for file in sorted {
            let mark = if file.executable { 'x' } else { '-' };
            hasher.update(format!("{} {} {mark} {}\n", file.blake3, file.size, file.path).as_bytes());
        }
        Self(hasher.finalize().into())
    }
}

/// Not a digest of a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the digest of a tree (`blake3-` and 64 hexadecimal digits)")]
pub struct TreeDigestError(String);

impl FromStr for TreeDigest {
    type Err = TreeDigestError;
    fn from_str(text: &str) -> Result<Self, TreeDigestError> {
        let hash = text.strip_prefix(PREFIX).and_then(|hex| blake3::Hash::from_hex(hex).ok());
        hash.map(|hash| Self(hash.into())).ok_or_else(|| TreeDigestError(text.chars().take(120).collect()))
    }
}

impl TryFrom<String> for TreeDigest {
    type Error = TreeDigestError;
    fn try_from(text: String) -> Result<Self, TreeDigestError> {
        text.parse()
    }
}

impl From<TreeDigest> for String {
    fn from(digest: TreeDigest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for TreeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", blake3::Hash::from(self.0).to_hex())
    }
}

impl fmt::Debug for TreeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The files of a build's packages, each list in the order of the build's packages, at their places in the tree.
///
/// `runs` says that the entry point is a program of its own: such a one is executable whatever its archive says.
pub(crate) fn lay_out(build: &Build, runs: bool, packages: Vec<Vec<FileRecord>>) -> Vec<FileRecord> {
    let mut all = Vec::new();
    for (package, files) in build.packages.iter().zip(packages) {
        all.extend(files.into_iter().map(|mut file| {
            file.path = file.path.under(package.at.as_ref());
            file.executable |= runs && file.path == build.entrypoint;
            file
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::safe_path::SafePath;

    fn record(path: &str, bytes: &[u8], executable: bool) -> FileRecord {
        let path = SafePath::parse(path.as_bytes()).unwrap();
        FileRecord { path, size: bytes.len() as u64, blake3: blake3::hash(bytes).to_hex().to_string(), executable }
    }

    #[test]
    fn everything_about_a_file_counts_and_the_order_does_not() {
        let (a, b) = (record("a", b"1", false), record("b/c", b"2", true));
        let digest = TreeDigest::of(&[a.clone(), b.clone()]);
        assert_eq!(TreeDigest::of(&[b.clone(), a.clone()]), digest);
        let text =
            format!("pcoder-tree 1\n{} 1 - a\n{} 1 x b/c\n", blake3::hash(b"1").to_hex(), blake3::hash(b"2").to_hex());
        assert_eq!(digest.to_string(), format!("blake3-{}", blake3::hash(text.as_bytes()).to_hex()));
        for other in [
            vec![a.clone()],
            vec![a.clone(), record("b/c", b"2", false)],
            vec![a.clone(), record("b/d", b"2", true)],
            vec![a.clone(), record("b/c", b"3", true)],
            vec![a, FileRecord { size: 2, ..b }],
        ] {
            assert_ne!(TreeDigest::of(&other), digest);
        }
    }

    #[test]
    fn a_digest_goes_round_and_anything_else_is_refused() {
        let digest = TreeDigest::of(&[]);
        assert_eq!(digest.to_string().parse::<TreeDigest>().unwrap(), digest);
        for bad in ["", "blake3-", "blake3-00", "sha512-00", &digest.to_string()[7..]] {
            assert!(bad.parse::<TreeDigest>().is_err(), "{bad}");
        }
    }
}
