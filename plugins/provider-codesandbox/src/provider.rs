use pcoder_sdk::host::{ProviderHost, Stdio};
use pcoder_sdk::{
    BootOptions, CommandSpec, ExitStatus, Instance, Output, Provider, ProviderInfo, Result, WriteOptions,
};

use crate::config::HOME;
use crate::exec;
use crate::files::Files;
use crate::lifecycle::Lifecycle;

/// Sandboxes of CodeSandbox.
///
/// A sandbox that hibernates is woken by whatever needs its agent, as the service does it: a command, a file.
#[derive(Default)]
pub struct CodeSandbox;

impl Provider for CodeSandbox {
    fn info(&self) -> ProviderInfo {
        let features = ["stdin", "streaming", "terminal", "files", "fork", "pause", "ports"];
        ProviderInfo {
            name: "codesandbox".to_owned(),
            description: "Sandboxes of CodeSandbox".to_owned(),
            features: features.map(str::to_owned).to_vec(),
            home_dir: Some(HOME.to_owned()),
        }
    }

    fn boot(&self, host: ProviderHost<'_>, options: BootOptions) -> Result<Instance> {
        Lifecycle::new(host).boot(&options)
    }

    fn get(&self, host: ProviderHost<'_>, id: &str) -> Result<Instance> {
        Lifecycle::new(host).get(id)
    }

    fn list(&self, host: ProviderHost<'_>) -> Result<Vec<Instance>> {
        Lifecycle::new(host).list()
    }

    fn stop(&self, host: ProviderHost<'_>, id: &str) -> Result<()> {
        Lifecycle::new(host).stop(id)
    }

    fn resume(&self, host: ProviderHost<'_>, id: &str) -> Result<Instance> {
        Lifecycle::new(host).resume(id)
    }

    fn terminate(&self, host: ProviderHost<'_>, id: &str) -> Result<()> {
        Lifecycle::new(host).terminate(id)
    }

    fn fork(&self, host: ProviderHost<'_>, id: &str) -> Result<Instance> {
        Lifecycle::new(host).fork(id)
    }

    fn expose(&self, host: ProviderHost<'_>, id: &str, port: u16) -> Result<String> {
        Lifecycle::new(host).expose(id, port)
    }

    fn exec(&self, host: ProviderHost<'_>, id: &str, spec: CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus> {
        exec::exec(host, id, &spec, stdio)
    }

    fn capture(&self, host: ProviderHost<'_>, id: &str, spec: &CommandSpec, input: &[u8]) -> Result<Output> {
        exec::capture(host, id, spec, input)
    }

    fn read_file(&self, host: ProviderHost<'_>, id: &str, path: &str) -> Result<Vec<u8>> {
        Files::new(host, id, "provider.read-file", path)?.read()
    }

    fn write_file(
        &self,
        host: ProviderHost<'_>,
        id: &str,
        path: &str,
        content: &[u8],
        options: WriteOptions,
    ) -> Result<()> {
        Files::new(host, id, "provider.write-file", path)?.write(content, &options)
    }

    fn write_file_atomic(
        &self,
        host: ProviderHost<'_>,
        id: &str,
        path: &str,
        content: &[u8],
        options: WriteOptions,
    ) -> Result<()> {
        Files::new(host, id, "provider.write-file-atomic", path)?.write_atomic(content, &options)
    }

    fn file_exists(&self, host: ProviderHost<'_>, id: &str, path: &str) -> Result<bool> {
        Files::new(host, id, "provider.file-exists", path)?.exists()
    }

    fn create_directory(&self, host: ProviderHost<'_>, id: &str, path: &str, mode: Option<u32>) -> Result<()> {
        Files::new(host, id, "provider.create-directory", path)?.create_directory(mode)
    }

    fn delete_file(&self, host: ProviderHost<'_>, id: &str, path: &str) -> Result<()> {
        Files::new(host, id, "provider.delete-file", path)?.delete_file()
    }

    fn delete_directory(&self, host: ProviderHost<'_>, id: &str, path: &str) -> Result<()> {
        Files::new(host, id, "provider.delete-directory", path)?.delete_directory()
    }
}
