//! Claude's authorisation server, and what a child that uses a Claude login must not inherit.

use url::Url;

use crate::error::{Error, Result};
use crate::service::{Loopback, Service, TokenFormat};
use crate::tokens::Tokens;

/// Who pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// A Claude subscription.
    Subscription,
    /// An account of the developer console.
    Console,
}

/// Where a browser with a subscription is sent.
pub const SUBSCRIPTION_AUTHORIZE_URL: &str = "https://claude.com/cai/oauth/authorize";
/// Where a browser with a console account is sent.
pub const CONSOLE_AUTHORIZE_URL: &str = "https://platform.claude.com/oauth/authorize";
/// Takes JSON.
pub const TOKEN_URL: &str = "https://platform.claude.com/v1/oauth/token";
/// Shows the user `code#state` to paste.
pub const MANUAL_REDIRECT_URI: &str = "https://platform.claude.com/oauth/code/callback";
/// Claude Code's public client.
pub const CLIENT_ID: &str = "9d1c250a-e61b-44d9-88ed-5944d1962f5e";
/// What Claude Code asks for when a person logs in.
pub const SCOPES: [&str; 6] = [
    "org:create_api_key",
    "user:profile",
    "user:inference",
    "user:sessions:claude_code",
    "user:mcp_servers",
    "user:file_upload",
];
/// Without it Claude Code takes a credentials file as "not logged in".
pub const INFERENCE_SCOPE: &str = "user:inference";

/// Claude's authorisation server, as Claude Code uses it.
///
/// # Errors
/// `Config` if a constant of this module were no URL; a test makes sure that each is one.
pub fn service(mode: Mode) -> Result<Service> {
    let authorize_url = match mode {
        Mode::Subscription => SUBSCRIPTION_AUTHORIZE_URL,
        Mode::Console => CONSOLE_AUTHORIZE_URL,
    };
    Ok(Service {
        authorize_url: url(authorize_url)?,
        token_url: url(TOKEN_URL)?,
        client_id: CLIENT_ID.to_owned(),
        scopes: SCOPES.map(str::to_owned).to_vec(),
        redirect_uri: MANUAL_REDIRECT_URI.to_owned(),
        loopback: Some(Loopback { host: "localhost".to_owned(), port: 0, path: "/callback".to_owned() }),
        authorize_params: vec![("code".to_owned(), "true".to_owned())],
        token_format: TokenFormat::Json,
    })
}

fn url(text: &str) -> Result<Url> {
    text.parse().map_err(|_| Error::Config { subject: "a URL of Claude's", detail: text.to_owned() })
}

/// Whether Claude Code takes these tokens as a login. One that has expired counts.
pub fn is_login(tokens: &Tokens) -> bool {
    tokens.scopes.iter().any(|scope| scope == INFERENCE_SCOPE)
}

/// A variable of the environment that a child with a login must not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrubbed {
    /// Its name.
    pub name: &'static str,
    /// What it would do.
    pub reason: &'static str,
}

const SCRUBBED: [Scrubbed; 4] = [
    Scrubbed {
        name: "ANTHROPIC_BASE_URL",
        reason: "the login's token is sent to whatever server it names, so it would hand the login over",
    },
    Scrubbed { name: "ANTHROPIC_API_KEY", reason: "it beats the login, and the key is billed instead" },
    Scrubbed {
        name: "ANTHROPIC_AUTH_TOKEN",
        reason: "it beats the login and the key, and is sent beside the key when both are set",
    },
    Scrubbed {
        name: "CLAUDE_CODE_OAUTH_TOKEN",
        reason: "it beats the credentials file; whoever passes the login itself in it sets it after scrubbing",
    },
];

/// What must be taken out of the environment of a child that uses a login, and why. `settings.json` of the child can set
/// the same variables in its `env`, and these beat the process's: a child gets a configuration folder without them.
pub const fn scrub_for_login() -> &'static [Scrubbed] {
    &SCRUBBED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_services_can_be_used_and_differ_in_where_the_browser_goes() {
        let (subscription, console) = (service(Mode::Subscription).expect("it"), service(Mode::Console).expect("it"));
        subscription.check().expect("secure");
        console.check().expect("secure");
        assert_eq!(Service { authorize_url: console.authorize_url.clone(), ..subscription.clone() }, console);
        assert_ne!(subscription, console);
    }

    #[test]
    fn what_would_send_a_login_elsewhere_or_beat_it_is_scrubbed() {
        let names: Vec<_> = scrub_for_login().iter().map(|it| it.name).collect();
        for name in ["ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"] {
            assert!(names.contains(&name), "{name}");
        }
    }
}
