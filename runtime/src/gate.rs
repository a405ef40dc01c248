//! The one gate. Whatever a plugin causes on the host went through [`Gate::authorize`] first.
//!
//! The functions that have effects take a [`Permit`] by value, and only this module can make one: its fields are
//! private and it is not `Clone`. So a second path to an effect that forgets the check does not compile.
//! `tests/it/gate_matrix.rs` holds the list of every import of every world with the class and verb that guards it.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::audit::{self, Event, Record, Sink, millis};
use crate::capability::limits::{Budget, Limits, Lines};
use crate::capability::{Class, Effect};
use crate::error::{Error, code};
use crate::manifest::Capabilities;

/// Who is calling: as the host knows it, never as a plugin says.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The plugin's name in its manifest.
    pub plugin: String,
    /// The sha256 of its component, in hexadecimal.
    pub digest: String,
}

/// A plugin as the gate sees it: who it is, what it may do, and how much one call may move.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Who it is.
    pub identity: Identity,
    /// What it may do.
    pub authority: Authority,
    /// What one call may use up.
    pub limits: Limits,
}

/// What a plugin may do: what it asked for, what its user granted, what a policy allows. All of them must allow an
/// effect, so none can widen another, and an empty one allows nothing.
#[derive(Clone, Debug)]
pub struct Authority {
    layers: Arc<[Layer]>,
}

#[derive(Clone, Debug)]
struct Layer {
    whose: &'static str,
    capabilities: Arc<Capabilities>,
}

impl Authority {
    /// What the plugin asked for, narrowed to what its user granted.
    pub fn granted(request: Capabilities, grant: Capabilities) -> Self {
        let layer = |whose, capabilities| Layer { whose, capabilities: Arc::new(capabilities) };
        Self { layers: Arc::new([layer("the plugin's manifest", request), layer("the grant", grant)]) }
    }

    /// The same, narrowed by an administrator's policy.
    #[must_use]
    pub fn under_policy(self, policy: Capabilities) -> Self {
        let policy = Layer { whose: "the policy", capabilities: Arc::new(policy) };
        Self { layers: self.layers.iter().cloned().chain([policy]).collect() }
    }
}

/// How many decisions one call gets. A plugin that asks without end must not fill the audit.
const DECISIONS: u64 = 100_000;

/// Checks one call's effects, counts what they move, and writes them down.
pub struct Gate {
    subject: Arc<Subject>,
    call: Arc<str>,
    operation: &'static str,
    sink: Arc<dyn Sink>,
    permits: AtomicU64,
    budget: Budget,
    lines: Lines,
}

/// That one effect on one target may happen once.
pub struct Permit<E: Effect> {
    effect: E,
    number: u64,
    started: Instant,
    bytes: u64,
    outcome: Option<String>,
    gate: Arc<Gate>,
}

impl Gate {
    /// A gate for one call of a subject's export.
    pub fn new(subject: Arc<Subject>, call: Arc<str>, operation: &'static str, sink: Arc<dyn Sink>) -> Arc<Self> {
        let budget = Budget::new(subject.limits.output);
        let lines = Lines::new(subject.limits.log_lines);
        Arc::new(Self { subject, call, operation, sink, permits: AtomicU64::new(0), budget, lines })
    }

    /// Who is calling.
    pub fn identity(&self) -> &Identity {
        &self.subject.identity
    }

    /// What the call may use up.
    pub(crate) fn limits(&self) -> &Limits {
        &self.subject.limits
    }

    /// What the call may still move: one budget for files, captured output, requests and answers.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// How many lines the call may still log, whichever way they come.
    pub(crate) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Decides and writes the decision down. This is the point in time that counts: before any name is looked up, any
    /// file opened, any program started.
    ///
    /// # Errors
    /// `denied`, naming the missing capability and the command that grants it.
    pub fn authorize<E: Effect>(self: &Arc<Self>, effect: E) -> Result<Permit<E>, Error> {
        let number = self.permits.fetch_add(1, Ordering::Relaxed);
        if number >= DECISIONS {
            return Err(Error::new(
                code::LIMIT,
                format!("{}.{}", E::CLASS.as_str(), effect.verb()),
                format!("the call asked for more than {DECISIONS} things"),
            ));
        }
        let mut rules = Vec::with_capacity(self.subject.authority.layers.len());
        let mut refused_by = self.subject.authority.layers.is_empty().then_some("an empty authority");
        for layer in self.subject.authority.layers.iter() {
            match effect.allowed_by(&layer.capabilities) {
                Some(rule) => rules.push(rule),
                None => {
                    refused_by = Some(layer.whose);
                    break;
                }
            }
        }
        let rule = if refused_by.is_none() { rules.pop() } else { None };
        self.write(Event::Decision {
            class: E::CLASS,
            verb: effect.verb(),
            target: effect.describe(),
            rule: rule.clone(),
            permit: number,
        });
        if let Err(reason) = self.sink.ready() {
            return Err(Error::new(code::DENIED, format!("{}.{}", E::CLASS.as_str(), effect.verb()), reason)
                .subject(effect.describe())
                .hint(
                    "the policy of this machine wants a record of everything: `pcoder doctor` says what is in the way",
                ));
        }
        match refused_by {
            None => {
                Ok(Permit { effect, number, started: Instant::now(), bytes: 0, outcome: None, gate: Arc::clone(self) })
            }
            Some(whose) => Err(self.denial(&effect, whose)),
        }
    }

    /// What the narrowest layer that has an opinion says: the policy before the grant, the grant before the manifest.
    pub(crate) fn narrowest<T>(&self, opinion: impl Fn(&Capabilities) -> Option<T>) -> Option<T> {
        self.subject.authority.layers.iter().rev().find_map(|layer| opinion(&layer.capabilities))
    }

    /// What each layer says that has an opinion.
    pub(crate) fn each<T>(&self, opinion: impl Fn(&Capabilities) -> Option<T>) -> impl Iterator<Item = T> {
        self.subject.authority.layers.iter().filter_map(move |layer| opinion(&layer.capabilities))
    }

    /// Whether something would be allowed. It is not done, so nothing is written down.
    pub(crate) fn would_allow<E: Effect>(&self, effect: &E) -> bool {
        let layers = &self.subject.authority.layers;
        !layers.is_empty() && layers.iter().all(|layer| effect.allowed_by(&layer.capabilities).is_some())
    }

    fn denial<E: Effect>(&self, effect: &E, whose: &str) -> Error {
        let class = E::CLASS.as_str();
        let plugin = &self.subject.identity.plugin;
        let hint = match whose {
            "the plugin's manifest" => {
                format!("the plugin never asked for this; look at it with `pcoder plugin inspect {plugin}`")
            }
            "the policy" => "ask the administrator of this machine".to_owned(),
            _ => format!("allow it with `pcoder plugin grant {plugin} {class}`"),
        };
        Error::new(
            code::DENIED,
            format!("{class}.{}", effect.verb()),
            format!("plugin `{plugin}` has no such `{class}` capability in {whose}"),
        )
        .subject(effect.describe())
        .hint(hint)
    }

    /// Writes down something that was found out only while it was done: a link that leads out of its root.
    pub(crate) fn deny_late(self: &Arc<Self>, class: Class, verb: &'static str, target: String) {
        let permit = self.permits.fetch_add(1, Ordering::Relaxed);
        if permit < DECISIONS {
            self.write(Event::Decision { class, verb, target, rule: None, permit });
        }
    }

    pub(crate) fn call_ended(&self, outcome: Cow<'static, str>, started: Instant) {
        self.write(Event::Call { outcome, ms: millis(started.elapsed()) });
    }

    fn write(&self, event: Event) {
        self.sink.record(&Record {
            time_ms: audit::now_ms(),
            call: Cow::Borrowed(&self.call),
            operation: Cow::Borrowed(self.operation),
            plugin: Cow::Borrowed(&self.subject.identity.plugin),
            digest: Cow::Borrowed(&self.subject.identity.digest),
            event,
        });
    }
}

impl<E: Effect> Permit<E> {
    /// What may be done.
    pub fn effect(&self) -> &E {
        &self.effect
    }

    /// The gate that made this.
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Writes down how it went and hands the result on.
    ///
    /// # Errors
    /// Those of `result`.
    pub fn finish<T>(mut self, bytes: u64, result: Result<T, Error>) -> Result<T, Error> {
        self.bytes = bytes;
        self.outcome = Some(match &result {
            Ok(_) => "ok".to_owned(),
            Err(error) => error.code.clone().into_owned(),
        });
        result
    }
}

impl<E: Effect> Drop for Permit<E> {
    /// Every permit leaves a record, also when the call was cancelled in the middle of its effect.
    fn drop(&mut self) {
        self.gate.write(Event::Effect {
            class: E::CLASS,
            verb: self.effect.verb(),
            target: self.effect.describe(),
            permit: self.number,
            outcome: self.outcome.take().unwrap_or_else(|| "abandoned".to_owned()),
            bytes: self.bytes,
            ms: millis(self.started.elapsed()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Memory;
    use crate::capability::target::OnTarget;
    use crate::manifest::Target;

    fn with_target() -> Capabilities {
        Capabilities { target: Some(Target { reason: String::new() }), ..Capabilities::default() }
    }

    fn gate(authority: Authority, sink: &Arc<Memory>) -> Arc<Gate> {
        let identity = Identity { plugin: "p".into(), digest: "d".into() };
        let subject = Arc::new(Subject { identity, authority, limits: Limits::default() });
        Gate::new(subject, "call".into(), "credentials.install", Arc::clone(sink) as Arc<dyn Sink>)
    }

    #[test]
    fn every_layer_must_allow_an_effect() {
        let none = Capabilities::default;
        for (authority, allowed) in [
            (Authority::granted(with_target(), with_target()), true),
            (Authority::granted(with_target(), none()), false),
            (Authority::granted(none(), with_target()), false),
            (Authority::granted(with_target(), with_target()).under_policy(none()), false),
            (Authority::granted(with_target(), with_target()).under_policy(with_target()), true),
            (Authority { layers: Arc::new([]) }, false),
        ] {
            let sink = Arc::new(Memory::default());
            let result = gate(authority, &sink).authorize(OnTarget::new("run", "ls"));
            assert_eq!(result.is_ok(), allowed);
        }
    }

    #[test]
    fn a_denial_is_a_value_with_a_way_out_and_a_record() {
        let sink = Arc::new(Memory::default());
        let gate = gate(Authority::granted(with_target(), Capabilities::default()), &sink);
        let Err(error) = gate.authorize(OnTarget::new("run", "ls")) else { panic!("it was allowed") };
        assert!(error.is(code::DENIED));
        assert_eq!(error.hint.as_deref(), Some("allow it with `pcoder plugin grant p target`"));
        let records = sink.records();
        assert!(matches!(&records[..], [Record { event: Event::Decision { rule: None, .. }, .. }]));
    }

    #[test]
    fn an_effect_that_was_abandoned_is_on_record() {
        let sink = Arc::new(Memory::default());
        let gate = gate(Authority::granted(with_target(), with_target()), &sink);
        drop(gate.authorize(OnTarget::new("run", "ls")).expect("allowed"));
        let records = sink.records();
        let [_, Record { event: Event::Effect { outcome, .. }, .. }] = &records[..] else { panic!("{records:?}") };
        assert_eq!(outcome, "abandoned");
    }
}
