//! `instance.json`: what an instance is, and what it was last told to be.
//!
//! Whether it runs, QEMU's service says. What is written here is what a boot, a stop or a copy had got to.

use std::collections::BTreeMap;

use pcoder_sdk::types::ServiceStatus;
use pcoder_sdk::{Endpoint, Error, Instance, Result, Setting, code};
use serde::{Deserialize, Serialize};

use crate::exec::{HOME, USER};

/// The file's format. One that is newer is left alone.
pub(crate) const FORMAT: u32 = 1;

/// Whoever boots says so again and again. Who has not for this long does not any more.
const STALE_MS: u64 = 30_000;

/// What an instance was last told to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wish {
    /// Its first boot has not ended: nobody has got it yet.
    New,
    /// To run. It has been ready.
    Run,
    /// To be halted, or on its way back from that.
    Halt,
}

/// What a guest can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Network {
    /// Nothing.
    None,
    /// Nothing by itself: commands are led to a proxy by the host.
    Restricted,
    /// What this host reaches.
    Full,
}

impl Network {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Restricted => "restricted",
            Self::Full => "full",
        }
    }
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Record {
    pub(crate) format: u32,
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    pub(crate) created_ms: u64,
    /// When whoever boots it last said so.
    pub(crate) seen_ms: u64,
    pub(crate) wish: Wish,
    pub(crate) image: String,
    /// The image's disk. On another one the layers mean nothing.
    pub(crate) image_sha256: String,
    /// What the disk is made of above the image's: the first is written, the others are frozen and may be shared.
    pub(crate) layers: Vec<String>,
    /// A layer that was being put on top, see [`crate::copy`].
    pub(crate) next: Option<String>,
    /// It may stand still, because it was being copied.
    #[serde(default)]
    pub(crate) paused: bool,
    /// Its guest was told to halt, and whoever did that has not seen its end.
    #[serde(default)]
    pub(crate) halting: bool,
    pub(crate) disk_gib: u64,
    pub(crate) memory_mib: u64,
    pub(crate) cpus: u32,
    pub(crate) network: Network,
    pub(crate) environment: BTreeMap<String, String>,
    /// After how many seconds it stops that nobody uses.
    #[serde(default)]
    pub(crate) idle_stop: Option<u64>,
    /// The disk with engines, as the file's name below the root `engines`. It stays what it was at the first boot.
    pub(crate) engines: Option<String>,
    /// What was asked for, if anything.
    pub(crate) wanted: Option<String>,
    /// What it ran with last.
    pub(crate) accelerator: Option<String>,
    /// What did not work before that, and why.
    pub(crate) tried: Vec<String>,
    /// It began with a memory that was saved, the last time.
    #[serde(default)]
    pub(crate) restored: bool,
    /// As one line of OpenSSH's public key format, once it was ready.
    pub(crate) host_key: Option<String>,
    pub(crate) ssh_port: Option<u16>,
    /// Ports of the guest, and of this host's loopback.
    pub(crate) exposed: BTreeMap<u16, u16>,
}

/// What an instance is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Booting,
    Ready,
    /// It halts, or has not heard that it is to.
    Stopping,
    Stopped,
    /// A boot that nobody waits for any more.
    Broken,
}

impl Phase {
    fn word(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Broken => "error",
        }
    }
}

/// Whether a service's program runs.
pub(crate) fn is_alive(service: Option<&ServiceStatus>) -> bool {
    service.is_some_and(|it| matches!(it.state.as_str(), "starting" | "running"))
}

impl Record {
    pub(crate) fn phase(&self, service: Option<&ServiceStatus>, now_ms: u64) -> Phase {
        let somebody_boots = now_ms.saturating_sub(self.seen_ms) < STALE_MS;
        match (self.wish, is_alive(service)) {
            (Wish::Run, true) if self.halting => Phase::Stopping,
            (Wish::Run, true) => Phase::Ready,
            (Wish::Run | Wish::Halt, false) => Phase::Stopped,
            (Wish::New, _) | (Wish::Halt, true) if somebody_boots => Phase::Booting,
            (Wish::New, _) | (Wish::Halt, true) => Phase::Broken,
        }
    }

    /// Whether its boot was given up so long ago that it can go.
    pub(crate) fn is_abandoned(&self, now_ms: u64) -> bool {
        self.wish == Wish::New && now_ms.saturating_sub(self.seen_ms) > 4 * STALE_MS
    }

    /// Every layer that is its own or that it needs.
    pub(crate) fn needs(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().chain(&self.next).map(String::as_str)
    }

    /// Its name in the network.
    pub(crate) fn host_name(&self) -> &str {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let fits =
            |name: &&str| !name.is_empty() && name.len() <= 63 && !name.starts_with('-') && name.bytes().all(plain);
        self.name.as_deref().filter(fits).unwrap_or(&self.id)
    }

    /// Forgets where it was reached.
    pub(crate) fn unreachable(&mut self) {
        self.ssh_port = None;
        self.exposed.clear();
    }

    /// Where commands run.
    pub(crate) fn endpoint(&self, operation: &str, credential: String) -> Result<Endpoint> {
        match (self.wish, self.ssh_port, &self.host_key) {
            _ if self.halting => Err(self.not_running(operation)),
            (Wish::Run, Some(port), Some(host_key)) => Ok(Endpoint {
                host: "127.0.0.1".to_owned(),
                port,
                user: USER.to_owned(),
                credential,
                host_key: host_key.clone(),
            }),
            _ => Err(self.not_running(operation)),
        }
    }

    pub(crate) fn not_running(&self, operation: &str) -> Error {
        let hint = match self.wish {
            Wish::New => format!("`pcoder instance terminate {} --provider qemu`, and boot another one", self.id),
            Wish::Run | Wish::Halt => format!("`pcoder instance resume {} --provider qemu`", self.id),
        };
        let message = if self.halting { "the instance was told to stop" } else { "the instance does not run" };
        Error::new(code::CONFLICT, operation, message).subject(&self.id).hint(hint)
    }

    /// In the contract's words.
    pub(crate) fn instance(&self, phase: Phase) -> Instance {
        let mut details = Vec::new();
        let mut detail = |name: &str, value: Option<String>| {
            details.extend(value.map(|value| Setting::new(name, value)));
        };
        detail("name", self.name.clone());
        detail("image", Some(self.image.clone()));
        detail("accelerator", self.accelerator.clone());
        detail("tried", (!self.tried.is_empty()).then(|| self.tried.join("; ")));
        detail(
            "start",
            Some(if self.restored { "restored" } else { "cold" }.to_owned()).filter(|_| self.accelerator.is_some()),
        );
        detail("memory-mib", Some(self.memory_mib.to_string()));
        detail("cpus", Some(self.cpus.to_string()));
        detail("disk-gib", Some(self.disk_gib.to_string()));
        detail("network", Some(self.network.name().to_owned()));
        detail("idle-stop", self.idle_stop.map(|it| format!("{it}s")));
        detail("engines", self.engines.clone());
        if phase == Phase::Ready {
            detail("ssh-port", self.ssh_port.map(|it| it.to_string()));
            for (guest, host) in &self.exposed {
                detail(&format!("port-{guest}"), Some(crate::ports::url(*host)));
            }
        }
        detail("console", Some(crate::console::path(&self.id)));
        Instance {
            id: self.id.clone(),
            status: phase.word().to_owned(),
            created_ms: Some(self.created_ms),
            home_dir: Some(HOME.to_owned()),
            details,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::record;

    fn service(state: &str) -> ServiceStatus {
        ServiceStatus { name: "vm-1".to_owned(), state: state.to_owned(), exit: None, started_ms: None }
    }

    #[test]
    fn what_an_instance_does_is_what_qemu_does_and_what_it_was_told() {
        let mut record = record("vm-0000000a");
        record.seen_ms = 1_000_000;
        let (soon, late) = (1_001_000, 1_100_000);
        for (wish, state, now, expected) in [
            (Wish::Run, Some("running"), late, Phase::Ready),
            (Wish::Run, Some("ended"), soon, Phase::Stopped),
            (Wish::Run, Some("lost"), soon, Phase::Stopped),
            (Wish::Run, None, late, Phase::Stopped),
            (Wish::Halt, Some("ended"), late, Phase::Stopped),
            (Wish::Halt, Some("running"), soon, Phase::Booting),
            (Wish::Halt, Some("running"), late, Phase::Broken),
            (Wish::New, None, soon, Phase::Booting),
            (Wish::New, Some("starting"), soon, Phase::Booting),
            (Wish::New, Some("running"), late, Phase::Broken),
            (Wish::New, None, late, Phase::Broken),
        ] {
            record.wish = wish;
            assert_eq!(record.phase(state.map(service).as_ref(), now), expected, "{wish:?} {state:?}");
        }
        record.wish = Wish::Run;
        record.halting = true;
        for (state, expected) in [("running", Phase::Stopping), ("ended", Phase::Stopped)] {
            assert_eq!(record.phase(Some(&service(state)), late), expected);
        }
    }

    #[test]
    fn only_a_boot_that_nobody_got_is_abandoned() {
        let mut record = record("vm-0000000a");
        record.seen_ms = 0;
        for (wish, now, expected) in [
            (Wish::New, 121_000, true),
            (Wish::New, 119_000, false),
            (Wish::Run, u64::MAX, false),
            (Wish::Halt, u64::MAX, false),
        ] {
            record.wish = wish;
            assert_eq!(record.is_abandoned(now), expected);
        }
    }

    #[test]
    fn only_a_plain_name_is_the_machines() {
        let mut record = record("vm-0000000a");
        for (name, expected) in [("box-1", "box-1"), ("a b", "vm-0000000a"), ("-x", "vm-0000000a"), ("", "vm-0000000a")]
        {
            record.name = Some(name.to_owned());
            assert_eq!(record.host_name(), expected);
        }
    }

    #[test]
    fn what_is_known_is_told() {
        let mut record = record("vm-0000000a");
        record.tried = vec!["kvm: silent".to_owned()];
        record.accelerator = Some("tcg".to_owned());
        record.exposed.insert(80, 4080);
        let told = |phase| {
            let instance = record.instance(phase);
            let details: Vec<String> = instance.details.iter().map(|it| format!("{}={}", it.name, it.value)).collect();
            format!("{}\n{}", instance.status, details.join("\n"))
        };
        insta::assert_snapshot!(told(Phase::Ready));
        assert!(!told(Phase::Stopped).contains("port"));
    }
}
