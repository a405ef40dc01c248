//! Another process: this very test binary, started with the one test below, which installs when it is told to by its
//! environment and otherwise passes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use pcoder_engines::{EnginesLock, ImportOptions, NetworkConfig, Platform, Silent, Store};
use tokio_util::sync::CancellationToken;

use crate::toy::{World, options};

const TOLD: &str = "PCODER_ENGINES_TEST_CHILD";

/// Starts an installer.
pub(crate) fn installer(world: &World) -> Child {
    let program = Command::new(std::env::current_exe().unwrap());
    start(world, program, Stdio::null(), None).unwrap()
}

/// Starts an importer.
pub(crate) fn importer(world: &World, from: &Path) -> Child {
    let program = Command::new(std::env::current_exe().unwrap());
    start(world, program, Stdio::null(), Some(from)).unwrap()
}

/// Starts an installer by another program, whose last arguments are the installer's command.
pub(crate) fn installer_by(world: &World, mut program: Command) -> std::io::Result<Child> {
    program.arg(std::env::current_exe().unwrap());
    start(world, program, Stdio::piped(), None)
}

fn start(world: &World, mut program: Command, stdout: Stdio, from: Option<&Path>) -> std::io::Result<Child> {
    let lock = world.folder.path().join("engines.lock");
    std::fs::write(&lock, &world.lock).unwrap();
    let from = from.map_or("", |from| from.to_str().unwrap());
    let told = [world.root().to_str().unwrap(), lock.to_str().unwrap(), &world.registry.url(), from].join("\n");
    program
        .args(["--exact", "child::installs_when_told", "--nocapture"])
        .env(TOLD, told)
        .stdout(stdout)
        .stderr(Stdio::null())
        .spawn()
}

#[tokio::test(flavor = "multi_thread")]
async fn installs_when_told() {
    let Ok(told) = std::env::var(TOLD) else {
        return;
    };
    let told: Vec<_> = told.lines().collect();
    let lock = EnginesLock::parse(&std::fs::read_to_string(told[1]).unwrap()).unwrap();
    let store = Store::new(told[0].into(), lock, Platform::detect(Path::new("/")).unwrap());
    let options = options(NetworkConfig::plain(told[2]).unwrap());
    let (progress, cancel) = (Arc::new(Silent), CancellationToken::new());
    if let Some(from) = told.get(3) {
        store.import(Path::new(from), &ImportOptions::default(), progress, cancel).await.unwrap();
        return;
    }
    let installed = store.install("toy", None, &options, progress, cancel).await;
    println!("error code: {}", installed.as_ref().map_or_else(|error| error.code(), |_| "none"));
    installed.unwrap();
}
