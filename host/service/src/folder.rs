//! Where a service's files are, and its lock.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{At as _, Error, Result};
use crate::protocol::{FORMAT, Record};
use crate::socket;

/// How often a lock is looked at that is about to be given back.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// How long somebody who only looks may hold the lock.
const A_LOOK: Duration = Duration::from_secs(2);

/// One service's files.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
}

impl Folder {
    /// # Errors
    /// `Name`.
    pub(crate) fn new(services: &Path, name: &str) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 64 || name.starts_with('-') || !name.bytes().all(plain) {
            return Err(Error::Name { name: name.to_owned() });
        }
        Ok(Self { path: services.join(name) })
    }

    pub(crate) fn record_path(&self) -> PathBuf {
        self.path.join("service.json")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// What its supervisor wrote down; nothing where none ever did.
    pub(crate) fn record(&self) -> Result<Option<Record>> {
        let path = self.record_path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path, error)),
        };
        #[derive(serde::Deserialize)]
        struct Version {
            format: u32,
        }
        // Whatever a newer one has in it, it has this.
        if let Ok(Version { format }) = serde_json::from_slice(&bytes)
            && format > FORMAT
        {
            return Err(Error::Newer { path, found: format, known: FORMAT });
        }
        // It is written whole; what cannot be understood is not what a supervisor wrote.
        serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::io("read", &path, error.into()))
    }

    /// What another supervisor wrote down. The lock must be held.
    pub(crate) fn forget_record(&self) -> Result<()> {
        let path = self.record_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path, error)),
            _ => Ok(()),
        }
    }

    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        let path = self.record_path();
        let bytes = serde_json::to_vec(record).map_err(|error| Error::io("write", &path, error.into()))?;
        Ok(pcoder_state::write_atomic(&path, &bytes)?)
    }

    /// Makes the folder, which is its user's alone: its log may hold anything, and who can open the lock can hold it.
    pub(crate) fn make(&self) -> Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.path).at("make", &self.path)
    }

    /// The lock of a service that runs, for its supervisor. None when another one has it.
    pub(crate) fn lock(&self) -> Result<Option<Held>> {
        let path = self.path.join("lock");
        let started = Instant::now();
        loop {
            self.make()?;
            let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let file = match opened {
                Ok(file) => file,
                // Somebody is removing the folder.
                Err(error) if error.kind() == io::ErrorKind::NotFound && started.elapsed() < A_LOOK => continue,
                Err(error) => return Err(Error::io("open", &path, error)),
            };
            match file.try_lock() {
                // A folder that was removed meanwhile has taken its lock along: this one would be nobody's.
                Ok(()) if is_still(&file, &path) => return Ok(Some(Held { _file: file })),
                Ok(()) => std::thread::sleep(LOOK_AGAIN),
                Err(TryLockError::WouldBlock) if started.elapsed() < A_LOOK && !self.is_held()? => {
                    std::thread::sleep(LOOK_AGAIN);
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path, error)),
            }
        }
    }

    /// Whether its supervisor is there. Whoever asks shares the lock for a moment with others who ask.
    pub(crate) fn is_held(&self) -> Result<bool> {
        let path = self.path.join("lock");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io("open", &path, error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &path, error)),
        }
    }

    /// Removes all of it. Nobody can start it meanwhile.
    ///
    /// # Errors
    /// `Running`.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        let held = self.lock()?.ok_or_else(|| Error::Running { name: name.to_owned() })?;
        // Out of the way in one step; only then piece by piece.
        let away = self.path.with_file_name(format!(".{name}-{}", uuid::Uuid::new_v4().simple()));
        let moved = fs::rename(&self.path, &away);
        // Windows moves no folder in which a file is open.
        drop(held);
        if moved.is_err() {
            fs::rename(&self.path, &away).at("remove", &self.path)?;
        }
        fs::remove_dir_all(&away).at("remove", &away)
    }
}

/// A lock. It ends with its process.
#[derive(Debug)]
pub(crate) struct Held {
    _file: File,
}

#[cfg(unix)]
fn is_still(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let (Ok(open), Ok(there)) = (file.metadata(), fs::metadata(path)) else { return false };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

/// No folder is moved or removed while a file in it is open.
#[cfg(not(unix))]
fn is_still(_: &File, _: &Path) -> bool {
    true
}

/// A service's socket: a path in `sockets`, or a pipe's name, which are the same for two services in no two places.
///
/// # Errors
/// `LongPath`.
pub(crate) fn socket(sockets: &Path, folder: &Folder) -> Result<OsString> {
    socket::named(sockets, folder.path.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_a_folder_can_have_everywhere() {
        for name in ["vm-1", "a", "0"] {
            assert!(Folder::new(Path::new("/s"), name).is_ok(), "{name}");
        }
        for name in ["", "..", "a/b", "a\\b", "A", "-a", "a b", "nul:", &"x".repeat(65)] {
            assert!(matches!(Folder::new(Path::new("/s"), name), Err(Error::Name { .. })), "{name}");
        }
    }

    #[test]
    fn one_holds_the_lock_and_who_looks_does_not_keep_it_from_others() {
        let services = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(services.path(), "a").expect("a name");
        assert!(!folder.is_held().expect("asked"));
        let held = folder.lock().expect("asked").expect("free");
        assert!(folder.is_held().expect("asked"));
        assert!(folder.lock().expect("asked").is_none());
        assert!(matches!(folder.remove("a"), Err(Error::Running { .. })));
        drop(held);
        assert!(!folder.is_held().expect("asked"));
        folder.remove("a").expect("removed");
        assert_eq!(fs::read_dir(services.path()).expect("a folder").count(), 0);
        folder.remove("a").expect("one that is not there is no error");
    }

    #[test]
    fn a_newer_record_is_said_to_be_one() {
        let services = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(services.path(), "a").expect("a name");
        assert!(folder.record().expect("asked").is_none());
        fs::create_dir(&folder.path).expect("a folder");
        fs::write(folder.record_path(), r#"{"format":9,"more":1}"#).expect("written");
        assert!(matches!(folder.record(), Err(Error::Newer { found: 9, .. })));
        fs::write(folder.record_path(), "{").expect("written");
        assert!(matches!(folder.record(), Err(Error::Io { .. })));
    }

    #[test]
    fn a_socket_has_a_short_path_of_its_own() {
        let (one, other) = (Folder { path: "/data/services/a".into() }, Folder { path: "/data/services/b".into() });
        let short = Path::new("/run/user/1000/pcoder");
        assert_ne!(socket(short, &one).expect("short"), socket(short, &other).expect("short"));
        if cfg!(unix) {
            let long = PathBuf::from("/").join("x".repeat(100));
            assert!(matches!(socket(&long, &one), Err(Error::LongPath { .. })));
        }
    }
}
