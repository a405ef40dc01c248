//! What was found out about a host by starting machines on it.
//!
//! A provider of machines leaves it as `accelerators.json` in the folder that it keeps between calls. It says what did
//! not work, and under which QEMU and which start of the host that was:
//! `{"key": "QEMU BOOT", "failures": [{"accelerator": "kvm", "reason": "…"}]}`. A plugin wrote it, so its words are
//! bounded and shown as text.

use std::path::Path;

use serde::Deserialize;

use crate::facts::HostFacts;

/// The file.
pub const TRIED: &str = "accelerators.json";

/// A few sentences at most.
const LARGEST: u64 = 64 << 10;
const LONGEST_REASON: usize = 400;

/// What did not work when it was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Tried {
    key: String,
    failures: Vec<Failure>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Failure {
    accelerator: String,
    reason: String,
}

impl Tried {
    /// Reads it from a provider's folder. What is not there or cannot be read says nothing.
    pub fn read(folder: &Path) -> Self {
        let path = folder.join(TRIED);
        if std::fs::metadata(&path).map_or(true, |it| !it.is_file() || it.len() > LARGEST) {
            return Self::default();
        }
        std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }
}

impl HostFacts {
    /// These facts with what was found out under the same QEMU since the same start of the host. Software stays usable:
    /// there is nothing after it.
    #[must_use]
    pub fn after(&self, tried: &Tried) -> Self {
        let mut facts = self.clone();
        if tried.key != facts.key() {
            return facts;
        }
        for rung in facts.accelerators.iter_mut().filter(|it| it.usable && it.name != "tcg") {
            if let Some(failure) = tried.failures.iter().find(|it| it.accelerator == rung.name) {
                let reason: String =
                    failure.reason.chars().filter(|it| !it.is_control()).take(LONGEST_REASON).collect();
                rung.usable = false;
                rung.why = Some(format!(
                    "a machine was started with it, and it did not work: {reason}; it is tried again when QEMU is another \
                     one or this computer was restarted"
                ));
            }
        }
        facts
    }

    /// Under the same one, what did not work does not work.
    fn key(&self) -> String {
        let qemu = self.qemu.as_ref().map_or("unknown", |it| it.version.as_str());
        format!("{qemu} {}", self.boot.as_deref().unwrap_or("null"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    async fn facts() -> HostFacts {
        let fake = Fake::linux()
            .on_path("qemu-system-x86_64", "QEMU emulator version 10.0.2")
            .answers("-accel help", "Accelerators supported in QEMU binary:\ntcg\nkvm\n")
            .file("/proc/cpuinfo", "flags : vmx\n")
            .file("/proc/sys/kernel/random/boot_id", "b1\n")
            .device("/dev/kvm", Ok(()));
        HostFacts::of(&fake, Path::new("/m")).await.0
    }

    fn said(facts: &HostFacts) -> Vec<(&str, bool)> {
        facts.accelerators.iter().map(|it| (it.name, it.usable)).collect()
    }

    #[tokio::test]
    async fn what_did_not_work_is_known_while_qemu_and_the_host_are_the_same() {
        let facts = facts().await;
        assert_eq!(said(&facts), [("kvm", true), ("tcg", true)]);
        let folder = tempfile::tempdir().expect("a folder");
        let after = |text: &str| {
            std::fs::write(folder.path().join(TRIED), text).expect("a file");
            facts.after(&Tried::read(folder.path()))
        };
        assert_eq!(facts.after(&Tried::read(folder.path())), facts, "nothing was tried");
        let failures = r#""failures":[{"accelerator":"kvm","reason":"the guest was\u001b silent"},
            {"accelerator":"tcg","reason":"slow"}]"#;
        let tried = after(&format!(r#"{{"key":"10.0.2 b1",{failures}}}"#));
        assert_eq!(said(&tried), [("kvm", false), ("tcg", true)]);
        assert!(
            tried.accelerators[0].why.as_deref().is_some_and(|it| it.contains("the guest was silent; it is tried"))
        );
        for nothing in
            [format!(r#"{{"key":"10.0.3 b1",{failures}}}"#), format!(r#"{{"key":"10.0.2 b2",{failures}}}"#), "{".into()]
        {
            assert_eq!(after(&nothing), facts, "{nothing}");
        }
    }
}
