//! Capability `files`: named roots on the host.

use super::{Class, Effect};
use crate::error::{Error, code};
use crate::manifest::{Access, Capabilities};

/// The root that stands for the one path that the host asked this call about.
pub const CALLED: &str = "called";
/// The root that is the plugin's own folder.
pub const STATE: &str = "state";

/// Something done to a file.
#[derive(Clone, Debug)]
pub struct FileAccess {
    verb: &'static str,
    access: Access,
    root: String,
    path: String,
}

impl FileAccess {
    /// # Errors
    /// `denied` for a path that could name something outside its root: absolute, with `..`, a drive or a NUL. Such a
    /// path is refused before anything is looked at, so that the answer does not tell what is there.
    pub fn new(verb: &'static str, access: Access, root: &str, path: &str) -> Result<Self, Error> {
        let leaves = || {
            Error::new(code::DENIED, format!("files.{verb}"), "the path leads outside of its root")
                .subject(format!("{}:{}", crate::text::for_people(root, 80), crate::text::for_people(path, 400)))
                .hint("use a path below the root, without `..`")
        };
        if path.contains('\0') {
            return Err(leaves());
        }
        if root == CALLED {
            return Ok(Self { verb, access, root: root.to_owned(), path: path.to_owned() });
        }
        let mut parts = Vec::new();
        for part in path.split(['/', '\\']) {
            match part {
                "" | "." => {}
                ".." => return Err(leaves()),
                _ if part.contains(':') => return Err(leaves()),
                _ => parts.push(part),
            }
        }
        if path.starts_with(['/', '\\']) {
            return Err(leaves());
        }
        Ok(Self { verb, access, root: root.to_owned(), path: parts.join("/") })
    }

    /// The root's name.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The path below the root, in normal form; `.` for the root itself.
    pub fn path(&self) -> &str {
        if self.path.is_empty() { "." } else { &self.path }
    }
}

impl Effect for FileAccess {
    const CLASS: Class = Class::Files;

    fn verb(&self) -> &'static str {
        self.verb
    }

    fn describe(&self) -> String {
        format!("{}:{}", crate::text::for_people(&self.root, 80), crate::text::for_people(&self.path, 400))
    }

    fn allowed_by(&self, capabilities: &Capabilities) -> Option<String> {
        capabilities.files.iter().find(|grant| grant.root == self.root && grant.access >= self.access).map(|grant| {
            let access = if grant.access == Access::Read { "read" } else { "read-write" };
            format!("files {} {access}", grant.root)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_leave_its_root_is_refused_before_it_is_looked_at() {
        for path in ["../x", "a/../../x", "/etc/passwd", "\\\\server\\share", "C:\\x", "a\0b", "a/..", "NUL:"] {
            assert!(FileAccess::new("read", Access::Read, "state", path).is_err(), "{path:?}");
        }
        for (path, normal) in [("a//b/./c", "a/b/c"), ("", "."), ("...", "..."), ("a..b", "a..b")] {
            let access = FileAccess::new("read", Access::Read, "state", path).expect("a plain path");
            assert_eq!(access.path(), normal);
        }
    }

    #[test]
    fn reading_is_not_writing() {
        let grant = |access| Capabilities {
            files: vec![crate::manifest::Files { root: "project".into(), access, reason: String::new() }],
            ..Capabilities::default()
        };
        let write = FileAccess::new("write", Access::ReadWrite, "project", "a").expect("plain");
        let read = FileAccess::new("read", Access::Read, "project", "a").expect("plain");
        assert!(write.allowed_by(&grant(Access::Read)).is_none());
        assert!(read.allowed_by(&grant(Access::Read)).is_some());
        assert!(read.allowed_by(&grant(Access::ReadWrite)).is_some());
        assert!(read.allowed_by(&Capabilities::default()).is_none());
    }
}
