//! The provider `qemu`: Linux machines that QEMU runs on this host, in a folder that can be carried about.
//!
//! QEMU is a service of the host's: it outlives the call that booted it, and it is talked with over QMP, its protocol of
//! JSON lines. Commands run over SSH, which the host speaks. guest/README.md has the guest's side of all this.
//!
//! What there is on disk, below the root `state`:
//! - `instances/ID/instance.json`: what an instance is (`record`), written before anything else of it is there
//! - `instances/ID/seed.img`, `console.log`: what the guest is told, and what it says
//! - `layers/NAME.qcow2`: disks over the image's, which copies of an instance share (`disk`)
//! - `templates/ID/template.json`, `ram.img`, `state`: the saved memory of a guest, which others begin with (`template`)
//! - `blank-SIZEgib.qcow2`: what a new layer is a copy of
//! - `accelerators.json`: what did not work on this host (`ladder`)
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

mod boot;
mod cloud;
mod console;
mod copy;
mod disk;
mod engines;
mod exec;
mod facts;
mod files;
#[cfg(test)]
mod grants;
mod halt;
mod image;
mod ladder;
mod life;
mod machine;
mod migrate;
mod options;
#[cfg(test)]
mod peer;
mod ports;
mod qemu;
mod qmp;
mod record;
mod seed;
mod start;
mod store;
mod template;

pub use qemu::Qemu;

pcoder_sdk::export!(provider: Qemu);
