//! Sockets that only this user's processes reach, and processes that nobody's terminal ends.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use interprocess::local_socket::tokio::prelude::*;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, tokio as local};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::error::{At as _, Error, Result};

/// Paths of Unix sockets are in a field of 108 bytes, with a NUL (`unix(7)`); elsewhere in one of 104.
const LONGEST: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// A socket that somebody listens on. What is there when this is dropped stays, unless it is this one's: somebody may have
/// taken its place.
#[derive(Debug)]
pub struct Listener {
    listener: local::Listener,
    #[cfg(unix)]
    file: Option<(PathBuf, u64, u64)>,
}

#[cfg(unix)]
impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((path, device, inode)) = self.file.take()
            && identity(&path) == Some((device, inode))
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path).ok().map(|it| (it.dev(), it.ino()))
}

impl Listener {
    /// Listens, in a folder that is this user's alone. What somebody left there who has ended is replaced.
    ///
    /// # Errors
    /// `Io`, also for a folder that others may use.
    pub fn new(socket: &OsStr) -> Result<Self> {
        let path = PathBuf::from(socket);
        #[cfg(unix)]
        {
            private_folder(path.parent().unwrap_or(&path))?;
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("remove what is left of", &path, error));
                }
                _ => {}
            }
        }
        let name = socket.to_fs_name::<GenericFilePath>().at("name the socket of", &path)?;
        let listener = ListenerOptions::new().name(name).reclaim_name(false).create_tokio().at("listen for", &path)?;
        Ok(Self {
            listener,
            #[cfg(unix)]
            file: identity(&path).map(|(device, inode)| (path, device, inode)),
        })
    }

    /// The next one who connects.
    ///
    /// # Errors
    /// The system's; the next one may be better.
    pub async fn accept(&self) -> io::Result<Stream> {
        self.listener.accept().await
    }
}

/// A connection of two processes of this machine.
pub type Stream = local::Stream;

/// The socket that belongs to what this says. On Windows it is a pipe, and `sockets` counts for nothing.
///
/// # Errors
/// `LongPath`.
pub fn named(sockets: &Path, what: &[u8]) -> Result<OsString> {
    let name: String = Sha256::digest(what).iter().take(10).map(|byte| format!("{byte:02x}")).collect();
    if cfg!(windows) {
        return Ok(format!(r"\\.\pipe\pcoder-{name}").into());
    }
    let path = sockets.join(name);
    if path.as_os_str().len() > LONGEST {
        return Err(Error::LongPath { path, most: LONGEST });
    }
    Ok(path.into())
}

/// A connection to who listens there.
///
/// # Errors
/// The system's: nobody listens.
pub async fn connect(socket: &OsStr) -> io::Result<Stream> {
    Stream::connect(socket.to_fs_name::<GenericFilePath>()?).await
}

/// Makes the folder of all sockets, which is its user's alone. One that somebody else made first, in a folder where
/// anybody may make some, is not used.
///
/// # Errors
/// `Io`, also for a folder that others may use.
#[cfg(unix)]
pub fn private_folder(folder: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).at("make", folder)?;
    let found = std::fs::symlink_metadata(folder).at("look at", folder)?;
    if found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    let why = io::Error::new(io::ErrorKind::PermissionDenied, "others may use the folder too");
    Err(Error::io("use", folder, why))
}

/// A process that goes on when whoever starts it has ended: nothing of the starter's stays in use by it, neither its
/// environment nor its folder nor its streams. It is told what to do by its input, and says how that went by its output.
/// On Unix it has to [`detach`] itself.
pub fn detached(program: &Path, args: &[OsString], folder: &Path) -> Command {
    use std::process::Stdio;
    let mut command = Command::new(program);
    command.args(args).env_clear().current_dir(root(folder));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    #[cfg(windows)]
    {
        command.env("SystemRoot", r"C:\Windows");
        // DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP: no console, and no Ctrl-C of one.
        command.creation_flags(0x0000_0008 | 0x0000_0200);
    }
    command
}

/// Leaves the session of whoever started this process: Ctrl-C and the end of a terminal are not for it.
pub fn detach() {
    #[cfg(unix)]
    // It fails for the leader of a group alone, and then there is no group to leave.
    let _ = rustix::process::setsid();
}

/// A folder that is always there and keeps no disk in use that could be taken away.
fn root(path: &Path) -> &Path {
    path.ancestors().last().filter(|root| root.is_absolute()).unwrap_or(path)
}
