//! A stranger's component, with whatever manifest a test gives it.

use std::path::{Path, PathBuf};

use wasm_encoder::{ComponentSection as _, CustomSection};
use wasmparser::{Parser, Payload};

/// What the test plugin asks for when its manifest is not changed.
pub(crate) const PLAIN: &str = r#"
[[exec]]
program = "as called"
reason = "Runs the command that you asked for."

[[files]]
root = "state"
access = "read-write"
reason = "Counts the commands that it ran."
"#;

/// The component of `tests/provider-thirdparty`, of this version and with these capabilities, as a file in `folder`.
pub(crate) fn third_party(folder: &Path, file: &str, version: &str, capabilities: &str) -> PathBuf {
    named(folder, file, "provider-thirdparty", version, capabilities)
}

/// The same under another name.
pub(crate) fn named(folder: &Path, file: &str, name: &str, version: &str, capabilities: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/hostile/provider-thirdparty.wasm");
    let wasm = std::fs::read(&built)
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask plugins` makes it", built.display()));
    let manifest = format!(
        "name = \"{name}\"\nversion = \"{version}\"\nkind = \"provider\"\ncontract = \"0.1.0\"\n\
         description = \"Runs commands here, and keeps count of them.\"\n{capabilities}"
    );
    let mut bytes = without_manifest(&wasm);
    CustomSection { name: "pcoder:manifest".into(), data: manifest.as_bytes().into() }.append_to_component(&mut bytes);
    let path = folder.join(file);
    std::fs::write(&path, bytes).expect("a component");
    path
}

/// Components in `folder` that cannot be added as they are: one with the name of another, one with none of its kind, and
/// one that asks for a folder. And `good.wasm`, which can.
pub(crate) fn refusable(folder: &Path) {
    third_party(folder, "good.wasm", "1.0.0", PLAIN);
    named(folder, "impostor.wasm", "provider-local", "9.0.0", PLAIN);
    named(folder, "misnamed.wasm", "thirdparty", "1.0.0", PLAIN);
    third_party(folder, "rooted.wasm", "1.0.0", "[[files]]\nroot = \"data\"\naccess = \"read\"\n");
}

fn without_manifest(wasm: &[u8]) -> Vec<u8> {
    let (mut depth, mut cut) = (0_usize, None);
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.expect("a component") {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(it) if depth == 0 && it.name() == "pcoder:manifest" => cut = Some(it.range()),
            _ => {}
        }
    }
    let range = cut.expect("the build put a manifest into it");
    // In front of what the section holds stand its number and its length, in one to five bytes.
    let begin = (range.start.saturating_sub(6)..range.start)
        .rev()
        .find(|&at| wasm[at] == 0 && leb(&wasm[at + 1..]) == Some((range.len(), range.start - at - 1)))
        .expect("the section's beginning");
    [&wasm[..begin], &wasm[range.end..]].concat()
}

/// A number and how many bytes it takes.
fn leb(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0_usize;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}
