//! What can go wrong, said so that a person can mend it.

use std::io;
use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::qemu::{OLDEST, Version};

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and with which program, image or file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no QEMU for these guests.
    #[error("there is no QEMU for {} guests", arch.qemu())]
    QemuMissing {
        /// The guests' processor.
        arch: Arch,
        /// The host's system.
        os: String,
    },
    /// There is one, and it damages guests.
    #[error("QEMU {version} is too old: it takes {OLDEST} or newer")]
    QemuTooOld {
        /// The guests' processor.
        arch: Arch,
        /// The program.
        program: PathBuf,
        /// Its version.
        version: Version,
        /// The host's system.
        os: String,
    },
    /// There is one, and it does not say what it is.
    #[error("this QEMU cannot be used: {detail}")]
    QemuBroken {
        /// The program.
        program: PathBuf,
        /// What it did.
        detail: String,
    },
    /// There is no such image.
    #[error("there is no image `{name}`")]
    ImageMissing {
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// An image that is not what its `guest.json` says.
    #[error("the image `{name}` is damaged: {detail}")]
    ImageDamaged {
        /// The name.
        name: String,
        /// What is wrong.
        detail: String,
    },
    /// A folder that holds no image.
    #[error("it is not an image: {detail}")]
    NotAnImage {
        /// The folder.
        path: PathBuf,
        /// Why not.
        detail: String,
    },
    /// Not a name that an image can have.
    #[error("an image's name is made of a-z, 0-9, `.`, `_` and `-`, at most 64, and begins with a letter or a digit")]
    Name {
        /// What was given.
        name: String,
    },
    /// Something is missing, and nobody said where it is to be had.
    #[error("nothing says where {what} can be had")]
    NoManifest {
        /// What is missing.
        what: String,
    },
    /// A manifest that cannot be used.
    #[error("the manifest cannot be used: {detail}")]
    Manifest {
        /// Where it is.
        place: String,
        /// What is wrong.
        detail: String,
    },
    /// A manifest that has something else.
    #[error("the manifest has no {what}")]
    NotInManifest {
        /// Where it is.
        place: String,
        /// What was looked for.
        what: String,
        /// What it has.
        known: Vec<String>,
    },
    /// The network would be needed.
    #[error("it takes the network, which was not to be used")]
    Offline {
        /// The address.
        url: String,
    },
    /// A file did not come.
    #[error("`{file}` was not downloaded: {source}")]
    Download {
        /// The file.
        file: String,
        /// Why.
        source: Box<pcoder_engines::Error>,
    },
    /// A file with other bytes than a manifest says.
    #[error("`{file}` is not what its manifest says: {detail}")]
    Wrong {
        /// The file.
        file: String,
        /// What differs.
        detail: String,
    },
    /// An archive that will not be unpacked.
    #[error("the archive `{file}` is refused: {detail}")]
    Archive {
        /// The file.
        file: String,
        /// What is in it.
        detail: String,
    },
    /// The disk is full, or has not enough room to begin.
    #[error("not enough room: {}", room(*needed, *free))]
    DiskFull {
        /// Where.
        path: PathBuf,
        /// Bytes that are needed, if known.
        needed: Option<u64>,
        /// Bytes that are free, if known.
        free: Option<u64>,
    },
    /// The caller cancelled.
    #[error("it was cancelled")]
    Cancelled {
        /// What was being done.
        subject: String,
    },
    /// The system refused.
    #[error("cannot {doing} it: {source}")]
    Io {
        /// The verb.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A lock could not be taken.
    #[error(transparent)]
    State(#[from] pcoder_state::Error),
}

impl Error {
    /// A short stable word for programs, of those that the engine store's errors have too.
    pub fn code(&self) -> &'static str {
        match self {
            Self::QemuMissing { .. } | Self::ImageMissing { .. } | Self::NoManifest { .. } => "not-installed",
            Self::QemuTooOld { .. } => "unsupported",
            Self::QemuBroken { .. } => "smoke",
            Self::ImageDamaged { .. } | Self::Wrong { .. } | Self::Archive { .. } => "integrity",
            Self::NotAnImage { .. } | Self::Name { .. } | Self::Manifest { .. } | Self::NotInManifest { .. } => {
                "invalid"
            }
            Self::Offline { .. } => "offline",
            Self::Download { source, .. } => source.code(),
            Self::DiskFull { .. } => "disk-full",
            Self::Cancelled { .. } => "cancelled",
            Self::State(pcoder_state::Error::Busy { .. }) => "locked",
            Self::Io { .. } | Self::State(_) => "io",
        }
    }

    /// What it is about: a program, an image, a file, an address.
    pub fn subject(&self) -> String {
        match self {
            Self::QemuMissing { arch, .. } => format!("qemu-system-{}", arch.qemu()),
            Self::QemuTooOld { program: path, .. }
            | Self::QemuBroken { program: path, .. }
            | Self::NotAnImage { path, .. }
            | Self::DiskFull { path, .. }
            | Self::Io { path, .. } => path.display().to_string(),
            Self::ImageMissing { name, .. } | Self::ImageDamaged { name, .. } | Self::Name { name } => name.clone(),
            Self::NoManifest { what: subject } | Self::Cancelled { subject } => subject.clone(),
            Self::Manifest { place, .. } | Self::NotInManifest { place, .. } => place.clone(),
            Self::Offline { url } => url.clone(),
            Self::Download { source, .. } => source.subject(),
            Self::Wrong { file, .. } | Self::Archive { file, .. } => file.clone(),
            Self::State(error) => error.path().display().to_string(),
        }
    }

    /// What the user can do. What is typed stands in backticks.
    pub fn hint(&self) -> String {
        match self {
            Self::QemuMissing { arch, os } => how_to_get(*arch, os),
            Self::QemuTooOld { arch, os, .. } => {
                format!("older ones damage guests whose processor they emulate. {}", how_to_get(*arch, os))
            }
            Self::QemuBroken { .. } => "start it by hand with `--version` and see what it says; or name another one: \
                 `PCODER_QEMU=/path/to/qemu-system-x86_64`"
                .to_owned(),
            Self::ImageMissing { known, .. } if known.is_empty() => "`pcoder runtime bootstrap` brings one".to_owned(),
            Self::ImageMissing { known, .. } => format!(
                "images are {}; `pcoder runtime images` shows them, and `pcoder runtime bootstrap` brings another one",
                quoted(known)
            ),
            Self::ImageDamaged { .. } => "`pcoder runtime bootstrap --force` brings it again".to_owned(),
            Self::NotAnImage { .. } => {
                "name the folder that `cargo xtask guest-image` made, which has a guest.json; or one with a cloud's image, its \
                 kernel and its initial file system, as docs/runbook.md says"
                    .to_owned()
            }
            Self::Name { .. } => "give it another name; `pcoder runtime images` shows those that there are".to_owned(),
            Self::NoManifest { .. } => {
                "say it with `pcoder runtime bootstrap --manifest FILE`, which may be an `https://` address too, or \
                 with PCODER_VM_MANIFEST, or put a `vm-manifest.json` into the data folder; an image that was built \
                 here is taken with `pcoder runtime bootstrap --image FOLDER`"
                    .to_owned()
            }
            Self::Manifest { .. } => "docs/runbook.md has the form of a manifest".to_owned(),
            Self::NotInManifest { known, .. } if known.is_empty() => "name another manifest".to_owned(),
            Self::NotInManifest { known, .. } => format!("it has {}; or name another manifest", quoted(known)),
            Self::Offline { .. } => {
                "run it without `--offline`; or download what the manifest names elsewhere, put it \
                 beside the manifest and write the files' names instead of addresses into it"
                    .to_owned()
            }
            Self::Download { source, .. } if source.code() == "integrity" => nothing_kept(),
            Self::Download { source, .. } => source.hint().unwrap_or_else(|| "try it again".to_owned()),
            Self::Wrong { .. } => nothing_kept(),
            Self::Archive { .. } => {
                "nothing of it was kept; whoever made the manifest has to make another archive".to_owned()
            }
            Self::DiskFull { .. } => {
                "free some room: `pcoder runtime images` shows images that may go; then run the same command again"
                    .to_owned()
            }
            Self::Cancelled { .. } => {
                "run the same command again: it goes on with what was downloaded already".to_owned()
            }
            Self::Io { source, path, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                format!("check who owns `{}` and its permissions", path.display())
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::FileTooLarge => {
                "its file system holds no file of that length, as FAT32 none of 4 GiB: set `PCODER_HOME` to a folder on \
                 another one, or format the stick with exFAT"
                    .to_owned()
            }
            Self::Io { .. } => "look at what is at that path, and whether its disk works; then try again".to_owned(),
            Self::State(error) => error.hint(),
        }
    }

    /// Is it the system's "no room left"?
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.to_path_buf(), needed: None, free: pcoder_engines::free_space(path) }
            }
            _ => Self::Io { doing, path: path.to_path_buf(), source },
        }
    }

    /// What the engine store's network said of a file.
    pub(crate) fn download(file: &str, source: pcoder_engines::Error) -> Self {
        match source {
            pcoder_engines::Error::Cancelled { .. } => Self::Cancelled { subject: file.to_owned() },
            pcoder_engines::Error::DiskFull { path, needed, free } => Self::DiskFull { path, needed, free },
            pcoder_engines::Error::WrongFile { detail, .. } => Self::Wrong { file: file.to_owned(), detail },
            source => Self::Download { file: file.to_owned(), source: Box::new(source) },
        }
    }
}

fn nothing_kept() -> String {
    "nothing of it was kept. Try again; if it stays, the file was changed there or on the way, or the manifest is of \
     another version: get both from the same place"
        .to_owned()
}

/// How a system's users get a QEMU.
fn how_to_get(arch: Arch, os: &str) -> String {
    let package = match arch {
        Arch::X86_64 => "qemu-system-x86",
        Arch::Aarch64 => "qemu-system-arm",
    };
    let or = "or `pcoder runtime bootstrap`, where its manifest names one for this system";
    match os {
        "linux" => format!(
            "`sudo apt-get install {package}` on Debian and Ubuntu, `sudo apt-get install -t bookworm-backports \
             {package}` on Debian 12, `sudo dnf install qemu-system-{}` on Fedora; {or}",
            match arch {
                Arch::X86_64 => "x86-core",
                Arch::Aarch64 => "aarch64-core",
            }
        ),
        "macos" => format!("`brew install qemu`; {or}"),
        "windows" => format!("`winget install SoftwareFreedomConservancy.QEMU`; {or}"),
        _ => format!("install QEMU {OLDEST} or newer; {or}"),
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn room(needed: Option<u64>, free: Option<u64>) -> String {
    // Rounded against the user, so that what is shown as enough is enough.
    let needs = |bytes: u64| format!("{} MB needed", bytes.div_ceil(1_000_000));
    let has = |bytes: u64| format!("{} MB free", bytes / 1_000_000);
    match (needed, free) {
        (Some(needed), Some(free)) => format!("{}, {}", needs(needed), has(free)),
        (Some(needed), None) => needs(needed),
        (None, Some(free)) => format!("the disk is full, {}", has(free)),
        (None, None) => "the disk is full".to_owned(),
    }
}

/// Names the file in an I/O error.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::io(doing, path, source))
    }
}
