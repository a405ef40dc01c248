//! Virtual machines: real ones, which QEMU emulates, with the guest image that `cargo xtask test` builds.

mod clouds;
mod life;
mod network;
mod restored;
mod runs;
mod terminal;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pcoder_core::{Launcher, Pcoder};
use pcoder_model_server::environment::{CODEX_MODEL, OFFLINE_KEY};
use pcoder_testkit::{Subject, conformance};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::remote::conformance::{passed, pcoder};
use crate::remote::runtime;
use crate::remote::smoke::profile;
use crate::support::{Outcome, World, finish, until};

/// Puts the image where a pcoder in this folder has its images. Linked, because it has gigabytes.
fn with_image(home: &Path) {
    let from = PathBuf::from(std::env::var_os("PCODER_TEST_GUEST").unwrap_or_else(|| {
        panic!(
            "`PCODER_TEST_GUEST` does not say where the guest image is: run `cargo xtask test`, which builds it first"
        )
    }));
    let to = home.join("images").join("debian-13-amd64");
    std::fs::create_dir_all(&to).expect("a folder");
    for file in ["vmlinux", "initrd", "root.img", "guest.json"] {
        std::fs::hard_link(from.join(file), to.join(file)).expect("a link");
    }
}

/// A pcoder that keeps programs running as the command line does.
fn keeping(pcoder: &Pcoder) {
    let words = |all: &[&str]| all.iter().map(Into::into).collect();
    pcoder.keep_services_with(Launcher {
        program: env!("CARGO_BIN_EXE_pcoder").into(),
        supervise: words(&["__service"]),
        become_program: words(&["__service-program", "--"]),
    });
}

/// Emulated machines take all of a processor each: one test at a time has some.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn qemu_is_a_provider() {
    let _alone = alone();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let pcoder = pcoder(folder.path(), &[]);
    keeping(&pcoder);
    with_image(&folder.path().join("pcoder"));
    passed(&runtime().block_on(conformance(&Subject::new(&pcoder, "qemu"))));
}

/// A world whose pcoder can start machines, which end with it.
struct Machines {
    world: World,
    _sockets: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Machines {
    fn new() -> Self {
        let alone = alone();
        let mut world = World::new();
        with_image(&world.path("pcoder"));
        // The name of a socket has room for a hundred bytes.
        let sockets = tempfile::Builder::new().prefix("e2e-").tempdir_in("/tmp").expect("a folder");
        world.set("XDG_RUNTIME_DIR", sockets.path());
        world.set("OFFLINE_KEY", OFFLINE_KEY);
        let machines = Self { world, _sockets: sockets, _alone: alone };
        for (name, value) in [("provider", "qemu"), ("plugins.provider-qemu.memory-mib", "1024")] {
            machines.run(&["config", "set", name, value]).printed();
        }
        machines
    }

    /// Profiles that lead both agents to the model server of the test, which is on this host's loopback.
    fn with_profiles() -> Self {
        let machines = Self::new();
        profile(&machines.world);
        let endpoint = machines.world.server().openai_url();
        let args = ["profile", "create", "codex", "--tool", "codex", "--key", "env:OFFLINE_KEY"];
        let args = [&args[..], &["--endpoint", &endpoint, "--model", CODEX_MODEL]].concat();
        machines.run(&args).printed();
        machines
    }

    fn run(&self, args: &[&str]) -> Outcome {
        finish(self.world.pcoder(args), "")
    }

    fn boot(&self) -> String {
        self.run(&["instance", "boot"]).printed().trim().to_owned()
    }

    /// What the list says of each.
    fn statuses(&self) -> BTreeMap<String, String> {
        let outcome = self.run(&["instance", "list", "--json"]);
        outcome.printed();
        let list = outcome.json();
        let text = |it: &Value, name: &str| it[name].as_str().expect("a text").to_owned();
        let list = list["instances"].as_array().expect("a list").iter();
        list.map(|it| (text(it, "id"), text(it, "status"))).collect()
    }

    /// The QEMUs that run, and whose each is: as the system sees them, whatever pcoder says. Those that make a template
    /// are among them.
    fn qemus(&self) -> BTreeMap<String, Pid> {
        let ours = self.world.path("pcoder/images").display().to_string();
        let entries = std::fs::read_dir("/proc").expect("/proc");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        pids.filter_map(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            // An instance that began with a template has that in its arguments too.
            let (_, rest) = line.split_once("instances/").or_else(|| line.split_once("templates/"))?;
            let (id, _) = rest.split_once('/')?;
            let is_qemu = line.starts_with("/") && line.split('\0').next()?.contains("qemu-system");
            (is_qemu && line.contains(&ours)).then(|| Some((id.to_owned(), Pid::from_raw(pid)?)))?
        })
        .collect()
    }

    /// What the plugin keeps of machines. The layers of templates that can be used stay for the next machine.
    fn kept(&self) -> Vec<PathBuf> {
        let state = self.world.path("pcoder/plugins/provider-qemu");
        let of = |name: &str| {
            let entries = std::fs::read_dir(state.join(name)).into_iter().flatten();
            entries.map(|it| it.expect("an entry").path()).collect::<Vec<PathBuf>>()
        };
        let layer = |folder: PathBuf| {
            let text = std::fs::read(folder.join("template.json")).ok()?;
            let template: Value = serde_json::from_slice(&text).expect("JSON");
            (!template["saved"].is_null()).then(|| template["layer"].as_str().expect("a name").to_owned())
        };
        let templates: Vec<String> = of("templates").into_iter().filter_map(layer).collect();
        let is_kept = |it: &PathBuf| it.file_stem().is_none_or(|name| templates.iter().all(|it| **it != *name));
        of("instances").into_iter().chain(of("layers").into_iter().filter(is_kept)).collect()
    }

    fn terminate_all(&self) {
        self.run(&["instance", "terminate", "--all"]).printed();
        assert_eq!((self.kept(), self.statuses()), (Vec::new(), BTreeMap::new()));
        until("no QEMU runs", || self.qemus().is_empty().then_some(()));
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for pid in self.qemus().into_values() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
