//! What the tests of whole plugins share: components, loaded with whatever manifest and grant a test needs.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot be set up has failed")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pcoder_runtime::artifact::Cache;
use pcoder_runtime::audit::{Event, Memory, Record, Sink};
use pcoder_runtime::call::CallContext;
use pcoder_runtime::capability::Class;
use pcoder_runtime::contract::provider::{BootOptions, Instance};
use pcoder_runtime::contract::{Argv, Command, CommandSpec, Setting};
use pcoder_runtime::inspect::inspect;
use pcoder_runtime::manifest::{Capabilities, Manifest};
use pcoder_runtime::process::Processes;
use pcoder_runtime::{Error, Plugin, Runtime};

/// The separator of a step's arguments.
pub const SEPARATOR: &str = "\u{1f}";

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder above").to_path_buf()
}

/// The bytes of a hostile component.
pub fn component(name: &str) -> Vec<u8> {
    built("hostile", name)
}

fn built(folder: &str, name: &str) -> Vec<u8> {
    let path = root().join("target").join(folder).join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask plugins` makes it", path.display()))
}

/// A component with a manifest.
pub fn with_manifest(mut wasm: Vec<u8>, manifest: &str) -> Vec<u8> {
    use wasm_encoder::{ComponentSection as _, CustomSection};
    let section = CustomSection { name: "pcoder:manifest".into(), data: manifest.as_bytes().into() };
    section.append_to_component(&mut wasm);
    wasm
}

/// The bytes of a component that a template became.
pub fn template(name: &str) -> Vec<u8> {
    let path = root().join("target").join("templates").join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; `cargo xtask templates` makes it, with npm (Node.js 20 or newer) and Python 3.11 or newer",
            path.display()
        )
    })
}

/// Holds others back while a template is loaded: the first one compiles it, which takes long, and the others find it.
pub fn template_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where compiled code of a template is kept.
pub fn template_code(name: &str) -> PathBuf {
    root().join("target").join("templates").join("code").join(name)
}

/// What the grant of a test is.
#[derive(Clone, Copy)]
pub enum Grant<'a> {
    /// All that the manifest asks for.
    All,
    /// Nothing.
    Nothing,
    /// These capabilities, as in a manifest.
    Only(&'a str),
}

/// A plugin with the runtime that it lives in and the record of what it did.
pub struct House {
    /// What runs it.
    pub runtime: Runtime,
    /// The plugin.
    pub plugin: Plugin,
    /// What it did.
    pub audit: Arc<Memory>,
}

impl House {
    /// Loads the hostile provider, asking for `request`.
    pub fn provider(request: &str, grant: Grant<'_>) -> Self {
        Self::load("hostile", request, grant)
    }

    /// Loads a hostile component.
    pub fn load(name: &str, request: &str, grant: Grant<'_>) -> Self {
        Self::with_processes(name, request, grant, Processes::new(false))
    }

    /// Loads what a template became.
    pub fn template(name: &str, request: &str, grant: Grant<'_>) -> Self {
        let _turn = template_turn();
        Self::of(&template(name), &template_code(name), |built| manifest(built, request), grant, Processes::new(false))
    }

    /// Loads a hostile component with these processes.
    pub fn with_processes(name: &str, request: &str, grant: Grant<'_>, processes: Arc<Processes>) -> Self {
        let code = root().join("target").join("hostile").join("code");
        Self::of(&component(name), &code, |built| manifest(built, request), grant, processes)
    }

    /// Loads a component of `examples/` with the manifest that is built in.
    pub fn example(name: &str, grant: Grant<'_>) -> Self {
        let code = root().join("target").join("examples").join("code");
        Self::of(&built("examples", name), &code, Manifest::clone, grant, Processes::new(false))
    }

    /// `code` is kept between runs: compiling takes longer than all that the tests do.
    fn of(
        wasm: &[u8],
        code: &Path,
        asks: impl FnOnce(&Manifest) -> Manifest,
        grant: Grant<'_>,
        processes: Arc<Processes>,
    ) -> Self {
        let cache = Cache::open(code).expect("a folder for compiled code");
        let audit = Arc::new(Memory::default());
        let sink: Arc<dyn Sink> = Arc::clone(&audit) as Arc<dyn Sink>;
        let runtime = Runtime::new(sink, processes, Some(cache)).expect("a runtime");
        let mut inspection = inspect(wasm).expect("a plugin");
        inspection.manifest = asks(&inspection.manifest);
        let plugin = runtime
            .load_inspected(inspection, wasm, None, |manifest| match grant {
                Grant::All => manifest.capabilities.clone(),
                Grant::Nothing => Capabilities::default(),
                Grant::Only(text) => toml::from_str(text).expect("capabilities"),
            })
            .expect("it loads");
        Self { runtime, plugin, audit }
    }

    /// Runs a script of one step and says what it got.
    pub async fn step(&self, context: CallContext, step: &[&str]) -> String {
        self.script(context, &[step]).await.expect("the call itself").pop().expect("one answer")
    }

    /// Runs a script: one answer a step, `ok VALUE` or `CODE MESSAGE [SUBJECT] [HINT]`.
    ///
    /// # Errors
    /// What the call itself ended with.
    pub async fn script(&self, context: CallContext, steps: &[&[&str]]) -> Result<Vec<String>, Error> {
        Ok(self.boot(context, steps).await?.details.into_iter().map(|it| it.value).collect())
    }

    /// The same, with the whole answer.
    ///
    /// # Errors
    /// What the call itself ended with.
    pub async fn boot(&self, context: CallContext, steps: &[&[&str]]) -> Result<Instance, Error> {
        let options =
            steps.iter().map(|step| Setting { name: step[0].to_owned(), value: step[1..].join(SEPARATOR) }).collect();
        let options =
            BootOptions { image: None, name: None, ttl_seconds: None, ttl_action: None, project: None, options };
        self.plugin.provider()?.boot(context, &options).await
    }

    /// Fails unless the plugin still answers.
    pub async fn goes_on(&self) {
        let info = self.plugin.provider().expect("a provider").info(CallContext::default()).await;
        assert_eq!(info.expect("the host goes on").name, "hostile");
    }

    /// The decisions so far: class, verb, and whether it was allowed.
    pub fn decisions(&self) -> Vec<(Class, &'static str, bool)> {
        let decision = |record: Record<'_>| match record.event {
            Event::Decision { class, verb, rule, .. } => Some((class, verb, rule.is_some())),
            _ => None,
        };
        self.audit.records().into_iter().filter_map(decision).collect()
    }

    /// The effects so far: class, verb, outcome.
    pub fn effects(&self) -> Vec<(Class, &'static str, String)> {
        let effect = |record: Record<'_>| match record.event {
            Event::Effect { class, verb, outcome, .. } => Some((class, verb, outcome)),
            _ => None,
        };
        self.audit.records().into_iter().filter_map(effect).collect()
    }

    /// Every record, as it would be written.
    pub fn audit_text(&self) -> String {
        serde_json::to_string(&self.audit.records()).expect("records are JSON")
    }
}

/// A manifest that is like another one and asks for `request`.
pub fn manifest(like: &Manifest, request: &str) -> Manifest {
    let text = format!(
        "description = \"x\"\nname = \"{}\"\nversion = \"{}\"\nkind = \"{}\"\ncontract = \"{}\"\n{request}",
        like.name, like.version, like.kind, like.contract
    );
    Manifest::parse(text.as_bytes()).expect("a manifest")
}

/// A program with its arguments.
pub fn argv(program: &str, args: &[&str]) -> CommandSpec {
    let args = args.iter().map(|&it| it.to_owned()).collect();
    CommandSpec {
        command: Command::Argv(Argv { program: program.to_owned(), args }),
        cwd: None,
        env: Vec::new(),
        path_entries: Vec::new(),
        name: None,
    }
}

/// A call that is asked to run this very command.
pub fn called(command: &CommandSpec) -> CallContext {
    CallContext {
        called: pcoder_runtime::call::Called { command: Some(command.clone()), ..Default::default() },
        path: Some("/usr/bin:/bin".into()),
        ..CallContext::default()
    }
}
