//! What the instance says of its folder without reading a file, and what is known by that.
//!
//! A file that looks as it did when its content became known is not read again. It looks different once its status
//! changed (ctime), which nobody can set; so a file whose size and time were put back is read all the same. Two things
//! have to be seen to: the clock of file systems is coarse, so what was changed just before it was listed is not known
//! ([`settled`]); and who has a file in its memory writes to it without the kernel's knowledge until that was written
//! to the disk, so the instance does that first, and only file systems count that have a disk (`describe.sh`).

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::path::TreePath;
use crate::report::Reason;
use crate::state::{COARSE, Stamp, settled};
use crate::tree::{Entry, Kind, Sum, Tree};

/// The most bytes of a listing.
const LONGEST: u64 = 1 << 30;
/// What is said of one thing beside its name and where it leads, at most: two times and two numbers.
const WORDS: u64 = 160;

/// How far a file's time may be behind the clock: the kernel takes that of its last tick, a hundredth of a second ago.
const BEHIND: Duration = Duration::from_millis(50);

/// What was last seen of the instance's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// The instance's words.
    listing: Vec<u8>,
    /// The content of those files that look different after a change.
    sums: BTreeMap<TreePath, Sum>,
    /// When that was, by the instance's clock, in seconds and nanoseconds since 1970.
    at: (i64, i64),
}

/// A file whose content is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) size: u64,
    pub(crate) sum: Sum,
    /// When it was changed, in whole seconds, if it was written with this time just now: then a later change to it has
    /// another one, and its status may be from the same moment.
    pub(crate) written: Option<i64>,
}

impl Seen {
    /// What a listing says, with the content of files that was found out after it, and what was known before it.
    ///
    /// # Errors
    /// `Garbled`.
    pub(crate) fn new(
        listing: Vec<u8>,
        at: (i64, i64),
        read: &BTreeMap<TreePath, Read>,
        before: Option<&Self>,
        limit: u64,
    ) -> Result<Self> {
        let parsed = Listing::parse(&listing, limit)?;
        let known = before.map(Self::known).transpose()?.unwrap_or_default();
        let mut sums = BTreeMap::new();
        for (path, item) in &parsed.items {
            let Item::File { stamp, device, .. } = item else { continue };
            // Of another file system it is not known whether a change shows.
            if *device != parsed.device {
                continue;
            }
            let old = known.get(path).filter(|(it, _)| it == stamp).map(|(_, sum)| *sum);
            let new = read.get(path).filter(|it| it.size == stamp.size).filter(|it| {
                settled(stamp.mtime, at.0)
                    && match it.written {
                        Some(written) => stamp.mtime == (written, 0),
                        None => settled(stamp.ctime, at.0),
                    }
            });
            // A change that did not show: it may do so again.
            if let (Some(old), Some(read)) = (old, read.get(path))
                && old != read.sum
            {
                continue;
            }
            if let Some(sum) = old.or_else(|| new.map(|it| it.sum)) {
                sums.insert(path.clone(), sum);
            }
        }
        Ok(Self { listing, sums, at })
    }

    fn known(&self) -> Result<BTreeMap<TreePath, (Stamp, Sum)>> {
        let mut known = BTreeMap::new();
        for (path, item) in Listing::parse(&self.listing, u64::MAX)?.items {
            if let (Item::File { stamp, .. }, Some(sum)) = (item, self.sums.get(&path)) {
                known.insert(path, (stamp, *sum));
            }
        }
        Ok(known)
    }

    /// The digest of what the instance says in brief, when a folder with the same one has the same content.
    pub(crate) fn digest(&self) -> Option<Sum> {
        let parsed = Listing::parse(&self.listing, u64::MAX).ok()?;
        let is_known =
            |(path, item): (&TreePath, &Item)| !matches!(item, Item::File { .. }) || self.sums.contains_key(path);
        (!parsed.failed && parsed.items.iter().all(is_known)).then(|| Sum::of(&parsed.brief))
    }

    /// The time from which on a file was changed of which nothing is known; or a little before, as a file's time is a
    /// little behind the clock. For `find`, in seconds since 1970.
    pub(crate) fn since(&self) -> String {
        let parsed = Listing::parse(&self.listing, u64::MAX).map(|it| it.items).unwrap_or_default();
        let files = || {
            parsed
                .iter()
                .filter_map(|(path, it)| if let Item::File { stamp, .. } = it { Some((path, stamp)) } else { None })
        };
        let is_coarse = files().all(|(_, it)| it.ctime.1 == 0);
        let listed = before(self.at, if is_coarse { Duration::from_secs(COARSE.unsigned_abs() + 1) } else { BEHIND });
        let unknown =
            files().filter(|(path, _)| !self.sums.contains_key(*path)).map(|(_, it)| before(it.ctime, BEHIND));
        let (seconds, nanoseconds) = unknown.fold(listed, Ord::min);
        format!("{seconds}.{nanoseconds:09}")
    }

    /// The tree, with what was just read; and whether there is a file of which nothing is known.
    ///
    /// # Errors
    /// `Garbled`, `Failed`.
    pub(crate) fn tree(&self, read: &Tree) -> Result<(Tree, bool)> {
        let parsed = Listing::parse(&self.listing, u64::MAX)?;
        if parsed.closed {
            return Err(Error::Failed { doing: "list the folder", code: 1, message: "permission denied".to_owned() });
        }
        let (mut tree, mut unread) = (Tree::default(), false);
        for (path, item) in parsed.items {
            let entry = |kind, mode| Entry { kind, mode, mtime: 0 };
            let found = match item {
                Item::File { mode, stamp, .. } => match (self.sums.get(&path), read.entries.get(&path)) {
                    (_, Some(entry)) => Ok(entry.clone()),
                    (Some(sum), None) => {
                        let kind = Kind::File { size: stamp.size, sum: *sum };
                        Ok(Entry { kind, mode, mtime: stamp.mtime.0 })
                    }
                    (None, None) => {
                        let known = read.unknown.get(&path);
                        unread |= known.is_none();
                        Err(known.cloned().unwrap_or(Reason::Changed))
                    }
                },
                Item::Folder { mode } => Ok(entry(Kind::Folder, mode)),
                Item::Link { target } => Ok(entry(Kind::Link { target }, 0o777)),
                Item::Unknown(reason) => Err(reason),
                Item::Ignored => {
                    tree.ignored.insert(path);
                    continue;
                }
            };
            match found {
                Ok(entry) => _ = tree.entries.insert(path, entry),
                Err(reason) => _ = tree.unknown.insert(path, reason),
            }
        }
        tree.incomplete = parsed.failed && !tree.is_explained();
        Ok((tree, unread))
    }
}

fn before((seconds, nanoseconds): (i64, i64), by: Duration) -> (i64, i64) {
    let seconds = seconds.saturating_sub(i64::try_from(by.as_secs()).unwrap_or(i64::MAX));
    let nanoseconds = nanoseconds - i64::from(by.subsec_nanos());
    if nanoseconds < 0 { (seconds.saturating_sub(1), nanoseconds + 1_000_000_000) } else { (seconds, nanoseconds) }
}

enum Item {
    File { mode: u16, stamp: Stamp, device: u64 },
    Folder { mode: u16 },
    Link { target: Vec<u8> },
    Unknown(Reason),
    Ignored,
}

struct Listing {
    /// What `brief` says of the same folder.
    brief: Vec<u8>,
    items: BTreeMap<TreePath, Item>,
    /// The folder's file system.
    device: u64,
    /// Whether something could not be listed.
    failed: bool,
    /// Whether the folder itself cannot be listed.
    closed: bool,
}

/// The part of a text that is a listing.
///
/// # Errors
/// `Garbled`.
pub(crate) fn split(text: &[u8]) -> Result<(&[u8], &[u8])> {
    let mut rest = text;
    loop {
        let (first, after) = until_nul(rest)?;
        if first.starts_with(b"E ") {
            return Ok(text.split_at(text.len() - after.len()));
        }
        rest = until_nul(after)?.1;
    }
}

/// A listing that may be packed.
///
/// # Errors
/// `Garbled`.
pub(crate) fn unpacked(bytes: &[u8]) -> Result<Vec<u8>> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes.to_vec());
    }
    let mut text = Vec::new();
    let read = MultiGzDecoder::new(bytes).take(LONGEST).read_to_end(&mut text);
    read.map_err(|error| Error::garbled(format!("its listing cannot be unpacked: {error}")))?;
    if text.len() as u64 == LONGEST { Err(Error::garbled("its listing is too long")) } else { Ok(text) }
}

fn until_nul(text: &[u8]) -> Result<(&[u8], &[u8])> {
    let at = text.iter().position(|it| *it == 0).ok_or_else(|| Error::garbled("its listing has no end"))?;
    Ok((&text[..at], &text[at + 1..]))
}

impl Listing {
    /// One of at most so many things.
    fn parse(text: &[u8], limit: u64) -> Result<Self> {
        let mut listing = Self { brief: Vec::new(), items: BTreeMap::new(), device: 0, failed: false, closed: false };
        let mut rest = text;
        loop {
            let (said, after) = until_nul(rest)?;
            if let Some(status) = said.strip_prefix(b"E ") {
                listing.failed = status != b"0";
                listing.brief.extend([said, b"\0"].concat());
                return if after.is_empty() { Ok(listing) } else { Err(Error::garbled("its listing goes on")) };
            }
            let (target, after) = until_nul(after)?;
            rest = after;
            let wrong = || Error::garbled(format!("it lists a file as `{}`", said.escape_ascii()));
            let words = match said.first() {
                Some(b'f') => 8,
                Some(b'r' | b'l') => 4,
                Some(b'd') => 4,
                _ => 2,
            };
            let words: Vec<&[u8]> = said.splitn(words, |it| *it == b' ').collect();
            let (item, name) = match words.as_slice() {
                [b"i", name] => (Item::Ignored, *name),
                [b"u", name] => {
                    listing.closed |= *name == b".";
                    (Item::Unknown(Reason::Unreadable("permission denied".to_owned())), *name)
                }
                [b"r", _, _, name] => (Item::Unknown(Reason::Unreadable("permission denied".to_owned())), *name),
                [b"o", name] => (Item::Unknown(Reason::Special), *name),
                [b"d", device, mode, name] => {
                    if *name == b"." {
                        listing.device = number(device).ok_or_else(wrong)?;
                    }
                    (Item::Folder { mode: permissions(mode).ok_or_else(wrong)? }, *name)
                }
                [b"l", _, _, name] if target.is_empty() => (Item::Unknown(Reason::Changed), *name),
                [b"l", _, _, name] => (Item::Link { target: target.to_vec() }, *name),
                [b"f", ctime, inode, device, mode, size, mtime, name] => {
                    let item = || {
                        let (size, inode) = (number(size)?, number(inode)?);
                        let stamp = Stamp { size, mtime: time(mtime)?, ctime: time(ctime)?, inode };
                        Some(Item::File { mode: permissions(mode)?, stamp, device: number(device)? })
                    };
                    (item().ok_or_else(wrong)?, *name)
                }
                _ => return Err(wrong()),
            };
            let brief = match words.as_slice() {
                [b"f" | b"r" | b"l", ctime, inode, ..] => [*ctime, b" ", *inode, b" ", name, b"\0"].concat(),
                [b"d", _, mode, _] => [b"d ", *mode, b" ", name, b"\0"].concat(),
                _ => [said, b"\0"].concat(),
            };
            listing.brief.extend(brief);
            if name == b"." {
                continue;
            }
            let path = name
                .strip_prefix(b"./")
                .and_then(TreePath::new)
                .ok_or_else(|| Error::garbled(format!("it names a file `{}`", name.escape_ascii())))?;
            if listing.items.insert(path.clone(), item).is_some() {
                return Err(Error::garbled(format!("it lists {path:?} twice")));
            }
            if listing.items.len() as u64 > limit {
                return Err(Error::garbled("its listing has more than it said"));
            }
        }
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn permissions(text: &[u8]) -> Option<u16> {
    u16::from_str_radix(std::str::from_utf8(text).ok()?, 8).ok().map(|it| it & 0o777)
}

/// Seconds and nanoseconds from `SECONDS.FRACTION`.
pub(crate) fn time(text: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    // A `date` that knows no fraction says something else there.
    Some((seconds.parse().ok()?, digits.parse().unwrap_or_default()))
}

/// How many bytes a listing of a tree has at most.
pub(crate) fn at_most(tree: &Tree) -> u64 {
    let target = |it: &Entry| if let Kind::Link { target } = &it.kind { target.len() } else { 0 };
    let entries = tree.entries.iter().map(|(path, it)| path.as_bytes().len() + target(it));
    let others = tree.unknown.keys().chain(&tree.ignored).map(|it| it.as_bytes().len());
    entries.chain(others).map(|it| it as u64 + WORDS).sum()
}

/// The files of a tree, all of which was read after a listing.
pub(crate) fn read(tree: &Tree) -> BTreeMap<TreePath, Read> {
    let file = |(path, entry): (&TreePath, &Entry)| match entry.kind {
        Kind::File { size, sum } => Some((path.clone(), Read { size, sum, written: None })),
        _ => None,
    };
    tree.entries.iter().filter_map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &[u8] =
        b"d 5 755 .\0\0d 5 700 ./d\0\0f 101.5000000007 9 5 4644 3 100.5 ./d/a b\nc\0\0l 1.5 8 ./l\0to x\0\
        i ./.git\0\0u ./closed\0\0r 1.5 7 ./secret\0\0o ./pipe\0\0E 1\0";

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).expect("a path")
    }

    fn known(written: Option<i64>) -> BTreeMap<TreePath, Read> {
        [(path("d/a b\nc"), Read { size: 3, sum: Sum::of(b"abc"), written })].into()
    }

    fn seen(at: i64, read: &BTreeMap<TreePath, Read>, before: Option<&Seen>) -> Seen {
        Seen::new(LISTING.to_vec(), (at, 0), read, before, 10).expect("a listing")
    }

    #[test]
    fn a_listing_is_understood() {
        let (tree, unread) = seen(104, &known(None), None).tree(&Tree::default()).expect("a tree");
        assert!(!unread && !tree.incomplete, "what could not be listed is known");
        let file = Entry { kind: Kind::File { size: 3, sum: Sum::of(b"abc") }, mode: 0o644, mtime: 100 };
        assert_eq!(tree.entries[&path("d/a b\nc")], file);
        assert_eq!(tree.entries[&path("d")].mode, 0o700);
        assert_eq!(tree.entries[&path("l")].kind, Kind::Link { target: b"to x".to_vec() });
        assert_eq!(tree.ignored, [path(".git")].into());
        let denied = Reason::Unreadable("permission denied".to_owned());
        let unknown = [(path("closed"), denied.clone()), (path("secret"), denied), (path("pipe"), Reason::Special)];
        assert_eq!(tree.unknown, unknown.into());
    }

    #[test]
    fn a_file_is_known_once_a_change_would_show() {
        let unread = |it: &Seen| it.tree(&Tree::default()).expect("a tree").1;
        assert!(unread(&seen(103, &known(None), None)), "its status changed less than two seconds before");
        let first = seen(104, &known(None), None);
        assert!(!unread(&first));
        assert!(!unread(&seen(90, &BTreeMap::new(), Some(&first))), "it looks as it did when it was known");
        assert!(unread(&seen(104, &known(Some(100)), None)), "it was written with the time 100, and has another");
        let other = [(path("d/a b\nc"), Read { size: 4, sum: Sum::of(b"abcd"), written: None })].into();
        assert!(unread(&seen(104, &other, None)), "it changed after it was listed");
        assert_eq!(first.since(), "103.950000000");
        assert_eq!(seen(103, &known(None), None).since(), "101.450000000", "the file is not known");
    }

    #[test]
    fn a_listing_that_is_not_whole_or_not_honest_is_refused() {
        for wrong in [
            &b""[..],
            b"E 0",
            b"d 5 755 ./a\0\0",
            b"d 5 755 ./a\0\0d 5 755 ./a\0\0E 0\0",
            b"d 5 755 /etc\0\0E 0\0",
            b"d 5 755 ./../a\0\0E 0\0",
            b"d 5 999 ./a\0\0E 0\0",
            b"f 1 1 5 644 x 1 ./a\0\0E 0\0",
            b"f 1 1 5 644 1 ./a\0\0E 0\0",
            b"x ./a\0\0E 0\0",
            b"E 0\0more",
        ] {
            let seen = Seen::new(wrong.to_vec(), (0, 0), &BTreeMap::new(), None, 10);
            assert!(matches!(seen, Err(Error::Garbled { .. })), "{}", wrong.escape_ascii());
        }
        let closed = Seen::new(b"u .\0\0E 1\0".to_vec(), (0, 0), &BTreeMap::new(), None, 10).expect("a listing");
        assert!(matches!(closed.tree(&Tree::default()), Err(Error::Failed { .. })));
    }
}
