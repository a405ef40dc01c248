//! `process …`.

use std::process::ExitCode;
use std::sync::Arc;

use pcoder_core::Pcoder;
use pcoder_core::orchestrator::{Orchestrator, Untold};
use pcoder_core::runtime::Error;
use pcoder_core::runtime::contract::process_manager::ProcessInfo;
use pcoder_core::runtime::contract::{ProcessSpec, Restart, RestartLimits};
use pcoder_core::runtime::text::for_people;
use serde_json::{Value, json};

use super::instance::{command_spec, of};
use crate::args::{Managed, Process, ProcessStart};
use crate::output::{note, print, print_json, table};

pub(crate) async fn process(pcoder: &Pcoder, command: Process) -> Result<ExitCode, Error> {
    match command {
        Process::Start(it) => start(pcoder, it).await?,
        Process::List(it) => {
            let list = manager(pcoder, &it.managed).await?.list_processes(&it.managed.instance).await?;
            if it.json.json {
                print_json(&json!({ "processes": list.iter().map(record).collect::<Vec<_>>() }))?;
            } else {
                print(&table(&["process", "status", "pid", "exit", "restarts"], list.iter().map(row)))?;
            }
        }
        Process::Logs(it) => {
            let manager = manager(pcoder, &it.managed).await?;
            let logs = manager.logs(&it.managed.instance, &it.name, it.lines).await?;
            if it.json.json {
                print_json(&json!({ "out": logs.out, "err": logs.err }))?;
            } else {
                print(&logs.out)?;
                if !logs.err.is_empty() {
                    note(logs.err.trim_end_matches('\n'));
                }
            }
        }
        Process::Stop(it) => {
            manager(pcoder, &it.managed).await?.stop_process(&it.managed.instance, &it.name).await?;
            done(&it.name, "is stopped", it.json.json)?;
        }
        Process::Delete(it) => {
            manager(pcoder, &it.managed).await?.delete_process(&it.managed.instance, &it.name).await?;
            done(&it.name, "is gone", it.json.json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn manager<'a>(pcoder: &'a Pcoder, managed: &Managed) -> Result<Orchestrator<'a>, Error> {
    let provider = of(pcoder, &managed.on).await?;
    pcoder.orchestrator(provider, &managed.manager, Arc::new(Untold)).await
}

async fn start(pcoder: &Pcoder, arguments: ProcessStart) -> Result<(), Error> {
    let manager = manager(pcoder, &arguments.managed).await?;
    let mut command = command_spec(arguments.command);
    command.name = Some(arguments.name);
    let restart = match arguments.restart {
        None => Restart::Never,
        Some(times) => {
            let uptime = arguments.min_uptime.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
            Restart::OnExit(RestartLimits { max_restarts: Some(times), min_uptime_ms: uptime })
        }
    };
    let spec = ProcessSpec {
        command,
        restart,
        instances: None,
        max_memory: arguments.max_memory_mib.map(|mib| mib.saturating_mul(1 << 20)),
        options: Vec::new(),
    };
    let started = manager.start_process(&arguments.managed.instance, &spec).await?;
    if arguments.json.json {
        return print_json(&json!({ "process": record(&started) }));
    }
    print(&format!("{}\n", for_people(&started.name, 80)))
}

fn done(name: &str, what: &str, as_json: bool) -> Result<(), Error> {
    if as_json {
        return print_json(&json!({ "name": name }));
    }
    note(&format!("{} {what}", for_people(name, 80)));
    Ok(())
}

fn record(process: &ProcessInfo) -> Value {
    let details: serde_json::Map<String, Value> =
        process.details.iter().map(|it| (it.name.clone(), Value::from(it.value.clone()))).collect();
    json!({
        "name": process.name,
        "status": process.status,
        "pid": process.pid,
        "exit_code": process.exit_code,
        "restarts": process.restarts,
        "started_ms": process.started_ms,
        "details": details,
    })
}

fn row(process: &ProcessInfo) -> Vec<String> {
    let number = |it: Option<String>| it.unwrap_or_else(|| "-".to_owned());
    vec![
        for_people(&process.name, 80),
        for_people(&process.status, 40),
        number(process.pid.map(|it| it.to_string())),
        number(process.exit_code.map(|it| it.to_string())),
        number(process.restarts.map(|it| it.to_string())),
    ]
}
