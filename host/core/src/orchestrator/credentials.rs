//! Credentials on their way to an instance.
//!
//! What is installed is a secret by reference, and the plugin that writes it never sees it. A login of Claude's is looked
//! at on the way, because two things about it go wrong silently: a refresh token rotates, so a copy of it logs out the
//! place that it was copied from, and `expiresAt` has to be a number of milliseconds.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use pcoder_runtime::error::code;
use pcoder_runtime::manifest::Kind;
use pcoder_runtime::secrets::{Broker, SecretSource};
use pcoder_runtime::target::Target;
use pcoder_runtime::{Error, text};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde_json::Value;

use crate::Pcoder;

const OPERATION: &str = "credentials.install";

/// Which credentials: an installer and one of its profiles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct CredentialName {
    installer: String,
    profile: String,
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.installer, self.profile)
    }
}

impl From<CredentialName> for String {
    fn from(name: CredentialName) -> Self {
        name.to_string()
    }
}

impl FromStr for CredentialName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once('/') {
            Some((installer, profile)) if !installer.is_empty() && !profile.is_empty() => {
                Ok(Self { installer: installer.to_owned(), profile: profile.to_owned() })
            }
            _ => Err(Error::new(code::INVALID, OPERATION, "credentials are named by an installer and a profile")
                .subject(text::for_people(text, 80))
                .hint("write `INSTALLER/PROFILE`, as in claude/oauth-token")),
        }
    }
}

impl Pcoder {
    /// Installs credentials on an instance, and returns the files that they are in there.
    ///
    /// # Errors
    /// `not-found` for an unknown installer, `invalid` for an unknown profile and a login that must not be copied,
    /// `unauthenticated` where the secret has no value, and the plugin's, with the path.
    pub async fn install_credentials(
        &self,
        name: &CredentialName,
        target: Arc<dyn Target>,
    ) -> Result<Vec<String>, Error> {
        let plugin = self.plugin(Kind::Credentials, &name.installer).await?;
        let profiles = plugin.credentials()?.profiles(self.context(&plugin)).await?;
        let Some(profile) = profiles.iter().find(|it| it.name == name.profile) else {
            let names: Vec<String> = profiles.iter().map(|it| format!("{}/{}", name.installer, it.name)).collect();
            return Err(Error::new(code::INVALID, OPERATION, "this installer has no such profile")
                .subject(text::for_people(&name.to_string(), 80))
                .hint(format!("it has {}", names.join(", "))));
        };
        let mut context = self.context_on(&plugin, target);
        context.secrets = Arc::new(Broker::new(Arc::new(Copied(self.secret_source()))));
        plugin.credentials()?.install(context, &name.profile).await?;
        Ok(profile.paths.clone())
    }
}

/// A source whose logins may be copied.
struct Copied(Arc<dyn SecretSource>);

impl SecretSource for Copied {
    fn lookup(&self, name: &str) -> Result<SecretString, Error> {
        let value = self.0.lookup(name)?;
        match copied(value.expose_secret(), super::events::now_ms()) {
            Ok(None) => Ok(value),
            Ok(Some(changed)) => Ok(SecretString::from(changed)),
            Err(error) => Err(error.subject(name)),
        }
    }
}

/// A login as it may go to another machine; nothing when it is as it should be, or no login of Claude's.
fn copied(text: &str, now_ms: u64) -> Result<Option<String>, Error> {
    let Ok(mut login) = serde_json::from_str::<Value>(text) else { return Ok(None) };
    let Some(claude) = login.get_mut("claudeAiOauth").and_then(Value::as_object_mut) else { return Ok(None) };
    let has_refresh = claude.get("refreshToken").is_some_and(|it| it.as_str() != Some("") && !it.is_null());
    if has_refresh {
        let message =
            "the login has a refresh token, which works in one place: used on a second one, it logs the first out";
        return Err(Error::new(code::INVALID, OPERATION, message).hint(
            "`claude setup-token` makes a token for other machines: install that as claude/oauth-token, or use an API key",
        ));
    }
    let Some(expires) = claude.get("expiresAt") else { return Ok(None) };
    let invalid = |message: &str| {
        Error::new(code::INVALID, OPERATION, message).hint("`claude setup-token` makes one that is right")
    };
    let (at, changed) = match expires {
        Value::Null => return Ok(None),
        Value::Number(number) => (number.as_u64(), false),
        Value::String(text) => (humantime::parse_rfc3339_weak(text).ok().and_then(ms_of), true),
        _ => (None, false),
    };
    let at = at.ok_or_else(|| invalid("the login's `expiresAt` is neither milliseconds since 1970 nor a date"))?;
    if at <= now_ms {
        return Err(Error::new(code::UNAUTHENTICATED, OPERATION, "the login has expired")
            .hint("log in again, or make a new token with `claude setup-token`"));
    }
    if !changed {
        return Ok(None);
    }
    claude.insert("expiresAt".to_owned(), at.into());
    Ok(Some(login.to_string()))
}

fn ms_of(time: std::time::SystemTime) -> Option<u64> {
    u64::try_from(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    #[test]
    fn a_refresh_token_goes_nowhere() {
        let login = r#"{"claudeAiOauth":{"accessToken":"a","refreshToken":"r","expiresAt":9999999999999}}"#;
        let error = copied(login, NOW).expect_err("refused");
        assert!(error.is(code::INVALID) && error.hint.is_some(), "{error}");
        for none in
            [r#"{"claudeAiOauth":{"accessToken":"a","refreshToken":""}}"#, r#"{"claudeAiOauth":{"refreshToken":null}}"#]
        {
            assert_eq!(copied(none, NOW), Ok(None));
        }
    }

    #[test]
    fn an_expiry_is_a_number_of_milliseconds_that_has_not_passed() {
        let with = |expires: &str| format!(r#"{{"claudeAiOauth":{{"accessToken":"a","expiresAt":{expires}}}}}"#);
        assert_eq!(copied(&with("1700000000001"), NOW), Ok(None));
        let changed = copied(&with("\"2030-01-02T03:04:05Z\""), NOW).expect("a date").expect("changed");
        let login: Value = serde_json::from_str(&changed).expect("JSON");
        assert_eq!(login["claudeAiOauth"]["expiresAt"], 1_893_553_445_000_u64);
        assert_eq!(login["claudeAiOauth"]["accessToken"], "a");
        assert!(copied(&with("1699999999999"), NOW).expect_err("passed").is(code::UNAUTHENTICATED));
        assert!(copied(&with("\"2001-01-02T03:04:05Z\""), NOW).expect_err("passed").is(code::UNAUTHENTICATED));
        for wrong in ["\"soon\"", "true", "-1", "1.5"] {
            assert!(copied(&with(wrong), NOW).expect_err(wrong).is(code::INVALID));
        }
    }

    #[test]
    fn what_is_no_login_of_claudes_stays_as_it_is() {
        for other in ["sk-ant-123", "{", r#"{"key":"x"}"#, "[1]"] {
            assert_eq!(copied(other, NOW), Ok(None));
        }
    }

    #[test]
    fn credentials_have_an_installer_and_a_profile() {
        let name: CredentialName = "claude/oauth-token".parse().expect("a name");
        assert_eq!(name.to_string(), "claude/oauth-token");
        for wrong in ["claude", "/x", "x/", ""] {
            assert!(wrong.parse::<CredentialName>().is_err());
        }
    }
}
