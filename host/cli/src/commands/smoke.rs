//! `smoke`.

use std::process::ExitCode;
use std::sync::Arc;

use pcoder_core::Pcoder;
use pcoder_core::orchestrator::{BootRequest, CredentialName, Outcome, SessionRequest, SmokeOptions, Step, Untold};
use pcoder_core::runtime::Error;
use pcoder_core::runtime::text::for_people;
use serde_json::json;

use super::instance::{boot_options, of};
use super::run::{install_for_guest, may_install};
use crate::args::Smoke;
use crate::exit;
use crate::output::{GOOD, WARN, note, print_json};
use crate::progress::Spinner;

pub(crate) async fn smoke(pcoder: &Pcoder, arguments: Smoke) -> Result<ExitCode, Error> {
    let provider = of(pcoder, &arguments.on).await?;
    if may_install(pcoder, None, arguments.json.json)? {
        install_for_guest(pcoder, provider.name(), &arguments.tool, None).await?;
    }
    let boot = boot_options(arguments.boot);
    let credentials = arguments.credentials.iter().map(|it| it.parse()).collect::<Result<Vec<CredentialName>, _>>()?;
    let purpose = [("purpose".to_owned(), "smoke".into())].into_iter().collect();
    let options = SmokeOptions {
        boot: BootRequest { boot, tool: Some(arguments.tool.clone()), credentials, machine_info: purpose },
        session: SessionRequest {
            tool: arguments.tool,
            profile: arguments.profile,
            prompt: arguments.prompt,
            name: Some("smoke".to_owned()),
            ..SessionRequest::default()
        },
        keep: arguments.keep,
    };
    let as_json = arguments.json.json;
    let trying = format!("Trying {}", for_people(provider.name(), 80));
    let orchestrator = pcoder.orchestrator(provider, "pm2", Arc::new(Untold)).await?;
    let mut spinner = Some(Spinner::start(&trying, as_json));
    let mut told = |step: &Step| {
        drop(spinner.take());
        if !as_json {
            note(&line(step));
        }
        spinner = Some(Spinner::start(&trying, as_json));
    };
    let steps = orchestrator.smoke(&options, &mut told).await;
    drop(spinner);
    if as_json {
        print_json(&json!({ "ok": steps.iter().all(|it| it.outcome != Outcome::Failed), "steps": steps }))?;
    }
    match steps.into_iter().find_map(|step| step.error) {
        None => Ok(ExitCode::SUCCESS),
        // Told already, step by step, and in full.
        Some(error) if as_json => Ok(ExitCode::from(exit::of_error(&error))),
        Some(error) => Err(error),
    }
}

fn line(step: &Step) -> String {
    let (style, word) = match step.outcome {
        Outcome::Ok => (GOOD, "ok"),
        Outcome::Warning => (WARN, "warn"),
        Outcome::Failed => (WARN, "failed"),
    };
    let seconds = std::time::Duration::from_millis(step.milliseconds).as_secs_f64();
    format!("{style}{word:>6}{style:#}  {:<12} {} ({seconds:.1} s)", step.name, for_people(&step.detail, 600))
}
