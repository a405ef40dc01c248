//! `config …`.

use std::process::ExitCode;

use pcoder_core::Pcoder;
use pcoder_core::runtime::Error;
use pcoder_core::settings::{Origin, Setting};
use serde_json::json;

use crate::args::{Config, ConfigCommand};
use crate::output::{note, print, print_json, table};

pub(crate) fn config(pcoder: &Pcoder, arguments: &Config) -> Result<ExitCode, Error> {
    let project = || pcoder.project_folder(arguments.project.as_deref());
    match &arguments.command {
        None => {
            let settings = pcoder.settings(Some(&project()?))?.all()?;
            if arguments.json.json {
                print_json(&json!({ "settings": settings, "file": pcoder.layout().settings() }))?;
            } else {
                let rows = settings.iter().map(|it| {
                    vec![it.name.clone(), it.value.clone().unwrap_or_else(|| "-".into()), origin(&it.origin)]
                });
                print(&table(&["setting", "value", "from"], rows))?;
            }
        }
        Some(ConfigCommand::Get(it)) => {
            let setting = pcoder.settings(Some(&project()?))?.get(&it.name, None)?;
            if it.json.json {
                print_json(&setting)?;
            } else if let Setting { value: Some(value), .. } = &setting {
                print(&format!("{value}\n"))?;
            }
            return Ok(ExitCode::from(if setting.value.is_some() { 0 } else { 3 }));
        }
        Some(ConfigCommand::Set(it)) => {
            pcoder.set(&it.name, Some(&it.value))?;
            changed(pcoder, &it.name, it.json.json)?;
        }
        Some(ConfigCommand::Unset(it)) => {
            pcoder.set(&it.name, None)?;
            changed(pcoder, &it.name, it.json.json)?;
        }
        Some(ConfigCommand::Path(it)) => {
            let path = pcoder.layout().settings();
            if it.json {
                print_json(&json!({ "file": path }))?;
            } else {
                print(&format!("{}\n", path.display()))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What holds now, which need not be what was just written: a variable or a project may say otherwise.
fn changed(pcoder: &Pcoder, name: &str, json: bool) -> Result<(), Error> {
    let settings = pcoder.settings(pcoder.project_folder(None).ok().as_deref())?;
    let now = settings.get(name, None)?;
    if json {
        return print_json(&now);
    }
    let value = now.value.as_deref().unwrap_or("not set");
    note(&format!("{name} is {value} (from {})", origin(&now.origin)));
    Ok(())
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Flag => "the command line".to_owned(),
        Origin::Environment { variable } => format!("the variable {variable}"),
        Origin::Project { path } | Origin::User { path } => path.display().to_string(),
        Origin::Default => "default".to_owned(),
    }
}
