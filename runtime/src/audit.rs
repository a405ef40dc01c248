//! What happened, for those who must be able to say so: one record a decision, one an effect.

use std::borrow::Cow;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::capability::Class;

/// One line of the audit. It never holds a secret, a file's content, an argument or a query.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Record<'a> {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// The call that this belongs to.
    pub call: Cow<'a, str>,
    /// The export that was called, as `provider.exec`.
    pub operation: Cow<'a, str>,
    /// The plugin's name in its manifest.
    pub plugin: Cow<'a, str>,
    /// The sha256 of the plugin's component, in hexadecimal.
    pub digest: Cow<'a, str>,
    /// What the record is about.
    #[serde(flatten)]
    pub event: Event,
}

impl Record<'_> {
    /// The same, to be kept.
    #[must_use]
    pub fn into_owned(self) -> Record<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Record {
            time_ms: self.time_ms,
            call: own(self.call),
            operation: own(self.operation),
            plugin: own(self.plugin),
            digest: own(self.digest),
            event: self.event,
        }
    }
}

/// What a record is about.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// The gate said yes or no.
    Decision {
        /// The class of capability.
        class: Class,
        /// What would be done.
        verb: &'static str,
        /// To what, in normal form.
        target: String,
        /// The rule that allowed it; nothing when it was denied.
        rule: Option<String>,
        /// The number that the effect's record carries too.
        permit: u64,
    },
    /// Something allowed was done, or tried.
    Effect {
        /// The class of capability.
        class: Class,
        /// What was done.
        verb: &'static str,
        /// To what.
        target: String,
        /// The number of the decision.
        permit: u64,
        /// `ok`, an error's code, or `abandoned` when the call ended first.
        outcome: String,
        /// How many bytes it moved, where that is known.
        bytes: u64,
        /// How long it took.
        ms: u64,
    },
    /// A call into the plugin ended.
    Call {
        /// `ok` or an error's code.
        outcome: Cow<'static, str>,
        /// How long it took.
        ms: u64,
    },
}

/// Where records go. It must not fail and must not wait long; one that cannot write keeps that to say later.
pub trait Sink: Send + Sync {
    /// Takes one record.
    fn record(&self, record: &Record<'_>);

    /// Whether what it takes is kept. Where that is not so and matters (a policy says so), it answers why, and nothing is
    /// allowed any more.
    ///
    /// # Errors
    /// Why nothing may go on without a record.
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Keeps records in memory.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Vec<Record<'static>>>);

impl Memory {
    /// What was recorded so far.
    pub fn records(&self) -> Vec<Record<'static>> {
        self.0.lock().map(|records| records.clone()).unwrap_or_default()
    }
}

impl Sink for Memory {
    fn record(&self, record: &Record<'_>) {
        if let Ok(mut records) = self.0.lock() {
            records.push(record.clone().into_owned());
        }
    }
}

/// Keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nowhere;

impl Sink for Nowhere {
    fn record(&self, _: &Record<'_>) {}
}

pub(crate) fn now_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
