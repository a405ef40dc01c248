//! `service`: programs on the host that outlive the call. Capability `service`.
//!
//! What a plugin may start and say is the grant's to tell (`capability/service.rs`); how a program is kept is
//! `pcoder-service`'s. This is between the two.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pcoder_service::{Exit, Services, Spec, State, Status};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use wasmtime::component::{Resource, ResourceTableError};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use crate::bindings::host::pcoder::plugin::service::{Host, HostConversation, ServiceSpec, ServiceStatus};
use crate::bindings::host::pcoder::plugin::types::{Error as WitError, ExitStatus};
use crate::call::CallState;
use crate::capability::exec;
use crate::capability::files::{FileAccess, STATE};
use crate::capability::service::ServiceUse;
use crate::error::{Error, code};
use crate::gate::{Gate, Permit};
use crate::manifest::Access;

/// The longest line, either way.
const LINE: u64 = 1 << 20;
/// Lines that wait for the plugin before the program has to.
const WAITING: usize = 64;
/// How many programs one plugin keeps running.
const MOST: usize = 256;
/// The most of a log that is read at once.
const LOG: u32 = 1 << 20;

/// A talk with a program, in lines. Dropping it ends the talk.
pub struct Talk {
    name: String,
    /// Its program, as the plugin asked for it.
    program: String,
    input: Box<dyn AsyncWrite + Send + Unpin>,
    inbox: mpsc::Receiver<Result<String, Error>>,
    /// What `ready` took out of the inbox.
    next: Option<Result<String, Error>>,
    /// Why nothing comes any more.
    ended: Option<Error>,
    _reader: JoinSet<()>,
}

impl Talk {
    fn new(name: String, program: String, talk: pcoder_service::Talk, gate: Arc<Gate>) -> Self {
        let (sender, inbox) = mpsc::channel(WAITING);
        let mut reader = JoinSet::new();
        reader.spawn(read(BufReader::new(talk.output), sender, gate));
        Self { name, program, input: talk.input, inbox, next: None, ended: None, _reader: reader }
    }

    fn receive(&mut self) -> Result<Option<String>, Error> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone());
        }
        let next = match self.next.take() {
            Some(next) => next,
            None => match self.inbox.try_recv() {
                Ok(next) => next,
                Err(mpsc::error::TryRecvError::Empty) => return Ok(None),
                Err(mpsc::error::TryRecvError::Disconnected) => Err(over(&self.name)),
            },
        };
        next.map(Some).map_err(|error| self.ended.insert(error).clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Talk {
    async fn ready(&mut self) {
        if self.next.is_none() && self.ended.is_none() {
            self.next = Some(self.inbox.recv().await.unwrap_or_else(|| Err(over(&self.name))));
        }
    }
}

async fn read(
    mut output: BufReader<impl AsyncRead + Unpin>,
    inbox: mpsc::Sender<Result<String, Error>>,
    gate: Arc<Gate>,
) {
    const OPERATION: &str = "service.receive";
    loop {
        let mut line = Vec::new();
        let read = (&mut output).take(LINE).read_until(b'\n', &mut line).await;
        let next = match read {
            Ok(0) => return,
            Ok(_) if line.last() != Some(&b'\n') && line.len() as u64 == LINE => {
                Err(Error::new(code::LIMIT, OPERATION, format!("a line is longer than {} KiB", LINE >> 10)))
            }
            Ok(read) => gate
                .budget()
                .charge(OPERATION, read as u64)
                .map(|()| String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => Err(Error::io(OPERATION, "output", &error)),
        };
        let last = next.is_err();
        if inbox.send(next).await.is_err() || last {
            return;
        }
    }
}

fn over(name: &str) -> Error {
    Error::new(code::UNAVAILABLE, "service.receive", "the program's output has ended").subject(name)
}

impl Host for CallState {
    async fn start(&mut self, name: String, spec: ServiceSpec) -> Result<ServiceStatus, WitError> {
        const OPERATION: &str = "service.start";
        let effect = ServiceUse::Start { name: name.clone(), program: spec.program.clone(), args: spec.args.clone() };
        let permit = self.gate.authorize(effect)?;
        let program = spec.program.clone();
        let ready = self.services(OPERATION).and_then(|it| Ok((it, self.service_spec(&permit, spec)?)));
        let result = match ready {
            Ok((services, _)) if running(&services) >= MOST => {
                let message = format!("the plugin keeps {MOST} programs running, and may keep no more");
                Err(Error::new(code::LIMIT, OPERATION, message).subject(name).hint("stop some of them"))
            }
            Ok((services, spec)) => {
                let processes = Arc::clone(self.tree.processes());
                let spawn = move |command: &mut tokio::process::Command| {
                    processes.spare(|| command.spawn(), tokio::process::Child::id)
                };
                services.start(&name, &program, spec, spawn).await.map_err(|error| Error::of_service(OPERATION, &error))
            }
            Err(error) => Err(error),
        };
        Ok(permit.finish(0, result.map(described))?)
    }

    async fn status(&mut self, name: String) -> Result<Option<ServiceStatus>, WitError> {
        let (permit, services) = self.own("status", &name)?;
        let status = services.status(&name).map_err(|error| Error::of_service("service.status", &error));
        Ok(permit.finish(0, status)?.map(described))
    }

    async fn list(&mut self) -> Result<Vec<ServiceStatus>, WitError> {
        let (permit, services) = self.own("list", "")?;
        let all = services.list().map_err(|error| Error::of_service("service.list", &error));
        Ok(permit.finish(0, all)?.into_iter().map(described).collect())
    }

    async fn stop(&mut self, name: String, grace_ms: u32) -> Result<Option<ExitStatus>, WitError> {
        let (permit, services) = self.own("stop", &name)?;
        let exit = services.stop(&name, Duration::from_millis(grace_ms.into())).await;
        Ok(permit.finish(0, exit.map_err(|error| Error::of_service("service.stop", &error)))?.map(exit_status))
    }

    async fn remove(&mut self, name: String) -> Result<(), WitError> {
        let (permit, services) = self.own("remove", &name)?;
        Ok(permit.finish(0, services.remove(&name).map_err(|error| Error::of_service("service.remove", &error)))?)
    }

    async fn log_tail(&mut self, name: String, bytes: u32) -> Result<Vec<u8>, WitError> {
        const OPERATION: &str = "service.log-tail";
        let (permit, services) = self.own("log-tail", &name)?;
        let tail =
            services.log_tail(&name, bytes.min(LOG).into()).map_err(|error| Error::of_service(OPERATION, &error));
        let size = tail.as_ref().map_or(0, |it| it.len() as u64);
        let tail = permit.finish(size, tail)?;
        self.charge(OPERATION, size)?;
        Ok(tail)
    }

    async fn talk(&mut self, name: String, patience_ms: u32) -> Result<Resource<Talk>, WitError> {
        const OPERATION: &str = "service.talk";
        let (permit, services) = self.own("talk", &name)?;
        let talk = services.talk(&name, Duration::from_millis(patience_ms.into())).await;
        // Asked for while the talk holds the service: it is the one that is talked with.
        let talk = talk.and_then(|talk| Ok((talk, services.status(&name)?.and_then(|it| it.about))));
        let (talk, program) = permit.finish(0, talk.map_err(|error| Error::of_service(OPERATION, &error)))?;
        let talk = Talk::new(name, program.unwrap_or_default(), talk, Arc::clone(&self.gate));
        Ok(self.keep(OPERATION, talk)?)
    }
}

impl HostConversation for CallState {
    async fn send(&mut self, talk: Resource<Talk>, message: String) -> Result<(), WitError> {
        const OPERATION: &str = "service.send";
        if message.len() as u64 > LINE {
            let message = format!("a message is longer than {} KiB", LINE >> 10);
            return Err(Error::new(code::LIMIT, OPERATION, message).into());
        }
        let message = serde_json::from_str(&message)
            .map_err(|error| Error::new(code::INVALID, OPERATION, format!("a message is a JSON object: {error}")))?;
        let of = self.table.get(&talk).map_err(|error| lost(OPERATION, &error))?;
        let (name, program) = (of.name.clone(), of.program.clone());
        let permit = self.gate.authorize(ServiceUse::Send { name, program, message })?;
        // As it was read and checked, and in one line: what the program reads is what was looked at.
        let ServiceUse::Send { message, .. } = permit.effect() else { return Ok(()) };
        let line = format!("{message}\n");
        let size = line.len() as u64;
        // Before it is sent: what was sent is not to be sent again.
        self.charge(OPERATION, size)?;
        let talk = self.table.get_mut(&talk).map_err(|error| lost(OPERATION, &error))?;
        let sent = async {
            talk.input.write_all(line.as_bytes()).await?;
            talk.input.flush().await
        };
        let sent = sent.await.map_err(|error| {
            Error::new(code::UNAVAILABLE, OPERATION, format!("the program takes no more: {error}")).subject(&talk.name)
        });
        Ok(permit.finish(size, sent)?)
    }

    async fn receive(&mut self, talk: Resource<Talk>) -> Result<Option<String>, WitError> {
        let talk = self.table.get_mut(&talk).map_err(|error| lost("service.receive", &error))?;
        Ok(talk.receive()?)
    }

    async fn subscribe(&mut self, talk: Resource<Talk>) -> Resource<DynPollable> {
        // As with every other stream: what cannot be subscribed to is a handle that is not there.
        subscribe(&mut self.table, talk).unwrap_or_else(|_| Resource::new_own(u32::MAX))
    }

    async fn drop(&mut self, talk: Resource<Talk>) -> wasmtime::Result<()> {
        self.table.delete(talk)?;
        Ok(())
    }
}

impl CallState {
    fn services(&self, operation: &'static str) -> Result<Arc<Services>, Error> {
        self.context
            .services
            .clone()
            .ok_or_else(|| Error::new(code::UNSUPPORTED, operation, "this host keeps no programs running for plugins"))
    }

    fn own(&self, verb: &'static str, name: &str) -> Result<(Permit<ServiceUse>, Arc<Services>), Error> {
        let permit = self.gate.authorize(ServiceUse::Own { verb, name: name.to_owned() })?;
        match self.services("service") {
            Ok(services) => Ok((permit, services)),
            Err(error) => Err(permit.finish::<()>(0, Err(error.clone())).err().unwrap_or(error)),
        }
    }

    /// What comes before the plugin's arguments: whatever one of the layers says, once.
    fn always(&self, start: &ServiceUse) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for line in self.gate.each(|it| Some(start.always(it))).flatten() {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines.iter().flat_map(|line| line.split_whitespace()).map(str::to_owned).collect()
    }

    /// Works out everything that a program gets.
    fn service_spec(&self, permit: &Permit<ServiceUse>, spec: ServiceSpec) -> Result<Spec, Error> {
        const OPERATION: &str = "service.start";
        let granted = self.gate.narrowest(|it| permit.effect().granted_program(it));
        let program = exec::resolve(granted.as_deref().unwrap_or(&spec.program), self.context.path.as_deref())?;
        self.check_granted_program(&program, self.gate.each(|it| permit.effect().pinned(it)))?;
        // Whoever may not write its folder may not have a program write there.
        let access = FileAccess::new("start", Access::ReadWrite, STATE, &spec.folder)?;
        let path = access.path().to_owned();
        let folder = self.gate.authorize(access)?;
        let state = self
            .context
            .roots
            .get(STATE)
            .ok_or_else(|| Error::new(code::NOT_FOUND, OPERATION, "no folder is set for the plugin's own files"))?;
        let cwd = folder.finish(0, below(state, &path))?;
        let find = |root: &str, path: &str| self.readable(root, path);
        // Every layer accepted the arguments; what stands for a path in them is the same in each, or it is refused.
        let mut readings: Vec<Vec<String>> = Vec::new();
        for reading in self.gate.each(|it| permit.effect().filled(it, &find).transpose()) {
            readings.push(reading?);
        }
        let filled = readings.pop().unwrap_or(spec.args);
        if readings.iter().any(|reading| *reading != filled) {
            let message = "what it asks for and what it was granted read the arguments differently";
            return Err(Error::new(code::DENIED, OPERATION, message).subject(spec.program));
        }
        let args = self.always(permit.effect()).into_iter().chain(filled).map(Into::into).collect();
        Ok(Spec { program, args, cwd, env: system() })
    }

    /// Where a file is on this host that the plugin may read.
    fn readable(&self, root: &str, path: &str) -> Result<String, Error> {
        const OPERATION: &str = "service.start";
        let access = FileAccess::new("start", Access::Read, root, path)?;
        let path = access.path().to_owned();
        let permit = self.gate.authorize(access)?;
        let folder = self.context.roots.get(root).ok_or_else(|| {
            Error::new(code::NOT_FOUND, OPERATION, "no folder is set for this root").subject(root.to_owned())
        });
        let found = folder.and_then(|folder| below(folder, &path)).and_then(|found| {
            let plain = plain(&found);
            plain.to_str().map(str::to_owned).ok_or_else(|| {
                Error::new(code::UNSUPPORTED, OPERATION, "the file's path is not Unicode")
                    .subject(found.display().to_string())
                    .hint("move pcoder's folder to one that is")
            })
        });
        permit.finish(0, found)
    }
}

/// How many of them run. Where that cannot be told, starting one says why.
fn running(services: &Services) -> usize {
    let runs = |it: &Status| matches!(it.state, State::Starting | State::Running);
    services.list().map_or(0, |all| all.iter().filter(|it| runs(it)).count())
}

/// Without what Windows puts before a path that was made canonical, which few programs understand.
fn plain(path: &Path) -> &Path {
    match path.to_str().and_then(|it| it.strip_prefix(r"\\?\")) {
        Some(rest) if cfg!(windows) && !rest.starts_with("UNC") => Path::new(rest),
        _ => path,
    }
}

/// What `path` names, which is really below `state`.
fn below(state: &Path, path: &str) -> Result<PathBuf, Error> {
    const OPERATION: &str = "service.start";
    let io = |path: &Path, error: std::io::Error| Error::io(OPERATION, path.display().to_string(), &error);
    let state = state.canonicalize().map_err(|error| io(state, error))?;
    let folder = state.join(path);
    let real = folder.canonicalize().map_err(|error| io(&folder, error))?;
    if real.starts_with(&state) {
        return Ok(real);
    }
    Err(Error::new(code::DENIED, OPERATION, "the path leads outside of its root").subject(path))
}

fn system() -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    super::process::system_variables()
}

fn described(status: Status) -> ServiceStatus {
    let (state, exit) = match status.state {
        State::Starting => ("starting", None),
        State::Running => ("running", None),
        State::Ended(exit) => ("ended", Some(exit_status(exit))),
        _ => ("lost", None),
    };
    ServiceStatus { name: status.name, state: state.to_owned(), exit, started_ms: status.started_ms }
}

fn exit_status(exit: Exit) -> ExitStatus {
    match exit {
        Exit::Exited(code) => ExitStatus::Exited(code),
        Exit::Signaled(signal) => ExitStatus::Signaled(signal),
    }
}

fn lost(operation: &'static str, error: &ResourceTableError) -> Error {
    Error::new(code::INTERNAL, operation, error.to_string())
}
