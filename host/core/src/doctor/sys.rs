//! This machine, as whatever looks at machines asks for it.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use pcoder_runtime::capability::exec;
use pcoder_vm::Sys;

use super::folders::nearest;
use super::programs;
use crate::Surroundings;

/// Files that are read here have a few lines; `/proc/cpuinfo` of a large machine has some hundred kilobytes.
const LARGEST: u64 = 2 << 20;

/// Folders that are listed here have a few entries.
const MOST: usize = 1000;

/// Every program that is asked prints its version and ends. From a slow stick, or on a busy machine, QEMU takes a while to
/// be read.
const PATIENCE: Duration = Duration::from_secs(20);

/// This one.
pub(crate) struct ThisMachine {
    surroundings: Surroundings,
    path: Option<OsString>,
    environment: Vec<(OsString, OsString)>,
    data: PathBuf,
}

impl ThisMachine {
    pub(crate) fn new(surroundings: &Surroundings, data: &Path) -> Self {
        let needed = ["HOME", "PATH", "SystemRoot", "TEMP", "TMPDIR", "XDG_RUNTIME_DIR"].into_iter();
        let environment = needed.filter_map(|name| Some((name.into(), surroundings.variable(name)?.to_owned())));
        Self {
            surroundings: surroundings.clone(),
            path: surroundings.variable("PATH").map(Into::into),
            environment: environment.collect(),
            data: data.to_path_buf(),
        }
    }
}

#[async_trait]
impl Sys for ThisMachine {
    fn os(&self) -> &str {
        std::env::consts::OS
    }

    fn arch(&self) -> &str {
        std::env::consts::ARCH
    }

    fn cpus(&self) -> Option<usize> {
        std::thread::available_parallelism().ok().map(std::num::NonZeroUsize::get)
    }

    fn variable(&self, name: &str) -> Option<OsString> {
        self.surroundings.variable(name).map(Into::into)
    }

    fn text(&self, path: &str) -> Option<String> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        std::fs::metadata(path).ok().filter(|data| data.is_file())?;
        std::fs::File::open(path).ok()?.take(LARGEST).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn exists(&self, path: &str) -> bool {
        Path::new(path).symlink_metadata().is_ok()
    }

    fn is_program(&self, path: &Path) -> bool {
        pcoder_lookup::is_executable(path)
    }

    fn entries(&self, folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut entries: Vec<_> = entries.take(MOST).collect();
        entries.sort();
        entries
    }

    fn opens(&self, path: &str) -> Result<(), io::ErrorKind> {
        let opened = std::fs::OpenOptions::new().read(true).write(true).open(path);
        opened.map(drop).map_err(|error| error.kind())
    }

    fn free(&self) -> Option<u64> {
        fs4::available_space(nearest(&self.data)?).ok()
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        exec::resolve(program, self.path.as_deref()).ok()
    }

    async fn output(&self, program: &Path, args: &[&str]) -> Result<String, String> {
        programs::output(program, args, &self.environment, PATIENCE).await
    }

    async fn answer(&self, program: &Path, args: &[&str]) -> Result<String, String> {
        programs::first_line(program, args, &self.environment, PATIENCE).await
    }
}
