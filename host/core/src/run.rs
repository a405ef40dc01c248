//! One run of a tool: from its name to its exit status.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use pcoder_runtime::call::{CallContext, Called};
use pcoder_runtime::contract::agent::{AgentInfo, Launch};
use pcoder_runtime::contract::provider::BootOptions;
use pcoder_runtime::contract::{CommandSpec, ExitStatus, Setting};
use pcoder_runtime::error::code;
use pcoder_runtime::host::stdio::Stdio;
use pcoder_runtime::manifest::Kind;
use pcoder_runtime::process::{ProcessTree, Signal};
use pcoder_runtime::{Error, Plugin, call_name, text};
use tokio_util::sync::CancellationToken;

use crate::Pcoder;
use crate::capture::{Captured, Feed, capture};
use crate::engines::{self, Held, utf8};
use crate::layout::absolute;

/// What is to be run, and where.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// The tool's name.
    pub tool: String,
    /// The provider's name.
    pub provider: String,
    /// The project's folder. Without it, the working folder.
    pub project: Option<PathBuf>,
    /// The engine's version. Without it, the default one.
    pub version: Option<String>,
    /// The tool's own arguments.
    pub args: Vec<String>,
    /// Variables on top of the caller's environment.
    pub env: Vec<(String, String)>,
    /// Leave the caller's environment out, but for what any program needs to start.
    pub clear_env: bool,
}

/// Ends a run, and passes signals on to it.
#[derive(Clone)]
pub struct Control {
    cancel: CancellationToken,
    tree: Arc<ProcessTree>,
}

impl Control {
    /// Ends the run and everything that it started.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Passes a signal on to what is running.
    pub fn signal(&self, signal: Signal) {
        self.tree.signal(signal);
    }
}

/// A run that could start now: everything is checked and installed, nothing was started.
pub struct Prepared<'a> {
    pcoder: &'a Pcoder,
    agent: Plugin,
    provider: Plugin,
    project: String,
    home: PathBuf,
    held: Held,
    request: RunRequest,
}

impl Pcoder {
    /// The engines that a run would still have to install, with their versions. `acp`: for a session over the Agent
    /// Client Protocol.
    ///
    /// # Errors
    /// As [`Pcoder::prepare`].
    pub async fn missing_engines(
        &self,
        request: &RunRequest,
        acp: bool,
    ) -> Result<Vec<(String, Option<String>)>, Error> {
        self.check_request(request)?;
        let agent = self.plugin(Kind::Agent, &request.tool)?;
        let info = agent.agent()?.info(self.context(&agent)).await?;
        engines::missing(&self.store()?, needed(&info, acp), request.version.as_deref())
    }

    /// Checks everything that a run needs. It downloads nothing.
    ///
    /// # Errors
    /// `not-found` for an unknown tool or provider, a missing project or engine, with what to do about it; `invalid`
    /// for a project that is no folder.
    pub async fn prepare(&self, request: RunRequest, acp: bool) -> Result<Prepared<'_>, Error> {
        let project = self.check_request(&request)?;
        let agent = self.plugin(Kind::Agent, &request.tool)?;
        let provider = self.plugin(Kind::Provider, &request.provider)?;
        let info = agent.agent()?.info(self.context(&agent)).await?;
        let held = engines::hold(&self.store()?, needed(&info, acp), request.version.as_deref())?;
        let home = request
            .env
            .iter()
            .find(|(name, _)| name == "HOME")
            .map(|(_, home)| PathBuf::from(home))
            .or_else(|| self.surroundings.home())
            .ok_or_else(|| Error::new(code::INVALID, "run", "there is no home folder").hint("set `HOME` to one"))?;
        Ok(Prepared { pcoder: self, agent, provider, project: utf8(&project)?, home, held, request })
    }

    fn check_request(&self, request: &RunRequest) -> Result<PathBuf, Error> {
        let cwd = &self.surroundings.cwd;
        let project = request.project.as_ref().map_or_else(|| cwd.clone(), |project| absolute(cwd, project));
        let shown = || text::for_people(&project.to_string_lossy(), 400);
        match std::fs::metadata(&project) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                return Err(Error::new(code::INVALID, "run", "the project is a file, not a folder")
                    .subject(shown())
                    .hint("give the folder that it is in: `--project FOLDER`"));
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(Error::new(code::NOT_FOUND, "run", "the project's folder is not there")
                    .subject(shown())
                    .hint("create it, or give another one: `--project FOLDER`"));
            }
            Err(error) => return Err(Error::io("run", shown(), &error)),
        }
        // Both are looked for before anything is downloaded.
        self.plugin(Kind::Agent, &request.tool)?;
        self.plugin(Kind::Provider, &request.provider)?;
        Ok(project)
    }
}

fn needed(info: &AgentInfo, acp: bool) -> &[String] {
    if acp { &info.acp_engines } else { &info.engines }
}

impl Prepared<'_> {
    /// A handle on the run, to be had before it starts.
    pub fn control(&self) -> Control {
        Control {
            cancel: CancellationToken::new(),
            tree: ProcessTree::new(call_name(), Arc::clone(self.pcoder.processes())),
        }
    }

    /// The tool's own command line, to its end, with these streams.
    ///
    /// # Errors
    /// The plugins', and `cancelled`.
    pub async fn run(&self, stdio: Stdio, control: &Control) -> Result<ExitStatus, Error> {
        let launch = self.launch(self.request.args.clone());
        let spec = self.agent.agent()?.command(self.pcoder.context(&self.agent), &launch).await?;
        self.exec(spec, stdio, control).await
    }

    /// The same, with what it prints kept, at most `limit` bytes of each stream, and `input` as its standard input.
    ///
    /// # Errors
    /// The plugins', and `cancelled`.
    pub async fn capture(&self, input: Feed, limit: u64, control: &Control) -> Result<Captured, Error> {
        capture(input, limit, |stdio| self.run(stdio, control)).await
    }

    /// The tool as an agent that speaks the Agent Client Protocol on these streams.
    ///
    /// # Errors
    /// The plugins', and `cancelled`.
    pub async fn run_acp(&self, stdio: Stdio, control: &Control) -> Result<ExitStatus, Error> {
        let launch = self.launch(self.request.args.clone());
        let spec = self.agent.agent()?.acp(self.pcoder.context(&self.agent), &launch).await?;
        self.exec(spec, stdio, control).await
    }

    /// The project's folder on the instance.
    pub fn project(&self) -> &str {
        &self.project
    }

    fn launch(&self, args: Vec<String>) -> Launch {
        let option = |name: &str, value: &str| Setting { name: name.to_owned(), value: value.to_owned() };
        let mut options = Vec::new();
        if is_super_user() {
            options.push(option("super-user", "true"));
        }
        if self.pcoder.surroundings.variable("PCODER_ALLOW_TOOL_UPDATE").is_some_and(|it| it == "1") {
            options.push(option("allow-tool-update", "true"));
        }
        Launch {
            engines: self.held.engines.clone(),
            args,
            cwd: self.project.clone(),
            home_dir: self.home.to_string_lossy().into_owned(),
            env: Vec::new(),
            options,
        }
    }

    async fn exec(&self, spec: CommandSpec, stdio: Stdio, control: &Control) -> Result<ExitStatus, Error> {
        let provider = self.provider.provider()?;
        let boot = BootOptions {
            image: None,
            name: None,
            ttl_seconds: None,
            ttl_action: None,
            project: Some(self.project.clone()),
            options: Vec::new(),
        };
        let instance = provider.boot(self.pcoder.context(&self.provider), &boot).await?;
        let mut environment = self.pcoder.surroundings.environment.clone();
        if self.request.clear_env {
            environment.retain(|(name, _)| NEEDED_TO_START.iter().any(|needed| name.eq_ignore_ascii_case(needed)));
        }
        for (name, value) in &self.request.env {
            environment.retain(|(it, _)| it != name.as_str());
            environment.push((name.into(), value.into()));
        }
        let context = CallContext {
            called: Called { command: Some(spec.clone()), environment, home: Some(self.home.clone()), path: None },
            cancel: Some(control.cancel.clone()),
            // People talk with it for as long as they like.
            deadline: Some(None),
            tree: Some(Arc::clone(&control.tree)),
            ..self.pcoder.context(&self.provider)
        };
        let result = provider.exec(context, &instance.id, &spec, stdio).await;
        // Booted for this run, so it ends with it, however that went.
        let ended = provider.terminate(self.pcoder.context(&self.provider), &instance.id).await;
        result.and_then(|status| ended.map(|()| status))
    }
}

/// What is left of a cleared environment.
const NEEDED_TO_START: [&str; 6] = ["PATH", "TERM", "LANG", "SystemRoot", "ComSpec", "PATHEXT"];

fn is_super_user() -> bool {
    #[cfg(unix)]
    return rustix::process::geteuid().is_root();
    #[cfg(not(unix))]
    false
}
