//! The plugin's settings, checked.

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::{Error, Result, path};
use serde_json::{Value, json};

/// The home folder of commands: the one folder that the service keeps also when it boots a sandbox afresh.
pub(crate) const HOME: &str = "/project/workspace";

/// The sizes of machines.
const TIERS: [&str; 7] = ["Pico", "Nano", "Micro", "Small", "Medium", "Large", "XLarge"];

/// The longest time that a sandbox may be idle before it hibernates, in seconds.
const LONGEST: u64 = 86_400;

/// Who sees a sandbox, and its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privacy {
    Private,
    PublicHosts,
    Unlisted,
    Public,
}

impl Privacy {
    fn of(word: &str) -> Option<Self> {
        match word {
            "private" => Some(Self::Private),
            "public-hosts" => Some(Self::PublicHosts),
            "unlisted" => Some(Self::Unlisted),
            "public" => Some(Self::Public),
            _ => None,
        }
    }

    /// The API's number, and whether ports need a token.
    pub(crate) fn fields(self) -> (u8, bool) {
        match self {
            Self::Private => (2, true),
            Self::PublicHosts => (2, false),
            Self::Unlisted => (1, false),
            Self::Public => (0, false),
        }
    }
}

/// How a sandbox is made and started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) tier: Option<String>,
    /// In seconds.
    pub(crate) idle: Option<u64>,
    pub(crate) privacy: Privacy,
}

impl Machine {
    /// What the user set.
    pub(crate) fn of_settings(host: ProviderHost<'_>, operation: &str) -> Result<Self> {
        let mut machine = Self { tier: None, idle: None, privacy: Privacy::Private };
        for name in ["tier", "hibernation-timeout-seconds", "privacy"] {
            if let Some(value) = setting(host, name) {
                machine.set(operation, name, &value).map_err(|error| {
                    let subject = format!("plugins.provider-codesandbox.{name}");
                    error.hint(format!("`pcoder config set {subject} VALUE`")).subject(subject)
                })?;
            }
        }
        Ok(machine)
    }

    /// Sets one of them by name; a name that is not known is `invalid`.
    pub(crate) fn set(&mut self, operation: &str, name: &str, value: &str) -> Result<()> {
        let invalid = |message: String| Err(Error::invalid(operation, message).subject(name));
        match name {
            "tier" => match TIERS.iter().find(|tier| tier.eq_ignore_ascii_case(value)) {
                Some(tier) => self.tier = Some((*tier).to_owned()),
                None => return invalid(format!("a tier is one of {}", TIERS.join(", "))),
            },
            "privacy" => match Privacy::of(value) {
                Some(privacy) => self.privacy = privacy,
                None => return invalid("this is one of private, public-hosts, unlisted, public".to_owned()),
            },
            "hibernation-timeout-seconds" => self.idle = Some(idle(operation, name, value.parse().ok())?),
            _ => {
                return Err(Error::invalid(operation, "sandboxes have no such option")
                    .subject(name)
                    .hint("the options are `tier`, `privacy` and `hibernation-timeout-seconds`"));
            }
        }
        Ok(())
    }

    /// The body of a start.
    pub(crate) fn start(&self) -> Value {
        let mut body = json!({});
        if let Some(tier) = &self.tier {
            body["tier"] = tier.as_str().into();
        }
        if let Some(seconds) = self.idle {
            body["hibernation_timeout_seconds"] = seconds.into();
        }
        body
    }
}

/// A time that the service takes.
pub(crate) fn idle(operation: &str, name: &str, seconds: Option<u64>) -> Result<u64> {
    match seconds {
        Some(seconds) if (1..=LONGEST).contains(&seconds) => Ok(seconds),
        _ => Err(Error::invalid(operation, format!("this is a number of seconds from 1 to {LONGEST}")).subject(name)),
    }
}

/// A setting that says something.
pub(crate) fn setting(host: ProviderHost<'_>, name: &str) -> Option<String> {
    host.settings().get(name).filter(|value| !value.is_empty())
}

/// What helps where the service's agents are not where this setting says.
pub(crate) fn elsewhere(setting: &str, url: &str) -> String {
    let host = url.split('/').take(3).collect::<Vec<_>>().join("/");
    format!(
        "the service's agents are at another address than the setting says: \
         `pcoder config set plugins.provider-codesandbox.{setting} {host}`, then grant it"
    )
}

/// The home folder of commands.
pub(crate) fn home(host: ProviderHost<'_>, operation: &str) -> Result<String> {
    let home = setting(host, "home").unwrap_or_else(|| HOME.to_owned());
    if home.starts_with('~') {
        return Err(Error::invalid(operation, "the home folder is an absolute path").subject(home));
    }
    path::absolute(&home, HOME).map_err(|error| error.during(operation))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use pcoder_sdk::testing::FakeHost;

    use super::*;

    #[test]
    fn settings_become_the_body_of_a_start() {
        let host = FakeHost::new();
        assert_eq!(Machine::of_settings(host.provider(), "o").unwrap().start(), json!({}));
        host.set("tier", "nano");
        host.set("hibernation-timeout-seconds", "60");
        let machine = Machine::of_settings(host.provider(), "o").unwrap();
        assert_eq!(machine.start(), json!({"tier": "Nano", "hibernation_timeout_seconds": 60}));
    }

    #[test]
    fn a_setting_that_cannot_be_right_is_named() {
        for (name, value) in [("tier", "Huge"), ("privacy", "secret"), ("hibernation-timeout-seconds", "0")] {
            let host = FakeHost::new();
            host.set(name, value);
            let error = Machine::of_settings(host.provider(), "o").unwrap_err();
            assert_eq!(error.code, "invalid");
            assert_eq!(error.subject, Some(format!("plugins.provider-codesandbox.{name}")));
        }
    }

    #[test]
    fn the_home_is_absolute() {
        let host = FakeHost::new();
        assert_eq!(home(host.provider(), "o").as_deref(), Ok(HOME));
        host.set("home", "/root/");
        assert_eq!(home(host.provider(), "o").as_deref(), Ok("/root"));
        host.set("home", "~/x");
        assert_eq!(home(host.provider(), "o").unwrap_err().code, "invalid");
    }
}
