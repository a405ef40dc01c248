//! `cargo xtask plugins [NAME…]`: every crate in `plugins/` becomes `target/plugins/NAME.wasm`, every plugin in `tests/`
//! `target/hostile/NAME.wasm`, and every one in `examples/` `target/examples/NAME.wasm`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::component::{World, from_module};
use crate::toolchain::{TARGET, Toolchain};
use crate::vendor_wit;
use crate::workspace::{at, contract, entries, root, write_if_changed};

/// How guests are optimised: small and fast to instantiate. Said here and not in the root manifest, where a profile
/// would be the host's too.
const PROFILE: [&str; 6] = [
    "profile.release.opt-level=2",
    "profile.release.lto=true",
    "profile.release.codegen-units=1",
    "profile.release.panic='abort'",
    "profile.release.strip=true",
    "profile.release.debug=false",
];

/// Where plugins are, and where under `target/` their components go. Only those in `plugins/` may be embedded.
const PLACES: [(&str, &str); 3] = [("plugins", "plugins"), ("tests", HOSTILE), ("examples", "examples")];
const HOSTILE: &str = "hostile";

struct Plugin {
    /// The folder under `target/`.
    place: &'static str,
    name: String,
    kind: String,
    manifest: Vec<u8>,
}

/// Builds the named plugins, or all.
pub(crate) fn build(names: &[&str]) -> Result<(), Failure> {
    let plugins = find(&root(), names)?;
    // Plugins are compiled against the SDK's copy, and checked against the contract.
    vendor_wit::sdk(vendor_wit::Mode::Check)?;
    let target = root().join("target").join("guest");
    compile(&plugins, &target)?;
    for plugin in &plugins {
        let path = module_path(&target, &plugin.name);
        let module = fs::read(&path).map_err(at(&path))?;
        let mut world =
            World::of_kind(&contract(), &plugin.kind).map_err(|error| format!("{}: {error}", plugin.name))?;
        if plugin.place == HOSTILE {
            world = world.with_wasi(&contract())?;
        }
        let component =
            from_module(&module, &plugin.manifest, &world).map_err(|error| format!("{}: {error}", plugin.name))?;
        let file = format!("{}/{}.wasm", plugin.place, plugin.name);
        let written = write_if_changed(&root().join("target").join(&file), &component)?;
        let note = if written { "" } else { "  (unchanged)" };
        println!("{:>9} bytes  target/{file}{note}", component.len());
    }
    Ok(())
}

fn find(root: &Path, names: &[&str]) -> Result<Vec<Plugin>, Failure> {
    let mut plugins = Vec::new();
    for (folder, place) in PLACES {
        let folders = entries(&root.join(folder))?;
        for path in folders.into_iter().filter(|path| path.join("plugin.toml").is_file()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !names.is_empty() && !names.contains(&name.as_str()) {
                continue;
            }
            let file = path.join("plugin.toml");
            let manifest = fs::read(&file).map_err(at(&file))?;
            plugins.push(read(place, name, manifest).map_err(|error| format!("{}: {error}", file.display()))?);
        }
    }
    match names.iter().find(|name| !plugins.iter().any(|plugin| plugin.name == **name)) {
        Some(unknown) => Err(format!("there is no plugin `{unknown}` in plugins/, tests/ or examples/")),
        None => Ok(plugins),
    }
}

/// Reads what the build needs of a manifest; the runtime checks the rest when it loads the component.
fn read(place: &'static str, name: String, manifest: Vec<u8>) -> Result<Plugin, Failure> {
    let text = std::str::from_utf8(&manifest).map_err(|error| error.to_string())?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let field = |field: &str| {
        table.get(field).and_then(toml::Value::as_str).ok_or_else(|| format!("`{field}` is missing or not a text"))
    };
    if field("name")? != name {
        return Err(format!("its name is not `{name}`, the folder's"));
    }
    let kind = field("kind")?.to_owned();
    Ok(Plugin { place, name, kind, manifest })
}

fn compile(plugins: &[Plugin], target: &Path) -> Result<(), Failure> {
    let toolchain = Toolchain::find()?;
    println!("building {} plugins {}", plugins.len(), toolchain.describe());
    let mut command = guest_build(&toolchain, &root(), target);
    for plugin in plugins {
        command.args(["-p", &plugin.name]);
    }
    run(&mut command)
}

/// A build of guests in a workspace, optimised as plugins are.
pub(crate) fn guest_build(toolchain: &Toolchain, workspace: &Path, target: &Path) -> Command {
    let mut command = toolchain.cargo_build();
    command.current_dir(workspace).arg("--target-dir").arg(target);
    for setting in PROFILE {
        command.args(["--config", setting]);
    }
    command
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| format!("{program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{program} build` failed ({status})")) }
}

pub(crate) fn module_path(target: &Path, name: &str) -> PathBuf {
    target.join(TARGET).join("release").join(format!("{}.wasm", name.replace('-', "_")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_its_folder_and_its_kind() {
        let plugin = |text: &str| read("plugins", "agent-x".to_owned(), text.as_bytes().to_vec());
        assert_eq!(plugin("name = \"agent-x\"\nkind = \"agent\"").map(|plugin| plugin.kind), Ok("agent".to_owned()));
        assert!(plugin("name = \"agent-y\"\nkind = \"agent\"").is_err());
        assert!(plugin("name = \"agent-x\"").is_err());
        assert!(plugin("name = 3\nkind = \"agent\"").is_err());
        assert!(plugin("name").is_err());
    }

    #[test]
    fn every_plugin_of_the_repository_is_found() {
        let plugins = find(&root(), &[]).expect("plugins/");
        assert!(plugins.iter().any(|plugin| plugin.name == "provider-local" && plugin.kind == "provider"));
        let one = find(&root(), &["provider-local"]).expect("plugins/");
        assert_eq!(one.len(), 1);
        let hostile = find(&root(), &["hostile"]).expect("tests/");
        assert_eq!(hostile.iter().map(|plugin| plugin.place).collect::<Vec<_>>(), ["hostile"]);
        let example = find(&root(), &["provider-box"]).expect("examples/");
        assert_eq!(example.iter().map(|plugin| plugin.place).collect::<Vec<_>>(), ["examples"]);
        assert!(find(&root(), &["provider-nowhere"]).is_err());
    }
}
