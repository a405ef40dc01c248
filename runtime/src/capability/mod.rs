//! What plugins may do: one file a class of capability, each with its targets and the rule that allows them.
//!
//! A target is what one call to the host would touch, in normal form. [`crate::gate::Gate::authorize`] turns a target
//! into a permit, and nothing else does.

pub mod exec;
pub mod files;
pub mod limits;
pub mod net;
pub mod secrets;
pub mod service;
pub mod target;

use crate::error::Error;
use crate::manifest::Capabilities;

/// The classes of capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Class {
    /// Programs on the host, which end with their call.
    Exec,
    /// Programs on the host that outlive their call.
    Service,
    /// Files on the host.
    Files,
    /// The network.
    Net,
    /// Secrets.
    Secrets,
    /// The call's instance.
    Target,
}

impl Class {
    /// Its name in manifests and audits.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Service => "service",
            Self::Files => "files",
            Self::Net => "net",
            Self::Secrets => "secrets",
            Self::Target => "target",
        }
    }
}

/// What one effect would touch.
pub trait Effect {
    /// The class that it belongs to.
    const CLASS: Class;

    /// What would be done, as `read` or `connect`.
    fn verb(&self) -> &'static str;

    /// The target in normal form, for the audit and for errors. Never a secret.
    fn describe(&self) -> String;

    /// The rule in `capabilities` that allows this, in words; nothing when none does.
    fn allowed_by(&self, capabilities: &Capabilities) -> Option<String>;
}

/// Checks that every field of a request can be enforced.
///
/// # Errors
/// `invalid`, naming the field.
pub fn check_request(capabilities: &Capabilities) -> Result<(), Error> {
    let programs = capabilities.exec.iter().map(|it| (&it.program, &it.sha256));
    let services = capabilities.service.iter().map(|it| (&it.program, &it.sha256));
    if let Some((pinned, _)) = programs.chain(services).find(|(_, sha256)| sha256.is_some()) {
        let message = "a plugin cannot ask for a digest: which bytes a program has is for its user to pin";
        return Err(Error::new(crate::error::code::INVALID, "plugin.manifest", message).subject(pinned));
    }
    check_grant(capabilities)
}

/// Checks that every field of a grant or a policy can be enforced.
///
/// # Errors
/// `invalid`, naming the field.
pub fn check_grant(capabilities: &Capabilities) -> Result<(), Error> {
    for request in &capabilities.exec {
        exec::check(request)?;
    }
    for request in &capabilities.service {
        service::check(request)?;
    }
    for request in &capabilities.net {
        net::check(request)?;
    }
    for request in &capabilities.secrets {
        for destination in &request.to {
            secrets::Destination::parse(destination)?;
        }
    }
    Ok(())
}
