//! What Codex takes for a login: `auth.json` in its home folder.

use pcoder_sdk::host::CredentialsHost;
use pcoder_sdk::{Credentials, Error, Profile, Result, install_file, quotable_secret};

const PATH: &str = "~/.codex/auth.json";
const KEY: &str = "OPENAI_API_KEY";
const DOCUMENT: &str = "CODEX_AUTH_JSON";

/// Logins for Codex.
#[derive(Default)]
pub struct CodexCredentials;

impl Credentials for CodexCredentials {
    fn profiles(&self) -> Vec<Profile> {
        let profile = |name: &str, description: &str, secret: &str| Profile {
            name: name.to_owned(),
            description: description.to_owned(),
            secrets: vec![secret.to_owned()],
            paths: vec![PATH.to_owned()],
        };
        vec![
            profile("api-key", "A key of the OpenAI API", KEY),
            profile("auth-file", "A whole auth.json; its refresh token works on one machine only", DOCUMENT),
        ]
    }

    fn install(&self, host: CredentialsHost<'_>, profile: &str) -> Result<()> {
        let content = match profile {
            "api-key" => document(&quotable_secret(host, KEY)?),
            "auth-file" => host.secrets().get(DOCUMENT)?,
            _ => {
                return Err(
                    Error::invalid("credentials.install", "the profiles are api-key and auth-file").subject(profile)
                );
            }
        };
        install_file(host, PATH, content.as_bytes())
    }
}

fn document(key: &str) -> String {
    format!(r#"{{"auth_mode":"apikey","OPENAI_API_KEY":"{key}"}}"#)
}

#[cfg(test)]
mod tests;
