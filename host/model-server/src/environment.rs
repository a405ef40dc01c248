//! What points the real engines at a [`ModelServer`](crate::ModelServer) and keeps them off every other network.
//!
//! Pure: it names variables and writes a configuration, and changes nothing. The engines are to be started with an
//! environment that is otherwise *cleared* (plus `PATH`, and a `HOME` that is not the user's): a variable or a login of
//! the user would win over some of these, and the credential it holds would be sent to this server.
//!
//! With it, these command lines need nobody at the keyboard, as root or not. The script goes to standard input, which
//! must end:
//!
//! | | command line | script |
//! |---|---|---|
//! | reply | `claude -p` | any text |
//! | file change | `claude -p --permission-mode acceptEdits` | `@patch FILE TEXT` |
//! | reply | `codex exec --skip-git-repo-check -` | any text |
//! | file change | `codex exec --skip-git-repo-check -s workspace-write -` | `@patch FILE TEXT` |
//!
//! Over ACP, `@shx COMMAND` makes either adapter ask for leave. Do not point an engine at an address where nobody
//! listens: the newer Codex engines wait for the network without end, whatever the number of retries.

use std::path::Path;

use toml::{Table, Value};

/// The model that scripts are written for: every Codex engine since 0.128 has its description built in, so none asks a
/// server for it, and its tools are functions and not programs in a script language.
pub const CODEX_MODEL: &str = "gpt-5.5";
/// The name of the model provider in Codex' configuration.
pub const CODEX_PROVIDER: &str = "offline";
/// The variable that the Codex provider takes its key from.
pub const CODEX_KEY_VARIABLE: &str = "PCODER_OFFLINE_KEY";
/// A key that is none.
pub const OFFLINE_KEY: &str = "sk-offline-not-a-secret";

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Why it is needed.
    pub why: &'static str,
}

fn variable(name: &'static str, value: impl Into<String>, why: &'static str) -> Variable {
    Variable { name, value: value.into(), why }
}

/// The environment of `claude`, and of the Claude ACP adapter, which passes it on.
///
/// `base_url` is [`ModelServer::anthropic_url`](crate::ModelServer::anthropic_url); `state` is a folder of the run's own.
#[must_use]
pub fn claude(base_url: &str, key: &str, state: &Path) -> Vec<Variable> {
    vec![
        variable("ANTHROPIC_BASE_URL", base_url, "the server to ask"),
        variable(
            "ANTHROPIC_API_KEY",
            key,
            "without a credential the engine asks nobody and says that nobody is logged in",
        ),
        variable(
            "CLAUDE_CONFIG_DIR",
            state.to_string_lossy(),
            "settings, login and transcripts of the user stay out of it: a login there would reach the server, and \
             settings there can replace the variables here",
        ),
        variable(
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
            "1",
            "no telemetry, feature flags, update checks or session titles: with it the engine looks up no other host",
        ),
        variable("CLAUDE_CODE_MAX_RETRIES", "0", "a refusal, 401 included, is otherwise retried for minutes"),
    ]
}

/// What else the Claude ACP adapter needs.
#[must_use]
pub fn claude_acp(engine: &Path) -> Vec<Variable> {
    vec![variable(
        "CLAUDE_CODE_EXECUTABLE",
        engine.to_string_lossy(),
        "the engine to start: the adapter is installed without one",
    )]
}

/// The environment of `codex`, and of the Codex ACP adapter, which passes it on.
///
/// `home` is a folder that exists, holds [`codex_config`] as `config.toml`, and can be written. Keep it out of the
/// folder for temporary files: there the engine warns and leaves out its helper programs.
#[must_use]
pub fn codex(key: &str, home: &Path) -> Vec<Variable> {
    vec![
        variable(
            "CODEX_HOME",
            home.to_string_lossy(),
            "configuration, login and transcripts of the user stay out of it",
        ),
        variable(CODEX_KEY_VARIABLE, key, "the provider's `env_key`"),
    ]
}

/// What else the Codex ACP adapter needs.
#[must_use]
pub fn codex_acp(engine: &Path) -> Vec<Variable> {
    vec![
        variable("CODEX_PATH", engine.to_string_lossy(), "the engine to start: the adapter is installed without one"),
        variable(
            "MODEL_PROVIDER",
            CODEX_PROVIDER,
            "adapters forget the configured provider when they load a session, and would go to the built-in one",
        ),
        variable(
            "INITIAL_AGENT_MODE",
            "workspace-write",
            "the newer adapters' own first mode asks a model for approval and never the client",
        ),
        variable("NO_BROWSER", "1", "no login page is opened"),
    ]
}

/// The text of Codex' `config.toml`.
///
/// `base_url` is [`ModelServer::openai_url`](crate::ModelServer::openai_url). (The variable `OPENAI_BASE_URL` is ignored
/// by the engine, hence a file.)
#[must_use]
pub fn codex_config(base_url: &str) -> String {
    let text = |value: &str| Value::String(value.to_owned());
    let table = |fields: Vec<(&str, Value)>| {
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
        Value::Table(fields.collect())
    };
    let provider = table(vec![
        ("name", text("Offline model")),
        ("base_url", text(base_url)),
        ("wire_api", text("responses")),
        ("env_key", text(CODEX_KEY_VARIABLE)),
        // A refusal is final: each test or demonstration would otherwise wait for every retry.
        ("request_max_retries", Value::Integer(0)),
        ("stream_max_retries", Value::Integer(0)),
    ]);
    let config: Table = [
        ("model", text(CODEX_MODEL)),
        ("model_provider", text(CODEX_PROVIDER)),
        ("check_for_update_on_startup", Value::Boolean(false)),
        // Statistics go to the vendor's host whatever the provider is.
        ("analytics", table(vec![("enabled", Value::Boolean(false))])),
        // Plugins are fetched from two more hosts.
        ("features", table(vec![("plugins", Value::Boolean(false))])),
        ("model_providers", table(vec![(CODEX_PROVIDER, provider)])),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    config.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_says_what_it_should() {
        let config: Table = codex_config("http://127.0.0.1:1/v1").parse().unwrap();
        assert_eq!(config["model_provider"].as_str(), Some("offline"));
        let provider = &config["model_providers"]["offline"];
        assert_eq!(provider["base_url"].as_str(), Some("http://127.0.0.1:1/v1"));
        assert_eq!(provider["env_key"].as_str(), Some(CODEX_KEY_VARIABLE));
        assert_eq!(config["analytics"]["enabled"].as_bool(), Some(false));
        assert_eq!(config["features"]["plugins"].as_bool(), Some(false));
    }

    #[test]
    fn every_variable_has_a_reason_and_comes_once() {
        let folder = Path::new("state");
        for variables in [
            [claude("http://x", "k", folder), claude_acp(folder)].concat(),
            [codex("k", folder), codex_acp(folder)].concat(),
        ] {
            let mut names: Vec<_> = variables.iter().map(|variable| variable.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), variables.len());
            assert!(variables.iter().all(|variable| !variable.why.is_empty()));
        }
    }
}
