//! What Claude Code takes for a login: an access token and scopes with `user:inference` in one JSON file.
//!
//! There is never a refresh token in it. Refresh tokens rotate: a copy on a second machine logs out the first. And there
//! is no `expiresAt`, because it must be a number that is right, and nobody told us one; Claude Code does without.

use pcoder_sdk::host::CredentialsHost;
use pcoder_sdk::{Credentials, Form, Profile, Result, SecretFile};

const PATH: &str = "~/.claude/.credentials.json";

const PROFILES: [SecretFile; 2] = [
    SecretFile {
        name: "oauth-token",
        description: "A token, as `claude setup-token` prints it",
        secret: "CLAUDE_ACCESS_TOKEN",
        path: PATH,
        form: Form::Inside(|token| {
            format!(r#"{{"claudeAiOauth":{{"accessToken":"{token}","scopes":["user:inference"]}}}}"#)
        }),
    },
    SecretFile {
        name: "credentials-file",
        description: "A whole .credentials.json; leave its refresh token out",
        secret: "CLAUDE_CREDENTIALS_JSON",
        path: PATH,
        form: Form::Whole,
    },
];

/// Logins for Claude Code.
#[derive(Default)]
pub struct ClaudeCredentials;

impl Credentials for ClaudeCredentials {
    fn profiles(&self) -> Vec<Profile> {
        SecretFile::profiles(&PROFILES)
    }

    fn install(&self, host: CredentialsHost<'_>, profile: &str) -> Result<()> {
        SecretFile::install(&PROFILES, host, profile)
    }
}

#[cfg(test)]
mod tests;
