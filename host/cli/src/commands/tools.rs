//! `list-tools`.

use std::process::ExitCode;

use pcoder_core::Pcoder;
use pcoder_core::runtime::Error;
use serde_json::json;

use crate::args::Json;
use crate::output::{print, print_json, table};

pub(crate) async fn list(pcoder: &Pcoder, arguments: &Json) -> Result<ExitCode, Error> {
    let tools = pcoder.tools().await?;
    if arguments.json {
        print_json(&json!({ "tools": tools }))?;
    } else {
        let rows = tools.into_iter().map(|tool| {
            let state = if tool.installed { "installed" } else { "downloaded when first run" };
            vec![tool.name, tool.version.unwrap_or_default(), state.to_owned(), tool.description]
        });
        print(&table(&["tool", "engine", "state", "what it is"], rows))?;
    }
    Ok(ExitCode::SUCCESS)
}
