//! `doctor`: what is there, what is missing, and the command that mends it. It mends nothing by itself; asking the
//! plugins leaves what every call leaves: a line in the audit.

use std::time::{Duration, Instant};

use pcoder_engines::Condition;
use pcoder_runtime::Error;
use serde::Serialize;

use crate::Pcoder;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, and something will be in the way sooner or later.
    Warning,
    /// Something does not work.
    Fail,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// A stable name, as `engine.claude`.
    pub id: String,
    /// What it belongs to.
    pub category: &'static str,
    /// How it came out.
    pub status: Status,
    /// What was found.
    pub measured: String,
    /// What should have been found, where that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// How long it took.
    pub duration_ms: u64,
}

/// All checks.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// pcoder's version.
    pub version: &'static str,
    /// The worst of the checks.
    pub status: Status,
    /// The checks.
    pub checks: Vec<Check>,
}

struct Finding {
    status: Status,
    measured: String,
    expected: Option<String>,
    remedy: Option<String>,
}

impl Finding {
    fn ok(measured: impl Into<String>) -> Self {
        Self { status: Status::Ok, measured: measured.into(), expected: None, remedy: None }
    }

    fn warning(measured: impl Into<String>, expected: &str, remedy: impl Into<String>) -> Self {
        Self {
            status: Status::Warning,
            measured: measured.into(),
            expected: Some(expected.to_owned()),
            remedy: Some(remedy.into()),
        }
    }

    fn fail(error: &Error, expected: &str) -> Self {
        Self {
            status: Status::Fail,
            measured: error.to_string(),
            expected: Some(expected.to_owned()),
            remedy: error.hint.clone(),
        }
    }
}

fn timed(id: impl Into<String>, category: &'static str, started: Instant, finding: Finding) -> Check {
    Check {
        id: id.into(),
        category,
        status: finding.status,
        measured: finding.measured,
        expected: finding.expected,
        remedy: finding.remedy,
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

/// A check that takes longer has something wrong with it.
const DEADLINE: Duration = Duration::from_secs(15);

impl Pcoder {
    /// Looks at everything that a run needs.
    pub async fn doctor(&self) -> Report {
        let mut checks = vec![self.check_runtime(), self.check_folder(), self.check_audit(), self.check_code_cache()];
        checks.extend(self.check_plugins().await);
        checks.extend(self.check_engines().await);
        checks.push(self.check_terminal());
        let status = checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok);
        Report { version: env!("CARGO_PKG_VERSION"), status, checks }
    }

    fn check_runtime(&self) -> Check {
        let started = Instant::now();
        let finding = match self.runtime() {
            Ok(_) => Finding::ok("the WebAssembly engine runs"),
            Err(error) => Finding::fail(&error, "an engine that runs"),
        };
        timed("runtime.engine", "runtime", started, finding)
    }

    fn check_folder(&self) -> Check {
        let started = Instant::now();
        let data = &self.layout().data;
        let shown = data.display().to_string();
        // Looked at without creating anything: the nearest thing that exists must be a folder that can be written to.
        let nearest = data.ancestors().find(|it| it.symlink_metadata().is_ok());
        let finding = match nearest.map(tempfile::tempfile_in) {
            Some(Ok(_)) => Finding::ok(format!("{shown} can be written to")),
            Some(Err(error)) => Finding::fail(
                &Error::io("doctor", &shown, &error),
                "a folder for pcoder's files that can be written to",
            ),
            None => Finding::warning(shown, "a folder for pcoder's files", "set `PCODER_HOME` to a folder of yours"),
        };
        timed("folder.data", "folders", started, finding)
    }

    fn check_audit(&self) -> Check {
        let started = Instant::now();
        let path = self.layout().audit();
        let shown = path.display().to_string();
        let finding = match std::fs::OpenOptions::new().append(true).open(&path) {
            Ok(_) => Finding::ok(format!("{shown} is written")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Finding::ok(format!("{shown} is made with the first call"))
            }
            Err(error) => Finding::fail(
                &Error::io("doctor", &shown, &error).hint("make that file writable, or move it away"),
                "an audit that can be written",
            ),
        };
        timed("audit.file", "audit", started, finding)
    }

    fn check_code_cache(&self) -> Check {
        let started = Instant::now();
        let path = self.layout().code_cache();
        let shown = path.display().to_string();
        let finding = if path.exists() {
            match pcoder_runtime::artifact::Cache::open(&path) {
                Ok(_) => Finding::ok(format!("{shown} is its owner's alone")),
                Err(error) => Finding::warning(
                    error.to_string(),
                    "a cache for the code of plugins that are not built in: without it they start slowly",
                    error.hint.clone().unwrap_or_else(|| format!("remove {shown}")),
                ),
            }
        } else {
            Finding::ok(format!("{shown} is made when it is needed"))
        };
        timed("folder.code-cache", "folders", started, finding)
    }

    async fn check_plugins(&self) -> Vec<Check> {
        use pcoder_runtime::manifest::Kind;
        let mut checks = Vec::new();
        for kind in Kind::ALL {
            for name in self.names(kind) {
                let started = Instant::now();
                let finding = match self.ask(kind, name).await {
                    Ok(says) => Finding::ok(says),
                    Err(error) => Finding::fail(&error, "a plugin that answers"),
                };
                checks.push(timed(format!("plugin.{}{name}", kind.prefix()), "plugins", started, finding));
            }
        }
        if checks.is_empty() {
            let finding = Finding {
                status: Status::Fail,
                measured: "this program was built without its plugins".into(),
                expected: Some("plugins that are built in".into()),
                remedy: Some("build it with `cargo xtask build`".into()),
            };
            checks.push(timed("plugin.any", "plugins", Instant::now(), finding));
        }
        checks
    }

    /// Asks a plugin the one question that every plugin of its kind answers without doing anything.
    async fn ask(&self, kind: pcoder_runtime::manifest::Kind, name: &str) -> Result<String, Error> {
        use pcoder_runtime::manifest::Kind;
        let plugin = self.plugin(kind, name)?;
        let context = self.context(&plugin);
        Ok(match kind {
            Kind::Provider => plugin.provider()?.info(context).await?.description,
            Kind::ProcessManager => plugin.process_manager()?.info(context).await?.description,
            Kind::Agent => plugin.agent()?.info(context).await?.description,
            _ => {
                let profiles = plugin.credentials()?.profiles(context).await?;
                format!("{} profiles", profiles.len())
            }
        })
    }

    async fn check_engines(&self) -> Vec<Check> {
        let started = Instant::now();
        let listed = self.store().and_then(|store| store.list().map_err(|error| crate::from_engines(&error)));
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => {
                let finding = Finding::fail(&error, "an engine store that can be read");
                return vec![timed("engine.store", "engines", started, finding)];
            }
        };
        let mut checks = Vec::new();
        for engine in listed.into_iter().filter(|engine| engine.default) {
            let started = Instant::now();
            let id = format!("engine.{}", engine.name);
            let install = format!("`pcoder engine install {}`", engine.name);
            let finding = match &engine.condition {
                Condition::Installed(installed) => match self.version_of(installed).await {
                    Ok(says) => Finding::ok(says),
                    Err(says) => Finding {
                        status: Status::Fail,
                        measured: says,
                        expected: Some(format!("{} {} that runs", engine.name, engine.version)),
                        remedy: Some(format!("`pcoder engine install {} --force`", engine.name)),
                    },
                },
                Condition::Missing => Finding::warning(
                    format!("{} is not installed", engine.version),
                    "installed, or downloaded when it is first run",
                    install,
                ),
                Condition::Damaged(why) => Finding {
                    status: Status::Fail,
                    measured: format!("{} is damaged: {why}", engine.version),
                    expected: Some("whole".into()),
                    remedy: Some(install),
                },
                Condition::Unsupported(why) => Finding::warning(
                    why.clone(),
                    "a build for this platform",
                    "use a machine that it is published for; `pcoder engine list` shows what this one has",
                ),
                _ => Finding::ok(engine.version.clone()),
            };
            checks.push(timed(id, "engines", started, finding));
        }
        checks
    }

    /// Starts an engine's own `--version`, for those that can: what was downloaded must also run here.
    async fn version_of(&self, engine: &pcoder_engines::InstalledEngine) -> Result<String, String> {
        if engine.reported_version.is_none() {
            return Ok(format!("{} is installed", engine.version));
        }
        let mut command = tokio::process::Command::new(&engine.entrypoint);
        command.arg("--version").env_clear().stdin(std::process::Stdio::null()).kill_on_drop(true);
        for name in ["HOME", "PATH", "SystemRoot", "TEMP", "TMPDIR"] {
            if let Some(value) = self.surroundings().variable(name) {
                command.env(name, value);
            }
        }
        match tokio::time::timeout(DEADLINE, command.output()).await {
            Ok(Ok(output)) if output.status.success() => {
                let says = String::from_utf8_lossy(&output.stdout);
                Ok(pcoder_runtime::text::for_people(says.trim(), 200))
            }
            Ok(Ok(output)) => Err(format!("`--version` ended with {}", output.status)),
            Ok(Err(error)) => Err(format!("it does not start: {error}")),
            Err(_) => Err(format!("`--version` did not answer within {} s", DEADLINE.as_secs())),
        }
    }

    fn check_terminal(&self) -> Check {
        let started = Instant::now();
        let finding = match self.surroundings().variable("TERM").and_then(|it| it.to_str()) {
            Some("dumb") => Finding::warning(
                "TERM is `dumb`",
                "a terminal that agents can draw in",
                "set TERM, as `TERM=xterm-256color`",
            ),
            Some(term) => Finding::ok(format!("TERM is `{}`", pcoder_runtime::text::for_people(term, 60))),
            None if cfg!(windows) => Finding::ok("Windows console"),
            None => {
                Finding::warning("TERM is not set", "a terminal, to use agents interactively", "run it in a terminal")
            }
        };
        timed("terminal.type", "terminal", started, finding)
    }
}
