//! Which accelerators are tried, in which order, and what is remembered of those that did not work.
//!
//! That a device opens and a QEMU greets proves nothing: a KVM made of software takes an ordinary kernel and hangs. So
//! each accelerator gets a boot of its own, and what failed while another one then worked is not tried again until QEMU
//! is another one or the machine was restarted.

use pcoder_sdk::{Error, Result, WriteOptions, code};
use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::machine::Accelerator;
use crate::store::{ROOT, Store};

const FILE: &str = "accelerators.json";

/// Older ones emulate `cmpxchg16b` wrongly, and kernels die of it.
const OLDEST_EMULATING: u32 = 9;

/// What did not work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Memory {
    /// Where that was. Elsewhere it means nothing.
    key: String,
    failures: Vec<Failure>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) accelerator: String,
    pub(crate) reason: String,
}

impl Failure {
    pub(crate) fn new(accelerator: Accelerator, reason: impl Into<String>) -> Self {
        Self { accelerator: accelerator.name().to_owned(), reason: reason.into() }
    }

    /// For people.
    pub(crate) fn line(&self) -> String {
        format!("{}: {}", self.accelerator, self.reason)
    }
}

/// What is tried, and what is not.
#[derive(Debug, PartialEq)]
pub(crate) struct Rungs {
    pub(crate) try_these: Vec<Accelerator>,
    pub(crate) left_out: Vec<Failure>,
}

/// `wanted` is what the user says, and `first` what worked the last time.
pub(crate) fn rungs(
    facts: &Facts,
    memory: &Memory,
    operation: &str,
    wanted: Option<Accelerator>,
    first: Option<Accelerator>,
) -> Result<Rungs> {
    let mut rungs = Rungs { try_these: Vec::new(), left_out: Vec::new() };
    let old = facts.qemu().and_then(|it| it.split('.').next()?.parse::<u32>().ok()).filter(|it| *it < OLDEST_EMULATING);
    let unusable = |accelerator: Accelerator| match old {
        Some(major) if accelerator.is_software() => {
            Some(format!("QEMU {major} emulates processors wrongly; it takes {OLDEST_EMULATING}.0 or newer"))
        }
        _ => {
            let known = facts.accelerators.iter().find(|it| it.name == accelerator.name())?;
            (!known.usable).then(|| known.why.clone().unwrap_or_else(|| "this machine does not have it".to_owned()))
        }
    };
    if let Some(wanted) = wanted {
        // What failed before is tried again: it is what the user says.
        return match unusable(wanted) {
            None => {
                rungs.try_these.push(wanted);
                Ok(rungs)
            }
            Some(why) => Err(Error::unsupported(operation, format!("`{}` does not work here: {why}", wanted.name()))
                .hint("`accelerator=auto` takes what works")),
        };
    }
    let mut all: Vec<Accelerator> = facts.accelerators.iter().filter_map(|it| Accelerator::of(&it.name)).collect();
    if all.is_empty() {
        all.push(Accelerator::Tcg);
    }
    if let Some(first) = first.filter(|it| all.contains(it)) {
        all.retain(|it| *it != first);
        all.insert(0, first);
    }
    for accelerator in all {
        let failed = || memory.failures.iter().find(|it| it.accelerator == accelerator.name());
        if let Some(why) = unusable(accelerator) {
            rungs.left_out.push(Failure::new(accelerator, why));
        } else if let Some(failed) = failed().filter(|_| memory.key == facts.key() && !accelerator.is_software()) {
            rungs.left_out.push(Failure::new(accelerator, format!("{} (before; not tried again)", failed.reason)));
        } else {
            rungs.try_these.push(accelerator);
        }
    }
    Ok(rungs)
}

impl Memory {
    /// What cannot be read is forgotten: it costs a try.
    pub(crate) fn read(store: Store<'_>) -> Self {
        let text = store.host.files().read(ROOT, FILE).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Remembers what failed, after something else worked.
    pub(crate) fn learn(
        self,
        store: Store<'_>,
        facts: &Facts,
        worked: Accelerator,
        failures: &[Failure],
    ) -> Result<()> {
        let mut new = match self.key == facts.key() {
            true => self.clone(),
            false => Self { key: facts.key(), failures: Vec::new() },
        };
        let again = |it: &Failure| failures.iter().any(|new| new.accelerator == it.accelerator);
        new.failures.retain(|it| it.accelerator != worked.name() && !again(it));
        new.failures.extend(failures.iter().filter(|it| it.accelerator != Accelerator::Tcg.name()).cloned());
        if new.failures == self.failures {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(&new)
            .map_err(|error| Error::new(code::INTERNAL, store.operation, error.to_string()))?;
        store.host.files().write_atomic(ROOT, FILE, &text, WriteOptions::plain())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(version: &str, boot: &str) -> Facts {
        let text = format!(
            r#"{{"boot":"{boot}","qemu":{{"version":"{version}"}},"accelerators":[
            {{"name":"kvm","usable":true}},{{"name":"xen","usable":true}},{{"name":"hvf","usable":false,"why":"no Mac"}},
            {{"name":"tcg","usable":true}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn names(rungs: &Rungs) -> (Vec<&str>, Vec<String>) {
        (rungs.try_these.iter().map(|it| it.name()).collect(), rungs.left_out.iter().map(Failure::line).collect())
    }

    #[test]
    fn what_can_work_is_tried_in_the_hosts_order() {
        let (facts, none) = (facts("10.0.2", "b"), Memory::default());
        let auto = rungs(&facts, &none, "o", None, None).unwrap();
        assert_eq!(names(&auto), (vec!["kvm", "tcg"], vec!["hvf: no Mac".to_owned()]));
        let again = rungs(&facts, &none, "o", None, Some(Accelerator::Tcg)).unwrap();
        assert_eq!(names(&again).0, ["tcg", "kvm"]);
        let wanted = rungs(&facts, &none, "o", Some(Accelerator::Tcg), None).unwrap();
        assert_eq!(names(&wanted), (vec!["tcg"], vec![]));
        assert!(rungs(&facts, &none, "o", Some(Accelerator::Hvf), None).is_err());
        assert_eq!(names(&rungs(&Facts::default(), &none, "o", None, None).unwrap()).0, ["tcg"]);
    }

    #[test]
    fn what_failed_is_left_out_while_nothing_changes() {
        let host = pcoder_sdk::testing::FakeHost::new();
        let store = Store::new(host.provider(), "o");
        let here = facts("10.0.2", "b");
        let failures = [Failure::new(Accelerator::Kvm, "silent"), Failure::new(Accelerator::Tcg, "slow")];
        Memory::read(store).learn(store, &here, Accelerator::Tcg, &failures).unwrap();
        // pcoder reads it too, in this form (host/vm/src/tried.rs).
        let written: serde_json::Value = serde_json::from_slice(&host.host_file("state", FILE).unwrap()).unwrap();
        let expected = r#"{"key":"10.0.2 b","failures":[{"accelerator":"kvm","reason":"silent"}]}"#;
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(expected).unwrap());
        let memory = Memory::read(store);
        let left = names(&rungs(&here, &memory, "o", None, None).unwrap()).1;
        assert_eq!(left, ["kvm: silent (before; not tried again)", "hvf: no Mac"]);
        assert_eq!(names(&rungs(&here, &memory, "o", Some(Accelerator::Kvm), None).unwrap()).0, ["kvm"]);
        for changed in [facts("10.1.0", "b"), facts("10.0.2", "c")] {
            assert_eq!(names(&rungs(&changed, &memory, "o", None, None).unwrap()).0, ["kvm", "tcg"]);
        }
        Memory::read(store).learn(store, &here, Accelerator::Kvm, &[]).unwrap();
        assert_eq!(names(&rungs(&here, &Memory::read(store), "o", None, None).unwrap()).0, ["kvm", "tcg"]);
        host.put_on_host("state", FILE, b"garbage");
        assert_eq!(Memory::read(store), Memory::default());
    }

    #[test]
    fn a_qemu_that_emulates_wrongly_does_not_emulate() {
        let rungs = rungs(&facts("7.2.22", "b"), &Memory::default(), "o", None, None).unwrap();
        assert_eq!(names(&rungs).0, ["kvm"]);
        assert!(names(&rungs).1[1].contains("QEMU 7"));
    }
}
