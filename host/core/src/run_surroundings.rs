//! What surrounds a run: its environment, its home, its secrets.
//!
//! A run that logs in as its user always does gets its user's environment. One that has an account of its own (a login in
//! the tool's own folder, or a key by reference) gets none of the variables that choose an account or a service: a key in
//! the environment would win over the login, and the login's token would go wherever an address there says. In a
//! portable folder the home is the tool's own too.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pcoder_oauth::{Clock, CredentialsFile, Freshness, Http, HttpOptions};
use pcoder_runtime::Error;
use pcoder_runtime::contract::Setting;
use pcoder_runtime::contract::agent::AgentInfo;
use pcoder_runtime::error::code;
use pcoder_runtime::secrets::{Broker, SecretSource};
use secrecy::{ExposeSecret as _, SecretString};

use crate::auth::Account;
use crate::egress::HostPattern;
use crate::engines::utf8;
use crate::profiles::{AuthMode, Profile};
use crate::reach::{as_seen_there, loopback_port, service};
use crate::{Pcoder, RunRequest};

/// What a run's commands get.
pub(crate) struct RunSurroundings {
    /// The environment beneath the command's own variables.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// The home, where it is not the user's.
    pub(crate) home: Option<PathBuf>,
    /// Options for the agent's plugin.
    pub(crate) options: Vec<Setting>,
    /// The profile's variables. The values of secrets are placeholders.
    pub(crate) settings: Vec<Setting>,
    /// The variable with the key, as a placeholder.
    pub(crate) key: Option<Setting>,
    /// The values behind the placeholders.
    pub(crate) secrets: Arc<Broker>,
    /// The folder for sockets, in a portable folder. It is there as long as this is.
    sockets: Option<Sockets>,
}

/// Who a session is, and which model it has.
pub(crate) struct SessionIdentity {
    /// Options for the agent's plugin.
    pub(crate) options: Vec<Setting>,
    /// The profile's variables. The values of secrets are placeholders.
    pub(crate) settings: Vec<Setting>,
    /// The variable with the key, as a placeholder.
    pub(crate) key: Option<Setting>,
    /// The values behind the placeholders.
    pub(crate) secrets: Arc<Broker>,
    /// The ports of this host's loopback that the agent is told to reach.
    pub(crate) here: BTreeSet<u16>,
    /// The hosts of the service that it is told to use, in the place of its own.
    pub(crate) services: Vec<HostPattern>,
}

/// A folder for sockets. The name of a socket has room for about a hundred bytes, and a portable folder may be anywhere: an
/// agent whose name for one is too long puts it into `/tmp`. So on Linux the folder has a short name, by way of this
/// process. Elsewhere there is none.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "there is none"))]
struct Sockets {
    name: PathBuf,
    #[cfg(target_os = "linux")]
    _folder: tempfile::TempDir,
    #[cfg(target_os = "linux")]
    _open: std::os::fd::OwnedFd,
}

/// What is left of a cleared environment.
const NEEDED_TO_START: [&str; 6] = ["PATH", "TERM", "LANG", "SystemRoot", "ComSpec", "PATHEXT"];

fn option(name: &str, value: impl Into<String>) -> Setting {
    Setting { name: name.to_owned(), value: value.into() }
}

impl RunSurroundings {
    /// Whether there is a folder for sockets.
    pub(crate) fn has_sockets(&self) -> bool {
        self.sockets.is_some()
    }
}

impl Pcoder {
    pub(crate) async fn run_surroundings(
        &self,
        request: &RunRequest,
        info: &AgentInfo,
        account: Account,
        profile: Option<&Profile>,
        own_home: bool,
    ) -> Result<RunSurroundings, Error> {
        let portable = self.layout().portable;
        let own_home = (own_home || portable) && !request.clear_env;
        // A folder that moves from machine to machine keeps its tools' files with it.
        let own_config = (account.mode.is_some() || portable) && !request.clear_env;
        let mut environment = self.surroundings().environment.clone();
        let mut options = Vec::new();
        if request.clear_env {
            environment.retain(|(name, _)| NEEDED_TO_START.iter().any(|needed| name.eq_ignore_ascii_case(needed)));
        }
        if account.mode.is_some() {
            environment.retain(|(name, _)| !chooses_account(info, name));
        }
        let mut sockets = None;
        let mut home = None;
        if own_home {
            let folder = self.tool_home(&request.tool)?;
            rewrite_home(&mut environment, &folder);
            home = Some(folder);
        }
        if portable {
            // Some agents write to places that no variable moves, unless they are told not to.
            options.push(option("portable", "true"));
            let temporary = self.layout().temporary();
            std::fs::create_dir_all(&temporary)
                .map_err(|error| Error::io("run", temporary.display().to_string(), &error))?;
            for name in ["TMPDIR", "TEMP", "TMP"] {
                put(&mut environment, name, temporary.clone());
            }
            environment.retain(|(name, _)| name != "XDG_RUNTIME_DIR");
            sockets = self.sockets().map_err(|error| Error::io("run", temporary.display().to_string(), &error))?;
            if let Some(sockets) = &sockets {
                put(&mut environment, "XDG_RUNTIME_DIR", &sockets.name);
            }
        }
        if own_config {
            let folder = self.config_folder(&request.tool)?;
            if account.mode == Some(AuthMode::Oauth) {
                self.keep_fresh(&request.tool, &folder).await;
            }
            options.push(option("config-dir", utf8(&folder)?));
        }
        let identity =
            self.session_identity(&request.tool, info, account, profile, self.secret_source(), false).await?;
        options.extend(identity.options);
        let (settings, key, secrets) = (identity.settings, identity.key, identity.secrets);
        for (name, value) in &request.env {
            if name == "HOME" {
                home = Some(PathBuf::from(value));
            }
            put(&mut environment, name, value);
        }
        Ok(RunSurroundings { environment, home, options, settings, key, secrets, sockets })
    }

    /// Who a session is and which model it has, wherever it runs. `source` has the secrets of the plugin that its command
    /// goes to. Where the machine that it runs on `leads_back`, addresses of this host's loopback are said as they are
    /// reached from there.
    pub(crate) async fn session_identity(
        &self,
        tool: &str,
        info: &AgentInfo,
        account: Account,
        profile: Option<&Profile>,
        source: Arc<dyn SecretSource>,
        leads_back: bool,
    ) -> Result<SessionIdentity, Error> {
        let seen = |text: &str| as_seen_there(text).filter(|_| leads_back);
        let mut options = Vec::new();
        let (mut here, mut services) = (BTreeSet::new(), Vec::new());
        if let Some(mode) = account.mode {
            options.push(option("auth", mode.word()));
        }
        let secrets = Arc::new(Broker::new(source));
        let mut settings = Vec::new();
        if let Some(profile) = profile {
            if let Some(model) = &profile.model {
                options.push(option("model", model));
            }
            if let Some(endpoint) = &profile.endpoint {
                here.extend(loopback_port(endpoint.as_str()));
                services.extend(service(endpoint.as_str()));
                let endpoint = endpoint.as_str();
                options.push(option("endpoint", seen(endpoint).as_deref().unwrap_or(endpoint)));
            }
            for (name, reference) in &profile.env {
                let value = self.resolve(reference).await.map_err(|error| of_variable(&error, name.as_str()))?;
                // Another variable may well mean the machine that it is read on.
                if matches_any(&info.environment, name.as_str().as_ref()) {
                    here.extend(loopback_port(value.expose_secret()));
                }
                if matches_any(&info.account_environment, name.as_str().as_ref()) {
                    services.extend(service(value.expose_secret()));
                }
                let value = seen(value.expose_secret()).map_or(value, SecretString::from);
                // What is no secret is for plugins to read, too.
                let text = match reference.is_secret() {
                    true => secrets.issue_for_command(name.as_str(), value)?,
                    false => value.expose_secret().to_owned(),
                };
                settings.push(option(name.as_str(), text));
            }
        }
        let key = match (&account.key, &info.api_key_variable) {
            (Some(reference), Some(variable)) => {
                let value = self.resolve(reference).await?;
                Some(option(variable, secrets.issue_for_command(variable, value)?))
            }
            (Some(_), None) => {
                return Err(Error::new(code::UNSUPPORTED, "run", "this tool takes no key").subject(tool));
            }
            _ => None,
        };
        Ok(SessionIdentity { options, settings, key, secrets, here, services })
    }

    /// Renews a Claude login in the tool's own folder ten minutes before it expires, so that of all that use it at once
    /// one does. What goes wrong is no reason not to run: the engine tries again by itself, and says so better.
    async fn keep_fresh(&self, tool: &str, config: &Path) {
        // The only login whose format and server are known here; other tools renew theirs by themselves.
        if tool != "claude" {
            return;
        }
        let file = CredentialsFile::new(config.join(".credentials.json"));
        match self.claude_service().and_then(|service| Ok((service, self.claude_http()?))) {
            Ok((service, http)) => {
                let lock = self.layout().locks.join("auth-claude.lock");
                match pcoder_oauth::ensure_fresh(&file, &lock, &service, &Clock::system(), &http).await {
                    Ok(Freshness::Refreshed) => tracing::info!("the login of `{tool}` was renewed"),
                    Ok(_) => {}
                    Err(error) => tracing::warn!("the login of `{tool}` was not renewed: {error}; {}", error.hint()),
                }
            }
            Err(error) => {
                let hint = error.hint.as_deref().unwrap_or_default();
                tracing::warn!("the login of `{tool}` cannot be renewed: {}; {hint}", error.message);
            }
        }
    }

    /// Claude's authorisation server. `PCODER_CLAUDE_TOKEN_URL` names another one, for a gateway or a test.
    pub(crate) fn claude_service(&self) -> Result<pcoder_oauth::Service, Error> {
        let mut service = pcoder_oauth::claude::service(pcoder_oauth::claude::Mode::Subscription)
            .map_err(|error| from_oauth(&error))?;
        if let Some(url) = self.surroundings().variable("PCODER_CLAUDE_TOKEN_URL") {
            service.token_url = url.to_string_lossy().parse().map_err(|_| {
                Error::new(code::INVALID, "auth", "it is not an address")
                    .subject("PCODER_CLAUDE_TOKEN_URL")
                    .hint("correct or unset that variable")
            })?;
        }
        Ok(service)
    }

    /// What speaks with that server, by the user's proxies and certificates.
    pub(crate) fn claude_http(&self) -> Result<Http, Error> {
        let client = self.network(None)?.client_options();
        Http::new(HttpOptions { client, ..HttpOptions::default() }).map_err(|error| from_oauth(&error))
    }

    #[cfg(target_os = "linux")]
    fn sockets(&self) -> std::io::Result<Option<Sockets>> {
        use std::os::fd::AsRawFd as _;

        use rustix::fs::{Mode, OFlags};

        let folder = self.temporary_folder("run-")?;
        let open = rustix::fs::open(folder.path(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let name = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), open.as_raw_fd()));
        Ok(Some(Sockets { name, _folder: folder, _open: open }))
    }

    #[cfg(not(target_os = "linux"))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as on Linux")]
    fn sockets(&self) -> std::io::Result<Option<Sockets>> {
        Ok(None)
    }

    /// A folder for temporary files: in a portable folder, in there.
    pub(crate) fn temporary_folder(&self, prefix: &str) -> std::io::Result<tempfile::TempDir> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(prefix);
        if !self.layout().portable {
            return builder.tempdir();
        }
        std::fs::create_dir_all(self.layout().temporary())?;
        builder.tempdir_in(self.layout().temporary())
    }
}

/// An error of a login, in the one shape.
pub(crate) fn from_oauth(error: &pcoder_oauth::Error) -> Error {
    use pcoder_oauth::Error as Login;
    let code = match error {
        Login::Pasted { .. } | Login::WrongState | Login::Config { .. } => code::INVALID,
        Login::Network { .. } => code::NETWORK,
        Login::Timeout { .. } | Login::NotInTime { .. } => code::TIMEOUT,
        Login::RateLimited { .. } => code::RATE_LIMITED,
        Login::Refused { .. } | Login::Answer { .. } => code::SERVER,
        Login::Io { .. } | Login::NotSaved { .. } | Login::State(_) => code::IO,
        _ => code::UNAUTHENTICATED,
    };
    let plain = Error::new(code, "auth", error.to_string()).hint(error.hint());
    match error.path() {
        Some(path) => plain.subject(path.display().to_string()),
        None => plain,
    }
}

fn of_variable(error: &Error, name: &str) -> Error {
    let named =
        Error::new(error.code.clone(), "profile", format!("the variable `{name}` has no value: {}", error.message));
    let named = match &error.subject {
        Some(subject) => named.subject(subject),
        None => named,
    };
    named.hint(error.hint.clone().unwrap_or_else(|| "correct it in the profile".to_owned()))
}

/// Whether a variable is one that chooses an account or a service for this agent.
fn chooses_account(info: &AgentInfo, name: &std::ffi::OsStr) -> bool {
    matches_any(&info.account_environment, name)
}

fn matches_any(patterns: &[String], name: &std::ffi::OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let same = |pattern: &str, name: &str| {
        if cfg!(windows) { pattern.eq_ignore_ascii_case(name) } else { pattern == name }
    };
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(begin) => name.get(..begin.len()).is_some_and(|front| same(begin, front)),
        None => same(pattern, name),
    })
}

/// Everything that says where a user's files are.
fn rewrite_home(environment: &mut Vec<(OsString, OsString)>, home: &Path) {
    let folders = [
        ("XDG_CONFIG_HOME", ".config"),
        ("XDG_DATA_HOME", ".local/share"),
        ("XDG_STATE_HOME", ".local/state"),
        ("XDG_CACHE_HOME", ".cache"),
        ("APPDATA", "AppData/Roaming"),
        ("LOCALAPPDATA", "AppData/Local"),
    ];
    put(environment, "HOME", home);
    if cfg!(windows) {
        put(environment, "USERPROFILE", home);
    }
    for (name, below) in folders {
        // The names of Windows mean nothing elsewhere, and those of XDG nothing there.
        if cfg!(windows) != name.starts_with("XDG") {
            put(environment, name, home.join(below));
        }
    }
}

fn put(environment: &mut Vec<(OsString, OsString)>, name: &str, value: impl Into<OsString>) {
    environment.retain(|(it, _)| if cfg!(windows) { !it.eq_ignore_ascii_case(name) } else { it != name });
    environment.push((name.into(), value.into()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(account: &[&str]) -> AgentInfo {
        AgentInfo {
            name: "claw".into(),
            title: String::new(),
            description: String::new(),
            engines: Vec::new(),
            acp_engines: Vec::new(),
            environment: Vec::new(),
            account_environment: account.iter().map(|&it| it.to_owned()).collect(),
            api_key_variable: None,
            features: Vec::new(),
        }
    }

    #[test]
    fn a_pattern_stands_for_any_ending_and_a_name_for_itself() {
        let info = info(&["CLAW_KEY", "CLAW_URL_*"]);
        for (name, chooses) in
            [("CLAW_KEY", true), ("CLAW_KEYS", false), ("CLAW_URL_A", true), ("CLAW_URL", false), ("HOME", false)]
        {
            assert_eq!(chooses_account(&info, name.as_ref()), chooses, "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_home_takes_everything_along_that_says_where_files_are() {
        let mut environment = vec![("HOME".into(), "/home/u".into()), ("XDG_CACHE_HOME".into(), "/elsewhere".into())];
        rewrite_home(&mut environment, Path::new("/stick/home"));
        let value = |name: &str| environment.iter().find(|(it, _)| it == name).map(|(_, value)| value.clone());
        assert_eq!(value("HOME"), Some("/stick/home".into()));
        assert_eq!(value("XDG_CACHE_HOME"), Some("/stick/home/.cache".into()));
        assert!(
            environment.iter().all(|(_, value)| value.to_string_lossy().starts_with("/stick/home")),
            "{environment:?}"
        );
    }
}
