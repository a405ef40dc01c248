//! What Codex takes for a login: `auth.json` in its home folder.

use pcoder_sdk::host::CredentialsHost;
use pcoder_sdk::{Credentials, Form, Profile, Result, SecretFile};

const PATH: &str = "~/.codex/auth.json";

const PROFILES: [SecretFile; 2] = [
    SecretFile {
        name: "api-key",
        description: "A key of the OpenAI API",
        secret: "OPENAI_API_KEY",
        path: PATH,
        form: Form::Inside(|key| format!(r#"{{"auth_mode":"apikey","OPENAI_API_KEY":"{key}"}}"#)),
    },
    SecretFile {
        name: "auth-file",
        description: "A whole auth.json; its refresh token works on one machine only",
        secret: "CODEX_AUTH_JSON",
        path: PATH,
        form: Form::Whole,
    },
];

/// Logins for Codex.
#[derive(Default)]
pub struct CodexCredentials;

impl Credentials for CodexCredentials {
    fn profiles(&self) -> Vec<Profile> {
        SecretFile::profiles(&PROFILES)
    }

    fn install(&self, host: CredentialsHost<'_>, profile: &str) -> Result<()> {
        SecretFile::install(&PROFILES, host, profile)
    }
}

#[cfg(test)]
mod tests;
