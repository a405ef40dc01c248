//! Runs on other machines that have not ended. Each is written down before its instance is booted and forgotten when
//! the agent's changes are back, so that the next run can tell its user of one that was cut off: nobody else knows what
//! is on that instance.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcoder_runtime::{Error, call_name};
use pcoder_state::{Document, File, Lock};
use serde::{Deserialize, Serialize};

use crate::errors::from_state;

/// A run on another machine whose end was never written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct UnfinishedRun {
    /// What ran.
    pub tool: String,
    /// Whose instance it ran on.
    pub provider: String,
    /// Whose files are there: the folder without links, as text.
    pub project: String,
    /// Where it ran. None where it was cut off before that was known.
    pub instance: Option<String>,
}

/// `runs.toml`, by names that are of no meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Runs {
    #[serde(default)]
    runs: BTreeMap<String, UnfinishedRun>,
}

impl Document for Runs {
    const VERSION: i64 = 1;
    const HEADER: &'static str = "# Runs on other machines that have not ended. Written by pcoder.";
}

/// A folder by the one name that no link is in. On Windows such a name is of a kind of its own that not every program
/// takes, so that it stays as it is there.
pub(crate) fn without_links(folder: &Path) -> PathBuf {
    let found = if cfg!(windows) { None } else { std::fs::canonicalize(folder).ok() };
    found.unwrap_or_else(|| folder.to_path_buf())
}

/// The runs that there are. Each has a lock of its own for as long as it goes on.
pub(crate) struct UnfinishedRuns {
    file: File<Runs>,
    locks: PathBuf,
}

/// A run, which others see go on for as long as this is there.
pub(crate) struct Begun<'a> {
    all: &'a UnfinishedRuns,
    name: String,
    _lock: Lock,
}

impl UnfinishedRuns {
    pub(crate) fn new(file: PathBuf, locks: &Path) -> Self {
        Self { file: File::new(file, locks), locks: locks.join("runs") }
    }

    /// Writes a run down.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn begin(&self, run: &UnfinishedRun) -> Result<Begun<'_>, Error> {
        let name = call_name();
        // Before it is written: a run without a holder was cut off.
        let lock = Lock::take(&self.lock(&name), Duration::ZERO).map_err(|error| from_state("run", &error))?;
        let begun = Begun { all: self, name, _lock: lock };
        self.change(|runs| drop(runs.insert(begun.name.clone(), run.clone())))?;
        Ok(begun)
    }

    /// Those that were cut off of a project with a provider, by name.
    ///
    /// # Errors
    /// When what is known of them cannot be read.
    pub(crate) fn cut_off(&self, project: &str, provider: &str) -> Result<Vec<(String, UnfinishedRun)>, Error> {
        let all = self.file.read().map_err(|error| from_state("run", &error))?.runs.into_iter();
        let of_project = all.filter(|(_, run)| run.project == project && run.provider == provider);
        let mut cut_off: Vec<_> = of_project.filter(|(name, _)| self.take(name).is_some()).collect();
        cut_off.sort_by(|(_, a), (_, b)| a.instance.cmp(&b.instance));
        Ok(cut_off)
    }

    /// One that was cut off, to go on with or to forget. None when somebody else has it.
    pub(crate) fn take(&self, name: &str) -> Option<Begun<'_>> {
        // A file that cannot be locked says nothing of who is there.
        let lock = Lock::try_take(&self.lock(name)).ok()??;
        let begun = Begun { all: self, name: name.to_owned(), _lock: lock };
        // It may have ended since it was read.
        let runs = self.file.read().ok()?.runs;
        if runs.contains_key(name) {
            return Some(begun);
        }
        drop(std::fs::remove_file(self.lock(name)));
        None
    }

    /// Forgets those that were cut off on an instance from which all was brought back.
    pub(crate) fn forget(&self, project: &str, provider: &str, instance: &str) {
        for (name, run) in self.cut_off(project, provider).unwrap_or_default() {
            if run.instance.as_deref() == Some(instance) {
                self.take(&name).into_iter().for_each(Begun::forget);
            }
        }
    }

    fn lock(&self, name: &str) -> PathBuf {
        self.locks.join(format!("{name}.lock"))
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, UnfinishedRun>)) -> Result<(), Error> {
        let changed = self.file.update(|document| -> Result<(), pcoder_state::Error> {
            change(&mut document.runs);
            Ok(())
        });
        changed.map_err(|error| from_state("run", &error))
    }
}

impl Begun<'_> {
    /// Says where it runs.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn is_on(&self, instance: &str) -> Result<(), Error> {
        self.all.change(|runs| {
            if let Some(run) = runs.get_mut(&self.name) {
                run.instance = Some(instance.to_owned());
            }
        })
    }

    /// Forgets it: nothing of it is left that its user would miss. That it cannot be forgotten costs a line of the next run.
    pub(crate) fn forget(self) {
        drop(self.all.change(|runs| drop(runs.remove(&self.name))));
        // Unlike other locks' files: no other run will ever have this name.
        drop(std::fs::remove_file(self.all.lock(&self.name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(project: &str, provider: &str) -> UnfinishedRun {
        let (tool, provider) = ("claude".to_owned(), provider.to_owned());
        UnfinishedRun { tool, provider, project: project.to_owned(), instance: None }
    }

    #[test]
    fn only_a_run_that_was_cut_off_is_found_and_only_for_its_project_and_provider() {
        let folder = tempfile::tempdir().expect("a folder");
        let all = UnfinishedRuns::new(folder.path().join("runs.toml"), &folder.path().join("locks"));
        let found = |project: &str, provider: &str| -> Vec<Option<String>> {
            all.cut_off(project, provider).expect("read").into_iter().map(|(_, it)| it.instance).collect()
        };
        assert!(found("/p", "qemu").is_empty());
        let goes_on = all.begin(&run("/p", "qemu")).expect("begun");
        goes_on.is_on("vm-1").expect("written");
        assert!(found("/p", "qemu").is_empty(), "it goes on");
        // As when its process is killed: the lock goes, and the record stays.
        drop(goes_on);
        drop(all.begin(&run("/p", "qemu")).expect("begun"));
        assert_eq!(found("/p", "qemu"), [None, Some("vm-1".to_owned())]);
        assert!(found("/q", "qemu").is_empty() && found("/p", "morph").is_empty());
        all.forget("/p", "qemu", "vm-1");
        assert_eq!(found("/p", "qemu"), [None]);
        let (name, _) = all.cut_off("/p", "qemu").expect("read").remove(0);
        let taken = all.take(&name).expect("nobody has it");
        assert!(found("/p", "qemu").is_empty() && all.take(&name).is_none(), "somebody goes on with it");
        taken.forget();
        assert!(found("/p", "qemu").is_empty());
        assert!(all.take(&name).is_none(), "it has ended");
        assert_eq!(std::fs::read_dir(folder.path().join("locks/runs")).expect("a folder").count(), 0);
        let ended = all.begin(&run("/p", "qemu")).expect("begun");
        ended.forget();
        assert!(found("/p", "qemu").is_empty(), "it has ended");
        std::fs::write(folder.path().join("runs.toml"), "runs = 1").expect("a file");
        assert!(all.cut_off("/p", "qemu").is_err() && all.begin(&run("/p", "qemu")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_project_is_the_same_by_any_way_that_leads_to_it() {
        use std::os::unix::ffi::OsStrExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let there = folder.path().join(std::ffi::OsStr::from_bytes(b"p\xff"));
        std::fs::create_dir(&there).expect("a folder");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&there, &link).expect("a link");
        assert_eq!(without_links(&link), without_links(&there));
    }
}
