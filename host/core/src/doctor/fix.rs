//! `doctor --fix`: what is safe to mend without asking.
//!
//! Missing folders are made, permissions of pcoder's own files are narrowed, and what a killed pcoder left is removed. It
//! never changes what is in a file, never downloads and never logs in.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::record::Check;
use super::{DEADLINE, folders, run};
use crate::{Layout, Pcoder};

/// What is younger may be written right now.
const OLD: Duration = Duration::from_secs(24 * 3600);

/// How the files begin that `pcoder_state::write_atomic` renames when they are whole.
const UNFINISHED: &str = ".new-";

/// A file or a folder of pcoder's that others may do too much with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loose {
    pub(super) path: PathBuf,
    /// Its permissions, as `chmod` writes them.
    pub(super) mode: u32,
    /// What they should be.
    pub(super) wanted: u32,
}

impl Pcoder {
    /// Makes the folders that are missing, for their owner alone, and says of which checks they are. This goes before the
    /// checks: plugins that are asked make them too, with whatever permissions the system gives.
    pub(super) async fn make_folders(&self) -> Vec<(&'static str, String)> {
        let folders = [("folder.data", self.layout().data.clone()), ("folder.cache", self.layout().cache.clone())];
        let work = tokio::task::spawn_blocking(move || {
            let missing = folders.into_iter().filter(|(_, folder)| folder.symlink_metadata().is_err());
            // Why one cannot be made is what its check finds.
            missing
                .filter(|(_, folder)| make(folder).is_ok())
                .map(|(id, it)| (id, format!("made {}", it.display())))
                .collect()
        });
        tokio::time::timeout(DEADLINE, work).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Mends what can be, and makes those checks again.
    pub(super) async fn fix(&self, checks: &mut [Check]) {
        for check in checks.iter_mut().filter(|check| check.fixable) {
            let (id, layout) = (check.id.clone(), self.layout().clone());
            let work = tokio::task::spawn_blocking(move || mend(&id, &layout));
            check.fixed = match tokio::time::timeout(DEADLINE, work).await {
                Ok(Ok(Ok(done))) => Some(done),
                Ok(Ok(Err(problem))) => Some(format!("nothing: {problem}")),
                _ => Some("nothing: it did not end in time".to_owned()),
            };
        }
        let Ok(fresh) = self.fresh().map(Arc::new) else { return };
        let jobs = folders::jobs(&fresh).into_iter();
        let again = jobs.filter(|job| checks.iter().any(|check| check.id == job.id && check.fixed.is_some())).collect();
        for found in run(&fresh, again, DEADLINE).await {
            if let Some(check) = checks.iter_mut().find(|check| check.id == found.id) {
                *check = Check { fixed: check.fixed.take(), ..found };
            }
        }
    }
}

/// Mends what this check found, and says what it did.
fn mend(id: &str, layout: &Layout) -> Result<String, String> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    match id {
        "folder.leftovers" => {
            let all = leftovers(layout);
            for path in &all {
                fs::remove_file(path).map_err(|error| failed(path, error))?;
            }
            Ok(format!("removed {}", all.len()))
        }
        "folder.permissions" => {
            let all = loose(layout);
            for it in &all {
                narrow(it).map_err(|error| failed(&it.path, error))?;
            }
            let list: Vec<String> =
                all.iter().map(|it| format!("{} is {:04o} now", it.path.display(), it.wanted)).collect();
            Ok(list.join(", "))
        }
        _ => Err("there is no way to mend it".to_owned()),
    }
}

fn make(folder: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Files that were never finished, and that nobody writes any more.
pub(super) fn leftovers(layout: &Layout) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in [layout.data.clone(), layout.profiles(), layout.components()] {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            let old = |data: &fs::Metadata| {
                let changed = data.modified().unwrap_or_else(|_| SystemTime::now());
                data.is_file() && changed.elapsed().is_ok_and(|age| age > OLD)
            };
            // Of the entry itself: a link is nothing that pcoder made.
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) && entry.metadata().is_ok_and(|it| old(&it))
            {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// What is pcoder's own, belongs to this user, and lets others do more than it should.
pub(super) fn loose(layout: &Layout) -> Vec<Loose> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let me = rustix::process::geteuid().as_raw();
        let places = own_places(layout).into_iter();
        let loose = places.filter_map(|(path, forbidden)| {
            let data = path.symlink_metadata().ok()?;
            let mode = data.permissions().mode() & 0o7777;
            let ours = data.uid() == me && (data.is_file() || data.is_dir());
            (ours && mode & forbidden != 0).then_some(Loose { path, mode, wanted: mode & !forbidden })
        });
        loose.collect()
    }
    #[cfg(not(unix))]
    {
        // A folder in a user's profile is that user's, and so is what is made in it.
        let _ = layout;
        Vec::new()
    }
}

/// Everything of pcoder's that others have nothing to look for in, with the permissions that they must not have.
#[cfg(unix)]
fn own_places(layout: &Layout) -> Vec<(PathBuf, u32)> {
    // Settings are written by people too, who may let others read them. Nobody else may change them: they say which
    // programs secrets come from.
    let mut places = vec![(layout.data.clone(), 0o002), (layout.settings(), 0o022)];
    places.extend([layout.auth(), layout.plugins_lock(), layout.audit()].map(|file| (file, 0o077)));
    let tools = layout.data.join("auth");
    places.push((tools.clone(), 0o077));
    if let Ok(entries) = fs::read_dir(&tools) {
        let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        folders.sort();
        for folder in folders {
            let inside = ["config", "home"].map(|name| (folder.join(name), 0o077));
            places.push((folder, 0o077));
            places.extend(inside);
        }
    }
    places
}

#[cfg(unix)]
fn narrow(loose: &Loose) -> std::io::Result<()> {
    use rustix::fs::{Mode, OFlags};
    // The thing itself, and not what a link leads to that was put in its place meanwhile.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = fs::File::from(rustix::fs::open(&loose.path, flags, Mode::empty())?);
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(loose.wanted))
}

#[cfg(not(unix))]
fn narrow(_loose: &Loose) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Surroundings;

    fn layout(folder: &Path) -> Layout {
        let environment = vec![("PCODER_HOME".into(), folder.into())];
        Layout::find(&Surroundings { environment, ..Surroundings::default() }).expect("a place")
    }

    #[test]
    fn only_unfinished_files_that_are_old_are_left_overs() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = layout(folder.path());
        fs::create_dir(layout.profiles()).expect("a folder");
        let old = SystemTime::now() - OLD - Duration::from_secs(60);
        for (name, is_old) in
            [(".new-old", true), (".new-young", false), ("work.toml", true), ("profiles/.new-x", true)]
        {
            let file = fs::File::create(folder.path().join(name)).expect("a file");
            if is_old {
                file.set_modified(old).expect("a time");
            }
        }
        fs::create_dir(folder.path().join(".new-folder")).expect("a folder");
        let expected = [folder.path().join(".new-old"), folder.path().join("profiles/.new-x")];
        assert_eq!(leftovers(&layout), expected);
        assert_eq!(mend("folder.leftovers", &layout).expect("removed"), "removed 2");
        assert!(leftovers(&layout).is_empty() && folder.path().join(".new-young").exists());
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_narrowed_and_contents_are_not_touched() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let layout = layout(folder.path());
        let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
        let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o7777;
        fs::create_dir_all(layout.tool_folder("claude").join("config")).expect("a folder");
        for file in [layout.settings(), layout.auth(), layout.audit()] {
            fs::write(&file, "not = even = TOML").expect("a file");
            chmod(&file, 0o666);
        }
        for folder in
            [layout.data.join("auth"), layout.tool_folder("claude"), layout.tool_folder("claude").join("config")]
        {
            chmod(&folder, 0o755);
        }
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "").expect("a file");
        chmod(&elsewhere, 0o666);
        std::os::unix::fs::symlink(&elsewhere, layout.plugins_lock()).expect("a link");
        assert_eq!(loose(&layout).len(), 6, "{:?}", loose(&layout));
        mend("folder.permissions", &layout).expect("narrowed");
        assert_eq!(loose(&layout), []);
        assert_eq!((mode(&layout.settings()), mode(&layout.auth())), (0o644, 0o600));
        assert_eq!(mode(&layout.tool_folder("claude").join("config")), 0o700);
        assert_eq!(mode(&elsewhere), 0o666, "a link is left alone");
        assert_eq!(fs::read_to_string(layout.settings()).expect("a file"), "not = even = TOML");
    }

    #[tokio::test]
    async fn missing_folders_are_made_for_their_owner_alone_and_others_left_as_they_are() {
        let place = tempfile::tempdir().expect("a folder");
        let environment = vec![("PCODER_HOME".into(), place.path().join("a/b").into())];
        let pcoder =
            Pcoder::new(Surroundings { environment, ..Surroundings::default() }, &[], false).expect("a pcoder");
        let made = pcoder.make_folders().await;
        assert_eq!(made.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ["folder.data", "folder.cache"]);
        #[cfg(unix)]
        for folder in [&pcoder.layout().data, &pcoder.layout().cache] {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(folder.metadata().expect("a folder").permissions().mode() & 0o777, 0o700);
        }
        assert_eq!(pcoder.make_folders().await, []);
    }
}
