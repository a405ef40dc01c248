//! `plugin …`.

use std::process::ExitCode;

use pcoder_core::Pcoder;
use pcoder_core::runtime::Error;
use pcoder_core::runtime::error::code;
use pcoder_core::runtime::inspect::{Inspection, inspect};
use serde_json::json;

use crate::args::Plugin;
use crate::output::{print, print_json, size, snake_case, table};

pub(crate) fn plugin(pcoder: &Pcoder, command: &Plugin) -> Result<ExitCode, Error> {
    match command {
        Plugin::List(arguments) => {
            let plugins = pcoder.plugins()?;
            if arguments.json {
                print_json(&json!({ "plugins": plugins }))?;
            } else {
                let rows = plugins
                    .into_iter()
                    .map(|it| vec![it.name, it.kind.to_string(), it.version, it.source.to_owned(), it.description]);
                print(&table(&["plugin", "kind", "version", "from", "what it is"], rows))?;
            }
        }
        Plugin::Inspect(arguments) => {
            let inspection = find(pcoder, &arguments.plugin)?;
            let fits = inspection.check_imports();
            if arguments.json.json {
                print_json(&json!({
                    "plugin": snake_case(&inspection)?, "impossible": inspection.impossible(),
                    "serves": fits.is_ok(), "problem": fits.as_ref().err(),
                }))?;
            } else {
                print(&describe(&inspection))?;
            }
            fits?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// By name among those that are built in, else by file.
fn find(pcoder: &Pcoder, plugin: &str) -> Result<Inspection, Error> {
    if let Some(found) = pcoder.inspect_all()?.into_iter().find(|it| it.manifest.name == plugin) {
        return Ok(found);
    }
    let path = pcoder.surroundings().cwd.join(plugin);
    match std::fs::read(&path) {
        Ok(bytes) => inspect(&bytes).map_err(|error| error.subject(path.display().to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::new(code::NOT_FOUND, "plugin.inspect", "there is no plugin and no file of that name")
                .subject(pcoder_core::runtime::text::for_people(plugin, 400))
                .hint("`pcoder plugin list` shows the plugins"))
        }
        Err(error) => Err(Error::io("plugin.inspect", path.display().to_string(), &error)),
    }
}

fn describe(inspection: &Inspection) -> String {
    let manifest = &inspection.manifest;
    let asks = &manifest.capabilities;
    let clean = |text: &str| pcoder_core::runtime::text::for_people(text, 400);
    let mut text = format!(
        "{} {} ({})\n  {}\n  contract {}, {}, sha256 {}\n\nAsks for:\n",
        manifest.name,
        clean(&manifest.version),
        manifest.kind,
        clean(&manifest.description),
        manifest.contract,
        size(inspection.size),
        inspection.digest
    );
    let before = text.len();
    let mut ask = |what: String, reason: &str| {
        text += &format!("  {}\n", clean(&what));
        if !reason.is_empty() {
            text += &format!("      {}\n", clean(reason));
        }
    };
    for it in &asks.exec {
        ask(format!("run {} {}", it.program, it.args.join(" | ")).trim_end().to_owned(), &it.reason);
    }
    for it in &asks.files {
        ask(format!("files of `{}`, {:?}", it.root, it.access), &it.reason);
    }
    for it in &asks.net {
        ask(format!("{} {} {:?}", it.methods.join(", "), it.url, it.addresses), &it.reason);
    }
    for it in &asks.secrets {
        ask(format!("the secret {}, to {}", it.name, it.to.join(", ")), &it.reason);
    }
    if let Some(it) = &asks.target {
        ask("commands and files on the instance that it is called for".to_owned(), &it.reason);
    }
    if text.len() == before {
        text += "  nothing\n";
    }
    text += "\nCan never (it does not import what that needs):\n";
    for what in inspection.impossible() {
        text += &format!("  {what}\n");
    }
    text
}
