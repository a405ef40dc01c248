//! What the fake knows of an instance and of a snapshot, and how the API shows it.

use pcoder_fake_machine::Machine;
use serde::Serialize;
use serde_json::{Value, json};

use crate::expose::Service;
use crate::input::Metadata;
use crate::keys::SshKeys;

/// A virtual machine's size. `memory` and `disk_size` are in MB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Spec {
    pub(crate) vcpus: u64,
    pub(crate) memory: u64,
    pub(crate) disk_size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Pending,
    Ready,
    Paused,
    Saving,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TtlAction {
    #[default]
    Stop,
    Pause,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ttl {
    pub(crate) seconds: Option<u64>,
    pub(crate) expire_at: Option<u64>,
    pub(crate) action: TtlAction,
}

impl Ttl {
    pub(crate) fn new(seconds: Option<u64>, action: TtlAction, now: u64) -> Self {
        Self { seconds, expire_at: seconds.map(|seconds| now + seconds), action }
    }

    pub(crate) fn expired(&self, now: u64) -> bool {
        self.expire_at.is_some_and(|at| at <= now)
    }
}

#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) id: String,
    pub(crate) number: u64,
    pub(crate) created: u64,
    pub(crate) spec: Spec,
    pub(crate) image: String,
    pub(crate) digest: Option<String>,
    pub(crate) metadata: Metadata,
    pub(crate) ttl: Ttl,
    /// The files. None: those of the image, which are none.
    pub(crate) files: Option<Machine>,
}

impl Snapshot {
    pub(crate) fn show(&self) -> Value {
        json!({
            "id": self.id, "object": "snapshot", "created": self.created, "status": "ready", "spec": self.spec,
            "refs": { "image_id": self.image }, "digest": self.digest, "metadata": self.metadata,
            "ttl": { "ttl_seconds": self.ttl.seconds, "ttl_expire_at": self.ttl.expire_at },
        })
    }
}

#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) number: u64,
    pub(crate) created: u64,
    pub(crate) status: Status,
    /// Reads that still say `pending`.
    pub(crate) polls: u32,
    pub(crate) spec: Spec,
    pub(crate) snapshot: String,
    pub(crate) image: String,
    pub(crate) services: Vec<Service>,
    pub(crate) metadata: Metadata,
    pub(crate) ttl: Ttl,
    pub(crate) wake_on_ssh: bool,
    pub(crate) wake_on_http: bool,
    pub(crate) machine: Machine,
    pub(crate) keys: Option<SshKeys>,
    /// Counts reboots: a command of before one did not end by itself.
    pub(crate) boots: u64,
}

impl Instance {
    pub(crate) fn show(&self) -> Value {
        let services: Vec<Value> = self.services.iter().map(Service::show).collect();
        json!({
            "id": self.id, "object": "instance", "created": self.created, "status": self.status, "spec": self.spec,
            "refs": { "snapshot_id": self.snapshot, "image_id": self.image },
            "networking": { "internal_ip": "127.0.0.1", "http_services": services },
            "metadata": self.metadata,
            "ttl": { "ttl_seconds": self.ttl.seconds, "ttl_expire_at": self.ttl.expire_at,
                     "ttl_action": self.ttl.action },
            "wake_on": { "wake_on_ssh": self.wake_on_ssh, "wake_on_http": self.wake_on_http },
        })
    }

    /// What a read sees: each one brings a booting instance nearer to being ready.
    pub(crate) fn read(&mut self) -> Value {
        let shown = self.show();
        if self.status == Status::Pending {
            self.polls = self.polls.saturating_sub(1);
            if self.polls == 0 {
                self.status = Status::Ready;
            }
        }
        shown
    }
}
