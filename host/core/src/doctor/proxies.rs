//! Proxies, as the environment names them. Small letters win, as in curl and in the engine store.

use url::Url;

use super::Job;
use super::record::Finding;
use super::redact::without_logins;
use crate::{Pcoder, Surroundings};

const CATEGORY: &str = "proxies";

/// What this machine calls itself.
const LOOPBACK: [&str; 2] = ["localhost", "127.0.0.1"];

pub(super) fn jobs(pcoder: &Pcoder) -> Vec<Job> {
    let mut jobs = vec![
        Job::look(CATEGORY, "proxy.https", |pcoder| proxy(pcoder.surroundings(), "HTTPS_PROXY")),
        Job::look(CATEGORY, "proxy.http", |pcoder| proxy(pcoder.surroundings(), "HTTP_PROXY")),
    ];
    if variable(pcoder.surroundings(), "ALL_PROXY").is_some() {
        jobs.push(Job::look(CATEGORY, "proxy.all", |pcoder| proxy(pcoder.surroundings(), "ALL_PROXY")));
    }
    if ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"].iter().any(|name| variable(pcoder.surroundings(), name).is_some()) {
        jobs.push(Job::look(CATEGORY, "proxy.exceptions", |pcoder| exceptions(pcoder.surroundings())));
    }
    jobs
}

fn variable(surroundings: &Surroundings, name: &str) -> Option<(String, String)> {
    [name.to_ascii_lowercase(), name.to_owned()].into_iter().find_map(|name| {
        let value = surroundings.variable(&name)?.to_string_lossy().into_owned();
        Some((name, value))
    })
}

/// A proxy's address without its login, or what is wrong with it.
fn address(text: &str) -> Result<String, String> {
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    // What is no address at all is not repeated: nobody knows which part of it is the password.
    let url = Url::parse(&whole).map_err(|_| "it is no address".to_owned())?;
    let scheme = url.scheme();
    if !matches!(scheme, "http" | "https") {
        return Err(format!("its scheme `{scheme}` is not supported ({})", without_logins(&whole)));
    }
    let host = url.host_str().ok_or_else(|| "it names no host".to_owned())?;
    let login = if url.username().is_empty() && url.password().is_none() { "" } else { ", with a login" };
    let port = url.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
    Ok(format!("{scheme}://{host}{port}{login}"))
}

fn proxy(surroundings: &Surroundings, name: &str) -> Finding {
    let Some((name, value)) = variable(surroundings, name) else {
        return Finding::ok(format!("{name} is not set"));
    };
    match address(&value) {
        Ok(address) => Finding::ok(format!("{name} is {address}")),
        Err(problem) => Finding::fail(
            format!("{name}: {problem}"),
            "an address such as `http://HOST:PORT`",
            "engines cannot be downloaded, and tools may not reach their services",
            format!("correct or unset the variable `{name}`"),
        ),
    }
}

/// Whether what stays on this machine would go through the proxy.
fn exceptions(surroundings: &Surroundings) -> Finding {
    let (name, value) = variable(surroundings, "NO_PROXY").unwrap_or_else(|| ("NO_PROXY".into(), String::new()));
    let missing: Vec<&str> = LOOPBACK.into_iter().filter(|host| !covers(&value, host)).collect();
    if missing.is_empty() {
        return Finding::ok(format!("{name} leaves out this machine"));
    }
    let add = if value.is_empty() { missing.join(",") } else { format!("${name},{}", missing.join(",")) };
    Finding::warning(
        format!("{name} does not leave out {}", missing.join(" and ")),
        format!("{name} with {}", LOOPBACK.join(" and ")),
        "requests to this machine itself, as those of `pcoder demo` and to local model servers, may go to the proxy",
        format!("set `{name}={add}`"),
    )
}

/// Whether a list of exceptions has this host: by its name or number, by the network of loopback, or with all others.
fn covers(list: &str, host: &str) -> bool {
    list.split([',', ' ']).map(str::trim).any(|entry| {
        entry == "*"
            || entry.trim_start_matches('.').eq_ignore_ascii_case(host)
            || host.starts_with("127.") && matches!(entry, "127.0.0.0/8" | "127.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Check, Status};

    fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
        let environment = variables.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        Surroundings { environment, ..Surroundings::default() }
    }

    fn of(value: &str) -> Check {
        let found = proxy(&surroundings(&[("HTTPS_PROXY", value)]), "HTTPS_PROXY");
        found.into_check("t".into(), "t", std::time::Duration::ZERO)
    }

    #[test]
    fn an_address_is_shown_without_its_login() {
        for (value, expected) in [
            ("http://proxy:3128", "HTTPS_PROXY is http://proxy:3128"),
            ("proxy:3128", "HTTPS_PROXY is http://proxy:3128"),
            ("https://me:CANARY@proxy/", "HTTPS_PROXY is https://proxy:443, with a login"),
        ] {
            assert_eq!((of(value).status, of(value).measured), (Status::Ok, expected.to_owned()));
        }
        for value in ["socks5://me:CANARY@proxy:1080", "http://me:CANARY@", "http://me:CANARY@[x", "://CANARY"] {
            let found = of(value);
            assert_eq!(found.status, Status::Fail, "{value}");
            assert!(!format!("{found:?}").contains("CANARY"), "{found:?}");
        }
        assert!(
            of("socks5://me:CANARY@proxy:1080").measured.contains("`socks5` is not supported (socks5://proxy:1080)")
        );
    }

    #[test]
    fn small_letters_win() {
        let both = surroundings(&[("HTTPS_PROXY", "http://large"), ("https_proxy", "http://small")]);
        let found = proxy(&both, "HTTPS_PROXY").into_check("t".into(), "t", std::time::Duration::ZERO);
        assert_eq!(found.measured, "https_proxy is http://small:80");
    }

    #[test]
    fn this_machine_is_left_out_by_name_and_by_number() {
        for list in ["localhost,127.0.0.1", "*", "a.example, .localhost , 127.0.0.0/8", "LOCALHOST 127.0.0.1"] {
            assert!(LOOPBACK.iter().all(|host| covers(list, host)), "{list}");
        }
        let found = exceptions(&surroundings(&[("NO_PROXY", "a.example,localhost")]));
        let found = found.into_check("t".into(), "t", std::time::Duration::ZERO);
        assert_eq!(found.status, Status::Warning);
        assert_eq!(found.remedy.as_deref(), Some("set `NO_PROXY=$NO_PROXY,127.0.0.1`"));
        assert!(!covers("", "localhost") && !covers("mylocalhost", "localhost"));
    }
}
