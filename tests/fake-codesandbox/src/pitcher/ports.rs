//! Ports that an instance really listens on: `port/*`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pcoder_fake_machine::{Confinement, Io, Machine, Run};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use super::Caller;
use super::wire::value;
use crate::cloud::{Cloud, Sandbox, blocking};

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
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Known::default();
    }
}

/// The ports that the instance listens on now, with their addresses.
pub(super) async fn list(caller: &Caller) -> Value {
    refresh(&caller.cloud, &caller.sandbox).await
}

/// Looks at the ports of the sandboxes that somebody listens to, and tells what changed, until the fake stops.
pub(crate) async fn watch(cloud: Arc<Cloud>) {
    let mut tick = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = cloud.stop.cancelled() => return,
        }
        for sandbox in cloud.sandboxes() {
            if sandbox.running() && sandbox.agent.connected() && !sandbox.agent.shells().is_empty() {
                refresh(&cloud, &sandbox).await;
            }
        }
    }
}

pub(crate) fn url(cloud: &Cloud, sandbox: &Sandbox, port: u16) -> String {
    format!("https://{}-{port}.{}", sandbox.id, cloud.options.host_suffix)
}

async fn refresh(cloud: &Cloud, sandbox: &Arc<Sandbox>) -> Value {
    let show = |ports: &BTreeSet<u16>| {
        ports.iter().map(|&port| json!({"port": port, "url": url(cloud, sandbox, port)})).collect::<Value>()
    };
    // Without a shell nothing can listen.
    if sandbox.agent.shells().is_empty() {
        return show(&BTreeSet::new());
    }
    let known = sandbox.agent.ports.0.lock().unwrap_or_else(PoisonError::into_inner).namespace;
    let namespace = match known {
        Some(namespace) => Some(namespace),
        None => namespace(&sandbox.machine).await.ok().flatten(),
    };
    let Some(namespace) = namespace else { return show(&BTreeSet::new()) };
    let Ok(ports) = blocking(move || listening(namespace)).await else { return show(&BTreeSet::new()) };
    let shown = show(&ports);
    let changed = {
        let mut known = sandbox.agent.ports.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.namespace = Some(namespace);
        std::mem::replace(&mut known.ports, ports.clone()) != ports
    };
    if changed {
        sandbox.agent.notify("port/changed", &value(json!({"list": shown})));
    }
    shown
}

/// The PID namespace of an instance, where it has one.
async fn namespace(machine: &Machine) -> io::Result<Option<u64>> {
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

/// The TCP ports on which processes of a PID namespace listen.
fn listening(namespace: u64) -> io::Result<BTreeSet<u16>> {
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
    let mut ports = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // Processes come and go meanwhile: what cannot be read is none of the instance's, or has ended.
        if !fs::metadata(path.join("ns/pid")).is_ok_and(|data| data.ino() == namespace) {
            continue;
        }
        for descriptor in fs::read_dir(path.join("fd")).into_iter().flatten().filter_map(Result::ok) {
            let target = fs::read_link(descriptor.path()).unwrap_or_default();
            ports.extend(target.to_str().and_then(|target| sockets.get(target)));
        }
    }
    Ok(ports)
}
