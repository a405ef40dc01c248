//! The provider.

use pcoder_sdk::host::{ProviderHost, Stdio};
use pcoder_sdk::{
    BootOptions, CommandSpec, ExitStatus, Instance, Output, Provider, ProviderInfo, Result, WriteOptions,
};

use crate::exec::{self, HOME};
use crate::{copy, files, life};

/// Machines that QEMU runs on this host.
#[derive(Default)]
pub struct Qemu;

impl Provider for Qemu {
    fn info(&self) -> ProviderInfo {
        ProviderInfo {
            name: "qemu".to_owned(),
            description: "Linux machines on this host, in QEMU".to_owned(),
            features: ["stdin", "streaming", "terminal", "fork", "pause", "ports", "engines-disk", "way-back"]
                .map(str::to_owned)
                .to_vec(),
            home_dir: Some(HOME.to_owned()),
        }
    }

    fn boot(&self, host: ProviderHost<'_>, options: BootOptions) -> Result<Instance> {
        life::boot(host, options)
    }

    fn get(&self, host: ProviderHost<'_>, id: &str) -> Result<Instance> {
        life::get(host, id)
    }

    fn list(&self, host: ProviderHost<'_>) -> Result<Vec<Instance>> {
        life::list(host)
    }

    fn stop(&self, host: ProviderHost<'_>, id: &str) -> Result<()> {
        life::stop(host, id)
    }

    fn resume(&self, host: ProviderHost<'_>, id: &str) -> Result<Instance> {
        life::resume(host, id)
    }

    fn terminate(&self, host: ProviderHost<'_>, id: &str) -> Result<()> {
        life::terminate(host, id)
    }

    fn fork(&self, host: ProviderHost<'_>, id: &str) -> Result<Instance> {
        copy::fork(host, id)
    }

    fn expose(&self, host: ProviderHost<'_>, id: &str, port: u16) -> Result<String> {
        life::expose(host, id, port)
    }

    fn exec(&self, host: ProviderHost<'_>, id: &str, spec: CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus> {
        exec::run(host, id, &spec, stdio)
    }

    fn capture(&self, host: ProviderHost<'_>, id: &str, spec: &CommandSpec, input: &[u8]) -> Result<Output> {
        exec::capture(host, id, spec, input)
    }

    fn read_file(&self, host: ProviderHost<'_>, id: &str, path: &str) -> Result<Vec<u8>> {
        files::read(host, id, path)
    }

    fn write_file(
        &self,
        host: ProviderHost<'_>,
        id: &str,
        path: &str,
        content: &[u8],
        options: WriteOptions,
    ) -> Result<()> {
        files::write(host, id, path, content, options)
    }

    fn write_file_atomic(
        &self,
        host: ProviderHost<'_>,
        id: &str,
        path: &str,
        content: &[u8],
        options: WriteOptions,
    ) -> Result<()> {
        files::write_atomic(host, id, path, content, options)
    }
}
