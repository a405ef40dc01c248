//! What is asked of the machine, so that a test can be another machine.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

/// A machine.
#[async_trait]
pub trait Sys: Send + Sync {
    /// `linux`, `macos`, `windows`, or another name of `std::env::consts::OS`.
    fn os(&self) -> &str;
    /// `x86_64`, `aarch64`, or another name of `std::env::consts::ARCH`.
    fn arch(&self) -> &str;
    /// Processors that this process may use.
    fn cpus(&self) -> Option<usize>;
    /// A variable of the environment that is set and not empty.
    fn variable(&self, name: &str) -> Option<OsString>;
    /// A small file's text.
    fn text(&self, path: &str) -> Option<String>;
    /// Whether there is something.
    fn exists(&self, path: &str) -> bool;
    /// Whether that is a file that can be started.
    fn is_program(&self, path: &Path) -> bool;
    /// What is in a folder, in the order of its names. Nothing for what is no folder.
    fn entries(&self, folder: &Path) -> Vec<PathBuf>;
    /// Opens a device for reading and writing, and closes it again.
    ///
    /// # Errors
    /// The kind of the system's.
    fn opens(&self, path: &str) -> Result<(), io::ErrorKind>;
    /// Bytes that are free where pcoder keeps things.
    fn free(&self) -> Option<u64>;
    /// A program on the `PATH`.
    fn find(&self, program: &str) -> Option<PathBuf>;
    /// All that a program prints, as far as that is not much, within a few seconds.
    ///
    /// # Errors
    /// What it did instead, in words.
    async fn output(&self, program: &Path, args: &[&str]) -> Result<String, String>;
    /// The first line that a program prints, or what it did instead.
    ///
    /// # Errors
    /// As [`Sys::output`].
    async fn answer(&self, program: &Path, args: &[&str]) -> Result<String, String>;
}
