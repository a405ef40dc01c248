//! A stranger's provider, for the tests of adding and granting: it runs commands on this machine, counts them in its own
//! folder, and, where the command's variables say so, first asks a service with a secret.
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

use pcoder_sdk::host::{ProviderHost, Stdio};
use pcoder_sdk::http::{Request, check};
use pcoder_sdk::{
    BootOptions, CommandSpec, Error, ExitStatus, Instance, Output, Provider, ProviderInfo, Result, WriteOptions, code,
};

pcoder_sdk::export!(provider: ThirdParty);

const ID: &str = "here";
const COUNT: &str = "count.txt";

/// A stranger's provider.
#[derive(Default)]
pub struct ThirdParty;

impl Provider for ThirdParty {
    fn info(&self) -> ProviderInfo {
        ProviderInfo {
            name: "thirdparty".to_owned(),
            description: "A stranger's provider".to_owned(),
            features: ["stdin", "streaming", "terminal", "host-paths"].map(str::to_owned).to_vec(),
            home_dir: None,
        }
    }

    fn boot(&self, _host: ProviderHost<'_>, _options: BootOptions) -> Result<Instance> {
        Ok(instance())
    }

    fn get(&self, _host: ProviderHost<'_>, _id: &str) -> Result<Instance> {
        Ok(instance())
    }

    fn list(&self, _host: ProviderHost<'_>) -> Result<Vec<Instance>> {
        Ok(vec![instance()])
    }

    fn terminate(&self, _host: ProviderHost<'_>, _id: &str) -> Result<()> {
        Ok(())
    }

    fn exec(&self, host: ProviderHost<'_>, _id: &str, spec: CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus> {
        count(host)?;
        fetch(host, &spec)?;
        host.process().run(&spec, stdio)
    }

    fn capture(&self, host: ProviderHost<'_>, _id: &str, spec: &CommandSpec, input: &[u8]) -> Result<Output> {
        host.process().capture(spec, input)
    }
}

fn count(host: ProviderHost<'_>) -> Result<()> {
    let before = match host.files().read("state", COUNT) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().parse().unwrap_or(0_u64),
        Err(error) if error.code == code::NOT_FOUND => 0,
        Err(error) => return Err(error),
    };
    host.files().write_atomic("state", COUNT, (before + 1).to_string().as_bytes(), WriteOptions::plain())
}

/// Asks the address that the command's variable names, with the secret `THIRDPARTY_KEY`.
fn fetch(host: ProviderHost<'_>, spec: &CommandSpec) -> Result<()> {
    let Some(url) = spec.env.iter().find(|it| it.name == "THIRDPARTY_URL").map(|it| it.value.clone()) else {
        return Ok(());
    };
    let key = host.secrets().get("THIRDPARTY_KEY")?;
    let response = host.http().send(&Request::new("GET", &url).header("x-key", key))?;
    check(response, "provider.exec", &url, host.clock().now_ms())
        .map(drop)
        .map_err(|error| Error { subject: None, ..error })
}

fn instance() -> Instance {
    Instance { id: ID.to_owned(), status: "ready".to_owned(), created_ms: None, home_dir: None, details: Vec::new() }
}
