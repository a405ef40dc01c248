//! What can be known of a component without running or compiling it.

use serde::Serialize;
use wasmparser::{Encoding, Parser, Payload};

use crate::error::{Error, code};
use crate::manifest::{Kind, Manifest, SECTION};

/// A component, read.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The sha256 of its bytes, in hexadecimal.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// What it really imports, sorted: what is not here it can never reach, whatever it was granted.
    pub imports: Vec<String>,
}

/// A component is read whole into memory; a larger file is not one that anybody meant.
pub const LARGEST: usize = 256 << 20;

const OPERATION: &str = "plugin.inspect";

/// Reads a component's manifest and imports.
///
/// # Errors
/// `invalid` for what is not a component, or has no manifest, or two; `unsupported` for another contract version.
pub fn inspect(wasm: &[u8]) -> Result<Inspection, Error> {
    let invalid = |message: String| Error::new(code::INVALID, OPERATION, message);
    if wasm.len() > LARGEST {
        return Err(invalid(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    if !wasm.starts_with(b"\0asm") {
        return Err(invalid("it is not WebAssembly".into())
            .hint("give the component that `cargo xtask plugins` or your build made, a file that ends in `.wasm`"));
    }
    let mut manifests = Vec::new();
    let mut imports = Vec::new();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(|error| invalid(format!("it is not valid WebAssembly: {error}")))? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(invalid("it is a core module, not a component".into())
                    .hint("turn it into a component with `wasm-tools component new`, or build it with pcoder's SDK"));
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if depth == 0 && section.name() == SECTION => {
                manifests.push(section.data());
            }
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(|error| invalid(format!("it is not valid WebAssembly: {error}")))?;
                    imports.push(import.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    let manifest = match manifests[..] {
        [manifest] => Manifest::parse(manifest)?,
        [] => {
            return Err(invalid(format!("it has no manifest (the custom section `{SECTION}`)"))
                .hint("pcoder's SDK embeds `plugin.toml`; see docs/plugins.md"));
        }
        _ => return Err(invalid("it has more than one manifest".into())),
    };
    imports.sort();
    Ok(Inspection { manifest, digest: crate::plugin::digest(wasm), size: wasm.len() as u64, imports })
}

impl Inspection {
    /// Checks that this host has everything that the component imports.
    ///
    /// # Errors
    /// `unsupported`, naming the import.
    pub fn check_imports(&self) -> Result<(), Error> {
        let known = imports_of(self.manifest.kind);
        match self.imports.iter().find(|import| !known.iter().any(|it| same_interface(it.name, import))) {
            None => Ok(()),
            Some(import) => Err(Error::new(
                code::UNSUPPORTED,
                "plugin.load",
                format!(
                    "it imports `{import}`, which is not in the world `{}` that this pcoder serves",
                    self.manifest.kind.world()
                ),
            )
            .subject(&self.manifest.name)
            .hint("build it against this pcoder's `wit/`, with nothing else imported")),
        }
    }

    /// What the component can never do, in words: proved by what it does not import.
    pub fn impossible(&self) -> Vec<&'static str> {
        let has = |name: &str| self.imports.iter().any(|import| same_interface(name, import));
        let network = ["wasi:http/outgoing-handler@0.2.12", "pcoder:plugin/websocket@0.1.0", "pcoder:plugin/ssh@0.1.0"];
        [
            (&["pcoder:plugin/process@0.1.0"][..], "run programs on this host"),
            (&["pcoder:plugin/files@0.1.0"], "read or write files of this host"),
            (&network, "reach the network"),
            (&["pcoder:plugin/secrets@0.1.0"], "name secrets"),
            (&["pcoder:plugin/target@0.1.0"], "touch the instance that it is called for"),
        ]
        .into_iter()
        .filter_map(|(imports, what)| (!imports.iter().any(|import| has(import))).then_some(what))
        .collect()
    }
}

/// Patch versions of WASI 0.2 are compatible.
fn same_interface(known: &str, import: &str) -> bool {
    let plain = |name: &str| match name.split_once('@') {
        Some((interface, version)) if interface.starts_with("wasi:") => {
            let minor: Vec<&str> = version.splitn(3, '.').take(2).collect();
            format!("{interface}@{}", minor.join("."))
        }
        _ => name.to_owned(),
    };
    plain(known) == plain(import)
}

/// How an interface is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Its functions go through the gate, in this class.
    Gated(crate::capability::Class),
    /// Its functions reach nothing that could be granted, for this reason.
    Harmless(&'static str),
}

/// One import of a world.
#[derive(Clone, Copy, Debug)]
pub struct KnownImport {
    /// The interface.
    pub name: &'static str,
    /// How it is guarded.
    pub guard: Guard,
}

/// Everything that plugins of a kind may import from this host. `tests/it/gate_matrix.rs` compares it with `wit/` and
/// with the linker, function by function.
pub fn imports_of(kind: Kind) -> Vec<KnownImport> {
    use crate::capability::Class::{Exec, Files, Net, Secrets, Target};
    let gated = |name, class| KnownImport { name, guard: Guard::Gated(class) };
    let harmless = |name, reason| KnownImport { name, guard: Guard::Harmless(reason) };
    let mut imports = vec![
        harmless("pcoder:plugin/types@0.1.0", "types only"),
        harmless("pcoder:plugin/log@0.1.0", "lines are bounded, redacted and made safe to show"),
    ];
    if kind != Kind::Agent {
        imports.extend([
            harmless("wasi:io/error@0.2.12", "describes errors of streams that the call has already"),
            harmless("wasi:io/poll@0.2.12", "waits, within the call's deadline"),
            harmless("wasi:io/streams@0.2.12", "moves bytes of streams that a gated function gave out"),
            harmless("wasi:clocks/monotonic-clock@0.2.12", "tells time"),
            harmless("wasi:clocks/wall-clock@0.2.12", "tells time"),
            harmless("wasi:random/random@0.2.12", "gives random bytes"),
            harmless("pcoder:plugin/stdio@0.1.0", "the caller gave these streams to this very call"),
        ]);
    }
    match kind {
        Kind::Provider => imports.extend([
            harmless("wasi:http/types@0.2.12", "builds requests and reads answers; sends nothing"),
            gated("wasi:http/outgoing-handler@0.2.12", Net),
            gated("pcoder:plugin/websocket@0.1.0", Net),
            gated("pcoder:plugin/ssh@0.1.0", Net),
            gated("pcoder:plugin/process@0.1.0", Exec),
            gated("pcoder:plugin/files@0.1.0", Files),
            gated("pcoder:plugin/secrets@0.1.0", Secrets),
        ]),
        Kind::ProcessManager => {
            imports.extend([gated("pcoder:plugin/target@0.1.0", Target), gated("pcoder:plugin/files@0.1.0", Files)]);
        }
        Kind::Credentials => {
            imports.extend([gated("pcoder:plugin/target@0.1.0", Target), gated("pcoder:plugin/secrets@0.1.0", Secrets)])
        }
        Kind::Agent => {}
    }
    imports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(wasm: &[u8]) -> String {
        let error = inspect(wasm).expect_err("refused");
        assert!(error.is(code::INVALID));
        error.message.clone()
    }

    #[test]
    fn what_is_not_a_plugin_is_refused_with_the_reason() {
        assert_eq!(reason(b"#!/bin/sh\n"), "it is not WebAssembly");
        assert!(reason(b"\0asm").contains("not valid"));
        assert_eq!(reason(&wat::parse_str("(module)").expect("wat")), "it is a core module, not a component");
        assert!(reason(&wat::parse_str("(component)").expect("wat")).contains("has no manifest"));
    }

    #[test]
    fn patch_versions_of_wasi_are_the_same_interface_and_ours_are_not() {
        assert!(same_interface("wasi:io/poll@0.2.12", "wasi:io/poll@0.2.6"));
        assert!(!same_interface("wasi:io/poll@0.2.12", "wasi:io/poll@0.3.0"));
        assert!(!same_interface("pcoder:plugin/log@0.1.0", "pcoder:plugin/log@0.1.1"));
    }
}
