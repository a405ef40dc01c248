//! The set-up of a sandbox that was booted from nothing: whether it is over.

use std::time::Duration;

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::{Error, Level, Result, code};
use rmpv::Value;

use crate::agent::Beside;
use crate::pitcher::frame::field;
use crate::session::{BOOT, Bootup};
use crate::{pint, pitcher};

/// How long a set-up may take to say what its steps are. One without steps is over.
const STEPS: Duration = Duration::from_secs(10);
/// How often it is looked where nobody tells.
const LOOK: Duration = Duration::from_millis(500);

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

/// Waits until the set-up is over, which runs where the sandbox was booted from nothing.
pub(crate) fn of_pitcher(agent: &mut pitcher::Agent<'_>, bootup: Bootup, until: Duration) -> Result<()> {
    let clock = agent.host.clock();
    let mut state = agent.call("setup/get", &[])?;
    let unreadable = |agent: &pitcher::Agent<'_>| {
        let message = "the field `state` of the agent's set-up is missing or unknown";
        Error::new(code::SERVER, agent.operation, message).subject(&agent.sandbox)
    };
    if bootup != Bootup::Clean {
        // What ran before ran with this set-up, however that ended.
        return match progress(&state) {
            Some(_) => Ok(()),
            None => Err(unreadable(agent)),
        };
    }
    let mut waiting = Waiting::new(agent.host, agent.operation, &agent.sandbox, until);
    let mut begun = false;
    loop {
        let progress = progress(&state).ok_or_else(|| unreadable(agent))?;
        if progress == Progress::Idle && !begun {
            begun = true;
            let answer = agent.call("setup/init", &[])?;
            if !answer.is_nil() {
                state = answer;
                continue;
            }
        }
        let Some(until) = waiting.look(progress)? else { return Ok(()) };
        agent.turn(until.saturating_sub(clock.monotonic()), Beside::default())?;
        if let Some(told) = agent.progress() {
            state = told;
        }
    }
}

/// The same with the other agent, which has to be asked.
pub(crate) fn of_pint(agent: &mut pint::Agent<'_>, bootup: Bootup, until: Duration) -> Result<()> {
    let clock = agent.host.clock();
    let mut waiting = Waiting::new(agent.host, agent.operation, &agent.sandbox, until);
    loop {
        let steps = agent.setup()?;
        if bootup != Bootup::Clean {
            return Ok(());
        }
        let Some(until) = waiting.look(progress_of(&steps))? else { return Ok(()) };
        clock.sleep(LOOK.min(until.saturating_sub(clock.monotonic())));
    }
}

/// What the steps say, each of which has a name and a status.
fn progress_of(steps: &[(String, String)]) -> Progress {
    let find = |words: &[&str]| steps.iter().find(|(_, status)| words.contains(&status.as_str()));
    match (find(&["ERROR", "KILLED"]), find(&["RUNNING", "RESTARTING"])) {
        (Some((name, _)), _) => Progress::Stopped(name.clone()),
        (None, Some((name, _))) => Progress::Working(name.clone()),
        (None, None) if steps.is_empty() => Progress::Unknown,
        (None, None) if steps.iter().all(|(_, status)| status == "FINISHED") => Progress::Finished,
        (None, None) => Progress::Idle,
    }
}

/// Somebody waits for a set-up.
struct Waiting<'a> {
    host: ProviderHost<'a>,
    operation: &'static str,
    sandbox: String,
    until: Duration,
    steps_until: Duration,
    said: String,
}

impl<'a> Waiting<'a> {
    fn new(host: ProviderHost<'a>, operation: &'static str, sandbox: &str, until: Duration) -> Self {
        let steps_until = host.clock().monotonic() + STEPS;
        Self { host, operation, sandbox: sandbox.to_owned(), until, steps_until, said: String::new() }
    }

    /// Until when to wait; nothing where the set-up is over.
    fn look(&mut self, progress: Progress) -> Result<Option<Duration>> {
        let mut until = self.until;
        match progress {
            Progress::Finished => return Ok(None),
            Progress::Stopped(step) => {
                let message = format!("the sandbox's set-up failed at `{step}`");
                return Err(Error::new(code::PROCESS, self.operation, message)
                    .subject(&self.sandbox)
                    .hint("see the template's `.codesandbox/tasks.json` or its Dockerfile"));
            }
            Progress::Working(step) if step != self.said => {
                self.host.log().log(Level::Info, &format!("{}: set-up: {step}", self.sandbox));
                self.said = step;
            }
            Progress::Working(_) | Progress::Idle => {}
            Progress::Unknown => until = self.steps_until,
        }
        if self.host.clock().monotonic() < until {
            return Ok(Some(until));
        }
        if until == self.steps_until {
            return Ok(None);
        }
        let message = format!("the sandbox's set-up did not end within {} s", BOOT.as_secs());
        Err(Error::new(code::TIMEOUT, self.operation, message).subject(&self.sandbox))
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

    #[test]
    fn steps_say_how_far_they_are() {
        let said = |statuses: &[&str]| {
            let step = |(number, status): (usize, &&str)| (number.to_string(), (*status).to_owned());
            progress_of(&statuses.iter().enumerate().map(step).collect::<Vec<_>>())
        };
        assert_eq!(said(&[]), Progress::Unknown);
        assert_eq!(said(&["FINISHED", "FINISHED"]), Progress::Finished);
        assert_eq!(said(&["FINISHED", "RUNNING"]), Progress::Working("1".to_owned()));
        assert_eq!(said(&["ERROR", "RUNNING"]), Progress::Stopped("0".to_owned()));
        assert_eq!(said(&["FINISHED", "IDLE"]), Progress::Idle);
    }
}
