//! What a sync says about what it did.

use std::path::PathBuf;

/// A side of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This machine.
    Host,
    /// The machine behind [`crate::Remote`].
    Instance,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Host => "on this host",
            Self::Instance => "on the instance",
        })
    }
}

/// Why something was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// A socket, a pipe or a device.
    Special,
    /// It could not be read; with what the system said, where that is known.
    Unreadable(String),
    /// It changed or vanished while it was read. The next sync sees it as it is then.
    Changed,
    /// Its name is impossible on the other side, or too long.
    Name(&'static str),
    /// A symbolic link, and this system's are of another kind.
    Link,
    /// It could not be written or removed; with what the system said, where that is known.
    Refused(String),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Special => f.write_str("it is a socket, a pipe or a device"),
            Self::Unreadable(why) => write!(f, "it cannot be read: {why}"),
            Self::Changed => f.write_str("it changed while it was read"),
            Self::Name(why) => f.write_str(why),
            Self::Link => f.write_str("it is a symbolic link, and this system has none that are the same"),
            Self::Refused(why) => write!(f, "it cannot be written: {why}"),
        }
    }
}

/// Something that was left as it is, on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Below the folder.
    pub path: PathBuf,
    /// Where the reason is.
    pub side: Side,
    /// Why.
    pub reason: Reason,
}

/// Something that both sides changed, each in its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Below the folder.
    pub path: PathBuf,
    /// Where the instance's version is now, below the folder on this host. None when nothing had to be kept aside: a push
    /// leaves both sides as they are, and of a change and a deletion the change stays in its place.
    pub kept_as: Option<PathBuf>,
}

/// What a push did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Files and links that were written on the instance.
    pub files: u64,
    /// The sizes of these files together.
    pub bytes: u64,
    /// Bytes that were sent to the instance, packed.
    pub sent: u64,
    /// Files, links and folders that were deleted on the instance.
    pub deleted: u64,
    /// What both sides changed. It was left as it is on both, and a pull keeps the instance's version aside; but what
    /// one side deleted and the other changed is as it was changed, on the instance after this, on the host after a pull.
    pub conflicts: Vec<Conflict>,
    /// What was left out.
    pub skipped: Vec<Skipped>,
    /// Set when there was no usable record of the last sync. Then nothing is deleted, and what differs is a conflict.
    pub without_base: bool,
}

/// What a pull did. Paths are below the folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pulled {
    /// What was there and is now as on the instance.
    pub changed: Vec<PathBuf>,
    /// What is new on this host, without what conflicts kept aside.
    pub created: Vec<PathBuf>,
    /// What is gone from this host.
    pub deleted: Vec<PathBuf>,
    /// What both sides changed.
    pub conflicts: Vec<Conflict>,
    /// What was left out.
    pub skipped: Vec<Skipped>,
    /// Bytes that came from the instance, packed.
    pub received: u64,
    /// Set when there was no usable record of the last sync. Then nothing is deleted, and what differs is a conflict.
    pub without_base: bool,
}

/// What takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Files on this host are packed for the instance.
    Packing,
    /// Files from the instance are unpacked.
    Unpacking,
}

/// How far it is. Bytes of files, before they are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Bytes that are done.
    pub done: u64,
    /// Bytes altogether.
    pub total: u64,
}
