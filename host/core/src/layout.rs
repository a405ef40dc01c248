//! Where pcoder keeps things.

use std::path::{Path, PathBuf};

use pcoder_runtime::Error;
use pcoder_runtime::error::code;

use crate::Surroundings;

/// The file beside the program that makes its folder a portable one.
pub(crate) const PORTABLE_MARKER: &str = "portable";

/// The folders that pcoder writes to. None of them is created before it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Engines, plugins and the audit.
    pub data: PathBuf,
    /// The engine store: `engines/`, `staging/` and, unless they are elsewhere, `locks/` are in it.
    pub store: PathBuf,
    /// What can be made again.
    pub cache: PathBuf,
    /// Locks. Never on a stick: not every file system there has them.
    pub locks: PathBuf,
    /// Whether everything but locks is in one folder beside the program.
    pub portable: bool,
}

impl Layout {
    /// `PCODER_HOME`; else the program's own folder when it holds the marker; else the platform's folders. The engine
    /// store can be in a folder of its own, `PCODER_ENGINES`, which several users or tests share.
    ///
    /// # Errors
    /// `invalid` when none of them can be told.
    pub fn find(surroundings: &Surroundings) -> Result<Self, Error> {
        let mut layout = Self::of_home(surroundings)?;
        if let Some(engines) = surroundings.variable("PCODER_ENGINES") {
            layout.store = absolute(&surroundings.cwd, Path::new(engines));
            layout.locks = layout.store.join("locks");
        }
        Ok(layout)
    }

    fn of_home(surroundings: &Surroundings) -> Result<Self, Error> {
        if let Some(home) = surroundings.variable("PCODER_HOME") {
            let home = absolute(&surroundings.cwd, Path::new(home));
            return Ok(Self {
                store: home.clone(),
                data: home.clone(),
                cache: home.join("cache"),
                locks: home.join("locks"),
                portable: false,
            });
        }
        let beside = surroundings.executable.as_deref().and_then(Path::parent);
        if let Some(folder) = beside.filter(|folder| folder.join(PORTABLE_MARKER).is_file()) {
            let (_, cache) = platform_folders(surroundings)?;
            return Ok(Self {
                data: folder.join("state"),
                store: folder.join("state"),
                cache: folder.join("state").join("cache"),
                locks: cache.join("portable-locks"),
                portable: true,
            });
        }
        let (data, cache) = platform_folders(surroundings)?;
        Ok(Self { store: data.clone(), locks: data.join("locks"), data, cache, portable: false })
    }

    /// The folder that a plugin keeps between calls.
    pub fn plugin_state(&self, plugin: &str) -> PathBuf {
        self.data.join("plugins").join(plugin)
    }

    /// The audit's file.
    pub fn audit(&self) -> PathBuf {
        self.data.join("audit.jsonl")
    }

    /// Compiled code of plugins that are not built in.
    pub fn code_cache(&self) -> PathBuf {
        self.cache.join("code")
    }
}

/// The platform's folders for data and for what can be made again.
fn platform_folders(surroundings: &Surroundings) -> Result<(PathBuf, PathBuf), Error> {
    let unknown = |variable: &str| {
        Error::new(code::INVALID, "layout", format!("`{variable}` is not set, so there is no place for pcoder's files"))
            .hint("set `PCODER_HOME` to a folder of your choice")
    };
    let folder = |variable: &str| surroundings.variable(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    if cfg!(windows) {
        let local = folder("LOCALAPPDATA").ok_or_else(|| unknown("LOCALAPPDATA"))?.join("pcoder");
        return Ok((local.clone(), local.join("cache")));
    }
    let home = || surroundings.home().ok_or_else(|| unknown("HOME"));
    if cfg!(target_os = "macos") {
        let library = home()?.join("Library");
        return Ok((library.join("Application Support").join("pcoder"), library.join("Caches").join("pcoder")));
    }
    let data = match folder("XDG_DATA_HOME") {
        Some(folder) => folder,
        None => home()?.join(".local").join("share"),
    };
    let cache = match folder("XDG_CACHE_HOME") {
        Some(folder) => folder,
        None => home()?.join(".cache"),
    };
    Ok((data.join("pcoder"), cache.join("pcoder")))
}

/// A path made absolute against a working folder, without asking the disk.
pub(crate) fn absolute(cwd: &Path, path: &Path) -> PathBuf {
    let joined = cwd.join(path);
    std::path::absolute(&joined).unwrap_or(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(variables: &[(&str, &str)], executable: Option<PathBuf>) -> Surroundings {
        Surroundings {
            environment: variables.iter().map(|&(name, value)| (name.into(), value.into())).collect(),
            cwd: PathBuf::from("/work dir"),
            executable,
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_users_choice_comes_before_the_marker_and_the_marker_before_the_platform() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("pcoder");
        let home = ("HOME", "/home/u");
        let plain = Layout::find(&surroundings(&[home], Some(program.clone()))).expect("found");
        assert_eq!(plain.data, Path::new("/home/u/.local/share/pcoder"));
        std::fs::write(folder.path().join(PORTABLE_MARKER), "").expect("the marker");
        let portable = Layout::find(&surroundings(&[home], Some(program.clone()))).expect("found");
        assert_eq!(portable.data, folder.path().join("state"));
        assert!(!portable.locks.starts_with(folder.path()), "locks are never on the stick");
        let chosen = Layout::find(&surroundings(&[home, ("PCODER_HOME", "my state")], Some(program))).expect("found");
        assert_eq!(chosen.data, Path::new("/work dir/my state"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_relative_xdg_folder_is_ignored_as_its_specification_says() {
        let layout =
            Layout::find(&surroundings(&[("HOME", "/h"), ("XDG_DATA_HOME", "relative")], None)).expect("found");
        assert_eq!(layout.data, Path::new("/h/.local/share/pcoder"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn without_a_home_the_error_says_what_to_set() {
        let error = Layout::find(&surroundings(&[], None)).expect_err("no place");
        assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("PCODER_HOME")));
    }
}
