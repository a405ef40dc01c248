//! `claude auth status`, read.

use pcoder_sdk::{AuthState, Error, Output, Result, code};
use serde::Deserialize;

/// What matters of the answer; newer versions add more.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    logged_in: bool,
    #[serde(default)]
    auth_method: Option<String>,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    org_name: Option<String>,
}

/// Reads the answer. Code 1 says "not logged in" and comes with the same JSON.
pub(crate) fn read(output: &Output) -> Result<AuthState> {
    let answer: Answer = serde_json::from_slice(output.stdout.trim_ascii()).map_err(|_| {
        Error::new(
            code::PROCESS,
            "agent.auth-status",
            format!(
                "`claude auth status` ended with {} and did not answer in JSON ({} bytes)",
                output.status.describe(),
                output.stdout.len()
            ),
        )
    })?;
    if !answer.logged_in {
        return Ok(AuthState::logged_out());
    }
    let method = match answer.auth_method.as_deref() {
        Some("api_key") => "api-key",
        Some("claude.ai") => "oauth",
        Some("oauth_token") => "token",
        Some(other) => other,
        None => "unknown",
    };
    let account = answer.email.or(answer.org_name).filter(|account| !account.is_empty());
    Ok(AuthState { account, ..AuthState::logged_in(method) })
}
