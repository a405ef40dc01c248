//! The way to a sandbox's agent: the service is asked where it is, which starts the sandbox if it does not run.

use std::time::Duration;

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::retry::Policy;
use pcoder_sdk::{Error, Level, Result, code};
use rmpv::Value;
use serde_json::{Value as Json, json};

use crate::pitcher::frame::field;
use crate::pitcher::{Agent, Beside};
use crate::rest::{Api, Data, is_id};

/// How long a boot may take in all.
const BOOT: Duration = Duration::from_secs(300);
/// How long a set-up may take to say what its steps are. One without steps is over.
const STEPS: Duration = Duration::from_secs(10);

/// How a sandbox came to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bootup {
    /// As a copy of one that ran.
    Fork,
    /// Out of hibernation.
    Resume,
    /// From nothing: its set-up runs.
    Clean,
    /// It ran already.
    Running,
}

impl Bootup {
    fn of(data: &Data) -> Result<Self> {
        match data.text("bootup_type")? {
            "FORK" => Ok(Self::Fork),
            "RESUME" => Ok(Self::Resume),
            "CLEAN" => Ok(Self::Clean),
            "RUNNING" => Ok(Self::Running),
            _ => Err(data.wrong("bootup_type", "is none of FORK, RESUME, CLEAN and RUNNING")),
        }
    }

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Resume => "resume",
            Self::Clean => "clean",
            Self::Running => "running",
        }
    }
}

/// Connects to the agent of a sandbox. One that does not run is started, and is ready when this returns.
pub(crate) fn open<'a>(
    host: ProviderHost<'a>,
    operation: &'static str,
    id: &str,
    options: &Json,
) -> Result<(Agent<'a>, Bootup)> {
    if !is_id(id) {
        return Err(Error::new(code::NOT_FOUND, operation, "there is no such sandbox").subject(id));
    }
    let until = host.clock().monotonic() + BOOT;
    let data = Api::new(host, operation).again("POST", &format!("/vm/{id}/start"), Some(options))?;
    data.about(id)?;
    let bootup = Bootup::of(&data)?;
    let pint = data.optional("vm_agent_type") == Some("pint");
    if pint && data.optional("pitcher_url").is_none() {
        return Err(without_pitcher(operation, id));
    }
    let (url, token) = (data.text("pitcher_url")?, data.text("pitcher_token")?);
    if !url.starts_with("wss://") && !url.starts_with("ws://") {
        return Err(data.wrong("pitcher_url", "is no address of a WebSocket"));
    }
    let policy = Policy { attempts: 3, ..Policy::default() };
    let connected = policy.run(host.clock(), host.random(), |_| Agent::connect(host, operation, id, url, token));
    let mut agent = connected.map_err(|error| match error.code.as_str() {
        code::DENIED => error,
        // It says that it has the other agent, and that is so.
        _ if pint => without_pitcher(operation, id),
        _ => error,
    })?;
    if bootup != Bootup::Running {
        wait_for_setup(&mut agent, bootup, until)?;
    }
    Ok((agent, bootup))
}

fn without_pitcher(operation: &str, id: &str) -> Error {
    Error::unsupported(operation, "the sandbox has the agent `pint` alone, which this plugin does not speak")
        .subject(id)
        .hint("fork a template whose sandboxes have the agent `pitcher`")
}

/// What a set-up's state says.
#[derive(Debug, PartialEq)]
enum Progress {
    Finished,
    /// The step that stopped it.
    Stopped(String),
    /// What it is at, for people.
    Working(String),
    /// Nobody has started it.
    Idle,
    /// It has no steps, or has not told them yet.
    Unknown,
}

fn progress(state: &Value) -> Option<Progress> {
    let word = field(state, "state")?.as_str()?;
    let steps = field(state, "steps").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let name = |step: &Value| {
        let text = field(step, "name").or_else(|| field(step, "command")).and_then(Value::as_str);
        text.unwrap_or("a step without a name").to_owned()
    };
    let failed = |step: &&Value| field(step, "finishStatus").and_then(Value::as_str) == Some("FAILED");
    let current = field(state, "currentStepIndex").and_then(Value::as_u64).and_then(|at| usize::try_from(at).ok());
    let current = current.and_then(|at| steps.get(at));
    Some(match word {
        "STOPPED" => {
            let step = steps.iter().find(failed).or(current);
            Progress::Stopped(step.map_or_else(|| "a step".to_owned(), name))
        }
        "FINISHED" if steps.is_empty() => Progress::Unknown,
        "FINISHED" => Progress::Finished,
        "IDLE" if steps.is_empty() => Progress::Unknown,
        "IDLE" => Progress::Idle,
        "IN_PROGRESS" => Progress::Working(current.map_or_else(String::new, name)),
        _ => return None,
    })
}

/// Waits until the set-up is over, which runs where the sandbox was booted from nothing. Its steps tell how far it is.
fn wait_for_setup(agent: &mut Agent<'_>, bootup: Bootup, until: Duration) -> Result<()> {
    let clock = agent.host.clock();
    let mut state = agent.call("setup/get", &[])?;
    if bootup != Bootup::Clean {
        // What ran before ran with this set-up, however that ended.
        return match progress(&state) {
            Some(_) => Ok(()),
            None => Err(unreadable(agent)),
        };
    }
    let steps_until = clock.monotonic() + STEPS;
    let mut said = String::new();
    let mut begun = false;
    loop {
        let mut until = until;
        match progress(&state).ok_or_else(|| unreadable(agent))? {
            Progress::Finished => return Ok(()),
            Progress::Stopped(step) => {
                let message = format!("the sandbox's set-up failed at `{step}`");
                return Err(Error::new(code::PROCESS, agent.operation, message)
                    .subject(&agent.sandbox)
                    .hint("see the template's `.codesandbox/tasks.json` or its Dockerfile"));
            }
            Progress::Working(step) if step != said => {
                agent.host.log().log(Level::Info, &format!("{}: set-up: {step}", agent.sandbox));
                said = step;
            }
            Progress::Working(_) => {}
            Progress::Idle if !begun => {
                begun = true;
                let answer = agent.call("setup/init", &[])?;
                if !answer.is_nil() {
                    state = answer;
                    continue;
                }
            }
            Progress::Idle => {}
            Progress::Unknown => until = steps_until,
        }
        let left = until.saturating_sub(clock.monotonic());
        if left.is_zero() {
            if until == steps_until {
                return Ok(());
            }
            let message = format!("the sandbox's set-up did not end within {} s", BOOT.as_secs());
            return Err(Error::new(code::TIMEOUT, agent.operation, message).subject(&agent.sandbox));
        }
        agent.turn(left, Beside::default())?;
        if let Some(told) = agent.progress() {
            state = told;
        }
    }
}

fn unreadable(agent: &Agent<'_>) -> Error {
    let message = "the field `state` of the agent's set-up is missing or unknown";
    Error::new(code::SERVER, agent.operation, message).subject(&agent.sandbox)
}

/// Does something that may be done twice without harm with a sandbox's agent, again on a connection of its own if the
/// first one breaks off.
pub(crate) fn with_agent<'a, T>(
    host: ProviderHost<'a>,
    operation: &'static str,
    id: &str,
    mut work: impl FnMut(&mut Agent<'a>) -> Result<T>,
) -> Result<T> {
    let (mut agent, _) = open(host, operation, id, &json!({}))?;
    match work(&mut agent) {
        Err(_) if agent.is_cut() => {
            drop(agent);
            let (mut agent, _) = open(host, operation, id, &json!({}))?;
            work(&mut agent).map_err(|error| error.attempt(2))
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(word: &str, steps: &[(&str, Option<&str>)], current: u64) -> Value {
        let map = |fields: Vec<(&str, Value)>| {
            Value::Map(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
        };
        let step = |(name, status): &(&str, Option<&str>)| {
            map(vec![("name", (*name).into()), ("finishStatus", status.map_or(Value::Nil, Value::from))])
        };
        let steps = Value::Array(steps.iter().map(step).collect());
        map(vec![("state", word.into()), ("steps", steps), ("currentStepIndex", current.into())])
    }

    #[test]
    fn a_set_up_says_how_far_it_is() {
        let steps = [("clone", Some("SUCCEEDED")), ("install", None)];
        assert_eq!(progress(&state("FINISHED", &steps, 1)), Some(Progress::Finished));
        assert_eq!(progress(&state("FINISHED", &[], 0)), Some(Progress::Unknown));
        assert_eq!(progress(&state("IN_PROGRESS", &steps, 1)), Some(Progress::Working("install".to_owned())));
        assert_eq!(progress(&state("IN_PROGRESS", &steps, 9)), Some(Progress::Working(String::new())));
        assert_eq!(progress(&state("IDLE", &steps, 0)), Some(Progress::Idle));
        let failed = [("clone", Some("FAILED")), ("install", Some("SKIPPED"))];
        assert_eq!(progress(&state("STOPPED", &failed, 1)), Some(Progress::Stopped("clone".to_owned())));
        assert_eq!(progress(&state("STOPPED", &steps, 1)), Some(Progress::Stopped("install".to_owned())));
        assert_eq!(progress(&state("DANCING", &steps, 1)), None);
        assert_eq!(progress(&Value::Nil), None);
    }
}
