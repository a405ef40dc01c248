//! `runtime …`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Json;

#[derive(Debug, Subcommand)]
pub(crate) enum Runtime {
    /// Show what this machine has, and how tools are best run on it
    Probe(Json),
    /// Bring what a virtual machine needs: an image, and QEMU where the manifest has one for this system
    #[command(after_help = "Examples:
  pcoder runtime bootstrap --manifest https://example.com/vm-manifest.json
  pcoder runtime bootstrap --image target/guest      an image that was built here
  pcoder runtime bootstrap --image noble             Ubuntu's cloud image, as docs/runbook.md says
  pcoder runtime bootstrap --offline                 from a folder that was brought, with its vm-manifest.json

Run again, it does nothing when all is there, and goes on where it was stopped.")]
    Bootstrap(RuntimeBootstrap),
    /// List the images of virtual machines, check and remove them
    Images(RuntimeImages),
}

impl Runtime {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Probe(it) => it.json,
            Self::Bootstrap(it) => it.json.json,
            Self::Images(it) => match &it.command {
                None => it.json.json,
                Some(ImagesCommand::Verify(it) | ImagesCommand::Remove(it)) => it.json.json,
            },
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RuntimeBootstrap {
    /// Where images and QEMUs are, and what they must be: a file or an address [default: PCODER_VM_MANIFEST, else a
    /// `vm-manifest.json` in the portable folder or among pcoder's files]
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<OsString>,
    /// Take the image from a folder: what `cargo xtask guest-image` made, or a cloud's disk with its kernel and its
    /// initial file system
    #[arg(long, value_name = "FOLDER")]
    pub(crate) image: Option<PathBuf>,
    /// Bring again what is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not use the network
    #[arg(long)]
    pub(crate) offline: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RuntimeImages {
    #[command(subcommand)]
    pub(crate) command: Option<ImagesCommand>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImagesCommand {
    /// Compare every byte of an image with what it should be
    Verify(ImageNamed),
    /// Remove an image; machines that were made of it do not start any more
    Remove(ImageNamed),
}

#[derive(Debug, Args)]
pub(crate) struct ImageNamed {
    /// The image
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) json: Json,
}
