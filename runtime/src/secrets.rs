//! Secrets, between those who know them and plugins that may only name them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};

use crate::capability::secrets::{Name, Place, Use};
use crate::error::{Error, code};
use crate::gate::{Gate, Permit};
pub use crate::host::ssh::key::new_key as new_ssh_key;

/// What a placeholder begins with; 32 hexadecimal digits follow.
const MARK: &str = "pcoder-secret-";
/// The same digits behind this stand for the value's base64, which can be inside of any text.
const BASE64_MARK: &str = "pcoder-base64-";
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

    /// What a placeholder of the plugin's own stands for: the secret's name and its value.
    pub(crate) fn own(&self, placeholder: &str) -> Option<(String, SecretString)> {
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let secret = issued.get(placeholder).filter(|it| !it.users_own)?;
        Some((secret.name.clone(), secret.value.clone()))
    }

    /// A broker for another call, about what this one was asked to do: the placeholders that the content holds are the
    /// user's own there. The source is the other plugin's.
    pub fn carrying(source: Arc<dyn SecretSource>, carried: Carried) -> Self {
        Self { source: Some(source), issued: Mutex::new(carried.0) }
    }

    /// Whether there are no placeholders.
    pub(crate) fn is_empty(&self) -> bool {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The placeholders in a content that goes on to another plugin's call, each after its own check. The values stay
    /// with the host.
    pub(crate) fn carry(&self, content: &[u8], gate: &Arc<Gate>) -> Result<Carried, Error> {
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let mut carried = HashMap::new();
        for found in placeholders(content) {
            let Some(secret) = issued.get(found.name.as_ref()) else { continue };
            let used = Use { name: secret.name.clone(), place: Place::Target, users_own: secret.users_own };
            gate.authorize(used)?.finish(0, Ok(()))?;
            let secret = Issued { name: secret.name.clone(), value: secret.value.clone(), users_own: true };
            carried.insert(found.name.into_owned(), secret);
        }
        Ok(Carried(carried))
    }

    /// Puts values in the place of placeholders, each after its own check.
    pub(crate) fn fill<'a>(
        &self,
        text: &'a str,
        place: &Place,
        as_called: bool,
        gate: &Arc<Gate>,
    ) -> Result<Cow<'a, str>, Error> {
        match self.fill_bytes(text.as_bytes(), place, as_called, gate)? {
            Cow::Borrowed(_) => Ok(Cow::Borrowed(text)),
            // Values are text, and so is what they are put into.
            Cow::Owned(bytes) => Ok(Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())),
        }
    }

    /// The same for bytes.
    pub(crate) fn fill_bytes<'a>(
        &self,
        content: &'a [u8],
        place: &Place,
        as_called: bool,
        gate: &Arc<Gate>,
    ) -> Result<Cow<'a, [u8]>, Error> {
        self.replaced(content, |secret, inside| {
            let result = if inside { check_inside(secret) } else { Ok(()) };
            if secret.users_own && as_called {
                return result;
            }
            let used = Use { name: secret.name.clone(), place: place.clone(), users_own: secret.users_own };
            gate.authorize(used)?.finish(0, result)
        })
    }

    /// Puts in what the user's own command or file carries, and leaves everything else.
    pub(crate) fn fill_own<'a>(&self, content: &'a [u8]) -> Result<Cow<'a, [u8]>, Error> {
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if issued.values().all(|secret| !secret.users_own) {
            return Ok(Cow::Borrowed(content));
        }
        drop(issued);
        self.replaced(content, |secret, inside| match (secret.users_own, inside) {
            (true, true) => check_inside(secret),
            (true, false) => Ok(()),
            (false, _) => {
                Err(Error::new(code::DENIED, "secrets.use", "a plugin's secret is not for files of this host")
                    .subject(&secret.name))
            }
        })
    }

    /// How many bytes a content has once it is filled.
    pub(crate) fn filled_size(&self, content: &[u8]) -> u64 {
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let mut size = content.len();
        for found in placeholders(content) {
            let Some(secret) = issued.get(found.name.as_ref()) else { continue };
            let value = secret.value.expose_secret().len();
            size = size - found.length + if found.base64 { value.div_ceil(3) * 4 } else { value };
        }
        size as u64
    }

    fn replaced<'a>(
        &self,
        content: &'a [u8],
        mut check: impl FnMut(&Issued, bool) -> Result<(), Error>,
    ) -> Result<Cow<'a, [u8]>, Error> {
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let mut filled = Vec::new();
        let mut done = 0;
        for found in placeholders(content) {
            let Some(secret) = issued.get(found.name.as_ref()) else { continue };
            check(secret, !found.base64 && found.length != content.len())?;
            filled.extend_from_slice(&content[done..found.at]);
            let value = secret.value.expose_secret();
            match found.base64 {
                true => filled.extend_from_slice(STANDARD.encode(value).as_bytes()),
                false => filled.extend_from_slice(value.as_bytes()),
            }
            done = found.at + found.length;
        }
        if done == 0 {
            return Ok(Cow::Borrowed(content));
        }
        filled.extend_from_slice(&content[done..]);
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

/// Placeholders on their way from one call to another, with their values, which nobody can see.
#[derive(Default)]
pub struct Carried(HashMap<String, Issued>);

impl Carried {
    /// With those of another content.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

impl Carried {
    /// A content with the values in it, for an instance that is reached by no plugin.
    ///
    /// # Errors
    /// `invalid` for a value that cannot stand where its placeholder does.
    pub fn filled(self, content: &[u8]) -> Result<Vec<u8>, Error> {
        let broker = Broker { source: None, issued: Mutex::new(self.0) };
        Ok(broker.fill_own(content)?.into_owned())
    }
}

impl std::fmt::Debug for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Carried({})", self.0.len())
    }
}

/// A placeholder in a content.
struct Found<'a> {
    at: usize,
    length: usize,
    /// As it was issued.
    name: Cow<'a, str>,
    base64: bool,
}

fn placeholders(content: &[u8]) -> impl Iterator<Item = Found<'_>> {
    // Both marks begin alike, which is what is searched for.
    memchr::memmem::find_iter(content, "pcoder-").filter_map(move |at| {
        let end = at + MARK.len() + DIGITS;
        let text = std::str::from_utf8(content.get(at..end)?).ok()?;
        let found = |name, base64| Some(Found { at, length: end - at, name, base64 });
        if text.starts_with(MARK) {
            return found(Cow::Borrowed(text), false);
        }
        let digits = text.strip_prefix(BASE64_MARK)?;
        found(Cow::Owned(format!("{MARK}{digits}")), true)
    })
}

fn check_inside(secret: &Issued) -> Result<(), Error> {
    if is_plain(secret.value.expose_secret()) {
        return Ok(());
    }
    let message = "the secret's value has quotes, backslashes or line ends, so it cannot stand inside other text";
    Err(Error::new(code::INVALID, "secrets.use", message)
        .subject(&secret.name)
        .hint("check the value, or use it as a whole file"))
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
                made: None,
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
    fn a_value_that_could_end_a_string_goes_anywhere_as_base64() {
        let broker = Broker::new(Arc::new(One("{\"a\": 1}\n")));
        let gate = gate(&["target"]);
        let text = format!("printf %s {} | base64 -d", placeholder(&broker, &gate).replace("secret", "base64"));
        let filled = broker.fill(&text, &Place::Target, false, &gate).expect("base64");
        assert_eq!(filled, "printf %s eyJhIjogMX0K | base64 -d");
        assert_eq!(broker.filled_size(text.as_bytes()), filled.len() as u64);
    }

    #[test]
    fn what_is_carried_to_another_call_is_the_users_own_there_and_stays_unseen() {
        let broker = Broker::new(Arc::new(One("s3cret-value")));
        let gate = gate(&["target"]);
        let placeholder = placeholder(&broker, &gate);
        let content = format!("token={placeholder}\0pcoder-secret-").into_bytes();
        let carried = broker.carry(&content, &gate).expect("granted");
        assert!(!format!("{carried:?}").contains("s3cret"));
        let there = Broker::carrying(Arc::new(One("another")), carried);
        assert_eq!(there.fill_own(&content).expect("filled").as_ref(), b"token=s3cret-value\0pcoder-secret-");
        // Not without a grant of its own, where the other plugin sends it somewhere.
        assert!(there.fill_bytes(&content, &Place::Target, false, &gate).is_err());
        assert!(broker.carry(&content, &self::gate(&["exec"])).is_err());
        assert!(broker.fill_own(&content).expect("nothing of the user's").as_ref() == content);
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
