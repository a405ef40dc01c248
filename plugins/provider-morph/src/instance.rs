//! Instances as the service describes them, and as the contract does.

use std::collections::BTreeMap;

use pcoder_sdk::{Instance, Setting};
use serde::Deserialize;

/// The home of the user that commands run as: root.
pub(crate) const HOME: &str = "/root";

/// One instance in the service's words. Fields that have a default in its documents may be missing.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Described {
    pub(crate) id: String,
    #[serde(default)]
    created: Option<u64>,
    pub(crate) status: String,
    #[serde(default)]
    spec: Option<Spec>,
    #[serde(default)]
    refs: Option<Refs>,
    #[serde(default)]
    networking: Option<Networking>,
    #[serde(default)]
    pub(crate) metadata: Option<BTreeMap<String, String>>,
    #[serde(default)]
    ttl: Option<Ttl>,
}

#[derive(Clone, Debug, Deserialize)]
struct Spec {
    vcpus: Option<u64>,
    memory: Option<u64>,
    disk_size: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
struct Refs {
    snapshot_id: Option<String>,
    image_id: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Networking {
    #[serde(default)]
    http_services: Option<Vec<HttpService>>,
}

/// A port that can be reached from outside.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct HttpService {
    pub(crate) port: u16,
    pub(crate) url: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Ttl {
    ttl_expire_at: Option<u64>,
    ttl_action: Option<String>,
}

/// Whether an instance is what is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Booting,
    Ready,
    Stopping,
    Stopped,
    Failed,
    /// A word that is not in the service's documents.
    Unknown,
}

impl Phase {
    /// The contract's word.
    fn word(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed | Self::Unknown => "error",
        }
    }
}

impl Described {
    /// `pending`, `ready`, `paused`, `saving` and `error` are all that the service's documents know. What is terminated is
    /// not there any more.
    pub(crate) fn phase(&self) -> Phase {
        match self.status.as_str() {
            "pending" => Phase::Booting,
            "ready" => Phase::Ready,
            "saving" => Phase::Stopping,
            "paused" => Phase::Stopped,
            "error" => Phase::Failed,
            _ => Phase::Unknown,
        }
    }

    pub(crate) fn services(&self) -> &[HttpService] {
        self.networking.as_ref().and_then(|it| it.http_services.as_deref()).unwrap_or_default()
    }

    /// In the contract's words.
    pub(crate) fn instance(&self) -> Instance {
        let mut details = Vec::new();
        let mut detail = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                details.push(Setting::new(name, value));
            }
        };
        if self.phase() == Phase::Unknown {
            detail("service-status", Some(self.status.clone()));
        }
        if let Some(name) = self.metadata.as_ref().and_then(|it| it.get("name")) {
            detail("name", Some(name.clone()));
        }
        if let Some(refs) = &self.refs {
            detail("snapshot", refs.snapshot_id.clone());
            detail("image", refs.image_id.clone());
        }
        if let Some(spec) = &self.spec {
            detail("vcpus", spec.vcpus.map(|it| it.to_string()));
            detail("memory-mib", spec.memory.map(|it| it.to_string()));
            detail("disk-mib", spec.disk_size.map(|it| it.to_string()));
        }
        if let Some(ttl) = &self.ttl
            && let Some(at) = ttl.ttl_expire_at
        {
            detail("ttl-expires-ms", Some(at.saturating_mul(1000).to_string()));
            let action = ttl.ttl_action.as_deref().map(|it| if it == "stop" { "terminate" } else { "stop" });
            detail("ttl-action", action.map(str::to_owned));
        }
        for service in self.services() {
            detail(&format!("port-{}", service.port), Some(service.url.clone()));
        }
        Instance {
            id: self.id.clone(),
            status: self.phase().word().to_owned(),
            created_ms: self.created.map(|seconds| seconds.saturating_mul(1000)),
            home_dir: Some(HOME.to_owned()),
            details,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(text: &str) -> Described {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn every_status_has_a_word_and_one_that_is_new_is_told() {
        for (status, word) in [
            ("pending", "booting"),
            ("ready", "ready"),
            ("paused", "stopped"),
            ("saving", "stopping"),
            ("error", "error"),
            ("dreaming", "error"),
        ] {
            let instance = described(&format!(r#"{{"id":"morphvm_1","status":"{status}"}}"#)).instance();
            assert_eq!(instance.status, word);
            assert_eq!(pcoder_sdk::setting(&instance.details, "service-status").is_some(), status == "dreaming");
        }
    }

    #[test]
    fn what_may_be_missing_or_null_is() {
        let text = r#"{"id":"morphvm_1","status":"ready","created":7,"spec":null,"refs":{"snapshot_id":null,"image_id":"i"},
            "networking":{"http_services":null},"metadata":null,"ttl":{"ttl_seconds":null,"ttl_expire_at":null,"ttl_action":null}}"#;
        let instance = described(text).instance();
        assert_eq!(instance.created_ms, Some(7000));
        assert_eq!(instance.details, [Setting::new("image", "i")]);
        assert!(serde_json::from_str::<Described>(r#"{"id":"morphvm_1"}"#).is_err());
    }
}
