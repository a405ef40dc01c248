use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::calls::Call;
use super::files::Tree;
use super::services::{Program, Running};
use crate::error::{Error, Result, code};
use crate::host::{
    AgentHost, Clock, CredentialsHost, Files, Http, Input, Log, Process, ProcessManagerHost, ProviderHost, Random,
    Secrets, Services, Settings, Ssh, Stdio, Talk, Target, WebSocket, WebSockets,
};
use crate::http::{Arriving, Body, Request, Response};
use crate::path;
use crate::types::{
    CommandSpec, Endpoint, Entry, ExitStatus, Level, Output, ServiceSpec, ServiceStatus, Setting, WriteOptions,
};

/// What answers requests that no answer was queued for.
type Server = Box<dyn Fn(&Request) -> Result<Response>>;
/// What plays the programs of services.
type Launcher = Box<dyn Fn(&str, &ServiceSpec) -> Result<Box<dyn Program>>>;

/// A host in memory that records what was asked of it.
pub struct FakeHost {
    home: String,
    calls: RefCell<Vec<Call>>,
    answers: RefCell<BTreeMap<&'static str, VecDeque<Result<Output>>>>,
    responses: RefCell<VecDeque<Result<Response>>>,
    server: Option<Server>,
    failures: RefCell<BTreeMap<&'static str, VecDeque<Error>>>,
    secrets: RefCell<BTreeMap<String, String>>,
    settings: RefCell<BTreeMap<String, String>>,
    services: RefCell<BTreeMap<String, ServiceStatus>>,
    launcher: Option<Launcher>,
    programs: RefCell<BTreeMap<String, Rc<Running>>>,
    left: Rc<Cell<Option<usize>>>,
    host_files: Rc<RefCell<Tree>>,
    target_files: RefCell<Tree>,
    now: Rc<Cell<Duration>>,
    random: Cell<u64>,
    lines: RefCell<Vec<(Level, String)>>,
}

impl Default for FakeHost {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeHost {
    /// A host with nothing on it; the target's home folder is `/home/user`.
    pub fn new() -> Self {
        Self {
            home: "/home/user".to_owned(),
            calls: RefCell::default(),
            answers: RefCell::default(),
            responses: RefCell::default(),
            server: None,
            failures: RefCell::default(),
            secrets: RefCell::default(),
            settings: RefCell::default(),
            services: RefCell::default(),
            launcher: None,
            programs: RefCell::default(),
            left: Rc::default(),
            host_files: Rc::default(),
            target_files: RefCell::default(),
            now: Rc::new(Cell::new(Duration::from_secs(1_700_000_000))),
            random: Cell::new(0x9E37_79B9_7F4A_7C15),
            lines: RefCell::default(),
        }
    }

    /// What a provider gets.
    pub fn provider(&self) -> ProviderHost<'_> {
        ProviderHost::double(self)
    }

    /// What a process manager gets.
    pub fn process_manager(&self) -> ProcessManagerHost<'_> {
        ProcessManagerHost::double(self)
    }

    /// What an agent gets.
    pub fn agent(&self) -> AgentHost<'_> {
        AgentHost::double(self)
    }

    /// What a credentials installer gets.
    pub fn credentials(&self) -> CredentialsHost<'_> {
        CredentialsHost::double(self)
    }

    /// Puts an answer into the queue of an operation that runs commands: `process.run`, `process.capture`,
    /// `target.run`, `target.exec`, `ssh.exec`, `ssh.capture`. Those with streams write the output to them.
    pub fn answer(&self, operation: &'static str, answer: Result<Output>) {
        self.answers.borrow_mut().entry(operation).or_default().push_back(answer);
    }

    /// Puts an answer into HTTP's queue.
    pub fn respond(&self, response: Result<Response>) {
        self.responses.borrow_mut().push_back(response);
    }

    /// Answers every request that no answer is queued for.
    #[must_use]
    pub fn served_by(mut self, server: impl Fn(&Request) -> Result<Response> + 'static) -> Self {
        self.server = Some(Box::new(server));
        self
    }

    /// Plays every program that is started as a service. Without it they run, say nothing, and nobody talks with them.
    #[must_use]
    pub fn running(mut self, launcher: impl Fn(&str, &ServiceSpec) -> Result<Box<dyn Program>> + 'static) -> Self {
        self.launcher = Some(Box::new(launcher));
        self
    }

    /// Lets this many more calls and messages through, and then nothing any more until [`FakeHost::revive`]: as for a
    /// plugin that is killed there. Every later call fails with `cancelled`.
    pub fn die_after(&self, calls: usize) {
        self.left.set(Some(calls));
    }

    /// Lets everything through again.
    pub fn revive(&self) {
        self.left.set(None);
    }

    /// Makes what is known of a service `lost`, as after a restart of the machine.
    pub fn lose(&self, name: &str) {
        self.programs.borrow_mut().remove(name);
        if let Some(status) = self.services.borrow_mut().get_mut(name) {
            status.state = "lost".to_owned();
        }
    }

    /// Makes the next call of an operation fail, whichever it is. The failed call is recorded too.
    pub fn fail(&self, operation: &'static str, error: Error) {
        self.failures.borrow_mut().entry(operation).or_default().push_back(error);
    }

    /// Sets a secret; what the plugin gets is the placeholder.
    pub fn secret(&self, name: impl Into<String>, placeholder: impl Into<String>) {
        self.secrets.borrow_mut().insert(name.into(), placeholder.into());
    }

    /// Sets one of the plugin's settings.
    pub fn set(&self, name: impl Into<String>, value: impl Into<String>) {
        self.settings.borrow_mut().insert(name.into(), value.into());
    }

    /// Puts a file onto the target.
    pub fn put(&self, path: &str, content: &[u8]) {
        let path = self.on_target(path);
        self.target_files.borrow_mut().write(&path, content, None);
    }

    /// Puts a file onto the host.
    pub fn put_on_host(&self, root: &str, path: &str, content: &[u8]) {
        self.host_files.borrow_mut().write(&on_host(root, path), content, None);
    }

    /// The content of a file on the target.
    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        self.target_files.borrow().get(&self.on_target(path)).and_then(|node| node.content.clone())
    }

    /// The mode of a file or folder on the target, where one was asked for.
    pub fn mode(&self, path: &str) -> Option<u32> {
        self.target_files.borrow().get(&self.on_target(path)).and_then(|node| node.mode)
    }

    /// The content of a file on the host.
    pub fn host_file(&self, root: &str, path: &str) -> Option<Vec<u8>> {
        self.host_files.borrow().get(&on_host(root, path)).and_then(|node| node.content.clone())
    }

    /// Every call so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }

    /// Every call so far, one line each.
    pub fn log_of_calls(&self) -> Vec<String> {
        self.calls.borrow().iter().map(ToString::to_string).collect()
    }

    /// What was logged.
    pub fn logged(&self) -> Vec<(Level, String)> {
        self.lines.borrow().clone()
    }

    fn on_target(&self, path: &str) -> String {
        path::absolute(path, &self.home).unwrap_or_else(|_| path.to_owned())
    }

    /// A service as it is now.
    fn look(&self, name: &str) -> Option<ServiceStatus> {
        let ended = self.programs.borrow().get(name).and_then(|it| it.ended());
        let mut services = self.services.borrow_mut();
        let status = services.get_mut(name)?;
        if ended.is_some() {
            status.state = "ended".to_owned();
            status.exit = ended;
        }
        Some(status.clone())
    }

    fn record(&self, call: Call) -> Result<()> {
        let operation = call.operation;
        lives(&self.left, operation)?;
        self.calls.borrow_mut().push(call);
        match self.failures.borrow_mut().get_mut(operation).and_then(VecDeque::pop_front) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn next(&self, operation: &'static str) -> Result<Output> {
        let answer = self.answers.borrow_mut().get_mut(operation).and_then(VecDeque::pop_front);
        answer.unwrap_or_else(|| Ok(Output::new(0, "", "")))
    }

    fn connected(&self, operation: &'static str, spec: &CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus> {
        self.record(Call::new(operation, "").spec(spec))?;
        let output = self.next(operation)?;
        let broken = |error: std::io::Error| Error::new(code::IO, operation, error.to_string());
        stdio.stdout()?.write_all(&output.stdout).map_err(broken)?;
        stdio.stderr()?.write_all(&output.stderr).map_err(broken)?;
        Ok(output.status)
    }
}

/// Counts down what is left of a life.
pub(crate) fn lives(left: &Cell<Option<usize>>, operation: &str) -> Result<()> {
    match left.get() {
        Some(0) => Err(Error::new(code::CANCELLED, operation, "the call was killed")),
        Some(more) => {
            left.set(Some(more - 1));
            Ok(())
        }
        None => Ok(()),
    }
}

fn on_host(root: &str, path: &str) -> String {
    format!("{root}:{path}")
}

impl Process for FakeHost {
    fn run(&self, spec: &CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus> {
        self.connected("process.run", spec, stdio)
    }

    fn capture(&self, spec: &CommandSpec, input: &[u8]) -> Result<Output> {
        self.record(Call::new("process.capture", "").spec(spec).content(input))?;
        self.next("process.capture")
    }
}

impl Services for FakeHost {
    fn start(&self, name: &str, spec: &ServiceSpec) -> Result<ServiceStatus> {
        let program = crate::shell::join(std::iter::once(&spec.program).chain(&spec.args));
        self.record(Call::new("service.start", format!("{name} in {}: {program}", spec.folder)))?;
        if self.look(name).is_some_and(|status| self.launcher.is_none() || status.state == "running") {
            return Err(Error::new(code::CONFLICT, "service.start", "it is running already").subject(name));
        }
        if let Some(launcher) = &self.launcher {
            let program = Running::start(launcher(name, spec)?, &self.host_files, &spec.folder, &self.now, &self.left);
            self.programs.borrow_mut().insert(name.to_owned(), Rc::new(program));
        }
        let started = u64::try_from(self.now.get().as_millis()).ok();
        let status =
            ServiceStatus { name: name.to_owned(), state: "running".to_owned(), exit: None, started_ms: started };
        self.services.borrow_mut().insert(name.to_owned(), status.clone());
        Ok(status)
    }

    fn status(&self, name: &str) -> Result<Option<ServiceStatus>> {
        self.record(Call::new("service.status", name))?;
        Ok(self.look(name))
    }

    fn list(&self) -> Result<Vec<ServiceStatus>> {
        self.record(Call::new("service.list", ""))?;
        let names: Vec<String> = self.services.borrow().keys().cloned().collect();
        Ok(names.iter().filter_map(|name| self.look(name)).collect())
    }

    fn stop(&self, name: &str, _: Duration) -> Result<Option<ExitStatus>> {
        self.record(Call::new("service.stop", name))?;
        let program = self.programs.borrow().get(name).cloned();
        let exit = program.map_or(Some(ExitStatus::Exited(0)), |it| it.stop());
        Ok(self.services.borrow_mut().get_mut(name).and_then(|status| {
            status.state = "ended".to_owned();
            status.exit = exit;
            exit
        }))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.record(Call::new("service.remove", name))?;
        self.programs.borrow_mut().remove(name);
        self.services.borrow_mut().remove(name);
        Ok(())
    }

    fn log_tail(&self, name: &str, _: u32) -> Result<Vec<u8>> {
        self.record(Call::new("service.log-tail", name))?;
        Ok(self.programs.borrow().get(name).map(|it| it.log()).unwrap_or_default())
    }

    fn talk(&self, name: &str, _: Duration) -> Result<Box<dyn Talk>> {
        self.record(Call::new("service.talk", name))?;
        let program = self.programs.borrow().get(name).cloned();
        let nobody = || Error::new(code::NOT_FOUND, "service.talk", "no such program runs").subject(name);
        program.ok_or_else(nobody)?.talk()
    }
}

impl Files for FakeHost {
    fn read(&self, root: &str, path: &str) -> Result<Vec<u8>> {
        let path = on_host(root, path);
        self.record(Call::new("files.read", &path))?;
        self.host_files.borrow().read("files.read", &path)
    }

    fn write(&self, root: &str, path: &str, content: &[u8], options: WriteOptions) -> Result<()> {
        let mode = options.mode;
        let path = on_host(root, path);
        self.record(Call::new("files.write", &path).content(content).options(options))?;
        self.host_files.borrow_mut().write(&path, content, mode);
        Ok(())
    }

    fn write_atomic(&self, root: &str, path: &str, content: &[u8], options: WriteOptions) -> Result<()> {
        let mode = options.mode;
        let path = on_host(root, path);
        self.record(Call::new("files.write-atomic", &path).content(content).options(options))?;
        self.host_files.borrow_mut().write(&path, content, mode);
        Ok(())
    }

    fn list(&self, root: &str, path: &str) -> Result<Vec<Entry>> {
        let path = on_host(root, path);
        self.record(Call::new("files.list", &path))?;
        Ok(self.host_files.borrow().list(&path))
    }

    fn stat(&self, root: &str, path: &str) -> Result<Entry> {
        let path = on_host(root, path);
        self.record(Call::new("files.stat", &path))?;
        self.host_files.borrow().stat("files.stat", &path)
    }

    fn rename(&self, root: &str, from: &str, to: &str) -> Result<()> {
        let (from, to) = (on_host(root, from), on_host(root, to));
        self.record(Call::new("files.rename", format!("{from} {to}")))?;
        self.host_files.borrow_mut().rename("files.rename", &from, &to)
    }

    fn remove(&self, root: &str, path: &str, recursive: bool) -> Result<()> {
        let path = on_host(root, path);
        self.record(Call::new("files.remove", &path))?;
        if self.host_files.borrow_mut().remove(&path, recursive) {
            return Ok(());
        }
        Err(Error::new(code::NOT_FOUND, "files.remove", "there is no such file").subject(path))
    }

    fn create_directory(&self, root: &str, path: &str, mode: Option<u32>) -> Result<()> {
        let path = on_host(root, path);
        self.record(Call::new("files.create-directory", &path))?;
        self.host_files.borrow_mut().create(&path, mode);
        Ok(())
    }
}

impl Target for FakeHost {
    fn home_dir(&self) -> Result<String> {
        self.record(Call::new("target.home-dir", &self.home))?;
        Ok(self.home.clone())
    }

    fn run(&self, spec: &CommandSpec, input: &[u8]) -> Result<Output> {
        self.record(Call::new("target.run", "").spec(spec).content(input))?;
        self.next("target.run")
    }

    fn exec(&self, spec: &CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus> {
        self.connected("target.exec", spec, stdio)
    }

    fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        self.record(Call::new("target.read-file", path))?;
        self.target_files.borrow().read("target.read-file", &self.on_target(path))
    }

    fn write_file(&self, path: &str, content: &[u8], options: WriteOptions) -> Result<()> {
        let mode = options.mode;
        self.record(Call::new("target.write-file", path).content(content).options(options))?;
        self.target_files.borrow_mut().write(&self.on_target(path), content, mode);
        Ok(())
    }

    fn write_file_atomic(&self, path: &str, content: &[u8], options: WriteOptions) -> Result<()> {
        let mode = options.mode;
        self.record(Call::new("target.write-file-atomic", path).content(content).options(options))?;
        self.target_files.borrow_mut().write(&self.on_target(path), content, mode);
        Ok(())
    }

    fn file_exists(&self, path: &str) -> Result<bool> {
        self.record(Call::new("target.file-exists", path))?;
        Ok(self.target_files.borrow().exists(&self.on_target(path)))
    }

    fn create_directory(&self, path: &str, mode: Option<u32>) -> Result<()> {
        let options = WriteOptions { create_parents: false, mode, owner: None };
        self.record(Call::new("target.create-directory", path).options(options))?;
        self.target_files.borrow_mut().create(&self.on_target(path), mode);
        Ok(())
    }

    fn delete_file(&self, path: &str) -> Result<()> {
        self.record(Call::new("target.delete-file", path))?;
        self.target_files.borrow_mut().remove(&self.on_target(path), false);
        Ok(())
    }

    fn delete_directory(&self, path: &str) -> Result<()> {
        self.record(Call::new("target.delete-directory", path))?;
        self.target_files.borrow_mut().remove(&self.on_target(path), true);
        Ok(())
    }
}

impl Ssh for FakeHost {
    fn exec(&self, _endpoint: &Endpoint, spec: &CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus> {
        self.connected("ssh.exec", spec, stdio)
    }

    fn capture(&self, _endpoint: &Endpoint, spec: &CommandSpec, input: &[u8]) -> Result<Output> {
        self.record(Call::new("ssh.capture", "").spec(spec).content(input))?;
        self.next("ssh.capture")
    }

    fn public_key(&self, credential: &str) -> Result<String> {
        self.record(Call::new("ssh.public-key", credential))?;
        Ok(format!("ssh-ed25519 {credential}"))
    }

    fn read_file(&self, endpoint: &Endpoint, path: &str) -> Result<Vec<u8>> {
        let path = on_host(&endpoint.host, path);
        self.record(Call::new("ssh.read-file", &path))?;
        self.host_files.borrow().read("ssh.read-file", &path)
    }

    fn write_file(&self, endpoint: &Endpoint, path: &str, content: &[u8], options: WriteOptions) -> Result<()> {
        let mode = options.mode;
        let path = on_host(&endpoint.host, path);
        self.record(Call::new("ssh.write-file", &path).content(content).options(options))?;
        self.host_files.borrow_mut().write(&path, content, mode);
        Ok(())
    }

    fn forward(&self, endpoint: &Endpoint, port: u16) -> Result<u16> {
        self.record(Call::new("ssh.forward", format!("{}:{port}", endpoint.host)))?;
        Ok(port)
    }
}

impl WebSockets for FakeHost {
    fn connect(&self, url: &str, _headers: &[Setting]) -> Result<Box<dyn WebSocket>> {
        self.record(Call::new("websocket.connect", url))?;
        Err(Error::new(code::NETWORK, "websocket.connect", "the fake host has no WebSocket server").subject(url))
    }
}

impl Http for FakeHost {
    fn send(&self, request: &Request) -> Result<Response> {
        self.record(Call::new("http.send", format!("{} {}", request.method, request.url)).content(&request.body))?;
        if let Some(response) = self.responses.borrow_mut().pop_front() {
            return response;
        }
        match &self.server {
            Some(server) => server(request),
            None => Ok(Response { status: 200, headers: Vec::new(), body: Vec::new() }),
        }
    }

    fn open(&self, request: &Request) -> Result<Arriving> {
        let Response { status, headers, body } = self.send(request)?;
        Ok(Arriving { status, headers, body: Body::whole(body) })
    }

    /// What is there is there from the beginning, so only the time goes on.
    fn wait(&self, bodies: &mut [&mut Body], input: Option<&mut Input<'_>>, _: Option<Stdio<'_>>, longest: Duration) {
        if !bodies.iter_mut().any(|body| body.is_ready()) && !input.is_some_and(|input| input.is_ready()) {
            self.now.set(self.now.get().saturating_add(longest));
        }
    }
}

impl Secrets for FakeHost {
    fn get(&self, name: &str) -> Result<String> {
        self.record(Call::new("secrets.get", name))?;
        self.secrets
            .borrow()
            .get(name)
            .cloned()
            .ok_or_else(|| Error::new(code::UNAUTHENTICATED, "secrets.get", "the secret is not set").subject(name))
    }

    /// As it is: a double has no values.
    fn filled_size(&self, content: &[u8]) -> u64 {
        content.len() as u64
    }
}

impl Settings for FakeHost {
    fn get(&self, name: &str) -> Option<String> {
        self.settings.borrow().get(name).cloned()
    }
}

impl Clock for FakeHost {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.now.get().as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.now.get()
    }

    fn sleep(&self, duration: Duration) {
        self.calls.borrow_mut().push(Call::new("clock.sleep", format!("{duration:?}")));
        self.now.set(self.now.get().saturating_add(duration));
    }
}

impl Random for FakeHost {
    /// The same row in every test: xorshift.
    fn bits(&self) -> u64 {
        let mut bits = self.random.get();
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        self.random.set(bits);
        bits
    }
}

impl Log for FakeHost {
    fn log(&self, level: Level, message: &str) {
        self.lines.borrow_mut().push((level, message.to_owned()));
    }
}
