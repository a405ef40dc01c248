//! `run`.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use pcoder_core::engine_store::Platform;
use pcoder_core::runtime::Error;
use pcoder_core::runtime::contract::ExitStatus;
use pcoder_core::runtime::error::code;
use pcoder_core::runtime::host::stdio::Stdio;
use pcoder_core::{Captured, Feed, Pcoder, Prepared, RunFlags, RunRequest};
use serde_json::{Value, json};

use super::engine::install_one;
use crate::args::{EngineInstall, Json, Run};
use crate::output::{WARN, note, print_json, size};
use crate::{exit, signals};

pub(crate) async fn run(pcoder: &Pcoder, arguments: Run) -> Result<ExitCode, Error> {
    let chosen = match arguments.mode {
        Some(mode) => Some(pcoder.choose_machine(mode.into(), arguments.away.image.as_deref()).await?),
        None => None,
    };
    // To a script too: on standard error, where nothing else is read.
    if let Some(note_of_mode) = chosen.as_ref().and_then(|it| it.note.as_ref()) {
        note(&format!("{WARN}note{WARN:#}: {note_of_mode}"));
    }
    let request = pcoder.run_request(RunFlags {
        tool: arguments.tool,
        profile: arguments.profile,
        provider: arguments.provider.or_else(|| chosen.map(|it| it.provider.to_owned())),
        project: arguments.project,
        version: arguments.version,
        args: arguments.args,
        private_tmp: arguments.private_tmp,
    })?;
    let may_install = !arguments.no_install && may_install(pcoder, request.project.as_deref(), arguments.json)?;
    if !pcoder.runs_here(&request.provider).await? {
        // An instance that is there keeps what it was booted with.
        if may_install && arguments.away.instance.is_none() {
            install_for_guest(pcoder, &request.provider, &request.tool, request.version.as_deref()).await?;
        }
        return super::run_remote::run(pcoder, request, arguments.away, arguments.json).await;
    }
    if arguments.away.is_said() {
        let message = "what was said is for runs on another machine, and this provider's commands run on this one";
        return Err(Error::new(code::INVALID, "run", message)
            .subject(&request.provider)
            .hint("leave it out, or name another provider: `--provider NAME`"));
    }
    let prepared = async {
        if may_install {
            install_missing(pcoder, &request, false, false).await?;
        }
        pcoder.prepare(request, false).await
    };
    let prepared = prepared.await?;
    if arguments.json { captured(&prepared).await } else { attached(&prepared).await }
}

/// A script gets an error and the command that mends it; a person sees the download and may stop it.
pub(super) fn may_install(pcoder: &Pcoder, project: Option<&Path>, as_json: bool) -> Result<bool, Error> {
    let never = pcoder.settings(project)?.get("install", None)?.value.as_deref() == Some("never");
    Ok(!never && !as_json && std::io::stderr().is_terminal())
}

/// Installs what a tool still needs, where a person is watching or a command says so.
pub(crate) async fn install_missing_for(pcoder: &Pcoder, tool: &str, quiet: bool) -> Result<usize, Error> {
    let flags = RunFlags { tool: Some(tool.to_owned()), provider: Some("local".into()), ..RunFlags::default() };
    install_missing(pcoder, &pcoder.run_request(flags)?, false, quiet).await
}

/// Installs what a run still needs, saying so first.
pub(crate) async fn install_missing(
    pcoder: &Pcoder,
    request: &RunRequest,
    acp: bool,
    quiet: bool,
) -> Result<usize, Error> {
    install_all(pcoder, pcoder.missing_engines(request, acp).await?, None, quiet).await
}

/// The same for what a provider puts into a new machine.
pub(super) async fn install_for_guest(
    pcoder: &Pcoder,
    provider: &str,
    tool: &str,
    version: Option<&str>,
) -> Result<usize, Error> {
    match pcoder.missing_for_guest(provider, tool, version).await? {
        Some(missing) => install_all(pcoder, missing.engines, Some(missing.platform), false).await,
        None => Ok(0),
    }
}

async fn install_all(
    pcoder: &Pcoder,
    missing: Vec<(String, Option<String>)>,
    platform: Option<Platform>,
    quiet: bool,
) -> Result<usize, Error> {
    if missing.is_empty() {
        return Ok(0);
    }
    let store = pcoder.store_for(platform)?;
    let bytes: u64 = store
        .list()
        .map_err(|error| pcoder_core::from_engines(&error))?
        .iter()
        .filter(|engine| {
            missing.iter().any(|(name, version)| {
                *name == engine.name && version.as_ref().map_or(engine.default, |version| *version == engine.version)
            })
        })
        .map(|engine| engine.download_bytes)
        .sum();
    let names: Vec<&str> = missing.iter().map(|(name, _)| name.as_str()).collect();
    if !quiet {
        let platform = platform.map(|it| format!(" for {it}")).unwrap_or_default();
        note(&format!("Downloading {}{platform} ({}), once. Ctrl-C stops it.", names.join(", "), size(bytes)));
    }
    let cancel = signals::cancelled_by_user();
    let how = EngineInstall {
        names: Vec::new(),
        version: None,
        platform,
        registry: None,
        force: false,
        offline: false,
        from: None,
        json: Json { json: false },
    };
    for (name, version) in &missing {
        install_one(pcoder, name, version.as_deref(), quiet, &cancel, &how).await?;
    }
    Ok(missing.len())
}

async fn attached(prepared: &Prepared<'_>) -> Result<ExitCode, Error> {
    let stdio = Stdio::inherit();
    let control = prepared.control();
    let signals = signals::pass_on(control.clone(), stdio.is_terminal());
    let status = tokio::select! {
        status = prepared.run(stdio, &control) => status?,
        never = signals => match never {},
    };
    Ok(ExitCode::from(exit::of_tool(&status)))
}

/// What is kept of each stream; a script that needs more reads the streams themselves.
pub(super) const KEPT: u64 = 64 << 20;

async fn captured(prepared: &Prepared<'_>) -> Result<ExitCode, Error> {
    let started = Instant::now();
    let input = if std::io::stdin().is_terminal() { Feed::Nothing } else { Feed::Inherit };
    let control = prepared.control();
    let kept = tokio::select! {
        kept = prepared.capture(input, prepared.output_limit().unwrap_or(KEPT), &control) => kept?,
        never = signals::pass_on(control.clone(), false) => match never {},
    };
    print_captured(&kept, started)
}

/// A tool that has ended, as scripts read it.
pub(super) fn print_captured(kept: &Captured, started: Instant) -> Result<ExitCode, Error> {
    let mut fields = ended(kept);
    fields["duration_ms"] = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX).into();
    print_json(&fields)?;
    Ok(ExitCode::from(exit::of_tool(&kept.status)))
}

/// How a command ended, and what it wrote.
pub(super) fn ended(kept: &Captured) -> Value {
    let (exit_code, signal) = match kept.status {
        ExitStatus::Exited(code) => (Some(code), None),
        ExitStatus::Signaled(signal) => (None, Some(signal)),
    };
    json!({
        "exit_code": exit_code,
        "signal": signal,
        "stdout": String::from_utf8_lossy(&kept.stdout.bytes),
        "stdout_truncated": kept.stdout.cut,
        "stderr": String::from_utf8_lossy(&kept.stderr.bytes),
        "stderr_truncated": kept.stderr.cut,
    })
}
