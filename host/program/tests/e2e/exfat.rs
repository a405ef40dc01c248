//! A stick as it is sold: a real exFAT, which has no permissions, no links and no owners.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::component::{PLAIN, third_party};
use crate::support::{World, finish};

/// An exFAT in a file, mounted for one test; nothing where that cannot be done.
struct Stick {
    device: String,
    folder: PathBuf,
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Stick {
    fn mounted(world: &World) -> Option<Self> {
        let (image, folder) = (world.path("stick.img"), world.path("stick"));
        std::fs::create_dir(&folder).expect("a folder");
        let file = std::fs::File::create(&image).expect("a file");
        file.set_len(512 << 20).expect("its size");
        let image = image.to_str()?;
        let mounted = output("mkfs.exfat", &[image])
            .and_then(|_| output("losetup", &["-f", "--show", image]))
            .map(|device| Self { device, folder });
        let Some(stick) = mounted else {
            eprintln!("notice: not tested, because no exFAT can be made here");
            return None;
        };
        output("mount.exfat-fuse", &[&stick.device, stick.folder.to_str()?]);
        // The program ends well although it did not mount: what counts is what is there.
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        let there = mounts.lines().any(|line| line.contains(&stick.device) && line.contains("fuseblk"));
        if !there {
            eprintln!("notice: not tested, because no exFAT can be mounted here");
        }
        there.then_some(stick)
    }
}

impl Drop for Stick {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.folder).status());
        drop(Command::new("losetup").args(["-d", &self.device]).status());
    }
}

/// Its own pcoder, with nothing of the machine's.
fn own(bundle: &Path, args: &[&str], project: &Path) -> crate::support::Outcome {
    let mut command = Command::new(bundle.join("pcoder"));
    command.args(args).env_clear().current_dir(project);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LANG", "C.UTF-8");
    finish(command, "")
}

#[test]
fn a_portable_folder_works_on_exfat_and_what_that_lacks_is_said_once() {
    let world = World::without_engines();
    let Some(stick) = Stick::mounted(&world) else { return };
    let bundle = stick.folder.join("p \u{e9}");
    let mut export = world.pcoder(&["bundle", "export", "--no-engines"]);
    export.arg(&bundle);
    finish(export, "").printed();
    let project = world.project("p");
    third_party(&project, "it.wasm", "1.0.0", PLAIN);
    let own = |args: &[&str]| own(&bundle, args, &project);
    assert!(own(&["bundle", "verify"]).printed().contains("the bundle is whole"));
    own(&["config", "set", "tool", "codex"]).printed();
    own(&["profile", "create", "work", "--tool", "claude"]).printed();
    own(&["plugin", "add", "it.wasm", "--yes"]).printed();
    own(&["list-tools"]).printed();
    assert!(own(&["plugin", "list"]).printed().contains("provider-thirdparty"));
    assert!(own(&["audit", "verify"]).printed().contains("the audit is whole"));
    assert!(own(&["config", "path"]).printed().contains("stick"));

    // Its locks are real ones: whoever holds one keeps the others out.
    let lock = std::fs::File::options().write(true).open(bundle.join("state/locks/settings.toml.lock"));
    let lock = lock.expect("the lock");
    lock.lock().expect("locked");
    let waiting = own(&["config", "set", "tool", "claude"]);
    assert_eq!(waiting.code, Some(1), "{waiting:#?}");
    drop(lock);
    own(&["config", "set", "tool", "claude"]).printed();

    let doctor = own(&["doctor", "--json"]);
    let checks = doctor.json()["checks"].as_array().expect("a list").clone();
    let status = |id: &str| {
        let check = checks.iter().find(|it| it["id"] == id).unwrap_or_else(|| panic!("no {id}: {checks:#?}"));
        check["status"].as_str().expect("a word").to_owned()
    };
    assert_eq!(status("disk.permissions"), "warning");
    assert_eq!([status("folder.permissions"), status("profile.work"), status("disk.locks")], ["ok", "ok", "ok"]);
}
