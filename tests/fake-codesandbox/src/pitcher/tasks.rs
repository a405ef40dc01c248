//! Tasks of the workspace: `task/*`.

use std::sync::{Arc, PoisonError};

use rmpv::Value;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::Caller;
use super::shells::{self, Create, Order, Shell};
use super::wire::{PitcherError, Request, code, value};
use crate::options::Task;

#[derive(Deserialize)]
struct Of {
    #[serde(rename = "taskId")]
    task: String,
}

/// Answers a method of tasks, or none where it is another.
pub(super) async fn answer(caller: &Caller, request: &Request) -> Option<Result<Value, PitcherError>> {
    match request.method.as_str() {
        "task/list" => Some(Ok(list(caller))),
        "task/run" | "task/stop" => Some(one(caller, request).await),
        method if method.starts_with("task/") => {
            Some(Err(PitcherError::new(code::FEATURE_UNAVAILABLE, format!("{method} is unavailable"))))
        }
        _ => None,
    }
}

fn shell(caller: &Caller, name: &str) -> Option<Arc<Shell>> {
    caller.sandbox.agent.tasks.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
}

fn show(caller: &Caller, task: &Task) -> Json {
    let shell = shell(caller, &task.name).map(|shell| shell.record(false));
    let mut shown = json!({"id": task.name, "name": task.name, "command": task.command, "shell": shell, "ports": []});
    if let Some(port) = task.port {
        shown["preview"] = json!({"port": port});
    }
    shown
}

fn list(caller: &Caller) -> Value {
    let options = &caller.cloud.options;
    let tasks: serde_json::Map<_, _> =
        options.tasks.iter().map(|task| (task.name.clone(), show(caller, task))).collect();
    let setup: Vec<_> = options.setup.iter().map(|step| json!({"name": step.name, "command": step.command})).collect();
    value(json!({"tasks": tasks, "setupTasks": setup, "validationErrors": []}))
}

async fn one(caller: &Caller, request: &Request) -> Result<Value, PitcherError> {
    let Of { task: id } = request.params()?;
    let task = caller.cloud.options.tasks.iter().find(|task| task.name == id);
    let task = task.ok_or_else(|| PitcherError::new(code::TASK_NOT_FOUND, format!("Task {id} not found")))?;
    if let Some(shell) = shell(caller, &id) {
        shell.kill();
        shell.end().await;
    }
    if request.method == "task/run" {
        let create =
            Create { command: Some(task.command.clone()), kind: Some("COMMAND".to_owned()), ..Create::default() };
        let (sandbox, access) = (&caller.sandbox, &caller.access);
        let shell = shells::create(sandbox, access, caller.connection, create, Order::default()).await?;
        sandbox.agent.tasks.lock().unwrap_or_else(PoisonError::into_inner).insert(id, shell);
    }
    let shown = value(show(caller, task));
    caller.sandbox.agent.notify("task/update", &shown);
    Ok(shown)
}
