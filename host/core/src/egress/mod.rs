//! The proxy that a machine with a restricted network goes out by.
//!
//! The machine itself reaches nothing. Each command that its user runs there gets a way back to this proxy, which listens
//! on this host's loopback for as long as the command runs and lets through what its [`Rules`] name. Names are looked up
//! here, and an address inside this host or its network is not dialled, whatever its name is: what the machine may reach
//! is outside. Another user of this host does not know the credential that every request must have.

mod hosts;
mod out;
mod serve;
#[cfg(test)]
mod tests;
mod work;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pcoder_http::ClientOptions;
use pcoder_runtime::Error;
use pcoder_runtime::error::code;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::hosts::{HostPattern, Hosts};
use self::out::{Net, Out, System};
use self::work::Work;

const OPERATION: &str = "egress";

/// The user's name in the proxy's address. It is there because an address has one.
const USER: &str = "pcoder";

/// How long a client may take to say what it wants, and may then say nothing.
const HEAD: Duration = Duration::from_secs(15);

/// How many refused hosts are remembered.
const REMEMBERED: usize = 64;

/// What may be reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// The hosts.
    pub(crate) allow: Vec<HostPattern>,
    /// What the setting says now, for those who are told how to add to it.
    pub(crate) setting: Hosts,
}

impl Rules {
    /// The command that allows a host, too.
    fn allowing(&self, host: &str) -> String {
        let mut all: Vec<String> = self.setting.0.iter().map(HostPattern::to_string).collect();
        all.push(host.to_owned());
        let all = all.join(",");
        // Stars and brackets are patterns to a shell. Nothing else in it needs quoting.
        let quote = if all.contains(['*', '[']) { "\"" } else { "" };
        format!("`pcoder config set network-allow {quote}{all}{quote}`")
    }
}

/// Why a host is refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    /// Nobody allows it.
    NotAllowed,
    /// It leads into this host or its network, which nobody can allow.
    Inside,
}

/// What the proxy's tasks share.
struct Shared {
    rules: Rules,
    out: Out,
    /// Of the header that has the credential: digests are compared in the same time wherever they differ.
    credential: [u8; 32],
    refused: Mutex<BTreeSet<(Why, String)>>,
    work: Work,
}

impl Shared {
    fn refuse(&self, why: Why, host: &str) {
        tracing::info!("the machine was refused {host}");
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() < REMEMBERED {
            refused.insert((why, host.to_owned()));
        }
    }
}

/// A proxy that listens. It ends when this is dropped, with every connection through it.
pub(crate) struct Egress {
    port: u16,
    token: SecretString,
    shared: Arc<Shared>,
    _end: DropGuard,
}

impl Egress {
    /// Listens on a port of this host's loopback that the system picks.
    ///
    /// # Errors
    /// `io`; `internal` when the system has no randomness.
    pub(crate) async fn start(rules: Rules, network: ClientOptions) -> Result<Self, Error> {
        Self::start_with(rules, network, Arc::new(System), HEAD).await
    }

    async fn start_with(
        rules: Rules,
        network: ClientOptions,
        net: Arc<dyn Net>,
        head: Duration,
    ) -> Result<Self, Error> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.map_err(|error| Error::io(OPERATION, "127.0.0.1", &error))?;
        let port = listener.local_addr().map_err(|error| Error::io(OPERATION, "127.0.0.1", &error))?.port();
        let mut bytes = [0_u8; 24];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::new(code::INTERNAL, OPERATION, format!("no randomness: {error}")))?;
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let end = CancellationToken::new();
        let shared = Arc::new(Shared {
            rules,
            out: Out::new(network, net),
            credential: Sha256::digest(serve::header(USER, &token).as_bytes()).into(),
            refused: Mutex::default(),
            work: Work::until(end.clone()),
        });
        shared.work.spawn(serve::accept(listener, Arc::clone(&shared), head));
        Ok(Self { port, token: token.into(), shared, _end: end.drop_guard() })
    }

    /// The port that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The proxy's address as it is said on a machine whose port leads here.
    pub(crate) fn url(&self, port: u16) -> SecretString {
        format!("http://{USER}:{}@127.0.0.1:{port}", self.token.expose_secret()).into()
    }

    /// The hosts that were refused so far, sorted, and what allows those that can be.
    pub(crate) fn refused(&self) -> Option<Refused> {
        let refused = self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |why| refused.iter().filter(|it| it.0 == why).map(|it| it.1.clone()).collect();
        let (hosts, inside): (Vec<String>, Vec<String>) = (of(Why::NotAllowed), of(Why::Inside));
        let allow = (!hosts.is_empty()).then(|| self.shared.rules.allowing(&hosts.join(",")));
        (!refused.is_empty()).then_some(Refused { hosts, inside, allow })
    }
}

/// What a machine wanted to reach and must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The hosts that nobody allows.
    pub hosts: Vec<String>,
    /// Those that lead into this host or its network, whoever allows them.
    pub inside: Vec<String>,
    /// The command that allows `hosts` from now on, where there are some.
    pub allow: Option<String>,
}
