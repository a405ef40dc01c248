//! Embeds the plugins that `cargo xtask build` left in `target/plugins`: components, and their compiled code. And the list
//! of what the program is made of, which goes into every bundle.
//!
//! The first build has no plugins: it makes the program that compiles them. The second build embeds them.
#![allow(clippy::panic, reason = "a build script has no other way to fail")]

mod third_party;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let folder = env::var_os("PCODER_PLUGINS_DIR").map_or_else(
        || Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../../target/plugins"),
        PathBuf::from,
    );
    let folder = fs::canonicalize(&folder).unwrap_or(folder);
    println!("cargo::rerun-if-env-changed=PCODER_PLUGINS_DIR");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut components: Vec<PathBuf> = fs::read_dir(&folder)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    components.retain(|path| path.extension().is_some_and(|it| it == "wasm"));
    components.sort();
    // Code that was compiled with other settings is refused when it is loaded, and compiled again then: slow, not wrong.
    let target = env::var("TARGET").unwrap_or_default();
    let mut table = String::from("&[\n");
    for component in &components {
        println!("cargo::rerun-if-changed={}", component.display());
        let name = component.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let code = folder.join(format!("{name}.{target}.cwasm"));
        println!("cargo::rerun-if-changed={}", code.display());
        let code = if code.is_file() {
            format!("Some(include_bytes!({:?}))", code.display().to_string())
        } else {
            "None".to_owned()
        };
        let wasm = component.display().to_string();
        let _ = writeln!(table, "    Bundled {{ name: {name:?}, wasm: include_bytes!({wasm:?}), code: {code} }},");
    }
    table.push(']');
    let out = Path::new(&env::var_os("OUT_DIR").unwrap_or_default()).join("bundled.rs");
    fs::write(&out, table).unwrap_or_else(|error| panic!("{}: {error}", out.display()));
    let out = out.with_file_name("third-party.txt");
    let text = third_party::list(&target).unwrap_or_else(|error| panic!("the list of licences: {error}"));
    fs::write(&out, text).unwrap_or_else(|error| panic!("{}: {error}", out.display()));
}
