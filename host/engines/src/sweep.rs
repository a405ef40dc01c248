//! Deletes what installations that died left behind.
//!
//! Everything temporary carries the key of the lock that its owner holds. Who can take that lock knows that the owner is gone.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};
use crate::files::remove_tree;
use crate::install_lock::InstallLock;
use crate::lock_file::Builds;
use crate::store::{Inner, children};

/// A part file that nobody went on with for so long is not waited for.
const PART_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

impl Inner {
    /// `own` is a key whose lock the caller holds. `all_parts` deletes part files that could still be gone on with.
    pub(crate) fn sweep(&self, own: Option<&str>, all_parts: bool) -> Result<()> {
        for folder in [self.staging(), self.trash()] {
            for name in children(&folder)? {
                let path = folder.join(&name);
                let Some((key, rest)) = split_key(&name) else {
                    continue;
                };
                if rest.ends_with(".part") && !all_parts && self.may_resume(key, rest, &path) {
                    continue;
                }
                if own == Some(key) {
                    remove(&path)?;
                } else if let Some(_lock) = InstallLock::try_take(&self.locks, key, "cleaning up")? {
                    remove(&path)?;
                }
            }
        }
        Ok(())
    }

    /// The lock file still names those bytes, and somebody wanted them lately.
    fn may_resume(&self, key: &str, rest: &str, path: &Path) -> bool {
        let mut parts = key.split('@');
        let (Some(name), Some(version)) = (parts.next(), parts.next()) else {
            return false;
        };
        let entry = self.lock.engines.get(name).and_then(|engine| engine.versions.get(version));
        let Some(entry) = entry else { return false };
        let hash = rest.strip_suffix(".part").unwrap_or_default();
        let builds: Vec<_> = match &entry.builds {
            Builds::Any(build) => vec![build],
            Builds::Platforms(builds) => builds.values().collect(),
        };
        let named =
            builds.iter().any(|build| build.packages.iter().any(|package| package.integrity.short_hex() == hash));
        let modified = fs::metadata(path).and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        named && modified.elapsed().map_or(true, |age| age < PART_LIFE)
    }
}

/// `NAME@VERSION@PLATFORM.REST`.
fn split_key(name: &str) -> Option<(&str, &str)> {
    let platform = name.match_indices('@').nth(1)?.0;
    let dot = platform + name.get(platform..)?.find('.')?;
    Some((name.get(..dot)?, name.get(dot + 1..)?))
}

fn remove(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => remove_tree(path),
        Ok(_) => fs::remove_file(path).map_err(|error| Error::io("remove", path, error)),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_temporary_names() {
        assert_eq!(split_key("claude@0.3.316@linux-x64.abc123"), Some(("claude@0.3.316@linux-x64", "abc123")));
        assert_eq!(split_key("x@1.0@any.00ff.part"), Some(("x@1.0@any", "00ff.part")));
        for other in ["", "x", "x@1", "x@1@any"] {
            assert_eq!(split_key(other), None);
        }
    }
}
