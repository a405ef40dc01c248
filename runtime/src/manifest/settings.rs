//! Settings of a plugin: what its user may say, and what that changes in what the plugin asks for.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::{AddressClass, Manifest, Net};
use crate::capability::net::{Address, UrlPattern, classify};
use crate::error::{Error, code};

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingRequest {
    /// Its name: `[a-z0-9-]`, at most 64 characters.
    pub name: String,
    /// What holds when its user says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// What it is, for people.
    #[serde(default)]
    pub about: String,
}

/// A longer value is not one that somebody meant.
const LONGEST: usize = 2048;

/// Checks names and defaults.
pub(super) fn check(settings: &[SettingRequest]) -> Result<(), Error> {
    let invalid = |message: &str, name: &str| {
        Err(Error::new(code::INVALID, "plugin.manifest", message).subject(crate::text::for_people(name, 80)))
    };
    let mut names = HashSet::new();
    for setting in settings {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if setting.name.is_empty() || setting.name.len() > 64 || !setting.name.bytes().all(plain) {
            return invalid("a setting's name is made of a-z, 0-9 and -, at most 64", &setting.name);
        }
        if !names.insert(&setting.name) {
            return invalid("this setting is named twice", &setting.name);
        }
    }
    Ok(())
}

impl Manifest {
    /// The manifest with its user's settings in the place of their names in URLs.
    ///
    /// An address that the user wrote as such (`http://127.0.0.1:8080`) brings the kind of that address along: who names
    /// this machine means it. A name is still looked up and its address checked.
    ///
    /// # Errors
    /// `invalid`, naming the setting: one that the manifest does not have, or a value that is no part of a URL.
    pub fn with_settings(mut self, values: &BTreeMap<String, String>) -> Result<Self, Error> {
        let of_setting = |name: &str, message: String| {
            Error::new(code::INVALID, "plugin.settings", message).subject(format!("plugins.{}.{name}", self.name))
        };
        for (name, value) in values {
            if !self.settings.iter().any(|it| it.name == *name) {
                let names: Vec<String> = self.settings.iter().map(|it| format!("`{}`", it.name)).collect();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                return Err(of_setting(name, "this plugin has no such setting".to_owned())
                    .hint(format!("its settings are: {names}")));
            }
            if value.len() > LONGEST || value.chars().any(char::is_control) {
                return Err(of_setting(name, format!("a value is one line of at most {LONGEST} bytes")));
            }
        }
        for setting in &mut self.settings {
            if let Some(value) = values.get(&setting.name) {
                setting.default = Some(value.clone());
            }
        }
        let mut capabilities = self.as_written.clone();
        for net in &mut capabilities.net {
            if let Some(name) = name_in(&net.url).map(str::to_owned) {
                let users_own = values.contains_key(&name);
                net.url = self.filled(&net.url, &name)?;
                UrlPattern::parse(&net.url).map_err(|error| of_setting(&name, error.message.clone()))?;
                if users_own {
                    name_address(net);
                }
            }
        }
        for secret in &mut capabilities.secrets {
            for to in &mut secret.to {
                if let Some(name) = name_in(to).map(str::to_owned) {
                    *to = self.filled(to, &name)?;
                }
            }
        }
        crate::capability::check_request(&capabilities)?;
        self.capabilities = capabilities;
        Ok(self)
    }

    /// The value of a setting: the user's, or the default.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|it| it.name == name)?.default.as_deref()
    }

    fn filled(&self, text: &str, name: &str) -> Result<String, Error> {
        let invalid = |message: &str| Error::new(code::INVALID, "plugin.manifest", message).subject(text);
        let value = self
            .setting(name)
            .ok_or_else(|| invalid("a URL names a setting that is not in the manifest, or has no default"))?;
        Ok(text.replacen(&format!("{{{name}}}"), value.trim_end_matches('/'), 1))
    }
}

/// The setting that a URL of a manifest names.
fn name_in(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('{')?;
    Some(rest.split_once('}')?.0)
}

/// Adds the kind of an address that stands in the URL itself.
fn name_address(net: &mut Net) {
    let Ok(url) = Url::parse(&net.url) else { return };
    let class = match url.host_str().and_then(|host| Host::parse(host).ok()) {
        Some(Host::Ipv4(address)) => of_address(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => of_address(IpAddr::V6(address)),
        Some(Host::Domain(name)) if name.eq_ignore_ascii_case("localhost") => Some(AddressClass::Loopback),
        _ => None,
    };
    if let Some(class) = class.filter(|class| !net.addresses.contains(class)) {
        net.addresses.push(class);
    }
}

fn of_address(address: IpAddr) -> Option<AddressClass> {
    match classify(address) {
        Address::Special(class) => Some(class),
        Address::Public | Address::Never => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        name = "provider-x"
        version = "1"
        kind = "provider"
        contract = "0.1.0"
        description = "x"
        [[settings]]
        name = "endpoint"
        default = "https://api.example.com/v1"
        [[settings]]
        name = "image"
        [[net]]
        url = "{endpoint}/boxes"
        methods = ["GET"]
        [[secrets]]
        name = "KEY"
        to = ["{endpoint}"]
    "#;

    fn with(values: &[(&str, &str)]) -> Result<Manifest, Error> {
        let values = values.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Manifest::parse(TEXT.as_bytes()).expect("a manifest").with_settings(&values)
    }

    #[test]
    fn an_address_of_the_users_takes_the_place_of_the_default_in_all_that_is_asked_for() {
        let plain = with(&[]).expect("defaults");
        assert_eq!(plain.capabilities.net[0].url, "https://api.example.com/v1/boxes");
        assert!(plain.capabilities.net[0].addresses.is_empty());
        let other = with(&[("endpoint", "https://eu.example.com/"), ("image", "i")]).expect("values");
        assert_eq!(other.capabilities.net[0].url, "https://eu.example.com/boxes");
        assert_eq!(other.capabilities.secrets[0].to, ["https://eu.example.com"]);
        assert_eq!((other.setting("image"), plain.setting("image")), (Some("i"), None));
        // Said twice, the last word holds: the names are still known.
        let back = other.with_settings(&BTreeMap::from([("endpoint".to_owned(), "https://a.test".to_owned())]));
        assert_eq!(back.expect("values").capabilities.net[0].url, "https://a.test/boxes");
    }

    #[test]
    fn who_names_this_machine_means_it_and_a_name_means_nothing_but_itself() {
        for (url, class) in [
            ("http://127.0.0.1:8080/api", Some(AddressClass::Loopback)),
            ("http://[::1]:8080", Some(AddressClass::Loopback)),
            ("http://localhost:1", Some(AddressClass::Loopback)),
            ("https://10.0.0.7", Some(AddressClass::Private)),
            ("https://internal.example", None),
        ] {
            let manifest = with(&[("endpoint", url)]).expect(url);
            assert_eq!(manifest.capabilities.net[0].addresses, class.into_iter().collect::<Vec<_>>(), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_name() {
        for (name, value) in [("endpoint", "not a url"), ("endpoint", "https://x/\n"), ("colour", "red")] {
            let error = with(&[(name, value)]).expect_err(value);
            assert!(error.is(code::INVALID));
            assert_eq!(error.subject.as_deref(), Some(format!("plugins.provider-x.{name}").as_str()));
        }
        let twice = TEXT.replace("name = \"image\"", "name = \"endpoint\"");
        assert!(Manifest::parse(twice.as_bytes()).is_err());
        let unknown = TEXT.replace("{endpoint}/boxes", "{server}/boxes");
        assert!(Manifest::parse(unknown.as_bytes()).is_err());
        let without = TEXT.replace("{endpoint}/boxes", "{image}/boxes");
        assert!(Manifest::parse(without.as_bytes()).is_err());
    }
}
