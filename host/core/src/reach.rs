//! What a command on another machine reaches on this host.
//!
//! An address of the loopback means this host in a profile, and the machine itself once it has arrived there. So where a
//! provider can lead back ([`WAY_BACK`]), the machine's loopback gets the same port, for as long as the command runs.
//!
//! A machine whose network is restricted goes out by a proxy here in the same way ([`crate::egress`]), and one whose
//! network is full by the proxies that this host's user has.

use std::collections::BTreeSet;

use pcoder_runtime::Error;
use pcoder_runtime::call::Back;
use pcoder_runtime::contract::provider::Instance;
use pcoder_runtime::contract::{CommandSpec, Setting};
use pcoder_runtime::error::code;
use pcoder_runtime::manifest::Kind;
use pcoder_runtime::secrets::Broker;
use secrecy::SecretString;
use url::{Host, Url};

use crate::egress::{Egress, HostPattern, Hosts, Refused, Rules};
use crate::{Pcoder, Surroundings};

/// What a provider says whose machines have ways back to this host.
pub(crate) const WAY_BACK: &str = "way-back";

/// The one address of a machine's loopback that leads back.
const THERE: &str = "127.0.0.1";

/// The port, where this is the URL of a server on this host's loopback.
pub(crate) fn loopback_port(text: &str) -> Option<u16> {
    let scheme = text.split_once("://")?.0;
    let known = ["http", "https", "ws", "wss"].iter().any(|it| it.eq_ignore_ascii_case(scheme));
    loopback(text).filter(|_| known)
}

/// The same for a URL of any scheme.
fn loopback(text: &str) -> Option<u16> {
    let url = Url::parse(text).ok()?;
    // Parsed again, because a URL keeps the host of a scheme that it does not know (`socks5`) as it was written.
    let here = match Host::parse(url.host_str()?).ok()? {
        Host::Domain(name) => name == "localhost",
        // The others of 127.0.0.0/8 are not where a machine's ways back begin.
        Host::Ipv4(address) => address == std::net::Ipv4Addr::LOCALHOST,
        Host::Ipv6(address) => address == std::net::Ipv6Addr::LOCALHOST,
    };
    url.port_or_known_default().filter(|_| here)
}

/// The host of a service that a setting names.
pub(crate) fn service(text: &str) -> Option<HostPattern> {
    let url = Url::parse(text).ok().filter(|it| matches!(it.scheme(), "http" | "https" | "ws" | "wss"))?;
    HostPattern::of_url(&url)
}

/// A way back for each of these ports.
pub(crate) fn ways_back(ports: &BTreeSet<u16>) -> Vec<Back> {
    ports.iter().map(|&port| Back { port, to: port }).collect()
}

/// The URL as it has to be said there: a machine has ways back on the address of IPv4 alone.
pub(crate) fn as_seen_there(text: &str) -> Option<String> {
    loopback_port(text).and_then(|_| seen_there(text))
}

fn seen_there(text: &str) -> Option<String> {
    let mut url = Url::parse(text).ok().filter(|it| it.host_str().is_some_and(|it| it.starts_with('[')))?;
    url.set_host(Some(THERE)).ok()?;
    let seen = url.to_string();
    // The parser's slash would double the one that an agent puts behind a base URL.
    let bare = !text.ends_with('/') && url.path() == "/" && url.query().is_none();
    Some(if bare { seen.trim_end_matches('/').to_owned() } else { seen })
}

/// Proxies, by the names that programs know them by, and what goes to none.
const PROXIES: [&str; 3] = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"];
const NO_PROXY: &str = "NO_PROXY";
/// What a machine calls itself.
const ITSELF: &str = "127.0.0.1,localhost";
/// Registries that are no npm's, in the variables of those who install from them.
const REGISTRIES: [&str; 4] = ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"];

/// How many ports of a machine are tried for the proxy.
const TRIES: usize = 3;

/// What is known of a command that is to reach something.
#[derive(Default)]
pub(crate) struct Wanted {
    /// Ports of this host's loopback that it is told of.
    pub(crate) here: BTreeSet<u16>,
    /// The service that it is told of, in the place of the agent's own.
    pub(crate) services: Vec<HostPattern>,
    /// The plugin of the agent that runs; without one, any that is built in.
    pub(crate) agent: Option<String>,
    /// What else its profile allows.
    pub(crate) allow: Hosts,
}

/// What a command on an instance reaches by way of this host, for as long as this is kept.
#[derive(Default)]
pub struct Reach {
    back: Vec<Back>,
    /// Variables of this host's own proxies.
    forwarded: Vec<(String, SecretString)>,
    egress: Option<Egress>,
    /// The ports among those that lead back that are only there for this host's own proxies.
    proxies: BTreeSet<u16>,
}

/// Stands for the port of no proxy: this host's own ones are left out then.
const WITHOUT: u16 = 0;

impl Reach {
    /// What it wanted to reach and must not, so far.
    pub fn refused(&self) -> Option<Refused> {
        self.egress.as_ref().and_then(Egress::refused)
    }

    /// Whether the command gets values that its provider's plugin must not see: a proxy's address may hold a password.
    pub(crate) fn has_secrets(&self) -> bool {
        self.egress.is_some() || !self.forwarded.is_empty()
    }

    /// The ports of the instance that may lead to the proxy, in this order. One way, where there is no proxy.
    pub(crate) fn tries(&self) -> Result<Vec<Option<u16>>, Error> {
        let Some(egress) = &self.egress else {
            // Another command there may have the port of a proxy, or somebody else; it can do without.
            let without = (!self.proxies.is_empty()).then_some(Some(WITHOUT));
            return Ok(std::iter::once(None).chain(without).collect());
        };
        let mut ports = vec![Some(egress.port())];
        while ports.len() < TRIES {
            let mut bytes = [0; 2];
            getrandom::fill(&mut bytes)
                .map_err(|error| Error::new(code::INTERNAL, "run", format!("no randomness: {error}")))?;
            // Below those that systems give away by themselves, and above those of services.
            ports.push(Some(20_000 + u16::from_be_bytes(bytes) % 10_000));
        }
        Ok(ports)
    }

    /// Whether the port for the proxy is somebody else's there.
    pub(crate) fn is_taken(&self, port: Option<u16>, error: &Error) -> bool {
        let is_subject = |port: u16| error.subject.as_deref() == Some(&*format!("{THERE}:{port}"));
        let is_taken = port.map_or_else(|| self.proxies.iter().any(|port| is_subject(*port)), is_subject);
        error.is(code::CONFLICT) && is_taken
    }

    /// The command with its variables, and its ways back, where this port of the instance leads to the proxy.
    pub(crate) fn on(
        &self,
        port: Option<u16>,
        spec: &CommandSpec,
        secrets: Option<&Broker>,
    ) -> Result<(CommandSpec, Vec<Back>), Error> {
        let (mut spec, mut back) = (spec.clone(), self.back.clone());
        let Some(secrets) = secrets.filter(|_| self.has_secrets()) else { return Ok((spec, back)) };
        let mut put = |name: &str, value: String| spec.env.push(Setting { name: name.to_owned(), value });
        if let (Some(egress), Some(port)) = (&self.egress, port) {
            // First, so that another port is tried before anything else is asked for.
            back.insert(0, Back { port, to: egress.port() });
            let placeholder = secrets.issue_for_command("HTTPS_PROXY", egress.url(port))?;
            for name in PROXIES {
                both(name, |name| put(name, placeholder.clone()));
            }
            both(NO_PROXY, |name| put(name, ITSELF.to_owned()));
            // Another proxy would not be reached. What was there stood in front.
            let ours = spec.env.len() - 2 * (PROXIES.len() + 1);
            let mut at = 0;
            spec.env.retain(|it| {
                at += 1;
                at > ours || !is_proxy(&it.name)
            });
            return Ok((spec, back));
        }
        if port == Some(WITHOUT) {
            back.retain(|it| !self.proxies.contains(&it.port));
            return Ok((spec, back));
        }
        for (name, value) in &self.forwarded {
            if spec.env.iter().any(|it| it.name.eq_ignore_ascii_case(name)) {
                continue;
            }
            let placeholder = secrets.issue_for_command(name, value.clone())?;
            both(name, |name| spec.env.push(Setting { name: name.to_owned(), value: placeholder.clone() }));
        }
        Ok((spec, back))
    }

    /// Adds this host's own proxies.
    fn forward(&mut self, surroundings: &Surroundings) {
        let variable = |name: &str| {
            // Small letters win, as in curl and in the engine store.
            let found = surroundings.variable(&name.to_ascii_lowercase()).or_else(|| surroundings.variable(name));
            found.and_then(|it| it.to_str()).map(str::to_owned)
        };
        for name in PROXIES {
            let Some(text) = variable(name) else { continue };
            let whole = if text.contains("://") { text.clone() } else { format!("http://{text}") };
            let seen = match loopback(&whole) {
                Some(port) => {
                    if !self.back.iter().any(|it| it.port == port) {
                        self.back.push(Back { port, to: port });
                        self.proxies.insert(port);
                    }
                    seen_there(&whole).unwrap_or(whole)
                }
                None => text,
            };
            self.forwarded.push((name.to_owned(), seen.into()));
        }
        if !self.forwarded.is_empty() {
            let except = variable(NO_PROXY).map(|it| format!("{it},{ITSELF}")).unwrap_or_else(|| ITSELF.to_owned());
            self.forwarded.push((NO_PROXY.to_owned(), except.into()));
        }
    }
}

fn both(name: &str, mut put: impl FnMut(&str)) {
    put(name);
    put(&name.to_ascii_lowercase());
}

fn is_proxy(name: &str) -> bool {
    PROXIES.iter().chain(&[NO_PROXY]).any(|it| it.eq_ignore_ascii_case(name))
}

impl Pcoder {
    /// What a command reaches by way of this host on an instance that has ways back to it.
    pub(crate) async fn reach(&self, instance: &Instance, wanted: Wanted) -> Result<Reach, Error> {
        let mut reach = Reach { back: ways_back(&wanted.here), ..Reach::default() };
        let network = instance.details.iter().find(|it| it.name == "network").map(|it| it.value.as_str());
        match network {
            Some("restricted") => {
                let network = self.network(None)?;
                let registries = network.registries().filter_map(HostPattern::of_url).collect();
                let rules = self.rules(wanted, registries)?;
                reach.egress = Some(Egress::start(rules, network.client_options()).await?);
            }
            Some("full") => reach.forward(self.surroundings()),
            _ => {}
        }
        Ok(reach)
    }

    fn rules(&self, wanted: Wanted, registries: Vec<HostPattern>) -> Result<Rules, Error> {
        let setting = self.settings(None)?.get("network-allow", None)?.value;
        // It was checked when it was read.
        let setting = Hosts::new(setting.as_deref().unwrap_or_default()).unwrap_or_default();
        let mut allow = wanted.services;
        if allow.is_empty() {
            // A stranger's agent would choose for itself where what is on the machine can go: nobody was asked.
            let agents = self.inspect_all()?.into_iter().map(|it| it.manifest).filter(|it| it.kind == Kind::Agent);
            let this = |name: &String| wanted.agent.as_ref().is_none_or(|it| it == name);
            let hosts = agents.filter(|it| this(&it.name)).flat_map(|it| it.hosts);
            allow.extend(hosts.filter_map(|it| HostPattern::new(&it).ok()));
        }
        allow.extend(registries);
        let variables = REGISTRIES.iter().filter_map(|name| self.surroundings().variable(name)?.to_str());
        allow.extend(variables.flat_map(str::split_whitespace).filter_map(service));
        allow.extend(setting.0.iter().cloned());
        allow.extend(wanted.allow.0);
        Ok(Rules { allow, setting })
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

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

    fn spec(env: &[(&str, &str)]) -> CommandSpec {
        let env = env.iter().map(|&(name, value)| Setting { name: name.into(), value: value.into() }).collect();
        let command = pcoder_runtime::contract::Command::Shell("true".into());
        CommandSpec { command, cwd: None, env, path_entries: Vec::new(), name: None }
    }

    fn names(spec: &CommandSpec) -> Vec<&str> {
        spec.env.iter().map(|it| it.name.as_str()).collect()
    }

    fn full(variables: &[(&str, &str)]) -> Reach {
        let environment = variables.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        let mut reach = Reach::default();
        reach.forward(&Surroundings { environment, ..Surroundings::default() });
        reach
    }

    fn forwarded(reach: &Reach) -> Vec<String> {
        reach.forwarded.iter().map(|(name, value)| format!("{name}={}", value.expose_secret())).collect()
    }

    #[test]
    fn the_users_proxies_are_told_and_one_on_this_host_is_led_back_to() {
        assert_eq!(forwarded(&full(&[])), [""; 0]);
        let far = full(&[("HTTPS_PROXY", "http://large:1"), ("https_proxy", "http://small:1"), ("NO_PROXY", "a.test")]);
        assert_eq!(forwarded(&far), ["HTTPS_PROXY=http://small:1", "NO_PROXY=a.test,127.0.0.1,localhost"]);
        assert_eq!(far.back, []);
        for (said, told) in [
            ("http://me:word@127.0.0.1:3128", "http://me:word@127.0.0.1:3128"),
            ("localhost:3128", "localhost:3128"),
            ("socks5://[::1]:3128", "socks5://127.0.0.1:3128"),
        ] {
            let near = full(&[("HTTPS_PROXY", said), ("HTTP_PROXY", said)]);
            assert_eq!(near.back, [Back { port: 3128, to: 3128 }], "{said}");
            let told_as = forwarded(&near).remove(0);
            assert_eq!(
                told_as.trim_start_matches("HTTPS_PROXY=").trim_start_matches("http://"),
                told.trim_start_matches("http://")
            );
        }
    }

    #[test]
    fn a_command_does_without_a_proxy_whose_port_somebody_has_there() {
        let mut reach = full(&[("HTTPS_PROXY", "http://127.0.0.1:3128")]);
        let model = Back { port: 8080, to: 8080 };
        reach.back.insert(0, model);
        let conflict = |port: u16| Error::new(code::CONFLICT, "ssh.exec", "m").subject(format!("127.0.0.1:{port}"));
        assert_eq!(reach.tries().expect("ports"), [None, Some(WITHOUT)]);
        assert!(reach.is_taken(None, &conflict(3128)) && !reach.is_taken(None, &conflict(8080)));
        let (on, back) = reach.on(Some(WITHOUT), &spec(&[("A", "b")]), Some(&Broker::default())).expect("a command");
        assert_eq!((names(&on), back), (vec!["A"], vec![model]));
    }

    #[test]
    fn a_proxy_that_the_command_names_itself_stays_on_a_full_network() {
        let reach = full(&[("HTTPS_PROXY", "http://a:1"), ("HTTP_PROXY", "http://a:1")]);
        let secrets = Broker::default();
        let (on, back) = reach.on(None, &spec(&[("https_proxy", "http://mine")]), Some(&secrets)).expect("a command");
        assert_eq!(names(&on), ["https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"]);
        assert_eq!(back, []);
        assert!(on.env.iter().all(|it| !it.value.contains("a:1")), "the plugin sees placeholders");
    }

    #[tokio::test]
    async fn on_a_restricted_network_there_is_one_proxy_and_the_plugin_does_not_see_its_credential() {
        let network = pcoder_http::ClientOptions { certificates: false, ..pcoder_http::ClientOptions::default() };
        let egress = Egress::start(Rules::default(), network).await.expect("it listens");
        let to = egress.port();
        let model = Back { port: 8080, to: 8080 };
        let reach = Reach { back: vec![model], egress: Some(egress), ..Reach::default() };
        let secrets = Broker::default();
        let wanted = spec(&[("A", "b"), ("HTTPS_PROXY", "http://mine"), ("no_proxy", "*")]);
        let (on, back) = reach.on(Some(4567), &wanted, Some(&secrets)).expect("a command");
        let ours = [
            "HTTPS_PROXY",
            "https_proxy",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
            "NO_PROXY",
            "no_proxy",
        ];
        assert_eq!(names(&on), [&["A"][..], &ours].concat());
        assert_eq!(back, [Back { port: 4567, to }, model]);
        assert!(!format!("{on:?}").contains("pcoder:"), "{on:?}");
        let tries = reach.tries().expect("ports");
        assert_eq!((tries.len(), tries[0]), (TRIES, Some(to)));
        let error = |code: &'static str, subject: &str| Error::new(code, "ssh.exec", "m").subject(subject);
        assert!(reach.is_taken(Some(4567), &error(code::CONFLICT, "127.0.0.1:4567")));
        assert!(!reach.is_taken(Some(4567), &error(code::CONFLICT, "127.0.0.1:8080")));
        assert!(!reach.is_taken(Some(4567), &error(code::NETWORK, "127.0.0.1:4567")));
        assert!(!reach.is_taken(None, &Error::new(code::CONFLICT, "ssh.exec", "m")));
    }

    #[test]
    fn each_port_leads_to_the_same_port_here() {
        let ports = BTreeSet::from([443, 8080]);
        assert_eq!(ways_back(&ports), [Back { port: 443, to: 443 }, Back { port: 8080, to: 8080 }]);
        assert_eq!(ways_back(&BTreeSet::new()), []);
    }
}
