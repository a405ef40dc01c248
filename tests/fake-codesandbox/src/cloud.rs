//! The state of the service: its sandboxes, who may use them, and what happens to them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pcoder_fake_machine::{Layout, Machine};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fault::{Faults, Limit};
use crate::options::Options;
use crate::record::Records;
use crate::sandbox::{Facts, ForkOptions, Phase, Sandbox};

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
    /// How many boot, and do not run yet.
    pub(crate) booting: AtomicUsize,
    /// The sandboxes that tags and aliases of templates stand for.
    pub(crate) tags: Mutex<HashMap<String, String>>,
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
            booting: AtomicUsize::new(0),
            tags: Mutex::default(),
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

    pub(crate) fn map(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Sandbox>>> {
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
            Some(id) => {
                let tagged = self.tags.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
                Some(self.get(tagged.as_deref().unwrap_or(id)).ok_or_else(ApiError::not_found)?)
            }
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
            tokens: HashMap::new(),
            preview_tokens: Vec::new(),
            active: Instant::now(),
            active_at: now,
            started_at: now,
        };
        let sandbox = Arc::new(Sandbox::new(id.clone(), number, machine, facts));
        self.map().insert(id, sandbox.clone());
        Ok(sandbox)
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
