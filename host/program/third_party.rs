//! What the program is made of: every crate that is compiled into it or into a plugin of ours, with its licence.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const HEADER: &str = "\
pcoder is made of these crates, beside its own. Each line is a name, a version, a licence (an SPDX expression) and the
place of the source, which holds the licence's text and who has the copyright.

";

/// The list, as text.
pub(crate) fn list(target: &str) -> Result<String, String> {
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("no folder")?;
    let root = Path::new(&folder).join("../..");
    println!("cargo::rerun-if-changed={}", root.join("Cargo.lock").display());
    println!("cargo::rerun-if-changed=third_party.rs");
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(&root)
        // What was built is here already, so nothing is looked up anywhere.
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", target])
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    render(&metadata).ok_or_else(|| "`cargo metadata` printed something else than expected".to_owned())
}

fn render(metadata: &Value) -> Option<String> {
    let packages: BTreeMap<&str, &Value> =
        metadata["packages"].as_array()?.iter().filter_map(|it| Some((it["id"].as_str()?, it))).collect();
    let nodes: BTreeMap<&str, &Value> =
        metadata["resolve"]["nodes"].as_array()?.iter().filter_map(|it| Some((it["id"].as_str()?, it))).collect();
    // The program, and the plugins that are embedded in it.
    let begins = |package: &Value| {
        let place = package["manifest_path"].as_str().unwrap_or_default().replace('\\', "/");
        package["name"] == "pcoder" || place.rsplit('/').nth(2) == Some("plugins")
    };
    let members = metadata["workspace_members"].as_array()?.iter().filter_map(Value::as_str);
    let mut open: Vec<&str> = members.filter(|id| packages.get(id).is_some_and(|it| begins(it))).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        for dependency in nodes.get(id)?["deps"].as_array()? {
            // Not what only tests and build scripts use: it is in nothing that is shipped.
            let shipped = dependency["dep_kinds"].as_array()?.iter().any(|kind| kind["kind"].is_null());
            if shipped {
                open.push(dependency["pkg"].as_str()?);
            }
        }
    }
    let mut lines = BTreeSet::new();
    for package in seen.iter().filter_map(|id| packages.get(id)).filter(|it| !it["source"].is_null()) {
        let text = |name: &str| package[name].as_str().unwrap_or("not named").to_owned();
        lines.insert((text("name"), text("version"), text("license"), text("repository")));
    }
    let mut all = HEADER.to_owned();
    for (name, version, licence, place) in lines {
        let _ = writeln!(all, "{name} {version}: {licence}; {place}");
    }
    Some(all)
}
