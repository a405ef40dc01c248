//! `cargo xtask templates`: the templates for plugins in other languages become `target/templates/NAME.wasm`, with those
//! languages' own tools, as an author's would.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::Failure;
use crate::build::run;
use crate::workspace::{at, contract, entries, root, write_if_changed};

/// What tools put beside the sources.
const MADE: [&str; 6] = ["node_modules", "package-lock.json", "build", "wit", "venv", "__pycache__"];

struct Template {
    /// The folder in `sdk/`.
    folder: &'static str,
    /// The plugin's name.
    plugin: &'static str,
    /// The file that says which tools are installed.
    pins: &'static str,
    /// Where they are installed.
    tools: &'static str,
    install: fn(&Path) -> Result<(), Failure>,
    make: fn(&Path) -> Result<(), Failure>,
}

const TEMPLATES: [Template; 2] = [
    Template {
        folder: "javascript",
        plugin: "agent-hello",
        pins: "package.json",
        tools: "node_modules",
        install: |folder| run(npm()?.current_dir(folder).args(["install", "--no-audit", "--no-fund"])),
        make: |folder| run(npm()?.current_dir(folder).args(["run", "build"])),
    },
    Template {
        folder: "python",
        plugin: "provider-box",
        pins: "requirements.txt",
        tools: "venv",
        install: |folder| {
            run(python()?.current_dir(folder).args(["-m", "venv", "--clear", "venv"]))?;
            let arguments = ["-m", "pip", "install", "--quiet", "--requirement", "requirements.txt"];
            run(Command::new(of_venv(folder)).current_dir(folder).args(arguments))
        },
        make: |folder| run(Command::new(of_venv(folder)).current_dir(folder).arg("build.py")),
    },
];

/// Why they cannot be built on this machine, if so.
pub(crate) fn missing_tools() -> Option<Failure> {
    npm().and_then(|_| python()).err()
}

/// Builds those that changed since they were built last.
pub(crate) fn build() -> Result<(), Failure> {
    for template in &TEMPLATES {
        make(template)?;
    }
    Ok(())
}

fn make(template: &Template) -> Result<(), Failure> {
    let target = root().join("target").join("templates");
    let component = target.join(format!("{}.wasm", template.plugin));
    let (stamp, folder) = (target.join(format!("{}.inputs", template.plugin)), target.join(template.folder));
    let mut inputs = BTreeMap::new();
    read(&root().join("sdk").join(template.folder), Path::new(""), &mut inputs)?;
    read(&contract(), Path::new("wit"), &mut inputs)?;
    let digest = digest(&inputs);
    let shown = format!("target/templates/{}.wasm", template.plugin);
    if component.is_file() && fs::read_to_string(&stamp).is_ok_and(|made_of| made_of == digest) {
        println!("{shown}  (unchanged)");
        return Ok(());
    }
    println!("building {shown} from sdk/{}", template.folder);
    remove_all_but(&folder, template.tools)?;
    for (name, bytes) in &inputs {
        write_if_changed(&folder.join(name), bytes)?;
    }
    // Written when they are all there, so that what was installed in half is installed again.
    let installed = folder.join(template.tools).join(".installed");
    let pins = inputs.get(Path::new(template.pins)).ok_or_else(|| format!("{} is missing", template.pins))?;
    if !fs::read(&installed).is_ok_and(|those| those == *pins) {
        (template.install)(&folder)?;
        fs::write(&installed, pins).map_err(at(&installed))?;
    }
    (template.make)(&folder)?;
    let made = folder.join(format!("{}.wasm", template.plugin));
    let bytes = fs::read(&made).map_err(at(&made))?;
    write_if_changed(&component, &bytes)?;
    fs::write(&stamp, digest).map_err(at(&stamp))?;
    println!("{:>9} bytes  {shown}", bytes.len());
    Ok(())
}

/// Every file of a folder, without what tools have made there.
fn read(folder: &Path, below: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<(), Failure> {
    for path in entries(folder)? {
        let name = path.file_name().unwrap_or_default();
        let made = MADE.iter().any(|it| name == *it) || path.extension().is_some_and(|it| it == "wasm");
        if path.is_dir() && !made {
            read(&path, &below.join(name), files)?;
        } else if !made {
            files.insert(below.join(name), fs::read(&path).map_err(at(&path))?);
        }
    }
    Ok(())
}

fn digest(files: &BTreeMap<PathBuf, Vec<u8>>) -> String {
    let mut hash = Sha256::new();
    for (name, bytes) in files {
        let name = name.to_string_lossy();
        // Lengths, so that two lists of files never run together into the same bytes.
        hash.update(format!("{} {} ", name.len(), bytes.len()));
        hash.update(name.as_bytes());
        hash.update(bytes);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file that is gone from the template must not be built in for ever.
fn remove_all_but(folder: &Path, kept: &str) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(at(folder))?;
    for path in entries(folder)? {
        if path.file_name().is_some_and(|name| name == kept) {
            continue;
        }
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(at(&path))?;
    }
    Ok(())
}

fn npm() -> Result<Command, Failure> {
    let name = if cfg!(windows) { "npm.cmd" } else { "npm" };
    found(name, "Node.js 20 or newer with npm (Debian: `apt-get install nodejs npm`)", "JavaScript")
}

fn python() -> Result<Command, Failure> {
    let name = if cfg!(windows) { "python" } else { "python3" };
    found(name, "Python 3.11 or newer with venv (Debian: `apt-get install python3 python3-venv`)", "Python")
}

fn found(name: &str, install: &str, language: &str) -> Result<Command, Failure> {
    match Command::new(name).arg("--version").output() {
        Ok(output) if output.status.success() => Ok(Command::new(name)),
        _ => Err(format!("`{name}` does not run; install {install}: the template for {language} is built with it")),
    }
}

fn of_venv(folder: &Path) -> PathBuf {
    folder.join("venv").join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_there_and_what_tools_made_is_no_part_of_it() {
        for template in &TEMPLATES {
            let mut files = BTreeMap::new();
            read(&root().join("sdk").join(template.folder), Path::new(""), &mut files).expect("the template");
            let manifest = String::from_utf8(files[Path::new("plugin.toml")].clone()).expect("text");
            assert!(manifest.contains(&format!("name = \"{}\"\n", template.plugin)), "{manifest}");
            assert!(files.contains_key(Path::new(template.pins)) && files.contains_key(Path::new("README.md")));
            assert!(!files.keys().any(|it| it.starts_with(template.tools)), "{:?}", files.keys());
        }
    }

    #[test]
    fn another_name_or_another_byte_is_another_digest() {
        let of = |files: &[(&str, &str)]| {
            digest(&files.iter().map(|(name, text)| (PathBuf::from(name), text.as_bytes().to_vec())).collect())
        };
        assert_eq!(of(&[("a", "1")]), of(&[("a", "1")]));
        assert_ne!(of(&[("a", "1")]), of(&[("a", "2")]));
        assert_ne!(of(&[("a", "1")]), of(&[("b", "1")]));
        assert_ne!(of(&[("a", "1"), ("b", "")]), of(&[("a", ""), ("b", "1")]));
    }

    #[test]
    fn a_tool_that_is_missing_is_named_with_what_brings_it() {
        let failure = found("no-such-tool", "this", "that").expect_err("it is not there");
        assert!(failure.contains("`no-such-tool` does not run; install this"), "{failure}");
    }
}
