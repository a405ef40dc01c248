//! What a command on another machine reaches on this host.
//!
//! An address of the loopback means this host in a profile, and the machine itself once it has arrived there. So where a
//! provider can lead back ([`WAY_BACK`]), the machine's loopback gets the same port, for as long as the command runs.

use std::collections::BTreeSet;

use pcoder_runtime::call::Back;
use url::{Host, Url};

use crate::run_surroundings::SessionIdentity;

/// What a provider says whose machines have ways back to this host.
pub(crate) const WAY_BACK: &str = "way-back";

/// The one address of a machine's loopback that leads back.
const THERE: &str = "127.0.0.1";

/// The port, where this is the URL of a server on this host's loopback.
pub(crate) fn loopback_port(text: &str) -> Option<u16> {
    let url = Url::parse(text).ok().filter(|it| matches!(it.scheme(), "http" | "https" | "ws" | "wss"))?;
    let here = match url.host()? {
        Host::Domain(name) => name == "localhost",
        // The others of 127.0.0.0/8 are not where a machine's ways back begin.
        Host::Ipv4(address) => address == std::net::Ipv4Addr::LOCALHOST,
        Host::Ipv6(address) => address == std::net::Ipv6Addr::LOCALHOST,
    };
    url.port_or_known_default().filter(|_| here)
}

/// A way back for each of these ports.
pub(crate) fn ways_back(ports: &BTreeSet<u16>) -> Vec<Back> {
    ports.iter().map(|&port| Back { port, to: port }).collect()
}

/// The URL as it has to be said there: a machine has ways back on the address of IPv4 alone.
fn as_seen_there(text: &str) -> Option<String> {
    loopback_port(text)?;
    let mut url = Url::parse(text).ok().filter(|it| matches!(it.host(), Some(Host::Ipv6(_))))?;
    url.set_host(Some(THERE)).ok()?;
    let seen = url.to_string();
    // The parser's slash would double the one that an agent puts behind a base URL.
    let bare = !text.ends_with('/') && url.path() == "/" && url.query().is_none();
    Some(if bare { seen.trim_end_matches('/').to_owned() } else { seen })
}

impl SessionIdentity {
    /// Says addresses of this host's loopback as they are reached from a machine with ways back.
    pub(crate) fn seen_from_there(&mut self) {
        for setting in self.options.iter_mut().chain(&mut self.settings) {
            if let Some(seen) = as_seen_there(&setting.value) {
                setting.value = seen;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_this_hosts_loopback_is_known_by_name_and_by_both_numbers() {
        for (url, port) in [
            ("http://127.0.0.1:8080", 8080),
            ("http://localhost:8080/v1", 8080),
            ("http://LOCALHOST/v1", 80),
            ("https://[::1]/", 443),
            ("http://0x7f.1:9", 9),
            ("http://user:word@127.0.0.1:3128", 3128),
            ("ws://[0:0:0:0:0:0:0:1]:7", 7),
        ] {
            assert_eq!(loopback_port(url), Some(port), "{url}");
        }
        for url in [
            "",
            "127.0.0.1:8080",
            "localhost:8080",
            "http://127.0.0.2:8080",
            "http://localhost.example.com:8080",
            "http://example.com/?http://127.0.0.1:1",
            "http://127.0.0.1@example.com",
            "http://[::ffff:127.0.0.1]:1",
            "http://10.0.0.1:8080",
            "postgres://localhost:5432",
            "pcoder-secret-00000000000000000000000000000000",
        ] {
            assert_eq!(loopback_port(url), None, "{url}");
        }
    }

    #[test]
    fn only_the_address_of_ipv6_is_said_differently_there() {
        for (url, seen) in [
            ("http://[::1]:8080", Some("http://127.0.0.1:8080")),
            ("http://[::1]:8080/", Some("http://127.0.0.1:8080/")),
            ("http://[::1]:8080/v1", Some("http://127.0.0.1:8080/v1")),
            ("http://localhost:8080/v1", None),
            ("http://127.0.0.1:8080", None),
            ("http://[2606:4700::1111]:8080", None),
        ] {
            assert_eq!(as_seen_there(url).as_deref(), seen, "{url}");
        }
    }

    #[test]
    fn each_port_leads_to_the_same_port_here() {
        let ports = BTreeSet::from([443, 8080]);
        assert_eq!(ways_back(&ports), [Back { port: 443, to: 443 }, Back { port: 8080, to: 8080 }]);
        assert_eq!(ways_back(&BTreeSet::new()), []);
    }
}
