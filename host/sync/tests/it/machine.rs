//! This machine in the part of an instance, and the folders that are compared.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};

use pcoder_sync::{Pulled, Pushed, Ran, Remote, RemoteError, Sync};

/// A shell with its tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shell {
    /// The system's `sh`, with GNU's tools.
    System,
    Bash,
    /// busybox, and nothing else.
    Busybox,
}

/// Those that this machine has. Without one a notice is printed; with `CI` set that is a failure.
pub(crate) fn shells() -> Vec<Shell> {
    let mut shells = vec![Shell::System];
    for (shell, program) in [(Shell::Bash, "bash"), (Shell::Busybox, "busybox")] {
        if Command::new(program).arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok() {
            shells.push(shell);
        } else {
            assert!(std::env::var_os("CI").is_none(), "`{program}` is missing: install the package {program}");
            notice(&format!("{program} is missing; scripts are not tried with it"));
        }
    }
    shells
}

/// Says what could not be tried, or was measured.
#[allow(clippy::print_stderr)]
pub(crate) fn notice(text: &str) {
    eprintln!("notice: {text}");
}

/// A folder with busybox under the name of each of its tools.
static BUSYBOX: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let busybox = Command::new("sh").args(["-c", "command -v busybox"]).output().unwrap().stdout;
    let busybox = PathBuf::from(OsString::from_vec(busybox.trim_ascii_end().to_vec()));
    let list = Command::new(&busybox).arg("--list").output().unwrap().stdout;
    for name in String::from_utf8(list).unwrap().lines() {
        symlink(&busybox, folder.path().join(name)).unwrap();
    }
    folder
});

/// A folder where `sh` is bash.
static BASH: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    symlink("/bin/bash", folder.path().join("sh")).unwrap();
    folder
});

type Hook = Box<dyn Fn(usize, &mut Result<Ran, RemoteError>) + Send + std::marker::Sync>;

/// This machine as an instance.
pub(crate) struct Machine {
    pub(crate) shell: Shell,
    pub(crate) limit: u64,
    /// Folders in which tools are looked for first.
    pub(crate) tools: Option<PathBuf>,
    /// Only the tools in that folder.
    pub(crate) only_tools: bool,
    pub(crate) runs: AtomicUsize,
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    /// What the last script that got something got.
    pub(crate) last_input: Mutex<Vec<u8>>,
    /// How much of a script's input arrives, in percent.
    pub(crate) arrives: AtomicUsize,
    /// Another user's number, with which scripts run.
    pub(crate) user: Option<u32>,
    /// Called after each run, with its number from 0 on, and what it gave.
    pub(crate) after: Mutex<Option<Hook>>,
}

impl Machine {
    pub(crate) fn new(shell: Shell) -> Self {
        Self {
            shell,
            limit: 1 << 30,
            tools: None,
            only_tools: false,
            runs: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            last_input: Mutex::default(),
            arrives: AtomicUsize::new(100),
            user: None,
            after: Mutex::new(None),
        }
    }

    pub(crate) fn after(
        &self,
        hook: impl Fn(usize, &mut Result<Ran, RemoteError>) + Send + std::marker::Sync + 'static,
    ) {
        self.runs.store(0, Ordering::SeqCst);
        *self.after.lock().unwrap() = Some(Box::new(hook));
    }

    pub(crate) fn quiet(&self) {
        *self.after.lock().unwrap() = None;
    }

    pub(crate) fn counted(&self) -> usize {
        self.runs.swap(0, Ordering::SeqCst)
    }

    fn path(&self) -> OsString {
        let system = std::env::var_os("PATH").unwrap_or_default();
        let mut path = match self.shell {
            Shell::System => system,
            Shell::Bash => [BASH.path().as_os_str(), OsStr::new(":"), &system].concat_all(),
            Shell::Busybox => BUSYBOX.path().into(),
        };
        if let Some(tools) = &self.tools {
            path =
                if self.only_tools { tools.into() } else { [tools.as_os_str(), OsStr::new(":"), &path].concat_all() };
        }
        path
    }
}

trait ConcatAll {
    fn concat_all(self) -> OsString;
}

impl ConcatAll for [&OsStr; 3] {
    fn concat_all(self) -> OsString {
        let mut all = OsString::new();
        self.iter().for_each(|it| all.push(it));
        all
    }
}

#[async_trait::async_trait]
impl Remote for Machine {
    async fn run(&self, script: &str, mut input: Vec<u8>) -> Result<Ran, RemoteError> {
        if !input.is_empty() {
            self.last_input.lock().unwrap().clone_from(&input);
        }
        input.truncate(input.len() * self.arrives.load(Ordering::SeqCst) / 100);
        let number = self.runs.fetch_add(1, Ordering::SeqCst);
        self.sent.fetch_add(input.len() as u64, Ordering::SeqCst);
        let shell = match self.shell {
            Shell::System => PathBuf::from("/bin/sh"),
            Shell::Bash => PathBuf::from("/bin/bash"),
            Shell::Busybox => BUSYBOX.path().join("sh"),
        };
        let mut command = match self.user {
            None => Command::new(&shell),
            Some(user) => {
                // Not that of the instance, which would be looked for in its folders.
                let mut command = Command::new("/usr/bin/setpriv");
                command
                    .args(["--reuid", &user.to_string(), "--regid", &user.to_string(), "--clear-groups"])
                    .arg(&shell);
                command
            }
        };
        // A group of its own, so that a tool can end all of it as a machine that goes down does.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command
            .args(["-c", script])
            .env_clear()
            .env("PATH", self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let feed = std::thread::spawn(move || {
            // A script that ends early does not read everything.
            drop(stdin.write_all(&input));
        });
        let output = child.wait_with_output().unwrap();
        feed.join().unwrap();
        let mut ran = match output.status.signal() {
            Some(signal) => Err(RemoteError::new(format!("the instance went down ({signal})"))),
            None => Ok(Ran { code: output.status.code().unwrap(), stdout: output.stdout, stderr: output.stderr }),
        };
        if let Ok(ran) = &ran {
            self.received.fetch_add(ran.stdout.len() as u64, Ordering::SeqCst);
        }
        if let Some(hook) = &*self.after.lock().unwrap() {
            hook(number, &mut ran);
        }
        ran
    }

    fn output_limit(&self) -> u64 {
        self.limit
    }
}

/// A folder, its copy, and where the state is.
pub(crate) struct Pair {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) machine: Machine,
}

impl Pair {
    pub(crate) fn new(shell: Shell) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir(folder.path().join("host")).unwrap();
        Self { folder, machine: Machine::new(shell) }
    }

    pub(crate) fn host(&self) -> PathBuf {
        self.folder.path().join("host")
    }

    /// A name that is not easy for a shell.
    pub(crate) fn instance(&self) -> PathBuf {
        self.folder.path().join("in st'an\"ce $x")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state").join("pair")
    }

    pub(crate) fn sync(&self) -> Sync {
        Sync::new(self.host(), self.instance().to_str().unwrap(), self.state()).label("vm")
    }

    pub(crate) fn push(&self) -> Pushed {
        self.try_push().unwrap()
    }

    pub(crate) fn pull(&self) -> Pulled {
        self.try_pull().unwrap()
    }

    pub(crate) fn try_push(&self) -> pcoder_sync::Result<Pushed> {
        block_on(self.sync().push(&self.machine))
    }

    pub(crate) fn try_pull(&self) -> pcoder_sync::Result<Pulled> {
        block_on(self.sync().pull(&self.machine))
    }

    pub(crate) fn assert_same(&self) {
        let (host, instance) = (tree(&self.host()), tree(&self.instance()));
        if host != instance {
            let only = |a: &BTreeMap<PathBuf, Node>, b: &BTreeMap<PathBuf, Node>| {
                a.iter()
                    .filter(|(path, node)| b.get(*path) != Some(node))
                    .map(|it| format!("{it:?}"))
                    .collect::<Vec<_>>()
            };
            panic!("host: {:#?}\ninstance: {:#?}", only(&host, &instance), only(&instance, &host));
        }
    }

    /// A further push and pull find nothing to do, in one run each.
    pub(crate) fn assert_settled(&self) {
        self.machine.counted();
        let pushed = self.push();
        assert_eq!((pushed.files, pushed.deleted, pushed.conflicts.len()), (0, 0, 0), "{pushed:?}");
        assert_eq!(self.machine.counted(), 1, "a push without changes is one run");
        let pulled = self.pull();
        assert!(pulled.changed.is_empty() && pulled.created.is_empty() && pulled.deleted.is_empty(), "{pulled:?}");
        assert_eq!(self.machine.counted(), 1, "a pull without changes is one run");
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// What is at a path, as far as it is synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    File { content: Vec<u8>, mode: u32, mtime: i64 },
    Link(OsString),
    Folder { mode: u32 },
    Special,
}

/// Everything in a folder.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            let metadata = entry.metadata().unwrap();
            let mode = metadata.mode() & 0o777;
            let kind = metadata.file_type();
            let node = if kind.is_symlink() {
                Node::Link(std::fs::read_link(entry.path()).unwrap().into_os_string())
            } else if kind.is_dir() {
                folders.push(path.clone());
                Node::Folder { mode }
            } else if kind.is_fifo() || kind.is_socket() {
                Node::Special
            } else {
                Node::File { content: std::fs::read(entry.path()).unwrap(), mode, mtime: metadata.mtime() }
            };
            found.insert(path, node);
        }
    }
    found
}

pub(crate) fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let path = path.as_ref();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    String::from_utf8(std::fs::read(path).unwrap()).unwrap()
}

pub(crate) fn set_mode(path: impl AsRef<Path>, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
