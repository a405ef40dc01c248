//! Providers: places where commands run.

use std::marker::PhantomData;

use crate::bindings::host::pcoder::plugin::stdio as raw;
use crate::bindings::provider::exports::pcoder::plugin::provider as contract;
use crate::error::{Error, Result};
use crate::exec_files::{CHUNK, ExecFiles};
use crate::export::begin;
use crate::host::{ProviderHost, Stdio};
use crate::types::{BootOptions, CommandSpec, ExitStatus, Instance, Output, ProviderInfo, WriteOptions};

/// A place where commands run: this host, a virtual machine, a container, somebody's cloud.
///
/// Every call gets a fresh instance of the plugin, made with [`Default`]: nothing in memory lasts from one call to the
/// next. What must last goes into the plugin's `state` folder.
///
/// The methods with a body are optional. Powers that a provider does not have answer `unsupported`, and the file
/// operations work by [`ExecFiles`] over [`Provider::capture`] unless they are overridden.
#[expect(clippy::missing_errors_doc, reason = "every method gives the contract's error, documented in types.wit")]
pub trait Provider: Default {
    /// Describes the provider. Does nothing else.
    fn info(&self) -> ProviderInfo;

    /// Starts an instance and returns once it is ready to run commands.
    fn boot(&self, host: ProviderHost<'_>, options: BootOptions) -> Result<Instance>;

    /// Describes an instance.
    fn get(&self, host: ProviderHost<'_>, id: &str) -> Result<Instance>;

    /// Lists the instances that this provider started.
    fn list(&self, host: ProviderHost<'_>) -> Result<Vec<Instance>>;

    /// Ends an instance and frees what it holds. One that is not there is no error.
    fn terminate(&self, host: ProviderHost<'_>, id: &str) -> Result<()>;

    /// Runs a command on an instance, connected to `stdio`, to its end.
    fn exec(&self, host: ProviderHost<'_>, id: &str, spec: CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus>;

    /// Halts an instance so that it can be resumed. Feature `pause`.
    fn stop(&self, host: ProviderHost<'_>, id: &str) -> Result<()> {
        let _ = host;
        Err(cannot("provider.stop", "this provider cannot stop an instance and keep it", id))
    }

    /// Continues a stopped instance and returns once it is ready. Feature `pause`.
    fn resume(&self, host: ProviderHost<'_>, id: &str) -> Result<Instance> {
        let _ = host;
        Err(cannot("provider.resume", "this provider cannot resume instances", id))
    }

    /// Copies a running instance. Feature `fork`.
    fn fork(&self, host: ProviderHost<'_>, id: &str) -> Result<Instance> {
        let _ = host;
        Err(cannot("provider.fork", "this provider cannot copy instances", id))
    }

    /// Makes a port of an instance reachable and returns its URL. Feature `ports`.
    fn expose(&self, host: ProviderHost<'_>, id: &str, port: u16) -> Result<String> {
        let _ = (host, port);
        Err(cannot("provider.expose", "this provider cannot make ports reachable", id))
    }

    /// Runs a command with its input and output in memory. This is what the file operations below are made of.
    fn capture(&self, host: ProviderHost<'_>, id: &str, spec: &CommandSpec, input: &[u8]) -> Result<Output> {
        let _ = (host, spec, input);
        Err(cannot("provider.capture", "this provider has no file operations", id))
    }

    /// How much of a file one call of [`Provider::capture`] carries, in bytes, for the file operations below.
    fn file_chunk(&self) -> usize {
        CHUNK
    }

    /// Reads a whole file of an instance.
    fn read_file(&self, host: ProviderHost<'_>, id: &str, path: &str) -> Result<Vec<u8>> {
        over_exec(self, host, id).read(path)
    }

    /// Writes a whole file in place.
    fn write_file(
        &self,
        host: ProviderHost<'_>,
        id: &str,
        path: &str,
        content: &[u8],
        options: WriteOptions,
    ) -> Result<()> {
        over_exec(self, host, id).write(path, content, options)
    }

    /// Writes a whole file so that readers see the old one or the new one.
    fn write_file_atomic(
        &self,
        host: ProviderHost<'_>,
        id: &str,
        path: &str,
        content: &[u8],
        options: WriteOptions,
    ) -> Result<()> {
        over_exec(self, host, id).write_atomic(path, content, options)
    }

    /// Whether there is a file or a folder.
    fn file_exists(&self, host: ProviderHost<'_>, id: &str, path: &str) -> Result<bool> {
        over_exec(self, host, id).exists(path)
    }

    /// Creates a folder and the missing ones above it.
    fn create_directory(&self, host: ProviderHost<'_>, id: &str, path: &str, mode: Option<u32>) -> Result<()> {
        over_exec(self, host, id).create_directory(path, mode)
    }

    /// Removes a file. One that is not there is no error.
    fn delete_file(&self, host: ProviderHost<'_>, id: &str, path: &str) -> Result<()> {
        over_exec(self, host, id).delete_file(path)
    }

    /// Removes a folder with all that it holds. One that is not there is no error.
    fn delete_directory(&self, host: ProviderHost<'_>, id: &str, path: &str) -> Result<()> {
        over_exec(self, host, id).delete_directory(path)
    }
}

fn cannot(operation: &str, message: &str, id: &str) -> Error {
    Error::unsupported(operation, message).subject(id)
}

fn over_exec<'a, P: Provider>(
    provider: &'a P,
    host: ProviderHost<'a>,
    id: &'a str,
) -> ExecFiles<impl Fn(&CommandSpec, &[u8]) -> Result<Output> + 'a> {
    ExecFiles::new(move |spec: &CommandSpec, input: &[u8]| provider.capture(host, id, spec, input))
        .with_chunk(provider.file_chunk())
}

/// Connects a [`Provider`] to the contract; [`crate::export!`] uses it.
#[doc(hidden)]
pub struct ProviderExport<P>(PhantomData<P>);

impl<P: Provider + 'static> contract::Guest for ProviderExport<P> {
    fn info() -> ProviderInfo {
        begin();
        P::default().info()
    }

    fn boot(options: BootOptions) -> Result<Instance> {
        begin();
        P::default().boot(ProviderHost::real(), options)
    }

    fn get(id: String) -> Result<Instance> {
        begin();
        P::default().get(ProviderHost::real(), &id)
    }

    fn list() -> Result<Vec<Instance>> {
        begin();
        P::default().list(ProviderHost::real())
    }

    fn stop(id: String) -> Result<()> {
        begin();
        P::default().stop(ProviderHost::real(), &id)
    }

    fn resume(id: String) -> Result<Instance> {
        begin();
        P::default().resume(ProviderHost::real(), &id)
    }

    fn terminate(id: String) -> Result<()> {
        begin();
        P::default().terminate(ProviderHost::real(), &id)
    }

    fn fork(id: String) -> Result<Instance> {
        begin();
        P::default().fork(ProviderHost::real(), &id)
    }

    fn exec(id: String, spec: CommandSpec, stdio: &raw::Stdio) -> Result<ExitStatus> {
        begin();
        P::default().exec(ProviderHost::real(), &id, spec, Stdio::from_host(stdio))
    }

    fn read_file(id: String, path: String) -> Result<Vec<u8>> {
        begin();
        P::default().read_file(ProviderHost::real(), &id, &path)
    }

    fn write_file(id: String, path: String, content: Vec<u8>, options: WriteOptions) -> Result<()> {
        begin();
        P::default().write_file(ProviderHost::real(), &id, &path, &content, options)
    }

    fn write_file_atomic(id: String, path: String, content: Vec<u8>, options: WriteOptions) -> Result<()> {
        begin();
        P::default().write_file_atomic(ProviderHost::real(), &id, &path, &content, options)
    }

    fn file_exists(id: String, path: String) -> Result<bool> {
        begin();
        P::default().file_exists(ProviderHost::real(), &id, &path)
    }

    fn create_directory(id: String, path: String, mode: Option<u32>) -> Result<()> {
        begin();
        P::default().create_directory(ProviderHost::real(), &id, &path, mode)
    }

    fn delete_file(id: String, path: String) -> Result<()> {
        begin();
        P::default().delete_file(ProviderHost::real(), &id, &path)
    }

    fn delete_directory(id: String, path: String) -> Result<()> {
        begin();
        P::default().delete_directory(ProviderHost::real(), &id, &path)
    }

    fn expose(id: String, port: u16) -> Result<String> {
        begin();
        P::default().expose(ProviderHost::real(), &id, port)
    }
}
