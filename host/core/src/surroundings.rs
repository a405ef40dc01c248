//! What surrounds this process, as its caller says.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// The environment, the working folder and the program's own file. Only the command line reads them from the system;
/// everything else, tests among it, is told.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The environment's variables.
    pub environment: Vec<(OsString, OsString)>,
    /// The working folder.
    pub cwd: PathBuf,
    /// The program's own file.
    pub executable: Option<PathBuf>,
    /// Where the administrator's policy would be. Without a place, there is none.
    pub system_policy: Option<PathBuf>,
}

impl Surroundings {
    /// A variable that is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.environment
            .iter()
            .find(|(it, _)| if cfg!(windows) { it.eq_ignore_ascii_case(name) } else { it == name })
            .map(|(_, value)| value.as_os_str())
            .filter(|value| !value.is_empty())
    }

    /// Where the sockets of this user's services are: a short path on this machine's own disk, and this user's alone. On
    /// Windows their pipes have names of another kind, and this is not used.
    pub fn sockets(&self) -> PathBuf {
        let absolute = |name| self.variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        if let Some(runtime) = absolute("XDG_RUNTIME_DIR") {
            return runtime.join("pcoder");
        }
        let temporary = absolute("TMPDIR").unwrap_or_else(|| PathBuf::from("/tmp"));
        #[cfg(unix)]
        let name = format!("pcoder-{}", rustix::process::geteuid().as_raw());
        #[cfg(not(unix))]
        let name = "pcoder";
        temporary.join(name)
    }

    /// The user's home folder.
    pub fn home(&self) -> Option<PathBuf> {
        self.variable(if cfg!(windows) { "USERPROFILE" } else { "HOME" }).map(PathBuf::from)
    }
}
