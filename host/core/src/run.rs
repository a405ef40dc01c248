//! One run of a tool: from its name to its exit status.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pcoder_runtime::call::{CallContext, Called, Starter};
use pcoder_runtime::contract::agent::{AgentInfo, AuthState, Launch};
use pcoder_runtime::contract::provider::BootOptions;
use pcoder_runtime::contract::{CommandSpec, ExitStatus, Output, Setting};
use pcoder_runtime::error::code;
use pcoder_runtime::host::stdio::Stdio;
use pcoder_runtime::manifest::Kind;
use pcoder_runtime::process::{ProcessTree, Signal};
use pcoder_runtime::{Error, Plugin, call_name, text};
use tokio_util::sync::CancellationToken;

use crate::Pcoder;
use crate::auth::Account;
use crate::capture::{Captured, Feed, capture};
use crate::engines::{self, Held, utf8};
use crate::instances::plain_boot;
use crate::layout::absolute;
use crate::private_tmp::PrivateTmp;
use crate::profiles::{Profile, RunLimits};
use crate::run_surroundings::RunSurroundings;

/// What a provider says whose paths are this machine's own.
pub(crate) const HOST_PATHS: &str = "host-paths";

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
    /// The profile.
    pub profile: Option<String>,
    /// Variables on top of the caller's environment.
    pub env: Vec<(String, String)>,
    /// Leave the caller's environment out, but for what any program needs to start.
    pub clear_env: bool,
    /// A `/tmp` of the run's own.
    pub private_tmp: PrivateTmp,
}

/// Ends a run, and passes signals on to it.
#[derive(Clone)]
pub struct Control {
    pub(crate) cancel: CancellationToken,
    pub(crate) tree: Arc<ProcessTree>,
}

impl Control {
    /// Ends the run and everything that it started.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Passes a signal on to what is running on this machine, and says whether anything is. What runs elsewhere gets no
    /// signals, and is to be cancelled.
    pub fn signal(&self, signal: Signal) -> bool {
        self.tree.signal(signal)
    }
}

/// A run that could start now: everything is checked and installed, nothing was started.
pub struct Prepared<'a> {
    pub(crate) pcoder: &'a Pcoder,
    pub(crate) agent: Plugin,
    provider: Plugin,
    project: String,
    home: PathBuf,
    held: Held,
    request: RunRequest,
    surroundings: RunSurroundings,
    limits: RunLimits,
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
        self.check_request(request).await?;
        let agent = self.plugin(Kind::Agent, &request.tool).await?;
        let info = agent.agent()?.info(self.context(&agent)).await?;
        engines::missing(&self.store()?, needed(&info, acp), request.version.as_deref())
    }

    /// Checks everything that a run needs, and looks up its secrets. It downloads nothing but a login's next token, when
    /// that is about to expire.
    ///
    /// # Errors
    /// `not-found` for an unknown tool or provider, a missing project, profile or engine, with what to do about it;
    /// `invalid` for a project that is no folder and a profile of another tool; `unauthenticated` where a secret has no
    /// value.
    pub async fn prepare(&self, request: RunRequest, acp: bool) -> Result<Prepared<'_>, Error> {
        self.prepare_as(request, acp, None, false).await
    }

    /// The same, as somebody in particular, and with the tool's own home.
    pub(crate) async fn prepare_as(
        &self,
        request: RunRequest,
        acp: bool,
        account: Option<Account>,
        own_home: bool,
    ) -> Result<Prepared<'_>, Error> {
        let project = self.check_request(&request).await?;
        let profile = match &request.profile {
            Some(name) => Some(self.profile_for(name, &request.tool)?),
            None => None,
        };
        let agent = self.plugin(Kind::Agent, &request.tool).await?;
        let provider = self.plugin(Kind::Provider, &request.provider).await?;
        let info = agent.agent()?.info(self.context(&agent)).await?;
        let held = engines::hold(&self.store()?, needed(&info, acp), request.version.as_deref())?;
        let account = match account {
            Some(account) => account,
            // Whoever clears the environment says everything in the request.
            None if request.clear_env => Account::default(),
            None => self.account(&request.tool, profile.as_ref())?,
        };
        let surroundings = self.run_surroundings(&request, &info, account, profile.as_ref(), own_home).await?;
        let limits = profile.map(|profile| profile.limits).unwrap_or_default();
        let home = match &surroundings.home {
            Some(home) => home.clone(),
            None => self
                .surroundings
                .home()
                .ok_or_else(|| Error::new(code::INVALID, "run", "there is no home folder").hint("set `HOME` to one"))?,
        };
        Ok(Prepared {
            pcoder: self,
            agent,
            provider,
            project: utf8(&project)?,
            home,
            held,
            request,
            surroundings,
            limits,
        })
    }

    pub(crate) fn profile_for(&self, name: &str, tool: &str) -> Result<Profile, Error> {
        let profile = self.profile(name)?;
        if profile.tool.as_str() == tool {
            return Ok(profile);
        }
        let message = format!("this profile is for the tool `{}`", profile.tool);
        Err(Error::new(code::INVALID, "run", message)
            .subject(name)
            .hint(format!("`pcoder run {} --profile {name}`, or another profile", profile.tool)))
    }

    async fn check_request(&self, request: &RunRequest) -> Result<PathBuf, Error> {
        let project = self.project_folder(request.project.as_deref())?;
        // Both are looked for before anything is downloaded.
        self.plugin(Kind::Agent, &request.tool).await?;
        self.plugin(Kind::Provider, &request.provider).await?;
        Ok(project)
    }

    /// The project's folder, absolute: the one that was named, or the working folder.
    ///
    /// # Errors
    /// `not-found`, `invalid` for a file, `io`.
    pub fn project_folder(&self, named: Option<&Path>) -> Result<PathBuf, Error> {
        let cwd = &self.surroundings.cwd;
        let project = named.map_or_else(|| cwd.clone(), |project| absolute(cwd, project));
        let shown = || text::for_people(&project.to_string_lossy(), 400);
        match std::fs::metadata(&project) {
            Ok(metadata) if metadata.is_dir() => Ok(project),
            Ok(_) => Err(Error::new(code::INVALID, "run", "the project is a file, not a folder")
                .subject(shown())
                .hint("give the folder that it is in: `--project FOLDER`")),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Err(Error::new(code::NOT_FOUND, "run", "the project's folder is not there")
                    .subject(shown())
                    .hint("create it, or give another one: `--project FOLDER`"))
            }
            Err(error) => Err(Error::io("run", shown(), &error)),
        }
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

    /// The tool's own login, with these streams. What it prints is its own affair.
    ///
    /// # Errors
    /// The plugins', and `cancelled`.
    pub async fn login(&self, stdio: Stdio, control: &Control) -> Result<ExitStatus, Error> {
        let launch = self.launch(self.request.args.clone());
        let spec = self.agent.agent()?.login_command(self.pcoder.context(&self.agent), &launch).await?;
        self.exec(spec, stdio, control).await
    }

    /// The tool's own logout.
    ///
    /// # Errors
    /// The plugins', and `cancelled`.
    pub async fn logout(&self, stdio: Stdio, control: &Control) -> Result<ExitStatus, Error> {
        let launch = self.launch(self.request.args.clone());
        let spec = self.agent.agent()?.logout_command(self.pcoder.context(&self.agent), &launch).await?;
        self.exec(spec, stdio, control).await
    }

    /// Asks the tool whether it is logged in.
    pub(crate) async fn capture_auth_status(
        &self,
        input: Feed,
        limit: u64,
        control: &Control,
    ) -> Result<Captured, Error> {
        let launch = self.launch(Vec::new());
        let spec = self.agent.agent()?.auth_status_command(self.pcoder.context(&self.agent), &launch).await?;
        capture(input, limit, async |stdio| self.exec(spec, stdio, control).await).await
    }

    /// What the tool's answer means.
    pub(crate) async fn read_auth_status(&self, answer: &Captured) -> Result<AuthState, Error> {
        let output =
            Output { status: answer.status, stdout: answer.stdout.bytes.clone(), stderr: answer.stderr.bytes.clone() };
        self.agent.agent()?.auth_status(self.pcoder.context(&self.agent), &output).await
    }

    /// What `--json` keeps of each stream, in bytes, where the profile says so.
    pub fn output_limit(&self) -> Option<u64> {
        self.limits.output_mib.map(|mib| mib.get().saturating_mul(1 << 20))
    }

    /// The project's folder on the instance.
    pub fn project(&self) -> &str {
        &self.project
    }

    fn launch(&self, args: Vec<String>) -> Launch {
        let mut options = self.surroundings.options.clone();
        let mut option = |name: &str| options.push(Setting { name: name.to_owned(), value: "true".to_owned() });
        if is_super_user() {
            option("super-user");
        }
        if self.pcoder.surroundings.variable("PCODER_ALLOW_TOOL_UPDATE").is_some_and(|it| it == "1") {
            option("allow-tool-update");
        }
        Launch {
            engines: self.held.engines.clone(),
            args,
            cwd: self.project.clone(),
            home_dir: self.home.to_string_lossy().into_owned(),
            env: self.surroundings.settings.clone(),
            options,
        }
    }

    async fn exec(&self, mut spec: CommandSpec, stdio: Stdio, control: &Control) -> Result<ExitStatus, Error> {
        // Behind everything that the plugin says, which never hears of it.
        spec.env.extend(self.surroundings.key.clone());
        let provider = self.provider.provider()?;
        let starter = self.starter().await?;
        let boot = BootOptions { project: Some(self.project.clone()), ..plain_boot() };
        let instance = provider.boot(self.context(), &boot).await?;
        let wall = self.limits.wall_seconds.map(|seconds| Duration::from_secs(seconds.get()));
        let context = CallContext {
            called: Called {
                command: Some(spec.clone()),
                environment: self.surroundings.environment.clone(),
                home: Some(self.home.clone()),
                path: None,
                back: Vec::new(),
                starter,
            },
            cancel: Some(control.cancel.clone()),
            // People talk with it for as long as they like, unless their profile says otherwise.
            deadline: Some(wall),
            tree: Some(Arc::clone(&control.tree)),
            secrets: Arc::clone(&self.surroundings.secrets),
            ..self.context()
        };
        let result = provider.exec(context, &instance.id, &spec, stdio).await;
        // Booted for this run, so it ends with it, however that went.
        let ended = provider.terminate(self.context(), &instance.id).await;
        result.and_then(|status| ended.map(|()| status)).map_err(|error| match wall {
            Some(wall) if error.is(code::TIMEOUT) => {
                Error::new(code::TIMEOUT, "run", format!("the run was ended after {} s", wall.as_secs()))
                    .subject(&self.request.tool)
                    .hint("`wall-seconds` in its profile says how long a run may take")
            }
            _ => error,
        })
    }

    /// What starts the command, where it is to have a `/tmp` of its own: on this machine, whatever the provider does.
    async fn starter(&self) -> Result<Option<Starter>, Error> {
        let wanted = self.request.private_tmp;
        if wanted == PrivateTmp::Required {
            let info = self.provider.provider()?.info(self.context()).await?;
            if !info.features.iter().any(|it| it == HOST_PATHS) {
                let message = "this provider does not say that it runs commands on this machine";
                return Err(Error::new(code::UNSUPPORTED, "run", message)
                    .subject(&self.request.provider)
                    .hint("leave `--private-tmp` out, or choose another provider: `--provider local`"));
            }
        }
        let kept = [Path::new(&self.project), &self.home];
        self.pcoder.starter(wanted, self.surroundings.has_sockets(), &kept).await
    }

    /// What a call into the provider gets: it may have been granted the project's folder.
    fn context(&self) -> CallContext {
        let mut context = self.pcoder.context(&self.provider);
        context.roots.insert("project".to_owned(), PathBuf::from(&self.project));
        context
    }
}

fn is_super_user() -> bool {
    #[cfg(unix)]
    return rustix::process::geteuid().is_root();
    #[cfg(not(unix))]
    false
}
