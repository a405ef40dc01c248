//! The set-up that a fresh boot runs: `setup/*`.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rmpv::Value;
use serde_json::{Value as Json, json};

use super::Caller;
use super::shells::{self, Create, Order, Shell};
use super::wire::{PitcherError, Request, code, value};
use crate::cloud::Cloud;
use crate::sandbox::{Access, Sandbox};

/// How long `setup/get` has no steps where the options say that they come late.
const LATE: Duration = Duration::from_millis(200);

#[derive(Debug, Clone)]
struct Step {
    name: String,
    command: String,
    shell: Option<String>,
    finish: Option<&'static str>,
}

/// How far the set-up is.
#[derive(Debug, Clone)]
pub(crate) struct State {
    state: &'static str,
    steps: Vec<Step>,
    current: usize,
}

impl Default for State {
    fn default() -> Self {
        Self { state: "IDLE", steps: Vec::new(), current: 0 }
    }
}

impl State {
    fn show(&self) -> Json {
        let step = |step: &Step| {
            let (shell, finish) = (&step.shell, step.finish);
            json!({"name": step.name, "command": step.command, "shellId": shell, "finishStatus": finish})
        };
        let steps: Vec<_> = self.steps.iter().map(step).collect();
        json!({"state": self.state, "steps": steps, "currentStepIndex": self.current})
    }
}

impl State {
    /// As Pint tells it.
    pub(crate) fn tasks(&self, at: Timestamp) -> Json {
        let task = |step: &Step| {
            let status = match (step.finish, &step.shell) {
                (Some("SUCCEEDED"), _) => "FINISHED",
                (Some(_), _) => "ERROR",
                (None, Some(_)) => "RUNNING",
                (None, None) => "IDLE",
            };
            json!({"name": step.name, "command": step.command, "status": status, "execId": step.shell,
                "startTime": at, "endTime": at})
        };
        self.steps.iter().map(task).collect()
    }
}

fn change(sandbox: &Sandbox, change: impl FnOnce(&mut State)) {
    let shown = {
        let mut state = sandbox.agent.setup.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        state.show()
    };
    sandbox.agent.notify("setup/progress", &value(shown));
}

fn steps(cloud: &Cloud, finish: Option<&'static str>) -> Vec<Step> {
    let steps = cloud.options.setup.iter();
    steps.map(|step| Step { name: step.name.clone(), command: step.command.clone(), shell: None, finish }).collect()
}

/// A copy of a sandbox that was set up is set up.
pub(crate) fn finished(cloud: &Arc<Cloud>, sandbox: &Arc<Sandbox>) {
    let steps = steps(cloud, Some("SUCCEEDED"));
    let state = State { state: "FINISHED", current: steps.len().saturating_sub(1), steps };
    if cloud.options.late_setup {
        change(sandbox, |now| *now = State::default());
        let sandbox = sandbox.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LATE).await;
            change(&sandbox, |now| *now = state);
        });
    } else {
        change(sandbox, |now| *now = state);
    }
}

/// Runs every step, one after the other, and tells how it goes. Unless it comes late, the first one runs on return.
pub(crate) async fn run(cloud: &Arc<Cloud>, sandbox: &Arc<Sandbox>) {
    let steps = steps(cloud, None);
    let begun = State { state: "IN_PROGRESS", steps: steps.clone(), current: 0 };
    let first = if cloud.options.late_setup {
        change(sandbox, |state| *state = State::default());
        None
    } else {
        change(sandbox, |state| *state = begun.clone());
        match steps.first() {
            Some(step) => Some(start(sandbox, 0, step).await),
            None => None,
        }
    };
    let sandbox = sandbox.clone();
    let late = cloud.options.late_setup;
    tokio::spawn(async move {
        if late {
            tokio::time::sleep(LATE).await;
            change(&sandbox, |state| *state = begun);
        }
        let mut first = first;
        for (index, step) in steps.iter().enumerate() {
            let shell = match first.take() {
                Some(started) => started,
                None => start(&sandbox, index, step).await,
            };
            let succeeded = match &shell {
                Some(shell) => shell.end().await == Some(0),
                None => false,
            };
            if !sandbox.running() {
                return;
            }
            change(&sandbox, |state| {
                if let Some(step) = state.steps.get_mut(index) {
                    step.finish = Some(if succeeded { "SUCCEEDED" } else { "FAILED" });
                }
                if !succeeded {
                    state.state = "STOPPED";
                }
            });
            if !succeeded {
                return;
            }
        }
        change(&sandbox, |state| state.state = "FINISHED");
    });
}

/// Starts one step; none where its shell cannot be started.
async fn start(sandbox: &Arc<Sandbox>, index: usize, step: &Step) -> Option<Arc<Shell>> {
    let access = Access::global();
    let command = Some(step.command.clone());
    let create = Create { command, kind: Some("COMMAND".to_owned()), system: Some(true), ..Create::default() };
    let shell = shells::create(sandbox, &access, None, create, Order::default()).await.ok()?;
    change(sandbox, |state| {
        state.current = index;
        if let Some(step) = state.steps.get_mut(index) {
            step.shell = Some(shell.id.clone());
        }
    });
    Some(shell)
}

/// Answers a method of the set-up, or none where it is another.
pub(super) async fn answer(caller: &Caller, request: &Request) -> Option<Result<Value, PitcherError>> {
    let show = || {
        let state = caller.sandbox.agent.setup.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(value(state.show()))
    };
    match request.method.as_str() {
        "setup/get" => Some(show()),
        "setup/init" => {
            let idle = {
                let state = caller.sandbox.agent.setup.lock().unwrap_or_else(PoisonError::into_inner);
                state.state != "IN_PROGRESS"
            };
            if idle {
                run(&caller.cloud, &caller.sandbox).await;
            }
            Some(show())
        }
        method if method.starts_with("setup/") => {
            Some(Err(PitcherError::new(code::FEATURE_UNAVAILABLE, format!("{method} is unavailable"))))
        }
        _ => None,
    }
}
