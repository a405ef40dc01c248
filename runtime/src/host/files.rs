//! `files`: named roots on the host. Capability `files`.
//!
//! Below a root every step is taken by cap-std, which resolves links itself and never leaves the folder that it has
//! open, whatever is renamed or linked meanwhile. The root `called` is one path that the host itself named: links at its
//! end are followed before its folder is opened, and nothing else leads out of there.

use std::borrow::Cow;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata, OpenOptions};

use crate::bindings::host::pcoder::plugin::files::{Entry, Host};
use crate::bindings::host::pcoder::plugin::types::{Error as WitError, WriteOptions};
use crate::call::CallState;
use crate::capability::files::{CALLED, FileAccess, STATE};
use crate::capability::{Class, Effect};
use crate::error::{Error, code};
use crate::gate::Permit;
use crate::manifest::Access;

/// A folder that is open, and a path below it.
struct Place {
    dir: Dir,
    path: PathBuf,
}

impl CallState {
    fn file(&self, verb: &'static str, access: Access, root: &str, path: &str) -> Result<Permit<FileAccess>, Error> {
        match FileAccess::new(verb, access, root, path) {
            Ok(effect) => self.gate.authorize(effect),
            Err(error) => {
                self.gate.deny_late(Class::Files, verb, error.subject.clone().unwrap_or_default());
                Err(error)
            }
        }
    }

    /// Opens the root of a permit.
    fn place(&self, permit: &Permit<FileAccess>) -> Result<Place, Error> {
        let (root, path) = (permit.effect().root(), permit.effect().path());
        let operation = "files.open";
        if root == CALLED {
            if self.context.called.path.as_deref() != Some(path) {
                return Err(Error::new(code::DENIED, operation, "the call is about another path")
                    .subject(crate::text::for_people(path, 400))
                    .hint("the root `called` is the one path that this call was asked about"));
            }
            let mut absolute = self.absolute(path)?;
            // A link is what is removed; everything else is done to the file behind it.
            if !matches!(Effect::verb(permit.effect()), "remove" | "rename") {
                absolute = behind_links(&absolute)
                    .map_err(|error| Error::io(operation, absolute.display().to_string(), &error))?;
            }
            let parent = absolute.parent().unwrap_or(&absolute);
            let name = absolute.file_name().map_or_else(|| PathBuf::from("."), PathBuf::from);
            // Opened at the nearest folder that exists; what is missing is created below it when that was asked.
            let existing = parent.ancestors().find(|it| it.is_dir()).unwrap_or(parent);
            let rest = parent.strip_prefix(existing).unwrap_or(Path::new(""));
            let dir = Dir::open_ambient_dir(existing, ambient_authority())
                .map_err(|error| Error::io(operation, existing.display().to_string(), &error))?;
            return Ok(Place { dir, path: rest.join(name) });
        }
        let folder = self.context.roots.get(root).ok_or_else(|| {
            Error::new(code::NOT_FOUND, operation, "no folder is set for this root")
                .subject(crate::text::for_people(root, 80))
        })?;
        if root == STATE {
            std::fs::create_dir_all(folder)
                .map_err(|error| Error::io(operation, folder.display().to_string(), &error))?;
        }
        let dir = Dir::open_ambient_dir(folder, ambient_authority())
            .map_err(|error| Error::io(operation, folder.display().to_string(), &error))?;
        Ok(Place { dir, path: PathBuf::from(path) })
    }

    fn absolute(&self, path: &str) -> Result<PathBuf, Error> {
        if let Some(rest) = path.strip_prefix("~/")
            && let Some(home) = &self.context.called.home
        {
            return Ok(home.join(rest));
        }
        let absolute = PathBuf::from(path);
        if absolute.is_absolute() {
            return Ok(absolute);
        }
        Err(Error::new(code::INVALID, "files.open", "a path is absolute or begins with `~/`")
            .subject(crate::text::for_people(path, 400)))
    }

    /// Does one thing with one path, and tells what went wrong as what it is.
    fn with<T>(
        &mut self,
        permit: Permit<FileAccess>,
        work: impl FnOnce(&Place, u64) -> std::io::Result<(T, u64)>,
    ) -> Result<T, WitError> {
        let subject = format!("{}:{}", permit.effect().root(), permit.effect().path());
        let verb = Effect::verb(permit.effect());
        let allowance = self.allowance();
        let result = self.place(&permit).and_then(|place| {
            work(&place, allowance).map_err(|error| {
                if leads_out(&error) {
                    permit.gate().deny_late(Class::Files, verb, subject.clone());
                    return Error::new(code::DENIED, format!("files.{verb}"), "the path leads outside of its root")
                        .subject(&subject)
                        .hint("a link in it points out of the folder that was granted");
                }
                if error.kind() == std::io::ErrorKind::FileTooLarge {
                    return Error::new(code::LIMIT, format!("files.{verb}"), error.to_string()).subject(&subject);
                }
                Error::io(format!("files.{verb}"), &subject, &error)
            })
        });
        let bytes = result.as_ref().map_or(0, |it| it.1);
        let value = permit.finish(bytes, result.map(|it| it.0))?;
        self.charge("files", bytes)?;
        Ok(value)
    }
}

/// What an entry of a list takes beside its name.
const ENTRY: u64 = 64;

/// As many links as Linux follows.
const LINKS: usize = 40;

/// The file that a path leads to. Only for a path that the host itself named on the user's behalf: many people keep
/// their dotfiles in another folder and link to them. A link to what is not there yet leads there all the same, so that
/// writing makes the target and leaves the link, as it does for every program.
fn behind_links(path: &Path) -> std::io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS {
        match std::fs::canonicalize(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            found => return found,
        }
        let Ok(target) = std::fs::read_link(&path) else { return Ok(path) };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    Err(std::io::Error::other("too many links lead on from it"))
}

/// How cap-std says that a path would leave its folder.
fn leads_out(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::PermissionDenied && error.raw_os_error().is_none()
}

fn too_large(what: &str, limit: u64) -> std::io::Error {
    std::io::Error::new(
        std::io::ErrorKind::FileTooLarge,
        format!("{what} is larger than the {} MiB that this call may still move", limit >> 20),
    )
}

/// Opens only a plain file: a pipe would wait for ever, a device could do anything. What was opened is what is looked
/// at, and opening never waits, so it does not help to swap the name meanwhile.
fn open_plain(dir: &Dir, path: &Path, open: &mut OpenOptions) -> std::io::Result<cap_std::fs::File> {
    let other = || std::io::Error::other("it is not a plain file");
    #[cfg(unix)]
    {
        use cap_std::fs::OpenOptionsExt as _;
        open.custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default());
    }
    let file = match dir.open_with(path, open) {
        // A pipe without a reader, a socket.
        #[cfg(unix)]
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => return Err(other()),
        result => result?,
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(other()) }
}

/// On this machine a plugin's files are its user's. Refused before anything is changed.
fn refuse_owner(operation: &'static str, path: &str, options: &WriteOptions) -> Result<(), WitError> {
    if options.owner.is_none() {
        return Ok(());
    }
    let error = Error::new(code::UNSUPPORTED, operation, "files on this machine belong to the user that runs pcoder");
    Err(error.subject(path).hint("leave the owner out").into())
}

fn create_parents(place: &Place, options: &WriteOptions) -> std::io::Result<()> {
    match place.path.parent().filter(|it| !it.as_os_str().is_empty()) {
        Some(parent) if options.create_parents => place.dir.create_dir_all(parent),
        _ => Ok(()),
    }
}

fn open_new(dir: &Dir, path: &Path, mode: Option<u32>) -> std::io::Result<cap_std::fs::File> {
    let mut open = OpenOptions::new();
    open.write(true).create_new(true);
    #[cfg(unix)]
    if let Some(mode) = mode {
        use cap_std::fs::OpenOptionsExt as _;
        open.mode(mode & 0o777);
    }
    #[cfg(not(unix))]
    let _ = mode;
    dir.open_with(path, &open)
}

fn set_mode(dir: &Dir, path: &Path, mode: Option<u32>) -> std::io::Result<()> {
    #[cfg(unix)]
    if let Some(mode) = mode {
        use cap_std::fs::PermissionsExt as _;
        return dir.set_permissions(path, cap_std::fs::Permissions::from_mode(mode & 0o777));
    }
    #[cfg(not(unix))]
    let _ = (dir, path, mode);
    Ok(())
}

fn write_beside_and_rename(place: &Place, content: &[u8], options: &WriteOptions) -> std::io::Result<((), u64)> {
    create_parents(place, options)?;
    let name = place.path.file_name().ok_or_else(|| std::io::Error::other("there is no file name"))?;
    let mut digits = [0_u8; 8];
    getrandom::fill(&mut digits).map_err(|error| std::io::Error::other(error.to_string()))?;
    let beside =
        place.path.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), crate::artifact::hex(&digits)));
    let written = (|| {
        let mut file = open_new(&place.dir, &beside, options.mode)?;
        file.write_all(content)?;
        file.sync_all()?;
        set_mode(&place.dir, &beside, options.mode)?;
        place.dir.rename(&beside, &place.dir, &place.path)
    })();
    if written.is_err() {
        drop(place.dir.remove_file(&beside));
    }
    written.map(|()| ((), content.len() as u64))
}

impl CallState {
    /// The content of a file that this call was asked to write, with what its user put into it.
    fn own_secrets(&self, root: &str, content: Vec<u8>) -> Result<Vec<u8>, Error> {
        if root != CALLED {
            return Ok(content);
        }
        Ok(match self.context.secrets.fill_own(&content)? {
            Cow::Borrowed(_) => content,
            Cow::Owned(filled) => filled,
        })
    }
}

fn entry(name: &str, metadata: &Metadata) -> Entry {
    let kind = if metadata.is_file() {
        "file"
    } else if metadata.is_dir() {
        "directory"
    } else if metadata.is_symlink() {
        "link"
    } else {
        "other"
    };
    Entry {
        name: name.to_owned(),
        kind: kind.to_owned(),
        size: if metadata.is_file() { metadata.len() } else { 0 },
        modified_ms: metadata
            .modified()
            .ok()
            .and_then(|it| it.into_std().duration_since(UNIX_EPOCH).ok())
            .map(crate::audit::millis),
    }
}

impl Host for CallState {
    async fn read(&mut self, root: String, path: String) -> Result<Vec<u8>, WitError> {
        let permit = self.file("read", Access::Read, &root, &path)?;
        let content = self.with(permit, |place, limit| {
            let file = open_plain(&place.dir, &place.path, OpenOptions::new().read(true))?;
            let mut content = Vec::new();
            file.take(limit.saturating_add(1)).read_to_end(&mut content)?;
            let bytes = content.len() as u64;
            if bytes > limit { Err(too_large("the file", limit)) } else { Ok((content, bytes)) }
        })?;
        Ok(self.context.secrets.redact(content))
    }

    async fn write(
        &mut self,
        root: String,
        path: String,
        content: Vec<u8>,
        options: WriteOptions,
    ) -> Result<(), WitError> {
        let content = self.own_secrets(&root, content)?;
        let permit = self.file("write", Access::ReadWrite, &root, &path)?;
        refuse_owner("files.write", &path, &options)?;
        self.with(permit, |place, limit| {
            if content.len() as u64 > limit {
                return Err(too_large("the file", limit));
            }
            create_parents(place, &options)?;
            let mut file = open_plain(&place.dir, &place.path, OpenOptions::new().write(true).create(true))?;
            file.set_len(0)?;
            set_mode(&place.dir, &place.path, options.mode)?;
            file.write_all(&content)?;
            Ok(((), content.len() as u64))
        })
    }

    async fn write_atomic(
        &mut self,
        root: String,
        path: String,
        content: Vec<u8>,
        options: WriteOptions,
    ) -> Result<(), WitError> {
        let content = self.own_secrets(&root, content)?;
        let permit = self.file("write-atomic", Access::ReadWrite, &root, &path)?;
        refuse_owner("files.write-atomic", &path, &options)?;
        self.with(permit, |place, limit| {
            if content.len() as u64 > limit {
                return Err(too_large("the file", limit));
            }
            write_beside_and_rename(place, &content, &options)
        })
    }

    async fn list(&mut self, root: String, path: String) -> Result<Vec<Entry>, WitError> {
        let permit = self.file("list", Access::Read, &root, &path)?;
        self.with(permit, |place, limit| {
            let mut entries = Vec::new();
            let mut bytes = 0;
            for found in place.dir.read_dir(&place.path)? {
                let found = found?;
                let name = found.file_name().to_string_lossy().into_owned();
                bytes += name.len() as u64 + ENTRY;
                if bytes > limit {
                    return Err(too_large("the list of the folder", limit));
                }
                entries.push(entry(&name, &found.metadata()?));
            }
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            Ok((entries, bytes))
        })
    }

    async fn stat(&mut self, root: String, path: String) -> Result<Entry, WitError> {
        let permit = self.file("stat", Access::Read, &root, &path)?;
        self.with(permit, |place, _| {
            let metadata = place.dir.symlink_metadata(&place.path)?;
            let name = place.path.file_name().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
            Ok((entry(&name, &metadata), 0))
        })
    }

    async fn rename(&mut self, root: String, from: String, to: String) -> Result<(), WitError> {
        if root == CALLED && from != to {
            // The other name is not the one that the call is about.
            let subject = crate::text::for_people(&to, 400);
            self.gate.deny_late(Class::Files, "rename", format!("{CALLED}:{subject}"));
            return Err(Error::new(code::DENIED, "files.rename", "the call is about another path")
                .subject(subject)
                .hint("the root `called` is the one path that this call was asked about")
                .into());
        }
        let permit = self.file("rename", Access::ReadWrite, &root, &from)?;
        // The second name is a target of its own: it must not lead out either.
        let target = self.file("rename", Access::ReadWrite, &root, &to)?;
        let result = self.with(permit, |place, _| {
            place.dir.rename(&place.path, &place.dir, Path::new(target.effect().path())).map(|()| ((), 0))
        });
        let noted = result.as_ref().map(|&()| ()).map_err(|error| Error::from(error.clone()));
        drop(target.finish(0, noted));
        result
    }

    async fn remove(&mut self, root: String, path: String, recursive: bool) -> Result<(), WitError> {
        let permit = self.file("remove", Access::ReadWrite, &root, &path)?;
        self.with(permit, |place, _| {
            let metadata = place.dir.symlink_metadata(&place.path)?;
            match (metadata.is_dir(), recursive) {
                (false, _) => place.dir.remove_file(&place.path),
                (true, true) => place.dir.remove_dir_all(&place.path),
                (true, false) => place.dir.remove_dir(&place.path),
            }
            .map(|()| ((), 0))
        })
    }

    async fn create_directory(&mut self, root: String, path: String, mode: Option<u32>) -> Result<(), WitError> {
        let permit = self.file("create-directory", Access::ReadWrite, &root, &path)?;
        self.with(permit, |place, _| {
            place.dir.create_dir_all(&place.path)?;
            set_mode(&place.dir, &place.path, mode)?;
            Ok(((), 0))
        })
    }
}
