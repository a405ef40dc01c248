//! Secrets, between those who know them and plugins that may only name them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret as _, SecretString};

use crate::capability::secrets::{Name, Place, Use};
use crate::error::{Error, code};
use crate::gate::{Gate, Permit};

/// What a placeholder begins with; 32 hexadecimal digits follow.
const MARK: &str = "pcoder-secret-";
const DIGITS: usize = 32;

/// Values shorter than this are not searched for in what comes back: they would be found in ordinary text.
const SHORTEST_REDACTED: usize = 6;

/// Where secrets come from: the environment, a file, a keyring. An implementation never logs a value.
pub trait SecretSource: Send + Sync {
    /// The value of a secret.
    ///
    /// # Errors
    /// `unauthenticated`, with a hint how to set it.
    fn lookup(&self, name: &str) -> Result<SecretString, Error>;
}

/// Makes placeholders for one call, and puts values in their place. The default knows no secrets.
#[derive(Default)]
pub struct Broker {
    source: Option<Arc<dyn SecretSource>>,
    issued: Mutex<HashMap<String, Issued>>,
}

struct Issued {
    name: String,
    value: SecretString,
    /// The host made it for the command `as called`: it was the user who put it there.
    users_own: bool,
}

impl Broker {
    /// A broker without placeholders yet.
    pub fn new(source: Arc<dyn SecretSource>) -> Self {
        Self { source: Some(source), issued: Mutex::default() }
    }

    /// A placeholder for a value that the user's own command carries. It is swapped when that command runs, with no
    /// grant of the plugin's.
    ///
    /// # Errors
    /// `internal` when the system has no randomness.
    pub fn issue_for_command(&self, name: &str, value: SecretString) -> Result<String, Error> {
        self.insert(Issued { name: name.to_owned(), value, users_own: true })
    }

    /// A placeholder for a plugin.
    pub(crate) fn issue(&self, permit: Permit<Name>) -> Result<String, Error> {
        let name = permit.effect().0.clone();
        // One placeholder a name: a plugin that asks without end must not fill the host's memory.
        let known = {
            let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
            issued.iter().find(|(_, it)| !it.users_own && it.name == name).map(|(placeholder, _)| placeholder.clone())
        };
        if let Some(known) = known {
            return permit.finish(0, Ok(known));
        }
        let value = match &self.source {
            Some(source) => source.lookup(&name),
            None => {
                Err(Error::new(code::UNAUTHENTICATED, "secrets.get", "no secrets are set up").subject(name.as_str()))
            }
        };
        let result = value.and_then(|value| self.insert(Issued { name, value, users_own: false }));
        permit.finish(0, result)
    }

    fn insert(&self, issued: Issued) -> Result<String, Error> {
        let mut bytes = [0_u8; DIGITS / 2];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::new(code::INTERNAL, "secrets.get", format!("no randomness: {error}")))?;
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let placeholder = format!("{MARK}{digits}");
        self.issued.lock().unwrap_or_else(PoisonError::into_inner).insert(placeholder.clone(), issued);
        Ok(placeholder)
    }

    /// Puts values in the place of placeholders, each after its own check.
    pub(crate) fn fill<'a>(
        &self,
        text: &'a str,
        place: &Place,
        as_called: bool,
        gate: &Arc<Gate>,
    ) -> Result<Cow<'a, str>, Error> {
        if !text.contains(MARK) {
            return Ok(Cow::Borrowed(text));
        }
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(MARK) {
            let end = at + MARK.len() + DIGITS;
            let Some((placeholder, secret)) = rest.get(at..end).and_then(|it| Some((it, issued.get(it)?))) else {
                filled.push_str(&rest[..at + MARK.len()]);
                rest = &rest[at + MARK.len()..];
                continue;
            };
            filled.push_str(&rest[..at]);
            let value = secret.value.expose_secret();
            let whole = text == placeholder;
            let result = if whole || is_plain(value) {
                Ok(())
            } else {
                Err(Error::new(
                    code::INVALID,
                    "secrets.use",
                    "the secret's value has quotes, backslashes or line ends, so it cannot stand inside other text",
                )
                .subject(&secret.name)
                .hint("check the value, or use it as a whole file"))
            };
            if !(secret.users_own && as_called) {
                let used = Use { name: secret.name.clone(), place: place.clone() };
                gate.authorize(used)?.finish(0, result)?;
            } else {
                result?;
            }
            filled.push_str(value);
            rest = &rest[end..];
        }
        filled.push_str(rest);
        Ok(Cow::Owned(filled))
    }

    /// Takes values out of what comes back to a plugin or goes into a log.
    pub(crate) fn redact(&self, bytes: Vec<u8>) -> Vec<u8> {
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = bytes;
        for (placeholder, secret) in issued.iter() {
            let value = secret.value.expose_secret().as_bytes();
            if value.len() >= SHORTEST_REDACTED {
                bytes = replace(bytes, value, placeholder.as_bytes());
            }
        }
        bytes
    }

    /// Makes values unreadable in bytes that keep their number, and says how many of them cannot be the beginning of a
    /// value that goes on in what comes next.
    pub(crate) fn mask(&self, bytes: &mut [u8]) -> usize {
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let values = || issued.values().map(|it| it.value.expose_secret().as_bytes());
        let mut open = 0;
        for value in values().filter(|it| it.len() >= SHORTEST_REDACTED) {
            let found: Vec<usize> = memchr::memmem::find_iter(bytes, value).collect();
            for at in found {
                bytes[at..at + value.len()].fill(b'*');
            }
            let longest = (value.len() - 1).min(bytes.len());
            open = open.max((1..=longest).rev().find(|&length| bytes.ends_with(&value[..length])).unwrap_or(0));
        }
        bytes.len() - open
    }

    pub(crate) fn redact_text(&self, text: String) -> String {
        String::from_utf8(self.redact(text.into_bytes())).unwrap_or_default()
    }
}

/// Printable ASCII without what ends a string in JSON, TOML, a header or a shell.
fn is_plain(value: &str) -> bool {
    value.bytes().all(|byte| (0x20..0x7f).contains(&byte) && !matches!(byte, b'"' | b'\'' | b'\\' | b'`' | b'$'))
}

fn replace(bytes: Vec<u8>, needle: &[u8], with: &[u8]) -> Vec<u8> {
    let finder = memchr::memmem::Finder::new(needle);
    if finder.find(&bytes).is_none() {
        return bytes;
    }
    let mut replaced = Vec::with_capacity(bytes.len());
    let mut rest = bytes.as_slice();
    while let Some(at) = finder.find(rest) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(with);
        rest = &rest[at + needle.len()..];
    }
    replaced.extend_from_slice(rest);
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Nowhere;
    use crate::capability::limits::Limits;
    use crate::gate::{Authority, Identity, Subject};
    use crate::manifest::{Capabilities, Secrets};

    struct One(&'static str);
    impl SecretSource for One {
        fn lookup(&self, _: &str) -> Result<SecretString, Error> {
            Ok(SecretString::from(self.0))
        }
    }

    fn gate(to: &[&str]) -> Arc<Gate> {
        let capabilities = Capabilities {
            secrets: vec![Secrets {
                name: "KEY".into(),
                to: to.iter().map(|&it| it.to_owned()).collect(),
                reason: String::new(),
            }],
            ..Capabilities::default()
        };
        let identity = Identity { plugin: "p".into(), digest: "d".into() };
        let authority = Authority::granted(capabilities.clone(), capabilities);
        let subject = Subject { identity, authority, limits: Limits::default() };
        Gate::new(Arc::new(subject), "c".into(), "o", Arc::new(Nowhere))
    }

    fn placeholder(broker: &Broker, gate: &Arc<Gate>) -> String {
        broker.issue(gate.authorize(Name("KEY".into())).expect("granted")).expect("a placeholder")
    }

    #[test]
    fn a_value_is_put_in_only_where_it_may_go() {
        let broker = Broker::new(Arc::new(One("s3cret-value")));
        let gate = gate(&["target"]);
        let placeholder = placeholder(&broker, &gate);
        let text = format!("token={placeholder};");
        let filled = broker.fill(&text, &Place::Target, false, &gate).expect("allowed");
        assert_eq!(filled, "token=s3cret-value;");
        assert!(broker.fill(&text, &Place::Exec, true, &gate).is_err());
    }

    #[test]
    fn text_that_looks_like_a_placeholder_stays() {
        let broker = Broker::new(Arc::new(One("s3cret-value")));
        let gate = gate(&["target"]);
        for text in ["pcoder-secret-", "pcoder-secret-zz", "pcoder-secret-0123456789abcdef0123456789abcdef"] {
            assert_eq!(broker.fill(text, &Place::Target, false, &gate).expect("nothing to fill"), text);
        }
    }

    #[test]
    fn a_value_that_could_end_a_string_is_only_used_whole() {
        let broker = Broker::new(Arc::new(One("{\"a\": 1}")));
        let gate = gate(&["target"]);
        let placeholder = placeholder(&broker, &gate);
        assert_eq!(broker.fill(&placeholder, &Place::Target, false, &gate).expect("whole"), "{\"a\": 1}");
        assert!(broker.fill(&format!("\"{placeholder}\""), &Place::Target, false, &gate).is_err());
    }

    #[test]
    fn a_value_that_comes_in_pieces_is_held_back_and_masked() {
        let broker = Broker::new(Arc::new(One("s3cret-value")));
        let gate = gate(&["exec"]);
        placeholder(&broker, &gate);
        let mut bytes = b"it is s3cret".to_vec();
        assert_eq!(broker.mask(&mut bytes), 6);
        bytes.extend_from_slice(b"-value, s3");
        assert_eq!(broker.mask(&mut bytes), bytes.len() - 2);
        assert_eq!(bytes, b"it is ************, s3");
    }

    #[test]
    fn a_value_that_comes_back_is_taken_out() {
        let broker = Broker::new(Arc::new(One("s3cret-value")));
        let gate = gate(&["exec"]);
        let placeholder = placeholder(&broker, &gate);
        let back = broker.redact(b"it is s3cret-value, s3cret-value!".to_vec());
        assert_eq!(String::from_utf8(back).expect("text"), format!("it is {placeholder}, {placeholder}!"));
    }
}
