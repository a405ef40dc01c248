//! A run on a machine that is not this one: booted for it or there already, with the project synced to it and back.
//!
//! Nothing that the agent did is lost: when its changes cannot be brought back, the instance stays.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pcoder_runtime::contract::agent::{AgentInfo, Launch};
use pcoder_runtime::contract::provider::{BootOptions, Instance};
use pcoder_runtime::contract::{CommandSpec, ExitStatus, Setting};
use pcoder_runtime::error::code;
use pcoder_runtime::host::stdio::Stdio;
use pcoder_runtime::manifest::Kind;
use pcoder_runtime::shell::quote;
use pcoder_runtime::{Error, Plugin, text};
use pcoder_sync::{Ran, Remote, RemoteError, Sync};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

pub use pcoder_sync::{Conflict, Progress, Pulled, Pushed, Skipped, Stage};

use crate::capture::{Captured, Feed, capture};
use crate::egress::{Hosts, Refused};
use crate::engine_disks::ForGuest;
use crate::instances::{Provider, With, exit_code};
use crate::private_tmp::PrivateTmp;
use crate::profiles::RunLimits;
use crate::reach::{Reach, WAY_BACK, Wanted};
use crate::run::{Control, HOST_PATHS};
use crate::run_surroundings::SessionIdentity;
pub use crate::unfinished::UnfinishedRun;
use crate::unfinished::{self, Begun, UnfinishedRuns};
use crate::{Pcoder, RunRequest};

/// The most that one command on the instance may write while a project is synced.
const SYNC_OUTPUT: u64 = 64 << 20;

/// How a run on another machine gets its instance, and what goes to and fro.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// What is booted.
    pub boot: BootOptions,
    /// One that is there already, which stays.
    pub instance: Option<String>,
    /// Leave the instance running that was booted.
    pub keep: bool,
    /// Bring the project there.
    pub sync: bool,
    /// Bring its changes back.
    pub sync_back: bool,
    /// Patterns of what is not synced, as in `.gitignore`.
    pub ignore: Vec<String>,
}

/// What is being done, for those who watch.
#[derive(Debug)]
#[non_exhaustive]
pub enum Note<'a> {
    /// The disk with engines is written.
    Engines(EnginesWritten),
    /// An instance is being booted, or resumed.
    Booting,
    /// An earlier run was cut off, and what its agent did is not here. Where its instance is not known, this is said
    /// once.
    CutOff(&'a UnfinishedRun),
    /// It is ready.
    Ready(&'a str),
    /// Files are packed or unpacked.
    Syncing(Progress),
    /// The project is there.
    Pushed(&'a Pushed),
    /// Its changes are here.
    Pulled(&'a Pulled),
    /// The instance is gone.
    Terminated(&'a str),
    /// The instance goes on.
    Left(&'a str),
    /// The agent is told to reach ports of this host's loopback, and the instance is not told where this host is.
    NoWayBack(&'a BTreeSet<u16>),
    /// The agent wanted to reach what its network does not let it reach.
    Refused(&'a Refused),
}

/// How far the disk with engines is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnginesWritten {
    /// What is on it.
    pub done: u64,
    /// What will be.
    pub total: u64,
}

/// Who watches.
pub type Watcher = Arc<dyn Fn(Note<'_>) + Send + std::marker::Sync>;

/// A run that could start now. Nothing was booted.
pub struct RemoteRun<'a> {
    pcoder: &'a Pcoder,
    agent: Plugin,
    info: AgentInfo,
    provider: Provider<'a>,
    /// What its machine is to have, where that is brought there as a disk.
    engines: Option<ForGuest>,
    /// Its machines have ways back to this host.
    leads_back: bool,
    /// What the profile allows on a restricted network.
    allow: Hosts,
    project: PathBuf,
    request: RunRequest,
    options: RemoteOptions,
    identity: SessionIdentity,
    limits: RunLimits,
    watcher: Watcher,
}

impl Pcoder {
    /// Whether commands of a provider run on this machine.
    ///
    /// # Errors
    /// `not-found` for an unknown one.
    pub async fn runs_here(&self, provider: &str) -> Result<bool, Error> {
        self.provider(provider, CancellationToken::new()).await?.has(HOST_PATHS).await
    }

    /// Checks everything that a run on another machine needs, and looks up its secrets.
    ///
    /// # Errors
    /// As [`Pcoder::prepare`]; `unsupported` for what only this machine has.
    pub async fn remote_run(
        &self,
        request: RunRequest,
        options: RemoteOptions,
        watcher: Watcher,
    ) -> Result<RemoteRun<'_>, Error> {
        // By one name whatever way leads to it: what is remembered of it is kept by that name, here and on the
        // instance.
        let project = unfinished::without_links(&self.project_folder(request.project.as_deref())?);
        let only_here = |what: &str, flag: &str| {
            Err(Error::new(code::UNSUPPORTED, "run", format!("{what} is for runs on this machine"))
                .subject(text::for_people(&request.provider, 80))
                .hint(format!("leave `{flag}` out, or use `--provider local`")))
        };
        if request.private_tmp == PrivateTmp::Required {
            return only_here("a `/tmp` of its own", "--private-tmp");
        }
        let agent = self.plugin(Kind::Agent, &request.tool).await?;
        let info = agent.agent()?.info(self.context(&agent)).await?;
        let provider = self.provider(&request.provider, CancellationToken::new()).await?;
        // An instance that is there keeps what it was booted with.
        let engines = match &options.instance {
            None => self.for_guest(&provider, &request.tool, request.version.as_deref()).await?,
            Some(_) => None,
        };
        if request.version.is_some() && engines.is_none() {
            return only_here("the choice of an engine's version", "--engine-version");
        }
        let profile = match &request.profile {
            Some(name) => Some(self.profile_for(name, &request.tool)?),
            None => None,
        };
        let account = self.account(&request.tool, profile.as_ref())?;
        let source = provider.secret_source();
        let leads_back = provider.has(WAY_BACK).await?;
        let identity =
            self.session_identity(&request.tool, &info, account, profile.as_ref(), source, leads_back).await?;
        if !leads_back && !identity.here.is_empty() {
            watcher(Note::NoWayBack(&identity.here));
        }
        let allow = profile.as_ref().map(|it| it.network_allow.clone()).unwrap_or_default();
        let limits = profile.map(|profile| profile.limits).unwrap_or_default();
        Ok(RemoteRun {
            pcoder: self,
            agent,
            info,
            provider,
            engines,
            leads_back,
            allow,
            project,
            request,
            options,
            identity,
            limits,
            watcher,
        })
    }
}

impl RemoteRun<'_> {
    /// A handle on the run, to be had before it starts.
    pub fn control(&self) -> Control {
        self.provider.control()
    }

    /// What `--json` keeps of each stream, in bytes, where the profile says so.
    pub fn output_limit(&self) -> Option<u64> {
        self.limits.output_mib.map(|mib| mib.get().saturating_mul(1 << 20))
    }

    /// The same as [`RemoteRun::run`] with what the tool prints kept, at most `limit` bytes of each stream.
    ///
    /// # Errors
    /// As [`RemoteRun::run`].
    pub async fn capture(&self, input: Feed, limit: u64, control: &Control) -> Result<Captured, Error> {
        capture(input, limit, |stdio| self.run(stdio, control)).await
    }

    /// The tool's own command line on the instance, to its end, with these streams.
    ///
    /// # Errors
    /// The plugins', those of the sync, `cancelled`. An instance that was booted for the run is ended, unless the
    /// agent's changes could not be brought back: then the error names it.
    pub async fn run(&self, stdio: Stdio, control: &Control) -> Result<ExitStatus, Error> {
        // Until the tool runs the whole run can be cancelled; then only the tool, and what it did is brought back.
        let early = self.provider.until(control.cancel.clone());
        let unfinished = self.unfinished();
        let goes_on = self.cut_off(&unfinished, &early).await?;
        let is_new = goes_on.is_none();
        let begun = match goes_on {
            Some(begun) => begun,
            None => self.begin(&unfinished)?,
        };
        let (instance, ours) = match self.instance(&early, control).await {
            Ok(got) => got,
            Err(error) => {
                if is_new {
                    begun.forget();
                }
                return Err(error);
            }
        };
        // Written down before there is anything to miss.
        let written = begun.is_on(&instance.id);
        (self.watcher)(Note::Ready(&instance.id));
        let sync = match written.and(folder(&early, &instance, &self.project).await) {
            Ok((home, folder)) => Ok((home, self.sync(&instance.id, &folder), folder)),
            Err(error) => Err(error),
        };
        let (result, back) = match &sync {
            Ok((home, sync, folder)) => {
                let result = self.there(&early, &instance, home, folder, sync, stdio, control).await;
                let back = match (&result, self.options.sync && self.options.sync_back) {
                    // What was never brought there has no changes.
                    (Err(Failed::Before(_)), _) | (_, false) => Ok(false),
                    (_, true) => self.pull(&instance.id, sync).await.map(|()| true),
                };
                (result.map_err(Failed::into_inner), back)
            }
            Err(error) => (Err(error.clone()), Ok(false)),
        };
        let (result, is_back) = match back {
            Ok(is_back) if ours && !self.options.keep => {
                let ended = self.provider.terminate(&instance.id).await;
                if ended.is_ok() {
                    drop(std::fs::remove_file(self.state(&instance.id)));
                    (self.watcher)(Note::Terminated(&instance.id));
                }
                (result.and_then(|status| ended.map(|()| status)), is_back)
            }
            Ok(is_back) => {
                (self.watcher)(Note::Left(&instance.id));
                (result, is_back)
            }
            Err(error) => {
                (self.watcher)(Note::Left(&instance.id));
                return Err(self.still_there(&instance.id, &error));
            }
        };
        // What an earlier run has left there is missed until it was brought back.
        if is_back || is_new {
            begun.forget();
        }
        if is_back {
            unfinished.forget(&self.project_name(), &self.request.provider, &instance.id);
        }
        result
    }

    fn still_there(&self, instance: &str, error: &Error) -> Error {
        let message = format!("the agent's changes are still on the instance: {}", error.message);
        Error::new(error.code.clone(), "run.sync", message).subject(instance).hint(format!(
            "`pcoder run {} --provider {} --instance {instance}` tries again; the instance stays until it is terminated",
            self.request.tool, self.request.provider
        ))
    }

    /// The project as it is written down: by one name, which is compared and nothing else.
    fn project_name(&self) -> String {
        let name = std::fs::canonicalize(&self.project);
        name.unwrap_or_else(|_| self.project.clone()).to_string_lossy().into_owned()
    }

    fn unfinished(&self) -> UnfinishedRuns {
        let layout = self.pcoder.layout();
        UnfinishedRuns::new(layout.runs(), &layout.locks)
    }

    fn begin<'b>(&self, unfinished: &'b UnfinishedRuns) -> Result<Begun<'b>, Error> {
        unfinished.begin(&UnfinishedRun {
            tool: self.request.tool.clone(),
            provider: self.request.provider.clone(),
            project: self.project_name(),
            // One that was named is known from the start.
            instance: self.options.instance.clone(),
        })
    }

    /// Says which runs of this project were cut off, and forgets those of which nothing is left. Returns the one whose
    /// instance this run goes on with.
    async fn cut_off<'b>(
        &self,
        unfinished: &'b UnfinishedRuns,
        provider: &Provider<'_>,
    ) -> Result<Option<Begun<'b>>, Error> {
        let mut goes_on = None;
        for (name, run) in unfinished.cut_off(&self.project_name(), &self.request.provider)? {
            // Nobody is kept from it while its provider is asked.
            let forget = || unfinished.take(&name).into_iter().for_each(Begun::forget);
            match &run.instance {
                None => {
                    (self.watcher)(Note::CutOff(&run));
                    forget();
                }
                Some(id) if self.options.instance.as_ref() == Some(id) => {
                    goes_on = goes_on.or_else(|| unfinished.take(&name));
                }
                Some(id) if provider.get(id).await.is_err_and(|error| error.is(code::NOT_FOUND)) => forget(),
                Some(_) => (self.watcher)(Note::CutOff(&run)),
            }
        }
        Ok(goes_on)
    }

    /// The instance, and whether it was booted for this run.
    async fn instance(&self, provider: &Provider<'_>, control: &Control) -> Result<(Instance, bool), Error> {
        let Some(id) = &self.options.instance else {
            let mut boot = self.options.boot.clone();
            let watched = Arc::new(Watched(Arc::clone(&self.watcher)));
            // Kept until the instance names it.
            let _disk = match &self.engines {
                Some(wanted) => self.pcoder.with_engines(wanted, &mut boot, watched, control.cancel.clone()).await?,
                None => None,
            };
            (self.watcher)(Note::Booting);
            return Ok((provider.boot(&boot).await?, true));
        };
        (self.watcher)(Note::Booting);
        let instance = provider.get(id).await?;
        match instance.status.as_str() {
            "stopped" | "stopping" => Ok((provider.resume(id).await?, false)),
            _ => Ok((instance, false)),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a run has at this point, from one caller")]
    async fn there(
        &self,
        early: &Provider<'_>,
        instance: &Instance,
        home: &str,
        folder: &str,
        sync: &Sync,
        stdio: Stdio,
        control: &Control,
    ) -> Result<ExitStatus, Failed> {
        let id = &instance.id;
        let there = early.look(id, &self.info.engines).await.map_err(Failed::Before)?;
        if self.options.sync {
            self.push(early, id, sync).await.map_err(Failed::Before)?;
        } else {
            let made = early.shell(id, &format!("mkdir -p {}", quote(folder)), Feed::Nothing, 4096).await;
            made.map_err(Failed::Before)?;
        }
        let mut options = self.identity.options.clone();
        let mut option = |name: &str| options.push(Setting { name: name.to_owned(), value: "true".to_owned() });
        option("sandboxed");
        if there.super_user {
            option("super-user");
        }
        let launch = Launch {
            engines: there.engines,
            args: self.request.args.clone(),
            cwd: folder.to_owned(),
            home_dir: home.to_owned(),
            env: self.identity.settings.clone(),
            options,
        };
        let spec = self.agent.agent().map_err(Failed::Before)?.command(self.pcoder.context(&self.agent), &launch).await;
        let mut spec: CommandSpec = spec.map_err(Failed::Before)?;
        // Behind everything that the plugin says, which never hears of it.
        spec.env.extend(self.identity.key.clone());
        let wall = self.limits.wall_seconds.map(|seconds| Duration::from_secs(seconds.get()));
        let secrets = Some(Arc::clone(&self.identity.secrets));
        let reach = self.reach(instance).await.map_err(Failed::Before)?;
        let with = With { secrets, wall, reach: Some(&reach) };
        let result = self.provider.exec_as(id, &spec, stdio, control, with).await;
        if let Some(refused) = reach.refused() {
            (self.watcher)(Note::Refused(&refused));
        }
        result.map_err(|error| match wall {
            Some(wall) if error.is(code::TIMEOUT) => Failed::While(
                Error::new(code::TIMEOUT, "run", format!("the run was ended after {} s", wall.as_secs()))
                    .subject(&self.request.tool)
                    .hint("`wall-seconds` in its profile says how long a run may take"),
            ),
            _ => Failed::While(error),
        })
    }

    /// What the agent reaches by way of this host.
    async fn reach(&self, instance: &Instance) -> Result<Reach, Error> {
        if !self.leads_back {
            return Ok(Reach::default());
        }
        let wanted = Wanted {
            here: self.identity.here.clone(),
            services: self.identity.services.clone(),
            agent: Some(self.agent.manifest().name.clone()),
            allow: self.allow.clone(),
        };
        self.pcoder.reach(instance, wanted).await
    }

    /// What both sides had after the last sync of this project with this instance.
    fn state(&self, instance: &str) -> PathBuf {
        let pair = format!("{}\0{instance}\0{}", self.request.provider, self.project.display());
        let name: String = Sha256::digest(pair.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.pcoder.layout().syncs().join(name)
    }

    fn sync(&self, instance: &str, folder: &str) -> Sync {
        let watcher = Arc::clone(&self.watcher);
        Sync::new(&self.project, folder, self.state(instance))
            .label(instance)
            .ignore(self.options.ignore.iter().cloned())
            .on_progress(move |progress| watcher(Note::Syncing(progress)))
    }

    async fn push(&self, provider: &Provider<'_>, instance: &str, sync: &Sync) -> Result<(), Error> {
        let remote = OverShell::new(provider, instance);
        let pushed = sync.push(&remote).await.map_err(|error| from_sync(error, &self.project))?;
        (self.watcher)(Note::Pushed(&pushed));
        Ok(())
    }

    async fn pull(&self, instance: &str, sync: &Sync) -> Result<(), Error> {
        let remote = OverShell::new(&self.provider, instance);
        let pulled = sync.pull(&remote).await.map_err(|error| from_sync(error, &self.project))?;
        (self.watcher)(Note::Pulled(&pulled));
        Ok(())
    }
}

/// Hands the progress of a disk with engines on to those who watch a run.
struct Watched(Watcher);

impl pcoder_engines::Progress for Watched {
    fn bytes(&self, done: u64, total: u64) {
        (self.0)(Note::Engines(EnginesWritten { done, total }));
    }
}

/// The home and the project's folder there.
async fn folder(provider: &Provider<'_>, instance: &Instance, project: &Path) -> Result<(String, String), Error> {
    let home = provider.home(instance).await?;
    let name = project.file_name().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
    let plain: String =
        name.chars().map(|it| if it.is_ascii_alphanumeric() || "._-".contains(it) { it } else { '-' }).collect();
    let name = plain.trim_matches(['.', '-']);
    let name = if name.is_empty() { "project" } else { name };
    let folder = format!("{}/projects/{name}", home.trim_end_matches('/'));
    Ok((home, folder))
}

/// A failure, before or after the agent may have changed something.
enum Failed {
    Before(Error),
    While(Error),
}

impl Failed {
    fn into_inner(self) -> Error {
        match self {
            Self::Before(error) | Self::While(error) => error,
        }
    }
}

/// An instance as a sync reaches it: by scripts that its provider runs there.
pub struct OverShell<'a> {
    provider: &'a Provider<'a>,
    instance: &'a str,
}

impl<'a> OverShell<'a> {
    /// The instance of this provider that has this id.
    pub fn new(provider: &'a Provider<'a>, instance: &'a str) -> Self {
        Self { provider, instance }
    }
}

#[async_trait]
impl Remote for OverShell<'_> {
    async fn run(&self, script: &str, input: Vec<u8>) -> Result<Ran, RemoteError> {
        let input = if input.is_empty() { Feed::Nothing } else { Feed::Bytes(input) };
        let said = self.provider.shell(self.instance, script, input, SYNC_OUTPUT).await.map_err(RemoteError::new)?;
        Ok(Ran { code: exit_code(said.status), stdout: said.stdout.bytes, stderr: said.stderr.bytes })
    }

    fn output_limit(&self) -> u64 {
        SYNC_OUTPUT
    }
}

/// An error of a sync, in the one shape. What the provider said keeps its code and its hint.
fn from_sync(error: pcoder_sync::Error, project: &Path) -> Error {
    const OPERATION: &str = "run.sync";
    let (word, hint) = (error.code(), error.hint());
    let subject = error.path().unwrap_or(project).display().to_string();
    let message = error.to_string();
    if let pcoder_sync::Error::Unreachable(inner) = error
        && let Ok(inner) = inner.into_inner().downcast::<Error>()
    {
        return *inner;
    }
    let code = match word {
        "invalid" => code::INVALID,
        "busy" | "changing" => code::CONFLICT,
        "unreachable" => code::UNAVAILABLE,
        "remote-failed" => code::PROCESS,
        "unsupported" => code::UNSUPPORTED,
        "garbled" => code::INTEGRITY,
        "limit" => code::LIMIT,
        "internal" => code::INTERNAL,
        _ => code::IO,
    };
    Error::new(code, OPERATION, message).subject(text::for_people(&subject, 400)).hint(hint)
}
