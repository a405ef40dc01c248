//! Machines that are not this one: the program against fakes of the services, in whose instances commands really run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use pcoder_fake_morph::{FakeMorph, Options, Seen};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::support::{Outcome, World, finish, until};

pub(crate) mod conformance;
mod instances;
#[cfg(target_os = "linux")]
mod memory;
mod runs;
pub(crate) mod smoke;
mod transfer;

/// Where fakes run.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio"))
}

/// A key that is found again wherever it should not be.
pub(crate) const KEY: &str = "mk-canary-4f1d0b7a";
/// What is booted.
pub(crate) const SNAPSHOT: &str = "snapshot_c1p8b6c2";

/// A fake of Morph with the world that uses it.
pub(crate) struct Morph {
    pub(crate) world: World,
    pub(crate) fake: FakeMorph,
}

impl Morph {
    pub(crate) fn new(world: World, options: Options) -> Self {
        let options = Options { key: KEY.to_owned(), ..options };
        let fake = runtime().block_on(FakeMorph::start(options)).expect("a fake");
        let morph = Self { world, fake };
        morph.set("plugins.provider-morph.endpoint", &morph.fake.base_url());
        morph.set("plugins.provider-morph.ssh", &format!("ssh://{}", morph.fake.ssh_address()));
        morph.set("plugins.provider-morph.snapshot", SNAPSHOT);
        morph.set("provider", "morph");
        morph
    }

    pub(crate) fn set(&self, name: &str, value: &str) {
        finish(self.world.pcoder(&["config", "set", name, value]), "").printed();
    }

    /// The program with the service's key.
    pub(crate) fn pcoder(&self, args: &[&str]) -> Command {
        let mut command = self.world.pcoder(args);
        command.env("MORPH_API_KEY", KEY);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        finish(self.pcoder(args), "")
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let outcome = self.run(args);
        outcome.printed();
        outcome.json()
    }

    /// A new instance.
    pub(crate) fn boot(&self) -> String {
        self.run(&["instance", "boot"]).printed().trim().to_owned()
    }

    /// Waits until the service was asked to boot something, after so many other requests.
    pub(crate) fn until_booting(&self, after: usize) {
        let asked = |it: &Seen| it.method == "POST" && it.path == "/api/instance";
        until("a boot is asked for", || self.fake.requests().iter().skip(after).any(asked).then_some(()));
    }

    /// How many instances there are.
    pub(crate) fn count(&self) -> usize {
        self.json(&["instance", "list", "--json"])["instances"].as_array().expect("a list").len()
    }

    /// How many requests there were so far.
    pub(crate) fn requests(&self) -> usize {
        self.fake.requests().len()
    }
}

/// The folder with the program `pm2`; none where it cannot be installed, and then the test is left out.
pub(crate) fn pm2() -> Option<PathBuf> {
    pcoder_test_npm::pm2(Path::new(env!("CARGO_TARGET_TMPDIR")))
}

/// What an image has: folders of this machine, where they are there.
pub(crate) type Shared = Vec<(PathBuf, String)>;

/// The programs that sessions need: PM2 where it is given, Claude's engine, and Node.js, which PM2 is run by. And the
/// `PATH` that leads to them.
pub(crate) fn programs(world: &World, pm2: Option<&Path>) -> (Shared, Vec<(String, String)>) {
    let mut shared = vec![(claude(world), "/opt/claude".to_owned())];
    let mut path = vec!["/opt/claude"];
    if let Some(bin) = pm2 {
        // The program is a link into the package beside it.
        let package = bin.parent().and_then(Path::parent).expect("the package");
        shared.push((package.to_path_buf(), "/opt/pm2".to_owned()));
        path.push("/opt/pm2/node_modules/.bin");
        let search = std::env::var_os("PATH").unwrap_or_default();
        let node = std::env::split_paths(&search).find(|it| it.join("node").exists()).expect("npm has its node");
        let node = node.join("node").canonicalize().expect("a program");
        shared.push((node.parent().expect("a folder").to_path_buf(), "/opt/node".to_owned()));
        path.push("/opt/node");
    }
    path.push("/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    (shared, vec![("PATH".to_owned(), path.join(":"))])
}

/// The folder of Claude's engine.
fn claude(world: &World) -> PathBuf {
    let listed = finish(world.pcoder(&["engine", "list", "--json"]), "").json();
    let engines = listed["engines"].as_array().expect("a list");
    let it = engines.iter().find(|it| it["name"] == "claude" && it["default"] == true).expect("the engine");
    let folder = listed["folder"].as_str().expect("a folder");
    let versions = Path::new(folder).join("engines/claude");
    let begin = format!("{}-", it["version"].as_str().expect("a version"));
    let mut entries = std::fs::read_dir(&versions).expect("engines").filter_map(|it| Some(it.ok()?.path()));
    let found = entries.find(|it| it.file_name().is_some_and(|it| it.to_string_lossy().starts_with(&begin)));
    let root = found.unwrap_or_else(|| panic!("no {begin} in {}", versions.display()));
    // Where in it the program is, is the package's affair.
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        if folder.join("claude").is_file() {
            return folder;
        }
        folders.extend(
            std::fs::read_dir(&folder)
                .expect("a folder")
                .filter_map(|it| Some(it.ok()?.path()))
                .filter(|it| it.is_dir()),
        );
    }
    panic!("the engine has no program")
}
