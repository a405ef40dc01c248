//! One instance that is always there. Commands and paths go to the host as they came, because the grants `as called`
//! and `called` hold for the very command and the very path of the call and for nothing else.

use pcoder_sdk::host::{ProviderHost, Stdio};
use pcoder_sdk::{
    BootOptions, CommandSpec, Error, ExitStatus, Instance, Output, Provider, ProviderInfo, Result, WriteOptions, code,
};

/// The name of the provider and of its one instance.
const NAME: &str = "local";

/// The root that stands for the path of the call.
const CALLED: &str = "called";

/// This machine.
#[derive(Default)]
pub struct Local;

impl Provider for Local {
    fn info(&self) -> ProviderInfo {
        ProviderInfo {
            name: NAME.to_owned(),
            description: "This machine, without isolation".to_owned(),
            features: ["stdin", "streaming", "terminal", "files", "ports", "host-paths"].map(str::to_owned).to_vec(),
            // The host knows the user's.
            home_dir: None,
        }
    }

    fn boot(&self, _host: ProviderHost<'_>, options: BootOptions) -> Result<Instance> {
        let refuse = |what: &str| {
            Err(Error::invalid("provider.boot", format!("this machine is already running and takes no {what}")))
        };
        if options.image.is_some() {
            return refuse("image");
        }
        if options.ttl_seconds.is_some() || options.ttl_action.is_some() {
            return refuse("end of its time");
        }
        if let Some(option) = options.options.first() {
            return refuse(&format!("option `{}`", option.name));
        }
        Ok(instance())
    }

    fn get(&self, _host: ProviderHost<'_>, id: &str) -> Result<Instance> {
        known(id, "provider.get")?;
        Ok(instance())
    }

    fn list(&self, _host: ProviderHost<'_>) -> Result<Vec<Instance>> {
        Ok(vec![instance()])
    }

    /// There is nothing to end: what a call starts ends with the call.
    fn terminate(&self, _host: ProviderHost<'_>, _id: &str) -> Result<()> {
        Ok(())
    }

    fn exec(&self, host: ProviderHost<'_>, id: &str, spec: CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus> {
        known(id, "provider.exec")?;
        host.process().run(&spec, stdio)
    }

    fn capture(&self, host: ProviderHost<'_>, id: &str, spec: &CommandSpec, input: &[u8]) -> Result<Output> {
        known(id, "provider.exec")?;
        host.process().capture(spec, input)
    }

    fn expose(&self, _host: ProviderHost<'_>, id: &str, port: u16) -> Result<String> {
        known(id, "provider.expose")?;
        if port == 0 {
            return Err(Error::invalid("provider.expose", "0 is not a port"));
        }
        Ok(format!("http://127.0.0.1:{port}"))
    }

    fn read_file(&self, host: ProviderHost<'_>, id: &str, path: &str) -> Result<Vec<u8>> {
        known(id, "provider.read-file")?;
        host.files().read(CALLED, path)
    }

    fn write_file(
        &self,
        host: ProviderHost<'_>,
        id: &str,
        path: &str,
        content: &[u8],
        options: WriteOptions,
    ) -> Result<()> {
        known(id, "provider.write-file")?;
        host.files().write(CALLED, path, content, options)
    }

    fn write_file_atomic(
        &self,
        host: ProviderHost<'_>,
        id: &str,
        path: &str,
        content: &[u8],
        options: WriteOptions,
    ) -> Result<()> {
        known(id, "provider.write-file-atomic")?;
        host.files().write_atomic(CALLED, path, content, options)
    }

    fn file_exists(&self, host: ProviderHost<'_>, id: &str, path: &str) -> Result<bool> {
        known(id, "provider.file-exists")?;
        absent_is(host.files().stat(CALLED, path).map(|_| true), false)
    }

    fn create_directory(&self, host: ProviderHost<'_>, id: &str, path: &str, mode: Option<u32>) -> Result<()> {
        known(id, "provider.create-directory")?;
        host.files().create_directory(CALLED, path, mode)
    }

    fn delete_file(&self, host: ProviderHost<'_>, id: &str, path: &str) -> Result<()> {
        known(id, "provider.delete-file")?;
        absent_is(host.files().remove(CALLED, path, false), ())
    }

    fn delete_directory(&self, host: ProviderHost<'_>, id: &str, path: &str) -> Result<()> {
        known(id, "provider.delete-directory")?;
        absent_is(host.files().remove(CALLED, path, true), ())
    }
}

fn instance() -> Instance {
    Instance { id: NAME.to_owned(), status: "ready".to_owned(), created_ms: None, home_dir: None, details: Vec::new() }
}

fn known(id: &str, operation: &str) -> Result<()> {
    if id == NAME {
        return Ok(());
    }
    Err(Error::new(code::NOT_FOUND, operation, format!("this provider has one instance, `{NAME}`")).subject(id))
}

/// Removing or asking for something that is not there is no error.
fn absent_is<T>(result: Result<T>, absent: T) -> Result<T> {
    match result {
        Err(error) if error.code == code::NOT_FOUND => Ok(absent),
        other => other,
    }
}

#[cfg(test)]
mod tests;
