//! The engine store: the coding agents' own programs, pinned, downloaded, verified and installed.
//!
//! What may be installed, byte for byte, stands in `engines.lock` ([`EnginesLock`]). A [`Store`] puts it into a folder: bytes
//! are hashed and unpacked in one pass as they come, and one rename publishes the result, so that an engine is there
//! entirely or not at all, whatever is killed when. Registries, logins, proxies and certificates come from npm's
//! configuration ([`NetworkConfig`]).
//!
//! Invariants:
//! - Nothing here prints, ends the process, or reads its environment; that is passed in ([`Environment`]).
//! - No byte is trusted because of where it comes from; no file is executable before its package's sha512 matched.
//! - No file is written outside the staging folder, and no archive entry but regular files ([`SafePath`]).
//! - A login goes to the place it was configured for, and nowhere else ([`Secret`] has no `Display`).
#![forbid(unsafe_code)]

mod archive;
mod copy;
mod disk;
mod download;
mod error;
#[cfg(test)]
mod error_tests;
mod export;
mod extract;
mod fetch;
mod files;
mod findings;
#[cfg(feature = "generator")]
pub mod generator;
mod http;
mod import;
mod install;
mod install_lock;
mod ledger;
mod lock_file;
mod meter;
mod network;
mod npmrc;
mod pipeline;
mod place;
mod platform;
mod progress;
mod remote;
mod resume;
mod safe_path;
mod secret;
mod smoke;
mod sparse;
mod sri;
mod store;
mod sweep;
mod tree;
mod verify;
mod writer;

pub use disk::{DiskEngine, Disks, DisksPruned, EnginesDisk};
pub use error::{Error, Result, free_space};
pub use export::Exported;
pub use fetch::fetch;
pub use files::rename_folder;
pub use http::Patience;
pub use import::ImportOptions;
pub use install::{InstallOptions, Source};
pub use install_lock::Hold;
pub use lock_file::{Build, Builds, Engine, EngineVersion, EnginesLock, FORMAT, Locked, Package, Smoke};
pub use network::NetworkConfig;
pub use npmrc::{Environment, NpmPlaces};
pub use pcoder_http::ClientOptions;
pub use platform::Platform;
pub use progress::{Phase, Progress, Silent};
pub use remote::{RemoteFile, download};
pub use safe_path::{SafePath, UnsafePath};
pub use secret::Secret;
pub use sparse::SparseWriter;
pub use sri::{Sri, SriError};
pub use store::{Condition, EngineStatus, InstalledEngine, Pruned, Store};
pub use tree::{TreeDigest, TreeDigestError};
pub use verify::{Problem, ProblemKind, VerifyReport};
