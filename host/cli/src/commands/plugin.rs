//! `plugin …`.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use pcoder_core::Pcoder;
use pcoder_core::engine_store::Progress;
use pcoder_core::grants::{Asked, CLASSES, Candidate, Consent, classes, of_classes};
use pcoder_core::runtime::Error;
use pcoder_core::runtime::capability::Class;
use pcoder_core::runtime::error::code;
use pcoder_core::runtime::inspect::Inspection;
use pcoder_core::runtime::manifest::{Access, Capabilities};
use pcoder_core::runtime::text::for_people;
use serde_json::json;

use crate::args::{Plugin, PluginAdd, PluginGrant, PluginInspect, PluginRemove, PluginRevoke};
use crate::output::{GOOD, WARN, note, print, print_json, size, snake_case, table};
use crate::progress::Bar;
use crate::signals::cancelled_by_user;

pub(crate) async fn plugin(pcoder: &Pcoder, command: Plugin) -> Result<ExitCode, Error> {
    match command {
        Plugin::List(arguments) => list(pcoder, arguments.json),
        Plugin::Inspect(arguments) => show(pcoder, &arguments),
        Plugin::Add(arguments) => add(pcoder, arguments).await,
        Plugin::Grant(arguments) => grant(pcoder, &arguments),
        Plugin::Revoke(arguments) => revoke(pcoder, &arguments).await,
        Plugin::Remove(arguments) => remove(pcoder, &arguments).await,
    }
}

fn list(pcoder: &Pcoder, as_json: bool) -> Result<ExitCode, Error> {
    let plugins = pcoder.plugins()?;
    if as_json {
        print_json(&json!({ "plugins": plugins }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = plugins.into_iter().map(|it| {
        let state = match (&it.problem, it.granted) {
            (Some(_), _) => "broken",
            (None, true) => "",
            (None, false) => "narrowed",
        };
        let what = it.problem.unwrap_or(it.description);
        vec![
            it.name,
            it.kind.to_string(),
            for_people(&it.version, 40),
            for_people(&it.source, 80),
            state.into(),
            for_people(&what, 200),
        ]
    });
    print(&table(&["plugin", "kind", "version", "from", "", "what it is"], rows))?;
    Ok(ExitCode::SUCCESS)
}

fn show(pcoder: &Pcoder, arguments: &PluginInspect) -> Result<ExitCode, Error> {
    let (inspection, granted) = find(pcoder, &arguments.plugin)?;
    let fits = inspection.check_imports();
    if arguments.json.json {
        print_json(&json!({
            "plugin": snake_case(&inspection)?, "impossible": inspection.impossible(),
            "granted": granted.as_ref().map(snake_case).transpose()?,
            "serves": fits.is_ok(), "problem": fits.as_ref().err(),
        }))?;
    } else {
        let mut text = describe(&inspection);
        if let Some(granted) = granted.filter(|it| *it != inspection.manifest.capabilities) {
            text += "\nWas granted:\n";
            text += &lines(&granted);
        }
        print(&text)?;
    }
    fits?;
    Ok(ExitCode::SUCCESS)
}

/// By name among those that are there, with what it was granted; else by file.
fn find(pcoder: &Pcoder, plugin: &str) -> Result<(Inspection, Option<Capabilities>), Error> {
    match pcoder.known_plugin(plugin) {
        Ok((inspection, _)) => {
            let granted = pcoder.granted_to(plugin)?;
            return Ok((inspection, Some(granted)));
        }
        Err(error) if !error.is(code::NOT_FOUND) => return Err(error),
        Err(_) => {}
    }
    let path = pcoder.surroundings().cwd.join(plugin);
    match std::fs::read(&path) {
        Ok(bytes) => {
            pcoder.inspect(&bytes).map(|it| (it, None)).map_err(|error| error.subject(path.display().to_string()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::new(code::NOT_FOUND, "plugin.inspect", "there is no plugin and no file of that name")
                .subject(for_people(plugin, 400))
                .hint("`pcoder plugin list` shows the plugins"))
        }
        Err(error) => {
            let hint = "give a component's file, or the name of a plugin; `pcoder plugin list` shows those";
            Err(Error::io("plugin.inspect", path.display().to_string(), &error).hint(hint))
        }
    }
}

fn describe(inspection: &Inspection) -> String {
    let manifest = &inspection.manifest;
    let clean = |text: &str| for_people(text, 400);
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
    text += &lines(&manifest.capabilities);
    text += "\nCan never (it does not import what that needs):\n";
    for what in inspection.impossible() {
        text += &format!("  {what}\n");
    }
    text
}

/// Capabilities, a line each, with the author's reason below.
fn lines(asks: &Capabilities) -> String {
    let clean = |text: &str| for_people(text, 400);
    let mut text = String::new();
    let mut ask = |what: String, reason: &str| {
        text += &format!("  {}\n", clean(&what));
        if !reason.is_empty() {
            text += &format!("      {}\n", clean(reason));
        }
    };
    for it in &asks.exec {
        let pinned = if it.sha256.is_some() { " (pinned to its bytes)" } else { "" };
        let env = if it.env.is_empty() { String::new() } else { format!(" with the variables {}", it.env.join(", ")) };
        ask(format!("run {} {}{env}{pinned}", it.program, it.args.join(" | ")).trim_end().to_owned(), &it.reason);
    }
    for it in &asks.service {
        let pinned = if it.sha256.is_some() { " (pinned to its bytes)" } else { "" };
        ask(format!("keep {} running beyond its calls{pinned}, started with", it.program), "");
        for words in &it.always {
            ask(format!("    {words} (always)"), "");
        }
        for option in &it.options {
            ask(format!("    {option}"), "");
        }
        if !it.messages.is_empty() {
            ask("  and told".to_owned(), "");
        }
        for message in &it.messages {
            ask(format!("    {message}"), "");
        }
        ask("  to its end".to_owned(), &it.reason);
    }
    for it in &asks.files {
        let access = if it.access == Access::Read { "read" } else { "read and write" };
        ask(format!("{access} files of `{}`", it.root), &it.reason);
    }
    for it in &asks.net {
        let addresses: Vec<String> = it.addresses.iter().map(|class| format!("{class:?}").to_lowercase()).collect();
        let special =
            if addresses.is_empty() { String::new() } else { format!(", also at {} addresses", addresses.join(", ")) };
        let methods = if it.methods.is_empty() { String::new() } else { format!("{} ", it.methods.join(", ")) };
        ask(format!("reach {methods}{}{special}", it.url), &it.reason);
    }
    for it in &asks.secrets {
        ask(format!("name the secret {}, for {}", it.name, it.to.join(", ")), &it.reason);
    }
    if let Some(it) = &asks.target {
        ask("commands and files on the instance that it is called for".to_owned(), &it.reason);
    }
    if text.is_empty() {
        text += "  nothing\n";
    }
    text
}

async fn add(pcoder: &Pcoder, arguments: PluginAdd) -> Result<ExitCode, Error> {
    let only = match &arguments.only {
        // `--only=` grants nothing.
        Some(names) => classes(&names.iter().filter(|it| !it.is_empty()).cloned().collect::<Vec<_>>())?,
        None => CLASSES.to_vec(),
    };
    let bar = Bar::new("plugin", arguments.json.json || !arguments.source.contains("://"));
    let candidate = pcoder
        .candidate(&arguments.source, arguments.sha256.as_deref(), &bar as &dyn Progress, cancelled_by_user())
        .await;
    bar.finish();
    let candidate = candidate?;
    let roots: BTreeMap<_, _> = arguments.roots.into_iter().collect();
    let asked = candidate.asked();
    if !arguments.json.json {
        note(&question(&candidate));
    }
    let granted = of_classes(candidate.wanted(), &only);
    let homeless: Vec<String> = candidate
        .roots_without_folder(&roots)
        .into_iter()
        .filter(|root| granted.files.iter().any(|it| it.root == *root))
        .collect();
    if let Some(root) = homeless.first() {
        return Err(Error::new(code::INVALID, "plugin.add", "no folder is named for a root that it asks for")
            .subject(for_people(root, 80))
            .hint(format!("`--root {root}=FOLDER`, or leave `files` out: `--only CLASS,…`")));
    }
    if asked != Asked::Nothing {
        agree(arguments.yes, &candidate.inspection().manifest.name, asked, "plugin.add")?;
    }
    let entry = candidate.accept(&Consent { granted: granted.clone(), roots, pin: arguments.pin })?;
    if arguments.json.json {
        print_json(&json!({
            "name": entry.name, "kind": entry.kind, "version": entry.version, "sha256": entry.sha256,
            "asked": snake_case(&asked)?, "granted_now": snake_case(&granted)?,
            "granted": snake_case(&Capabilities::from(entry.granted))?,
        }))?;
    } else {
        note(&format!("{GOOD}added{GOOD:#} {} {}", entry.name, entry.version));
        note(&format!(
            "`pcoder plugin inspect {0}` shows what it may do, `pcoder audit show --plugin {0}` what it did",
            entry.name
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// What its user has to decide.
fn question(candidate: &Candidate<'_>) -> String {
    let inspection = candidate.inspection();
    let name = &inspection.manifest.name;
    let previous = candidate.previous().map(|it| {
        let short = |digest: &str| digest.get(..16).unwrap_or_default().to_owned();
        if it.sha256 == inspection.digest {
            return format!("{name} {} is there already, these very bytes.\n", for_people(&it.version, 40));
        }
        format!(
            "{name} is there already, as other bytes: version {}, sha256 {}… (these are version {}, sha256 {}…).\n",
            for_people(&it.version, 40),
            short(&it.sha256),
            for_people(&inspection.manifest.version, 40),
            short(&inspection.digest)
        )
    });
    match candidate.asked() {
        Asked::Everything => describe(inspection),
        Asked::Nothing => format!("{name} is there, these very bytes, with all that it asks for."),
        Asked::OtherBytes => {
            let kept = lines(candidate.kept());
            format!("{}It asks for nothing more. It would keep:\n{kept}", previous.unwrap_or_default())
        }
        Asked::Widened => {
            let wanted = lines(candidate.wanted());
            format!("{}{WARN}Beyond what was granted{WARN:#}, it asks for:\n{wanted}", previous.unwrap_or_default())
        }
    }
}

/// A person says yes, or said so beforehand.
fn agree(yes: bool, name: &str, asked: Asked, operation: &'static str) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    let refused = |message: &str| {
        let part = match operation {
            "plugin.add" => "`--yes` grants what is shown, `--only CLASS,…` a part of it",
            _ => "`--yes` grants what is shown; name classes for a part of it",
        };
        Error::new(code::DENIED, operation, message.to_owned())
            .subject(name)
            .hint(format!("nothing was changed; {part}"))
    };
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(refused("nobody is there to agree to what it asks for"));
    }
    let prompt = match asked {
        Asked::OtherBytes => "Trust these bytes with that?",
        _ => "Grant this?",
    };
    let answer = dialoguer::Confirm::new().with_prompt(prompt).default(false).interact();
    match answer {
        Ok(true) => Ok(()),
        Ok(false) => Err(refused("it was not agreed to")),
        Err(dialoguer::Error::IO(error)) => Err(Error::io(operation, "the terminal", &error)),
    }
}

fn chosen(names: &[String]) -> Result<Vec<Class>, Error> {
    if names.is_empty() { Ok(CLASSES.to_vec()) } else { classes(names) }
}

fn grant(pcoder: &Pcoder, arguments: &PluginGrant) -> Result<ExitCode, Error> {
    let classes = chosen(&arguments.classes)?;
    let name = &arguments.plugin;
    let wanted = pcoder.not_granted(name, &classes)?;
    if wanted.capabilities == Capabilities::default() {
        if arguments.json.json {
            print_json(&json!({ "name": name, "granted_now": {} }))?;
        } else {
            note(&format!("{name} has all that it asks for"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.json.json {
        note(&format!("{name} asks for:\n{}", lines(&wanted.capabilities)));
    }
    agree(arguments.yes, name, Asked::Widened, "plugin.grant")?;
    let granted = pcoder.grant(wanted, arguments.pin)?;
    if arguments.json.json {
        print_json(&json!({ "name": name, "granted_now": snake_case(&granted)? }))?;
    } else {
        note(&format!("{GOOD}granted{GOOD:#}"));
    }
    Ok(ExitCode::SUCCESS)
}

async fn revoke(pcoder: &Pcoder, arguments: &PluginRevoke) -> Result<ExitCode, Error> {
    let taken = pcoder.revoke(&arguments.plugin, &chosen(&arguments.classes)?).await?;
    if arguments.json.json {
        print_json(&json!({ "name": arguments.plugin, "revoked": snake_case(&taken)? }))?;
    } else {
        note(&format!("{} may no longer:\n{}", arguments.plugin, lines(&taken)));
    }
    Ok(ExitCode::SUCCESS)
}

async fn remove(pcoder: &Pcoder, arguments: &PluginRemove) -> Result<ExitCode, Error> {
    let entry = pcoder.remove_plugin(&arguments.plugin, arguments.purge).await?;
    if arguments.json.json {
        print_json(&json!({ "removed": entry.name, "purged": arguments.purge }))?;
    } else {
        note(&format!("removed {} {}", entry.name, entry.version));
        if !arguments.purge && pcoder.layout().plugin_state(&entry.name).exists() {
            let state = pcoder.layout().plugin_state(&entry.name);
            note(&format!("what it kept stays in {}; `--purge` removes that too", state.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}
