//! Capability `secrets`: which secrets a plugin may name, and where their values may go.

use url::Url;

use super::net::UrlPattern;
use super::{Class, Effect};
use crate::error::Error;
use crate::manifest::{AS_CALLED, Capabilities, Secrets};

/// Where a grant lets a secret's value go.
#[derive(Clone, Debug)]
pub enum Destination {
    /// Into files and commands on the call's instance.
    Target,
    /// Into the environment of a program on the host that the plugin may run.
    Exec,
    /// Into requests to these URLs, into messages of a WebSocket, or, with the scheme `ssh`, into logins and files.
    Url(UrlPattern),
}

impl Destination {
    /// Reads `target`, `exec` or a URL pattern.
    ///
    /// # Errors
    /// `invalid`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        match text {
            "target" => Ok(Self::Target),
            "exec" => Ok(Self::Exec),
            url => UrlPattern::parse(url).map(Self::Url),
        }
    }

    fn holds(&self, place: &Place) -> bool {
        match (self, place) {
            (Self::Target, Place::Target) | (Self::Exec, Place::Exec) => true,
            (Self::Url(pattern), Place::Request(url)) => pattern.holds(url),
            _ => false,
        }
    }
}

/// The place that a value would be put in.
#[derive(Clone, Debug)]
pub enum Place {
    /// A file or a command on the call's instance.
    Target,
    /// A program's environment on the host.
    Exec,
    /// A request, a message of a WebSocket, or the login and the files of a host that is reached over SSH.
    Request(Url),
    /// A command that is run over SSH. No grant leads there: it could say the value to whoever runs it.
    Command(Url),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Target => f.write_str("target"),
            Self::Exec => f.write_str("exec"),
            Self::Request(url) => write!(f, "{}://{}", url.scheme(), url.host_str().unwrap_or_default()),
            Self::Command(url) => {
                write!(f, "a command at {}://{}", url.scheme(), url.host_str().unwrap_or_default())
            }
        }
    }
}

/// A placeholder that a plugin asks for.
#[derive(Clone, Debug)]
pub struct Name(pub String);

impl Effect for Name {
    const CLASS: Class = Class::Secrets;

    fn verb(&self) -> &'static str {
        "get"
    }

    fn describe(&self) -> String {
        crate::text::for_people(&self.0, 128)
    }

    fn allowed_by(&self, capabilities: &Capabilities) -> Option<String> {
        let named = |grant: &&Secrets| grant.name == self.0 && grant.name != AS_CALLED;
        capabilities.secrets.iter().find(named).map(|grant| format!("secrets {}", grant.name))
    }
}

/// The public half of a private key that a plugin asks for.
#[derive(Clone, Debug)]
pub struct PublicHalf(pub String);

impl Effect for PublicHalf {
    const CLASS: Class = Class::Secrets;

    fn verb(&self) -> &'static str {
        "public-key"
    }

    fn describe(&self) -> String {
        crate::text::for_people(&self.0, 128)
    }

    /// Whoever may log in somewhere with a key may know whose key it is.
    fn allowed_by(&self, capabilities: &Capabilities) -> Option<String> {
        let logs_in = |grant: &&Secrets| {
            grant.name == self.0 && grant.name != AS_CALLED && grant.to.iter().any(|to| to.starts_with("ssh://"))
        };
        capabilities.secrets.iter().find(logs_in).map(|grant| format!("secrets {}", grant.name))
    }
}

/// A value that would be put somewhere.
#[derive(Clone, Debug)]
pub struct Use {
    /// The secret's name.
    pub name: String,
    /// Where it would go.
    pub place: Place,
    /// Its user put it into what the call is about; the plugin did not ask for it.
    pub users_own: bool,
}

impl Effect for Use {
    const CLASS: Class = Class::Secrets;

    fn verb(&self) -> &'static str {
        "use"
    }

    fn describe(&self) -> String {
        format!("{} to {}", crate::text::for_people(&self.name, 128), self.place)
    }

    fn allowed_by(&self, capabilities: &Capabilities) -> Option<String> {
        let granted = if self.users_own { AS_CALLED } else { self.name.as_str() };
        let own = !self.users_own && granted == AS_CALLED;
        capabilities.secrets.iter().filter(|grant| grant.name == granted && !own).find_map(|grant| {
            let to = grant.to.iter().find(|to| Destination::parse(to).is_ok_and(|it| it.holds(&self.place)))?;
            Some(format!("secrets {} to {to}", grant.name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_goes_only_where_its_grant_says() {
        let capabilities = Capabilities {
            secrets: vec![crate::manifest::Secrets {
                name: "KEY".into(),
                to: vec!["https://api.example.com/v1/".into()],
                made: None,
                reason: String::new(),
            }],
            ..Capabilities::default()
        };
        let used = |users_own, place| Use { name: "KEY".into(), place, users_own };
        let to = |place| used(false, place).allowed_by(&capabilities).is_some();
        let url = |text: &str| Place::Request(Url::parse(text).expect("a URL"));
        assert!(to(url("https://api.example.com/v1/x")));
        assert!(!to(url("https://api.example.com/v2/x")));
        assert!(!to(url("https://evil.test/v1/")));
        assert!(!to(Place::Target));
        assert!(!to(Place::Exec));
        assert!(Name("OTHER".into()).allowed_by(&capabilities).is_none());
        // A secret that is for no login is no key.
        assert!(PublicHalf("KEY".into()).allowed_by(&capabilities).is_none());
        // What the user put into a command is not the plugin's, whatever its name.
        assert!(used(true, url("https://api.example.com/v1/x")).allowed_by(&capabilities).is_none());
    }

    #[test]
    fn what_the_user_put_into_a_command_goes_where_the_grant_of_what_is_called_says() {
        let grant =
            Secrets { name: AS_CALLED.into(), to: vec!["https://a.test/".into()], made: None, reason: String::new() };
        let capabilities = Capabilities { secrets: vec![grant], ..Capabilities::default() };
        let to = |name: &str, users_own, url: &str| {
            let place = Place::Request(Url::parse(url).expect("a URL"));
            Use { name: name.into(), place, users_own }.allowed_by(&capabilities).is_some()
        };
        assert!(to("KEY", true, "https://a.test/exec"));
        assert!(!to("KEY", true, "https://b.test/exec"));
        assert!(!to("KEY", false, "https://a.test/exec"));
        // No name makes a secret of the plugin's one of the user's.
        assert!(!to(AS_CALLED, false, "https://a.test/exec"));
        assert!(Name(AS_CALLED.into()).allowed_by(&capabilities).is_none());
    }
}
