//! The host keys of machines that were reached over SSH and whose key nobody knew beforehand.

use std::collections::BTreeMap;

use pcoder_runtime::Error;
use pcoder_runtime::call::HostKeys;
use pcoder_runtime::error::code;
use pcoder_state::{Document, File};
use serde::{Deserialize, Serialize};

use crate::errors::from_state;
use crate::layout::Layout;

const OPERATION: &str = "ssh.connect";

/// Host keys by `HOST:PORT`, each as one line of OpenSSH's public key format.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    hosts: BTreeMap<String, String>,
}

impl Document for Keys {
    const VERSION: i64 = 1;
    const HEADER: &'static str = "# The host keys that were seen first, of machines that plugins reach over SSH. Delete a line to see a key anew.";
}

/// The file that they are kept in.
pub(crate) struct KnownHosts(File<Keys>);

impl KnownHosts {
    pub(crate) fn of(layout: &Layout) -> Self {
        Self(File::new(layout.known_hosts(), &layout.locks))
    }
}

impl HostKeys for KnownHosts {
    fn known(&self, host: &str, port: u16) -> Result<Option<String>, Error> {
        let keys = self.0.read().map_err(|error| from_state(OPERATION, &error))?;
        Ok(keys.hosts.get(&name(host, port)).cloned())
    }

    fn learn(&self, host: &str, port: u16, key: &str) -> Result<(), Error> {
        let learned = self.0.update::<bool, pcoder_state::Error>(|keys| {
            let kept = keys.hosts.entry(name(host, port)).or_insert_with(|| key.to_owned());
            Ok(kept == key)
        });
        match learned.map_err(|error| from_state(OPERATION, &error))? {
            true => Ok(()),
            false => {
                Err(Error::new(code::DENIED, OPERATION, "two host keys were seen at once, and one cannot be right")
                    .subject(name(host, port))
                    .hint("ask whoever runs that machine which key it has; `known-hosts.toml` holds the first one"))
            }
        }
    }
}

fn name(host: &str, port: u16) -> String {
    format!("{}:{port}", host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_is_kept_and_another_one_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = || KnownHosts(File::new(folder.path().join("known-hosts.toml"), folder.path()));
        assert_eq!(file().known("a.test", 22), Ok(None));
        file().learn("a.test", 22, "ssh-ed25519 AAAA").expect("learned");
        assert_eq!(file().known("A.test", 22), Ok(Some("ssh-ed25519 AAAA".to_owned())));
        assert_eq!(file().known("a.test", 2222), Ok(None));
        file().learn("a.test", 22, "ssh-ed25519 AAAA").expect("the same");
        assert!(file().learn("a.test", 22, "ssh-ed25519 BBBB").expect_err("another").is(code::DENIED));
        assert_eq!(file().known("a.test", 22), Ok(Some("ssh-ed25519 AAAA".to_owned())));
    }
}
