//! Everything there is: snapshots, instances, and what changes them.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pcoder_fake_machine::{Layout, Machine};
use tokio_util::sync::CancellationToken;

use crate::answer::Refusal;
use crate::clock::Clock;
use crate::input::Metadata;
use crate::keys::{SshKeys, word};
use crate::model::{Instance, Snapshot, Spec, Status, Ttl, TtlAction};
use crate::options::Options;

/// The images, with their sizes in MB.
pub(crate) const IMAGES: &[(&str, &str, u64)] =
    &[("morphvm-minimal", "Minimal Debian", 700), ("morphvm-sandbox", "Sandbox", 8192)];
/// When the images were made; 2024-11-01.
pub(crate) const IMAGES_CREATED: u64 = 1_730_419_200;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    /// Ends what the fake serves.
    pub(crate) ending: CancellationToken,
    /// What the gateway ran: lines, shells and file servers.
    pub(crate) gateway_runs: AtomicUsize,
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) instances: BTreeMap<String, Instance>,
    pub(crate) snapshots: BTreeMap<String, Snapshot>,
    /// Tokens of snapshots, with when they expire.
    pub(crate) tokens: BTreeMap<String, (String, u64)>,
    /// The user's registered key, and when it was.
    pub(crate) user_key: Option<(String, u64)>,
    made: u64,
}

/// What a new instance is to be.
#[derive(Debug, Default)]
pub(crate) struct Wish {
    pub(crate) vcpus: Option<u64>,
    pub(crate) memory: Option<u64>,
    pub(crate) disk_size: Option<u64>,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) ttl_seconds: Option<u64>,
    pub(crate) ttl_action: Option<TtlAction>,
}

impl Wish {
    pub(crate) fn spec(&self, given: Spec) -> Spec {
        Spec {
            vcpus: self.vcpus.unwrap_or(given.vcpus),
            memory: self.memory.unwrap_or(given.memory),
            disk_size: self.disk_size.unwrap_or(given.disk_size),
        }
    }
}

/// What wakes a paused instance.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access {
    Ssh,
    Http,
}

impl World {
    pub(crate) fn new(options: Options, root: PathBuf) -> Self {
        let world = Self {
            options,
            clock: Clock::default(),
            ending: CancellationToken::new(),
            gateway_runs: AtomicUsize::new(0),
            root,
            state: Mutex::default(),
        };
        for seed in world.options.snapshots.clone() {
            let snapshot = Snapshot {
                id: seed.id,
                digest: seed.digest,
                metadata: seed.metadata.into_iter().collect(),
                ..world.bare_snapshot(Spec { vcpus: 1, memory: 128, disk_size: 700 }, "morphvm-minimal")
            };
            world.keep_snapshot(snapshot);
        }
        world
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot of an image, which nobody knows yet.
    pub(crate) fn bare_snapshot(&self, spec: Spec, image: &str) -> Snapshot {
        Snapshot {
            id: format!("snapshot_{}", word(8)),
            number: 0,
            created: self.clock.seconds(),
            spec,
            image: image.to_owned(),
            digest: None,
            metadata: Metadata::new(),
            ttl: Ttl::default(),
            files: None,
        }
    }

    pub(crate) fn keep_snapshot(&self, mut snapshot: Snapshot) {
        let mut state = self.state();
        state.made += 1;
        snapshot.number = state.made;
        state.snapshots.insert(snapshot.id.clone(), snapshot);
    }

    /// Starts an instance of a snapshot; its id.
    pub(crate) fn start(&self, snapshot: &str, wish: Wish) -> Result<String, Refusal> {
        let (spec, image, files) = {
            let state = self.state();
            let found = state.snapshots.get(snapshot).ok_or_else(|| Refusal::not_found("Snapshot"))?;
            (found.spec, found.image.clone(), found.files.clone())
        };
        self.start_with(snapshot, &image, spec, files.as_ref(), wish)
    }

    pub(crate) fn start_with(
        &self,
        snapshot: &str,
        image: &str,
        spec: Spec,
        files: Option<&Machine>,
        wish: Wish,
    ) -> Result<String, Refusal> {
        let id = format!("morphvm_{}", word(8));
        let folder = self.root.join("instances").join(&id);
        let machine = match files {
            Some(files) => files.fork(&folder)?,
            None => Machine::new(&folder, self.layout())?,
        };
        let now = self.clock.seconds();
        let mut state = self.state();
        state.made += 1;
        let instance = Instance {
            id: id.clone(),
            number: state.made,
            created: now,
            status: if self.options.boot_polls == 0 { Status::Ready } else { Status::Pending },
            polls: self.options.boot_polls,
            spec: wish.spec(spec),
            snapshot: snapshot.to_owned(),
            image: image.to_owned(),
            services: Vec::new(),
            metadata: wish.metadata.unwrap_or_default(),
            ttl: Ttl::new(wish.ttl_seconds, wish.ttl_action.unwrap_or_default(), now),
            wake_on_ssh: false,
            wake_on_http: false,
            machine,
            keys: None,
            boots: 0,
        };
        state.instances.insert(id.clone(), instance);
        Ok(id)
    }

    fn layout(&self) -> Layout {
        Layout { home: "/root".to_owned(), folders: self.options.folders.clone(), shared: self.options.shared.clone() }
    }

    /// Makes a snapshot of an instance, which is `saving` meanwhile. One of the same digest is taken instead.
    pub(crate) fn snapshot(
        &self,
        id: &str,
        digest: Option<&str>,
        metadata: Metadata,
        ttl: Ttl,
    ) -> Result<String, Refusal> {
        let (machine, spec, image, before) = {
            let mut state = self.state();
            let same =
                state.snapshots.values().find(|snapshot| digest.is_some() && snapshot.digest.as_deref() == digest);
            let same = same.map(|snapshot| snapshot.id.clone());
            let instance = state.instance(id)?;
            let before = instance.status;
            if !matches!(before, Status::Ready | Status::Paused) {
                return Err(Refusal::state("Instance is not ready"));
            }
            if let Some(same) = same {
                return Ok(same);
            }
            instance.status = Status::Saving;
            (instance.machine.clone(), instance.spec, instance.image.clone(), before)
        };
        let mut snapshot = self.bare_snapshot(spec, &image);
        let copy = machine.fork(&self.root.join("snapshots").join(&snapshot.id));
        if let Ok(instance) = self.state().instance(id)
            && instance.status == Status::Saving
        {
            instance.status = before;
        }
        snapshot.files = Some(copy?);
        snapshot.digest = digest.map(str::to_owned);
        snapshot.metadata = metadata;
        snapshot.ttl = ttl;
        let id = snapshot.id.clone();
        self.keep_snapshot(snapshot);
        Ok(id)
    }

    pub(crate) fn pause(&self, id: &str) -> Result<(), Refusal> {
        let mut state = self.state();
        let instance = state.instance(id)?;
        match instance.status {
            Status::Paused => {}
            Status::Ready => {
                instance.machine.pause()?;
                instance.status = Status::Paused;
            }
            Status::Pending | Status::Saving => return Err(Refusal::state("Instance is not ready")),
        }
        Ok(())
    }

    pub(crate) fn resume(&self, id: &str) -> Result<(), Refusal> {
        let mut state = self.state();
        let instance = state.instance(id)?;
        match instance.status {
            Status::Ready => {}
            Status::Paused => {
                instance.machine.resume()?;
                instance.status = Status::Ready;
            }
            Status::Pending | Status::Saving => return Err(Refusal::state("Instance is not paused")),
        }
        Ok(())
    }

    /// Ends an instance; whatever it was doing.
    pub(crate) fn stop(&self, id: &str) -> Result<(), Refusal> {
        let ended = self.state().instances.remove(id).ok_or_else(|| Refusal::not_found("Instance"))?;
        ended.machine.end();
        Ok(())
    }

    /// The machine of an instance that is ready, and how often it was booted.
    pub(crate) fn ready(&self, id: &str) -> Result<(Machine, u64), Refusal> {
        let mut state = self.state();
        let instance = state.instance(id)?;
        match instance.status {
            Status::Ready => Ok((instance.machine.clone(), instance.boots)),
            Status::Paused => Err(Refusal::state("Instance is paused")),
            Status::Pending | Status::Saving => Err(Refusal::state("Instance is not ready")),
        }
    }

    /// The same, after a paused one was woken if it is to be.
    pub(crate) fn ready_for(&self, id: &str, access: Access) -> Result<(Machine, u64), Refusal> {
        self.sweep();
        let wakes = {
            let mut state = self.state();
            let instance = state.instance(id)?;
            let wakes = match access {
                Access::Ssh => instance.wake_on_ssh,
                Access::Http => instance.wake_on_http,
            };
            wakes && instance.status == Status::Paused
        };
        if wakes {
            self.resume(id)?;
        }
        self.ready(id)
    }

    /// Whether the instance is the one it was: not ended, not rebooted.
    pub(crate) fn same_boot(&self, id: &str, boots: u64) -> bool {
        self.state().instances.get(id).is_some_and(|instance| instance.boots == boots)
    }

    pub(crate) fn keys(&self, id: &str, anew: bool) -> Result<SshKeys, Refusal> {
        let mut state = self.state();
        let instance = state.instance(id)?;
        if let Some(keys) = instance.keys.as_ref().filter(|_| !anew) {
            return Ok(keys.clone());
        }
        Ok(instance.keys.insert(SshKeys::new()?).clone())
    }

    /// Does what time has brought: what has expired is stopped or paused.
    pub(crate) fn sweep(&self) {
        let now = self.clock.seconds();
        let mut state = self.state();
        let expired = |instance: &&mut Instance| instance.ttl.expired(now);
        let mut ended = Vec::new();
        let mut held = Vec::new();
        for instance in state.instances.values_mut().filter(expired) {
            match instance.ttl.action {
                TtlAction::Stop => ended.push(instance.id.clone()),
                TtlAction::Pause => {
                    // It has expired once, and does not again when it is resumed.
                    instance.ttl.seconds = None;
                    instance.ttl.expire_at = None;
                    if instance.status != Status::Paused && instance.machine.pause().is_ok() {
                        instance.status = Status::Paused;
                    }
                }
            }
        }
        held.extend(ended.iter().filter_map(|id| state.instances.remove(id)));
        let old: Vec<String> =
            state.snapshots.values().filter(|snapshot| snapshot.ttl.expired(now)).map(|one| one.id.clone()).collect();
        let old: Vec<_> = old.iter().filter_map(|id| state.snapshots.remove(id)).collect();
        drop(state);
        // Their files go, which takes a while.
        for instance in held {
            instance.machine.end();
        }
        drop(old);
    }

    /// Ends all instances and removes all files.
    pub(crate) fn end(&self) -> io::Result<()> {
        let mut state = self.state();
        let instances = std::mem::take(&mut state.instances);
        let snapshots = std::mem::take(&mut state.snapshots);
        drop(state);
        for instance in instances.values() {
            instance.machine.end();
        }
        drop(snapshots);
        for folder in ["instances", "snapshots"] {
            match std::fs::remove_dir_all(self.root.join(folder)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl State {
    pub(crate) fn instance(&mut self, id: &str) -> Result<&mut Instance, Refusal> {
        self.instances.get_mut(id).ok_or_else(|| Refusal::not_found("Instance"))
    }

    pub(crate) fn snapshot(&mut self, id: &str) -> Result<&mut Snapshot, Refusal> {
        self.snapshots.get_mut(id).ok_or_else(|| Refusal::not_found("Snapshot"))
    }
}
