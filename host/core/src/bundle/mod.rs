//! A portable folder: pcoder with its engines and plugins, to be moved from machine to machine.
//!
//! ```text
//! DIR/portable                  the marker: a program that finds it writes into this folder and nowhere else
//! DIR/pcoder, DIR/pcoder.cmd    start the program for the machine's platform
//! DIR/bin/PLATFORM/pcoder       the program, with its plugins
//! DIR/licences/                 of pcoder, of what it is made of, of the engines
//! DIR/bundle.json               every file above, with its sha256
//! DIR/state/                    engines, plugins that were added, and whatever a run writes
//! ```
//!
//! What is in `state` has pins of its own: engines the digests in `engines.lock`, plugins those in `plugins.lock`. The
//! rest of it is its user's.

mod export;
mod files;
mod manifest;
mod place;
mod share;
mod verify;

pub use export::{BundleExport, BundleExported, EnginesWanted};
pub use manifest::{BundledEngine, BundledFile, Manifest};
pub use verify::{BundleProblem, BundleReport};

/// The list of files.
const MANIFEST: &str = "bundle.json";

/// Starts the program on Unix. POSIX `sh`, and nothing else of the system but `uname` and `readlink`.
const WRAPPER: &str = include_str!("pcoder.sh");
/// Starts it on Windows.
const WRAPPER_WINDOWS: &str = include_str!("pcoder.cmd");
const LICENCE_MIT: &str = include_str!("../../../../LICENSE-MIT");
const LICENCE_APACHE: &str = include_str!("../../../../LICENSE-APACHE");
const LICENCES_OF_ENGINES: &str = include_str!("engines.txt");
