//! A machine from nothing to a session that runs on it, whatever the backend: an instance of a provider, credentials
//! that are installed, an agent that a process manager keeps.
//!
//! Waiting for an instance is its provider's work, and nothing here polls for it. What fails names the instance and
//! what was being done, and leaves no instance behind that nobody knows of.

mod credentials;
mod events;
mod smoke;

use std::path::PathBuf;
use std::sync::Arc;

use pcoder_runtime::contract::agent::{Launch, SessionInput};
use pcoder_runtime::contract::process_manager::{ProcessInfo, ProcessLogs};
use pcoder_runtime::contract::provider::{BootOptions, Instance};
use pcoder_runtime::contract::{ProcessSpec, Setting, WriteOptions};
use pcoder_runtime::manifest::Kind;
use pcoder_runtime::secrets::{Broker, SecretSource};
use pcoder_runtime::target::Target;
use pcoder_runtime::{Error, Plugin};
use serde_json::{Map, Value};

pub use self::credentials::CredentialName;
pub use self::events::{Event, Events, Untold};
pub use self::smoke::{Outcome, SMOKE_PROMPT, SmokeOptions, Step};
use crate::Pcoder;
use crate::egress::Hosts;
use crate::instances::Provider;
use crate::run::HOST_PATHS;
use crate::run_surroundings::SessionIdentity;

/// The bits of `.machine.json`: its owner writes, its group reads.
const MACHINE_INFO_MODE: u32 = 0o640;

/// What is to be booted, and what is put onto it.
#[derive(Clone, Debug)]
pub struct BootRequest {
    /// What is booted.
    pub boot: BootOptions,
    /// The agent that it is for, whose engines come along where the provider takes them as a disk.
    pub tool: Option<String>,
    /// Credentials, in this order.
    pub credentials: Vec<CredentialName>,
    /// What `.machine.json` says besides when it was made.
    pub machine_info: Map<String, Value>,
}

/// An instance that is ready for sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedInstance {
    /// Its identity.
    pub instance_id: String,
    /// The home folder on it.
    pub home_dir: String,
    /// The files with credentials that were installed.
    pub credential_files: Vec<String>,
}

/// A session that is to run unattended.
#[derive(Clone, Debug, Default)]
pub struct SessionRequest {
    /// The agent.
    pub tool: String,
    /// How it uses the tool.
    pub profile: Option<String>,
    /// What it is to do.
    pub prompt: String,
    /// What is added to its system prompt.
    pub system_prompt: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// A name for the process.
    pub name: Option<String>,
    /// The working folder on the instance. Without it, the home.
    pub cwd: Option<String>,
    /// A session to go on with.
    pub resume: Option<String>,
    /// What the agent may do without asking, in its own words.
    pub permission_mode: Option<String>,
    /// Variables on top of the profile's.
    pub env: Vec<(String, String)>,
}

/// What an agent is started with on an instance.
struct Session {
    /// The name of its plugin.
    agent: String,
    spec: ProcessSpec,
    identity: SessionIdentity,
    home: String,
    /// What the profile allows on a restricted network.
    allow: Hosts,
}

/// Does all of it on one provider, with one process manager.
pub struct Orchestrator<'a> {
    pcoder: &'a Pcoder,
    provider: Provider<'a>,
    manager: Plugin,
    manager_name: String,
    events: Arc<dyn Events>,
}

impl Pcoder {
    /// An orchestrator. `events` hears of every step before it is done.
    ///
    /// # Errors
    /// `not-found` for an unknown process manager.
    pub async fn orchestrator<'a>(
        &'a self,
        provider: Provider<'a>,
        manager: &str,
        events: Arc<dyn Events>,
    ) -> Result<Orchestrator<'a>, Error> {
        let plugin = self.plugin(Kind::ProcessManager, manager).await?;
        Ok(Orchestrator { pcoder: self, provider, manager: plugin, manager_name: manager.to_owned(), events })
    }
}

impl Orchestrator<'_> {
    fn record(&self, event: Event) -> Result<(), Error> {
        self.events.record(events::now_ms(), &event)
    }

    /// Boots an instance, installs credentials on it and says there what it is. What fails after the boot ends the
    /// instance.
    ///
    /// # Errors
    /// Those of the plugins, with the step and the instance.
    pub async fn boot_and_prepare(&self, request: &BootRequest) -> Result<PreparedInstance, Error> {
        const OPERATION: &str = "orchestrator.boot-and-prepare";
        let (provider, image) = (self.provider.name().to_owned(), request.boot.image.clone());
        self.record(Event::BootStarted { provider, image })?;
        let instance = match self.boot(request).await {
            Ok(instance) => instance,
            Err(error) => {
                self.record(Event::BootFailed { instance: None, error: error.clone() })?;
                return Err(error);
            }
        };
        let prepared = self.prepare(&instance, request).await;
        let error = match prepared {
            Ok(prepared) => return Ok(prepared),
            Err(error) => in_instance(OPERATION, &instance.id, error),
        };
        // Nobody was told of the instance yet, so nobody else can end it.
        drop(self.record(Event::BootFailed { instance: Some(instance.id.clone()), error: error.clone() }));
        match self.terminate(&instance.id).await {
            Ok(()) => Err(error),
            Err(left) => {
                let message = format!("{}; and the instance could not be ended: {}", error.message, left.message);
                Err(Error::new(error.code.clone(), OPERATION, message).subject(&instance.id).hint(format!(
                    "`pcoder instance terminate {} --provider {}`",
                    instance.id,
                    self.provider.name()
                )))
            }
        }
    }

    async fn boot(&self, request: &BootRequest) -> Result<Instance, Error> {
        let wanted = match &request.tool {
            Some(tool) => self.pcoder.for_guest(&self.provider, tool, None).await?,
            None => None,
        };
        let mut boot = request.boot.clone();
        // Kept until the instance names it.
        let _disk = match &wanted {
            Some(wanted) => {
                let silent = Arc::new(pcoder_engines::Silent);
                self.pcoder.with_engines(wanted, &mut boot, silent, self.provider.cancel().clone()).await?
            }
            None => None,
        };
        self.provider.boot(&boot).await
    }

    async fn prepare(&self, instance: &Instance, request: &BootRequest) -> Result<PreparedInstance, Error> {
        let id = &instance.id;
        self.record(Event::BootReady { instance: id.clone() })?;
        let home = self.provider.home(instance).await?;
        let target = self.target(id, &home);
        let mut credential_files = Vec::new();
        for name in &request.credentials {
            let credentials = name.to_string();
            self.record(Event::CredsInstalling { instance: id.clone(), credentials: credentials.clone() })?;
            credential_files.extend(self.pcoder.install_credentials(name, Arc::clone(&target)).await?);
            self.record(Event::CredsInstalled { instance: id.clone(), credentials })?;
        }
        let path = format!("{home}/.machine.json");
        let mut info = request.machine_info.clone();
        info.insert(
            "createdAt".to_owned(),
            humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string().into(),
        );
        let content = format!("{}\n", Value::Object(info)).into_bytes();
        let options = WriteOptions { create_parents: false, mode: Some(MACHINE_INFO_MODE), owner: None };
        self.provider.write_file(id, &path, &content, options).await?;
        self.record(Event::MachineInfoWritten { instance: id.clone(), path })?;
        Ok(PreparedInstance { instance_id: id.clone(), home_dir: home, credential_files })
    }

    /// Starts an agent on an instance, and returns the process that the manager knows it by.
    ///
    /// # Errors
    /// Those of the plugins, with the step and the instance; `not-found` when the agent is not on the instance.
    pub async fn start_session(&self, instance: &str, request: &SessionRequest) -> Result<String, Error> {
        const OPERATION: &str = "orchestrator.start-session";
        self.record(Event::SessionStarting { instance: instance.to_owned(), tool: request.tool.clone() })?;
        match self.start(instance, request).await {
            Ok(process) => {
                self.record(Event::SessionStarted { instance: instance.to_owned(), process: process.clone() })?;
                Ok(process)
            }
            Err(error) => {
                let error = in_instance(OPERATION, instance, error);
                self.record(Event::SessionError { instance: instance.to_owned(), error: error.clone() })?;
                Err(error)
            }
        }
    }

    async fn start(&self, instance: &str, request: &SessionRequest) -> Result<String, Error> {
        let described = self.provider.get(instance).await?;
        let Session { mut spec, identity, home, .. } =
            self.session(&described, request, self.pcoder.secret_source(), false).await?;
        // Behind everything that the plugin says, which never hears of it.
        spec.command.env.extend(identity.key);
        self.start_process_with(instance, &home, &spec, identity.secrets).await.map(|it| it.name)
    }

    /// What an agent is started with on an instance. `source` has the secrets of the plugin that its command goes to;
    /// `leads_back` as in [`Pcoder::session_identity`].
    async fn session(
        &self,
        described: &Instance,
        request: &SessionRequest,
        source: Arc<dyn SecretSource>,
        leads_back: bool,
    ) -> Result<Session, Error> {
        let instance = described.id.as_str();
        let agent = self.pcoder.plugin(Kind::Agent, &request.tool).await?;
        let info = agent.agent()?.info(self.pcoder.context(&agent)).await?;
        let profile = match &request.profile {
            Some(name) => Some(self.pcoder.profile_for(name, &request.tool)?),
            None => None,
        };
        let home = self.provider.home(described).await?;
        let sandboxed = !self.provider.has(HOST_PATHS).await?;
        let there = self.provider.look(instance, &info.engines).await?;
        let account = self.pcoder.account(&request.tool, profile.as_ref())?;
        let identity =
            self.pcoder.session_identity(&request.tool, &info, account, profile.as_ref(), source, leads_back).await?;
        let mut options = identity.options.clone();
        let mut option = |name: &str, value: &str| {
            options.push(Setting { name: name.to_owned(), value: value.to_owned() });
        };
        if there.super_user {
            option("super-user", "true");
        }
        if sandboxed {
            option("sandboxed", "true");
        }
        if let Some(mode) = &request.permission_mode {
            option("permission-mode", mode);
        }
        let mut env = identity.settings.clone();
        env.extend(request.env.iter().map(|(name, value)| Setting { name: name.clone(), value: value.clone() }));
        let launch = Launch {
            engines: there.engines,
            args: Vec::new(),
            cwd: request.cwd.clone().unwrap_or_else(|| home.clone()),
            home_dir: home.clone(),
            env,
            options,
        };
        let input = SessionInput {
            prompt: request.prompt.clone(),
            system_prompt: request.system_prompt.clone(),
            model: request.model.clone(),
            name: request.name.clone(),
            resume: request.resume.clone(),
            launch,
        };
        let spec = agent.agent()?.to_process_spec(self.pcoder.context(&agent), &input).await?;
        let allow = profile.map(|it| it.network_allow).unwrap_or_default();
        Ok(Session { agent: agent.manifest().name.clone(), spec, identity, home, allow })
    }

    async fn start_process_with(
        &self,
        instance: &str,
        home: &str,
        spec: &ProcessSpec,
        secrets: Arc<Broker>,
    ) -> Result<ProcessInfo, Error> {
        let mut context = self.pcoder.context_on(&self.manager, self.target(instance, home));
        context.secrets = secrets;
        self.manager.process_manager()?.start(context, spec).await
    }

    /// Starts any process.
    ///
    /// # Errors
    /// Those of the plugins, with the instance.
    pub async fn start_process(&self, instance: &str, spec: &ProcessSpec) -> Result<ProcessInfo, Error> {
        let home = self.home_of(instance).await?;
        let secrets = Arc::new(Broker::new(self.pcoder.secret_source()));
        let started = self.start_process_with(instance, &home, spec, secrets).await;
        started.map_err(|error| in_instance("orchestrator.start-process", instance, error))
    }

    /// The last lines that a process wrote.
    ///
    /// # Errors
    /// `not-found`, and those of the plugins, with the instance.
    pub async fn logs(&self, instance: &str, process: &str, lines: u32) -> Result<ProcessLogs, Error> {
        let context = self.manager_context(instance).await?;
        let logs = self.manager.process_manager()?.logs(context, process, lines).await;
        logs.map_err(|error| in_instance("orchestrator.logs", instance, error))
    }

    /// The processes on an instance.
    ///
    /// # Errors
    /// Those of the plugins, with the instance.
    pub async fn list_processes(&self, instance: &str) -> Result<Vec<ProcessInfo>, Error> {
        let context = self.manager_context(instance).await?;
        let list = self.manager.process_manager()?.list(context).await;
        list.map_err(|error| in_instance("orchestrator.list-processes", instance, error))
    }

    /// Ends a process and leaves it in the list.
    ///
    /// # Errors
    /// `not-found`, and those of the plugins, with the instance.
    pub async fn stop_process(&self, instance: &str, process: &str) -> Result<(), Error> {
        let context = self.manager_context(instance).await?;
        let stopped = self.manager.process_manager()?.stop(context, process).await;
        stopped.map_err(|error| in_instance("orchestrator.stop-process", instance, error))
    }

    /// Ends a process and takes it off the list.
    ///
    /// # Errors
    /// Those of the plugins, with the instance.
    pub async fn delete_process(&self, instance: &str, process: &str) -> Result<(), Error> {
        let context = self.manager_context(instance).await?;
        let deleted = self.manager.process_manager()?.delete(context, process).await;
        deleted.map_err(|error| in_instance("orchestrator.delete-process", instance, error))
    }

    /// Ends an instance.
    ///
    /// # Errors
    /// The provider's.
    pub async fn terminate(&self, instance: &str) -> Result<(), Error> {
        self.record(Event::Terminating { instance: instance.to_owned() })?;
        self.provider.terminate(instance).await?;
        self.record(Event::Terminated { instance: instance.to_owned() })
    }

    async fn home_of(&self, instance: &str) -> Result<String, Error> {
        let described = self.provider.get(instance).await?;
        self.provider.home(&described).await
    }

    async fn manager_context(&self, instance: &str) -> Result<pcoder_runtime::call::CallContext, Error> {
        let home = self.home_of(instance).await?;
        Ok(self.pcoder.context_on(&self.manager, self.target(instance, &home)))
    }

    fn target(&self, instance: &str, home: &str) -> Arc<dyn Target> {
        self.provider.target(instance, PathBuf::from(home))
    }
}

/// An error with the instance that it happened on, and the step.
fn in_instance(operation: &'static str, instance: &str, error: Error) -> Error {
    let step = &error.operation;
    let of = match &error.subject {
        Some(subject) if subject != instance => format!("{step} of {subject}"),
        _ => step.to_string(),
    };
    let wrapped =
        Error::new(error.code.clone(), operation, format!("{} (in {of})", error.message)).subject(instance).hint(
            error.hint.clone().unwrap_or_else(|| "`pcoder instance get INSTANCE` shows how the instance is".to_owned()),
        );
    match error.retry_after_ms {
        Some(wait) => wrapped.retry_after(std::time::Duration::from_millis(wait)),
        None => wrapped,
    }
}
