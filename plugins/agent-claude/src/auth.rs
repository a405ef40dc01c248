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
    let method = match (answer.logged_in, answer.auth_method.as_deref()) {
        (false, _) => "none",
        (true, Some("api_key")) => "api-key",
        (true, Some("claude.ai")) => "oauth",
        (true, Some("oauth_token")) => "token",
        (true, Some(other)) => other,
        (true, None) => "unknown",
    };
    let account = answer.email.or(answer.org_name).filter(|account| answer.logged_in && !account.is_empty());
    Ok(AuthState { logged_in: answer.logged_in, method: method.to_owned(), account })
}
