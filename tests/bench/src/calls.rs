//! Calls into plugins, and bytes past them.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio as Handle};
use std::sync::Arc;
use std::time::{Duration, Instant};

use extism::{CompiledPlugin, Manifest, Plugin as ExtismPlugin, PluginBuilder, Wasm};
use pcoder_runtime::audit::Nowhere;
use pcoder_runtime::call::{CallContext, Called};
use pcoder_runtime::contract::{Argv, Command as Line, CommandSpec};
use pcoder_runtime::host::stdio::{Input, Output, Stdio};
use pcoder_runtime::process::Processes;
use pcoder_runtime::{Plugin, Runtime};

use crate::Failure;
use crate::measure::{Row, factor, median, show};

/// Calls in one measurement: a clock is not read between them.
const CALLS: u32 = 2_000;
const ROUNDS: usize = 15;

/// What the Extism plugin answers, as the contract's record.
#[derive(serde::Deserialize)]
struct ProviderInfo {
    name: String,
    features: Vec<String>,
}

fn provider(plugins: &Path) -> Result<Plugin, Failure> {
    let wasm = std::fs::read(plugins.join("provider-local.wasm"))?;
    let runtime = Runtime::new(Arc::new(Nowhere), Processes::new(false), None)?;
    Ok(runtime.load(&wasm, None, |manifest| manifest.capabilities.clone())?)
}

/// A fresh instance, a call and a drop, against Extism's and against a process that answers one line.
///
/// All three make the same record: what `provider-local` says of itself.
pub fn rows(plugins: &Path, extism: &Path) -> Result<Vec<Row>, Failure> {
    let plugin = provider(plugins)?;
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let compiled = CompiledPlugin::new(PluginBuilder::new(Manifest::new([Wasm::data(std::fs::read(extism)?)])))?;
    let answer = serde_json::to_string(&serde_json::json!({
        "name": "local", "description": "This machine, without isolation", "home_dir": null,
        "features": ["stdin", "streaming", "terminal", "files", "ports", "host-paths"],
    }))?;
    let same = |name: &str, features: &[String]| assert!(name == "local" && features.len() == 6, "the same answer");
    let mut ours = Vec::new();
    let mut extism = Vec::new();
    let mut process = Vec::new();
    for round in 0..=ROUNDS {
        let started = Instant::now();
        executor.block_on(async {
            for _ in 0..CALLS {
                let info = plugin.provider()?.info(CallContext::default()).await?;
                same(&info.name, &info.features);
            }
            Ok::<_, pcoder_runtime::Error>(())
        })?;
        let a = started.elapsed() / CALLS;
        let started = Instant::now();
        for _ in 0..CALLS / 20 {
            let mut plugin = ExtismPlugin::new_from_compiled(&compiled)?;
            let info: ProviderInfo = serde_json::from_slice(plugin.call::<(), &[u8]>("info", ())?)?;
            same(&info.name, &info.features);
        }
        let b = started.elapsed() / (CALLS / 20);
        let started = Instant::now();
        for _ in 0..CALLS / 100 {
            let output = Command::new("/bin/echo").arg(&answer).output()?;
            let info: ProviderInfo = serde_json::from_slice(&output.stdout)?;
            same(&info.name, &info.features);
        }
        let c = started.elapsed() / (CALLS / 100);
        // The first round warms up.
        if round > 0 {
            ours.push(a);
            extism.push(b);
            process.push(c);
        }
    }
    let what = "a provider's `info`: fresh instance, call, drop";
    let ours = median(ours);
    Ok(vec![
        factor(
            what,
            ours,
            "the same as an Extism 1.21 plugin: new from a compiled one, call",
            median(extism),
            "20 times",
        ),
        factor(what, ours, "a process that prints one line of JSON", median(process), "150 times"),
    ])
}

const BYTES: u64 = 2 << 30;

fn drain(mut reader: impl std::io::Read) -> std::io::Result<u64> {
    let mut buffer = vec![0_u8; 256 * 1024];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(total),
            count => total += count as u64,
        }
    }
}

/// 2 GiB of a command's output through `provider-local`, against a pipe straight from the command.
pub fn streaming(plugins: &Path) -> Result<Vec<Row>, Failure> {
    let plugin = provider(plugins)?;
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let args = ["-c".to_owned(), BYTES.to_string(), "/dev/zero".to_owned()];
    let spec = CommandSpec {
        command: Line::Argv(Argv { program: "/usr/bin/head".into(), args: args.to_vec() }),
        cwd: None,
        env: Vec::new(),
        path_entries: Vec::new(),
        name: None,
    };
    let ours = || -> Result<Duration, Failure> {
        let (mut end, stdout) = std::io::pipe()?;
        let reader = std::thread::spawn(move || drain(end.by_ref()));
        let context = CallContext {
            called: Called { command: Some(spec.clone()), ..Called::default() },
            deadline: Some(None),
            ..CallContext::default()
        };
        let started = Instant::now();
        let stdio = Stdio::new(Input::Null, Output::Pipe(stdout), Output::Inherit);
        executor.block_on(plugin.provider()?.exec(context, "local", &spec, stdio))?;
        assert_eq!(reader.join().map_err(|_| "the reader's thread")??, BYTES, "every byte arrives");
        Ok(started.elapsed())
    };
    let raw = || -> Result<Duration, Failure> {
        let started = Instant::now();
        let mut child = Command::new("/usr/bin/head").args(&args).stdout(Handle::piped()).spawn()?;
        let total = drain(child.stdout.take().ok_or("a pipe")?)?;
        child.wait()?;
        assert_eq!(total, BYTES, "every byte arrives");
        Ok(started.elapsed())
    };
    let (mut through, mut direct) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        through.push(ours()?);
        direct.push(raw()?);
    }
    let (through, direct) = (median(through), median(direct));
    Ok(vec![Row {
        what: "2 GiB of an exec's output through `provider-local`".into(),
        ours: show(through),
        other: "a pipe straight from the command".into(),
        theirs: show(direct),
        result: format!("{:.2} of its speed", direct.as_secs_f64() / through.as_secs_f64()),
        aim: "0.95 of it",
    }])
}
