//! One request to the agent, from its fault to its reply.

use std::time::Duration;

use rmpv::Value;
use serde_json::json;

use super::shells::{self, Order};
use super::wire::{self, PitcherError, Request, code, value};
use super::{Caller, fs, ports, setup, tasks, watch};
use crate::cloud::{PITCHER_VERSION, WORKSPACE, word};
use crate::fault::What;

/// The version of the protocol that recorded answers have.
const PROTOCOL: &str = "0.367.10";
/// How long the reply to a creation waits for the command's end at most.
const EXIT_FIRST: Duration = Duration::from_millis(500);

/// What becomes of a request.
pub(crate) enum Done {
    Reply(Vec<u8>),
    LateReply(Vec<u8>),
    Silence,
    Cut,
    Close(u16),
}

/// Answers a request, or does what the fault that waits for its method wants.
pub(crate) async fn call(caller: &Caller, request: &Request) -> Done {
    if request.method != "client/join" && caller.connection.is_some_and(|number| !caller.sandbox.agent.joined(number)) {
        let error = PitcherError::new(code::NO_ACCESS, "The first request must be client/join");
        return Done::Reply(wire::reply(request, &Err(error)));
    }
    caller.sandbox.touch();
    let shuffle = caller.cloud.shuffle();
    let mut order = Order::default();
    let mut exit_first = None;
    let fault = caller.cloud.faults.take(&request.method);
    match &fault {
        Some(What::Error { code, errno, message }) => {
            let error = PitcherError::of_fault(*code, *errno, message.clone());
            return Done::Reply(wire::reply(request, &Err(error)));
        }
        Some(What::Silent) => return Done::Silence,
        Some(What::DropBefore | What::Status { .. }) => return Done::Cut,
        Some(What::Close { code }) => return Done::Close(*code),
        Some(What::Slow { ms }) => tokio::time::sleep(Duration::from_millis(*ms)).await,
        Some(What::ExitBeforeReply) => exit_first = Some(false),
        Some(What::OutAfterExit) => order.out_after_exit = true,
        _ => {}
    }
    if request.method == "shell/create"
        && let Some(turn) = shuffle
    {
        order.out_after_exit |= turn % 2 == 0;
        // The reply that comes after the end says by turns that the shell runs, and that it has ended.
        exit_first = exit_first.or((turn % 3 != 2).then_some(turn % 4 < 2));
    }
    let mut result = if request.method == "shell/create" {
        create(caller, request, order, exit_first).await
    } else if matches!(fault, Some(What::OtherSandbox)) {
        match caller.cloud.other(&caller.sandbox.id) {
            Some(sandbox) => answer(&Caller { sandbox, ..caller.clone() }, request).await,
            None => answer(caller, request).await,
        }
    } else {
        answer(caller, request).await
    };
    match &fault {
        Some(What::DropAfter) => return Done::Cut,
        Some(What::Missing { field }) => edit(&mut result, field, None),
        Some(What::Null { field }) => edit(&mut result, field, Some(&Value::Nil)),
        Some(What::BootupType { .. }) | None => {}
        _ => {}
    }
    let mut bytes = wire::reply(request, &result);
    if fault == Some(What::Truncated) {
        bytes.truncate(bytes.len() * 2 / 3);
    }
    let late = fault == Some(What::LateReply) || shuffle.is_some_and(|turn| turn % 5 == 1);
    if late && request.method != "client/join" { Done::LateReply(bytes) } else { Done::Reply(bytes) }
}

async fn create(
    caller: &Caller,
    request: &Request,
    order: Order,
    exit_first: Option<bool>,
) -> Result<Value, PitcherError> {
    if !caller.access.write {
        return Err(PitcherError::new(code::SHELL_NOT_ACCESSIBLE, "Shell is not accessible"));
    }
    let params = request.params()?;
    let delay = if exit_first.is_some() { Duration::ZERO } else { caller.cloud.options.exec_delay };
    let order = Order { delay, ..order };
    let shell = shells::create(&caller.sandbox, &caller.access, caller.connection, params, order).await?;
    let before = shell.record(true);
    let Some(tell_end) = exit_first else { return Ok(value(before)) };
    // A command that takes longer is answered while it runs.
    let _ = tokio::time::timeout(EXIT_FIRST, shell.end()).await;
    Ok(value(if tell_end { shell.record(true) } else { before }))
}

async fn answer(caller: &Caller, request: &Request) -> Result<Value, PitcherError> {
    if let Some(answer) = shells::answer(caller, request).await {
        return answer;
    }
    if let Some(answer) = tasks::answer(caller, request).await {
        return answer;
    }
    if let Some(answer) = setup::answer(caller, request).await {
        return answer;
    }
    if let Some(answer) = watch::answer(caller, request) {
        return answer;
    }
    match request.method.as_str() {
        "client/join" => Ok(join(caller, request)),
        "client/list" => Ok(value(caller.sandbox.agent.clients())),
        "port/list" => Ok(value(json!({"list": ports::list(caller).await}))),
        "system/update" => Ok(value(json!({}))),
        "system/metrics" => Ok(metrics()),
        "system/hibernate" => {
            let (cloud, sandbox) = (caller.cloud.clone(), caller.sandbox.clone());
            // After the reply, which would find no connection.
            tokio::spawn(async move { cloud.hibernate(&sandbox, None).await });
            Ok(Value::Nil)
        }
        _ => files(caller, &request.method, request.params.clone()).await,
    }
}

/// Answers a method of files.
pub(crate) async fn files(caller: &Caller, method: &str, params: Value) -> Result<Value, PitcherError> {
    let request = Request { id: 0.into(), method: method.to_owned(), params };
    let unknown = PitcherError::new(code::FEATURE_UNAVAILABLE, format!("Unknown method {method}"));
    let caller = caller.clone();
    let answer = tokio::task::spawn_blocking(move || fs::answer(&caller, &request)).await;
    answer.map_err(|error| PitcherError::new(code::CRITICAL, error.to_string()))?.ok_or(unknown)?
}

fn join(caller: &Caller, request: &Request) -> Value {
    let app = request.params::<serde_json::Value>().ok();
    let app = app.as_ref().and_then(|params| params.pointer("/clientInfo/appId")?.as_str()).unwrap_or("sdk");
    let client = json!({
        "clientId": format!("client_{}", word(8)),
        "username": caller.access.username,
        "name": caller.access.username,
        "avatarUrl": null,
        "color": "#5f5fff",
        "appId": app,
    });
    if let Some(number) = caller.connection {
        caller.sandbox.agent.join(number, client.clone());
    }
    value(json!({
        "client": client,
        "workspacePath": WORKSPACE,
        "version": PITCHER_VERSION,
        "protocolVersion": PROTOCOL,
        "latestPitcherVersion": PITCHER_VERSION,
        "capabilities": {"fs": {"reading": true, "writing": true, "watching": true}},
        "permissions": {},
        "isProtected": false,
        "reconnectToken": format!("rt_{}", word(16)),
    }))
}

fn metrics() -> Value {
    value(json!({
        "cpu": {"cores": 4, "used": 5, "configured": 4},
        "memory": {"used": 1.0, "total": 8.0, "configured": 8.0},
        "storage": {"used": 1.0, "total": 20.0, "configured": 20.0},
    }))
}

/// Takes a field out of a result, or puts another value into it; dots lead into maps.
fn edit(result: &mut Result<Value, PitcherError>, field: &str, to: Option<&Value>) {
    let Ok(mut at) = result.as_mut() else { return };
    let (path, last) = field.rsplit_once('.').map_or((None, field), |(path, last)| (Some(path), last));
    for part in path.iter().flat_map(|path| path.split('.')) {
        let Value::Map(fields) = at else { return };
        let Some((_, next)) = fields.iter_mut().find(|(key, _)| key.as_str() == Some(part)) else { return };
        at = next;
    }
    let Value::Map(fields) = at else { return };
    match to {
        None => fields.retain(|(key, _)| key.as_str() != Some(last)),
        Some(to) => {
            for (key, value) in fields {
                if key.as_str() == Some(last) {
                    *value = to.clone();
                }
            }
        }
    }
}
