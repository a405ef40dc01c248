//! The engines: whether each is there and whole, and whether it starts here.

use std::time::Duration;

use pcoder_engines::{Condition, EngineStatus, InstalledEngine};

use super::record::Finding;
use super::{DEADLINE, Job, programs};
use crate::Pcoder;
use crate::errors::from_engines;

const CATEGORY: &str = "engines";

pub(super) fn jobs(pcoder: &Pcoder) -> Vec<Job> {
    let listed = pcoder.store().and_then(|store| store.list().map_err(|error| from_engines(&error)));
    match listed {
        Ok(listed) => {
            let defaults = listed.into_iter().filter(|engine| engine.default);
            let job = |engine: EngineStatus| {
                let id = format!("engine.{}", engine.name);
                Job::new(CATEGORY, id, |pcoder| async move { check(&pcoder, &engine).await })
            };
            defaults.map(job).collect()
        }
        Err(error) => vec![Job::look(CATEGORY, "engine.store", move |pcoder| {
            Finding::error(
                &error,
                "an engine store that can be read",
                "no tool can be found or installed",
                format!("check who owns {} and its permissions", pcoder.layout().store.display()),
            )
        })],
    }
}

async fn check(pcoder: &Pcoder, engine: &EngineStatus) -> Finding {
    let EngineStatus { name, version, .. } = engine;
    let install = format!("`pcoder engine install {name}`");
    match &engine.condition {
        Condition::Installed(installed) => match version_of(pcoder, installed).await {
            Ok(says) => Finding::ok(says),
            Err(says) => Finding::fail(
                says,
                format!("{name} {version} that runs"),
                "tools that need it do not start",
                format!("`pcoder engine install {name} --force`"),
            ),
        },
        Condition::Missing => Finding::warning(
            format!("{version} is not installed"),
            "installed",
            "it is downloaded when a tool that needs it is first run, and a run without a network fails",
            install,
        ),
        Condition::Damaged(why) => Finding::fail(
            format!("{version} is damaged: {why}"),
            "the files that were installed",
            "its files are not those that its publisher signed for, so it is not run",
            install,
        ),
        Condition::Unsupported(why) => Finding::warning(
            why.clone(),
            "a build for this platform",
            "tools that need it do not run on this machine",
            "use a machine that it is published for; `pcoder engine list` shows what this one has",
        ),
        _ => Finding::ok(version.clone()),
    }
}

/// Starts an engine's own `--version`, for those that can: what was downloaded must also run here.
async fn version_of(pcoder: &Pcoder, engine: &InstalledEngine) -> Result<String, String> {
    /// Before the check's own deadline, so that what is said names the engine.
    const PATIENCE: Duration = DEADLINE.saturating_sub(Duration::from_secs(1));
    if engine.reported_version.is_none() {
        return Ok(format!("{} is installed", engine.version));
    }
    let needed = ["HOME", "PATH", "SystemRoot", "TEMP", "TMPDIR"].into_iter();
    let mut environment: Vec<(std::ffi::OsString, std::ffi::OsString)> =
        needed.filter_map(|name| Some((name.into(), pcoder.surroundings().variable(name)?.to_owned()))).collect();
    // Some engines make folders when they say their version. A portable one makes them in its own folder.
    let own = pcoder.layout().portable.then(|| pcoder.temporary_folder("pcoder-doctor-")).transpose();
    let own = own.map_err(|error| format!("there is no folder for temporary files: {error}"))?;
    if let Some(own) = &own {
        for name in ["HOME", "USERPROFILE", "TEMP", "TMP", "TMPDIR"] {
            environment.retain(|(it, _)| it != name);
            environment.push((name.into(), own.path().into()));
        }
    }
    programs::first_line(&engine.entrypoint, &["--version"], &environment, PATIENCE).await
}
