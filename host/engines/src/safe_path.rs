//! A path from an archive that stays below the folder it is unpacked into, on every system.
//!
//! One rule for all systems, the strictest: an archive that unpacks on Linux and not on Windows, or that means two
//! different trees on them, is of no use to a portable folder. The generator of the lock file uses the same rule, so an
//! honest package cannot fail here.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Relative, `/`-separated, at least one component; none of them empty, `.`, `..`, a Windows device, or with a
/// character that some file system gives a meaning to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SafePath(String);

/// Why a path is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the path `{path}` {reason}")]
pub struct UnsafePath {
    path: String,
    reason: &'static str,
}

impl SafePath {
    /// Checks a path.
    ///
    /// # Errors
    /// It breaks the rule above.
    pub fn parse(bytes: &[u8]) -> Result<Self, UnsafePath> {
        let refuse = |reason| UnsafePath { path: String::from_utf8_lossy(bytes).chars().take(200).collect(), reason };
        let text = std::str::from_utf8(bytes).map_err(|_| refuse("is not UTF-8"))?;
        if text.is_empty() {
            return Err(refuse("is empty"));
        }
        if text.len() > 1024 {
            return Err(refuse("is longer than 1024 bytes"));
        }
        if text.starts_with('/') {
            return Err(refuse("is absolute"));
        }
        for component in text.split('/') {
            component_reason(component).map_or(Ok(()), |reason| Err(refuse(reason)))?;
        }
        Ok(Self(text.to_owned()))
    }

    /// With `/` between components.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Below `root`.
    pub fn below(&self, root: &Path) -> PathBuf {
        let mut path = root.to_owned();
        path.extend(self.0.split('/'));
        path
    }

    /// This path below another one.
    pub(crate) fn under(&self, parent: Option<&Self>) -> Self {
        match parent {
            Some(parent) => Self(format!("{}/{}", parent.0, self.0)),
            None => self.clone(),
        }
    }

    /// Without its first component; none if there is only one.
    pub(crate) fn split_first(&self) -> (&str, Option<Self>) {
        match self.0.split_once('/') {
            Some((first, rest)) => (first, Some(Self(rest.to_owned()))),
            None => (&self.0, None),
        }
    }

    /// The folders above it, nearest first.
    pub(crate) fn parents(&self) -> impl Iterator<Item = &str> {
        self.0.rmatch_indices('/').map(|(at, _)| &self.0[..at])
    }

    /// Equal for two paths that a case-insensitive file system takes for one.
    pub(crate) fn folded(&self) -> String {
        fold(&self.0)
    }
}

pub(crate) fn fold(path: &str) -> String {
    path.to_lowercase()
}

fn component_reason(component: &str) -> Option<&'static str> {
    if component.is_empty() {
        return Some("has an empty component");
    }
    if component == "." || component == ".." {
        return Some("has a `.` or `..` in it");
    }
    if component.len() > 255 {
        return Some("has a component longer than 255 bytes");
    }
    if component.chars().any(|c| c.is_control() || "\\:<>\"|?*".contains(c)) {
        return Some("has a control character or one of \\ : < > \" | ? *");
    }
    if component.ends_with(['.', ' ']) {
        return Some("has a component that ends in a dot or a space");
    }
    is_device(component).then_some("has the name of a Windows device")
}

/// `con`, `nul.txt`, `com1.tar.gz`, `lpt³`, `CONIN$`: Windows opens the device, whatever the extension.
fn is_device(component: &str) -> bool {
    let stem = component.split('.').next().unwrap_or_default().trim_end_matches(' ').to_ascii_uppercase();
    if ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].contains(&stem.as_str()) {
        return true;
    }
    let numbered = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    numbered.is_some_and(|number| {
        let mut chars = number.chars();
        matches!((chars.next(), chars.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
    })
}

impl fmt::Display for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SafePath {
    type Error = UnsafePath;
    fn try_from(path: String) -> Result<Self, UnsafePath> {
        Self::parse(path.as_bytes())
    }
}

impl From<SafePath> for String {
    fn from(path: SafePath) -> Self {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Component;

    #[test]
    fn what_leaves_the_folder_or_means_something_else_is_refused() {
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "a/../b",
            "a/..",
            "./a",
            "a//b",
            "a/",
            "C:/x",
            "C:x",
            "a\\b",
            "\\\\h\\s\\x",
            "a\0b",
            "nul",
            "a/NUL.txt",
            "aux.c",
            "com1",
            "LPT9.x",
            "con .txt",
            "com¹",
            "CONIN$",
            "a./b",
            "a /b",
            "x:y",
            "a\nb",
            "a?b",
            "file.txt::$DATA",
        ] {
            assert!(SafePath::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(SafePath::parse(b"a\xff").is_err());
        assert!(SafePath::parse("a/".repeat(600).as_bytes()).is_err());
        for good in ["a", "a/b", ".bin/x", "com", "com10", "console.js", "a..b", "node_modules/@s/x/ä ö.js", "nulls"]
        {
            assert_eq!(SafePath::parse(good.as_bytes()).unwrap().as_str(), good);
        }
    }

    #[test]
    fn parts() {
        let path = SafePath::parse(b"a/b/c").unwrap();
        assert_eq!(path.parents().collect::<Vec<_>>(), ["a/b", "a"]);
        let (first, rest) = path.split_first();
        assert_eq!((first, rest.unwrap().as_str()), ("a", "b/c"));
    }

    proptest! {
        /// Against the standard library's idea of a path.
        #[test]
        fn an_accepted_path_has_only_normal_components(text in "(\\.|\\.\\.|/|\\\\|[a-c:]|é|\\x00|con|[ .]){0,8}") {
            if let Ok(path) = SafePath::parse(text.as_bytes()) {
                let root = Path::new("/root/x");
                let below = path.below(root);
                prop_assert!(below.starts_with(root) && below != root);
                prop_assert!(Path::new(path.as_str()).components().all(|c| matches!(c, Component::Normal(_))));
                prop_assert_eq!(Path::new(path.as_str()).components().count(), path.as_str().split('/').count());
            }
        }
    }
}
