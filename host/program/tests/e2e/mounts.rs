//! What is mounted where, for a process that has a view of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is behind a mount: a folder outside, or memory that nobody else sees.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Behind {
    Folder(PathBuf),
    Memory,
}

/// The mounts of a process, by the names that it has for them.
#[derive(Clone, Debug)]
pub(crate) struct Mounts(BTreeMap<PathBuf, Behind>);

/// As outside.
impl Default for Mounts {
    fn default() -> Self {
        Self(BTreeMap::from([(PathBuf::from("/"), Behind::Folder("/".into()))]))
    }
}

impl Mounts {
    fn behind(&self, name: &Path) -> Behind {
        let nearest = name.ancestors().find_map(|it| Some((it, self.0.get(it)?)));
        let (mount, behind) = nearest.expect("the root is there");
        match behind {
            Behind::Folder(folder) => {
                let rest = name.strip_prefix(mount).expect("it is below");
                Behind::Folder(if rest.as_os_str().is_empty() { folder.clone() } else { folder.join(rest) })
            }
            Behind::Memory => Behind::Memory,
        }
    }

    /// The name that a file has outside; none for one in memory.
    pub(crate) fn outside(&self, name: &Path) -> Option<PathBuf> {
        // What is no path is told as it is.
        if !name.is_absolute() {
            return Some(name.to_path_buf());
        }
        match self.behind(name) {
            Behind::Folder(folder) => Some(folder),
            Behind::Memory => None,
        }
    }

    fn put(&mut self, target: PathBuf, behind: Behind) {
        self.0.retain(|mount, _| !mount.starts_with(&target) || *mount == target);
        self.0.insert(target, behind);
    }

    /// A file system in memory, or one of the kernel's.
    pub(crate) fn memory(&mut self, target: PathBuf) {
        self.put(target, Behind::Memory);
    }

    /// The same folder in another place, with what is mounted in it.
    pub(crate) fn bind(&mut self, source: &Path, target: PathBuf) {
        let behind = self.behind(source);
        let moved = |mount: &Path| Some(target.join(mount.strip_prefix(source).ok()?));
        let inner: Vec<_> = self.0.iter().filter_map(|(mount, it)| Some((moved(mount)?, it.clone()))).collect();
        self.put(target.clone(), behind.clone());
        self.0.extend(inner);
        self.0.insert(target, behind);
    }

    /// Nothing is mounted there any more.
    pub(crate) fn remove(&mut self, target: &Path) {
        if target != Path::new("/") {
            self.0.retain(|mount, _| !mount.starts_with(target));
        }
    }

    /// `new` becomes the root, and what was the root is at `old`, which is below `new`.
    pub(crate) fn pivot(&mut self, new: &Path, old: &Path) {
        let root = self.behind(new);
        let place = Path::new("/").join(old.strip_prefix(new).unwrap_or(Path::new("")));
        let mut all = BTreeMap::new();
        for (mount, behind) in &self.0 {
            match mount.strip_prefix(new) {
                Ok(rest) if !rest.as_os_str().is_empty() => drop(all.insert(Path::new("/").join(rest), behind.clone())),
                Ok(_) => {}
                // With the same place for both, the old root is under the new one and nobody sees it.
                Err(_) if place == Path::new("/") => {}
                Err(_) => {
                    let rest = mount.strip_prefix("/").unwrap_or(mount);
                    all.insert(
                        if rest.as_os_str().is_empty() { place.clone() } else { place.join(rest) },
                        behind.clone(),
                    );
                }
            }
        }
        all.insert("/".into(), root);
        self.0 = all;
    }
}
