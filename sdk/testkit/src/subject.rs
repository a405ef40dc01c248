//! What is tried, and how it is reached.

use pcoder_core::instances::{Provider, plain_boot};
use pcoder_core::runtime::Error;
use pcoder_core::runtime::contract::provider::BootOptions;
use pcoder_core::runtime::contract::{Argv, Command, CommandSpec, WriteOptions};
use pcoder_core::{Captured, Feed, Pcoder};
use tokio_util::sync::CancellationToken;

/// A provider that is tried.
pub struct Subject<'a> {
    pub(crate) pcoder: &'a Pcoder,
    pub(crate) name: String,
    pub(crate) boot: BootOptions,
    pub(crate) large: usize,
}

impl<'a> Subject<'a> {
    /// A provider by its name, as in `--provider NAME`, of a pcoder that has it.
    pub fn new(pcoder: &'a Pcoder, name: &str) -> Self {
        Self { pcoder, name: name.to_owned(), boot: plain_boot(), large: 10 << 20 }
    }

    /// What its instances are booted of.
    #[must_use]
    pub fn image(mut self, image: &str) -> Self {
        self.boot.image = Some(image.to_owned());
        self
    }

    /// How large a large output and a large file are, in bytes. By default 10 MiB, which is what providers have to take.
    #[must_use]
    pub fn large(mut self, bytes: usize) -> Self {
        self.large = bytes;
        self
    }
}

/// One instance.
pub(crate) struct Machine<'a> {
    pub(crate) provider: Provider<'a>,
    pub(crate) id: String,
    pub(crate) home: String,
    pub(crate) features: Vec<String>,
    pub(crate) large: usize,
}

/// What is kept of an output: more than any case makes.
const KEPT: u64 = 64 << 20;

pub(crate) fn argv(program: &str, args: &[&str]) -> CommandSpec {
    let args = args.iter().map(|&it| it.to_owned()).collect();
    spec(Command::Argv(Argv { program: program.to_owned(), args }))
}

pub(crate) fn script(script: &str) -> CommandSpec {
    spec(Command::Shell(script.to_owned()))
}

fn spec(command: Command) -> CommandSpec {
    CommandSpec { command, cwd: None, env: Vec::new(), path_entries: Vec::new(), name: None }
}

impl<'a> Machine<'a> {
    pub(crate) async fn boot(subject: &Subject<'a>) -> Result<Self, Error> {
        let provider = subject.pcoder.provider(&subject.name, CancellationToken::new()).await?;
        let features = provider.info().await?.features;
        let instance = provider.boot(&subject.boot).await?;
        let home = provider.home(&instance).await?;
        Ok(Self { provider, id: instance.id, home, features, large: subject.large })
    }

    pub(crate) fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|it| it == feature)
    }

    pub(crate) async fn run(&self, spec: &CommandSpec, input: &[u8]) -> Result<Captured, Error> {
        let input = if input.is_empty() { Feed::Nothing } else { Feed::Bytes(input.to_vec()) };
        self.provider.capture(&self.id, spec, input, KEPT, &self.provider.control()).await
    }

    pub(crate) async fn write(&self, path: &str, content: &[u8], mode: Option<u32>) -> Result<(), Error> {
        self.write_with(path, content, WriteOptions { create_parents: true, mode, owner: None }).await
    }

    pub(crate) async fn write_with(&self, path: &str, content: &[u8], options: WriteOptions) -> Result<(), Error> {
        self.provider.write_file(&self.id, path, content, options).await
    }

    pub(crate) async fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        self.provider.read_file(&self.id, path).await
    }

    /// A folder of the suite's own.
    pub(crate) fn at(&self, name: &str) -> String {
        format!("{}/.pcoder-testkit/{name}", self.home.trim_end_matches('/'))
    }
}
