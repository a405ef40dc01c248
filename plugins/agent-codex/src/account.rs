//! The account and the model service, in Codex' words, and what a portable folder needs.

use pcoder_sdk::{Account, CommandSpec, Error, Launch, Result, setting};
use serde_json::{Map, Value, json};

/// The variable that the key is taken from. Codex itself reads it in `codex exec` only, and there it wins over the
/// login; through a provider with an `env_key` it is read everywhere, and is never written to `auth.json`.
pub(crate) const KEY_VARIABLE: &str = "CODEX_API_KEY";

/// The name of our model provider. It is none of the built-in ones: those cannot be changed.
const PROVIDER: &str = "pcoder";
/// OpenAI's own service.
const ENDPOINT: &str = "https://api.openai.com/v1";
/// The adapter's variable with settings for the engine, as JSON.
const ADAPTER_CONFIG: &str = "CODEX_CONFIG";

/// What chooses an account, a service or a model, for the engines 0.128.0 and 0.166.0 and for the adapter.
pub(crate) const VARIABLES: [&str; 14] = [
    "AZURE_OPENAI_*",
    "CODEX_ACCESS_TOKEN",
    "CODEX_AGENT_IDENTITY*",
    "CODEX_API_KEY",
    "CODEX_APP_SERVER_LOGIN_*",
    "CODEX_CONFIG",
    "CODEX_HOME",
    "CODEX_OSS_*",
    "CODEX_REFRESH_TOKEN_URL_OVERRIDE",
    "CODEX_REVOKE_TOKEN_URL_OVERRIDE",
    "CODEX_SQLITE_HOME",
    "DEFAULT_AUTH_REQUEST",
    "MODEL_PROVIDER",
    "OPENAI_*",
];

/// Settings for the engine, each with the tables that it is in.
fn settings(launch: &Launch, account: &Account<'_>) -> Vec<(&'static [&'static str], Value)> {
    let mut settings: Vec<(&'static [&'static str], Value)> = Vec::new();
    if setting(&launch.options, "portable") == Some("true") {
        // The sandbox lets commands write to `/tmp` whatever `TMPDIR` is, and makes folders there to be mounted over.
        settings.push((&["sandbox_workspace_write", "exclude_slash_tmp"], true.into()));
    }
    if let Some(model) = account.model {
        settings.push((&["model"], model.into()));
    }
    if account.uses_api_key() {
        settings.extend::<[(&'static [&'static str], Value); 6]>([
            (&["model_provider"], PROVIDER.into()),
            (&["model_providers", PROVIDER, "name"], "API".into()),
            (&["model_providers", PROVIDER, "base_url"], account.endpoint.unwrap_or(ENDPOINT).into()),
            (&["model_providers", PROVIDER, "wire_api"], "responses".into()),
            (&["model_providers", PROVIDER, "env_key"], KEY_VARIABLE.into()),
            // While it runs, Codex keeps the whole environment in a file that everybody may read, the key with it.
            (&["features", "shell_snapshot"], false.into()),
        ]);
    }
    settings
}

/// Options of Codex, to stand in front of the user's own ([`crate::options::in_front`]), which win.
pub(crate) fn options(launch: &Launch, account: &Account<'_>) -> Vec<String> {
    // A string of JSON without control characters is a string of TOML.
    let option = |(name, value): (&[&str], Value)| ["-c".to_owned(), format!("{}={value}", name.join("."))];
    settings(launch, account).into_iter().flat_map(option).collect()
}

/// The folder of the login.
pub(crate) fn home(spec: CommandSpec, account: &Account<'_>) -> CommandSpec {
    match account.config_dir {
        Some(folder) => spec.with_env("CODEX_HOME", folder),
        None => spec,
    }
}

/// The same for the adapter, which takes no options for the engine: variables, over what the user's settings put there.
pub(crate) fn adapter(spec: CommandSpec, launch: &Launch) -> Result<CommandSpec> {
    let account = launch.account()?;
    let mut spec = home(spec, &account);
    let settings = settings(launch, &account);
    if account.uses_api_key() {
        // Adapters forget a configured provider when they load a session, and go to the built-in one.
        spec = spec.with_env("MODEL_PROVIDER", PROVIDER);
    }
    if !settings.is_empty() {
        let mut config = user_config(launch)?;
        for (name, value) in settings {
            insert(&mut config, name, value)?;
        }
        spec = spec.with_env(ADAPTER_CONFIG, Value::Object(config).to_string());
    }
    Ok(spec)
}

fn insert(table: &mut Map<String, Value>, name: &[&str], value: Value) -> Result<()> {
    match name {
        [] => Ok(()),
        [name] => {
            table.insert((*name).to_owned(), value);
            Ok(())
        }
        [first, rest @ ..] => match table.entry(*first).or_insert_with(|| json!({})) {
            Value::Object(inner) => insert(inner, rest, value),
            _ => Err(wrong_config()),
        },
    }
}

fn user_config(launch: &Launch) -> Result<Map<String, Value>> {
    match setting(&launch.env, ADAPTER_CONFIG) {
        Some(text) => serde_json::from_str(text).map_err(|_| wrong_config()),
        None => Ok(Map::new()),
    }
}

fn wrong_config() -> Error {
    Error::invalid("agent.acp", "it is not an object of JSON with Codex' settings").subject(ADAPTER_CONFIG)
}
