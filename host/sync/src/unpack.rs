//! Puts on this host what a pull brings. Each file arrives whole, by a rename; whatever changed since the scan stays.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_fs_ext::DirExt as _;
use cap_std::fs::{Dir, OpenOptions};

use crate::fetch::{new_file, staged};
use crate::local;
use crate::path::{RESERVED, TreePath, os_name};
use crate::plan::{Plan, Step};
use crate::report::{Conflict, Pulled, Reason, Side, Skipped};
use crate::state::Memory;
use crate::tree::{Entry, Kind, State, Tree};

/// The longest name that the usual file systems allow, in bytes.
const NAME_MOST: usize = 255;

/// Everything that is needed to carry a plan out.
pub(crate) struct Unpack<'a> {
    pub(crate) root: &'a Dir,
    pub(crate) staging: &'a Dir,
    pub(crate) plan: &'a Plan,
    pub(crate) host: &'a Tree,
    pub(crate) instance: &'a Tree,
    pub(crate) memory: &'a mut Memory,
    /// The places of what was fetched, in `missing` and as names in the staging folder.
    pub(crate) fetched: &'a HashMap<TreePath, usize>,
    /// For each why it did not come.
    pub(crate) missing: &'a [Option<Reason>],
    /// What stands in the names of what is kept aside.
    pub(crate) label: &'a str,
    pub(crate) report: &'a mut Pulled,
    /// Names that were given to what is kept aside.
    pub(crate) aside: BTreeMap<TreePath, TreePath>,
    /// What was replaced by another kind, and is gone by now.
    pub(crate) cleared: BTreeSet<TreePath>,
}

enum Failure {
    /// What is there is not what was there at the scan.
    Meanwhile,
    /// A folder that is not empty stays.
    NotEmpty,
    Reason(Side, Reason),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Reason(Side::Host, Reason::Refused(error.to_string()))
    }
}

impl Unpack<'_> {
    pub(crate) fn all(&mut self) {
        let plan = self.plan;
        let opened = self.open();
        let replaced = |it: &TreePath| matches!(plan.steps.get(it), Some(Step::Write(entry)) if !entry.is_folder());
        let early = |path: &TreePath| path.ancestors().any(|it| replaced(&it));
        // What is in a folder comes before the folder.
        for (path, step) in plan.steps.iter().rev() {
            match step {
                Step::Delete if early(path) => self.delete(path),
                Step::Write(entry) => self.clear(path, entry),
                Step::Delete => {}
            }
        }
        for (path, step) in &plan.steps {
            if let Step::Write(entry) = step {
                self.write(path, entry);
            }
        }
        for (path, root) in &plan.conflicts {
            self.keep_aside(path, root);
        }
        for (path, step) in plan.steps.iter().rev() {
            if *step == Step::Delete && !early(path) {
                self.delete(path);
            }
        }
        self.close(opened);
        for path in &plan.kept {
            self.report.conflicts.push(Conflict { path: path.to_path_buf(), kept_as: None });
        }
    }

    /// Makes the folders writable in which something changes, and gives those that were not.
    fn open(&self) -> Vec<TreePath> {
        let asides = self.plan.conflicts.values().filter_map(TreePath::parent);
        let parents: BTreeSet<TreePath> = self.plan.steps.keys().filter_map(TreePath::parent).chain(asides).collect();
        let closed =
            |it: &TreePath| self.host.entries.get(it).is_some_and(|it| it.is_folder() && it.mode & 0o300 != 0o300);
        let opened: Vec<TreePath> = parents.into_iter().filter(closed).collect();
        for path in &opened {
            let mode = self.host.entries.get(path).map_or(0o755, |it| it.mode) | 0o700;
            if let Err(error) = self.set_mode(path, mode) {
                tracing::debug!(?path, %error, "a folder stays without permission to write");
            }
        }
        opened
    }

    /// Gives folders their permissions, the deepest first: those that are new, and those that were opened.
    fn close(&mut self, opened: Vec<TreePath>) {
        let mut modes: BTreeMap<TreePath, u16> = BTreeMap::new();
        for path in opened {
            if let Some(entry) = self.host.entries.get(&path) {
                modes.insert(path, entry.mode);
            }
        }
        for (path, step) in &self.plan.steps {
            if let Step::Write(entry) = step
                && entry.is_folder()
                && self.memory.base.get(path).is_some_and(Entry::is_folder)
            {
                modes.insert(path.clone(), entry.mode);
            }
        }
        for (path, mode) in modes.into_iter().rev() {
            match self.set_mode(&path, mode) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => self.skip(&path, Side::Host, Reason::Refused(error.to_string())),
            }
        }
    }

    fn set_mode(&self, path: &TreePath, mode: u16) -> io::Result<()> {
        let folder = local::open_folder(self.root, path.parent().as_ref())?;
        if folder.symlink_metadata(os_name(path.name()))?.is_symlink() {
            return Err(io::Error::from(ErrorKind::NotADirectory));
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::Permissions::from_mode(u32::from(mode));
            folder.set_permissions(os_name(path.name()), cap_std::fs::Permissions::from_std(mode))?;
        }
        #[cfg(not(unix))]
        let _ = mode;
        Ok(())
    }

    fn skip(&mut self, path: &TreePath, side: Side, reason: Reason) {
        self.report.skipped.push(Skipped { path: path.to_path_buf(), side, reason });
    }

    /// Whether what is at a path is still what the scan saw, and not what came meanwhile.
    fn unchanged(&self, folder: &Dir, path: &TreePath) -> io::Result<bool> {
        let expected = self.host.entries.get(path).filter(|_| !self.cleared.contains(path));
        let metadata = match folder.symlink_metadata(os_name(path.name())) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(expected.is_none()),
            Err(error) => return Err(error),
        };
        let Some(expected) = expected else { return Ok(false) };
        if metadata.is_file()
            && let (Kind::File { sum, .. }, Some(known)) =
                (&expected.kind, self.memory.content(path, &local::stamp(&metadata)))
        {
            return Ok(*sum == known);
        }
        Ok(local::entry(folder, path.name(), None).is_ok_and(|it| it.kind == expected.kind))
    }

    /// Removes what is of another kind than what comes, where a rename would not replace it.
    fn clear(&mut self, path: &TreePath, entry: &Entry) {
        let Some(there) = self.host.entries.get(path) else { return };
        if there.is_folder() == entry.is_folder() {
            return;
        }
        // Where it cannot be removed it is in the way, and that is seen when it is to be written.
        if self.remove(path).is_ok() {
            self.cleared.insert(path.clone());
        }
    }

    fn remove(&self, path: &TreePath) -> Result<(), Failure> {
        let folder = match local::open_folder(self.root, path.parent().as_ref()) {
            Ok(folder) => folder,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if self.host.entries.get(path).is_some_and(Entry::is_folder) {
            return match folder.remove_dir(os_name(path.name())) {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Err(Failure::NotEmpty),
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            };
        }
        if !self.unchanged(&folder, path)? {
            return Err(Failure::Meanwhile);
        }
        match folder.remove_file_or_symlink(os_name(path.name())) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn delete(&mut self, path: &TreePath) {
        match self.remove(path) {
            Ok(()) => {
                self.memory.base.remove(path);
                self.report.deleted.push(path.to_path_buf());
            }
            // The change stays, and the next push brings it back to the instance.
            Err(Failure::Meanwhile) => {
                self.report.conflicts.push(Conflict { path: path.to_path_buf(), kept_as: None });
            }
            Err(Failure::NotEmpty) => {}
            Err(Failure::Reason(side, reason)) => self.skip(path, side, reason),
        }
    }

    fn write(&mut self, path: &TreePath, entry: &Entry) {
        let was = self.host.entries.get(path).cloned();
        match self.try_write(path, entry, was.as_ref()) {
            Ok(()) => {
                self.memory.base.insert(path.clone(), entry.clone());
                let list = if was.is_some() { &mut self.report.changed } else { &mut self.report.created };
                list.push(path.to_path_buf());
            }
            Err(Failure::Meanwhile | Failure::NotEmpty) => self.meanwhile(path, entry),
            Err(Failure::Reason(side, reason)) => self.skip(path, side, reason),
        }
    }

    fn try_write(&self, path: &TreePath, entry: &Entry, was: Option<&Entry>) -> Result<(), Failure> {
        let folder = local::open_folder(self.root, path.parent().as_ref())?;
        if was.is_some_and(|it| it.kind == entry.kind) {
            // Only its permissions differ; those of folders come last.
            return if entry.is_folder() { Ok(()) } else { Ok(self.set_mode(path, entry.mode)?) };
        }
        self.put(&folder, path.name(), path, entry, || self.unchanged(&folder, path))
    }

    /// Puts the instance's version of `path` into a folder, if nothing unexpected is there.
    fn put(
        &self,
        folder: &Dir,
        name: &[u8],
        path: &TreePath,
        entry: &Entry,
        free: impl Fn() -> io::Result<bool>,
    ) -> Result<(), Failure> {
        let check = || if free()? { Ok(()) } else { Err(Failure::Meanwhile) };
        match &entry.kind {
            Kind::Folder => match folder.create_dir(os_name(name)) {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    let is_folder = folder.symlink_metadata(os_name(name))?.is_dir();
                    if is_folder { Ok(()) } else { Err(Failure::Meanwhile) }
                }
                Err(error) => Err(error.into()),
            },
            Kind::Link { target } => {
                check()?;
                match self.staging.remove_file(LINK) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
                make_link(self.staging, target)?;
                Ok(self.staging.rename(LINK, folder, os_name(name))?)
            }
            Kind::File { .. } => {
                let Some(index) = self.fetched.get(path).copied() else {
                    return Err(Failure::Reason(Side::Instance, Reason::Changed));
                };
                if let Some(reason) = self.missing.get(index).cloned().flatten() {
                    return Err(Failure::Reason(Side::Instance, reason));
                }
                // Opened to be written, since on Windows only then its time can be set.
                let file = self.staging.open_with(staged(index), OpenOptions::new().read(true).write(true))?;
                finish(&file.into_std(), entry)?;
                check()?;
                match self.staging.rename(staged(index), folder, os_name(name)) {
                    Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                        self.carry(index, folder, name, entry, check)
                    }
                    other => Ok(other?),
                }
            }
        }
    }

    /// A folder below the project's may be on another file system, to which nothing can be renamed.
    fn carry(
        &self,
        index: usize,
        folder: &Dir,
        name: &[u8],
        entry: &Entry,
        check: impl Fn() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match folder.remove_file_or_symlink(os_name(RESERVED)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut to = new_file(folder, &os_name(RESERVED))?;
        io::copy(&mut self.staging.open(staged(index))?, &mut to)?;
        finish(&to.into_std(), entry)?;
        check()?;
        Ok(folder.rename(os_name(RESERVED), folder, os_name(name))?)
    }

    /// Something else is where the instance's version belongs: that stays, and the instance's goes beside it.
    fn meanwhile(&mut self, path: &TreePath, entry: &Entry) {
        let now = local::open_folder(self.root, path.parent().as_ref())
            .and_then(|folder| local::entry(&folder, path.name(), None));
        if now.is_ok_and(|it| it.kind == entry.kind) {
            self.memory.base.insert(path.clone(), entry.clone());
        } else {
            self.keep_aside(path, path);
        }
    }

    fn keep_aside(&mut self, path: &TreePath, root: &TreePath) {
        let Some(entry) = self.instance.entries.get(path).cloned() else { return };
        let Some(aside) = self.aside_of(path, root, &entry) else {
            return self.skip(path, Side::Host, Reason::Name("no name is left to keep it aside"));
        };
        match self.put_aside(path, &aside, &entry) {
            Ok(()) => {
                // From here on the instance's version is one that the host has seen, and answered with its own.
                self.memory.base.insert(path.clone(), entry);
                let kept_as = Some(aside.to_path_buf());
                self.report.conflicts.push(Conflict { path: path.to_path_buf(), kept_as });
            }
            Err(Failure::Meanwhile | Failure::NotEmpty) => self.skip(path, Side::Host, Reason::Changed),
            Err(Failure::Reason(side, reason)) => self.skip(path, side, reason),
        }
    }

    fn put_aside(&self, path: &TreePath, aside: &TreePath, entry: &Entry) -> Result<(), Failure> {
        let mut folder = self.root.try_clone()?;
        let mut parents: Vec<TreePath> = aside.ancestors().collect();
        parents.reverse();
        for parent in parents {
            match folder.create_dir(os_name(parent.name())) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
                _ => {}
            }
            folder = folder.open_dir_nofollow(os_name(parent.name()))?;
        }
        if local::entry(&folder, aside.name(), None).is_ok_and(|it| it.kind == entry.kind) {
            return Ok(());
        }
        let free = || match folder.symlink_metadata(os_name(aside.name())) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
            Ok(_) => Ok(false),
        };
        self.put(&folder, aside.name(), path, entry, free)
    }

    /// A name beside what stays that nothing has, on either side; or has, with the very same content, after a pull that
    /// was interrupted.
    fn aside_of(&mut self, path: &TreePath, root: &TreePath, entry: &Entry) -> Option<TreePath> {
        if let Some(aside) = self.aside.get(root) {
            return Some(path.moved(root, aside));
        }
        let parent = root.parent();
        let folder = local::open_folder(self.root, parent.as_ref()).ok()?;
        for number in 1..10_000_u32 {
            let ending = if number == 1 { String::new() } else { format!("-{number}") };
            let ending = format!(".from-{}{ending}", self.label);
            let stem = &root.name()[..root.name().len().min(NAME_MOST.saturating_sub(ending.len()))];
            let name = [stem, ending.as_bytes()].concat();
            let candidate = TreePath::in_folder(parent.as_ref(), &name)?;
            let taken = self.aside.values().any(|it| *it == candidate)
                || self.instance.state(&candidate, None) != State::Absent
                || self.instance.ignored.contains(&candidate)
                || self.host.ignored.contains(&candidate);
            if taken {
                continue;
            }
            let there = match folder.symlink_metadata(os_name(&name)) {
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                _ => Some(local::entry(&folder, &name, None).ok()),
            };
            let same = there.as_ref().is_some_and(|it| {
                path == root && !entry.is_folder() && it.as_ref().is_some_and(|it| it.kind == entry.kind)
            });
            if there.is_none() || same {
                self.aside.insert(root.clone(), candidate.clone());
                return Some(path.moved(root, &candidate));
            }
        }
        None
    }
}

/// The name of a link in the staging folder, before it is moved.
const LINK: &str = "link";

#[cfg(unix)]
fn make_link(folder: &Dir, target: &[u8]) -> io::Result<()> {
    // Wherever it leads: it is only ever made, and never followed.
    folder.symlink_contents(os_name(target), LINK)
}

#[cfg(not(unix))]
fn make_link(_: &Dir, _: &[u8]) -> io::Result<()> {
    Err(io::Error::from(ErrorKind::Unsupported))
}

/// Gives a file its time and its permissions.
fn finish(file: &std::fs::File, entry: &Entry) -> io::Result<()> {
    let seconds = Duration::from_secs(entry.mtime.unsigned_abs());
    let time = if entry.mtime < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    // A time that this system cannot say is no reason to do without the file.
    drop(file.set_modified(time.unwrap_or_else(SystemTime::now)));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.set_permissions(std::fs::Permissions::from_mode(u32::from(entry.mode)))?;
    }
    Ok(())
}
