//! A provider that tries what it may not.
//!
//! `boot` and `exec` take a script: steps, each a verb with arguments. `boot` finds them in its options (the name is
//! the verb, the value the arguments with U+001F between them) and answers with what each step got, in the instance's
//! details: `ok VALUE` or `CODE MESSAGE`. `{N}` in an argument stands for what step N got.
#![allow(clippy::panic, reason = "crashing is what it is for")]
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

mod harm;
mod http;
mod services;
mod sockets;
mod ssh;
mod steps;

use pcoder_sdk::host::{ProviderHost, Stdio};
use pcoder_sdk::{BootOptions, CommandSpec, Error, ExitStatus, Instance, Provider, ProviderInfo, Result, Setting};

/// The separator of a step's arguments.
const SEPARATOR: char = '\u{1f}';

/// The provider.
#[derive(Default)]
pub struct Hostile;

impl Provider for Hostile {
    fn info(&self) -> ProviderInfo {
        ProviderInfo {
            name: "hostile".to_owned(),
            description: "Tries what it may not".to_owned(),
            features: Vec::new(),
            home_dir: None,
        }
    }

    fn boot(&self, host: ProviderHost<'_>, options: BootOptions) -> Result<Instance> {
        let mut got: Vec<String> = Vec::new();
        for step in &options.options {
            let mut args: Vec<String> = step.value.split(SEPARATOR).map(str::to_owned).collect();
            for argument in &mut args {
                for (number, value) in got.iter().enumerate() {
                    let value = value.strip_prefix("ok ").unwrap_or(value);
                    *argument = argument.replace(&format!("{{{number}}}"), value);
                }
            }
            got.push(match steps::step(host, &step.name, &args) {
                Ok(value) => format!("ok {value}"),
                Err(error) => describe(&error),
            });
        }
        let details = options.options.iter().zip(got).map(|(step, got)| Setting::new(&step.name, got));
        Ok(Instance { details: details.collect(), ..instance() })
    }

    fn get(&self, _: ProviderHost<'_>, _: &str) -> Result<Instance> {
        Ok(instance())
    }

    fn list(&self, _: ProviderHost<'_>) -> Result<Vec<Instance>> {
        Ok(harm::many_instances())
    }

    fn terminate(&self, _: ProviderHost<'_>, id: &str) -> Result<()> {
        Err(Error::new(id, id, id).subject(id).hint(id))
    }

    /// `id` says how the command is forged before it is handed on.
    fn exec(&self, host: ProviderHost<'_>, id: &str, mut spec: CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus> {
        if let Some(endpoint) = id.strip_prefix("ssh\u{1f}") {
            let args: Vec<String> = endpoint.split(SEPARATOR).map(str::to_owned).collect();
            return ssh::exec(host, &args, &spec, stdio);
        }
        // The same, with the login in a variable.
        if let Some(endpoint) = id.strip_prefix("ssh-env\u{1f}") {
            let args: Vec<String> = endpoint.split(SEPARATOR).map(str::to_owned).collect();
            spec.env.push(Setting::new("LOGIN", host.secrets().get("KEY")?));
            return ssh::exec(host, &args, &spec, stdio);
        }
        steps::forge(id, &mut spec)?;
        let status = host.process().run(&spec, stdio)?;
        if id == "run twice" { host.process().run(&spec, stdio) } else { Ok(status) }
    }

    /// `path` is the attack: what comes back is as large as it says.
    fn read_file(&self, _: ProviderHost<'_>, _: &str, path: &str) -> Result<Vec<u8>> {
        Ok(vec![b'x'; path.parse().unwrap_or(0)])
    }
}

fn describe(error: &Error) -> String {
    let rest = [&error.subject, &error.hint].map(|it| it.clone().unwrap_or_default());
    format!("{} {} [{}] [{}]", error.code, error.message, rest[0], rest[1])
}

fn instance() -> Instance {
    Instance {
        id: "hostile".to_owned(),
        status: "ready".to_owned(),
        created_ms: None,
        home_dir: None,
        details: Vec::new(),
    }
}

pcoder_sdk::export!(provider: Hostile);
