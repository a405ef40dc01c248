//! Keys that pcoder makes for plugins, for machines of their own.
//!
//! They open what the same plugin made, and nothing else. A portable folder holds none of them: there, they are the
//! machine's that it is plugged into, and what they would open does not outlive that machine either.

use std::path::PathBuf;
use std::time::Duration;

use pcoder_runtime::Error;
use pcoder_runtime::error::code;
use pcoder_runtime::secrets::new_ssh_key;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use crate::errors::from_state;
use crate::{Layout, Surroundings};

const OPERATION: &str = "secrets.make";
/// Making one takes no time; a lock that is held for longer is held by something that hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// The keys of one plugin.
#[derive(Clone, Debug)]
pub(crate) struct MadeKeys {
    folder: PathBuf,
}

impl MadeKeys {
    pub(crate) fn of(layout: &Layout, surroundings: &Surroundings, plugin: &str) -> Self {
        let keys = if layout.portable {
            let place = Sha256::digest(layout.data.as_os_str().as_encoded_bytes());
            let name: String = place.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            surroundings.sockets().join(format!("keys-{name}"))
        } else {
            layout.data.join("keys")
        };
        Self { folder: keys.join(plugin) }
    }

    /// The key of this name: the one that was made before, else a new one.
    ///
    /// # Errors
    /// When it can be neither read nor kept.
    pub(crate) fn get(&self, name: &str) -> Result<SecretString, Error> {
        let path = self.folder.join(name);
        if let Some(key) = read(&path)? {
            return Ok(key);
        }
        create_private(&self.folder)
            .map_err(|error| Error::io(OPERATION, self.folder.display().to_string(), &error))?;
        let lock = self.folder.join(format!("{name}.lock"));
        let _lock = pcoder_state::Lock::take(&lock, PATIENCE).map_err(|error| from_state(OPERATION, &error))?;
        // Somebody may have made it meanwhile.
        if let Some(key) = read(&path)? {
            return Ok(key);
        }
        let key = new_ssh_key()?;
        pcoder_state::write_atomic(&path, key.expose_secret().as_bytes())
            .map_err(|error| from_state(OPERATION, &error))?;
        Ok(key)
    }

    /// Forgets them all.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(OPERATION, self.folder.display().to_string(), &error))
            }
            _ => Ok(()),
        }
    }
}

fn read(path: &std::path::Path) -> Result<Option<SecretString>, Error> {
    match std::fs::read_to_string(path) {
        Ok(key) => Ok(Some(SecretString::from(key))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(Error::new(code::INTEGRITY, OPERATION, "the key that was kept is none")
                .subject(path.display().to_string())
                .hint("remove the file: another key is made"))
        }
        Err(error) => Err(Error::io(OPERATION, path.display().to_string(), &error)),
    }
}

fn create_private(folder: &std::path::Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = MadeKeys { folder: folder.path().join("keys").join("provider-x") };
        let made: Vec<String> = std::thread::scope(|scope| {
            let get = || keys.get("MACHINE_KEY").expect("a key").expose_secret().to_owned();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(get)).collect();
            threads.into_iter().map(|it| it.join().expect("no panic")).collect()
        });
        assert!(made.iter().all(|it| *it == made[0] && it.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----")));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode =
                |path: &std::path::Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
            assert_eq!((mode(&keys.folder), mode(&keys.folder.join("MACHINE_KEY"))), (0o700, 0o600));
        }
        keys.remove().expect("removed");
        assert_ne!(keys.get("MACHINE_KEY").expect("another").expose_secret(), made[0]);
    }

    #[test]
    fn a_portable_folder_holds_none() {
        let (stick, machine) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let environment = vec![("XDG_RUNTIME_DIR".into(), machine.path().as_os_str().to_owned())];
        let surroundings = Surroundings { environment, ..Surroundings::default() };
        let layout = Layout {
            data: stick.path().into(),
            store: stick.path().into(),
            cache: stick.path().into(),
            locks: stick.path().into(),
            portable: true,
        };
        MadeKeys::of(&layout, &surroundings, "provider-x").get("MACHINE_KEY").expect("a key");
        assert_eq!(std::fs::read_dir(stick.path()).expect("it is there").count(), 0);
    }
}
