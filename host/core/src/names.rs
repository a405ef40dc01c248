//! Texts of files that a person wrote, checked while they are read: what is wrong is told with its line.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

/// A name of a profile, a tool or a provider: `[a-z0-9-]`, not at its ends a dash, at most 64 characters. It is a part of
/// a file's name on every system.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Name(String);

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// What a name is.
    pub fn new(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let good = !text.is_empty()
            && text.len() <= 64
            && text.bytes().all(plain)
            && !text.starts_with('-')
            && !text.ends_with('-')
            && !is_device(text);
        let shown = pcoder_runtime::text::for_people(text, 80);
        if good { Ok(Self(text.to_owned())) } else { Err(format!("`{shown}` is no name, expected a-z, 0-9 and -")) }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What Windows takes for a device, whatever its ending.
fn is_device(text: &str) -> bool {
    let numbered = |front: &str| text.strip_prefix(front).is_some_and(|it| it.len() == 1 && it != "0");
    matches!(text, "con" | "prn" | "aux" | "nul")
        || (numbered("com") || numbered("lpt")) && text.ends_with(|it: char| it.is_ascii_digit())
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The name of an environment variable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Variable(String);

impl Variable {
    /// Checks a name.
    ///
    /// # Errors
    /// What a variable's name is.
    pub fn new(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if text.is_empty() || text.starts_with(|it: char| it.is_ascii_digit()) || !text.bytes().all(plain) {
            let shown = pcoder_runtime::text::for_people(text, 80);
            return Err(format!("`{shown}` is no variable, expected A-Z, 0-9 and _"));
        }
        Ok(Self(text.to_owned()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Variable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The address of a model's service: https, or http on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint(String);

impl Endpoint {
    /// Checks an address.
    ///
    /// # Errors
    /// What an address is.
    pub fn new(text: &str) -> Result<Self, String> {
        let expected = "expected `https://HOST/…`, or `http://` on this machine";
        // What was written is not repeated: it may hold a login.
        let url = Url::parse(text).map_err(|_| format!("this is no address, {expected}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("an address holds no login: a key is named apart from it".to_owned());
        }
        match url.scheme() {
            "https" => Ok(Self(text.to_owned())),
            "http" if is_here(&url) => Ok(Self(text.to_owned())),
            _ => Err(format!("what is sent there would travel in the clear, {expected}")),
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_files_name_everywhere() {
        for good in ["work", "a", "claude-2", "com", "com10", "console"] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", "Work", "-a", "a-", "a.b", "a/b", "..", "con", "nul", "com1", "lpt9", "é", &"a".repeat(65)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_endpoint_is_encrypted_or_on_this_machine() {
        for good in ["https://api.example.com", "http://127.0.0.1:8080/v1", "http://localhost", "http://[::1]/"] {
            assert!(Endpoint::new(good).is_ok(), "{good}");
        }
        for bad in ["http://api.example.com", "api.example.com", "ftp://x/", "https://u:secret@x/"] {
            let error = Endpoint::new(bad).expect_err(bad);
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
