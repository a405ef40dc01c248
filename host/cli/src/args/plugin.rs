//! `plugin …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Json;

#[derive(Debug, Subcommand)]
pub(crate) enum Plugin {
    /// List plugins, and whether each has what it asks for
    List(Json),
    /// Show what a plugin asks for, what it was granted, and what it could never do
    Inspect(PluginInspect),
    /// Add a plugin, after showing what it asks for
    #[command(after_help = "Examples:
  pcoder plugin add ./provider-box.wasm
  pcoder plugin add https://example.com/provider-box.wasm --sha256 3f1c…
  pcoder plugin add ./provider-box.wasm --only net,secrets
  pcoder plugin add ./provider-files.wasm --root data=/srv/data

What is granted is granted to these very bytes. Other bytes of the same name are asked about again, and only about what
they want beyond that.")]
    Add(PluginAdd),
    /// Grant what a plugin asks for
    #[command(after_help = "Examples:
  pcoder plugin grant provider-box            all that it asks for
  pcoder plugin grant provider-box net        only its network destinations")]
    Grant(PluginGrant),
    /// Take away what a plugin was granted
    Revoke(PluginRevoke),
    /// Take a plugin away that was added
    Remove(PluginRemove),
}

impl Plugin {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::List(it) => it.json,
            Self::Inspect(it) => it.json.json,
            Self::Add(it) => it.json.json,
            Self::Grant(it) => it.json.json,
            Self::Revoke(it) => it.json.json,
            Self::Remove(it) => it.json.json,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct PluginInspect {
    /// A plugin's name, or a component's file
    pub(crate) plugin: String,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct PluginAdd {
    /// The component: a file, or an `https://` address
    #[arg(value_name = "FILE|URL")]
    pub(crate) source: String,
    /// Grant what is shown, without asking
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Refuse other bytes than the ones with this sha256
    #[arg(long, value_name = "HEX")]
    pub(crate) sha256: Option<String>,
    /// Grant these classes only: exec, service, files, net, secrets, target; none with `--only=`
    #[arg(long, value_name = "CLASS,…", value_delimiter = ',')]
    pub(crate) only: Option<Vec<String>>,
    /// The folder behind the name of a file root
    #[arg(long = "root", value_name = "NAME=FOLDER", value_parser = root)]
    pub(crate) roots: Vec<(String, PathBuf)>,
    /// Pin the programs that it may run to the bytes that they have now
    #[arg(long)]
    pub(crate) pin: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

fn root(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, folder)) if !name.is_empty() && !folder.is_empty() => Ok((name.to_owned(), folder.into())),
        _ => Err("expected NAME=FOLDER".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct PluginGrant {
    /// The plugin
    pub(crate) plugin: String,
    /// Classes of capability: exec, service, files, net, secrets, target; all when none is named
    #[arg(value_name = "CLASS")]
    pub(crate) classes: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Pin the programs that it may run to the bytes that they have now
    #[arg(long)]
    pub(crate) pin: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct PluginRevoke {
    /// The plugin
    pub(crate) plugin: String,
    /// Classes of capability: exec, service, files, net, secrets, target; all when none is named
    #[arg(value_name = "CLASS")]
    pub(crate) classes: Vec<String>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct PluginRemove {
    /// The plugin
    pub(crate) plugin: String,
    /// Remove the files that it kept, too
    #[arg(long)]
    pub(crate) purge: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}
