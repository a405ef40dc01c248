//! The instance that a call is about, as the host sees it.

use async_trait::async_trait;

use crate::bindings::host::pcoder::plugin::types::{CommandSpec, ExitStatus, Output, WriteOptions};
use crate::error::Error;
use crate::host::stdio::Stdio;
use crate::secrets::Carried;

/// One instance of some provider. `core` implements it over a provider plugin; the runtime asks it on behalf of plugins
/// whose world imports `target`, after the gate said yes.
#[async_trait]
pub trait Target: Send + Sync {
    /// The home folder on the instance, absolute.
    async fn home_dir(&self) -> Result<String, Error>;
    /// Runs a command and keeps what it wrote, at most `limit` bytes. Its variables and its input may hold placeholders,
    /// whose values are in `carried`.
    async fn run(&self, spec: CommandSpec, input: Vec<u8>, limit: u64, carried: Carried) -> Result<Output, Error>;
    /// Runs a command with these streams.
    async fn exec(&self, spec: CommandSpec, stdio: Stdio, carried: Carried) -> Result<ExitStatus, Error>;
    /// Reads a whole file.
    async fn read_file(&self, path: String) -> Result<Vec<u8>, Error>;
    /// Writes a whole file; `atomic` as in `write-file-atomic`. The content may hold placeholders.
    async fn write_file(
        &self,
        path: String,
        content: Vec<u8>,
        options: WriteOptions,
        atomic: bool,
        carried: Carried,
    ) -> Result<(), Error>;
    /// Whether there is a file or a folder.
    async fn file_exists(&self, path: String) -> Result<bool, Error>;
    /// Creates a folder and the missing ones above it.
    async fn create_directory(&self, path: String, mode: Option<u32>) -> Result<(), Error>;
    /// Removes a file.
    async fn delete_file(&self, path: String) -> Result<(), Error>;
    /// Removes a folder with all that it holds.
    async fn delete_directory(&self, path: String) -> Result<(), Error>;
}
