//! What Claude Code takes for a login: an access token and scopes with `user:inference` in one JSON file.
//!
//! There is never a refresh token in it. Refresh tokens rotate: a copy on a second machine logs out the first. And there
//! is no `expiresAt`, because it must be a number that is right, and nobody told us one; Claude Code does without.

use pcoder_sdk::host::CredentialsHost;
use pcoder_sdk::{Credentials, Error, Profile, Result, install_file, quotable_secret};

const PATH: &str = "~/.claude/.credentials.json";
const TOKEN: &str = "CLAUDE_ACCESS_TOKEN";
const DOCUMENT: &str = "CLAUDE_CREDENTIALS_JSON";

/// Logins for Claude Code.
#[derive(Default)]
pub struct ClaudeCredentials;

impl Credentials for ClaudeCredentials {
    fn profiles(&self) -> Vec<Profile> {
        let profile = |name: &str, description: &str, secret: &str| Profile {
            name: name.to_owned(),
            description: description.to_owned(),
            secrets: vec![secret.to_owned()],
            paths: vec![PATH.to_owned()],
        };
        vec![
            profile("oauth-token", "A token, as `claude setup-token` prints it", TOKEN),
            profile("credentials-file", "A whole .credentials.json; leave its refresh token out", DOCUMENT),
        ]
    }

    fn install(&self, host: CredentialsHost<'_>, profile: &str) -> Result<()> {
        let content = match profile {
            "oauth-token" => document(&quotable_secret(host, TOKEN)?),
            "credentials-file" => host.secrets().get(DOCUMENT)?,
            _ => {
                return Err(Error::invalid("credentials.install", "the profiles are oauth-token and credentials-file")
                    .subject(profile));
            }
        };
        install_file(host, PATH, content.as_bytes())
    }
}

fn document(token: &str) -> String {
    format!(r#"{{"claudeAiOauth":{{"accessToken":"{token}","scopes":["user:inference"]}}}}"#)
}

#[cfg(test)]
mod tests;
