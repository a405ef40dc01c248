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

    /// Whether it imports more of WASI than its kind's world has. Such a component is linked with all of it, with
    /// nothing in it; others never see that it is there.
    pub(crate) fn imports_empty_handed(&self) -> bool {
        let world = world_imports(self.manifest.kind);
        self.imports.iter().any(|import| !world.iter().any(|it| same_interface(it.name, import)))
    }

    /// What the component can never do, in words: proved by what it does not import. What WASI has beyond the worlds
    /// does not count: there is nothing behind it.
    pub fn impossible(&self) -> Vec<&'static str> {
        let has = |name: &str| self.imports.iter().any(|import| same_interface(name, import));
        let network = ["wasi:http/outgoing-handler@0.2.12", "pcoder:plugin/websocket@0.1.0", "pcoder:plugin/ssh@0.1.0"];
        [
            (&["pcoder:plugin/process@0.1.0", "pcoder:plugin/service@0.1.0"][..], "run programs on this host"),
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
    fn minor(version: &str) -> impl Iterator<Item = &str> {
        version.splitn(3, '.').take(2)
    }
    match (known.split_once('@'), import.split_once('@')) {
        (Some((known, version)), Some((import, other))) if known.starts_with("wasi:") => {
            known == import && minor(version).eq(minor(other))
        }
        _ => known == import,
    }
}

/// How an interface is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Its functions go through the gate, in this class.
    Gated(crate::capability::Class),
    /// Its functions reach nothing that could be granted, for this reason.
    Harmless(&'static str),
}

/// One import that this host serves.
#[derive(Clone, Copy, Debug)]
pub struct KnownImport {
    /// The interface.
    pub name: &'static str,
    /// How it is guarded.
    pub guard: Guard,
}

/// Everything that plugins of a kind may import from this host: what their world names, and the rest of WASI with
/// nothing in it. `tests/it/gate_matrix.rs` compares it with `wit/` and with the linker, function by function.
pub fn imports_of(kind: Kind) -> Vec<KnownImport> {
    let mut imports = world_imports(kind);
    // Those of the world come first: most components import nothing else, and are looked up there.
    for import in empty_handed() {
        if !imports.iter().any(|it| it.name == import.name) {
            imports.push(import);
        }
    }
    imports
}

const fn harmless(name: &'static str, reason: &'static str) -> KnownImport {
    KnownImport { name, guard: Guard::Harmless(reason) }
}

/// Streams, clocks, randomness: what every world has that has any of WASI.
const SHARED: [KnownImport; 6] = [
    harmless("wasi:io/error@0.2.12", "describes errors of streams that the call has already"),
    harmless("wasi:io/poll@0.2.12", "waits, within the call's deadline"),
    harmless("wasi:io/streams@0.2.12", "moves bytes of streams that a gated function gave out"),
    harmless("wasi:clocks/monotonic-clock@0.2.12", "tells time"),
    harmless("wasi:clocks/wall-clock@0.2.12", "tells time"),
    harmless("wasi:random/random@0.2.12", "gives random bytes"),
];

/// What WASI has beyond the worlds. The languages that bring an interpreter along import it whether they use it or not;
/// it is there, and holds nothing. HTTP is not among it: that is a road, and a world has it behind the gate or not at
/// all.
fn empty_handed() -> impl Iterator<Item = KnownImport> {
    const NO_DESCRIPTOR: &str = "works on descriptors, and nobody gives one out";
    const NO_SOCKET: &str = "works on sockets, and none is ever created";
    const NO_TERMINAL: &str = "there is no terminal";
    const MORE: [KnownImport; 21] = [
        harmless("wasi:random/insecure@0.2.12", "gives random bytes"),
        harmless("wasi:random/insecure-seed@0.2.12", "gives random bytes"),
        harmless("wasi:cli/environment@0.2.12", "no variables, no arguments, no working folder"),
        harmless("wasi:cli/exit@0.2.12", "ends this one call, as a crash"),
        harmless("wasi:cli/stdin@0.2.12", "an input that has ended"),
        harmless("wasi:cli/stdout@0.2.12", "the plugin's log, with its limits"),
        harmless("wasi:cli/stderr@0.2.12", "the plugin's log, with its limits"),
        harmless("wasi:cli/terminal-input@0.2.12", NO_TERMINAL),
        harmless("wasi:cli/terminal-output@0.2.12", NO_TERMINAL),
        harmless("wasi:cli/terminal-stdin@0.2.12", NO_TERMINAL),
        harmless("wasi:cli/terminal-stdout@0.2.12", NO_TERMINAL),
        harmless("wasi:cli/terminal-stderr@0.2.12", NO_TERMINAL),
        harmless("wasi:filesystem/preopens@0.2.12", "an empty list"),
        harmless("wasi:filesystem/types@0.2.12", NO_DESCRIPTOR),
        harmless("wasi:sockets/network@0.2.12", "a handle that allows nothing"),
        harmless("wasi:sockets/instance-network@0.2.12", "gives a handle that allows nothing"),
        harmless("wasi:sockets/ip-name-lookup@0.2.12", "every lookup is refused before it is made"),
        harmless("wasi:sockets/tcp-create-socket@0.2.12", "every socket is refused before it is made"),
        harmless("wasi:sockets/udp-create-socket@0.2.12", "every socket is refused before it is made"),
        harmless("wasi:sockets/tcp@0.2.12", NO_SOCKET),
        harmless("wasi:sockets/udp@0.2.12", NO_SOCKET),
    ];
    SHARED.into_iter().chain(MORE)
}

const SETTINGS: KnownImport =
    harmless("pcoder:plugin/settings@0.1.0", "says what its user set for it, by the names in its manifest");

/// What the world of a kind names.
fn world_imports(kind: Kind) -> Vec<KnownImport> {
    use crate::capability::Class::{Exec, Files, Net, Secrets, Service, Target};
    let gated = |name, class| KnownImport { name, guard: Guard::Gated(class) };
    let mut imports = vec![
        harmless("pcoder:plugin/types@0.1.0", "types only"),
        harmless("pcoder:plugin/log@0.1.0", "lines are bounded, redacted and made safe to show"),
    ];
    if kind != Kind::Agent {
        imports.extend(SHARED);
        imports.push(harmless("pcoder:plugin/stdio@0.1.0", "the caller gave these streams to this very call"));
    }
    match kind {
        Kind::Provider => imports.extend([
            harmless("wasi:http/types@0.2.12", "builds requests and reads answers; sends nothing"),
            gated("wasi:http/outgoing-handler@0.2.12", Net),
            gated("pcoder:plugin/websocket@0.1.0", Net),
            gated("pcoder:plugin/ssh@0.1.0", Net),
            gated("pcoder:plugin/process@0.1.0", Exec),
            gated("pcoder:plugin/service@0.1.0", Service),
            gated("pcoder:plugin/files@0.1.0", Files),
            gated("pcoder:plugin/secrets@0.1.0", Secrets),
            SETTINGS,
        ]),
        Kind::ProcessManager => {
            let files = gated("pcoder:plugin/files@0.1.0", Files);
            imports.extend([gated("pcoder:plugin/target@0.1.0", Target), files, SETTINGS]);
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
