//! A machine that is made up: its files, and what its programs answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::sys::Sys;

#[derive(Clone)]
pub(crate) struct Fake {
    os: &'static str,
    arch: &'static str,
    variables: HashMap<String, OsString>,
    files: HashMap<String, String>,
    devices: HashMap<String, Result<(), ErrorKind>>,
    path: HashMap<String, PathBuf>,
    programs: BTreeMap<PathBuf, String>,
    /// Answers to other questions than `--version`.
    answers: HashMap<String, String>,
}

impl Fake {
    pub(crate) fn new(os: &'static str, arch: &'static str) -> Self {
        Self {
            os,
            arch,
            variables: HashMap::new(),
            files: HashMap::new(),
            devices: HashMap::new(),
            path: HashMap::new(),
            programs: BTreeMap::new(),
            answers: HashMap::new(),
        }
    }

    pub(crate) fn linux() -> Self {
        Self::new("linux", "x86_64")
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    pub(crate) fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.to_owned(), text.to_owned());
        self
    }

    pub(crate) fn device(mut self, path: &str, opens: Result<(), ErrorKind>) -> Self {
        self.devices.insert(path.to_owned(), opens);
        self
    }

    /// A program, and its version.
    pub(crate) fn program(mut self, path: &str, version: &str) -> Self {
        self.programs.insert(path.into(), version.to_owned());
        self
    }

    pub(crate) fn on_path(mut self, name: &str, version: &str) -> Self {
        let path = format!("/bin/{name}");
        self.path.insert(name.to_owned(), path.clone().into());
        self.program(&path, version)
    }

    /// What a program answers to these arguments.
    pub(crate) fn answers(mut self, args: &str, text: &str) -> Self {
        self.answers.insert(args.to_owned(), text.to_owned());
        self
    }
}

#[async_trait]
impl Sys for Fake {
    fn os(&self) -> &str {
        self.os
    }
    fn arch(&self) -> &str {
        self.arch
    }
    fn cpus(&self) -> Option<usize> {
        Some(8)
    }
    fn variable(&self, name: &str) -> Option<OsString> {
        self.variables.get(name).cloned()
    }
    fn text(&self, path: &str) -> Option<String> {
        self.files.get(path).cloned()
    }
    fn exists(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }
    fn is_program(&self, path: &Path) -> bool {
        self.programs.contains_key(path)
    }
    fn entries(&self, folder: &Path) -> Vec<PathBuf> {
        let below = self.programs.keys().filter_map(|it| it.strip_prefix(folder).ok()?.components().next());
        let names: BTreeSet<_> = below.collect();
        names.into_iter().map(|name| folder.join(name)).collect()
    }
    fn opens(&self, path: &str) -> Result<(), io::ErrorKind> {
        self.devices.get(path).copied().unwrap_or(Err(ErrorKind::NotFound))
    }
    fn free(&self) -> Option<u64> {
        None
    }
    fn find(&self, program: &str) -> Option<PathBuf> {
        self.path.get(program).cloned()
    }
    async fn output(&self, program: &Path, args: &[&str]) -> Result<String, String> {
        let args = args.join(" ");
        match self.programs.get(program) {
            Some(version) if args == "--version" => Ok(version.clone()),
            Some(_) => self.answers.get(&args).cloned().ok_or_else(|| format!("`{args}` ended with exit status: 1")),
            None => Err("it does not start".to_owned()),
        }
    }
    async fn answer(&self, program: &Path, args: &[&str]) -> Result<String, String> {
        self.output(program, args).await.map(|it| it.lines().next().unwrap_or_default().to_owned())
    }
}
