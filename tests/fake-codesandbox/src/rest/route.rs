//! Which operation a request is.

use axum::http::Method;

/// An operation of the REST API, with the parts of its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Info,
    List,
    Create,
    Get(String),
    Fork(String),
    Tokens(String),
    CreateToken(String),
    RevokeTokens(String),
    UpdateToken(String, String),
    Start(String),
    Shutdown(String),
    Hibernate(String),
    Delete(String),
    Session(String),
    HibernationTimeout(String),
    Specs(String),
    Running,
    Clusters,
    Tag,
    Alias(String, String),
    Templates,
    Hosts,
    AddHosts,
    SetHosts,
}

impl Route {
    pub(crate) fn of(method: &Method, path: &str) -> Option<Self> {
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        let id = |part: &&str| (*part).to_owned();
        Some(match (method.as_str(), parts.as_slice()) {
            ("GET", ["meta", "info"]) => Self::Info,
            ("GET", ["sandbox"]) => Self::List,
            ("POST", ["sandbox"]) => Self::Create,
            ("GET", ["sandbox", sandbox]) => Self::Get(id(sandbox)),
            ("POST", ["sandbox", sandbox, "fork"]) => Self::Fork(id(sandbox)),
            ("GET", ["sandbox", sandbox, "tokens"]) => Self::Tokens(id(sandbox)),
            ("POST", ["sandbox", sandbox, "tokens"]) => Self::CreateToken(id(sandbox)),
            ("DELETE", ["sandbox", sandbox, "tokens"]) => Self::RevokeTokens(id(sandbox)),
            ("PATCH", ["sandbox", sandbox, "tokens", token]) => Self::UpdateToken(id(sandbox), id(token)),
            ("GET", ["vm", "running"]) => Self::Running,
            ("GET", ["vm", "clusters"]) => Self::Clusters,
            ("POST", ["vm", "tag"]) => Self::Tag,
            ("PUT", ["vm", "alias", namespace, alias]) => Self::Alias(id(namespace), id(alias)),
            ("POST", ["vm", sandbox, "start"]) => Self::Start(id(sandbox)),
            ("POST", ["vm", sandbox, "shutdown"]) => Self::Shutdown(id(sandbox)),
            ("POST", ["vm", sandbox, "hibernate"]) => Self::Hibernate(id(sandbox)),
            ("DELETE", ["vm", sandbox]) => Self::Delete(id(sandbox)),
            ("POST", ["vm", sandbox, "sessions"]) => Self::Session(id(sandbox)),
            ("PUT", ["vm", sandbox, "hibernation_timeout"]) => Self::HibernationTimeout(id(sandbox)),
            ("PUT", ["vm", sandbox, "specs"]) | ("POST", ["vm", sandbox, "update_specs"]) => Self::Specs(id(sandbox)),
            ("POST", ["templates"]) => Self::Templates,
            ("GET", ["workspace", "preview_hosts"]) => Self::Hosts,
            ("POST", ["workspace", "preview_hosts"]) => Self::AddHosts,
            ("PUT", ["workspace", "preview_hosts"]) => Self::SetHosts,
            _ => return None,
        })
    }

    /// The name for faults and records.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Info => "meta.info",
            Self::List => "sandbox.list",
            Self::Create => "sandbox.create",
            Self::Get(_) => "sandbox.get",
            Self::Fork(_) => "sandbox.fork",
            Self::Tokens(_) => "tokens.list",
            Self::CreateToken(_) => "tokens.create",
            Self::RevokeTokens(_) => "tokens.revoke",
            Self::UpdateToken(..) => "tokens.update",
            Self::Start(_) => "vm.start",
            Self::Shutdown(_) => "vm.shutdown",
            Self::Hibernate(_) => "vm.hibernate",
            Self::Delete(_) => "vm.delete",
            Self::Session(_) => "vm.session",
            Self::HibernationTimeout(_) => "vm.hibernation_timeout",
            Self::Specs(_) => "vm.specs",
            Self::Running => "vm.running",
            Self::Clusters => "vm.clusters",
            Self::Tag => "vm.tag",
            Self::Alias(..) => "vm.alias",
            Self::Templates => "templates.create",
            Self::Hosts => "hosts.list",
            Self::AddHosts => "hosts.create",
            Self::SetHosts => "hosts.update",
        }
    }

    /// Whether it is answered without a key.
    pub(crate) fn open(&self) -> bool {
        matches!(self, Self::Info)
    }

    /// The scope that the key needs.
    pub(crate) fn scope(&self) -> Option<&'static str> {
        match self {
            Self::Info => None,
            Self::List | Self::Get(_) | Self::Tokens(_) | Self::Running | Self::Clusters | Self::Hosts => {
                Some("sandbox_read")
            }
            Self::Create | Self::Fork(_) | Self::Templates => Some("sandbox_create"),
            Self::CreateToken(_) | Self::RevokeTokens(_) | Self::UpdateToken(..) | Self::AddHosts | Self::SetHosts => {
                Some("sandbox_edit_code")
            }
            _ => Some("vm_manage"),
        }
    }

    /// The sandbox in its path.
    pub(crate) fn sandbox(&self) -> Option<&str> {
        match self {
            Self::Get(id)
            | Self::Fork(id)
            | Self::Tokens(id)
            | Self::CreateToken(id)
            | Self::RevokeTokens(id)
            | Self::UpdateToken(id, _)
            | Self::Start(id)
            | Self::Shutdown(id)
            | Self::Hibernate(id)
            | Self::Delete(id)
            | Self::Session(id)
            | Self::HibernationTimeout(id)
            | Self::Specs(id) => Some(id),
            _ => None,
        }
    }
}
