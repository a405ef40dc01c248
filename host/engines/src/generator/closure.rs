//! Which packages an adapter needs, and where: npm decides, into a lock file, without installing anything.

use std::collections::BTreeMap;
use std::process::Stdio;

use serde::Deserialize;

use crate::error::{At, Error, Result};
use crate::lock_file::Package;
use crate::safe_path::SafePath;

/// One package of a closure.
pub(super) struct Member {
    pub(super) at: Option<SafePath>,
    pub(super) name: String,
    pub(super) version: String,
}

impl Member {
    /// As it was locked.
    pub(super) fn of(package: &Package) -> Self {
        Self { at: package.at.clone(), name: package.name.clone(), version: package.version.clone() }
    }
}

#[derive(Deserialize)]
struct PackageLock {
    packages: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    /// Only where the folder's name is another one.
    name: Option<String>,
    version: Option<String>,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    dev: bool,
    #[serde(default)]
    link: bool,
}

/// Asks npm. Optional packages are left out: they are the platforms' engines, which the store has of its own.
pub(super) async fn resolve(name: &str, version: &str) -> Result<Vec<Member>> {
    let failed = |detail: String| Error::Invalid {
        subject: "npm".to_owned(),
        detail,
        hint: "run `npm install --package-lock-only` by hand and see".to_owned(),
    };
    let folder = tempfile::tempdir().at("create", &std::env::temp_dir())?;
    let description = serde_json::json!({ "private": true, "dependencies": { name: version } });
    let path = folder.path().join("package.json");
    std::fs::write(&path, description.to_string()).at("write", &path)?;
    let output = tokio::process::Command::new(if cfg!(windows) { "npm.cmd" } else { "npm" })
        .args(["install", "--package-lock-only", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| failed(format!("it cannot be started: {error}")))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).chars().take(2000).collect()));
    }
    let path = folder.path().join("package-lock.json");
    let text = std::fs::read(&path).at("read", &path)?;
    members(&text).map_err(failed)
}

fn members(text: &[u8]) -> Result<Vec<Member>, String> {
    let lock: PackageLock = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let mut members = Vec::new();
    for (place, entry) in lock.packages {
        if place.is_empty() || entry.optional || entry.dev {
            continue;
        }
        if entry.link {
            return Err(format!("`{place}` is a link"));
        }
        let folder = place.rsplit_once("node_modules/").map(|(_, name)| name.to_owned());
        let name = entry.name.or(folder).ok_or_else(|| format!("`{place}` is not a package"))?;
        let version = entry.version.ok_or_else(|| format!("`{place}` has no version"))?;
        let at = SafePath::parse(place.as_bytes()).map_err(|error| error.to_string())?;
        members.push(Member { at: Some(at), name, version });
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_packages_are_left_out_and_aliases_have_their_name() {
        let text =
            br#"{"packages":{"":{},"node_modules/a":{"version":"1"},"node_modules/a/node_modules/@s/b":{"version":"2"},
            "node_modules/c":{"version":"3","optional":true},"node_modules/d":{"name":"e","version":"4"}}}"#;
        let found: Vec<_> = members(text).unwrap().into_iter().map(|m| format!("{} {}", m.name, m.version)).collect();
        assert_eq!(found, ["a 1", "@s/b 2", "e 4"]);
        assert!(members(br#"{"packages":{"node_modules/a":{"link":true}}}"#).is_err());
        assert!(members(br#"{"packages":{"node_modules/../a":{"version":"1"}}}"#).is_err());
    }
}
