//! `runtime …`.

use std::process::ExitCode;
use std::sync::Arc;

use pcoder_core::engine_store::{Phase, Progress};
use pcoder_core::machines_store::{Bootstrapped, Listed, Outcome, Settled};
use pcoder_core::runtime::Error;
use pcoder_core::{Bootstrapping, Pcoder, from_vm};
use serde_json::{Value, json};

use crate::args::{ImageNamed, ImagesCommand, Json, Runtime, RuntimeBootstrap, RuntimeImages};
use crate::output::{GOOD, WARN, note, print, print_json, size, table};
use crate::progress::Bar;
use crate::signals::cancelled_by_user;

pub(crate) async fn runtime(pcoder: &Pcoder, command: Runtime) -> Result<ExitCode, Error> {
    match command {
        Runtime::Probe(arguments) => probe(pcoder, &arguments).await,
        Runtime::Bootstrap(arguments) => bootstrap(pcoder, arguments).await,
        Runtime::Images(arguments) => images(pcoder, arguments).await,
    }
}

async fn probe(pcoder: &Pcoder, arguments: &Json) -> Result<ExitCode, Error> {
    let probe = pcoder.probe().await;
    if arguments.json {
        print_json(&probe)?;
    } else {
        let rows = probe.facts.iter().map(|fact| {
            let meaning = fact.meaning.as_ref().map_or_else(String::new, |meaning| format!("; {meaning}"));
            vec![fact.id.clone(), format!("{}{meaning}", fact.measured)]
        });
        let facts = table(&["fact", "what was found"], rows);
        let rungs = probe.accelerators.iter().map(|it| {
            let why = it.why.clone().unwrap_or_else(|| "may be tried".to_owned());
            vec![it.name.to_owned(), if it.usable { "yes" } else { "no" }.to_owned(), why]
        });
        let rungs = table(&["accelerator", "usable", "why"], rungs);
        let qemu = probe.qemu.as_ref().map_or_else(
            || "machines are started with no QEMU: there is none that can be used".to_owned(),
            |qemu| format!("machines are started with QEMU {} ({})", qemu.version, qemu.program),
        );
        // The last line is for scripts that read no JSON.
        let (reason, backend) = (&probe.reason, probe.recommended_backend);
        print(&format!("{facts}\n{rungs}\n{qemu}\n{reason}\nrecommended_backend={backend}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A bar that is gone when nobody reports to it any more.
struct OwnBar(Bar);

impl Drop for OwnBar {
    fn drop(&mut self) {
        self.0.finish();
    }
}

impl Progress for OwnBar {
    fn phase(&self, phase: Phase) {
        self.0.phase(phase);
    }
    fn bytes(&self, done: u64, total: u64) {
        self.0.bytes(done, total);
    }
    fn message(&self, message: &str) {
        self.0.message(message);
    }
}

async fn bootstrap(pcoder: &Pcoder, arguments: RuntimeBootstrap) -> Result<ExitCode, Error> {
    let quiet = arguments.json.json;
    let how = Bootstrapping {
        manifest: arguments.manifest,
        image: arguments.image,
        force: arguments.force,
        online: !arguments.offline,
        reporter: Arc::new(move |name| Arc::new(OwnBar(Bar::new(name, quiet))) as Arc<dyn Progress>),
        cancel: cancelled_by_user(),
    };
    let Bootstrapped { image, qemu } = pcoder.bootstrap(&how).await?;
    if quiet {
        // Without a QEMU an image is of use all the same: the record says what is missing.
        let (qemu, problem) = match &qemu {
            Ok(qemu) => (shown(qemu), Value::Null),
            Err(error) => (Value::Null, json!(from_vm(error))),
        };
        print_json(&json!({ "image": shown(&image), "qemu": qemu, "problem": problem }))?;
        return Ok(ExitCode::SUCCESS);
    }
    tell("image", &image);
    match &qemu {
        Ok(qemu) => tell("QEMU", qemu),
        Err(error) => note(&format!("{WARN}missing{WARN:#} {error}\n\nhint: {}", error.hint())),
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(what: &str, settled: &Settled) {
    let word = word(settled.outcome);
    note(&format!("{GOOD}{word}{GOOD:#} {what} {} ({})", settled.name, settled.path.display()));
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Installed => "installed",
        Outcome::Present => "present",
    }
}

fn shown(settled: &Settled) -> Value {
    json!({
        "name": settled.name, "path": settled.path.display().to_string(), "outcome": word(settled.outcome),
    })
}

async fn images(pcoder: &Pcoder, arguments: RuntimeImages) -> Result<ExitCode, Error> {
    match arguments.command {
        None => list(pcoder, &arguments.json),
        Some(ImagesCommand::Verify(arguments)) => verify(pcoder, &arguments).await,
        Some(ImagesCommand::Remove(arguments)) => remove(pcoder, &arguments).await,
    }
}

fn list(pcoder: &Pcoder, arguments: &Json) -> Result<ExitCode, Error> {
    let images = pcoder.images().list().map_err(|error| from_vm(&error))?;
    let state = |listed: &Listed| listed.image.as_ref().err().map_or_else(|| "whole".to_owned(), ToString::to_string);
    if arguments.json {
        let images: Vec<_> = images
            .iter()
            .map(|it| {
                let image = it.image.as_ref().ok();
                json!({
                    "name": it.name, "state": state(it),
                    "arch": image.map(|it| it.guest.arch.debian()),
                    "inputs": image.map(|it| it.guest.inputs.as_str()),
                    "size_bytes": image.map(|it| it.size()), "taken_bytes": image.map(|it| it.taken()),
                })
            })
            .collect();
        print_json(&json!({ "folder": pcoder.layout().images().display().to_string(), "images": images }))?;
    } else {
        let rows = images.iter().map(|it| {
            let image = it.image.as_ref().ok();
            let arch = image.map(|it| it.guest.arch.to_string()).unwrap_or_default();
            let taken = image.map(|it| size(it.taken())).unwrap_or_default();
            vec![it.name.clone(), arch, taken, state(it)]
        });
        print(&table(&["image", "arch", "disk", "state"], rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn verify(pcoder: &Pcoder, arguments: &ImageNamed) -> Result<ExitCode, Error> {
    let bar: Arc<dyn Progress> = Arc::new(OwnBar(Bar::new(&arguments.name, arguments.json.json)));
    let image = pcoder.images().verify(&arguments.name, bar, cancelled_by_user()).await;
    let image = image.map_err(|error| from_vm(&error))?;
    if arguments.json.json {
        print_json(&json!({ "name": image.name, "state": "whole" }))?;
    } else {
        note(&format!("{GOOD}whole{GOOD:#} {}", image.name));
    }
    Ok(ExitCode::SUCCESS)
}

async fn remove(pcoder: &Pcoder, arguments: &ImageNamed) -> Result<ExitCode, Error> {
    pcoder.images().remove(&arguments.name, cancelled_by_user()).await.map_err(|error| from_vm(&error))?;
    if arguments.json.json {
        print_json(&json!({ "removed": arguments.name }))?;
    } else {
        note(&format!("{GOOD}removed{GOOD:#} {}", arguments.name));
    }
    Ok(ExitCode::SUCCESS)
}
