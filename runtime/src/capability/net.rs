//! Capability `net`: which requests may be made, which channels opened, and which addresses dialled.
//!
//! Two checks, because a name proves nothing: the URL against the grants, then the address that the name resolved to. The host dials the address that it checked, and each redirect is a request of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use super::{Class, Effect};
use crate::error::{Error, code};
use crate::manifest::{AddressClass, Capabilities, Net};

/// A URL pattern of a grant: scheme, host, port and a path prefix, all in normal form.
#[derive(Clone, Debug)]
pub struct UrlPattern {
    scheme: String,
    host: String,
    subdomains: bool,
    port: Port,
    path: String,
}

/// Which ports a grant is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Port {
    Any,
    One(Option<u16>),
}

impl UrlPattern {
    /// Reads `scheme://host[:port][/path]`. A port of `*` is every port.
    ///
    /// # Errors
    /// `invalid` for what cannot be enforced: credentials, a query, a wildcard anywhere but in front of the host and as
    /// its port.
    pub fn parse(pattern: &str) -> Result<Self, Error> {
        let refuse = |message: &str| Error::new(code::INVALID, "plugin.manifest", message).subject(pattern);
        let (plain, subdomains) = match pattern.split_once("://*.") {
            Some((scheme, rest)) => (format!("{scheme}://{rest}"), true),
            None => (pattern.to_owned(), false),
        };
        let (plain, any_port) = without_port(plain);
        if plain.contains('*') {
            return Err(refuse(
                "a `*` may only stand for subdomains or for the port, as in `https://*.example.com:*/`",
            ));
        }
        let url = Url::parse(&plain).map_err(|error| refuse(&format!("not a URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https" | "ws" | "wss" | "ssh") {
            return Err(refuse("the scheme must be https, http, wss, ws or ssh"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("a grant's URL has no credentials, no query and no fragment"));
        }
        if url.scheme() == SSH && !matches!(url.path(), "" | "/") {
            return Err(refuse("an ssh URL has no path"));
        }
        let host = url.host_str().filter(|it| !it.is_empty()).ok_or_else(|| refuse("the URL has no host"))?;
        // A URL keeps the host of a scheme that it does not know (`ssh`) as it was written.
        let host = Host::parse(host).map_err(|error| refuse(&format!("not a host: {error}")))?;
        if subdomains && !matches!(host, Host::Domain(_)) {
            return Err(refuse("an address has no subdomains"));
        }
        Ok(Self {
            scheme: url.scheme().to_owned(),
            host: host.to_string(),
            subdomains,
            port: if any_port { Port::Any } else { Port::One(port_of(&url)) },
            path: url.path().to_owned(),
        })
    }

    /// Whether a URL lies under this pattern. A path matches whole segments: `/api` holds `/api/x` and not `/apix`.
    pub fn holds(&self, url: &Url) -> bool {
        let Some(host) = url.host_str().map(str::to_ascii_lowercase) else {
            return false;
        };
        let host_matches = if self.subdomains {
            host.strip_suffix(&self.host).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
        } else {
            host == self.host
        };
        let prefix = self.path.trim_end_matches('/');
        let path_matches = url.path().strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        // A server may decode `%2f` and `%2e` and so leave the prefix.
        let lower = url.path().to_ascii_lowercase();
        let ambiguous = prefix.len() > 1 && ["%2f", "%5c", "%2e", "\\"].iter().any(|it| lower.contains(it));
        url.scheme() == self.scheme
            && (self.port == Port::Any || self.port == Port::One(port_of(url)))
            && url.username().is_empty()
            && url.password().is_none()
            && host_matches
            && path_matches
            && !ambiguous
    }
}

/// A pattern without its port, where that is `*`.
fn without_port(pattern: String) -> (String, bool) {
    let Some((scheme, rest)) = pattern.split_once("://") else { return (pattern, false) };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match host.strip_suffix(":*") {
        Some(host) => (format!("{scheme}://{host}{path}"), true),
        None => (pattern, false),
    }
}

fn matching<'a>(capabilities: &'a Capabilities, url: &Url) -> impl Iterator<Item = &'a Net> {
    capabilities.net.iter().filter(move |grant| UrlPattern::parse(&grant.url).is_ok_and(|it| it.holds(url)))
}

fn allows(grant: &Net, method: Option<&str>) -> bool {
    match method {
        Some(method) => grant.methods.iter().any(|it| it.eq_ignore_ascii_case(method)),
        None => true,
    }
}

/// Checks that every field of a request for the network can be enforced.
///
/// # Errors
/// `invalid`, naming what is wrong.
pub fn check(request: &Net) -> Result<(), Error> {
    let pattern = UrlPattern::parse(&request.url)?;
    if is_methodless(&pattern.scheme) && !request.methods.is_empty() {
        let message = format!("`methods` are for http and https; {} has none", pattern.scheme);
        return Err(Error::new(code::INVALID, "plugin.manifest", message).subject(&request.url));
    }
    Ok(())
}

const SSH: &str = "ssh";

/// Whether a URL's scheme has no methods: its grant allows all that can be done there.
fn is_methodless(scheme: &str) -> bool {
    matches!(scheme, "ws" | "wss" | SSH)
}

/// A URL's port, also where it is left out.
pub fn port_of(url: &Url) -> Option<u16> {
    url.port_or_known_default().or_else(|| (url.scheme() == SSH).then_some(22))
}

/// The URL of a host that is reached over SSH, in normal form.
///
/// # Errors
/// `invalid` for what is not a host's name or address.
pub fn ssh_url(host: &str, port: u16) -> Result<Url, Error> {
    let invalid =
        |message: String| Error::new(code::INVALID, "ssh.connect", message).subject(crate::text::for_people(host, 128));
    let bracketed = host.parse::<Ipv6Addr>().map(|address| format!("[{address}]"));
    let parsed = Host::parse(bracketed.as_deref().unwrap_or(host)).map_err(|error| invalid(error.to_string()))?;
    Url::parse(&format!("{SSH}://{parsed}:{port}/")).map_err(|error| invalid(error.to_string()))
}

/// A request that would be made.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method, in upper case.
    pub method: String,
    /// Where to.
    pub url: Url,
}

impl Effect for Request {
    const CLASS: Class = Class::Net;

    fn verb(&self) -> &'static str {
        "request"
    }

    /// Without the query: it may hold what is nobody's business.
    fn describe(&self) -> String {
        format!("{} {}", self.method, without_query(&self.url))
    }

    fn allowed_by(&self, capabilities: &Capabilities) -> Option<String> {
        matching(capabilities, &self.url)
            .find(|grant| allows(grant, Some(&self.method)))
            .map(|grant| format!("net {}", grant.url))
    }
}

/// What would be done over a protocol without methods: a WebSocket opened, a command run over SSH.
#[derive(Clone, Debug)]
pub struct Channel {
    /// What would be done.
    pub verb: &'static str,
    /// Where.
    pub url: Url,
    /// To what there, where that is not all of it.
    pub subject: Option<String>,
}

impl Effect for Channel {
    const CLASS: Class = Class::Net;

    fn verb(&self) -> &'static str {
        self.verb
    }

    fn describe(&self) -> String {
        let url = without_query(&self.url);
        match &self.subject {
            Some(subject) => format!("{} at {url}", crate::text::for_people(subject, 400)),
            None => url,
        }
    }

    fn allowed_by(&self, capabilities: &Capabilities) -> Option<String> {
        if !is_methodless(self.url.scheme()) {
            return None;
        }
        matching(capabilities, &self.url).next().map(|grant| format!("net {}", grant.url))
    }
}

/// A connection that would be opened for something that was allowed.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The request's method, where its protocol has any: the grant that allows it must be the one that allows the
    /// address too.
    pub method: Option<String>,
    /// The URL of the request or the channel.
    pub url: Url,
    /// What its host resolved to.
    pub address: IpAddr,
}

impl Effect for Dial {
    const CLASS: Class = Class::Net;

    fn verb(&self) -> &'static str {
        "connect"
    }

    fn describe(&self) -> String {
        format!("{} at {}", without_query(&self.url), self.address)
    }

    fn allowed_by(&self, capabilities: &Capabilities) -> Option<String> {
        let mut grants = matching(capabilities, &self.url).filter(|grant| allows(grant, self.method.as_deref()));
        let class = match classify(self.address) {
            Address::Public => return grants.next().map(|it| format!("net {}", it.url)),
            Address::Special(class) => class,
            Address::Never => return None,
        };
        grants.find(|grant| grant.addresses.contains(&class)).map(|grant| format!("net {} {class:?}", grant.url))
    }
}

fn without_query(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    shown.to_string()
}

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Somewhere on the internet.
    Public,
    /// Somewhere that needs a grant of its own.
    Special(AddressClass),
    /// Nowhere that a request belongs: unspecified, multicast, reserved.
    Never,
}

/// Sorts an address. IPv6 addresses that carry an IPv4 address (mapped, compatible, 6to4, NAT64) are sorted by it.
pub fn classify(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

fn classify_v4(v4: Ipv4Addr) -> Address {
    let [a, b, c, _] = v4.octets();
    match (a, b, c) {
        (127, ..) => Address::Special(AddressClass::Loopback),
        (169, 254, _) => Address::Special(AddressClass::LinkLocal),
        // RFC 1918; RFC 6598, carrier-grade and where some clouds keep their metadata (100.100.100.200).
        (10, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => Address::Special(AddressClass::Private),
        // "This network", protocol assignments, documentation, benchmarks, 6to4 relays, multicast and reserved.
        (0, ..)
        | (192, 0, 0 | 2)
        | (198, 18..=19, _)
        | (198, 51, 100)
        | (203, 0, 113)
        | (192, 88, 99)
        | (224.., ..) => Address::Never,
        _ => Address::Public,
    }
}

fn classify_v6(v6: Ipv6Addr) -> Address {
    if let Some(v4) = v6.to_ipv4_mapped() {
        return classify_v4(v4);
    }
    let s = v6.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match s {
        [0, 0, 0, 0, 0, 0, 0, 1] => Address::Special(AddressClass::Loopback),
        [0, 0, 0, 0, 0, 0, 0, 0] => Address::Never,
        [0, 0, 0, 0, 0, 0, high, low] => classify_v4(embedded(high, low)),
        // NAT64, well-known and local-use prefixes (RFC 6052, RFC 8215).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => {
            classify_v4(embedded(high, low))
        }
        [0x2002, high, low, ..] => classify_v4(embedded(high, low)),
        [0xfe80..=0xfebf, ..] => Address::Special(AddressClass::LinkLocal),
        // Unique local addresses, AWS's IPv6 metadata service (fd00:ec2::254) among them.
        [0xfc00..=0xfdff, ..] => Address::Special(AddressClass::Private),
        // Teredo, documentation, discard, site-local, multicast.
        [0x2001, 0, ..]
        | [0x2001, 0xdb8, ..]
        | [0x100, 0, 0, 0, ..]
        | [0xfec0..=0xfeff, ..]
        | [0xff00..=0xffff, ..] => Address::Never,
        _ => Address::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(pattern: &str, url: &str) -> bool {
        UrlPattern::parse(pattern).expect("a pattern").holds(&Url::parse(url).expect("a URL"))
    }

    #[test]
    fn a_pattern_holds_its_host_port_and_path_and_nothing_beside_them() {
        let pattern = "https://api.example.com/v1/";
        assert!(holds(pattern, "https://api.example.com/v1/x?y"));
        assert!(holds(pattern, "https://API.EXAMPLE.com:443/v1"));
        for url in [
            "http://api.example.com/v1/x",
            "https://api.example.com:8443/v1/x",
            "https://api.example.com/v1x",
            "https://api.example.com/v1/../admin",
            "https://api.example.com/v1/%2e%2e/admin",
            "https://api.example.com/v1/..%2fadmin",
            "https://api.example.com.evil.test/v1/x",
            "https://api.example.com@evil.test/v1/x",
            "https://user:pass@api.example.com/v1/x",
            "https://evil.test/?https://api.example.com/v1/",
        ] {
            assert!(!holds(pattern, url), "{url}");
        }
    }

    #[test]
    fn an_ssh_pattern_holds_a_host_and_a_port_in_every_spelling() {
        let url = |host: &str, port| ssh_url(host, port).expect("a URL");
        let holds = |pattern: &str, url: &Url| UrlPattern::parse(pattern).expect("a pattern").holds(url);
        assert!(holds("ssh://Box.example.com", &url("box.EXAMPLE.com", 22)));
        assert!(holds("ssh://box.example.com:22/", &url("box.example.com", 22)));
        assert!(holds("ssh://127.0.0.1:2222", &url("2130706433", 2222)));
        assert!(holds("ssh://0x7f.1:2222", &url("127.0.0.1", 2222)));
        assert!(holds("ssh://[::1]:2222", &url("0:0:0:0:0:0:0:1", 2222)));
        assert!(holds("ssh://*.example.com", &url("a.example.com", 22)));
        for (host, port) in [("box.example.com", 2222), ("evil.test", 22), ("box.example.com.evil.test", 22)] {
            assert!(!holds("ssh://box.example.com", &url(host, port)), "{host}:{port}");
        }
        for host in ["", "a/b", "a@b", "a:22", "a b", "a#b", "a?b", "a%2fb", "a%40b", "a%3a22"] {
            assert!(ssh_url(host, 22).is_err(), "{host}");
        }
        assert!(UrlPattern::parse("ssh://box.example.com/path").is_err());
    }

    #[test]
    fn methods_belong_to_http_alone() {
        let net = |url: &str, methods: &[&str]| Net {
            url: url.into(),
            methods: methods.iter().map(|&it| it.into()).collect(),
            addresses: vec![],
            reason: String::new(),
        };
        for url in ["ws://example.com/", "wss://example.com/", "ssh://example.com"] {
            assert!(check(&net(url, &[])).is_ok(), "{url}");
            assert!(check(&net(url, &["GET"])).is_err(), "{url}");
        }
        let allowed = |url: &str, grant: Net| {
            let capabilities = Capabilities { net: vec![grant], ..Capabilities::default() };
            let url = Url::parse(url).expect("a URL");
            let request = Request { method: "GET".into(), url: url.clone() }.allowed_by(&capabilities).is_some();
            (request, Channel { verb: "open", url, subject: None }.allowed_by(&capabilities).is_some())
        };
        let (ws, http) = ("ws://example.com/", "http://example.com/");
        assert_eq!(allowed(ws, net(ws, &[])), (false, true));
        assert_eq!(allowed(http, net(http, &["GET"])), (true, false));
        assert_eq!(allowed(ws, net(http, &["GET"])), (false, false));
    }

    #[test]
    fn a_wildcard_stands_for_subdomains_only() {
        assert!(holds("https://*.example.com/", "https://a.example.com/"));
        assert!(holds("https://*.example.com/", "https://a.b.example.com/"));
        assert!(!holds("https://*.example.com/", "https://example.com/"));
        assert!(!holds("https://*.example.com/", "https://badexample.com/"));
        assert!(UrlPattern::parse("https://api.*.com/").is_err());
        assert!(UrlPattern::parse("https://*/").is_err());
    }

    #[test]
    fn addresses_behind_addresses_are_seen() {
        use AddressClass::{LinkLocal, Loopback, Private};
        for (text, class) in [
            ("127.0.0.1", Address::Special(Loopback)),
            ("127.9.9.9", Address::Special(Loopback)),
            ("::1", Address::Special(Loopback)),
            ("::ffff:127.0.0.1", Address::Special(Loopback)),
            ("::127.0.0.1", Address::Special(Loopback)),
            ("64:ff9b::7f00:1", Address::Special(Loopback)),
            ("2002:7f00:1::", Address::Special(Loopback)),
            ("169.254.169.254", Address::Special(LinkLocal)),
            ("::ffff:a9fe:a9fe", Address::Special(LinkLocal)),
            ("fe80::1", Address::Special(LinkLocal)),
            ("10.0.0.1", Address::Special(Private)),
            ("172.31.255.255", Address::Special(Private)),
            ("192.168.1.1", Address::Special(Private)),
            ("100.100.100.200", Address::Special(Private)),
            ("fd00:ec2::254", Address::Special(Private)),
            ("0.0.0.0", Address::Never),
            ("::", Address::Never),
            ("255.255.255.255", Address::Never),
            ("224.0.0.1", Address::Never),
            ("ff02::1", Address::Never),
            ("1.1.1.1", Address::Public),
            ("172.32.0.1", Address::Public),
            ("2606:4700::1111", Address::Public),
        ] {
            assert_eq!(classify(text.parse().expect("an address")), class, "{text}");
        }
    }

    #[test]
    fn a_special_address_needs_a_grant_of_its_own() {
        let url = Url::parse("http://localhost:8080/").expect("a URL");
        let dial = |method: &str| Dial {
            method: Some(method.into()),
            url: url.clone(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let grant = |addresses| Capabilities {
            net: vec![Net {
                url: "http://localhost:8080/".into(),
                methods: vec!["GET".into()],
                addresses,
                reason: String::new(),
            }],
            ..Capabilities::default()
        };
        assert!(dial("GET").allowed_by(&grant(vec![])).is_none());
        assert!(dial("GET").allowed_by(&grant(vec![AddressClass::Private])).is_none());
        assert!(dial("GET").allowed_by(&grant(vec![AddressClass::Loopback])).is_some());
        // Two grants of one URL do not lend each other what only one of them has.
        let mut both = grant(vec![AddressClass::Loopback]);
        both.net.push(Net {
            url: "http://localhost:8080/".into(),
            methods: vec!["POST".into()],
            addresses: vec![],
            reason: String::new(),
        });
        assert!(dial("POST").allowed_by(&both).is_none());
        assert!(dial("GET").allowed_by(&both).is_some());
    }
}
