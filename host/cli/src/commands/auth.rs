//! `auth …`.

use std::io::{BufRead as _, IsTerminal as _};
use std::process::ExitCode;

use pcoder_core::auth::{AuthStatus, ToolAuth};
use pcoder_core::profiles::AuthMode;
use pcoder_core::runtime::Error;
use pcoder_core::runtime::contract::ExitStatus;
use pcoder_core::runtime::error::code;
use pcoder_core::runtime::host::stdio::Stdio;
use pcoder_core::runtime::text::{ended, for_people};
use pcoder_core::{Pcoder, Prepared};
use serde_json::json;

use super::run::install_missing_for;
use crate::args::{Auth, AuthLogin, AuthLogout, AuthStatus as StatusArguments};
use crate::output::{note, print, print_json, table};
use crate::signals;

pub(crate) async fn auth(pcoder: &Pcoder, command: Auth) -> Result<ExitCode, Error> {
    match command {
        Auth::Status(arguments) => status(pcoder, arguments).await,
        Auth::Login(arguments) => login(pcoder, arguments).await,
        Auth::Logout(arguments) => logout(pcoder, arguments).await,
    }
}

/// The tool that was named, or the one that `run` starts.
pub(super) fn tool_or_default(pcoder: &Pcoder, named: Option<String>) -> Result<String, Error> {
    let tool = match named {
        Some(tool) => tool,
        None => pcoder.settings(None)?.get("tool", None)?.value.unwrap_or_default(),
    };
    if pcoder.tool_names().contains(&tool) {
        return Ok(tool);
    }
    Err(Error::new(code::NOT_FOUND, "auth", "there is no tool of that name")
        .subject(for_people(&tool, 80))
        .hint("`pcoder list-tools` shows them"))
}

async fn status(pcoder: &Pcoder, arguments: StatusArguments) -> Result<ExitCode, Error> {
    let tools = match arguments.tool {
        Some(tool) => vec![tool_or_default(pcoder, Some(tool))?],
        None => pcoder.tool_names(),
    };
    let mut statuses: Vec<AuthStatus> = Vec::new();
    for tool in &tools {
        statuses.push(pcoder.auth_status(tool).await);
    }
    let worst = statuses.iter().map(|it| match it.logged_in {
        Some(true) => 0,
        None => 1,
        Some(false) => 6,
    });
    let exit = worst.max().unwrap_or(0);
    if arguments.json.json {
        print_json(&json!({ "tools": statuses }))?;
        return Ok(ExitCode::from(exit));
    }
    let rows = statuses.iter().map(|it| {
        let state = match it.logged_in {
            Some(true) => "logged in",
            Some(false) => "not logged in",
            None => "not known",
        };
        let how = it.key.clone().or_else(|| it.method.clone()).unwrap_or_default();
        let who = it.account.as_deref().map(|it| for_people(it, 120)).unwrap_or_default();
        vec![it.tool.clone(), it.mode.to_owned(), state.to_owned(), for_people(&how, 120), who]
    });
    print(&table(&["tool", "by", "state", "how", "who"], rows))?;
    for it in &statuses {
        if let Some(problem) = &it.problem {
            note(&format!("{}: {}", it.tool, for_people(problem, 400)));
        }
        if let Some(remedy) = &it.remedy {
            note(&format!("{}: mend it: {}", it.tool, for_people(remedy, 400)));
        }
    }
    Ok(ExitCode::from(exit))
}

async fn login(pcoder: &Pcoder, arguments: AuthLogin) -> Result<ExitCode, Error> {
    let tool = tool_or_default(pcoder, arguments.tool)?;
    if let Some(key) = &arguments.api_key {
        pcoder.use_key(&tool, key).await?;
        return done(&tool, "uses the key from now on", &arguments.json.json);
    }
    if arguments.paste {
        by_pasting(pcoder, &tool).await?;
        return done(&tool, "is logged in", &arguments.json.json);
    }
    install_missing_for(pcoder, &tool, arguments.json.json).await?;
    let prepared = pcoder.prepare_login(&tool, arguments.args).await?;
    let status = attended(&prepared, true).await?;
    if status != ExitStatus::Exited(0) {
        let message = format!("the tool's login failed ({})", ended(&status));
        return Err(Error::new(code::UNAUTHENTICATED, "auth.login", message)
            .subject(tool.clone())
            .hint(format!("try again: `pcoder auth login {tool}`")));
    }
    let before = pcoder.auth_of(&tool)?;
    pcoder.set_auth(&tool, Some(ToolAuth { mode: AuthMode::Oauth, key: None }))?;
    // Its word is not enough: what counts is what the engine answers from now on.
    let state = pcoder.auth_status(&tool).await;
    if state.logged_in != Some(true) {
        pcoder.set_auth(&tool, before)?;
        let reason = state.problem.unwrap_or_else(|| "the tool says that nobody is logged in".to_owned());
        return Err(Error::new(code::UNAUTHENTICATED, "auth.login", reason)
            .subject(tool.clone())
            .hint(format!("try again: `pcoder auth login {tool}`")));
    }
    done(&tool, "is logged in, in a folder of its own", &arguments.json.json)
}

/// The tool's own flow has the terminal.
async fn attended(prepared: &Prepared<'_>, login: bool) -> Result<ExitStatus, Error> {
    let stdio = Stdio::inherit();
    let control = prepared.control();
    let signals = signals::pass_on(control.clone(), stdio.is_terminal());
    let flow =
        async { if login { prepared.login(stdio, &control).await } else { prepared.logout(stdio, &control).await } };
    tokio::select! {
        status = flow => status,
        never = signals => match never {},
    }
}

async fn by_pasting(pcoder: &Pcoder, tool: &str) -> Result<(), Error> {
    let login = pcoder.begin_login(tool)?;
    note(&format!("Open this address, allow it, and paste the code that the page shows:\n\n{}\n", login.url()));
    let terminal = std::io::stdin().is_terminal();
    let read = tokio::task::spawn_blocking(move || {
        if terminal {
            let asked = dialoguer::Password::new().with_prompt("Code").interact();
            return asked.map_err(|dialoguer::Error::IO(error)| error);
        }
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    let unreadable = |error: std::io::Error| Error::io("auth.login", "standard input", &error);
    let code = read.await.map_err(|error| unreadable(error.into()))?.map_err(unreadable)?;
    login.finish(code.trim()).await
}

async fn logout(pcoder: &Pcoder, arguments: AuthLogout) -> Result<ExitCode, Error> {
    let tool = tool_or_default(pcoder, arguments.tool)?;
    let said = pcoder.auth_of(&tool)?;
    if said.as_ref().is_some_and(|it| it.mode == AuthMode::Oauth) {
        let prepared = pcoder.prepare_login(&tool, Vec::new()).await?;
        let status = attended(&prepared, false).await?;
        if status != ExitStatus::Exited(0) {
            let message = format!("the tool's logout failed ({})", ended(&status));
            return Err(Error::new(code::PROCESS, "auth.logout", message)
                .subject(tool.clone())
                .hint(format!("its login is in {}", pcoder.layout().tool_folder(&tool).display())));
        }
    }
    pcoder.set_auth(&tool, None)?;
    let what = if said.is_some() { "is logged out" } else { "was not logged in by pcoder" };
    done(&tool, what, &arguments.json.json)
}

fn done(tool: &str, what: &str, as_json: &bool) -> Result<ExitCode, Error> {
    if *as_json {
        print_json(&json!({ "tool": tool, "result": what }))?;
    } else {
        note(&format!("{tool} {what}"));
    }
    Ok(ExitCode::SUCCESS)
}
