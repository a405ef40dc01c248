//! Where a portable folder is put: made beside its place, then moved there by one rename. Killed at any moment, an
//! export leaves either nothing at that place, or what was there, or the whole new folder.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pcoder_engines::rename_folder;
use pcoder_runtime::Error;
use pcoder_runtime::error::code;
use pcoder_state::Lock;
use tempfile::TempDir;

use super::MANIFEST;
use super::files::io_error;
use crate::layout::PORTABLE_MARKER;

const OPERATION: &str = "bundle.export";
/// What the folder is called that an export is making.
const MAKING: &str = ".pcoder-bundle-";
/// In there, locked as long as the export lives.
const ALIVE: &str = "exporting.lock";
/// A folder without that lock that is older was left by an export that was killed before it had one.
const YOUNG: Duration = Duration::from_secs(600);

/// What there is at the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum There {
    Nothing,
    EmptyFolder,
    Bundle,
}

/// A place for a portable folder.
#[derive(Debug)]
pub(super) struct Place {
    folder: PathBuf,
    parent: PathBuf,
    pub(super) there: There,
}

impl Place {
    /// Looks at a folder, which is absolute. Nothing is made.
    pub(super) fn look(folder: &Path) -> Result<Self, Error> {
        // What a link leads to is replaced, not the link.
        let folder = match fs::symlink_metadata(folder) {
            Ok(data) if data.is_symlink() => fs::canonicalize(folder).map_err(|error| io_error(folder, &error))?,
            _ => folder.to_path_buf(),
        };
        let shown = folder.display().to_string();
        let disk = || {
            Error::new(code::INVALID, OPERATION, "a bundle is a folder on a disk, not the disk's own folder")
                .subject(&shown)
                .hint("name a folder in it: `pcoder bundle export DISK/pcoder`")
        };
        let (Some(parent), Some(_)) = (folder.parent(), folder.file_name()) else { return Err(disk()) };
        match fs::metadata(parent) {
            Ok(data) if data.is_dir() => {}
            Ok(_) => return Err(io_error(parent, &ErrorKind::NotADirectory.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::new(
                    code::NOT_FOUND,
                    OPERATION,
                    "the folder that the bundle is to be in is not there",
                )
                .subject(parent.display().to_string())
                .hint("create it, or plug in the disk that it is on"));
            }
            Err(error) => return Err(io_error(parent, &error)),
        }
        recover(&folder)?;
        let there = match fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => There::Nothing,
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                return Err(exists(&shown, "there is a file of that name"));
            }
            Err(error) => return Err(io_error(&folder, &error)),
            Ok(mut entries) => match entries.next() {
                None => There::EmptyFolder,
                Some(_) if is_bundle(&folder) => There::Bundle,
                Some(_) => return Err(exists(&shown, "that folder holds something else than a bundle")),
            },
        };
        if there != There::Nothing && is_mounted(&folder, parent) {
            return Err(disk());
        }
        Ok(Self { parent: parent.to_path_buf(), folder, there })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A new folder beside the place. What killed exports left there is deleted.
    pub(super) fn begin(&self) -> Result<Making, Error> {
        sweep(&self.parent);
        let folder = tempfile::Builder::new()
            .prefix(MAKING)
            .tempdir_in(&self.parent)
            .map_err(|error| io_error(&self.parent, &error))?;
        open_to_others(folder.path()).map_err(|error| io_error(folder.path(), &error))?;
        // Where there are no locks, what a killed export leaves is left to its user.
        let alive = Lock::try_take(&folder.path().join(ALIVE)).ok().flatten();
        Ok(Making { folder, alive })
    }
}

/// A folder that an export is making. It is deleted when it is dropped.
pub(super) struct Making {
    folder: TempDir,
    alive: Option<Lock>,
}

impl Making {
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Moves it to its place. What was there is deleted.
    pub(super) fn publish(self, place: &Place) -> Result<(), Error> {
        let Self { folder, alive } = self;
        // Windows renames no folder with an open file in it.
        drop(alive);
        match fs::remove_file(folder.path().join(ALIVE)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io_error(folder.path(), &error)),
            _ => {}
        }
        flush(folder.path());
        let (from, to) = (folder.path(), place.folder.as_path());
        match place.there {
            There::Bundle => replace(from, to),
            There::Nothing | There::EmptyFolder => move_to(from, to),
        }
        .map_err(|error| match error.kind() {
            ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists => {
                exists(&to.display().to_string(), "another export made that folder meanwhile")
            }
            _ => io_error(to, &error),
        })?;
        flush(&place.parent);
        // What is there now, if anything, is what was at the place before.
        match folder.close() {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!("what was in the bundle's place could not be deleted: {error}");
            }
            _ => {}
        }
        Ok(())
    }
}

fn exists(shown: &str, message: &str) -> Error {
    Error::new(code::ALREADY_EXISTS, OPERATION, message).subject(shown).hint("name a folder that is not there yet")
}

fn is_bundle(folder: &Path) -> bool {
    folder.join(PORTABLE_MARKER).is_file() && folder.join(MANIFEST).is_file()
}

/// The temporary folder is its owner's alone, and the bundle should be as any other folder.
#[cfg(unix)]
fn open_to_others(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    // Asked of a folder that is made in the common way, because nobody is told the mask without setting it.
    let probe = folder.join("x");
    fs::create_dir(&probe)?;
    let mode = fs::metadata(&probe)?.permissions().mode();
    fs::remove_dir(&probe)?;
    match fs::set_permissions(folder, fs::Permissions::from_mode(mode & 0o777)) {
        // A file system without modes.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

#[cfg(not(unix))]
fn open_to_others(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// Whether a folder is where another disk is mounted: nothing can be renamed to there.
#[cfg(unix)]
fn is_mounted(folder: &Path, parent: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| fs::metadata(path).map(|data| data.dev()).ok();
    device(folder) != device(parent)
}

#[cfg(not(unix))]
fn is_mounted(_folder: &Path, _parent: &Path) -> bool {
    false
}

/// To a place where nothing is, or an empty folder.
fn move_to(from: &Path, to: &Path) -> io::Result<()> {
    if cfg!(windows) {
        match fs::remove_dir(to) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    rename_folder(from, to)
}

/// Puts one folder in the other's place. What was there is at `from` afterwards, or gone.
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    match exchange(from, to) {
        Err(error) if cannot_exchange(&error) => {}
        result => return result,
    }
    // In two steps: whoever is killed between them is recovered from when the place is looked at the next time.
    let aside = aside(to);
    rename_folder(to, &aside)?;
    if let Err(error) = rename_folder(from, to) {
        rename_folder(&aside, to)?;
        return Err(error);
    }
    if let Err(error) = fs::remove_dir_all(&aside) {
        tracing::warn!("`{}` could not be deleted: {error}", aside.display());
    }
    Ok(())
}

/// Two folders change places at once.
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn exchange(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn exchange(_from: &Path, _to: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Not every file system can. Those of sticks cannot, and say so in different ways.
fn cannot_exchange(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput)
}

/// Where a bundle is while another takes its place in two steps.
fn aside(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".before-update");
    folder.with_file_name(name)
}

/// Ends what an update that was killed between its two steps began: without the new bundle, the old one comes back.
fn recover(folder: &Path) -> Result<(), Error> {
    let aside = aside(folder);
    if !is_bundle(&aside) || fs::symlink_metadata(folder).is_ok() {
        return Ok(());
    }
    fs::rename(&aside, folder).map_err(|error| io_error(folder, &error))
}

/// Deletes what exports that were killed left in a folder.
fn sweep(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for folder in entries.filter(|it| it.file_name().to_string_lossy().starts_with(MAKING)).map(|it| it.path()) {
        let alive = folder.join(ALIVE);
        let dead = if alive.is_file() {
            Lock::try_take(&alive).is_ok_and(|lock| lock.is_some())
        } else {
            let changed = fs::symlink_metadata(&folder).and_then(|data| data.modified());
            let age = changed.map(|it| SystemTime::now().duration_since(it).unwrap_or_default());
            age.is_ok_and(|age| age > YOUNG)
        };
        if dead && let Err(error) = fs::remove_dir_all(&folder) {
            tracing::warn!("what an earlier export left could not be deleted: {}: {error}", folder.display());
        }
    }
}

/// A folder's own entries. Not every system lets a folder be flushed, and then it is as good as it gets.
fn flush(folder: &Path) {
    if let Ok(folder) = fs::File::open(folder) {
        drop(folder.sync_all());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(folder: &Path, word: &str) {
        fs::create_dir(folder).expect("a folder");
        for name in [PORTABLE_MARKER, MANIFEST] {
            fs::write(folder.join(name), word).expect("a file");
        }
    }

    fn word(folder: &Path) -> String {
        fs::read_to_string(folder.join(MANIFEST)).expect("a file")
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let mut names: Vec<_> =
            entries.map(|it| it.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_place_is_free_empty_or_a_bundles_and_nothing_else() {
        let parent = tempfile::tempdir().expect("a folder");
        let at = |name: &str| parent.path().join(name);
        assert_eq!(Place::look(&at("new")).expect("free").there, There::Nothing);
        fs::create_dir(at("empty")).expect("a folder");
        assert_eq!(Place::look(&at("empty")).expect("empty").there, There::EmptyFolder);
        bundle(&at("bundle"), "old");
        assert_eq!(Place::look(&at("bundle")).expect("a bundle").there, There::Bundle);
        fs::write(at("file"), "").expect("a file");
        fs::create_dir_all(at("other/inside")).expect("a folder");
        for taken in ["file", "other"] {
            assert_eq!(Place::look(&at(taken)).expect_err("taken").code, code::ALREADY_EXISTS, "{taken}");
        }
        assert_eq!(Place::look(&at("no/such/folder")).expect_err("no parent").code, code::NOT_FOUND);
        assert_eq!(Place::look(Path::new("/")).expect_err("a disk").code, code::INVALID);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_folder_of_a_disk_is_no_place() {
        let error = Place::look(Path::new("/proc")).expect_err("mounted");
        // A full one is refused for what is in it.
        assert!([code::INVALID, code::ALREADY_EXISTS].contains(&error.code.as_ref()), "{error}");
        assert!(is_mounted(Path::new("/proc"), Path::new("/")));
    }

    #[test]
    fn what_is_made_comes_to_its_place_whole_and_leaves_nothing_beside_it() {
        let parent = tempfile::tempdir().expect("a folder");
        let target = parent.path().join("b");
        for (there, expected) in [(There::Nothing, "one"), (There::Bundle, "two")] {
            let place = Place::look(&target).expect("a place");
            assert_eq!(place.there, there);
            let making = place.begin().expect("begun");
            for name in [PORTABLE_MARKER, MANIFEST] {
                fs::write(making.path().join(name), expected).expect("a file");
            }
            making.publish(&place).expect("published");
            assert_eq!(word(&target), expected);
            assert_eq!(names(&target), [MANIFEST, PORTABLE_MARKER]);
            assert_eq!(names(parent.path()), ["b"]);
        }
    }

    #[test]
    fn of_two_at_once_one_comes_to_the_place_and_the_other_says_so() {
        let parent = tempfile::tempdir().expect("a folder");
        let place = Place::look(&parent.path().join("b")).expect("a place");
        let (first, second) = (place.begin().expect("begun"), place.begin().expect("begun"));
        bundle(&first.path().join("x"), "first");
        bundle(&second.path().join("x"), "second");
        first.publish(&place).expect("published");
        let error = second.publish(&place).expect_err("too late");
        assert_eq!(error.code, code::ALREADY_EXISTS);
        assert_eq!(word(&parent.path().join("b").join("x")), "first");
        assert_eq!(names(parent.path()), ["b"]);
    }

    #[test]
    fn what_a_dead_export_left_is_deleted_and_what_a_living_one_makes_is_not() {
        let parent = tempfile::tempdir().expect("a folder");
        let place = Place::look(&parent.path().join("b")).expect("a place");
        let dead = parent.path().join(format!("{MAKING}dead"));
        fs::create_dir(&dead).expect("a folder");
        fs::write(dead.join(ALIVE), "").expect("a file that nobody has locked");
        let young = parent.path().join(format!("{MAKING}young"));
        fs::create_dir(&young).expect("a folder");
        let living = place.begin().expect("begun");
        let another = place.begin().expect("begun");
        assert!(!dead.exists() && young.exists());
        assert!(living.path().exists() && another.path().exists());
    }

    #[test]
    fn an_update_in_two_steps_can_be_killed_between_them() {
        let parent = tempfile::tempdir().expect("a folder");
        let target = parent.path().join("b");
        bundle(&aside(&target), "old");
        assert_eq!(Place::look(&target).expect("a place").there, There::Bundle);
        assert_eq!(word(&target), "old");
        assert_eq!(names(parent.path()), ["b"]);
    }
}
