//! What is known of the host: `facts.json`, which pcoder writes.

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::{Error, Result, code};
use serde::Deserialize;
use serde_json::Value;

/// The root of files that it is in.
const ROOT: &str = "host";
const FILE: &str = "facts.json";
/// What this file's format is; one that is newer may mean something else.
const FORMAT: u32 = 1;

/// A version's three numbers.
pub(crate) type Version = [u32; 3];

/// The host. What is missing is not known.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct Facts {
    format: u32,
    /// As Rust calls it.
    pub(crate) os: String,
    /// As Rust calls it.
    arch: String,
    /// Another one after each start of the machine.
    boot: Value,
    pub(crate) cpus: Option<u32>,
    pub(crate) memory_mib: Option<u64>,
    qemu: Option<Program>,
    pub(crate) accelerators: Vec<Accelerator>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Program {
    version: Option<String>,
}

/// What could run a guest's instructions.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Accelerator {
    /// QEMU's name of it.
    pub(crate) name: String,
    /// Nothing that can be seen without trying is against it.
    #[serde(default)]
    pub(crate) usable: bool,
    /// What is against it.
    #[serde(default)]
    pub(crate) why: Option<String>,
}

impl Facts {
    /// Reads them. A host that says nothing is one of which nothing is known.
    pub(crate) fn read(host: ProviderHost<'_>, operation: &str) -> Result<Self> {
        let text = match host.files().read(ROOT, FILE) {
            Ok(text) => text,
            Err(error) if error.code == code::NOT_FOUND => return Ok(Self::default()),
            Err(error) => return Err(error.during(operation)),
        };
        let facts: Self = serde_json::from_slice(&text).map_err(|error| {
            let message = format!("what pcoder knows of this machine cannot be read: {error}");
            Error::new(code::INTEGRITY, operation, message).subject(FILE)
        })?;
        if facts.format > FORMAT {
            let message = "what is known of this machine was written by a newer pcoder";
            return Err(Error::new(code::UNSUPPORTED, operation, message).subject(FILE));
        }
        Ok(facts)
    }

    /// The processor's architecture, which is the guest's.
    pub(crate) fn arch(&self) -> &str {
        if self.arch.is_empty() { "x86_64" } else { &self.arch }
    }

    /// QEMU's version.
    pub(crate) fn qemu(&self) -> Option<&str> {
        self.qemu.as_ref()?.version.as_deref()
    }

    /// The numbers of QEMU's version; none where it is not known.
    pub(crate) fn version(&self) -> Version {
        let numbers = self.qemu().unwrap_or_default().split('.').map(|it| it.parse().unwrap_or(0));
        let mut version = [0; 3];
        version.iter_mut().zip(numbers).for_each(|(to, number)| *to = number);
        version
    }

    /// While this is the same, what did not work does not work.
    pub(crate) fn key(&self) -> String {
        let boot = match &self.boot {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        format!("{} {boot}", self.qemu().unwrap_or("unknown"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcoder_sdk::testing::FakeHost;

    #[test]
    fn a_host_that_says_nothing_is_an_unknown_one() {
        let host = FakeHost::new();
        let facts = Facts::read(host.provider(), "o").unwrap();
        assert_eq!((facts.arch(), facts.qemu(), facts.cpus), ("x86_64", None, None));
        assert!(facts.accelerators.is_empty());
        assert_eq!((facts.key().as_str(), facts.version()), ("unknown null", [0, 0, 0]));
    }

    #[test]
    fn what_is_known_is_read_and_what_is_garbled_is_an_error() {
        let host = FakeHost::new();
        let text = br#"{"format":1,"os":"linux","arch":"aarch64","boot":"b1","cpus":8,"memory-mib":16000,"later":1,
            "qemu":{"program":"/usr/bin/qemu","version":"10.0.2"},
            "accelerators":[{"name":"kvm","usable":false,"why":"no /dev/kvm"},{"name":"tcg","usable":true}]}"#;
        host.put_on_host("host", "facts.json", text);
        let facts = Facts::read(host.provider(), "o").unwrap();
        assert_eq!(facts.version(), [10, 0, 2]);
        assert_eq!((facts.arch(), facts.key().as_str(), facts.accelerators.len()), ("aarch64", "10.0.2 b1", 2));
        for (wrong, expected) in [("{", code::INTEGRITY), (r#"{"format":2}"#, code::UNSUPPORTED)] {
            host.put_on_host("host", "facts.json", wrong.as_bytes());
            assert_eq!(Facts::read(host.provider(), "o").map(|_| ()).map_err(|it| it.code), Err(expected.to_owned()));
        }
        host.fail("files.read", Error::new(code::DENIED, "files.read", "no"));
        assert_eq!(Facts::read(host.provider(), "o").map(|_| ()).map_err(|it| it.code), Err("denied".to_owned()));
    }
}
