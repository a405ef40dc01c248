//! From a core module to a component that carries its manifest.

use std::collections::BTreeSet;
use std::path::Path;

use wasm_encoder::{ComponentSection as _, CustomSection, ExportSection, Module, RawSection};
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;
use wit_parser::{Resolve, WorldKey};

use crate::Failure;

/// The section with the bytes of `plugin.toml`, in the module that the SDK makes and in the component.
pub(crate) const MANIFEST: &str = "pcoder:manifest";

/// What plugins of one kind may import and must export, as the contract's world names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) name: String,
    pub(crate) imports: BTreeSet<String>,
    pub(crate) exports: BTreeSet<String>,
}

impl World {
    /// Reads the world of a kind out of the contract.
    pub(crate) fn of_kind(contract: &Path, kind: &str) -> Result<Self, Failure> {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(contract).map_err(|error| format!("{}: {error:#}", contract.display()))?;
        let name = format!("{kind}-plugin");
        let Some(id) = resolve.packages[package].worlds.get(&name) else {
            return Err(format!("`{kind}` is not a kind of plugin: the contract has no world `{name}`"));
        };
        let world = &resolve.worlds[*id];
        let names = |keys: Vec<&WorldKey>| keys.into_iter().map(|key| resolve.name_world_key(key)).collect();
        Ok(Self {
            imports: names(world.imports.keys().collect()),
            exports: names(world.exports.keys().collect()),
            name,
        })
    }

    /// The same with all of WASI. Ours do without; those of the tests show that there is nothing in it.
    pub(crate) fn with_wasi(mut self, contract: &Path) -> Result<Self, Failure> {
        let mut resolve = Resolve::default();
        resolve.push_dir(contract).map_err(|error| format!("{}: {error:#}", contract.display()))?;
        let package = resolve.packages.iter().find(|(_, it)| it.name.namespace == "wasi" && it.name.name == "cli");
        let world = package.and_then(|(_, package)| package.worlds.get("imports"));
        let world = world.ok_or_else(|| format!("{}: there is no world `wasi:cli/imports`", contract.display()))?;
        self.imports.extend(resolve.worlds[*world].imports.keys().map(|key| resolve.name_world_key(key)));
        Ok(self)
    }

    /// Refuses a component that reaches for more than its world has, or lacks what its world gives.
    fn check(&self, component: &[u8]) -> Result<(), Failure> {
        let (imports, exports) = outside(component)?;
        let more: Vec<_> = imports.difference(&self.imports).cloned().collect();
        if !more.is_empty() {
            return Err(format!("it imports what the world `{}` does not have: {}", self.name, more.join(", ")));
        }
        if exports != self.exports {
            let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
            return Err(format!(
                "it exports {}, and the world `{}` has {}",
                list(&exports),
                self.name,
                list(&self.exports)
            ));
        }
        Ok(())
    }
}

/// Makes the component of a core module: encodes and validates it, checks what it reaches for, and lifts its manifest,
/// which has to be `manifest`, to the top.
pub(crate) fn from_module(module: &[u8], manifest: &[u8], world: &World) -> Result<Vec<u8>, Failure> {
    let (module, sections) = take_manifests(module)?;
    match sections.as_slice() {
        [section] if section == manifest => {}
        [_] => {
            return Err(format!("its section `{MANIFEST}` is not its plugin.toml; is the build stale?"));
        }
        [] => {
            return Err(format!("it has no section `{MANIFEST}`; write `pcoder_sdk::export!(…)` in its lib.rs"));
        }
        more => {
            return Err(format!("it has {} sections `{MANIFEST}`; one crate is one plugin", more.len()));
        }
    }
    let mut component = ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| format!("it cannot become a component: {error:#}"))?;
    world.check(&component)?;
    CustomSection { name: MANIFEST.into(), data: manifest.into() }.append_to_component(&mut component);
    Ok(component)
}

/// What the exports begin with that free a result after the host has read it.
const POST_RETURN: &str = "cabi_post_";

/// Splits a module into one that a component is made of, and its manifest sections.
///
/// The functions that free results are not exported: an instance serves one call and is gone with its memory, and each
/// of them would be looked up when an instance is made.
fn take_manifests(bytes: &[u8]) -> Result<(Vec<u8>, Vec<Vec<u8>>), Failure> {
    let wrong = |error: wasmparser::BinaryReaderError| format!("it is not a WebAssembly module: {error}");
    let mut module = Module::new();
    let mut manifests = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(wrong)?;
        match &payload {
            Payload::CustomSection(section) if section.name() == MANIFEST => {
                manifests.push(section.data().to_vec());
                continue;
            }
            Payload::ExportSection(section) => {
                let mut kept = ExportSection::new();
                for export in section.clone() {
                    let export = export.map_err(wrong)?;
                    if !export.name.starts_with(POST_RETURN) {
                        kept.export(export.name, export.kind.into(), export.index);
                    }
                }
                module.section(&kept);
                continue;
            }
            _ => {}
        }
        if let Some((id, range)) = payload.as_section() {
            let data = bytes.get(range).ok_or("a section ends behind the module")?;
            module.section(&RawSection { id, data });
        }
    }
    Ok((module.finish(), manifests))
}

/// The names of what a component imports and exports.
fn outside(component: &[u8]) -> Result<(BTreeSet<String>, BTreeSet<String>), Failure> {
    let wrong = |error: wasmparser::BinaryReaderError| format!("the component cannot be read: {error}");
    let (mut imports, mut exports) = (BTreeSet::new(), BTreeSet::new());
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(wrong)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.insert(import.map_err(wrong)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.insert(export.map_err(wrong)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module_with(manifests: &[&[u8]]) -> Vec<u8> {
        let mut module = Module::new();
        for manifest in manifests {
            module.section(&CustomSection { name: MANIFEST.into(), data: (*manifest).into() });
        }
        module.finish()
    }

    fn agent() -> World {
        World::of_kind(&crate::workspace::contract(), "agent").expect("the contract")
    }

    #[test]
    fn worlds_come_from_the_contract() {
        let world = agent();
        assert!(world.exports.contains("pcoder:plugin/agent@0.1.0"));
        assert!(world.imports.contains("pcoder:plugin/log@0.1.0"));
        assert!(!world.imports.iter().any(|name| name.starts_with("wasi:")), "{:?}", world.imports);
        for kind in ["provider", "process-manager", "credentials"] {
            assert!(World::of_kind(&crate::workspace::contract(), kind).is_ok(), "{kind}");
        }
        assert!(World::of_kind(&crate::workspace::contract(), "toaster").is_err());
    }

    #[test]
    fn one_manifest_and_the_right_one() {
        let refusal =
            |manifests: &[&[u8]]| from_module(&module_with(manifests), b"name", &agent()).expect_err("refused");
        assert!(refusal(&[]).contains("no section"));
        assert!(refusal(&[b"other"]).contains("stale"));
        assert!(refusal(&[b"name", b"name"]).contains("2 sections"));
        assert!(from_module(b"not wasm", b"name", &agent()).expect_err("refused").contains("not a WebAssembly module"));
    }

    #[test]
    fn sections_are_taken_out_and_the_rest_stays() {
        let (module, manifests) = take_manifests(&module_with(&[b"one"])).expect("a module");
        assert_eq!(manifests, vec![b"one".to_vec()]);
        assert_eq!(module, Module::new().finish());
    }

    #[test]
    fn a_component_without_the_worlds_export_is_refused() {
        let refusal = from_module(&module_with(&[b"name"]), b"name", &agent()).expect_err("refused");
        assert!(refusal.contains("it exports"), "{refusal}");
    }
}
