//! A `/tmp` of a command's own: memory, which is gone when the last of its processes is.
//!
//! Some programs write to `/tmp` by that name, whatever `TMPDIR` is: Codex' sandbox for Linux makes a folder there, by
//! design (`codex-rs/uds/src/daemon_directory.rs` in its sources: it "must not depend on HOME, TMPDIR, CODEX_HOME, or
//! command settings"). Where nothing may be left on a machine, they get another `/tmp`. Whatever is in the real one is
//! there too, mounted one by one (but for links of others), so that sockets in it work and a project in it stays a real
//! one; what is made beside it is in memory.
//!
//! It takes a mount namespace, and who is not root needs a user namespace for that, in which `sudo` does not work and
//! the files of others belong to nobody. So it is done for those who ask for it, and not for everybody.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::error::{Error, code};

const TMP: &str = "/tmp";
const NOTHING: Option<&str> = None;

/// More entries than this are not mounted one by one.
const MOST: usize = 4096;

/// Gives this process, and all that it starts, a `/tmp` of their own. Returns a folder in there that is its user's
/// alone, for sockets.
///
/// The process must have one thread. Where it fails, the process may be in a namespace in which little works: it ends,
/// and whoever wants to go on without tries it in another process first.
///
/// # Errors
/// `unsupported`, where the system does not let this user have one.
pub fn enter() -> Result<PathBuf, Error> {
    let cwd = std::env::current_dir().map_err(|error| refused("see the working folder", error))?;
    namespace().map_err(|error| refused("make a namespace", error))?;
    // The real one, by a name that is left when another is mounted over it. It is opened in here: what is another
    // namespace's cannot be mounted.
    let open = File::open(TMP).map_err(|error| refused("open `/tmp`", error))?;
    let real = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
    // What is mounted from now on is seen here alone; what others mount is seen as before.
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_SLAVE, NOTHING)
        .map_err(|error| refused("keep mounts to itself", error))?;
    let entries = entries(&real).map_err(|error| refused("read `/tmp`", error))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("pcoder"), TMP, Some("tmpfs"), flags, Some("mode=1777"))
        .map_err(|error| refused("mount memory", error))?;
    for name in entries {
        match bring(&real.join(&name), &Path::new(TMP).join(&name)) {
            Ok(()) => {}
            // It vanished meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refused(&format!("mount `{TMP}/{}`", name.display()), error)),
        }
    }
    let own = tempfile::Builder::new().prefix("pcoder-").tempdir_in(TMP).map_err(|error| refused("use it", error))?;
    // The same folder by its name: what it was before may be below what was mounted.
    std::env::set_current_dir(&cwd).map_err(|error| refused("go back to the working folder", error))?;
    Ok(own.keep())
}

fn refused(doing: &str, why: impl std::fmt::Display) -> Error {
    let message = format!("it cannot have a `/tmp` of its own: cannot {doing}: {why}");
    Error::new(code::UNSUPPORTED, "private-tmp", message)
}

/// Moves this process to a mount namespace of its own: as root in one step, as anybody else by way of a user namespace,
/// in which the process is who it was.
fn namespace() -> io::Result<()> {
    match unshare(CloneFlags::CLONE_NEWNS) {
        Ok(()) => return Ok(()),
        Err(Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

fn entries(folder: &Path) -> io::Result<Vec<OsString>> {
    let names: Vec<OsString> =
        fs::read_dir(folder)?.take(MOST + 1).map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
    match names.len() {
        0..=MOST => Ok(names),
        _ => Err(io::Error::other(format!("there is more in it than {MOST} entries; remove what is not needed"))),
    }
}

/// Makes something of the real `/tmp` appear in the new one.
fn bring(from: &Path, to: &Path) -> io::Result<()> {
    let data = fs::symlink_metadata(from)?;
    let kind = data.file_type();
    if kind.is_symlink() {
        // Made anew it would be this user's, and Linux follows those of others in such a folder for nobody
        // (`fs.protected_symlinks`): it stays where it is.
        let own = data.uid() == rustix::process::geteuid().as_raw();
        return if own { symlink(fs::read_link(from)?, to) } else { Ok(()) };
    }
    let unmake: fn(&Path) -> io::Result<()> = if kind.is_dir() {
        fs::create_dir(to)?;
        |path| fs::remove_dir(path)
    } else {
        drop(File::create(to)?);
        |path| fs::remove_file(path)
    };
    mount(Some(from), to, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING).map_err(|error| {
        drop(unmake(to));
        error.into()
    })
}
