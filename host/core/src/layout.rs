//! Where pcoder keeps things.

use std::path::{Path, PathBuf};

use pcoder_runtime::Error;
use pcoder_runtime::error::code;

use crate::Surroundings;

/// The file that makes its folder a portable one.
pub(crate) const PORTABLE_MARKER: &str = "portable";
/// What is written goes here in a portable folder. Everything else there is the bundle's and stays as it is.
pub(crate) const PORTABLE_STATE: &str = "state";
/// The programs of a portable folder, one in a folder named after its platform.
pub(crate) const PORTABLE_PROGRAMS: &str = "bin";

/// The folders that pcoder writes to. None of them is created before it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Engines, plugins and the audit.
    pub data: PathBuf,
    /// The engine store: `engines/`, `staging/` and, unless they are elsewhere, `locks/` are in it.
    pub store: PathBuf,
    /// What can be made again.
    pub cache: PathBuf,
    /// Locks. In a portable folder they are in there too, unless its file system has none.
    pub locks: PathBuf,
    /// Whether everything is in one folder, with the program.
    pub portable: bool,
}

impl Layout {
    /// `PCODER_HOME`; else the program's own folder when it holds the marker, or the one above `bin/PLATFORM/` when the
    /// program is in there; else the platform's folders. The engine store can be in a folder of its own,
    /// `PCODER_ENGINES`, which several users or tests share.
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
        if let Some(folder) = surroundings.executable.as_deref().and_then(portable_folder) {
            return Self::of_portable(folder, surroundings);
        }
        let (data, cache) = platform_folders(surroundings)?;
        Ok(Self { store: data.clone(), locks: data.join("locks"), data, cache, portable: false })
    }

    /// That of a portable folder.
    ///
    /// Everything is in there, locks too: whoever pulls the stick takes them along, and nothing is left on the machine.
    /// They are not files that somebody could leave behind locked, but locks of the operating system on open files,
    /// which end with their process. A file system that has none (some network shares and folders shared with a virtual
    /// machine) is the one exception: there they are on the machine.
    ///
    /// # Errors
    /// `invalid` when there is no place for locks.
    pub(crate) fn of_portable(folder: &Path, surroundings: &Surroundings) -> Result<Self, Error> {
        let state = folder.join(PORTABLE_STATE);
        let locks = if pcoder_state::has_locks(&folder.join(PORTABLE_MARKER)) {
            state.join("locks")
        } else {
            locks_on_the_machine(folder, surroundings)?
        };
        Ok(Self { store: state.clone(), cache: state.join("cache"), data: state, locks, portable: true })
    }

    /// The folder of a portable pcoder: the one that is moved.
    pub fn portable_folder(&self) -> Option<&Path> {
        self.data.parent().filter(|_| self.portable)
    }

    /// Whether locks are outside of the portable folder, because its file system has none.
    pub fn locks_elsewhere(&self) -> bool {
        self.portable && !self.locks.starts_with(&self.data) && self.store == self.data
    }

    /// The folder that a plugin keeps between calls.
    pub fn plugin_state(&self, plugin: &str) -> PathBuf {
        self.data.join("plugins").join(plugin)
    }

    /// What is known of a plugin's programs that outlive its calls. They are locks, and what stands beside them.
    pub fn services(&self, plugin: &str) -> PathBuf {
        // The engine store's locks may be shared with others, and these are not.
        let locks = if self.locks_elsewhere() { self.locks.clone() } else { self.data.join("locks") };
        locks.join("services").join(plugin)
    }

    /// The user's settings.
    pub fn settings(&self) -> PathBuf {
        self.data.join("settings.toml")
    }

    /// The host keys that were seen first.
    pub fn known_hosts(&self) -> PathBuf {
        self.data.join("known-hosts.toml")
    }

    /// What the two sides of synced projects had in common, one file a pair.
    pub fn syncs(&self) -> PathBuf {
        self.data.join("sync")
    }

    /// The runs on other machines that have not ended.
    pub fn runs(&self) -> PathBuf {
        self.data.join("runs.toml")
    }

    /// The profiles, one file each.
    pub fn profiles(&self) -> PathBuf {
        self.data.join("profiles")
    }

    /// How each tool logs in.
    pub fn auth(&self) -> PathBuf {
        self.data.join("auth.toml")
    }

    /// A tool's own folder: its login, and its home where that is not the user's.
    pub fn tool_folder(&self, tool: &str) -> PathBuf {
        self.data.join("auth").join(tool)
    }

    /// Temporary files of a portable folder. Elsewhere they are where the system keeps them.
    pub fn temporary(&self) -> PathBuf {
        self.data.join("tmp")
    }

    /// The plugins that were added, and what was granted to them.
    pub fn plugins_lock(&self) -> PathBuf {
        self.data.join("plugins.lock")
    }

    /// The components that were added.
    pub fn components(&self) -> PathBuf {
        self.data.join("components")
    }

    /// One of them, by the sha256 of its bytes.
    pub fn component(&self, sha256: &str) -> PathBuf {
        self.components().join(format!("{sha256}.wasm"))
    }

    /// The images of virtual machines, a folder each.
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// Engines as disks for virtual machines, a file each.
    pub fn engine_disks(&self) -> PathBuf {
        self.data.join("engine-disks")
    }

    /// What belongs to virtual machines: pcoder's own QEMU is in there.
    pub fn machine(&self) -> PathBuf {
        self.data.join("machine")
    }

    /// What is known of this host, `facts.json`, in a folder that plugins may read. A portable folder moves to other
    /// hosts, so its facts are not in it: they are beside the sockets, and gone when the host restarts, or older than
    /// their `boot`.
    pub fn machine_facts(&self, surroundings: &Surroundings) -> PathBuf {
        if !self.portable {
            return self.machine().join("host");
        }
        let mut name = pcoder_runtime::digest(self.data.as_os_str().as_encoded_bytes());
        name.truncate(16);
        let place = if cfg!(windows) {
            let cache = platform_folders(surroundings).map(|(_, cache)| cache);
            cache.unwrap_or_else(|_| self.temporary())
        } else {
            surroundings.sockets()
        };
        place.join(format!("machine-{name}"))
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

/// The portable folder that a program belongs to.
fn portable_folder(program: &Path) -> Option<&Path> {
    let marked = |folder: &&Path| folder.join(PORTABLE_MARKER).is_file();
    let beside = program.parent()?;
    if marked(&beside) {
        return Some(beside);
    }
    let programs = beside.parent()?;
    let named = programs.file_name().is_some_and(|name| name == PORTABLE_PROGRAMS);
    programs.parent().filter(|_| named).filter(marked)
}

/// A folder of this machine for the locks of a portable one, told from others by a digest of its path: two that run at
/// once on the same machine see the same path.
fn locks_on_the_machine(folder: &Path, surroundings: &Surroundings) -> Result<PathBuf, Error> {
    let mut name = pcoder_runtime::digest(folder.as_os_str().as_encoded_bytes());
    name.truncate(16);
    let runtime = surroundings.variable("XDG_RUNTIME_DIR").map(Path::new).filter(|path| path.is_absolute());
    if let Some(runtime) = runtime.filter(|_| !cfg!(windows)) {
        return Ok(runtime.join("pcoder").join(name));
    }
    let (_, cache) = platform_folders(surroundings)?;
    Ok(cache.join("portable-locks").join(name))
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
            system_policy: None,
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
        assert_eq!(portable.locks, folder.path().join("state").join("locks"));
        assert_eq!(portable.portable_folder(), Some(folder.path()));
        assert!(!portable.locks_elsewhere());
        let chosen = Layout::find(&surroundings(&[home, ("PCODER_HOME", "my state")], Some(program))).expect("found");
        assert_eq!(chosen.data, Path::new("/work dir/my state"));
    }

    #[test]
    fn the_marker_counts_beside_the_program_and_above_bin_and_nowhere_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        std::fs::write(root.join(PORTABLE_MARKER), "").expect("the marker");
        assert_eq!(portable_folder(&root.join("pcoder")), Some(root));
        assert_eq!(portable_folder(&root.join("bin/linux-x64/pcoder")), Some(root));
        for other in ["lib/linux-x64/pcoder", "bin/pcoder", "bin/linux-x64/deeper/pcoder"] {
            assert_eq!(portable_folder(&root.join(other)), None, "{other}");
        }
    }

    /// A portable folder needs nothing of the machine's: no home, no variable.
    #[test]
    fn a_portable_folder_needs_no_home() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(PORTABLE_MARKER), "").expect("the marker");
        let layout = Layout::find(&surroundings(&[], Some(folder.path().join("pcoder")))).expect("found");
        for path in [&layout.data, &layout.store, &layout.cache, &layout.locks, &layout.temporary()] {
            assert!(path.starts_with(folder.path()), "{}", path.display());
        }
        let entries = std::fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(entries, 1, "looking makes nothing");
    }

    #[cfg(unix)]
    #[test]
    fn facts_of_a_host_do_not_travel() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = surroundings(&[("XDG_RUNTIME_DIR", "/run/user/1000")], None);
        let portable = Layout::of_portable(folder.path(), &run).expect("a layout");
        let facts = portable.machine_facts(&run);
        assert!(facts.starts_with("/run/user/1000/pcoder"), "{}", facts.display());
        assert!(
            portable.images().starts_with(folder.path())
                && portable.engine_disks().starts_with(folder.path())
                && portable.machine().starts_with(folder.path())
        );
        let fixed = Layout { portable: false, ..portable };
        assert_eq!(fixed.machine_facts(&run), fixed.data.join("machine").join("host"));
    }

    #[cfg(unix)]
    #[test]
    fn without_locks_in_the_folder_they_are_on_the_machine_one_place_for_each_folder() {
        let at = |folder: &str, variables: &[(&str, &str)]| {
            locks_on_the_machine(Path::new(folder), &surroundings(variables, None)).expect("a place")
        };
        let run = ("XDG_RUNTIME_DIR", "/run/user/1000");
        let one = at("/media/stick", &[run]);
        assert!(one.starts_with("/run/user/1000/pcoder"), "{}", one.display());
        assert_eq!(one, at("/media/stick", &[run]));
        assert_ne!(one, at("/media/other", &[run]));
        assert!(at("/media/stick", &[("HOME", "/h")]).starts_with("/h"));
        let error = locks_on_the_machine(Path::new("/media/stick"), &surroundings(&[], None)).expect_err("no place");
        assert!(error.hint.is_some());
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
