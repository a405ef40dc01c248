//! A sandbox, and what requests say of one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use pcoder_fake_machine::Machine;
use serde::Deserialize;

use crate::cloud::{ApiError, HOME, TIERS, WORKSPACE};
use crate::pitcher::Agent;

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
    pub(crate) moving: tokio::sync::Mutex<()>,
}

impl Sandbox {
    pub(crate) fn new(id: String, number: u64, machine: Machine, facts: Facts) -> Self {
        Self {
            id,
            number,
            created: facts.updated,
            machine,
            agent: Agent::default(),
            facts: Mutex::new(facts),
            moving: tokio::sync::Mutex::default(),
        }
    }

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
    pub(crate) tier: Option<String>,
    pub(crate) hibernation_timeout_seconds: Option<u64>,
    ipcountry: Option<String>,
    pub(crate) automatic_wakeup_config: Option<Wakeup>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wakeup {
    pub(crate) http: Option<bool>,
}

impl StartOptions {
    pub(crate) fn check(&self) -> Result<(), ApiError> {
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
