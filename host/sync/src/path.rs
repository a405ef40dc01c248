//! Names inside of a tree: the bytes that a POSIX system has, relative, and never leading out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The name of the staging folder, on either side and at any depth; nothing of that name is ever synced.
pub(crate) const RESERVED: &[u8] = b".pcoder-sync";

/// A path below the root of a tree: parts of any bytes but `/` and NUL, none of them empty, `.` or `..`.
///
/// The order is that of the bytes, so that a folder comes before everything in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct TreePath(Vec<u8>);

impl TreePath {
    /// None for what is not such a path.
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        let proper = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.contains(&0);
        bytes.split(|it| *it == b'/').all(proper).then(|| Self(bytes.to_vec()))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The folder that it is in; none when that is the root.
    pub(crate) fn parent(&self) -> Option<Self> {
        let slash = self.0.iter().rposition(|it| *it == b'/')?;
        Some(Self(self.0[..slash].to_vec()))
    }

    /// The folders above it, the nearest first, without the root.
    pub(crate) fn ancestors(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(self.parent(), Self::parent)
    }

    /// The last part.
    pub(crate) fn name(&self) -> &[u8] {
        self.0.rsplit(|it| *it == b'/').next().unwrap_or_default()
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|it| *it == b'/')
    }

    /// A path in a folder, or in the root. None when the name is not one.
    pub(crate) fn in_folder(folder: Option<&Self>, name: &[u8]) -> Option<Self> {
        match folder {
            None => Self::new(name),
            Some(folder) => Self::new(&[folder.as_bytes(), b"/", name].concat()),
        }
    }

    /// Whether it is somewhere inside of that folder.
    pub(crate) fn is_in(&self, folder: &Self) -> bool {
        self.0.len() > folder.0.len() && self.0[folder.0.len()] == b'/' && self.0.starts_with(&folder.0)
    }

    /// The same path with the folder that it is in, or is, replaced.
    pub(crate) fn moved(&self, from: &Self, to: &Self) -> Self {
        Self([to.as_bytes(), self.0.get(from.0.len()..).unwrap_or_default()].concat())
    }

    /// The paths between which everything inside of this folder is, and nothing else.
    pub(crate) fn inside(&self) -> (Self, Self) {
        (Self([self.as_bytes(), b"/"].concat()), Self([self.as_bytes(), b"0"].concat()))
    }

    /// As this system writes it. On systems whose names are text, what is not text is replaced.
    pub(crate) fn to_path_buf(&self) -> PathBuf {
        self.parts().map(os_name).collect()
    }
}

impl std::fmt::Debug for TreePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`", self.0.escape_ascii())
    }
}

/// A part of a path, or a link's target, as this system writes it.
#[cfg(unix)]
pub(crate) fn os_name(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

/// A part of a path, or a link's target, as this system writes it.
#[cfg(not(unix))]
pub(crate) fn os_name(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

/// The bytes of a name that this system gave. None for one that no POSIX system could have.
pub(crate) fn name_bytes(name: &std::ffi::OsStr) -> Option<Vec<u8>> {
    #[cfg(unix)]
    let bytes = Some(std::os::unix::ffi::OsStrExt::as_bytes(name).to_vec());
    #[cfg(not(unix))]
    let bytes = name.to_str().map(|it| it.as_bytes().to_vec());
    bytes
}

/// Why Windows cannot have a file of that name; none when it can. Source: "Naming Files, Paths, and Namespaces" in
/// Microsoft's documentation of Win32.
pub(crate) fn refused_by_windows(name: &[u8]) -> Option<&'static str> {
    let Ok(text) = std::str::from_utf8(name) else { return Some("its name is not text") };
    if text.chars().any(|it| it < ' ' || "<>:\"/\\|?*".contains(it)) {
        return Some("its name has a character that Windows does not allow");
    }
    if text.ends_with(['.', ' ']) {
        return Some("its name ends with a dot or a space");
    }
    let stem = text.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |it: &str| {
        stem.strip_prefix(it).is_some_and(|rest| {
            let mut rest = rest.chars();
            matches!((rest.next(), rest.next()), (Some('1'..='9' | '¹' | '²' | '³'), None))
        })
    };
    (matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL") || numbered("COM") || numbered("LPT"))
        .then_some("its name is a device's on Windows")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).expect("a path")
    }

    #[test]
    fn what_leads_out_or_says_the_same_twice_is_no_path() {
        for wrong in ["", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/./b", "a/../b", "a\0b"] {
            assert!(TreePath::new(wrong.as_bytes()).is_none(), "{wrong:?}");
        }
        for right in [&b"a"[..], b"...", b"-rf", b" ", b"a\nb", b"\xff\xfe", b".a/b.", b"*?["] {
            assert!(TreePath::new(right).is_some(), "{right:?}");
        }
    }

    #[test]
    fn the_inside_of_a_folder_is_between_two_paths() {
        let (from, to) = path("a").inside();
        let within = |it: &str| from <= path(it) && path(it) < to;
        assert!(within("a/b") && within("a/b/c") && within("a/\u{7f}"));
        assert!(!within("a") && !within("a-b") && !within("a.b/c") && !within("a0") && !within("b"));
        assert!(path("a/b").is_in(&path("a")) && !path("a").is_in(&path("a")) && !path("ab/c").is_in(&path("a")));
    }

    #[test]
    fn a_path_moves_with_the_folder_that_it_is_in() {
        assert_eq!(path("a/b/c").moved(&path("a/b"), &path("x")), path("x/c"));
        assert_eq!(path("a/b").moved(&path("a/b"), &path("a/x")), path("a/x"));
        assert_eq!(path("a/b/c").ancestors().collect::<Vec<_>>(), [path("a/b"), path("a")]);
    }

    #[test]
    fn names_that_windows_cannot_have_are_known_everywhere() {
        for wrong in ["a:b", "a\\b", "nul", "NUL.txt", "com1", "Lpt9.log", "a.", "a ", "a\nb", "aux .c", "COM²"] {
            assert!(refused_by_windows(wrong.as_bytes()).is_some(), "{wrong:?}");
        }
        for right in ["a", "null", "com", "com10", "com0", ".gitignore", "ä b"] {
            assert!(refused_by_windows(right.as_bytes()).is_none(), "{right:?}");
        }
        assert!(refused_by_windows(b"\xff").is_some());
    }
}
