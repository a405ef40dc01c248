//! The way to a sandbox's agent: the service is asked where it is, which starts the sandbox if it does not run.

use std::time::Duration;

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::retry::Policy;
use pcoder_sdk::{Error, Result, code};
use serde_json::{Value as Json, json};

use crate::agent::Agent;
use crate::rest::{Api, Data, is_id};
use crate::{pint, pitcher, setup};

/// How long a boot may take in all.
pub(crate) const BOOT: Duration = Duration::from_secs(300);

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

/// Which agents may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// Pitcher, or Pint where there is no pitcher.
    Any,
    Pitcher,
    Pint,
}

/// Connects to the agent of a sandbox. One that does not run is started, and is ready when this returns.
pub(crate) fn open<'a>(
    host: ProviderHost<'a>,
    operation: &'static str,
    id: &str,
    options: &Json,
) -> Result<(Agent<'a>, Bootup)> {
    choose(host, operation, id, options, Choice::Any)
}

/// Connects anew to the agent that there was, which has what it was asked for before.
pub(crate) fn reopen<'a>(operation: &'static str, before: &Agent<'a>) -> Result<Agent<'a>> {
    let choice = match before {
        Agent::Pitcher(_) => Choice::Pitcher,
        Agent::Pint(_) => Choice::Pint,
    };
    let (mut agent, _) = choose(before.host(), operation, before.sandbox(), &json!({}), choice)?;
    agent.go_on_from(before);
    Ok(agent)
}

fn choose<'a>(
    host: ProviderHost<'a>,
    operation: &'static str,
    id: &str,
    options: &Json,
    choice: Choice,
) -> Result<(Agent<'a>, Bootup)> {
    if !is_id(id) {
        return Err(Error::new(code::NOT_FOUND, operation, "there is no such sandbox").subject(id));
    }
    let until = host.clock().monotonic() + BOOT;
    let data = Api::new(host, operation).again("POST", &format!("/vm/{id}/start"), Some(options))?;
    data.about(id)?;
    let bootup = Bootup::of(&data)?;
    // The document has the one field, the SDK's next version asks for the other.
    let says_pint = data.flag("use_pint") || data.optional("vm_agent_type") == Some("pint");
    let has = |url: &str| data.optional(url).is_some();
    let pint = says_pint && choice != Choice::Pitcher && (has("pint_url") || !has("pitcher_url"));
    let pitcher = match choice {
        Choice::Any => !pint || has("pitcher_url"),
        Choice::Pitcher => true,
        Choice::Pint => false,
    };
    if pitcher {
        match connect(host, operation, id, &data, pint) {
            Ok(mut agent) => {
                if bootup != Bootup::Running {
                    setup::of_pitcher(&mut agent, bootup, until)?;
                }
                return Ok((Agent::Pitcher(agent), bootup));
            }
            Err(error) if !pint || error.code == code::DENIED => return Err(error),
            // It says that it has the other agent, and that is so.
            Err(_) => {}
        }
    }
    let (url, token) = (data.text("pint_url")?, data.text("pint_token")?);
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return Err(data.wrong("pint_url", "is no address of HTTP"));
    }
    let mut agent = pint::Agent::new(host, operation, id, url, token);
    if bootup != Bootup::Running {
        setup::of_pint(&mut agent, bootup, until)?;
    }
    Ok((Agent::Pint(agent), bootup))
}

fn connect<'a>(
    host: ProviderHost<'a>,
    operation: &'static str,
    id: &str,
    data: &Data,
    other: bool,
) -> Result<pitcher::Agent<'a>> {
    let (url, token) = (data.text("pitcher_url")?, data.text("pitcher_token")?);
    if !url.starts_with("wss://") && !url.starts_with("ws://") {
        return Err(data.wrong("pitcher_url", "is no address of a WebSocket"));
    }
    // Where there is another one, it is as good.
    let policy = Policy { attempts: if other { 1 } else { 3 }, ..Policy::default() };
    policy.run(host.clock(), host.random(), |_| pitcher::Agent::connect(host, operation, id, url, token))
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
