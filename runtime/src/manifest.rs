//! A plugin's manifest: the `plugin.toml` inside its component.

mod settings;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, code};
pub use settings::SettingRequest;

/// The custom section of a component that holds its manifest.
pub const SECTION: &str = "pcoder:manifest";

/// The version of `wit/` that this host serves.
pub const CONTRACT: &str = "0.1.0";

/// The kinds of plugin, one for each world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// A place where commands run.
    Provider,
    /// What keeps processes on an instance.
    ProcessManager,
    /// A coding agent.
    Agent,
    /// What installs credentials on an instance.
    Credentials,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Provider, Self::ProcessManager, Self::Agent, Self::Credentials];

    /// What the names of this kind's plugins begin with: `process-` in `process-pm2`.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Provider => "provider-",
            Self::ProcessManager => "process-",
            Self::Agent => "agent-",
            Self::Credentials => "credentials-",
        }
    }

    /// The world that plugins of this kind target, without its package.
    pub fn world(self) -> &'static str {
        match self {
            Self::Provider => "provider-plugin",
            Self::ProcessManager => "process-manager-plugin",
            Self::Agent => "agent-plugin",
            Self::Credentials => "credentials-plugin",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Provider => "provider",
            Self::ProcessManager => "process-manager",
            Self::Agent => "agent",
            Self::Credentials => "credentials",
        })
    }
}

/// What a plugin says of itself and asks for. Unknown fields are refused: one that is not enforced must not be shown
/// as if it were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `[a-z0-9-]`, at most 64 characters.
    pub name: String,
    /// The plugin's own version.
    pub version: String,
    /// Its kind.
    pub kind: Kind,
    /// The version of `wit/` that it was built against.
    pub contract: String,
    /// One line for people.
    pub description: String,
    /// An SPDX expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// What its user can set. A setting can stand in the URLs of what it asks for, as `{NAME}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<SettingRequest>,
    /// Of an agent: the hosts of its vendor that it works with on the machine it runs on. The plugin itself reaches none
    /// of them. It counts where whoever built the host program chose the plugin, and nowhere else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// What it asks to reach, with the settings' values in place.
    #[serde(flatten)]
    pub capabilities: Capabilities,
    /// What it asks to use up.
    #[serde(default)]
    pub limits: LimitsRequest,
    /// What it asks to reach as the author wrote it, with the names of settings.
    #[serde(skip)]
    as_written: Capabilities,
}

/// Capabilities, as asked for by a plugin and as granted by a user. None of them is there unless it is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Programs on the host, which end with their call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exec: Vec<Exec>,
    /// Programs on the host that outlive their call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service: Vec<Service>,
    /// Files on the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Files>,
    /// Network destinations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub net: Vec<Net>,
    /// Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Secrets>,
    /// The call's instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

/// The words that stand for what this call was asked to do, and nothing else: as a program, for its command; as a secret,
/// for those that its command or its file carries.
pub const AS_CALLED: &str = "as called";

/// One program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// [`AS_CALLED`], or a program. A request names it; a grant holds the absolute path that it was resolved to.
    pub program: String,
    /// What its arguments may be: one grammar a line ([`crate::capability::exec::Grammar`]). Empty allows none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The sha256 of the program's file in hexadecimal, where a grant or a policy pins it to its bytes. A plugin does not
    /// ask for one: it cannot know which bytes are on a machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The variables that the plugin may set for it. Empty allows none: many a variable makes another program of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Why, in the author's words.
    #[serde(default)]
    pub reason: String,
}

/// One program that outlives the call that started it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// A program. A request names it; a grant holds the absolute path that it was resolved to.
    pub program: String,
    /// What its arguments are made of: one option a line ([`crate::capability::service`]), in any order. Empty allows
    /// no arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// What it always gets before them, as words: one option a line, without placeholders. Every layer's are put there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub always: Vec<String>,
    /// What it may be told: one JSON object a line, with placeholders in its texts. Empty allows nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
    /// The sha256 of the program's file in hexadecimal, as in [`Exec`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Why, in the author's words.
    #[serde(default)]
    pub reason: String,
}

/// One root of files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// `state`, `project`, `called`, or a name that the user maps to a folder.
    pub root: String,
    /// What may be done there.
    pub access: Access,
    /// Why, in the author's words.
    #[serde(default)]
    pub reason: String,
}

/// What may be done with files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read, list and describe.
    Read,
    /// That, and change.
    ReadWrite,
}

/// One network destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// Scheme, host, port and a path prefix. A host of `*.example.com` stands for its subdomains.
    pub url: String,
    /// HTTP methods. Empty allows none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Kinds of address beyond public ones: `loopback`, `private`, `link-local`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AddressClass>,
    /// Why, in the author's words.
    #[serde(default)]
    pub reason: String,
}

/// Kinds of address that need a grant of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressClass {
    /// This machine.
    Loopback,
    /// RFC 1918, unique local and carrier-grade addresses.
    Private,
    /// Link-local addresses, where clouds keep their metadata services.
    LinkLocal,
}

/// One secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// Its name, or [`AS_CALLED`].
    pub name: String,
    /// Where its value may go: `target`, `exec`, or a URL as in [`Net`].
    pub to: Vec<String>,
    /// What the host makes where its user has set no value: kept for as long as the plugin is there, and known to nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
    /// Why, in the author's words.
    #[serde(default)]
    pub reason: String,
}

/// What the host can make for a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Made {
    /// A private key for SSH, ed25519, for machines that the plugin makes.
    SshKey,
}

/// The call's instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Why, in the author's words.
    #[serde(default)]
    pub reason: String,
}

/// Limits that a plugin asks for; without them the defaults of [`crate::capability::limits::Limits`] hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LimitsRequest {
    /// Linear memory, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// The whole call, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_seconds: Option<u64>,
    /// Time that the plugin's own code computes, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<u64>,
    /// Bytes that the host holds or moves for the plugin, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_mib: Option<u64>,
    /// Handles open at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handles: Option<u32>,
    /// Log lines in one call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_lines: Option<u32>,
}

impl Manifest {
    /// Reads a manifest and checks what can be checked without a user.
    ///
    /// # Errors
    /// `invalid`, with the line and what was expected; `unsupported` for another contract version.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        const OPERATION: &str = "plugin.manifest";
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Error::new(code::INVALID, OPERATION, format!("the manifest is not UTF-8: {error}")))?;
        // `flatten` and `deny_unknown_fields` exclude each other in serde, so the known names are checked here.
        let table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| Error::new(code::INVALID, OPERATION, error.to_string()))?;
        const KNOWN: [&str; 15] = [
            "name",
            "version",
            "kind",
            "contract",
            "description",
            "license",
            "settings",
            "hosts",
            "exec",
            "service",
            "files",
            "net",
            "secrets",
            "target",
            "limits",
        ];
        if let Some(unknown) = table.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            return Err(Error::new(code::INVALID, OPERATION, format!("unknown field `{unknown}` in the manifest"))
                .hint(format!("the known fields are {}", KNOWN.join(", "))));
        }
        let mut manifest: Self =
            toml::from_str(text).map_err(|error| Error::new(code::INVALID, OPERATION, error.to_string()))?;
        let name_is_plain = |name: &str| {
            !name.is_empty()
                && name.len() <= 64
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        if !name_is_plain(&manifest.name) {
            return Err(Error::new(code::INVALID, OPERATION, "a plugin's name is made of a-z, 0-9 and -, at most 64")
                .subject(crate::text::for_people(&manifest.name, 80)));
        }
        if manifest.contract != CONTRACT {
            return Err(Error::new(
                code::UNSUPPORTED,
                OPERATION,
                format!("it was built against contract {}, this pcoder serves {CONTRACT}", manifest.contract),
            )
            .subject(&manifest.name)
            .hint("use a version of the plugin that was built for this pcoder, or another pcoder"));
        }
        settings::check(&manifest.settings)?;
        manifest.as_written = manifest.capabilities.clone();
        manifest.with_settings(&BTreeMap::new())
    }
}
