//! `setup`: from nothing to a first run. Run again, it changes only what is said again.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use pcoder_core::Pcoder;
use pcoder_core::runtime::Error;
use pcoder_core::runtime::error::code;
use pcoder_core::runtime::text::for_people;
use serde_json::json;

use super::auth::tool_or_default;
use super::run::install_missing_for;
use crate::args::Setup;
use crate::output::{note, print, print_json, table};

pub(crate) async fn setup(pcoder: &Pcoder, arguments: Setup) -> Result<ExitCode, Error> {
    if arguments.show {
        return show(pcoder, arguments.json.json).await;
    }
    let silent = arguments.default_tool.is_none() && arguments.auth.is_empty() && arguments.install.is_none();
    if let Some(tool) = &arguments.default_tool {
        tool_or_default(pcoder, Some(tool.clone()))?;
        pcoder.set("tool", Some(tool))?;
    }
    for (tool, how) in &arguments.auth {
        log_in(pcoder, tool, how).await?;
    }
    if let Some(tools) = &arguments.install {
        let named = if tools.is_empty() { vec![tool_or_default(pcoder, None)?] } else { tools.clone() };
        for tool in named {
            install_missing_for(pcoder, &tool_or_default(pcoder, Some(tool))?, arguments.json.json).await?;
        }
    }
    if silent {
        if arguments.json.json || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Err(Error::new(code::INVALID, "setup", "nothing was said, and there is nobody to ask")
                .hint("`pcoder setup --help` has the options; `pcoder setup --show` says what is set up"));
        }
        ask(pcoder).await?;
    }
    show(pcoder, arguments.json.json).await
}

async fn log_in(pcoder: &Pcoder, tool: &str, how: &str) -> Result<(), Error> {
    tool_or_default(pcoder, Some(tool.to_owned()))?;
    match how {
        "own" => pcoder.set_auth(tool, None),
        "oauth" => pcoder.use_login(tool),
        reference => pcoder.use_key(tool, reference).await,
    }
}

/// In a terminal: the three things that a first run needs.
async fn ask(pcoder: &Pcoder) -> Result<(), Error> {
    let failed = |dialoguer::Error::IO(error)| Error::io("setup", "the terminal", &error);
    let tools = pcoder.tool_names();
    let now = tool_or_default(pcoder, None)?;
    let at = tools.iter().position(|it| *it == now).unwrap_or(0);
    let chosen = dialoguer::Select::new()
        .with_prompt("Which agent do you run most?")
        .items(&tools)
        .default(at)
        .interact()
        .map_err(failed)?;
    let tool = tools.get(chosen).cloned().unwrap_or(now);
    pcoder.set("tool", Some(&tool))?;
    install_missing_for(pcoder, &tool, false).await?;
    let state = pcoder.auth_status(&tool).await;
    if state.logged_in != Some(true) {
        note(&format!("{tool} is not logged in. `pcoder auth login {tool}` does that; a key: `--api-key env:NAME`."));
    }
    Ok(())
}

async fn show(pcoder: &Pcoder, as_json: bool) -> Result<ExitCode, Error> {
    let tools = pcoder.tools().await?;
    let mut rows = Vec::new();
    let mut records = Vec::new();
    for tool in &tools {
        // An engine that is not there cannot be asked.
        let account = if tool.installed { Some(pcoder.auth_status(&tool.name).await) } else { None };
        let state = match account.as_ref().map(|it| it.logged_in) {
            Some(Some(true)) => "logged in",
            Some(Some(false)) => "not logged in",
            _ => "not known",
        };
        let installed = if tool.installed { "installed" } else { "not installed" };
        rows.push(vec![tool.name.clone(), installed.to_owned(), state.to_owned()]);
        records.push(json!({ "tool": tool.name, "installed": tool.installed, "auth": account }));
    }
    let settings = pcoder.settings(None)?;
    let default = settings.get("tool", None)?.value.unwrap_or_default();
    let ready = tools.iter().any(|tool| tool.name == default && tool.installed);
    if as_json {
        print_json(&json!({
            "default_tool": default, "ready": ready, "tools": records, "folder": pcoder.layout().data,
            "portable": pcoder.layout().portable,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&table(&["tool", "engine", "login"], rows))?;
    note(&format!(
        "\n`pcoder run` starts {}; pcoder's files are in {}",
        for_people(&default, 80),
        pcoder.layout().data.display()
    ));
    let next =
        if ready { "try it: `pcoder run`" } else { "next: `pcoder setup --install`, or `pcoder run` in a terminal" };
    note(next);
    Ok(ExitCode::SUCCESS)
}
