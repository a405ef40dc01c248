//! A real shell.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A shell of an instance. Whoever runs `sh` there runs this one.
#[derive(Debug)]
pub struct Shell {
    name: &'static str,
    path: OsString,
    folder: PathBuf,
}

impl Shell {
    /// Makes the folder.
    pub(crate) fn new(name: &'static str, folder: &Path) -> Self {
        let search = env::var_os("PATH").unwrap();
        let program = env::split_paths(&search).map(|folder| folder.join(name)).find(|program| program.exists());
        let program = program.unwrap_or_else(|| panic!("`{name}` is missing, and commands are to go through it"));
        let bin = folder.join("bin");
        fs::create_dir_all(&bin).unwrap();
        symlink(program, bin.join("sh")).unwrap();
        let path = env::join_paths([bin].into_iter().chain(env::split_paths(&search))).unwrap();
        Self { name, path, folder: folder.to_owned() }
    }

    pub(crate) fn name(&self) -> &str {
        self.name
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it prints with these arguments. It has no variables but the ones it needs, and no input.
    pub fn run<S: AsRef<str>>(&self, home: &str, arguments: &[S]) -> Vec<u8> {
        let mut command = Command::new(self.name);
        command.args(arguments.iter().map(AsRef::as_ref)).current_dir("/");
        command.env_clear().env("PATH", &self.path).env("HOME", home);
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        output.unwrap().stdout
    }
}
