//! `demo`.

use std::process::ExitCode;
use std::time::Instant;

use pcoder_core::Pcoder;
use pcoder_core::demo::{Shown, Stage, TOOLS, point, serve};
use pcoder_core::runtime::Error;
use pcoder_core::runtime::error::code;
use serde_json::json;

use super::run::install_missing;
use crate::args::Demo;
use crate::output::{GOOD, note, print, print_json};
use crate::signals;

pub(crate) async fn demo(pcoder: &Pcoder, arguments: Demo) -> Result<ExitCode, Error> {
    if arguments.serve {
        return serve_until_stopped(pcoder, arguments.port).await;
    }
    let tools: Vec<&str> =
        if arguments.tools.is_empty() { TOOLS.to_vec() } else { arguments.tools.iter().map(String::as_str).collect() };
    if let Some(unknown) = tools.iter().find(|tool| !TOOLS.contains(tool)) {
        return Err(Error::new(code::NOT_FOUND, "demo", "the demo has no script for this agent")
            .subject(pcoder_core::runtime::text::for_people(unknown, 80))
            .hint(format!("choose from {}", TOOLS.join(", "))));
    }
    let server = serve(0).await?;
    let mut shown = Vec::new();
    for tool in tools {
        let stage = Stage::new(pcoder, &server, tool)?;
        let request = stage.request(&[])?;
        install_missing(pcoder, &request, false, arguments.json).await?;
        install_missing(pcoder, &request, true, arguments.json).await?;
        let started = Instant::now();
        for part in [stage.by_command().await?, stage.by_acp().await?] {
            if !arguments.json {
                part.iter().try_for_each(line)?;
            }
            shown.extend(part);
        }
        if !arguments.json {
            note(&format!("{tool}: {:.1} s", started.elapsed().as_secs_f64()));
        }
    }
    let requests = server.requests().len();
    server.shutdown().await;
    if arguments.json {
        print_json(&json!({ "shown": shown, "model_requests": requests }))?;
    } else {
        print(&format!(
            "\nAll of it ran offline: the engines asked the model server in this program {requests} times.\n\
             Try your own account: `pcoder run claude`\n"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn line(shown: &Shown) -> Result<(), Error> {
    let by = if shown.by == "acp" { "over ACP" } else { "command line" };
    print(&format!("{GOOD}ok{GOOD:#}  {:<7} {by:<13} {:<24} {}\n", shown.tool, shown.what, shown.answer))
}

/// The model server alone, for tests and for trying things out.
async fn serve_until_stopped(pcoder: &Pcoder, port: u16) -> Result<ExitCode, Error> {
    let server = serve(port).await?;
    let state = pcoder.demo_folder()?;
    print(&format!("# The model server listens on {}. Ctrl-C stops it.\n", server.address()))?;
    for tool in TOOLS {
        print(&format!("# for {tool}\n"))?;
        for variable in point(tool, &server, &state.path().join(tool))? {
            print(&format!("export {}='{}'\n", variable.name, variable.value))?;
        }
    }
    signals::cancelled_by_user().cancelled().await;
    server.shutdown().await;
    Ok(ExitCode::SUCCESS)
}
