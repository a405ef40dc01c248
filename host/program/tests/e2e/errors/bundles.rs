//! Errors of bundles.

use std::process::Stdio;

use super::Told;
use crate::support::World;

const EXPORT: [&str; 4] = ["bundle", "export", "bundle", "--no-engines"];

#[test]
fn errors_of_bundles() {
    let world = World::without_engines();
    let mut told = Told::new(&world);
    let folder = world.path("project");
    std::fs::write(folder.join("a file"), "").expect("a file");
    std::fs::create_dir(folder.join("other")).expect("a folder");
    std::fs::write(folder.join("other/mine"), "").expect("a file");
    told.fails(&["bundle", "export", "/", "--no-engines"]);
    told.fails(&["bundle", "export", "nowhere/bundle", "--no-engines"]);
    told.fails(&["bundle", "export", "a file", "--no-engines"]);
    told.fails(&["bundle", "export", "a file/bundle", "--no-engines"]);
    told.fails(&["bundle", "export", "other", "--no-engines"]);
    told.fails(&["bundle", "export", "other", "--no-engines", "--update"]);
    told.fails(&["bundle", "export", "bundle", "--engine", "emacs"]);
    told.fails(&["bundle", "export", "bundle", "--engine", "claude"]);
    told.fails(&["bundle", "verify"]).fails(&["bundle", "verify", "nowhere"]).fails(&["bundle", "verify", "other"]);
    told.make(&EXPORT);
    told.note("it is there already").fails(&EXPORT);
    let bundle = folder.join("bundle");
    let list = bundle.join("bundle.json");
    let whole = std::fs::read_to_string(&list).expect("its list");
    for (what, text) in [
        ("the list was cut", whole[..whole.len() / 2].to_owned()),
        ("the list is of a newer pcoder", whole.replacen("\"format\": 1", "\"format\": 99", 1)),
        ("the list is none", "[]".to_owned()),
        ("the list is too large", " ".repeat((16 << 20) + 1)),
    ] {
        std::fs::write(&list, text).expect("a list");
        told.note(what).fails(&["bundle", "verify", "bundle"]);
    }
    std::fs::write(&list, &whole).expect("a list");
    std::fs::write(bundle.join("extra"), "").expect("a file");
    std::fs::remove_file(bundle.join("licences/LICENSE-MIT")).expect("a file");
    told.note("a file too many, and one too few").fails(&["bundle", "verify", "bundle"]);

    let lock = bundle.join("state/locks/claude@1@linux-x64.lock");
    std::fs::create_dir_all(lock.parent().expect("a folder")).expect("a folder");
    let lock = std::fs::File::create(&lock).expect("a file");
    lock.lock_shared().expect("a lock");
    told.note("something runs from it").fails(&[&EXPORT[..], &["--update"]].concat());
    drop(lock);
    let mut own = std::process::Command::new(bundle.join("pcoder"));
    own.args(["bundle", "export"]).arg(&bundle).args(["--no-engines", "--update"]).env_clear();
    own.env("PATH", std::env::var_os("PATH").unwrap_or_default()).current_dir(&folder);
    told.note("by the bundle's own pcoder").fails_as("bundle export bundle --no-engines --update", own, "");
    told.are("bundles");
}

/// A disk with room for a file or two.
#[test]
fn errors_of_bundles_on_a_full_disk() {
    let world = World::without_engines();
    let mut told = Told::new(&world);
    let disk = world.path("project/disk");
    let Some(_disk) = crate::bad_input::Mounted::tmpfs(&disk, "size=4m") else { return };
    told.fails(&["bundle", "export", "disk/bundle", "--no-engines"]);
    assert_eq!(disk.read_dir().expect("a folder").count(), 0, "nothing is left there");
    told.are("bundles-full-disk");
}

#[test]
fn errors_of_a_bundle_that_is_stopped() {
    use std::io::{BufRead as _, BufReader};
    let world = World::new();
    let mut told = Told::new(&world);
    let mut command = told.command(&["bundle", "export", "bundle"]);
    let mut exporting = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("pcoder starts");
    let pid = rustix::process::Pid::from_child(&exporting);
    let lines = BufReader::new(exporting.stderr.take().expect("a pipe")).lines();
    let said = crate::support::wait("it was stopped", move || {
        let mut said = String::new();
        for line in lines.map_while(Result::ok) {
            if line == "bundle: copying" {
                rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
            }
            said += &(line + "\n");
        }
        said
    });
    let code = exporting.wait().expect("a child").code().expect("an exit code");
    told.text += &format!("$ pcoder bundle export bundle\nexit {code}\n-- stderr\n{said}");
    assert!(!world.path("project/bundle").exists());
    told.are("bundles-stopped");
}
