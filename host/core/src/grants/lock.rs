//! `plugins.lock`: which plugins were added, and what was granted to them.

use std::collections::BTreeMap;

use pcoder_runtime::capability::check_grant;
use pcoder_runtime::manifest::{Capabilities, Exec, Files, Kind, Net, Secrets, Service, Target};
use pcoder_state::{Document, Wrong};
use serde::{Deserialize, Serialize};

/// What was granted. The same as [`Capabilities`], and refuses fields that it does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Granted {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    exec: Vec<Exec>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    service: Vec<Service>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    files: Vec<Files>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    net: Vec<Net>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<Secrets>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<Target>,
}

impl From<Capabilities> for Granted {
    fn from(it: Capabilities) -> Self {
        Self {
            exec: it.exec,
            service: it.service,
            files: it.files,
            net: it.net,
            secrets: it.secrets,
            target: it.target,
        }
    }
}

impl From<Granted> for Capabilities {
    fn from(it: Granted) -> Self {
        Self {
            exec: it.exec,
            service: it.service,
            files: it.files,
            net: it.net,
            secrets: it.secrets,
            target: it.target,
        }
    }
}

/// One plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Entry {
    /// Its name, as in its manifest.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Its own version.
    pub version: String,
    /// The sha256 of its component, in hexadecimal: what the grant is pinned to.
    pub sha256: String,
    /// Where it came from: a file's name without its folder, an address without a query, or `built in`.
    pub source: String,
    /// When, in milliseconds since 1970.
    pub added_unix_ms: u64,
    /// The folders behind the names of its file roots.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roots: BTreeMap<String, String>,
    /// What it was granted.
    #[serde(default)]
    pub granted: Granted,
}

/// Where an entry comes from that narrows a plugin that is built in.
pub(crate) const BUILT_IN: &str = "built in";

impl Entry {
    /// Whether it is about a plugin that is built in, whose bytes are not kept.
    pub fn is_built_in(&self) -> bool {
        self.source == BUILT_IN
    }
}

/// Every plugin that was added, and every one that is built in and was narrowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginsLock {
    /// In the order of their names.
    #[serde(default, rename = "plugin", skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<Entry>,
}

impl PluginsLock {
    /// The entry of that name.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.plugins.iter().find(|entry| entry.name == name)
    }

    /// Puts an entry in the place of the one of its name, if there is one.
    pub(crate) fn put(&mut self, entry: Entry) {
        self.plugins.retain(|it| it.name != entry.name);
        self.plugins.push(entry);
        self.plugins.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Takes an entry out.
    pub(crate) fn take(&mut self, name: &str) -> Option<Entry> {
        let at = self.plugins.iter().position(|entry| entry.name == name)?;
        Some(self.plugins.remove(at))
    }
}

impl Document for PluginsLock {
    const VERSION: i64 = 1;
    const HEADER: &'static str = "# The plugins that were added to pcoder, and what each may do. Written by `pcoder plugin`.\n\
                                  # Each grant is for the bytes with this sha256 and for no others.";

    fn check(&self) -> Result<(), Wrong> {
        for entry in &self.plugins {
            let digest = &entry.sha256;
            if digest.len() != 64 || !digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                return Err(Wrong::whole(format!("the plugin `{}` has a sha256 that is none", entry.name)));
            }
            if self.plugins.iter().filter(|it| it.name == entry.name).count() > 1 {
                return Err(Wrong::whole(format!("the plugin `{}` is there twice", entry.name)));
            }
            // A grant that nobody can enforce must not look like one.
            check_grant(&entry.granted.clone().into())
                .map_err(|error| Wrong::whole(format!("the grant of `{}`: {}", entry.name, error.message)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use pcoder_state::File;

    use super::*;

    fn entry(name: &str) -> Entry {
        let granted = Capabilities {
            net: vec![Net {
                url: "https://api.example.com/".into(),
                methods: vec!["GET".into()],
                addresses: vec![],
                reason: "asks".into(),
            }],
            target: Some(Target { reason: String::new() }),
            ..Capabilities::default()
        };
        Entry {
            name: name.into(),
            kind: Kind::Provider,
            version: "1.0.0".into(),
            sha256: "0".repeat(64),
            source: "box.wasm".into(),
            added_unix_ms: 1,
            roots: BTreeMap::from([("data".into(), "/srv/data".into())]),
            granted: granted.into(),
        }
    }

    fn file(folder: &Path) -> File<PluginsLock> {
        File::new(folder.join("plugins.lock"), folder)
    }

    #[test]
    fn what_is_written_is_read_back_in_the_order_of_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let lock = file(folder.path());
        for name in ["provider-b", "provider-a", "provider-b"] {
            lock.update(|it| {
                it.put(entry(name));
                Ok::<_, pcoder_state::Error>(())
            })
            .expect("written");
        }
        let read = lock.read().expect("read");
        assert_eq!(read.plugins, [entry("provider-a"), entry("provider-b")]);
    }

    #[test]
    fn a_field_that_nobody_knows_is_refused_wherever_it_stands() {
        let folder = tempfile::tempdir().expect("a folder");
        let lock = file(folder.path());
        lock.update(|it| {
            it.put(entry("provider-a"));
            Ok::<_, pcoder_state::Error>(())
        })
        .expect("written");
        let good = std::fs::read_to_string(lock.path()).expect("a file");
        for (line, more) in [
            ("[[plugin]]\n", "trusted = true\n"),
            ("[[plugin.granted.net]]\n", "everything = true\n"),
            ("[plugin.granted.target]\n", "root = true\n"),
        ] {
            let changed = good.replacen(line, &format!("{line}{more}"), 1);
            assert_ne!(changed, good, "{line}");
            std::fs::write(lock.path(), &changed).expect("a file");
            let error = lock.read().expect_err("refused").to_string();
            assert!(error.contains("unknown field"), "{error}");
        }
        for (from, to) in [("sha256 = \"000", "sha256 = \"XYZ"), ("https://api.example.com/", "https://*/")] {
            std::fs::write(lock.path(), good.replacen(from, to, 1)).expect("a file");
            lock.read().expect_err("refused");
        }
    }
}
