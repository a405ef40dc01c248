//! The state of the service: its sandboxes, who may use them, and what happens to them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pcoder_fake_machine::{Layout, Machine};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fault::{Faults, Limit};
use crate::options::{Agent as Kind, Options};
use crate::pitcher::Agent;
use crate::pitcher::setup;
use crate::record::Records;

/// The workspace of a sandbox's global session.
pub(crate) const WORKSPACE: &str = "/project/workspace";
pub(crate) const HOME: &str = "/root";
/// The version that recorded answers have.
pub(crate) const PITCHER_VERSION: &str = "1.0.0-fake";

/// Tiers with their CPUs and GiB of memory.
pub(crate) const TIERS: [(&str, u32, u32); 7] = [
    ("Pico", 1, 2),
    ("Nano", 2, 4),
    ("Micro", 4, 8),
    ("Small", 8, 16),
    ("Medium", 16, 32),
    ("Large", 32, 64),
    ("XLarge", 64, 128),
];

/// An answer of the REST API that is none of success.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) errors: Vec<Value>,
}

impl ApiError {
    pub(crate) fn new(status: u16, error: impl Into<Value>) -> Self {
        Self { status, errors: vec![error.into()] }
    }

    pub(crate) fn not_found() -> Self {
        Self::new(404, "Not found")
    }

    /// Data that is not valid, by field.
    pub(crate) fn invalid(field: &str, reason: &str) -> Self {
        Self::new(422, json!({field: [reason]}))
    }

    /// The text that an answer of this status has by itself.
    pub(crate) fn of_status(status: u16) -> Self {
        let text = match status {
            400 => "Bad request",
            401 => "Unauthorized",
            402 => "Payment required: the workspace has no credits left",
            403 => "Forbidden",
            404 => "Not found",
            409 => "Conflict",
            422 => "Unprocessable entity",
            429 => "Rate limit exceeded",
            500 => "Internal server error",
            502 => "Bad gateway",
            503 => "Service unavailable",
            504 => "Gateway timeout",
            _ => "Error on demand",
        };
        Self::new(status, text)
    }
}

impl From<io::Error> for ApiError {
    fn from(error: io::Error) -> Self {
        Self::new(500, format!("the instance failed: {error}"))
    }
}

/// What a sandbox does. The REST API shows it only through `/vm/running` and `bootup_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Never started; a copy of one that was.
    Forked,
    /// Never started, or shut down: the next boot is a fresh one.
    Off,
    Hibernated,
    Running,
}

/// Who speaks with an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) username: String,
    pub(crate) workspace: String,
    pub(crate) home: String,
    pub(crate) write: bool,
}

impl Access {
    pub(crate) fn global() -> Self {
        Self { username: "root".to_owned(), workspace: WORKSPACE.to_owned(), home: HOME.to_owned(), write: true }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct PreviewToken {
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) last_used: Option<Timestamp>,
}

impl PreviewToken {
    pub(crate) fn valid(&self) -> bool {
        self.expires.is_none_or(|at| at > Timestamp::now())
    }
}

/// What a sandbox is apart from its instance.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) title: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) privacy: u8,
    pub(crate) private_preview: bool,
    pub(crate) frozen: bool,
    pub(crate) updated: Timestamp,
    pub(crate) phase: Phase,
    pub(crate) tier: String,
    pub(crate) hibernation_timeout: u64,
    pub(crate) wake_on_http: bool,
    pub(crate) wake_on_websocket: bool,
    pub(crate) tokens: HashMap<String, Access>,
    pub(crate) preview_tokens: Vec<PreviewToken>,
    pub(crate) active: Instant,
    pub(crate) active_at: Timestamp,
    pub(crate) started_at: Timestamp,
}

#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) number: u64,
    pub(crate) created: Timestamp,
    pub(crate) machine: Machine,
    pub(crate) agent: Agent,
    facts: Mutex<Facts>,
    /// Held while the sandbox goes from one phase to another.
    moving: tokio::sync::Mutex<()>,
}

impl Sandbox {
    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is used: what would hibernate it waits anew.
    pub(crate) fn touch(&self) {
        let mut facts = self.facts();
        facts.active = Instant::now();
        facts.active_at = Timestamp::now();
    }

    pub(crate) fn running(&self) -> bool {
        self.facts().phase == Phase::Running
    }

    pub(crate) fn access(&self, token: &str) -> Option<Access> {
        self.facts().tokens.get(token).cloned()
    }
}

/// The body of `POST /vm/{id}/start`, and of `start_options`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StartOptions {
    tier: Option<String>,
    hibernation_timeout_seconds: Option<u64>,
    ipcountry: Option<String>,
    automatic_wakeup_config: Option<Wakeup>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Wakeup {
    http: Option<bool>,
    websocket: Option<bool>,
}

impl StartOptions {
    fn check(&self) -> Result<(), ApiError> {
        if let Some(tier) = &self.tier {
            check_tier(tier)?;
        }
        if let Some(seconds) = self.hibernation_timeout_seconds {
            check_timeout(seconds)?;
        }
        match &self.ipcountry {
            Some(country) if country.len() != 2 => Err(ApiError::invalid("ipcountry", "is invalid")),
            _ => Ok(()),
        }
    }
}

pub(crate) fn check_tier(tier: &str) -> Result<(), ApiError> {
    let known = TIERS.iter().any(|(name, ..)| *name == tier);
    if known { Ok(()) } else { Err(ApiError::invalid("tier", "is invalid")) }
}

pub(crate) fn check_timeout(seconds: u64) -> Result<(), ApiError> {
    let fits = (1..=86_400).contains(&seconds);
    if fits { Ok(()) } else { Err(ApiError::invalid("hibernation_timeout_seconds", "must be between 1 and 86400")) }
}

/// The body of `POST /sandbox/{id}/fork`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ForkOptions {
    pub(crate) privacy: Option<u8>,
    pub(crate) private_preview: Option<bool>,
    pub(crate) title: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) tags: Option<Vec<String>>,
    pub(crate) path: Option<String>,
    pub(crate) is_frozen: Option<bool>,
    pub(crate) start_options: Option<StartOptions>,
}

impl ForkOptions {
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        if self.privacy.is_some_and(|privacy| privacy > 2) {
            return Err(ApiError::invalid("privacy", "is invalid"));
        }
        for (field, text) in [("title", &self.title), ("description", &self.description)] {
            if text.as_ref().is_some_and(|text| text.chars().count() > 255) {
                return Err(ApiError::invalid(field, "should be at most 255 character(s)"));
            }
        }
        if self.path.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Err(ApiError::invalid("path", "must start with /"));
        }
        self.start_options.as_ref().map_or(Ok(()), StartOptions::check)
    }
}

/// What was used of the budgets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) requests: u64,
    pub(crate) sandboxes: u64,
}

#[derive(Debug)]
pub(crate) struct Cloud {
    pub(crate) options: Options,
    pub(crate) faults: Faults,
    pub(crate) records: Records,
    pub(crate) stop: CancellationToken,
    /// Where the REST API and the agents listen.
    pub(crate) api: SocketAddr,
    pub(crate) agents: SocketAddr,
    root: PathBuf,
    sandboxes: Mutex<BTreeMap<String, Arc<Sandbox>>>,
    pub(crate) preview_hosts: Mutex<Vec<(String, Timestamp)>>,
    pub(crate) downloads: Mutex<HashMap<String, (Instant, Vec<u8>)>>,
    pub(crate) used: Mutex<Used>,
    /// The end of the current hour of the budgets.
    pub(crate) resets: Timestamp,
    counter: AtomicU64,
    connections: AtomicU64,
    shuffles: AtomicU64,
}

impl Cloud {
    pub(crate) fn new(options: Options, root: PathBuf, api: SocketAddr, agents: SocketAddr) -> Self {
        Self {
            options,
            faults: Faults::default(),
            records: Records::default(),
            stop: CancellationToken::new(),
            api,
            agents,
            root,
            sandboxes: Mutex::default(),
            preview_hosts: Mutex::default(),
            downloads: Mutex::default(),
            used: Mutex::default(),
            resets: Timestamp::now() + Duration::from_secs(3600),
            counter: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            shuffles: AtomicU64::new(0),
        }
    }

    pub(crate) fn connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts up where orders are shuffled; none where they are not.
    pub(crate) fn shuffle(&self) -> Option<u64> {
        self.options.shuffle_notifications.then(|| self.shuffles.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Sandbox>>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.map().values().cloned().collect()
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Sandbox>> {
        self.map().get(id).cloned()
    }

    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, ApiError> {
        if self.options.templates.iter().any(|template| template == id) {
            // They are somebody else's: everybody may fork them, and nothing else.
            return Err(ApiError::new(403, "Forbidden"));
        }
        self.get(id).ok_or_else(ApiError::not_found)
    }

    /// Another sandbox than this one, for answers that are about the wrong one.
    pub(crate) fn other(&self, id: &str) -> Option<Arc<Sandbox>> {
        self.map().values().find(|sandbox| sandbox.id != id).cloned()
    }

    pub(crate) fn running(&self) -> usize {
        self.sandboxes().iter().filter(|sandbox| sandbox.running()).count()
    }

    /// A new sandbox: a copy of another one or of a template, or, of nothing, with these files in its workspace.
    pub(crate) fn create(
        &self,
        from: Option<&str>,
        files: &BTreeMap<String, Vec<u8>>,
        fork: &ForkOptions,
    ) -> Result<Arc<Sandbox>, ApiError> {
        fork.check()?;
        let source = match from {
            None => None,
            Some(id) if self.options.templates.iter().any(|template| template == id) => None,
            Some(id) => Some(self.get(id).ok_or_else(ApiError::not_found)?),
        };
        {
            let mut used = self.used();
            if used.sandboxes >= self.options.sandboxes_hourly {
                return Err(ApiError::new(429, "Sandbox creation rate limit exceeded"));
            }
            used.sandboxes += 1;
        }
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}{number:02}", word(4));
        let folder = self.root.join(&id);
        let machine = match &source {
            Some(source) => source.machine.fork(&folder)?,
            None => {
                let layout = Layout { home: HOME.to_owned(), folders: vec!["/project".to_owned()] };
                let machine = Machine::new(&folder, layout)?;
                if let Some(workspace) = machine.path(WORKSPACE) {
                    fs::create_dir_all(&workspace)?;
                    let files = if from.is_some() { &self.options.template_files } else { files };
                    for (name, content) in files {
                        let path = machine.path(&format!("{WORKSPACE}/{name}")).unwrap_or(workspace.join("file"));
                        path.parent().map_or(Ok(()), fs::create_dir_all)?;
                        fs::write(path, content)?;
                    }
                }
                machine
            }
        };
        let now = Timestamp::now();
        let facts = Facts {
            title: fork.title.clone(),
            description: fork.description.clone(),
            tags: fork.tags.clone().unwrap_or_default(),
            privacy: fork.privacy.unwrap_or(0),
            private_preview: fork.private_preview.unwrap_or(false),
            frozen: fork.is_frozen.unwrap_or(false),
            updated: now,
            phase: if from.is_some() { Phase::Forked } else { Phase::Off },
            tier: "Micro".to_owned(),
            hibernation_timeout: 300,
            wake_on_http: true,
            wake_on_websocket: false,
            tokens: HashMap::new(),
            preview_tokens: Vec::new(),
            active: Instant::now(),
            active_at: now,
            started_at: now,
        };
        let sandbox = Arc::new(Sandbox {
            id: id.clone(),
            number,
            created: now,
            machine,
            agent: Agent::default(),
            facts: Mutex::new(facts),
            moving: tokio::sync::Mutex::default(),
        });
        self.map().insert(id, sandbox.clone());
        Ok(sandbox)
    }

    /// Starts a sandbox, or says how to reach one that runs.
    pub(crate) async fn start(
        self: &Arc<Self>,
        sandbox: &Arc<Sandbox>,
        options: &StartOptions,
    ) -> Result<Value, ApiError> {
        options.check()?;
        let _moving = sandbox.moving.lock().await;
        // It may have been deleted meanwhile.
        self.sandbox(&sandbox.id)?;
        let before = sandbox.facts().phase;
        if before != Phase::Running {
            if self.running() >= self.options.concurrent_vms {
                return Err(ApiError::new(429, "Concurrent VM limit reached"));
            }
            tokio::time::sleep(self.options.boot_time).await;
            if before == Phase::Hibernated {
                let machine = sandbox.machine.clone();
                blocking(move || machine.resume()).await?;
            }
        }
        let token = format!("pt_{}", word(32));
        {
            let mut facts = sandbox.facts();
            let now = Timestamp::now();
            if before != Phase::Running {
                facts.phase = Phase::Running;
                facts.started_at = now;
                facts.updated = now;
            }
            facts.active = Instant::now();
            facts.active_at = now;
            if let Some(tier) = &options.tier {
                facts.tier.clone_from(tier);
            }
            if let Some(seconds) = options.hibernation_timeout_seconds {
                facts.hibernation_timeout = seconds;
            }
            if let Some(wakeup) = &options.automatic_wakeup_config {
                facts.wake_on_http = wakeup.http.unwrap_or(true);
                facts.wake_on_websocket = wakeup.websocket.unwrap_or(false);
            }
            facts.tokens.insert(token.clone(), Access::global());
        }
        match before {
            Phase::Forked => setup::finished(self, sandbox),
            Phase::Off => setup::run(self, sandbox).await,
            Phase::Hibernated | Phase::Running => {}
        }
        let bootup = match before {
            Phase::Forked => "FORK",
            Phase::Off => "CLEAN",
            Phase::Hibernated => "RESUME",
            Phase::Running => "RUNNING",
        };
        Ok(self.started(sandbox, bootup, &token))
    }

    /// The answer to a start.
    fn started(&self, sandbox: &Sandbox, bootup: &str, token: &str) -> Value {
        let pint = self.options.agent == Kind::Pint;
        let mut answer = json!({
            "id": sandbox.id,
            "bootup_type": bootup,
            "cluster": "fake-cluster-1",
            "pitcher_url": self.pitcher_url(sandbox),
            "pitcher_token": token,
            "pitcher_version": PITCHER_VERSION,
            "latest_pitcher_version": PITCHER_VERSION,
            "pitcher_manager_version": PITCHER_VERSION,
            "reconnect_token": format!("rt_{}", word(16)),
            "workspace_path": WORKSPACE,
            "user_workspace_path": WORKSPACE,
            "use_pint": pint,
        });
        if pint {
            answer["pint_url"] = format!("http://{}/pint/{}", self.agents, sandbox.id).into();
            answer["pint_token"] = token.into();
            answer["vm_agent_type"] = "pint".into();
        }
        answer
    }

    pub(crate) fn pitcher_url(&self, sandbox: &Sandbox) -> String {
        format!("ws://{}/{}", self.agents, sandbox.id)
    }

    /// A session of its own for a user, with a new token.
    pub(crate) fn session(&self, sandbox: &Sandbox, name: &str, write: bool) -> Result<(String, Access), ApiError> {
        let home = format!("/project/home/{name}");
        let workspace = format!("{home}/workspace");
        if let Some(path) = sandbox.machine.path(&workspace) {
            fs::create_dir_all(path)?;
        }
        let access = Access { username: name.to_owned(), workspace, home, write };
        let token = format!("pt_{}", word(32));
        sandbox.facts().tokens.insert(token.clone(), access.clone());
        Ok((token, access))
    }

    /// Hibernates a sandbox that runs; with `idle`, only if it was not used for that long.
    pub(crate) async fn hibernate(&self, sandbox: &Arc<Sandbox>, idle: Option<Duration>) -> Result<(), ApiError> {
        let _moving = sandbox.moving.lock().await;
        {
            let facts = sandbox.facts();
            if facts.phase != Phase::Running {
                return Err(ApiError::not_found());
            }
            if idle.is_some_and(|idle| facts.active.elapsed() < idle) {
                return Ok(());
            }
        }
        tokio::time::sleep(self.options.stop_time).await;
        {
            let mut facts = sandbox.facts();
            facts.phase = Phase::Hibernated;
            facts.updated = Timestamp::now();
            facts.tokens.clear();
        }
        sandbox.agent.hibernating();
        let machine = sandbox.machine.clone();
        blocking(move || machine.pause()).await?;
        Ok(())
    }

    /// Shuts a sandbox down that runs. What is in the workspace and the home stays; `/tmp` and processes do not.
    pub(crate) async fn shutdown(&self, sandbox: &Arc<Sandbox>) -> Result<(), ApiError> {
        let _moving = sandbox.moving.lock().await;
        if !sandbox.running() {
            return Err(ApiError::not_found());
        }
        tokio::time::sleep(self.options.stop_time).await;
        {
            let mut facts = sandbox.facts();
            facts.phase = Phase::Off;
            facts.updated = Timestamp::now();
            facts.tokens.clear();
        }
        sandbox.agent.gone("Pitcher shutdown");
        let machine = sandbox.machine.clone();
        blocking(move || {
            machine.reboot()?;
            let Some(temporary) = machine.path("/tmp") else { return Ok(()) };
            for entry in fs::read_dir(temporary)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())
                } else {
                    fs::remove_file(entry.path())
                }?;
            }
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Deletes a sandbox, whatever it does.
    pub(crate) async fn delete(&self, sandbox: &Arc<Sandbox>) {
        let _moving = sandbox.moving.lock().await;
        self.map().remove(&sandbox.id);
        sandbox.facts().tokens.clear();
        sandbox.agent.gone("Deleted");
        let machine = sandbox.machine.clone();
        // It cannot fail, only be cancelled with the runtime.
        let _ = tokio::task::spawn_blocking(move || machine.end()).await;
    }

    /// Hibernates what is not used, until the fake stops.
    pub(crate) async fn watch_idle(self: Arc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.stop.cancelled() => return,
            }
            for sandbox in self.sandboxes() {
                let (idle, timeout) = {
                    let facts = sandbox.facts();
                    let timeout = Duration::from_secs(facts.hibernation_timeout);
                    (facts.phase == Phase::Running && facts.active.elapsed() >= timeout, timeout)
                };
                if idle {
                    // The instance may have been deleted or stopped in between, which is as well.
                    let _ = self.hibernate(&sandbox, Some(timeout)).await;
                }
            }
        }
    }

    /// Whether there is nothing left of a budget.
    pub(crate) fn exhausted(&self, limit: Limit) -> bool {
        match limit {
            Limit::Requests => self.used().requests > self.options.requests_hourly,
            Limit::Sandboxes => self.used().sandboxes >= self.options.sandboxes_hourly,
            Limit::Vms => self.running() >= self.options.concurrent_vms,
        }
    }

    /// Ends every instance.
    pub(crate) fn end(&self) {
        for sandbox in self.sandboxes() {
            sandbox.agent.gone("The service stops");
            sandbox.machine.end();
        }
        self.map().clear();
    }
}

/// Runs what blocks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// A random word of small letters and digits.
pub(crate) fn word(length: usize) -> String {
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
    (0..length).map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())])).collect()
}
