//! `instance …`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pcoder_core::egress::Refused;
use pcoder_core::instances::Provider;
use pcoder_core::runtime::Error;
use pcoder_core::runtime::contract::provider::{BootOptions, Instance as Described};
use pcoder_core::runtime::contract::{Argv, Command, CommandSpec, Setting, WriteOptions};
use pcoder_core::runtime::error::code;
use pcoder_core::runtime::host::stdio::Stdio;
use pcoder_core::runtime::text::for_people;
use pcoder_core::{Feed, Pcoder};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::run::{KEPT, ended};
use crate::args::{
    Boot, CommandLine, Instance, InstanceBoot, InstanceCp, InstanceExec, InstancePorts, InstanceTerminate, Network,
    OnProvider, Place,
};
use crate::output::{note, print, print_json, table};
use crate::progress::Spinner;
use crate::{exit, signals};

pub(crate) async fn instance(pcoder: &Pcoder, command: Instance) -> Result<ExitCode, Error> {
    match command {
        Instance::Boot(it) => boot(pcoder, it).await,
        Instance::List(it) => list(pcoder, &it.on, it.json.json).await,
        Instance::Get(it) => {
            let instance = of(pcoder, &it.on).await?.get(&it.id).await?;
            shown(&instance, it.json.json)
        }
        Instance::Stop(it) => {
            of(pcoder, &it.on).await?.stop(&it.id).await?;
            done(&it.id, "is stopped", it.json.json)
        }
        Instance::Resume(it) => {
            let provider = of(pcoder, &it.on).await?;
            let spinner = Spinner::start(&format!("Resuming {}", for_people(&it.id, 80)), it.json.json);
            let instance = provider.resume(&it.id).await?;
            drop(spinner);
            shown(&instance, it.json.json)
        }
        Instance::Terminate(it) => terminate(pcoder, &it).await,
        Instance::Fork(it) => {
            let provider = of(pcoder, &it.on).await?;
            let spinner = Spinner::start(&format!("Copying {}", for_people(&it.id, 80)), it.json.json);
            let instance = provider.fork(&it.id).await?;
            drop(spinner);
            booted(&[instance], it.json.json)
        }
        Instance::Exec(it) => exec(pcoder, it).await,
        Instance::Cp(it) => copy(pcoder, &it).await,
        Instance::Ports(it) => ports(pcoder, &it).await,
        Instance::Ssh(it) => shell(pcoder, &it.id, &it.on).await,
    }
}

/// The provider that was named, or the user's.
pub(crate) async fn of<'a>(pcoder: &'a Pcoder, on: &OnProvider) -> Result<Provider<'a>, Error> {
    provider(pcoder, on, signals::process_cancelled_by_user()).await
}

async fn provider<'a>(pcoder: &'a Pcoder, on: &OnProvider, cancel: CancellationToken) -> Result<Provider<'a>, Error> {
    let named = pcoder.settings(None)?.get("provider", on.provider.as_deref())?;
    pcoder.provider(&named.value.unwrap_or_default(), cancel).await
}

/// The options of a boot: what the machine reaches, and what else was said.
pub(crate) fn machine_options(network: Option<Network>, more: Vec<(String, String)>) -> Vec<Setting> {
    let network = network.map(|it| Setting { name: "network".to_owned(), value: it.word().to_owned() });
    network.into_iter().chain(more.into_iter().map(|(name, value)| Setting { name, value })).collect()
}

/// Says what a machine wanted to reach and must not.
pub(crate) fn refused(refused: &Refused) {
    let hosts = |hosts: &[String]| for_people(&hosts.join(", "), 2000);
    if let Some(allow) = &refused.allow {
        note(&format!(
            "warning: its network is restricted, and it was kept from {}; {} allows that",
            hosts(&refused.hosts),
            for_people(allow, 2000)
        ));
    }
    if !refused.inside.is_empty() {
        note(&format!(
            "warning: it was kept from {}, which lead into this host or its network: a machine whose network is \
             restricted gets there only by the address of a model that the run's profile names",
            hosts(&refused.inside)
        ));
    }
}

/// What the command line says of a boot.
pub(crate) fn boot_options(boot: Boot) -> BootOptions {
    BootOptions {
        image: boot.image,
        name: boot.name,
        ttl_seconds: boot.ttl.map(|it| it.as_secs().max(1)),
        ttl_action: boot.ttl.map(|_| boot.ttl_action.map_or("stop", |it| it.word()).to_owned()),
        project: None,
        options: machine_options(boot.network, boot.options),
    }
}

async fn boot(pcoder: &Pcoder, arguments: InstanceBoot) -> Result<ExitCode, Error> {
    let json = arguments.json.json;
    pcoder.expect_calls(u32::from(arguments.count));
    let provider = of(pcoder, &arguments.on).await?;
    let options = boot_options(arguments.boot);
    let what = if arguments.count == 1 { "an instance".to_owned() } else { format!("{} instances", arguments.count) };
    let spinner = Spinner::start(&format!("Booting {what} of {}", provider.name()), json);
    let boots = (0..arguments.count).map(|_| provider.boot(&options));
    let (mut instances, mut failed) = (Vec::new(), Vec::new());
    for result in futures_util::future::join_all(boots).await {
        match result {
            Ok(instance) => instances.push(instance),
            Err(error) => failed.push(error),
        }
    }
    // Somebody who stops this wants none of them. What cannot be ended is told below.
    if failed.iter().any(|error| error.is(code::CANCELLED)) {
        let ended = instances.iter().map(|instance| provider.terminate(&instance.id));
        let ended = futures_util::future::join_all(ended).await;
        instances = instances.into_iter().zip(ended).filter(|(_, ended)| ended.is_err()).map(|(it, _)| it).collect();
    }
    drop(spinner);
    // The one that says what to do about an instance that is left.
    failed.sort_by_key(|error| error.hint.is_none());
    match failed.into_iter().next() {
        None => booted(&instances, json),
        Some(error) if instances.is_empty() => Err(error),
        Some(error) => {
            // Those that are there cost something: they are told, and the failure is.
            booted(&instances, json)?;
            Err(error)
        }
    }
}

fn booted(instances: &[Described], as_json: bool) -> Result<ExitCode, Error> {
    if as_json {
        print_json(&json!({ "instances": instances.iter().map(record).collect::<Vec<_>>() }))?;
    } else {
        for instance in instances {
            print(&format!("{}\n", for_people(&instance.id, 128)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(pcoder: &Pcoder, on: &OnProvider, as_json: bool) -> Result<ExitCode, Error> {
    let instances = of(pcoder, on).await?.list().await?;
    if as_json {
        print_json(&json!({ "instances": instances.iter().map(record).collect::<Vec<_>>() }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = instances.iter().map(|it| {
        let name = it.details.iter().find(|it| it.name == "name").map(|it| it.value.clone()).unwrap_or_default();
        let created = it.created_ms.map(time).unwrap_or_default();
        vec![for_people(&it.id, 128), for_people(&it.status, 40), for_people(&name, 80), created]
    });
    print(&table(&["instance", "status", "name", "created"], rows))?;
    Ok(ExitCode::SUCCESS)
}

fn time(ms: u64) -> String {
    let at = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(ms));
    at.map(|at| humantime::format_rfc3339_seconds(at).to_string()).unwrap_or_default()
}

/// An instance as scripts read it.
pub(crate) fn record(instance: &Described) -> Value {
    let details: serde_json::Map<String, Value> =
        instance.details.iter().map(|it| (it.name.clone(), Value::from(it.value.clone()))).collect();
    json!({
        "id": instance.id,
        "status": instance.status,
        "created_ms": instance.created_ms,
        "home_dir": instance.home_dir,
        "details": details,
    })
}

fn shown(instance: &Described, as_json: bool) -> Result<ExitCode, Error> {
    if as_json {
        print_json(&json!({ "instance": record(instance) }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![
        vec!["instance".to_owned(), for_people(&instance.id, 128)],
        vec!["status".to_owned(), for_people(&instance.status, 40)],
    ];
    rows.extend(instance.created_ms.map(|ms| vec!["created".to_owned(), time(ms)]));
    rows.extend(instance.home_dir.iter().map(|home| vec!["home".to_owned(), for_people(home, 400)]));
    let detail = |it: &Setting| vec![for_people(&it.name, 80), for_people(&it.value, 400)];
    rows.extend(instance.details.iter().map(detail));
    print(&table(&["", ""], rows))?;
    Ok(ExitCode::SUCCESS)
}

fn done(id: &str, what: &str, as_json: bool) -> Result<ExitCode, Error> {
    if as_json {
        print_json(&json!({ "id": id }))?;
    } else {
        note(&format!("{} {what}", for_people(id, 128)));
    }
    Ok(ExitCode::SUCCESS)
}

async fn terminate(pcoder: &Pcoder, arguments: &InstanceTerminate) -> Result<ExitCode, Error> {
    let provider = of(pcoder, &arguments.on).await?;
    let ids = match arguments.all {
        true => provider.list().await?.into_iter().map(|it| it.id).collect(),
        false => arguments.ids.clone(),
    };
    let mut failed = None;
    // One after the other: services count requests, and an end is no hurry.
    for id in &ids {
        if let Err(error) = provider.terminate(id).await {
            failed.get_or_insert(error);
        } else if !arguments.json.json {
            note(&format!("{} is gone", for_people(id, 128)));
        }
    }
    match failed {
        Some(error) => Err(error),
        None => {
            if arguments.json.json {
                print_json(&json!({ "ids": ids }))?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A command from words or a script.
pub(crate) fn command_spec(line: CommandLine) -> CommandSpec {
    let mut words = line.command.into_iter();
    let command = match line.shell {
        Some(script) => Command::Shell(script),
        None => Command::Argv(Argv { program: words.next().unwrap_or_default(), args: words.collect() }),
    };
    let env = line.env.into_iter().map(|(name, value)| Setting { name, value }).collect();
    CommandSpec { command, cwd: line.cwd, env, path_entries: Vec::new(), name: None }
}

async fn exec(pcoder: &Pcoder, arguments: InstanceExec) -> Result<ExitCode, Error> {
    // Signals are the command's here.
    let provider = provider(pcoder, &arguments.on, CancellationToken::new()).await?;
    let spec = command_spec(arguments.command);
    let control = provider.control();
    let reach = provider.reach(&arguments.id).await?;
    if arguments.json.json {
        let input = if std::io::stdin().is_terminal() { Feed::Nothing } else { Feed::Inherit };
        let kept = tokio::select! {
            kept = provider.capture_reaching(&arguments.id, &spec, input, KEPT, &control, &reach) => kept,
            never = signals::pass_on(control.clone(), false) => match never {},
        };
        reach.refused().iter().for_each(refused);
        let kept = kept?;
        print_json(&ended(&kept))?;
        return Ok(ExitCode::from(exit::of_tool(&kept.status)));
    }
    // Keys in a terminal are for the terminal: a command that was named gets its input from a pipe or not at all.
    let stdio = if std::io::stdin().is_terminal() { Stdio::without_input() } else { Stdio::inherit() };
    let status = tokio::select! {
        status = provider.exec_reaching(&arguments.id, &spec, stdio, &control, &reach) => status,
        never = signals::pass_on(control.clone(), false) => match never {},
    };
    reach.refused().iter().for_each(refused);
    Ok(ExitCode::from(exit::of_tool(&status?)))
}

/// The login shell there, in this terminal.
async fn shell(pcoder: &Pcoder, id: &str, on: &OnProvider) -> Result<ExitCode, Error> {
    let provider = provider(pcoder, on, CancellationToken::new()).await?;
    if !provider.has("terminal").await? {
        return Err(Error::new(code::UNSUPPORTED, "instance.ssh", "this provider has no terminals")
            .subject(provider.name())
            .hint("`pcoder instance exec INSTANCE -- COMMAND` runs commands there"));
    }
    let stdio = Stdio::inherit();
    if !stdio.is_terminal() {
        return Err(Error::new(code::INVALID, "instance.ssh", "a shell needs a terminal, and this is none")
            .hint("`pcoder instance exec INSTANCE -- COMMAND` runs commands without one"));
    }
    let login = "exec \"${SHELL:-/bin/sh}\" -l".to_owned();
    let spec = command_spec(CommandLine { shell: Some(login), cwd: None, env: Vec::new(), command: Vec::new() });
    let control = provider.control();
    let reach = provider.reach(id).await?;
    // Elsewhere, keys go there once somebody has them there; until then Ctrl-C is this program's.
    let is_here = provider.has("host-paths").await?;
    let status = tokio::select! {
        status = provider.exec_reaching(id, &spec, stdio, &control, &reach) => status,
        never = signals::pass_on(control.clone(), is_here) => match never {},
    };
    reach.refused().iter().for_each(refused);
    let status = status?;
    Ok(ExitCode::from(exit::of_tool(&status)))
}

async fn copy(pcoder: &Pcoder, arguments: &InstanceCp) -> Result<ExitCode, Error> {
    let provider = of(pcoder, &arguments.on).await?;
    let here = |path: &Path| pcoder.surroundings().cwd.join(path);
    let failed = |path: &Path, error: &std::io::Error| Error::io("instance.cp", path.display().to_string(), error);
    let bytes = match (Place::of(&arguments.from), Place::of(&arguments.to)) {
        (Place::Here(from), Place::There { id, path }) => {
            let from = here(&from);
            let content = std::fs::read(&from).map_err(|error| failed(&from, &error))?;
            let spinner = Spinner::start(&format!("Copying to {}", for_people(&id, 80)), arguments.json.json);
            let mode = arguments.mode.or_else(|| mode_of(&from));
            let options = WriteOptions { create_parents: true, mode, owner: arguments.owner.clone() };
            let there = into_folder(&path, &from);
            let written = provider.write_file(&id, &there, &content, options).await;
            written.map_err(|error| {
                too_large(error, "`pcoder instance exec INSTANCE -- dd of=PATH`, with the file as its input")
            })?;
            drop(spinner);
            content.len()
        }
        (Place::There { id, path }, Place::Here(to)) => {
            let spinner = Spinner::start(&format!("Copying from {}", for_people(&id, 80)), arguments.json.json);
            let content = provider.read_file(&id, &path).await;
            let content = content.map_err(|error| {
                too_large(error, "`pcoder instance exec INSTANCE -- cat PATH`, with a file as its output")
            })?;
            drop(spinner);
            let to = here(&to);
            let to = match (to.is_dir(), path.rsplit('/').next()) {
                (true, Some(name)) if !name.is_empty() => to.join(name),
                _ => to,
            };
            std::fs::write(&to, &content).map_err(|error| failed(&to, &error))?;
            content.len()
        }
        _ => {
            let message = "one of the two is on an instance, and one is here";
            return Err(Error::new(code::INVALID, "instance.cp", message)
                .hint("write the one that is there as `INSTANCE:PATH`, and a path with a colon here as `./PATH`"));
        }
    };
    if arguments.json.json {
        print_json(&json!({ "bytes": bytes }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Files are one value to a plugin, and those have a limit.
fn too_large(error: Error, instead: &str) -> Error {
    if error.is(code::LIMIT) {
        error.hint(format!("a file that is too large for that is copied by {instead}"))
    } else {
        error
    }
}

/// A path there that ends with a slash is a folder.
fn into_folder(path: &str, from: &Path) -> String {
    match from.file_name() {
        Some(name) if path.ends_with('/') => format!("{path}{}", name.to_string_lossy()),
        _ => path.to_owned(),
    }
}

/// Whether a file can be run goes along.
fn mode_of(path: &PathBuf) -> Option<u32> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(path).ok().map(|it| it.permissions().mode() & 0o777)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

async fn ports(pcoder: &Pcoder, arguments: &InstancePorts) -> Result<ExitCode, Error> {
    let provider = of(pcoder, &arguments.on).await?;
    if let Some(port) = arguments.port {
        let url = provider.expose(&arguments.id, port).await?;
        if arguments.json.json {
            print_json(&json!({ "ports": [{ "port": port, "url": url }] }))?;
        } else {
            print(&format!("{}\n", for_people(&url, 2048)))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let instance = provider.get(&arguments.id).await?;
    let known = instance
        .details
        .iter()
        .filter_map(|it| Some((it.name.strip_prefix("port-")?.parse::<u16>().ok()?, it.value.clone())));
    if arguments.json.json {
        let ports: Vec<_> = known.map(|(port, url)| json!({ "port": port, "url": url })).collect();
        print_json(&json!({ "ports": ports }))?;
    } else {
        let rows = known.map(|(port, url)| vec![port.to_string(), for_people(&url, 2048)]);
        print(&table(&["port", "address"], rows))?;
    }
    Ok(ExitCode::SUCCESS)
}
