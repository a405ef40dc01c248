//! Who a tool says it is: a key by reference, a login that the tool keeps in a folder of its own, or whatever the user's own
//! environment and home say, which is so until `pcoder auth` was told something.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use pcoder_oauth::CredentialsFile;
use pcoder_runtime::contract::agent::AuthState;
use pcoder_runtime::error::code;
use pcoder_runtime::manifest::Kind;
use pcoder_runtime::{Error, text};
use pcoder_secrets::Reference;
use pcoder_state::{Document, File, Wrong};
use serde::{Deserialize, Serialize};

use crate::capture::Feed;
use crate::errors::from_state;
use crate::names::Name;
use crate::private_tmp::PrivateTmp;
use crate::profiles::{AuthMode, Profile};
use crate::run_surroundings::from_oauth;
use crate::{Pcoder, Prepared, RunRequest};

/// How long an engine may take to say whether it is logged in (`claude auth status` and `codex login status` answer in
/// well under a second without a network). Its first start reads 200 MB, from a slow stick or beside other work.
const STATUS: Duration = Duration::from_secs(30);
/// What is kept of that answer.
const ANSWER: u64 = 64 << 10;

/// How one tool logs in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolAuth {
    /// By a key or a login.
    pub mode: AuthMode,
    /// Where the key comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Reference>,
}

/// How each tool logs in. Nothing in it is a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthFile {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tool: BTreeMap<Name, ToolAuth>,
}

impl Document for AuthFile {
    const VERSION: i64 = 1;
    const HEADER: &'static str =
        "# How each tool logs in. Written by `pcoder auth`. Keys stand here by reference only.";

    fn check(&self) -> Result<(), Wrong> {
        for (tool, auth) in &self.tool {
            let message = match (auth.mode, &auth.key) {
                (AuthMode::Api, None) => format!("`{tool}` is said to use a key, and none is named"),
                (AuthMode::Oauth, Some(_)) => format!("`{tool}` uses a login, which has no key"),
                (AuthMode::Api, Some(key)) if !key.is_secret() => {
                    format!("the key of `{tool}` is written out, and has to be named by where it comes from")
                }
                _ => continue,
            };
            return Err(Wrong::field(&["tool", tool.as_str()], message));
        }
        Ok(())
    }
}

/// Who a run is: what a profile says, and where it says nothing, what was said of the tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) mode: Option<AuthMode>,
    pub(crate) key: Option<Reference>,
}

impl Account {
    /// The tool's own login, whatever was said.
    pub(crate) fn login() -> Self {
        Self { mode: Some(AuthMode::Oauth), key: None }
    }
}

/// What is known of one tool's login.
#[derive(Clone, Debug, Serialize)]
pub struct AuthStatus {
    /// The tool.
    pub tool: String,
    /// `api`, `oauth`, or `own` for the user's own environment and home.
    pub mode: &'static str,
    /// Whether it is logged in, where that could be found out.
    pub logged_in: Option<bool>,
    /// How, in the engine's words: `api-key`, `oauth`, `token`, `none`.
    pub method: Option<String>,
    /// Who: an address, an organisation. Never a secret.
    pub account: Option<String>,
    /// Where the key comes from.
    pub key: Option<String>,
    /// Why it could not be found out, or why it is not logged in.
    pub problem: Option<String>,
    /// The command that mends it.
    pub remedy: Option<String>,
}

const OPERATION: &str = "auth";

impl Pcoder {
    fn auth_file(&self) -> File<AuthFile> {
        File::new(self.layout().auth(), &self.layout().locks)
    }

    /// What was said of a tool.
    ///
    /// # Errors
    /// When `auth.toml` cannot be read.
    pub fn auth_of(&self, tool: &str) -> Result<Option<ToolAuth>, Error> {
        let file = self.auth_file().read().map_err(|error| from_state(OPERATION, &error))?;
        Ok(file.tool.into_iter().find(|(name, _)| name.as_str() == tool).map(|(_, auth)| auth))
    }

    /// Says how a tool logs in; nothing for its user's own way.
    ///
    /// # Errors
    /// When `auth.toml` cannot be read or written.
    pub fn set_auth(&self, tool: &str, auth: Option<ToolAuth>) -> Result<(), Error> {
        let name = Name::new(tool).map_err(|message| Error::new(code::INVALID, OPERATION, message))?;
        let change = |file: &mut AuthFile| {
            match auth {
                Some(auth) => drop(file.tool.insert(name, auth)),
                None => drop(file.tool.remove(&name)),
            }
            Ok::<_, pcoder_state::Error>(())
        };
        self.auth_file().update(change).map_err(|error| from_state(OPERATION, &error))
    }

    /// Makes a tool use a key from now on. The key is looked up once, so that a mistake is seen now and not later.
    ///
    /// # Errors
    /// `invalid` for what is no reference to a secret; `unauthenticated` when it leads to none.
    pub async fn use_key(&self, tool: &str, reference: &str) -> Result<(), Error> {
        self.plugin(Kind::Agent, tool).await?;
        let key: Reference = reference.parse().map_err(|error| crate::secrets::from_secrets("auth.login", &error))?;
        if !key.is_secret() {
            return Err(Error::new(code::INVALID, "auth.login", "a key is not written into a file as it is")
                .hint("name where it comes from: `env:NAME`, `file:PATH`, `keyring:NAME` or `command:LINE`"));
        }
        self.resolve(&key).await?;
        self.set_auth(tool, Some(ToolAuth { mode: AuthMode::Api, key: Some(key) }))
    }

    /// Who a run of this tool is.
    pub(crate) fn account(&self, tool: &str, profile: Option<&Profile>) -> Result<Account, Error> {
        if let Some(profile) = profile.filter(|profile| profile.auth.is_some() && profile.key.is_some()) {
            return Ok(Account { mode: profile.auth, key: profile.key.clone() });
        }
        let said = self.auth_of(tool)?;
        let mode = profile.and_then(|profile| profile.auth).or(said.as_ref().map(|it| it.mode));
        let key = match mode {
            Some(AuthMode::Api) => Some(said.and_then(|it| it.key).ok_or_else(|| {
                Error::new(code::UNAUTHENTICATED, OPERATION, "it is to use a key, and none is named")
                    .subject(text::for_people(tool, 80))
                    .hint(format!("`pcoder auth login {tool} --api-key env:NAME`, or a `key` in the profile"))
            })?),
            _ => None,
        };
        Ok(Account { mode, key })
    }

    /// The folder that a tool keeps its login and settings in, made when it is missing.
    pub(crate) fn config_folder(&self, tool: &str) -> Result<PathBuf, Error> {
        made(self.layout().tool_folder(tool).join("config"))
    }

    /// A tool's own home, made when it is missing.
    pub(crate) fn tool_home(&self, tool: &str) -> Result<PathBuf, Error> {
        made(self.layout().tool_folder(tool).join("home"))
    }

    /// The tool, ready to log in or out in its own folder, with its home there.
    ///
    /// # Errors
    /// As [`Pcoder::prepare`].
    pub async fn prepare_login(&self, tool: &str, args: Vec<String>) -> Result<Prepared<'_>, Error> {
        // Asked for first: an unknown tool makes no folder.
        self.plugin(Kind::Agent, tool).await?;
        let home = self.tool_home(tool)?;
        self.prepare_as(self.plain_request(tool, Some(home), args), false, Some(Account::login()), true).await
    }

    fn plain_request(&self, tool: &str, project: Option<PathBuf>, args: Vec<String>) -> RunRequest {
        RunRequest {
            tool: tool.to_owned(),
            provider: "local".into(),
            project,
            version: None,
            args,
            profile: None,
            env: Vec::new(),
            clear_env: false,
            private_tmp: PrivateTmp::No,
        }
    }

    /// Whether a tool is logged in. A key is looked up; of a login the engine itself is asked, because only it knows
    /// every place that it looks at.
    pub async fn auth_status(&self, tool: &str) -> AuthStatus {
        let mut status = AuthStatus {
            tool: tool.to_owned(),
            mode: "own",
            logged_in: None,
            method: None,
            account: None,
            key: None,
            problem: None,
            remedy: None,
        };
        let account = match self.account(tool, None) {
            Ok(account) => account,
            Err(error) => return with_problem(status, &error),
        };
        status.mode = account.mode.map_or("own", AuthMode::word);
        if let Some(key) = &account.key {
            status.key = Some(key.subject());
            return match self.resolve(key).await {
                Ok(_) => AuthStatus { logged_in: Some(true), method: Some("api-key".into()), ..status },
                Err(error) => with_problem(AuthStatus { logged_in: Some(false), ..status }, &error),
            };
        }
        match self.asked(tool, account).await {
            Ok(state) => AuthStatus {
                logged_in: Some(state.logged_in),
                method: Some(state.method),
                account: state.account,
                remedy: (!state.logged_in).then(|| format!("`pcoder auth login {tool}`")),
                ..status
            },
            Err(error) => with_problem(status, &error),
        }
    }

    async fn asked(&self, tool: &str, account: Account) -> Result<AuthState, Error> {
        let own_home = account.mode.is_some();
        let project = if own_home { self.tool_home(tool)? } else { self.surroundings().cwd.clone() };
        let request = self.plain_request(tool, Some(project), Vec::new());
        let prepared = self.prepare_as(request, false, Some(account), own_home).await?;
        let control = prepared.control();
        let answer = prepared.capture_auth_status(Feed::Nothing, ANSWER, &control);
        let answer = tokio::time::timeout(STATUS, answer).await.map_err(|_| {
            control.cancel();
            Error::new(code::TIMEOUT, "auth.status", format!("the engine did not answer within {} s", STATUS.as_secs()))
                .subject(tool)
                .hint(format!("`pcoder engine verify {tool}` says whether it is whole"))
        })??;
        prepared.read_auth_status(&answer).await
    }

    /// The tools that there are.
    pub fn tool_names(&self) -> Vec<String> {
        self.names(Kind::Agent)
    }
}

/// A login to Claude that waits for a code, which a page shows in a browser anywhere.
pub struct PastedLogin<'a> {
    pcoder: &'a Pcoder,
    authorization: pcoder_oauth::Authorization,
    http: pcoder_oauth::Http,
}

impl PastedLogin<'_> {
    /// Where the user allows it.
    pub fn url(&self) -> String {
        self.authorization.url().to_string()
    }

    /// Exchanges the code, and keeps the login in the tool's own folder.
    ///
    /// # Errors
    /// `invalid` for what is no code, `unauthenticated` when it is refused, those of the network and of files.
    pub async fn finish(self, code: &str) -> Result<(), Error> {
        let clock = pcoder_oauth::Clock::system();
        let tokens = self.authorization.finish(code, &self.http, &clock).await.map_err(|error| from_oauth(&error))?;
        let file = CredentialsFile::new(self.pcoder.config_folder(CLAUDE)?.join(".credentials.json"));
        {
            // Against a run that is about to renew the login before this one.
            let lock = self.pcoder.layout().locks.join("auth-claude.lock");
            let _lock = pcoder_state::Lock::take(&lock, STATUS).map_err(|error| from_state("auth.login", &error))?;
            file.write(&tokens).map_err(|error| from_oauth(&error))?;
        }
        self.pcoder.use_login(CLAUDE)
    }
}

/// The one tool whose authorisation server is known here.
const CLAUDE: &str = "claude";

impl Pcoder {
    /// Begins a login that needs no browser on this machine.
    ///
    /// # Errors
    /// `unsupported` for another tool than Claude Code.
    pub fn begin_login(&self, tool: &str) -> Result<PastedLogin<'_>, Error> {
        if tool != CLAUDE {
            return Err(Error::new(code::UNSUPPORTED, "auth.login", "only Claude's login is known here")
                .subject(text::for_people(tool, 80))
                .hint(format!("`pcoder auth login {tool}` starts the tool's own login")));
        }
        let service = self.claude_service()?;
        let authorization = pcoder_oauth::Authorization::begin(&service).map_err(|error| from_oauth(&error))?;
        // What is wrong with the network's settings is said before anybody opens a page.
        Ok(PastedLogin { pcoder: self, authorization, http: self.claude_http()? })
    }

    /// Makes a tool use the login in its own folder from now on.
    ///
    /// # Errors
    /// When `auth.toml` cannot be read or written.
    pub fn use_login(&self, tool: &str) -> Result<(), Error> {
        self.set_auth(tool, Some(ToolAuth { mode: AuthMode::Oauth, key: None }))
    }
}

fn with_problem(status: AuthStatus, error: &Error) -> AuthStatus {
    let whole = || format!("`pcoder engine verify {}` says whether it is whole", status.tool);
    let remedy = error.hint.clone().unwrap_or_else(whole);
    AuthStatus { problem: Some(error.message.clone()), remedy: Some(remedy), ..status }
}

fn made(folder: PathBuf) -> Result<PathBuf, Error> {
    let failed = |error: std::io::Error| Error::io(OPERATION, folder.display().to_string(), &error);
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(&folder).map_err(failed)?;
    Ok(folder)
}
