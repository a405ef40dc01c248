//! The tree on this host. No link is followed, whatever is renamed meanwhile: each part of a path is opened in its folder.

use std::io::{self, ErrorKind, Read};
use std::path::Path;

use cap_fs_ext::{DirExt as _, FollowSymlinks, OpenOptionsFollowExt as _, OpenOptionsSyncExt as _};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, Metadata, OpenOptions};
use sha2::{Digest as _, Sha256};

use crate::error::{At as _, Error, Result};
use crate::path::{TreePath, name_bytes, os_name};
use crate::report::{Reason, Side};
use crate::rules::{IGNORE_FILE, Rules};
use crate::state::{Known, Memory, Stamp};
use crate::tree::{Entry, Kind, Sum, Tree};

/// The longest path that is synced, so that both sides have room for a folder before it. POSIX systems allow 4096 bytes.
const LONGEST: usize = 3500;
/// A list of patterns is read as a whole.
const IGNORE_FILE_MOST: u64 = 1 << 20;

/// What a walk found.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) tree: Tree,
    pub(crate) rules: Rules,
    /// With the base that it was given, and what was seen of the instance.
    pub(crate) memory: Memory,
    /// Whether a file was read that looked as it did when it was read before.
    pub(crate) read_again: bool,
}

/// # Errors
/// `Io`.
pub(crate) fn open_root(path: &Path) -> Result<Dir> {
    Dir::open_ambient_dir(path, ambient_authority()).at("open", path)
}

/// Opens a folder in the tree.
pub(crate) fn open_folder(root: &Dir, path: Option<&TreePath>) -> io::Result<Dir> {
    let mut folder = root.try_clone()?;
    for part in path.into_iter().flat_map(TreePath::parts) {
        folder = folder.open_dir_nofollow(os_name(part))?;
    }
    Ok(folder)
}

/// Opens a regular file in its folder, to be read.
pub(crate) fn open_file(folder: &Dir, name: &[u8]) -> io::Result<(File, Metadata)> {
    let mut options = OpenOptions::new();
    // Should a pipe be there by now, opening it must not wait for somebody who writes.
    options.read(true).follow(FollowSymlinks::No).nonblock(true);
    let file = folder.open_with(os_name(name), &options)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::from(ErrorKind::InvalidInput));
    }
    Ok((file, metadata))
}

/// The sum of all that a reader gives.
pub(crate) fn sum_of(mut reader: impl Read) -> io::Result<(u64, Sum)> {
    let (mut sum, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok((size, Sum(sum.finalize().into()))),
            Ok(read) => {
                sum.update(&buffer[..read]);
                size += u64::try_from(read).unwrap_or(u64::MAX);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(unix)]
pub(crate) fn stamp(metadata: &Metadata) -> Stamp {
    use cap_std::fs::MetadataExt as _;
    Stamp {
        size: metadata.len(),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        ctime: (metadata.ctime(), metadata.ctime_nsec()),
        inode: metadata.ino(),
    }
}

#[cfg(not(unix))]
pub(crate) fn stamp(metadata: &Metadata) -> Stamp {
    let time = |it: io::Result<cap_std::time::SystemTime>| {
        let since = it.ok().and_then(|it| it.into_std().duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
        (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), i64::from(since.subsec_nanos()))
    };
    Stamp { size: metadata.len(), mtime: time(metadata.modified()), ctime: time(metadata.created()), inode: 0 }
}

/// The permission bits. Where there are none, what the last sync said, or what is usual.
pub(crate) fn mode(metadata: &Metadata, old: Option<&Entry>) -> u16 {
    #[cfg(unix)]
    let mode = {
        use cap_std::fs::MetadataExt as _;
        let _ = old;
        u16::try_from(metadata.mode() & 0o777).unwrap_or_default()
    };
    #[cfg(not(unix))]
    let mode = {
        let same = old.filter(|it| it.is_folder() == metadata.is_dir());
        same.map_or(if metadata.is_dir() { 0o755 } else { 0o644 }, |it| it.mode)
    };
    mode
}

/// What stands at a path, read through to the end. An error for what is of no kind that is synced.
pub(crate) fn entry(folder: &Dir, name: &[u8], old: Option<&Entry>) -> io::Result<Entry> {
    let metadata = folder.symlink_metadata(os_name(name))?;
    if metadata.is_symlink() {
        return link(folder, name);
    }
    if metadata.is_dir() {
        return Ok(Entry { kind: Kind::Folder, mode: mode(&metadata, old), mtime: stamp(&metadata).mtime.0 });
    }
    let (file, metadata) = open_file(folder, name)?;
    let (size, sum) = sum_of(file)?;
    Ok(Entry { kind: Kind::File { size, sum }, mode: mode(&metadata, old), mtime: stamp(&metadata).mtime.0 })
}

fn link(folder: &Dir, name: &[u8]) -> io::Result<Entry> {
    let target = folder.read_link_contents(os_name(name))?;
    let target = name_bytes(target.as_os_str()).ok_or(ErrorKind::InvalidData)?;
    Ok(Entry { kind: Kind::Link { target }, mode: 0o777, mtime: 0 })
}

/// Why something could not be read.
pub(crate) fn reason(error: &io::Error) -> Reason {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidInput => Reason::Changed,
        _ => Reason::Unreadable(error.to_string()),
    }
}

/// Adds the patterns of the file that a folder has for them, or of the root's.
///
/// # Errors
/// `Io`, `Pattern`.
pub(crate) fn patterns(root: &Dir, path: &Path, folder: Option<&TreePath>, rules: &mut Rules) -> Result<()> {
    let file = folder.map(TreePath::to_path_buf).unwrap_or_default().join(IGNORE_FILE);
    let mut content = Vec::new();
    // A link is followed inside of the folder: a list that is not read would send what it ignores.
    match root.open(&file).and_then(|it| it.take(IGNORE_FILE_MOST).read_to_end(&mut content)) {
        Ok(_) => rules.add(folder, &String::from_utf8_lossy(&content)).map_err(|error| match error {
            Error::Pattern { path: Some(file), message } => Error::Pattern { path: Some(path.join(file)), message },
            error => error,
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("read", &path.join(file), error)),
    }
}

/// Walks a folder. A file that looks as it did when it was last read is not read again.
///
/// # Errors
/// `Io` for the folder itself, `Pattern`, `TooMany`.
pub(crate) fn scan(root: &Dir, path: &Path, rules: Rules, memory: Memory, limit: u64, now: i64) -> Result<Scan> {
    let mut walk = Walk {
        root,
        path,
        limit,
        found: 0,
        old: memory,
        scan: Scan {
            tree: Tree::default(),
            rules,
            memory: Memory { scanned: now, ..Memory::default() },
            read_again: false,
        },
        folders: vec![None],
    };
    while let Some(folder) = walk.folders.pop() {
        walk.folder(folder.as_ref())?;
    }
    let Walk { mut scan, old, .. } = walk;
    (scan.memory.base, scan.memory.instance) = (old.base, old.instance);
    Ok(scan)
}

struct Walk<'a> {
    root: &'a Dir,
    path: &'a Path,
    limit: u64,
    found: u64,
    old: Memory,
    scan: Scan,
    folders: Vec<Option<TreePath>>,
}

impl Walk<'_> {
    fn folder(&mut self, path: Option<&TreePath>) -> Result<()> {
        let opened = open_folder(self.root, path).and_then(|it| Ok((it.entries()?, it)));
        let (entries, folder) = match (opened, path) {
            (Ok(opened), _) => opened,
            (Err(error), Some(path)) => {
                self.scan.tree.forget(path, reason(&error));
                return Ok(());
            }
            (Err(error), None) => return Err(Error::io("list", self.path, error)),
        };
        patterns(self.root, self.path, path, &mut self.scan.rules)?;
        for entry in entries {
            let entry = match (entry, path) {
                (Ok(entry), _) => entry,
                (Err(error), Some(path)) => {
                    self.scan.tree.forget(path, reason(&error));
                    return Ok(());
                }
                (Err(error), None) => return Err(Error::io("list", self.path, error)),
            };
            self.found += 1;
            if self.found > self.limit {
                return Err(Error::TooMany { side: Side::Host, found: self.found, limit: self.limit });
            }
            // A name that no POSIX system can have is nothing that could be there too.
            let Some(child) = name_bytes(&entry.file_name()).and_then(|name| TreePath::in_folder(path, &name)) else {
                tracing::warn!(name = %entry.file_name().display(), "a name that is not text is not synced");
                continue;
            };
            self.child(&folder, child);
        }
        Ok(())
    }

    fn child(&mut self, folder: &Dir, path: TreePath) {
        let (old, scan) = (self.old.base.get(&path), &mut self.scan);
        let metadata = match folder.symlink_metadata(os_name(path.name())) {
            Ok(metadata) => metadata,
            Err(error) => return scan.tree.forget(&path, reason(&error)),
        };
        if scan.rules.ignores(&path, metadata.is_dir()) {
            scan.tree.ignored.insert(path);
            return;
        }
        if path.as_bytes().len() > LONGEST {
            return scan.tree.forget(&path, Reason::Name("its path is too long"));
        }
        let found = if metadata.is_dir() {
            self.folders.push(Some(path.clone()));
            Ok(Entry { kind: Kind::Folder, mode: mode(&metadata, old), mtime: stamp(&metadata).mtime.0 })
        } else if metadata.is_symlink() {
            if cfg!(unix) { link(folder, path.name()).map_err(|it| reason(&it)) } else { Err(Reason::Link) }
        } else if metadata.is_file() {
            self.file(folder, &path, &metadata).map_err(|it| reason(&it))
        } else {
            Err(Reason::Special)
        };
        match found {
            Ok(entry) => {
                self.scan.tree.entries.insert(path, entry);
            }
            Err(reason) => self.scan.tree.forget(&path, reason),
        }
    }

    fn file(&mut self, folder: &Dir, path: &TreePath, metadata: &Metadata) -> io::Result<Entry> {
        let old = self.old.base.get(path);
        let seen = stamp(metadata);
        let (entry, known, read) = match self.old.content(path, &seen) {
            Some(sum) => {
                let kind = Kind::File { size: seen.size, sum };
                (Entry { kind, mode: mode(metadata, old), mtime: seen.mtime.0 }, Known { stamp: seen, sum }, false)
            }
            None => {
                let (file, metadata) = open_file(folder, path.name())?;
                let (size, sum) = sum_of(file)?;
                // The stamp is from before it was read: should it change meanwhile, it will look different.
                let seen = stamp(&metadata);
                let entry = Entry { kind: Kind::File { size, sum }, mode: mode(&metadata, old), mtime: seen.mtime.0 };
                (entry, Known { stamp: seen, sum }, true)
            }
        };
        self.scan.read_again |= read && self.old.files.get(path) == Some(&known);
        self.scan.memory.files.insert(path.clone(), known);
        Ok(entry)
    }
}
