//! The archive of a push: what comes, and what is to be done with it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use cap_std::fs::Dir;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::describe::{self, Description};
use crate::error::{Error, Result};
use crate::listing;
use crate::local;
use crate::path::{RESERVED, TreePath};
use crate::plan::{Plan, Step};
use crate::remote::quoted;
use crate::report::Reason;
use crate::stream::{self, Stream};
use crate::tree::{Entry, Kind, Sum, Tree};

/// Up to this size a file is read as a whole before its size is told, so that one that changes is sent as it was.
const READ_WHOLE: u64 = 8 << 20;
/// The most names that are moved by one process, and the bytes that they may have: any system takes that many arguments.
const MOVE_MOST: usize = 400;
const MOVE_BYTES: usize = 24 << 10;

/// Bytes of files that were packed, as often as some were.
pub(crate) type Tick<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// An archive, ready to be sent.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) script: String,
    pub(crate) sent: BTreeMap<TreePath, Sent>,
    pub(crate) deleted: BTreeSet<TreePath>,
    pub(crate) skipped: Vec<(TreePath, Reason)>,
}

/// Something that is sent.
#[derive(Debug)]
pub(crate) struct Sent {
    /// As it was when it was read.
    pub(crate) entry: Entry,
    /// Whether it is in the archive. Else only its permissions change.
    pub(crate) moved: bool,
}

/// Lists of names, by the name of the list.
#[derive(Default)]
struct Lists {
    early_files: Vec<TreePath>,
    early_folders: Vec<TreePath>,
    late_files: Vec<TreePath>,
    late_folders: Vec<TreePath>,
    old: Vec<(TreePath, Sum)>,
    links: Vec<(TreePath, Vec<u8>)>,
    none: Vec<TreePath>,
    drop: Vec<TreePath>,
    /// Folders in which something moves.
    touched: BTreeSet<TreePath>,
    moves: BTreeMap<Option<TreePath>, Vec<TreePath>>,
    modes: BTreeMap<TreePath, u16>,
}

/// Packs what a push sends. The archive is made in memory; files go into it as they are read.
///
/// # Errors
/// `Broken`. A file that cannot be read is left out, and said.
pub(crate) fn pack(
    root: &Dir,
    plan: &Plan,
    description: &Description,
    to: &str,
    lister: Option<&str>,
    tick: Tick<'_>,
) -> Result<Packed> {
    let (how, instance) = (description.packing, &description.tree);
    let comes = plan.steps.iter().filter_map(|(path, step)| match step {
        Step::Write(entry) if !is_there(instance, path, entry) => Some(stream::weight(entry.size())),
        Step::Write(_) | Step::Delete => None,
    });
    let sink = Stream::new(how, comes.sum()).map_err(broken)?;
    let mut packer = Packer {
        root,
        instance,
        builder: Builder::new(sink),
        folder: None,
        lists: Lists::default(),
        made: BTreeSet::new(),
        sent: BTreeMap::new(),
        skipped: Vec::new(),
        tick,
        done: 0,
    };
    packer.all(plan).map_err(broken)?;
    let script = packer.script(how, to, lister);
    let bytes = packer.builder.into_inner().and_then(Stream::finish).map_err(broken)?;
    let deleted = plan.steps.iter().filter(|(_, it)| **it == Step::Delete).map(|(path, _)| path.clone()).collect();
    Ok(Packed { bytes, script, sent: packer.sent, deleted, skipped: packer.skipped })
}

fn broken(error: io::Error) -> Error {
    Error::Broken { message: format!("cannot make an archive: {error}") }
}

/// Whether only permissions can differ.
fn is_there(instance: &Tree, path: &TreePath, entry: &Entry) -> bool {
    instance.entries.get(path).is_some_and(|it| it.kind == entry.kind)
}

struct Packer<'a> {
    root: &'a Dir,
    instance: &'a Tree,
    builder: Builder<Stream>,
    /// The folder that was opened last.
    folder: Option<(Option<TreePath>, Dir)>,
    lists: Lists,
    /// Folders that are in the archive, with all that is in them.
    made: BTreeSet<TreePath>,
    sent: BTreeMap<TreePath, Sent>,
    skipped: Vec<(TreePath, Reason)>,
    tick: Tick<'a>,
    done: u64,
}

impl Packer<'_> {
    fn all(&mut self, plan: &Plan) -> io::Result<()> {
        self.item(b"t", EntryType::Directory, 0o755, 0, &[])?;
        for (path, step) in &plan.steps {
            match step {
                Step::Write(entry) => self.write(path, entry)?,
                Step::Delete => self.delete(path, plan),
            }
        }
        self.control()
    }

    fn write(&mut self, path: &TreePath, entry: &Entry) -> io::Result<()> {
        let there = self.instance.entries.get(path);
        if is_there(self.instance, path, entry) {
            self.lists.modes.insert(path.clone(), entry.mode);
            self.sent.insert(path.clone(), Sent { entry: entry.clone(), moved: false });
            return Ok(());
        }
        if self.builder.get_mut().begins_with(stream::weight(entry.size()))? {
            // The one before may be unpacked later.
            self.folders_above(path)?;
        }
        let name = [b"t/", path.as_bytes()].concat();
        let sent = match &entry.kind {
            Kind::Folder => {
                // Writable until everything in it is in place.
                self.item(&name, EntryType::Directory, 0o755, 0, &[])?;
                if entry.mode != 0o755 {
                    self.lists.modes.insert(path.clone(), entry.mode);
                }
                entry.clone()
            }
            Kind::Link { target } => {
                self.link(&name, target)?;
                entry.clone()
            }
            Kind::File { .. } => match self.file(path, &name, entry)? {
                Some(sent) => sent,
                None => return Ok(()),
            },
        };
        self.place(path, &sent, there);
        self.sent.insert(path.clone(), Sent { entry: sent, moved: true });
        Ok(())
    }

    fn folders_above(&mut self, path: &TreePath) -> io::Result<()> {
        self.item(b"t", EntryType::Directory, 0o755, 0, &[])?;
        let folders: Vec<TreePath> = path.ancestors().collect();
        for folder in folders.iter().rev() {
            self.item(&[b"t/", folder.as_bytes()].concat(), EntryType::Directory, 0o755, 0, &[])?;
        }
        Ok(())
    }

    /// Says where something in the archive goes, and what is expected to be there.
    fn place(&mut self, path: &TreePath, entry: &Entry, there: Option<&Entry>) {
        let parent = path.parent();
        let comes_with_its_folder = parent.as_ref().is_some_and(|it| self.made.contains(it));
        if entry.is_folder() {
            self.made.insert(path.clone());
        }
        if comes_with_its_folder {
            return;
        }
        match there.map(|it| &it.kind) {
            None => self.lists.none.push(path.clone()),
            Some(Kind::Folder) => self.lists.early_folders.push(path.clone()),
            Some(_) if entry.is_folder() => self.lists.early_files.push(path.clone()),
            Some(_) => {}
        }
        self.expect(path, there);
        self.lists.touched.extend(parent.clone());
        self.lists.moves.entry(parent).or_default().push(path.clone());
    }

    fn expect(&mut self, path: &TreePath, there: Option<&Entry>) {
        match there.map(|it| &it.kind) {
            Some(Kind::File { sum, .. }) => self.lists.old.push((path.clone(), *sum)),
            Some(Kind::Link { target }) => self.lists.links.push((path.clone(), target.clone())),
            Some(Kind::Folder) | None => {}
        }
    }

    fn delete(&mut self, path: &TreePath, plan: &Plan) {
        let there = self.instance.entries.get(path);
        self.expect(path, there);
        self.lists.touched.extend(path.parent());
        let replaced = |it: &TreePath| matches!(plan.steps.get(it), Some(Step::Write(entry)) if !entry.is_folder());
        let early = path.ancestors().any(|it| replaced(&it));
        let list = match (early, there.is_some_and(Entry::is_folder)) {
            (true, true) => &mut self.lists.early_folders,
            (true, false) => &mut self.lists.early_files,
            (false, true) => &mut self.lists.late_folders,
            (false, false) => &mut self.lists.late_files,
        };
        list.push(path.clone());
    }

    fn file(&mut self, path: &TreePath, name: &[u8], entry: &Entry) -> io::Result<Option<Entry>> {
        let (file, metadata) = match self.open(path) {
            Ok(opened) => opened,
            Err(error) => {
                self.skipped.push((path.clone(), local::reason(&error)));
                return Ok(None);
            }
        };
        let (mode, mtime) = (local::mode(&metadata, Some(entry)), local::stamp(&metadata).mtime.0);
        let sent = |size, sum| Some(Entry { kind: Kind::File { size, sum }, mode, mtime });
        if metadata.len() <= READ_WHOLE {
            let mut content = Vec::new();
            if let Err(error) = file.take(READ_WHOLE * 2).read_to_end(&mut content) {
                self.skipped.push((path.clone(), local::reason(&error)));
                return Ok(None);
            }
            self.item(name, EntryType::Regular, mode, mtime, &content)?;
            self.progress(content.len());
            return Ok(sent(content.len() as u64, Sum::of(&content)));
        }
        let size = metadata.len();
        self.header(name, EntryType::Regular, mode, mtime, size)?;
        let mut exactly = Exactly { file, left: size, sum: Sha256::new(), failed: None };
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let read = exactly.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            self.builder.get_mut().write_all(&buffer[..read])?;
            self.progress(read);
        }
        self.pad(size)?;
        if let Some(reason) = exactly.failed {
            // It is in the archive, filled up with zeros.
            self.lists.drop.push(path.clone());
            self.skipped.push((path.clone(), reason));
            return Ok(None);
        }
        Ok(sent(size, Sum(exactly.sum.finalize().into())))
    }

    fn open(&mut self, path: &TreePath) -> io::Result<(cap_std::fs::File, cap_std::fs::Metadata)> {
        let parent = path.parent();
        let folder = match self.folder.take() {
            Some((known, folder)) if known == parent => folder,
            _ => local::open_folder(self.root, parent.as_ref())?,
        };
        let opened = local::open_file(&folder, path.name());
        self.folder = Some((parent, folder));
        opened
    }

    fn progress(&mut self, bytes: usize) {
        self.done = self.done.saturating_add(bytes as u64);
        (self.tick)(self.done);
    }

    fn link(&mut self, name: &[u8], target: &[u8]) -> io::Result<()> {
        if target.len() > 100 {
            self.long(EntryType::GNULongLink, target)?;
        }
        self.named(name, EntryType::Symlink, 0o777, 0, 0, target)
    }

    fn item(&mut self, name: &[u8], kind: EntryType, mode: u16, mtime: i64, content: &[u8]) -> io::Result<()> {
        self.header(name, kind, mode, mtime, content.len() as u64)?;
        self.builder.get_mut().write_all(content)?;
        self.pad(content.len() as u64)
    }

    fn header(&mut self, name: &[u8], kind: EntryType, mode: u16, mtime: i64, size: u64) -> io::Result<()> {
        self.named(name, kind, mode, mtime, size, b"")
    }

    /// Writes a header with a name as it is. The crate's own functions would make `a//b` of a link's target `a/b`.
    fn named(&mut self, name: &[u8], kind: EntryType, mode: u16, mtime: i64, size: u64, link: &[u8]) -> io::Result<()> {
        if name.len() > 100 {
            self.long(EntryType::GNULongName, name)?;
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(u32::from(mode));
        header.set_mtime(u64::try_from(mtime).unwrap_or_default());
        header.set_size(size);
        let gnu = header.as_gnu_mut().ok_or(io::ErrorKind::InvalidData)?;
        let (name, link) = (&name[..name.len().min(100)], &link[..link.len().min(100)]);
        gnu.name[..name.len()].copy_from_slice(name);
        gnu.linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        self.builder.get_mut().write_all(header.as_bytes())
    }

    fn long(&mut self, kind: EntryType, text: &[u8]) -> io::Result<()> {
        let content = [text, b"\0"].concat();
        self.item(b"././@LongLink", kind, 0o644, 0, &content)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = usize::try_from(size % 512).unwrap_or_default();
        self.builder.get_mut().write_all(&[0; 512][..(512 - rest) % 512])
    }

    /// The lists, at the end: by then it is known which files could be read.
    fn control(&mut self) -> io::Result<()> {
        let mut lists = std::mem::take(&mut self.lists);
        // What is deepest is deleted first, and gets its permissions first.
        for list in [&mut lists.early_folders, &mut lists.late_folders] {
            list.sort();
            list.reverse();
        }
        let staged = |path: &TreePath| [RESERVED, b"/t/", path.as_bytes()].concat();
        let named = |paths: &[TreePath]| joined(paths.iter().map(here));
        let mut files: Vec<(String, Vec<u8>)> = vec![
            ("early-files".to_owned(), named(&lists.early_files)),
            ("early-folders".to_owned(), named(&lists.early_folders)),
            ("late-files".to_owned(), named(&lists.late_files)),
            ("late-folders".to_owned(), named(&lists.late_folders)),
            ("old".to_owned(), joined(lists.old.iter().map(|(path, _)| here(path)))),
            ("links".to_owned(), joined(lists.links.iter().map(|(path, _)| here(path)))),
            ("none".to_owned(), named(&lists.none)),
            ("drop".to_owned(), joined(lists.drop.iter().map(staged))),
        ];
        let mut open = Vec::new();
        for path in &lists.touched {
            let Some(there) = self.instance.entries.get(path).filter(|it| it.is_folder()) else { continue };
            if there.mode & 0o300 != 0o300 {
                open.push(here(path));
                let gone = lists.late_folders.contains(path) || lists.early_folders.contains(path);
                if !gone {
                    lists.modes.entry(path.clone()).or_insert(there.mode);
                }
            }
        }
        files.push(("open".to_owned(), joined(open.into_iter())));
        let mut count = 0;
        for (folder, paths) in &lists.moves {
            let mut rest = paths.as_slice();
            while !rest.is_empty() {
                let mut names = vec![folder.as_ref().map_or_else(|| b".".to_vec(), here)];
                let mut bytes = 0;
                while let Some((path, others)) = rest.split_first() {
                    if names.len() > MOVE_MOST || bytes > MOVE_BYTES {
                        break;
                    }
                    names.push(staged(path));
                    bytes += path.as_bytes().len() + 16;
                    rest = others;
                }
                files.push((format!("move.{count:07}"), joined(names.into_iter())));
                count += 1;
            }
        }
        let mut modes = lists.modes.iter().rev().peekable();
        let mut count = 0;
        while let Some((path, mode)) = modes.next() {
            let mut names = vec![here(path)];
            while let Some((path, _)) = modes.next_if(|(_, it)| *it == mode) {
                names.push(here(path));
            }
            files.push((format!("mode.{count:07}.{mode:o}"), joined(names.into_iter())));
            count += 1;
        }
        self.item(b"c", EntryType::Directory, 0o755, 0, &[])?;
        for (name, content) in files {
            self.item(format!("c/{name}").as_bytes(), EntryType::Regular, 0o644, 0, &content)?;
        }
        // tar takes an archive that ends between two things for a whole one.
        self.item(b"c/end", EntryType::Regular, 0o644, 0, &[])?;
        self.lists = lists;
        Ok(())
    }

    fn script(&mut self, how: describe::Packing, root: &str, lister: Option<&str>) -> String {
        let sums: String = self.lists.old.iter().map(|(_, sum)| format!("{sum}\n")).collect();
        let links = joined(self.lists.links.iter().map(|(_, target)| target.clone()));
        let digest = |of: &[u8]| if of.is_empty() { String::new() } else { Sum::of(of).to_string() };
        let set = |name: &str, value: &str| format!("{name}={}\n", quoted(value));
        set("root", root)
            + &set("packer", how.program())
            + &set("parts", &self.builder.get_mut().parts())
            + &set("sums", include_str!("scripts/sums.sh"))
            + &set("old", &digest(sums.as_bytes()))
            + &set("links", &digest(&links))
            + &lister.map_or_else(|| set("listed", ""), |it| set("listed", "yes") + it)
            + include_str!("scripts/apply.sh")
    }
}

/// A path as the scripts name it.
pub(crate) fn here(path: &TreePath) -> Vec<u8> {
    [b"./", path.as_bytes()].concat()
}

fn joined(names: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    names.flat_map(|it| [it, vec![0]].concat()).collect()
}

/// As many bytes as were promised, whatever happens to the file.
struct Exactly<R> {
    file: R,
    left: u64,
    sum: Sha256,
    failed: Option<Reason>,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..most];
        if most == 0 {
            return Ok(0);
        }
        let mut read = 0;
        while self.failed.is_none() && read == 0 {
            match self.file.read(buffer) {
                Ok(0) => self.failed = Some(Reason::Changed),
                Ok(some) => read = some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.failed = Some(local::reason(&error)),
            }
        }
        if self.failed.is_some() {
            buffer.fill(0);
            read = most;
        }
        self.sum.update(&buffer[..read]);
        self.left -= read as u64;
        Ok(read)
    }
}

/// What the script did not manage.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What is still there.
    pub(crate) not_deleted: BTreeSet<TreePath>,
    pub(crate) no_mode: BTreeSet<TreePath>,
    /// What is still in the staging folder, with folders that only held what was moved.
    pub(crate) not_moved: BTreeSet<TreePath>,
    /// What is in the folder by now, and when that was, by the instance's clock; where it can tell quickly.
    pub(crate) listed: Option<((i64, i64), Vec<u8>)>,
}

impl Outcome {
    /// # Errors
    /// `Garbled`.
    pub(crate) fn parse(output: &[u8]) -> Result<Self> {
        let mut outcome = Self::default();
        let mut rest = output;
        let mut item = || {
            let at = rest.iter().position(|it| *it == 0)?;
            let (item, after) = rest.split_at(at);
            rest = &after[1..];
            Some(item)
        };
        let lists = [&mut outcome.not_deleted, &mut outcome.no_mode, &mut outcome.not_moved];
        for ((list, end), folder) in lists.into_iter().zip([b"D", b"M", b"E"]).zip([b"./", b"./", b"t/"]) {
            loop {
                let item = item().ok_or_else(|| Error::garbled("a script's answer is not complete"))?;
                match item.strip_prefix(folder).and_then(TreePath::new) {
                    Some(path) => _ = list.insert(path),
                    None if item == end => break,
                    None if end == b"E" && item == b"t" => {}
                    None => return Err(Error::garbled("a script's answer names something unknown")),
                }
            }
        }
        let time = item().and_then(|it| listing::time(it.strip_prefix(b"L")?));
        if let Some(time) = time {
            // Everything is done by now; without it the next sync takes longer.
            outcome.listed = listing::unpacked(rest).ok().map(|listing| (time, listing));
        }
        Ok(outcome)
    }
}
