//! `engine …`.

use std::process::ExitCode;
use std::sync::Arc;

use pcoder_core::engine_store::{Condition, InstalledEngine, Progress};
use pcoder_core::runtime::Error;
use pcoder_core::{Installing, Pcoder, from_engines};
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::args::{Engine, EngineExport, EngineImport, EngineInstall, EngineList, EngineNamed, Json};
use crate::output::{GOOD, note, print, print_json, size, table};
use crate::progress::Bar;
use crate::signals::cancelled_by_user;

pub(crate) async fn engine(pcoder: &Pcoder, command: Engine) -> Result<ExitCode, Error> {
    match command {
        Engine::List(arguments) => list(pcoder, &arguments),
        Engine::Install(arguments) => install(pcoder, arguments).await,
        Engine::Export(arguments) => export(pcoder, arguments).await,
        Engine::Import(arguments) => import(pcoder, arguments).await,
        Engine::Verify(arguments) => verify(pcoder, &arguments),
        Engine::Remove(arguments) => remove(pcoder, &arguments),
        Engine::Prune(arguments) => prune(pcoder, &arguments).await,
    }
}

#[derive(Serialize)]
struct Installed {
    name: String,
    version: String,
    platform: String,
    root: String,
    entrypoint: String,
    size_bytes: u64,
    reported_version: Option<String>,
}

impl From<InstalledEngine> for Installed {
    fn from(engine: InstalledEngine) -> Self {
        Self {
            name: engine.name,
            version: engine.version,
            platform: engine.platform,
            root: engine.root.display().to_string(),
            entrypoint: engine.entrypoint.display().to_string(),
            size_bytes: engine.size_bytes,
            reported_version: engine.reported_version,
        }
    }
}

fn list(pcoder: &Pcoder, arguments: &EngineList) -> Result<ExitCode, Error> {
    let engines = pcoder.store_for(arguments.platform)?.list().map_err(|error| from_engines(&error))?;
    let state = |condition: &Condition| match condition {
        Condition::Installed(_) => "installed".to_owned(),
        Condition::Missing => "not installed".to_owned(),
        Condition::Damaged(why) => format!("damaged: {why}"),
        Condition::Unsupported(why) => format!("unsupported: {why}"),
        _ => "superseded".to_owned(),
    };
    if arguments.json.json {
        let engines: Vec<_> = engines
            .iter()
            .map(|it| {
                json!({
                    "name": it.name, "version": it.version, "default": it.default,
                    "state": state(&it.condition),
                    "download_bytes": it.download_bytes, "unpacked_bytes": it.unpacked_bytes,
                })
            })
            .collect();
        print_json(&json!({
            "folder": pcoder.layout().store.display().to_string(), "engines": engines,
        }))?;
    } else {
        let rows = engines.iter().map(|it| {
            let default = if it.default { "default" } else { "" };
            vec![it.name.clone(), it.version.clone(), default.to_owned(), size(it.download_bytes), state(&it.condition)]
        });
        print(&table(&["engine", "version", "", "download", "state"], rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Installs one engine with its progress on the terminal.
pub(crate) async fn install_one(
    pcoder: &Pcoder,
    name: &str,
    version: Option<&str>,
    quiet: bool,
    cancel: &CancellationToken,
    how: &EngineInstall,
) -> Result<InstalledEngine, Error> {
    let bar = Arc::new(Bar::new(name, quiet));
    let installing = Installing {
        registry: how.registry.clone(),
        online: !how.offline,
        from: how.from.clone(),
        platform: how.platform,
        force: how.force,
        progress: Arc::clone(&bar) as Arc<dyn Progress>,
        cancel: cancel.clone(),
    };
    let result = pcoder.install(name, version, &installing).await;
    bar.finish();
    result
}

async fn install(pcoder: &Pcoder, arguments: EngineInstall) -> Result<ExitCode, Error> {
    let cancel = cancelled_by_user();
    let store = pcoder.store_for(arguments.platform)?;
    let names: Vec<String> = if arguments.names.is_empty() {
        store.lock().engines.keys().cloned().collect()
    } else {
        arguments.names.clone()
    };
    let mut installed = Vec::new();
    for name in &names {
        let engine =
            install_one(pcoder, name, arguments.version.as_deref(), arguments.json.json, &cancel, &arguments).await?;
        if !arguments.json.json {
            note(&format!("{GOOD}installed{GOOD:#} {} {} ({})", engine.name, engine.version, size(engine.size_bytes)));
        }
        installed.push(Installed::from(engine));
    }
    if arguments.json.json {
        print_json(&json!({ "installed": installed }))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn export(pcoder: &Pcoder, arguments: EngineExport) -> Result<ExitCode, Error> {
    let bar = Arc::new(Bar::new("export", arguments.json.json));
    let progress = Arc::clone(&bar) as Arc<dyn Progress>;
    let version = arguments.version.as_deref();
    let exported = pcoder.export_engines(&arguments.names, version, &arguments.to, progress, cancelled_by_user()).await;
    bar.finish();
    let exported = exported?;
    if arguments.json.json {
        let files: Vec<_> = exported
            .iter()
            .map(|it| {
                json!({
                    "name": it.name, "version": it.version, "platform": it.platform, "file": it.file,
                    "file_bytes": it.file_bytes, "files": it.files, "bytes": it.bytes,
                })
            })
            .collect();
        print_json(&json!({ "exported": files }))?;
    } else {
        for it in &exported {
            note(&format!("wrote {} ({})", it.file.display(), size(it.file_bytes)));
        }
        note("on the other machine: `pcoder engine import FOLDER`");
    }
    Ok(ExitCode::SUCCESS)
}

async fn import(pcoder: &Pcoder, arguments: EngineImport) -> Result<ExitCode, Error> {
    let bar = Arc::new(Bar::new("import", arguments.json.json));
    let progress = Arc::clone(&bar) as Arc<dyn Progress>;
    let imported = pcoder.import_engines(&arguments.from, progress, cancelled_by_user()).await;
    bar.finish();
    let imported = imported?;
    if !arguments.json.json {
        for it in &imported {
            note(&format!("{GOOD}installed{GOOD:#} {} {} ({})", it.name, it.version, size(it.size_bytes)));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let installed: Vec<Installed> = imported.into_iter().map(Installed::from).collect();
    print_json(&json!({ "installed": installed }))?;
    Ok(ExitCode::SUCCESS)
}

fn verify(pcoder: &Pcoder, arguments: &EngineNamed) -> Result<ExitCode, Error> {
    let store = pcoder.store_for(arguments.platform)?;
    let report = store.verify(&arguments.name, arguments.version.as_deref()).map_err(|error| from_engines(&error))?;
    let whole = report.problems.is_empty();
    let remedy = store.install_hint(&arguments.name, arguments.version.as_deref());
    let remedy = remedy.map_err(|error| from_engines(&error))?;
    if arguments.json.json {
        let problems: Vec<_> =
            report.problems.iter().map(|it| json!({ "path": it.path, "problem": it.kind.words() })).collect();
        print_json(&json!({
            "name": arguments.name, "whole": whole,
            "files": report.files, "bytes": report.bytes, "problems": problems,
            "remedy": (!whole).then_some(remedy),
        }))?;
    } else if whole {
        print(&format!("{} is whole: {} files, {}\n", arguments.name, report.files, size(report.bytes)))?;
    } else {
        for problem in &report.problems {
            print(&format!("{}: {}\n", problem.path, problem.kind.words()))?;
        }
        note(&format!("mend it: {remedy}"));
    }
    Ok(ExitCode::from(if whole { 0 } else { 5 }))
}

fn remove(pcoder: &Pcoder, arguments: &EngineNamed) -> Result<ExitCode, Error> {
    let store = pcoder.store_for(arguments.platform)?;
    let removed = store.remove(&arguments.name, arguments.version.as_deref()).map_err(|error| from_engines(&error))?;
    if arguments.json.json {
        print_json(&json!({ "name": arguments.name, "removed": removed }))?;
    } else if removed {
        note(&format!("removed {}", arguments.name));
    } else {
        note(&format!("{} was not installed", arguments.name));
    }
    Ok(ExitCode::SUCCESS)
}

async fn prune(pcoder: &Pcoder, arguments: &Json) -> Result<ExitCode, Error> {
    let mut pruned = pcoder.store()?.prune(&[]).map_err(|error| from_engines(&error))?;
    let disks = pcoder.prune_engine_disks().await?;
    pruned.removed.extend(disks.removed);
    pruned.in_use.extend(disks.in_use);
    pruned.freed_bytes += disks.freed_bytes;
    if arguments.json {
        print_json(&json!({
            "removed": pruned.removed, "in_use": pruned.in_use, "freed_bytes": pruned.freed_bytes,
        }))?;
    } else {
        for name in &pruned.removed {
            note(&format!("removed {name}"));
        }
        for name in &pruned.in_use {
            note(&format!("left {name} alone: it is in use"));
        }
        note(&format!("freed {}", size(pruned.freed_bytes)));
    }
    Ok(ExitCode::SUCCESS)
}
