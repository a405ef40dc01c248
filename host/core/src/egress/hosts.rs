//! Hosts that a machine may reach, as people write them.

use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::{Host, Url};

/// The ports of a host that is written without one.
const PORTS: [u16; 2] = [80, 443];

/// One host, or all below one: `HOST`, `*.HOST`, each with `:PORT` or for the ports 80 and 443.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPattern {
    below: bool,
    host: Host<String>,
    port: Option<u16>,
}

/// Where a request would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: Host<String>,
    pub(super) port: u16,
}

impl Place {
    /// A host as a request names it. A name may end with a dot, which says that it is a whole one.
    pub(super) fn new(host: &str, port: u16) -> Option<Self> {
        named(host).map(|host| Self { host, port })
    }
}

/// A host by its name or its number. A URL's may have characters in its name that mean something to a shell: what a machine
/// asks for is shown in a command that somebody may copy.
fn named(text: &str) -> Option<Host<String>> {
    let host = Host::parse(text.strip_suffix('.').unwrap_or(text)).ok()?;
    let is_plain = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || matches!(it, b'.' | b'-' | b'_');
    match &host {
        Host::Domain(name) if name.starts_with('-') || !name.bytes().all(is_plain) => None,
        _ => Some(host),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match PORTS.contains(&self.port) {
            true => self.host.fmt(f),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl HostPattern {
    /// Reads one.
    ///
    /// # Errors
    /// What a host is.
    pub fn new(text: &str) -> Result<Self, String> {
        let wrong = || {
            let shown = pcoder_runtime::text::for_people(text, 80);
            format!("`{shown}` is no host, expected `HOST`, `*.HOST` or `HOST:PORT`")
        };
        let (below, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        // An address of IPv6 has colons of its own, and stands in brackets.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|it| *it != 0).ok_or_else(wrong)?;
                (host, Some(port))
            }
            _ => (rest, None),
        };
        if host.is_empty() || host.contains(['*', '/', '@']) {
            return Err(wrong());
        }
        let host = named(host).ok_or_else(wrong)?;
        if below && !matches!(host, Host::Domain(_)) {
            return Err(wrong());
        }
        Ok(Self { below, host, port })
    }

    /// The host and the port of a URL.
    pub(crate) fn of_url(url: &Url) -> Option<Self> {
        let host = Host::parse(url.host_str()?).ok()?;
        Some(Self { below: false, host, port: Some(url.port_or_known_default()?) })
    }

    /// Whether a request for this place is one for this host.
    pub(super) fn holds(&self, place: &Place) -> bool {
        let port = match self.port {
            Some(port) => port == place.port,
            None => PORTS.contains(&place.port),
        };
        port && match (&self.host, &place.host, self.below) {
            (host, asked, false) => host == asked,
            (Host::Domain(above), Host::Domain(asked), true) => {
                asked.strip_suffix(above.as_str()).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
            }
            _ => false,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = if self.below { "*." } else { "" };
        write!(f, "{below}{}", self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Hosts, in a file a list or one text with commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(pub(crate) Vec<HostPattern>);

impl Hosts {
    /// Reads a list with commas.
    ///
    /// # Errors
    /// What a host is.
    pub fn new(text: &str) -> Result<Self, String> {
        let words = text.split([',', ' ']).map(str::trim).filter(|it| !it.is_empty());
        words.map(HostPattern::new).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(HostPattern::to_string).collect::<Vec<_>>().join(","))
    }
}

impl Serialize for Hosts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hosts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Hosts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of hosts")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Hosts, E> {
                Hosts::new(text).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Hosts, A::Error> {
                let mut hosts = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    hosts.push(HostPattern::new(&text).map_err(A::Error::custom)?);
                }
                Ok(Hosts(hosts))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(pattern: &str, host: &str, port: u16) -> bool {
        HostPattern::new(pattern).expect(pattern).holds(&Place::new(host, port).expect(host))
    }

    #[test]
    fn what_a_shell_would_obey_is_no_host() {
        for name in ["a;reboot", "$(reboot)", "a&b", "a'b", "*.com", "-rf", "a`b`", "a,b", "a b", "a\nb"] {
            assert_eq!(Place::new(name, 443), None, "{name}");
        }
        assert!(HostPattern::new("$(reboot).test").is_err());
        let place = Place::new("A_b-1.Example.", 443).expect("a host");
        assert_eq!(place.to_string(), "a_b-1.example");
    }

    #[test]
    fn a_host_is_itself_on_two_ports_or_on_the_one_that_is_named() {
        assert!(holds("api.example.com", "api.example.com", 443));
        assert!(holds("API.example.com", "api.EXAMPLE.com.", 80));
        assert!(holds("api.example.com:8443", "api.example.com", 8443));
        assert!(holds("1.1.1.1", "0x1010101", 443));
        assert!(holds("[2606:4700::1111]:443", "[2606:4700:0::1111]", 443));
        for (pattern, host, port) in [
            ("api.example.com", "api.example.com", 22),
            ("api.example.com:8443", "api.example.com", 443),
            ("api.example.com", "example.com", 443),
            ("api.example.com", "x.api.example.com", 443),
            ("api.example.com", "api.example.com.evil.test", 443),
            ("1.1.1.1", "1.1.1.2", 443),
        ] {
            assert!(!holds(pattern, host, port), "{pattern} {host}:{port}");
        }
    }

    #[test]
    fn a_star_is_all_below_a_host_and_not_the_host() {
        assert!(holds("*.example.com", "a.example.com", 443) && holds("*.example.com", "a.b.example.com", 443));
        for host in ["example.com", "badexample.com", "example.com.evil.test", ".example.com"] {
            let place = Place::new(host, 443);
            let pattern = HostPattern::new("*.example.com").expect("a pattern");
            assert!(!place.is_some_and(|it| pattern.holds(&it)), "{host}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in ["", "*", "*.", "a.*", "https://a", "a/b", "u@a", "a:", "a:0", "a:x", "a:70000", "*.1.1.1.1", "a b"]
        {
            assert!(HostPattern::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_list_reads_as_it_is_shown() {
        let hosts = Hosts::new("a.example, *.b.example:8443,[::2]").expect("hosts");
        assert_eq!(hosts.to_string(), "a.example,*.b.example:8443,[::2]");
        assert_eq!(Hosts::new(&hosts.to_string()), Ok(hosts));
        assert!(Hosts::new("").expect("none").is_empty());
    }
}
