//! `profile …`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use pcoder_core::Pcoder;
use pcoder_core::egress::Hosts;
use pcoder_core::names::{Endpoint, Name, Variable};
use pcoder_core::profiles::{AuthMode, Profile, RunLimits};
use pcoder_core::runtime::Error;
use pcoder_core::runtime::error::code;
use pcoder_core::secret_store::Reference;
use serde_json::{Value, json};

use crate::args::{AuthKind, Profile as Command, ProfileCreate};
use crate::output::{note, print, print_json, snake_case, table};

pub(crate) fn profile(pcoder: &Pcoder, command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::List(it) => list(pcoder, it.json)?,
        Command::Show(it) => {
            let profile = pcoder.profile(&it.name)?;
            let path = pcoder.profile_path(&it.name)?;
            if it.json.json {
                print_json(&json!({ "name": it.name, "file": path, "profile": snake_case(&profile)? }))?;
            } else {
                // As it was written, comments and all: there is no secret in it.
                let text = std::fs::read_to_string(&path);
                print(&text.map_err(|error| Error::io("profile.show", path.display().to_string(), &error))?)?;
            }
        }
        Command::Use(it) => {
            let profile = pcoder.profile(&it.name)?;
            pcoder.set(&format!("profile.{}", profile.tool), Some(&it.name))?;
            if it.json.json {
                print_json(&json!({ "profile": it.name, "tool": profile.tool }))?;
            } else {
                note(&format!("{} uses the profile {} from now on", profile.tool, it.name));
            }
        }
        Command::Create(it) => create(pcoder, *it)?,
        Command::Remove(it) => {
            pcoder.remove_profile(&it.name)?;
            if it.json.json {
                print_json(&json!({ "removed": it.name }))?;
            } else {
                note(&format!("removed the profile {}", it.name));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(pcoder: &Pcoder, as_json: bool) -> Result<(), Error> {
    let profiles = pcoder.profiles()?;
    let settings = pcoder.settings(pcoder.project_folder(None).ok().as_deref())?;
    let used = |tool: &Name, name: &str| {
        settings.profile(tool.as_str(), None).is_ok_and(|it| it.value.as_deref() == Some(name))
    };
    if as_json {
        let rows = profiles.iter().map(|it| {
            Ok(match &it.profile {
                Ok(profile) => json!({
                    "name": it.name, "used": used(&profile.tool, &it.name), "profile": snake_case(profile)?,
                    "problem": Value::Null,
                }),
                Err(error) => json!({ "name": it.name, "used": false, "profile": Value::Null, "problem": error }),
            })
        });
        let rows = rows.collect::<Result<Vec<_>, Error>>()?;
        return print_json(&json!({ "profiles": rows }));
    }
    if profiles.is_empty() {
        note("there are no profiles yet; `pcoder profile create NAME --tool claude` makes one");
        return Ok(());
    }
    let rows = profiles.iter().map(|it| match &it.profile {
        Ok(profile) => vec![
            it.name.clone(),
            profile.tool.to_string(),
            if used(&profile.tool, &it.name) { "in use" } else { "" }.to_owned(),
            profile.auth.map_or("", AuthMode::word).to_owned(),
            profile.model.clone().unwrap_or_default(),
            profile.description.clone().unwrap_or_default(),
        ],
        Err(error) => {
            vec![it.name.clone(), "?".into(), "broken".into(), String::new(), String::new(), error.message.clone()]
        }
    });
    print(&table(&["profile", "tool", "", "auth", "model", "what it is"], rows))
}

fn create(pcoder: &Pcoder, arguments: ProfileCreate) -> Result<(), Error> {
    let wrong = |message: String| Error::new(code::INVALID, "profile.create", message).hint("nothing was written");
    // What was typed is not repeated in an error: it may be a key.
    let reference = |text: &str| {
        text.parse::<Reference>()
            .map_err(|error| Error::new(code::INVALID, "profile.create", error.to_string()).hint(error.hint()))
    };
    let tool = Name::new(&arguments.tool).map_err(wrong)?;
    if !pcoder.tool_names().iter().any(|it| it == tool.as_str()) {
        return Err(Error::new(code::NOT_FOUND, "profile.create", "there is no tool of that name")
            .subject(tool.as_str())
            .hint("`pcoder list-tools` shows them"));
    }
    let key = arguments.key.as_deref().map(reference).transpose()?;
    let auth = match arguments.auth {
        Some(AuthKind::Api) => Some(AuthMode::Api),
        Some(AuthKind::Oauth) => Some(AuthMode::Oauth),
        None => key.as_ref().map(|_| AuthMode::Api),
    };
    let mut env = BTreeMap::new();
    for (name, text) in &arguments.env {
        env.insert(Variable::new(name).map_err(wrong)?, reference(text)?);
    }
    let profile = Profile {
        network_allow: Hosts::default(),
        tool: tool.clone(),
        description: arguments.description,
        auth,
        key,
        model: arguments.model,
        endpoint: arguments.endpoint.as_deref().map(Endpoint::new).transpose().map_err(wrong)?,
        provider: arguments.provider.as_deref().map(Name::new).transpose().map_err(wrong)?,
        env,
        limits: RunLimits { wall_seconds: arguments.wall_seconds, output_mib: arguments.output_mib },
    };
    let path = pcoder.create_profile(&arguments.name, profile)?;
    if arguments.and_use {
        pcoder.set(&format!("profile.{tool}"), Some(&arguments.name))?;
    }
    if arguments.json.json {
        return print_json(&json!({ "name": arguments.name, "file": path, "used": arguments.and_use }));
    }
    note(&format!("wrote {}", path.display()));
    if !arguments.and_use {
        note(&format!(
            "`pcoder run {tool} --profile {0}` uses it once, `pcoder profile use {0}` always",
            arguments.name
        ));
    }
    Ok(())
}
