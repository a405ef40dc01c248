//! An engine that is there, and not what was installed.

use std::path::{Path, PathBuf};

use crate::support::{World, finish};

/// The smallest of the engines, in a store of this world's own: what a copied store is, with new times on every file.
pub(crate) fn copied(world: &World) -> PathBuf {
    let engines = std::env::var_os("PCODER_TEST_ENGINES").map(PathBuf::from).expect("as every test needs it");
    let place = Path::new("engines/codex-acp/2.6.0-any");
    copy(&engines.join(place), &world.path("pcoder").join(place));
    world.path("pcoder").join(place)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        // What is known of the files' times is not true of a copy; a store from before that was known has no such file.
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else if entry.file_name() != "stamps.json" {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
        }
    }
}

/// Changes one byte, and neither the size nor the time.
fn change(file: &Path) {
    let changed = std::fs::metadata(file).and_then(|data| data.modified()).expect("a time");
    let mut bytes = std::fs::read(file).expect("a file");
    bytes[100] ^= 1;
    std::fs::write(file, &bytes).expect("a file");
    let file = std::fs::File::options().write(true).open(file).expect("a file");
    file.set_modified(changed).expect("a time");
}

#[test]
fn a_store_that_was_copied_works_without_a_network() {
    let world = World::without_engines();
    let folder = copied(&world);
    let outcome = finish(world.pcoder(&["engine", "install", "codex-acp", "--offline", "--json"]), "");
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert!(folder.join("stamps.json").exists(), "the next time it is found at once");
}

#[test]
fn what_verify_found_is_named_with_one_command_that_mends_it() {
    let world = World::without_engines();
    let folder = copied(&world);
    let install = |more: &[&str]| finish(world.pcoder(&[&["engine", "install", "codex-acp"], more].concat()), "");
    assert_eq!(install(&[]).code, Some(0));
    change(&folder.join("package/dist/index.js"));
    assert_eq!(install(&[]).code, Some(0), "nothing tells without reading it");
    assert_eq!(install(&["--force"]).code, Some(4), "it downloads, and here is no network");

    insta::assert_snapshot!(finish(world.pcoder(&["engine", "verify", "codex-acp"]), "").shown(), @r"
        exit 5
        -- stdout
        dist/index.js: was changed
        -- stderr
        mend it: `pcoder engine install codex-acp`
        ");
    let report = finish(world.pcoder(&["engine", "verify", "codex-acp", "--json"]), "").json();
    assert_eq!((&report["whole"], &report["remedy"]), (&false.into(), &"`pcoder engine install codex-acp`".into()));

    // Now everybody knows, and the command mends it as soon as there is a network.
    let list = finish(world.pcoder(&["engine", "list"]), "");
    assert!(list.printed().contains("damaged: a check found 1 file that is not what was installed"), "{list:#?}");
    let doctor = finish(world.pcoder(&["doctor"]), "");
    assert!(doctor.stdout.contains("[fail] engine.codex-acp"), "{doctor:#?}");
    assert_eq!(install(&[]).code, Some(4));
    insta::assert_snapshot!(install(&["--offline"]).shown().lines().take(3).collect::<Vec<_>>().join("\n"), @r"
        exit 4
        -- stderr
        error: cannot download `codex-acp 2.6.0`: it is damaged (a check found 1 file that is not what was installed), and pcoder is told to stay offline
        ");
    change(&folder.join("package/dist/index.js"));
    assert_eq!(finish(world.pcoder(&["engine", "verify", "codex-acp"]), "").code, Some(0));
    assert_eq!(install(&["--offline"]).code, Some(0));
}
