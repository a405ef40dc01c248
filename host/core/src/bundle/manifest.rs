//! `bundle.json`: what a portable folder is made of.

use std::path::Path;

use pcoder_engines::{Platform, SafePath};
use pcoder_runtime::Error;
use pcoder_runtime::error::code;
use serde::{Deserialize, Serialize};

use super::MANIFEST;

const FORMAT: u32 = 1;
/// A list of a few files; whatever is larger is none.
const LARGEST: u64 = 16 << 20;

/// What a portable folder is made of. No path in it is absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    /// The version of the pcoder in it.
    pub pcoder_version: String,
    /// The platform that it is for.
    pub platform: Platform,
    /// When it was made, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// The engines that were put into it.
    pub engines: Vec<BundledEngine>,
    /// Every file outside `state`, but for this one.
    pub files: Vec<BundledFile>,
}

/// An engine in a portable folder. What its files must be stands in `engines.lock`, by the digest of its tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundledEngine {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The bytes of its files.
    pub bytes: u64,
    /// The digest of its files' names, sizes and bytes.
    pub tree: String,
}

/// A file in a portable folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundledFile {
    /// Below the folder, with `/`.
    pub path: SafePath,
    /// In bytes.
    pub size: u64,
    /// In hexadecimal.
    pub sha256: String,
    /// Whether it is started.
    pub executable: bool,
}

impl Manifest {
    pub(super) fn new(
        pcoder_version: &str,
        platform: Platform,
        created_unix_ms: u64,
        engines: Vec<BundledEngine>,
        files: Vec<BundledFile>,
    ) -> Self {
        Self { format: FORMAT, pcoder_version: pcoder_version.to_owned(), platform, created_unix_ms, engines, files }
    }

    pub(super) fn to_text(&self) -> Result<String, Error> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::new(code::INTERNAL, "bundle.export", error.to_string()))?;
        Ok(text + "\n")
    }

    /// Reads that of a folder.
    ///
    /// # Errors
    /// `not-found` where there is none; `integrity` for what is none; `unsupported` for one of a newer pcoder.
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        const OPERATION: &str = "bundle";
        let path = folder.join(MANIFEST);
        let shown = path.display().to_string();
        let io = |error: std::io::Error| Error::io(OPERATION, &shown, &error);
        let size = match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::new(
                    code::NOT_FOUND,
                    OPERATION,
                    "this folder is no bundle: it has no `bundle.json`",
                )
                .subject(folder.display().to_string())
                .hint("name the folder that `pcoder bundle export DIR` made"));
            }
            data => data.map_err(io)?.len(),
        };
        let damaged = |why: String| {
            Error::new(code::INTEGRITY, OPERATION, format!("the list of the bundle's files cannot be read: {why}"))
                .subject(&shown)
                .hint("make the bundle again: `pcoder bundle export DIR --update`")
        };
        if size > LARGEST {
            return Err(damaged("it is too large".to_owned()));
        }
        let bytes = std::fs::read(&path).map_err(io)?;
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let version: Version = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if version.format > FORMAT {
            return Err(Error::new(code::UNSUPPORTED, OPERATION, "a newer pcoder made this bundle")
                .subject(&shown)
                .hint("verify it with its own `pcoder bundle verify`"));
        }
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let file = BundledFile {
            path: SafePath::parse(b"bin/linux-x64/pcoder").expect("a path"),
            size: 3,
            sha256: "0".repeat(64),
            executable: true,
        };
        Manifest::new("0.1.0", Platform::LinuxX64, 1, Vec::new(), vec![file])
    }

    fn read(text: &str) -> Result<Manifest, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(MANIFEST), text).expect("a file");
        Manifest::read(folder.path())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = manifest().to_text().expect("text");
        assert_eq!(read(&text).expect("read"), manifest());
    }

    #[test]
    fn a_path_that_leads_out_and_a_format_that_is_not_known_are_refused() {
        let text = manifest().to_text().expect("text");
        for bad in ["../pcoder", "/bin/pcoder", "C:/pcoder", "bin//pcoder", ""] {
            let changed = text.replace("bin/linux-x64/pcoder", bad);
            assert_eq!(read(&changed).expect_err("refused").code, code::INTEGRITY, "{bad}");
        }
        let newer = text.replace("\"format\": 1", "\"format\": 2");
        assert_eq!(read(&newer).expect_err("newer").code, code::UNSUPPORTED);
        assert_eq!(read("{}").expect_err("nothing").code, code::INTEGRITY);
        let empty = tempfile::tempdir().expect("a folder");
        assert_eq!(Manifest::read(empty.path()).expect_err("none").code, code::NOT_FOUND);
    }
}
