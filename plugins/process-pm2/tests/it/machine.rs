//! An instance that is this machine, with a home of its own: a double of the SDK's `Target` that really does it.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as Pipe};
use std::time::{Duration, Instant};
use std::{fs, thread};

use pcoder_sdk::host::{
    Clock, Files, Http, Input, Log, Process, ProcessManagerHost, Random, Secrets, Services, Settings, Ssh, Stdio, Talk,
    Target, WebSocket, WebSockets,
};
use pcoder_sdk::http::{Arriving, Body, Request, Response};
use pcoder_sdk::testing::FakeHost;
use pcoder_sdk::types::{Command as What, Endpoint, Entry, Level, ServiceSpec, ServiceStatus};
use pcoder_sdk::{
    CommandSpec, Error, ExitStatus, Output, ProcessInfo, ProcessManager as _, ProcessSpec, Result, Setting,
    WriteOptions, code, path,
};
use process_pm2::Pm2;
use tempfile::TempDir;

/// What stands for the secret until a file is written.
pub(crate) const PLACEHOLDER: &str = "pcoder-placeholder-0001";
/// The secret, as bad as one can be.
pub(crate) const SECRET: &str = "hunter2'; touch /tmp/pwned; '\"$(id)`\n\\ =end\n\n";

/// A home folder, with PM2 on its path.
pub(crate) struct Home {
    folder: TempDir,
    path: OsString,
}

/// One caller on it. Each thread has its own.
pub(crate) struct Machine<'a> {
    home: &'a Home,
    env: Vec<(String, String)>,
    rest: FakeHost,
}

impl Home {
    /// A new one; nothing when PM2 cannot be installed here.
    pub(crate) fn new() -> Option<Self> {
        let mut path = pcoder_test_npm::pm2(Path::new(env!("CARGO_TARGET_TMPDIR")))?.into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        Some(Self { folder: tempfile::tempdir().unwrap(), path })
    }

    /// The same home with only these programs on its path, and PM2's.
    pub(crate) fn with_programs_but(mut self, missing: &[&str]) -> Self {
        let bin = self.folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for folder in std::env::split_paths(&self.path) {
            for entry in fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap()) {
                if !missing.iter().any(|missing| entry.file_name() == *missing) {
                    // The first one on the path wins.
                    drop(std::os::unix::fs::symlink(entry.path(), bin.join(entry.file_name())));
                }
            }
        }
        self.path = bin.into_os_string();
        self
    }

    /// One home for each shell that may be `sh` on an instance.
    pub(crate) fn of_each_shell() -> Vec<Self> {
        let homes = ["dash", "bash", "busybox"].into_iter().filter_map(|shell| {
            let home = Self::new()?.with_programs_but(&["sh"]);
            let program = fs::canonicalize(home.path("bin").join(shell)).ok()?;
            std::os::unix::fs::symlink(program, home.path("bin/sh")).unwrap();
            Some(home)
        });
        homes.collect()
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// The daemon's process id.
    pub(crate) fn daemon(&self) -> u32 {
        fs::read_to_string(self.path(".pm2/pm2.pid")).unwrap().trim().parse().unwrap()
    }

    pub(crate) fn machine(&self) -> Machine<'_> {
        Machine { home: self, env: Vec::new(), rest: FakeHost::new() }
    }

    /// Puts a program in front of all others that does what a shell's script says; `with_programs_but` comes before.
    pub(crate) fn program(&self, name: &str, script: &str) {
        let file = self.path("bin").join(name);
        drop(fs::remove_file(&file));
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs PM2 as its user would.
    pub(crate) fn pm2(&self, args: &[&str]) -> String {
        self.pm2_with(&[], args)
    }

    /// With variables too, which the daemon has when this starts it.
    pub(crate) fn pm2_with(&self, variables: &[(&str, &str)], args: &[&str]) -> String {
        let mut command = Command::new("pm2");
        command.env_clear().env("PATH", &self.path).env("HOME", self.folder.path()).args(args);
        command.envs(variables.iter().copied());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    /// The processes whose command line holds a text.
    pub(crate) fn processes(text: &str) -> Vec<(u32, String)> {
        let output = Command::new("ps").args(["-e", "-ww", "-o", "pid=,args="]).output().unwrap();
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = listed.lines().filter_map(|line| line.trim().split_once(' '));
        let lines = lines.filter(|(_, line)| line.contains(text));
        lines.map(|(pid, line)| (pid.parse().unwrap(), line.to_owned())).collect()
    }
}

/// Every daemon ends with its home, and all that it runs.
impl Drop for Home {
    fn drop(&mut self) {
        if !self.path(".pm2/rpc.sock").exists() {
            return;
        }
        let mut kill = Command::new("pm2");
        kill.args(["kill", "-s"]).stdout(Pipe::null()).stderr(Pipe::null());
        let Ok(mut kill) = kill.env_clear().env("PATH", &self.path).env("HOME", self.folder.path()).spawn() else {
            return;
        };
        let end = Instant::now() + Duration::from_secs(20);
        while matches!(kill.try_wait(), Ok(None)) {
            if Instant::now() > end {
                drop(kill.kill());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Waits for something, for half a minute.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: in vain");
        thread::sleep(Duration::from_millis(50));
    }
}

impl Machine<'_> {
    /// Sets a variable of the instance, as its image or provider would.
    pub(crate) fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn host(&self) -> ProcessManagerHost<'_> {
        ProcessManagerHost::double(self)
    }

    pub(crate) fn start(&self, name: &str, command: CommandSpec) -> Result<ProcessInfo> {
        Pm2.start(self.host(), ProcessSpec::once(command.named(name)))
    }

    pub(crate) fn list(&self) -> Vec<ProcessInfo> {
        let list = Pm2.list(self.host()).unwrap();
        assert_eq!(self.rest.logged(), []);
        list
    }

    /// The first copy of a process.
    pub(crate) fn info(&self, name: &str) -> ProcessInfo {
        self.list().into_iter().find(|info| info.name == name).expect(name)
    }

    pub(crate) fn until_status(&self, name: &str, status: &str) -> ProcessInfo {
        until(&format!("{name} is {status}"), || Some(self.info(name)).filter(|info| info.status == status))
    }

    pub(crate) fn out(&self, name: &str) -> String {
        Pm2.logs(self.host(), name, 1000).unwrap().out
    }

    fn on_disk(&self, file: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(path::absolute(file, self.home.folder.path().to_str().unwrap())?))
    }
}

fn io(operation: &str, error: &std::io::Error) -> Error {
    Error::new(code::IO, operation, error.to_string())
}

impl Target for Machine<'_> {
    fn home_dir(&self) -> Result<String> {
        Ok(self.home.folder.path().to_str().unwrap().to_owned())
    }

    fn run(&self, spec: &CommandSpec, input: &[u8]) -> Result<Output> {
        assert!(spec.cwd.is_none() && spec.env.is_empty() && spec.path_entries.is_empty());
        let What::Argv(argv) = &spec.command else { panic!("the plugin quotes nothing for the outer shell") };
        let mut command = Command::new(&argv.program);
        command.args(&argv.args).current_dir(self.home.folder.path());
        command.env_clear().env("PATH", &self.home.path).env("HOME", self.home.folder.path());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let mut child = command.stdin(Pipe::piped()).stdout(Pipe::piped()).stderr(Pipe::piped()).spawn().unwrap();
        drop(child.stdin.take().unwrap().write_all(input));
        let output = child.wait_with_output().unwrap();
        let status = match output.status.code() {
            Some(code) => ExitStatus::Exited(code),
            None => ExitStatus::Signaled(output.status.signal().unwrap()),
        };
        Ok(Output { status, stdout: output.stdout, stderr: output.stderr })
    }

    fn write_file_atomic(&self, path: &str, content: &[u8], options: WriteOptions) -> Result<()> {
        let path = self.on_disk(path)?;
        let content = String::from_utf8(content.to_vec()).unwrap().replace(PLACEHOLDER, SECRET);
        let failed = |error: std::io::Error| io("target.write-file-atomic", &error);
        let temporary = path.with_extension("temporary");
        let mut file = fs::OpenOptions::new();
        let file = file.write(true).create_new(true).mode(options.mode.unwrap_or(0o644)).open(&temporary);
        file.map_err(failed)?.write_all(content.as_bytes()).map_err(failed)?;
        fs::rename(temporary, path).map_err(failed)
    }

    fn delete_directory(&self, path: &str) -> Result<()> {
        let path = self.on_disk(path)?;
        assert!(path.starts_with(self.home.folder.path().join(".pm2/pcoder/run")));
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("target.delete-directory", &error)),
            _ => Ok(()),
        }
    }

    fn exec(&self, _spec: &CommandSpec, _stdio: Stdio<'_>) -> Result<ExitStatus> {
        unused()
    }
    fn read_file(&self, _path: &str) -> Result<Vec<u8>> {
        unused()
    }
    fn write_file(&self, _path: &str, _content: &[u8], _options: WriteOptions) -> Result<()> {
        unused()
    }
    fn file_exists(&self, _path: &str) -> Result<bool> {
        unused()
    }
    fn create_directory(&self, _path: &str, _mode: Option<u32>) -> Result<()> {
        unused()
    }
    fn delete_file(&self, _path: &str) -> Result<()> {
        unused()
    }
}

fn unused<T>() -> T {
    panic!("the plugin does not use this")
}

impl Log for Machine<'_> {
    fn log(&self, level: Level, message: &str) {
        self.rest.log(level, message);
    }
}

impl Random for Machine<'_> {
    fn bits(&self) -> u64 {
        let mut bytes = [0; 8];
        std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut bytes).unwrap();
        u64::from_ne_bytes(bytes)
    }
}

impl Process for Machine<'_> {
    fn run(&self, _spec: &CommandSpec, _stdio: Stdio<'_>) -> Result<ExitStatus> {
        unused()
    }
    fn capture(&self, _spec: &CommandSpec, _input: &[u8]) -> Result<Output> {
        unused()
    }
}

impl Files for Machine<'_> {
    fn read(&self, _root: &str, _path: &str) -> Result<Vec<u8>> {
        unused()
    }
    fn write(&self, _root: &str, _path: &str, _content: &[u8], _options: WriteOptions) -> Result<()> {
        unused()
    }
    fn write_atomic(&self, _root: &str, _path: &str, _content: &[u8], _options: WriteOptions) -> Result<()> {
        unused()
    }
    fn list(&self, _root: &str, _path: &str) -> Result<Vec<Entry>> {
        unused()
    }
    fn stat(&self, _root: &str, _path: &str) -> Result<Entry> {
        unused()
    }
    fn rename(&self, _root: &str, _from: &str, _to: &str) -> Result<()> {
        unused()
    }
    fn remove(&self, _root: &str, _path: &str, _recursive: bool) -> Result<()> {
        unused()
    }
    fn create_directory(&self, _root: &str, _path: &str, _mode: Option<u32>) -> Result<()> {
        unused()
    }
}

impl Services for Machine<'_> {
    fn start(&self, _name: &str, _spec: &ServiceSpec) -> Result<ServiceStatus> {
        unused()
    }
    fn status(&self, _name: &str) -> Result<Option<ServiceStatus>> {
        unused()
    }
    fn list(&self) -> Result<Vec<ServiceStatus>> {
        unused()
    }
    fn stop(&self, _name: &str, _grace: Duration) -> Result<Option<ExitStatus>> {
        unused()
    }
    fn remove(&self, _name: &str) -> Result<()> {
        unused()
    }
    fn log_tail(&self, _name: &str, _bytes: u32) -> Result<Vec<u8>> {
        unused()
    }
    fn talk(&self, _name: &str, _patience: Duration) -> Result<Box<dyn Talk>> {
        unused()
    }
}

impl Ssh for Machine<'_> {
    fn exec(&self, _endpoint: &Endpoint, _spec: &CommandSpec, _stdio: Stdio<'_>) -> Result<ExitStatus> {
        unused()
    }
    fn capture(&self, _endpoint: &Endpoint, _spec: &CommandSpec, _input: &[u8]) -> Result<Output> {
        unused()
    }
    fn public_key(&self, _credential: &str) -> Result<String> {
        unused()
    }
    fn read_file(&self, _endpoint: &Endpoint, _path: &str) -> Result<Vec<u8>> {
        unused()
    }
    fn write_file(&self, _endpoint: &Endpoint, _path: &str, _content: &[u8], _options: WriteOptions) -> Result<()> {
        unused()
    }
    fn forward(&self, _endpoint: &Endpoint, _port: u16) -> Result<u16> {
        unused()
    }
}

impl WebSockets for Machine<'_> {
    fn connect(&self, _url: &str, _headers: &[Setting]) -> Result<Box<dyn WebSocket>> {
        unused()
    }
}

impl Http for Machine<'_> {
    fn send(&self, _request: &Request) -> Result<Response> {
        unused()
    }

    fn open(&self, _request: &Request) -> Result<Arriving> {
        unused()
    }

    fn wait(&self, _: &mut [&mut Body], _: Option<&mut Input<'_>>, _: Option<Stdio<'_>>, _: Duration) {
        unused()
    }
}

impl Secrets for Machine<'_> {
    fn get(&self, _name: &str) -> Result<String> {
        unused()
    }

    fn filled_size(&self, _content: &[u8]) -> u64 {
        unused()
    }
}

impl Settings for Machine<'_> {
    fn get(&self, _name: &str) -> Option<String> {
        unused()
    }
}

impl Clock for Machine<'_> {
    fn now_ms(&self) -> u64 {
        unused()
    }
    fn monotonic(&self) -> Duration {
        unused()
    }
    fn sleep(&self, _duration: Duration) {
        unused()
    }
}

/// Ends one process by force.
pub(crate) fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

/// The mode of a file or folder.
pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
