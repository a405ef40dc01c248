//! `bundle …`.

use std::process::ExitCode;
use std::sync::Arc;

use pcoder_core::Pcoder;
use pcoder_core::bundle::{self, EnginesWanted};
use pcoder_core::engine_store::Progress;
use pcoder_core::runtime::Error;
use serde_json::json;

use crate::args::{Bundle, BundleExport, BundleVerify};
use crate::output::{GOOD, note, print, print_json, size};
use crate::progress::Bar;
use crate::signals::cancelled_by_user;

pub(crate) async fn bundle(pcoder: &Pcoder, command: Bundle, third_party: &'static str) -> Result<ExitCode, Error> {
    match command {
        Bundle::Export(arguments) => export(pcoder, arguments, third_party).await,
        Bundle::Verify(arguments) => verify(pcoder, &arguments),
    }
}

async fn export(pcoder: &Pcoder, arguments: BundleExport, third_party: &'static str) -> Result<ExitCode, Error> {
    let quiet = arguments.json.json;
    let bar = Arc::new(Bar::new("bundle", quiet));
    let engines = match (arguments.no_engines, arguments.engines.is_empty()) {
        (true, _) => EnginesWanted::None,
        (false, true) => EnginesWanted::Installed,
        (false, false) => EnginesWanted::Named(arguments.engines),
    };
    let what = bundle::BundleExport {
        engines,
        profiles: arguments.profiles,
        settings: arguments.settings,
        update: arguments.update,
        third_party,
        progress: Arc::clone(&bar) as Arc<dyn Progress>,
        cancel: cancelled_by_user(),
    };
    let result = pcoder.export_bundle(&arguments.folder, &what).await;
    bar.finish();
    let made = result?;
    if quiet {
        print_json(&json!({
            "folder": made.folder.display().to_string(),
            "updated": made.updated,
            "pcoder_version": made.manifest.pcoder_version,
            "platform": made.manifest.platform.name(),
            "bytes": made.bytes,
            "engines": made.manifest.engines,
            "plugins": made.plugins,
            "plugins_to_grant_again": made.narrowed,
            "engines_not_installed": made.without,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let word = if made.updated { "updated" } else { "made" };
    note(&format!("{GOOD}{word}{GOOD:#} {} ({}, {})", made.folder.display(), made.manifest.platform, size(made.bytes)));
    let engines: Vec<String> =
        made.manifest.engines.iter().map(|engine| format!("{} {}", engine.name, engine.version)).collect();
    if !engines.is_empty() {
        note(&format!("engines: {}", engines.join(", ")));
    }
    if !made.plugins.is_empty() {
        note(&format!("plugins: {}", made.plugins.join(", ")));
    }
    if !made.without.is_empty() {
        note(&format!("not installed here, so not in it: {}", made.without.join(", ")));
    }
    for name in &made.narrowed {
        note(&format!("`{name}` was granted programs or folders of this machine: grant it those of another one there"));
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(pcoder: &Pcoder, arguments: &BundleVerify) -> Result<ExitCode, Error> {
    let report = pcoder.verify_bundle(arguments.folder.as_deref())?;
    let whole = report.problems.is_empty();
    if arguments.json.json {
        print_json(&json!({
            "folder": report.folder.display().to_string(), "whole": whole,
            "pcoder_version": report.pcoder_version, "platform": report.platform.name(),
            "files": report.files, "bytes": report.bytes, "problems": report.problems,
        }))?;
    } else if whole {
        print(&format!("the bundle is whole: {} files, {}\n", report.files, size(report.bytes)))?;
    } else {
        for problem in &report.problems {
            print(&format!("{}: {}\n", problem.path, problem.problem))?;
        }
        note("mend it with another pcoder: `pcoder bundle export DIR --update`");
    }
    Ok(ExitCode::from(if whole { 0 } else { 5 }))
}
