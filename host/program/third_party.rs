//! What the program is made of: every crate that is compiled into it or into a plugin of ours, with its licence and the
//! licence's text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const HEADER: &str = "\
pcoder is made of these crates, beside its own, and of Rust's standard library (MIT OR Apache-2.0). Each line is a
name, a version, a licence (an SPDX expression) and the place of the source. Below the list are the texts that come
with the crates, each once, with those that it came with.

";

/// How files are called that hold licences, and who has the copyright.
const TEXTS: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// The list, as text.
pub(crate) fn list(target: &str) -> Result<String, String> {
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("no folder")?;
    let root = Path::new(&folder).join("../..");
    println!("cargo::rerun-if-changed={}", root.join("Cargo.lock").display());
    println!("cargo::rerun-if-changed=third_party.rs");
    let metadata = |more: &[&str]| {
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(&root)
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target])
            .args(more)
            .output()
            .map_err(|error| format!("cargo metadata: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(output.stdout)
    };
    // What was built is here already. Cargo wants what only tests use as well, which a first build did not bring.
    let output = metadata(&["--offline"]).or_else(|_| metadata(&[]))?;
    let metadata: Value = serde_json::from_slice(&output).map_err(|error| error.to_string())?;
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
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in seen.iter().filter_map(|id| packages.get(id)).filter(|it| !it["source"].is_null()) {
        let text = |name: &str| package[name].as_str().unwrap_or("not named").to_owned();
        let (name, version) = (text("name"), text("version"));
        let folder = Path::new(package["manifest_path"].as_str()?).parent()?;
        for licence in licences(folder) {
            texts.entry(licence).or_default().insert(format!("{name} {version}"));
        }
        lines.insert((name, version, text("license"), text("repository")));
    }
    let mut all = HEADER.to_owned();
    for (name, version, licence, place) in lines {
        let _ = writeln!(all, "{name} {version}: {licence}; {place}");
    }
    for (text, crates) in texts {
        let crates: Vec<String> = crates.into_iter().collect();
        let _ = write!(all, "\n{}\nThe text of {}\n\n{text}\n", "-".repeat(80), crates.join(", "));
    }
    Some(all)
}

/// The texts in a crate's folder, with the ends of lines as everywhere.
fn licences(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let named = entries.filter(|entry| {
        let name = entry.file_name().to_string_lossy().to_uppercase();
        TEXTS.iter().any(|it| name.starts_with(it))
    });
    // A few crates have a folder of that name.
    let below = |path: std::path::PathBuf| match std::fs::read_dir(&path) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(_) => vec![path],
    };
    let texts = named.flat_map(|entry| below(entry.path())).filter_map(|path| std::fs::read_to_string(path).ok());
    texts.map(|text| text.replace('\r', "").trim().to_owned()).filter(|text| !text.is_empty()).collect()
}
