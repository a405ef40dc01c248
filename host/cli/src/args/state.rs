//! `config …`, `audit …`, and what shells and readers of manuals want.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Json;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) command: Option<ConfigCommand>,
    /// The project whose `pcoder.toml` counts [default: this folder]
    #[arg(long, value_name = "PATH")]
    pub(crate) project: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print one setting's value
    Get(ConfigNamed),
    /// Set one in your settings' file
    #[command(after_help = "Examples:
  pcoder config set tool codex
  pcoder config set profile.claude work
  pcoder config set secrets.MORPH_API_KEY keyring:morph")]
    Set(ConfigSet),
    /// Take one out of your settings' file
    Unset(ConfigNamed),
    /// Print where your settings' file is
    Path(Json),
}

impl Config {
    pub(super) fn json(&self) -> bool {
        match &self.command {
            None => self.json.json,
            Some(ConfigCommand::Get(it) | ConfigCommand::Unset(it)) => it.json.json,
            Some(ConfigCommand::Set(it)) => it.json.json,
            Some(ConfigCommand::Path(it)) => it.json,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ConfigNamed {
    /// The setting
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigSet {
    /// The setting
    pub(crate) name: String,
    /// Its value
    pub(crate) value: String,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Show what plugins did
    #[command(after_help = "Examples:
  pcoder audit show                               the last 50 records
  pcoder audit show --plugin provider-box --denied
  pcoder audit show --all --json                  one record a line")]
    Show(AuditShow),
    /// Look for records that were changed, removed or reordered
    #[command(after_help = "Exit codes: 0 it is whole, 5 it is not.")]
    Verify(AuditVerify),
}

impl Audit {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Show(it) => it.json.json,
            Self::Verify(it) => it.json.json,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct AuditShow {
    /// Only this plugin's
    #[arg(long, value_name = "NAME")]
    pub(crate) plugin: Option<String>,
    /// Only this call's
    #[arg(long, value_name = "CALL")]
    pub(crate) call: Option<String>,
    /// Only what was denied
    #[arg(long)]
    pub(crate) denied: bool,
    /// How many of the last records
    #[arg(short = 'n', long = "last", default_value_t = 50, value_name = "COUNT")]
    pub(crate) last: usize,
    /// All records
    #[arg(long, conflicts_with = "last")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct AuditVerify {
    /// The hash of the last record, as it was noted elsewhere
    #[arg(long, value_name = "HASH")]
    pub(crate) head: Option<String>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write a page for every command into this folder, instead of printing the first one
    #[arg(long, value_name = "FOLDER")]
    pub(crate) to: Option<PathBuf>,
}
