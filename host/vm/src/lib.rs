//! What a virtual machine needs of this host: QEMU, an accelerator, an image; and how they get here.
//!
//! - [`find_qemu`] finds a QEMU that can be used, and says what is wrong with one that cannot.
//! - [`ladder`] says which accelerators a guest may be tried with. Whether it then runs is found out by running one.
//! - [`Images`] is the folder of images: what is there, whether it is whole, new ones out of a folder.
//! - [`bootstrap()`] brings what is missing, as a [`Manifest`] says.
//! - [`HostFacts`] is all that in one record, for whoever starts machines.
//!
//! Invariants:
//! - Nothing here prints, ends the process, or reads its environment; the machine is a [`Sys`].
//! - An image or a QEMU is there whole or not at all. What it must be is in a manifest, by sha256; nothing has its name
//!   before that was compared.
//! - Starting a machine is not done here, and no accelerator is opened for longer than a look.
#![forbid(unsafe_code)]

mod accelerators;
mod arch;
mod archive;
mod bootstrap;
mod cloud;
mod copy;
mod error;
#[cfg(test)]
mod error_tests;
mod facts;
#[cfg(test)]
mod fake;
mod files;
mod guest;
mod images;
mod manifest;
mod obtain;
mod qemu;
mod sys;
mod tried;

pub use accelerators::{Accelerator, ladder};
pub use arch::{Arch, platform};
pub use bootstrap::{Bootstrap, Bootstrapped, Outcome, Places, Reporter, Settled, bootstrap};
pub use error::{Error, Result};
pub use facts::{HostFacts, QemuFact};
pub use guest::{DiskFormat, Guest, Part, Setup};
pub use images::{Image, Images, Imported, Listed};
pub use manifest::{Archive, Compression, ImageEntry, ImageFile, Manifest, Origin, QemuEntry};
pub use qemu::{OLDEST, Place as QemuPlace, Qemu, Version, find as find_qemu};
pub use sys::Sys;
pub use tried::{TRIED, Tried};
