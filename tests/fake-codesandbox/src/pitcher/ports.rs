//! Ports that an instance really listens on: `port/*`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pcoder_fake_machine::{Confinement, Io, Machine, Run};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use super::Caller;
use super::wire::value;
use crate::cloud::{Cloud, blocking};
use crate::sandbox::Sandbox;

/// How often is looked.
const INTERVAL: Duration = Duration::from_millis(100);
/// What `/proc/net/tcp` calls a socket that listens.
const LISTEN: &str = "0A";

/// What is known of an instance's ports.
#[derive(Debug, Default)]
pub(crate) struct State(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The inode of the instance's PID namespace since its boot.
    namespace: Option<u64>,
    ports: BTreeSet<u16>,
}

impl State {
    pub(super) fn clear(&self) {
        *self.known() = Known::default();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ports that the instance listens on now, with their addresses.
pub(crate) async fn list(caller: &Caller) -> Value {
    let (cloud, sandbox) = (&caller.cloud, &caller.sandbox);
    let Some(namespace) = namespace(sandbox).await else { return json!([]) };
    let owned = blocking(move || owners(&listening(), &BTreeSet::from([namespace]))).await;
    let ports = owned.unwrap_or_default().remove(&namespace).unwrap_or_default();
    tell(cloud, sandbox, ports.clone());
    show(cloud, sandbox, &ports)
}

/// Looks at the ports of the sandboxes that somebody listens to, and tells what changed, until the fake stops.
pub(crate) async fn watch(cloud: Arc<Cloud>) {
    let mut tick = tokio::time::interval(INTERVAL);
    let mut seen = (Sockets::new(), BTreeSet::new());
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = cloud.stop.cancelled() => return,
        }
        let mut wanted = BTreeMap::new();
        for sandbox in cloud.sandboxes() {
            if sandbox.running()
                && sandbox.agent.connected()
                && let Some(namespace) = namespace(&sandbox).await
            {
                wanted.insert(namespace, sandbox);
            }
        }
        if wanted.is_empty() {
            continue;
        }
        let namespaces: BTreeSet<_> = wanted.keys().copied().collect();
        let Ok(sockets) = blocking(|| Ok(listening())).await else { return };
        // Who owns them is a look at every process, and is looked at only when there may be news.
        let now = (sockets, namespaces);
        if now == seen {
            continue;
        }
        let (sockets, namespaces) = now.clone();
        let Ok(mut owned) = blocking(move || owners(&sockets, &namespaces)).await else { continue };
        for (namespace, sandbox) in wanted {
            tell(&cloud, &sandbox, owned.remove(&namespace).unwrap_or_default());
        }
        seen = now;
    }
}

pub(crate) fn url(cloud: &Cloud, sandbox: &Sandbox, port: u16) -> String {
    format!("https://{}-{port}.{}", sandbox.id, cloud.options.host_suffix)
}

fn show(cloud: &Cloud, sandbox: &Sandbox, ports: &BTreeSet<u16>) -> Value {
    ports.iter().map(|&port| json!({"port": port, "url": url(cloud, sandbox, port)})).collect()
}

/// Keeps what is so now, and tells it if it was otherwise.
fn tell(cloud: &Cloud, sandbox: &Sandbox, ports: BTreeSet<u16>) {
    let shown = show(cloud, sandbox, &ports);
    let before = std::mem::replace(&mut sandbox.agent.ports.known().ports, ports.clone());
    if before != ports {
        sandbox.agent.notify("port/changed", &value(json!({"list": shown})));
    }
}

/// The PID namespace of a sandbox; none where nothing was started in it, or it has none.
async fn namespace(sandbox: &Sandbox) -> Option<u64> {
    if sandbox.agent.unused() {
        return None;
    }
    let known = sandbox.agent.ports.known().namespace;
    if known.is_some() {
        return known;
    }
    let found = ask(&sandbox.machine).await.ok().flatten();
    sandbox.agent.ports.known().namespace = found;
    found
}

/// Asks an instance for its PID namespace.
async fn ask(machine: &Machine) -> io::Result<Option<u64>> {
    if machine.confinement() == Confinement::Folder {
        return Ok(None);
    }
    let run = Run {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), "exec stat -L -c %i /proc/self/ns/pid".into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: "/".to_owned(),
        io: Io::Pipes,
    };
    let machine = machine.clone();
    let mut running = blocking(move || machine.spawn(run)).await?;
    let mut said = String::new();
    if let Some(stdout) = &mut running.stdout {
        stdout.read_to_string(&mut said).await?;
    }
    running.wait().await?;
    Ok(said.trim().parse().ok())
}

/// The ports of sockets, by the name that `/proc/PID/fd` has for them.
type Sockets = BTreeMap<String, u16>;

/// Every TCP socket of this machine that listens.
fn listening() -> Sockets {
    let mut sockets = BTreeMap::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            let [_, local, _, state, .., inode] = fields.get(..10).unwrap_or_default() else { continue };
            let port = local.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
            if let (&LISTEN, Some(port)) = (state, port) {
                sockets.insert(format!("socket:[{inode}]"), port);
            }
        }
    }
    sockets
}

/// The ports of those sockets that processes of these PID namespaces hold.
fn owners(sockets: &Sockets, namespaces: &BTreeSet<u64>) -> io::Result<BTreeMap<u64, BTreeSet<u16>>> {
    let mut owned: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // Processes come and go meanwhile: what cannot be read is none of an instance's, or has ended.
        let Ok(namespace) = fs::metadata(path.join("ns/pid")).map(|data| data.ino()) else { continue };
        if !namespaces.contains(&namespace) {
            continue;
        }
        for descriptor in fs::read_dir(path.join("fd")).into_iter().flatten().filter_map(Result::ok) {
            let target = fs::read_link(descriptor.path()).unwrap_or_default();
            let port = target.to_str().and_then(|target| sockets.get(target));
            owned.entry(namespace).or_default().extend(port);
        }
    }
    Ok(owned)
}
