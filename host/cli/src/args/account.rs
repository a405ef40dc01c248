//! `auth …`, `profile …`, `secret …`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Json;

#[derive(Debug, Subcommand)]
pub(crate) enum Auth {
    /// Say whether tools are logged in, and how
    #[command(after_help = "Exit codes: 0 all are logged in, 6 one is not, 1 it could not be found out.")]
    Status(AuthStatus),
    /// Log a tool in, or name its key
    #[command(after_help = "Examples:
  pcoder auth login claude                                the tool's own login, kept in a folder of its own
  pcoder auth login claude --paste                        without a browser on this machine: open an address, paste a code
  pcoder auth login codex -- --device-auth                with the tool's own arguments
  pcoder auth login claude --api-key env:WORK_KEY         a key, by reference: env:, file:, keyring:, command:")]
    Login(AuthLogin),
    /// Log a tool out, and forget how it logged in
    Logout(AuthLogout),
}

impl Auth {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Status(it) => it.json.json,
            Self::Login(it) => it.json.json,
            Self::Logout(it) => it.json.json,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct AuthStatus {
    /// The tool; all when none is named
    pub(crate) tool: Option<String>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct AuthLogin {
    /// The tool [default: the one that `run` starts]
    pub(crate) tool: Option<String>,
    /// Use a key from now on, named by where it comes from
    #[arg(long, value_name = "REFERENCE", conflicts_with_all = ["paste", "args"])]
    pub(crate) api_key: Option<String>,
    /// Log in to Claude by pasting a code from a browser anywhere
    #[arg(long, conflicts_with = "args")]
    pub(crate) paste: bool,
    #[command(flatten)]
    pub(crate) json: Json,
    /// The tool's own arguments
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AuthLogout {
    /// The tool [default: the one that `run` starts]
    pub(crate) tool: Option<String>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Profile {
    /// List profiles, and which are in use
    List(Json),
    /// Show a profile
    Show(ProfileNamed),
    /// Use a profile for its tool from now on
    Use(ProfileNamed),
    /// Make a profile
    #[command(after_help = "Examples:
  pcoder profile create work --tool claude --key env:WORK_KEY --model opus
  pcoder profile create gateway --tool codex --key keyring:gateway --endpoint https://llm.example.com/v1
  pcoder profile create mine --tool claude --auth oauth

The file is yours to edit; docs/profiles.md has its fields.")]
    Create(Box<ProfileCreate>),
    /// Remove a profile
    Remove(ProfileNamed),
}

impl Profile {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::List(it) => it.json,
            Self::Show(it) | Self::Use(it) | Self::Remove(it) => it.json.json,
            Self::Create(it) => it.json.json,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ProfileNamed {
    /// The profile
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) json: Json,
}

/// How a profile's tool logs in.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum AuthKind {
    /// With a key
    Api,
    /// With a login
    Oauth,
}

#[derive(Debug, Args)]
pub(crate) struct ProfileCreate {
    /// Its name: a-z, 0-9 and -
    pub(crate) name: String,
    /// The tool that it is for
    #[arg(long)]
    pub(crate) tool: String,
    /// How the tool logs in [default: api with --key, else as `pcoder auth` was told]
    #[arg(long)]
    pub(crate) auth: Option<AuthKind>,
    /// Where the key comes from: env:NAME, file:PATH, keyring:NAME or command:LINE
    #[arg(long, value_name = "REFERENCE")]
    pub(crate) key: Option<String>,
    /// The model
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// The model's service
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// The machine that it runs on
    #[arg(long)]
    pub(crate) provider: Option<String>,
    /// A variable, by reference; `value:TEXT` for what is no secret
    #[arg(long = "env", value_name = "NAME=REFERENCE", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// How long a run may take, in seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) wall_seconds: Option<std::num::NonZeroU64>,
    /// How many MiB `run --json` keeps of each stream [default: 64]
    #[arg(long, value_name = "MIB")]
    pub(crate) output_mib: Option<std::num::NonZeroU64>,
    /// One line for people
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// Use it for its tool from now on
    #[arg(long = "use")]
    pub(crate) and_use: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

/// What was typed is not repeated: it may be a key.
fn variable(text: &str) -> Result<(String, String), String> {
    pair(text, "expected NAME=REFERENCE")
}

fn account(text: &str) -> Result<(String, String), String> {
    pair(text, "expected TOOL=HOW, and HOW is `own`, `oauth` or a reference to a key")
}

pub(super) fn pair(text: &str, expected: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(expected.to_owned()),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// Put a secret into the system's keyring, as `keyring:NAME`; it is read from standard input or asked for
    Set(SecretNamed),
    /// Take a secret out of the system's keyring
    Remove(SecretNamed),
    /// Say whether a reference leads to a value, without showing it
    Check(SecretCheck),
}

impl Secret {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Set(it) | Self::Remove(it) => it.json.json,
            Self::Check(it) => it.json.json,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct SecretNamed {
    /// Its name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct SecretCheck {
    /// env:NAME, file:PATH, keyring:NAME or command:LINE
    pub(crate) reference: String,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct Setup {
    /// The tool that `run` starts when none is named
    #[arg(long, value_name = "TOOL")]
    pub(crate) default_tool: Option<String>,
    /// How a tool logs in: `claude=oauth`, `codex=env:WORK_KEY`, `claude=own` for your own way
    #[arg(long = "auth", value_name = "TOOL=HOW", value_parser = account)]
    pub(crate) auth: Vec<(String, String)>,
    /// Install the engines of these tools; of the default one when none is named
    #[arg(long, value_name = "TOOL", num_args = 0.., conflicts_with = "show")]
    pub(crate) install: Option<Vec<String>>,
    /// Show what is set up, and change nothing
    #[arg(long, conflicts_with_all = ["default_tool", "auth"])]
    pub(crate) show: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct EngineExport {
    /// Engines; all that are installed when none is named
    pub(crate) names: Vec<String>,
    /// The folder to write to
    #[arg(long, value_name = "FOLDER")]
    pub(crate) to: PathBuf,
    /// Another version than the default one
    #[arg(long)]
    pub(crate) version: Option<String>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct EngineImport {
    /// A file that `engine export` wrote, or a folder of them
    pub(crate) from: PathBuf,
    #[command(flatten)]
    pub(crate) json: Json,
}
