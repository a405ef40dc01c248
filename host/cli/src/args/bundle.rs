//! `bundle …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Json;

const EXPORT: &str = "\
The folder holds the program, the engines, the plugins that were added, licences, and a list of every file
with its sha256. It runs from wherever it is moved to, and writes nothing outside of itself. Logins, the audit
and plugins' own files stay here. There are no images of virtual machines in this version, so none go along.

Claude Code's licence lets you copy it for yourself and not for others.

Examples:
  pcoder bundle export /media/stick/pcoder
  pcoder bundle export \"D:\\my tools\\pcoder\" --engine codex
  pcoder bundle export /media/stick/pcoder --update";

#[derive(Debug, Subcommand)]
pub(crate) enum Bundle {
    /// Make a folder with this pcoder, its engines and its plugins
    #[command(after_help = EXPORT)]
    Export(BundleExport),
    /// Compare such a folder with what was exported
    #[command(after_help = "Exit codes: 0 all is as it was, 5 something is not.")]
    Verify(BundleVerify),
}

impl Bundle {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Export(it) => it.json.json,
            Self::Verify(it) => it.json.json,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct BundleExport {
    /// The folder to make
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// Only these engines [default: every default one that is installed]
    #[arg(long = "engine", value_name = "NAME", value_delimiter = ',')]
    pub(crate) engines: Vec<String>,
    /// No engines
    #[arg(long, conflicts_with = "engines")]
    pub(crate) no_engines: bool,
    /// Take the profiles along; they name secrets and hold none
    #[arg(long)]
    pub(crate) profiles: bool,
    /// Take the settings along
    #[arg(long)]
    pub(crate) settings: bool,
    /// Replace a bundle that is there, and keep what was written in it
    #[arg(long)]
    pub(crate) update: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct BundleVerify {
    /// The folder [default: the one that this pcoder is in]
    #[arg(value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) json: Json,
}
