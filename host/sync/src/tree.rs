//! What is in a folder, on either side or in the base.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::path::TreePath;
use crate::report::Reason;

/// SHA-256 of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Sum(pub(crate) [u8; 32]);

impl Sum {
    pub(crate) fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// From 64 hexadecimal digits.
    pub(crate) fn parse(hex: &[u8]) -> Option<Self> {
        let digit = |it: u8| char::from(it).to_digit(16).and_then(|it| u8::try_from(it).ok());
        if hex.len() != 64 {
            return None;
        }
        let mut sum = [0; 32];
        for (byte, pair) in sum.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(sum))
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|it| write!(f, "{it:02x}"))
    }
}

impl std::fmt::Debug for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    File {
        /// Bytes.
        size: u64,
        sum: Sum,
    },
    Link {
        target: Vec<u8>,
    },
    Folder,
}

/// What is at a path, and what is said about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// The nine permission bits. Links have none of their own: 0o777.
    pub(crate) mode: u16,
    /// Seconds since 1970. It travels with a file, and is never looked at to find out what changed.
    pub(crate) mtime: i64,
}

impl Entry {
    /// Whether nothing is to be done to make one of the other.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.mode == other.mode
    }

    pub(crate) fn is_folder(&self) -> bool {
        self.kind == Kind::Folder
    }

    /// The size of a file.
    pub(crate) fn size(&self) -> u64 {
        if let Kind::File { size, .. } = self.kind { size } else { 0 }
    }
}

/// What both sides had after the last sync.
pub(crate) type Base = BTreeMap<TreePath, Entry>;

/// One side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) entries: BTreeMap<TreePath, Entry>,
    /// Where something is of which not enough could be found out, with all that may be inside of it. Nothing is done
    /// there, and nothing there counts as deleted.
    pub(crate) unknown: BTreeMap<TreePath, Reason>,
    /// What is ignored, by the topmost path.
    pub(crate) ignored: BTreeSet<TreePath>,
    /// Set when the listing itself failed somewhere: then nothing that is missing counts as deleted.
    pub(crate) incomplete: bool,
}

/// What is known of one path of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State<'a> {
    Absent,
    Is(&'a Entry),
    Unknown,
}

impl Tree {
    pub(crate) fn state(&self, path: &TreePath, base: Option<&Entry>) -> State<'_> {
        if let Some(entry) = self.entries.get(path) {
            return State::Is(entry);
        }
        let beneath = |it: &TreePath| self.unknown.contains_key(it);
        if beneath(path) || (!self.unknown.is_empty() && path.ancestors().any(|it| beneath(&it))) {
            return State::Unknown;
        }
        if self.incomplete && base.is_some() { State::Unknown } else { State::Absent }
    }

    /// Whether the reason is known why something is missing that may be there.
    pub(crate) fn is_explained(&self) -> bool {
        self.unknown.values().any(|it| matches!(it, Reason::Unreadable(_)))
    }

    /// Takes out what is at a path and inside of it, and says why.
    pub(crate) fn forget(&mut self, path: &TreePath, reason: Reason) {
        remove(&mut self.entries, path);
        self.unknown.insert(path.clone(), reason);
    }

    /// Puts right what no tree can be, as one that changes while it is listed: something inside of what is no folder.
    pub(crate) fn settle(&mut self) {
        let torn: BTreeSet<TreePath> = self
            .entries
            .keys()
            .filter_map(|path| path.ancestors().find(|it| !self.entries.get(it).is_some_and(Entry::is_folder)))
            .filter(|it| !self.unknown.contains_key(it))
            .collect();
        for path in torn {
            self.forget(&path, Reason::Changed);
        }
    }
}

/// Takes what is at a path, and what is inside of it, out of a map.
pub(crate) fn remove<T>(map: &mut BTreeMap<TreePath, T>, path: &TreePath) {
    map.remove(path);
    let (from, to) = path.inside();
    let inside: Vec<TreePath> = map.range(from..to).map(|(it, _)| it.clone()).collect();
    for path in inside {
        map.remove(&path);
    }
}
