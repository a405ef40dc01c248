//! The whole way once, on a real backend: does an agent work there?

use std::time::{Duration, Instant};

use pcoder_runtime::contract::WriteOptions;
use pcoder_runtime::error::code;
use pcoder_runtime::manifest::Kind;
use pcoder_runtime::shell::{quote, quote_path};
use pcoder_runtime::{Error, text};
use serde::Serialize;

use super::{BootRequest, Orchestrator, PreparedInstance, Session, SessionRequest, in_instance};
use crate::capture::{Feed, capture};
use crate::egress::Refused;
use crate::engine_disks;
use crate::instances::{With, exit_code};
use crate::reach::{Reach, WAY_BACK, Wanted};

/// How long the agent may take to answer.
const ANSWERED: Duration = Duration::from_secs(180);
/// How often its process is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// What is kept of an answer.
const KEPT: u64 = 1 << 20;
/// Lines of the agent's output.
const LINES: u32 = 200;

/// What agents work with, besides themselves.
const GUEST_TOOLS: [&str; 2] = ["git", "rg"];

/// What the agent is asked when nobody says otherwise.
pub const SMOKE_PROMPT: &str = "Say the word pineapple and nothing else.";
/// What the answer holds to that, and to any other question that names it.
const EXPECTED: &str = "pineapple";
/// How long an instance lives, in seconds, when nobody says so and the cleanup does not come to it.
const TTL_SECONDS: u64 = 1800;

/// What is tried.
#[derive(Clone, Debug)]
pub struct SmokeOptions {
    /// The instance and what is put onto it.
    pub boot: BootRequest,
    /// The agent and what it is asked.
    pub session: SessionRequest,
    /// Leave the instance running.
    pub keep: bool,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should.
    Ok,
    /// Not as it should, and the rest can go on.
    Warning,
    /// It failed, and what follows it was left out.
    Failed,
}

/// One step.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Its name.
    pub name: &'static str,
    /// How it went.
    pub outcome: Outcome,
    /// What was found. Secrets in it are masked.
    pub detail: String,
    /// How long it took.
    pub milliseconds: u64,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// What a step found, and whether that is as it should be.
type Found = Result<(Outcome, String), Error>;

impl Orchestrator<'_> {
    /// Boots an instance, tries everything on it and ends it, whatever happened. `told` hears of each step when it is
    /// over.
    pub async fn smoke(&self, options: &SmokeOptions, told: &mut (dyn FnMut(&Step) + Send)) -> Vec<Step> {
        let mut steps = Steps { done: Vec::new(), told };
        let started = Instant::now();
        let booted = match self.bounded(options).await {
            Ok(boot) => self.boot_and_prepare(&boot).await,
            Err(error) => Err(error),
        };
        let instance = match booted {
            Ok(instance) => instance,
            Err(error) => {
                steps.add("boot", started, Err(error));
                return steps.done;
            }
        };
        steps.add("boot", started, Ok(ok(instance.instance_id.clone())));
        let mut process = None;
        self.on_instance(&instance, options, &mut steps, &mut process).await;
        let id = instance.instance_id;
        let started = Instant::now();
        let cleaned = async {
            if let Some(process) = &process {
                self.delete_process(&id, process).await?;
            }
            if options.keep {
                return Ok(ok(format!("{id} is left running")));
            }
            self.terminate(&id).await?;
            match self.provider.get(&id).await {
                Err(error) if error.is(code::NOT_FOUND) => Ok(ok(format!("{id} is gone"))),
                // A machine that is always there stays.
                Ok(_) if self.provider.has(crate::run::HOST_PATHS).await? => Ok(ok(format!("{id} is not ours to end"))),
                Ok(instance) => Err(Error::new(code::CONFLICT, "smoke", "the instance is still there")
                    .subject(&id)
                    .hint(format!("its status is {}; `pcoder instance terminate {id}`", instance.status))),
                Err(error) => Err(error),
            }
        };
        let mut result = cleaned.await;
        if result.is_err() && !options.keep {
            // The process must not keep the instance.
            let ended = self.provider.terminate(&id).await;
            result = result.and_then(|found| ended.map(|()| found));
        }
        steps.add("cleanup", started, result);
        steps.done
    }

    /// What is booted, with an end of its time where the provider has that.
    async fn bounded(&self, options: &SmokeOptions) -> Result<BootRequest, Error> {
        let mut request = options.boot.clone();
        if request.boot.ttl_seconds.is_none() && self.provider.has("ttl").await? {
            request.boot.ttl_seconds = Some(TTL_SECONDS);
            request.boot.ttl_action = Some(if options.keep { "stop" } else { "terminate" }.to_owned());
        }
        Ok(request)
    }

    /// Everything on the instance, until something fails.
    async fn on_instance(
        &self,
        instance: &PreparedInstance,
        options: &SmokeOptions,
        steps: &mut Steps<'_>,
        process: &mut Option<String>,
    ) {
        let id = &instance.instance_id;
        let started = Instant::now();
        if !steps.add("exec", started, self.says_ok(id).await) {
            return;
        }
        let started = Instant::now();
        // Where pcoder brings the agent, nobody else need have brought a process manager.
        let (brings, found) = match self.provider.has(engine_disks::FEATURE).await {
            Ok(true) => (true, self.brought(id, &options.session.tool).await),
            Ok(false) => (false, self.tools(id, &options.session.tool).await),
            Err(error) => (false, Err(error)),
        };
        if !steps.add("tools", started, found) {
            return;
        }
        let started = Instant::now();
        if !steps.add("credentials", started, self.read_back(instance).await) {
            return;
        }
        let started = Instant::now();
        if !steps.add("files", started, self.files(id, &instance.home_dir).await) {
            return;
        }
        let started = Instant::now();
        let asked = options.session.prompt.split_whitespace().any(|word| word == EXPECTED);
        let expected = if asked { EXPECTED } else { "" };
        if brings {
            let result = self.run(id, &options.session, expected).await;
            steps.add("run", started, result);
            return;
        }
        let session = async {
            let name = self.start_session(id, &options.session).await?;
            *process = Some(name.clone());
            self.answer(id, &name, expected).await
        };
        let result = session.await;
        steps.add("session", started, result);
    }

    async fn shell(&self, id: &str, script: &str) -> Result<(i32, String, String), Error> {
        let said = self.provider.shell(id, script, Feed::Nothing, KEPT).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((exit_code(said.status), text(&said.stdout.bytes), text(&said.stderr.bytes)))
    }

    async fn says_ok(&self, id: &str) -> Found {
        match self.shell(id, "echo ok; echo problem >&2; exit 7").await? {
            (7, out, err) if out == "ok\n" && err == "problem\n" => {
                Ok(ok("both outputs and the exit code came back".into()))
            }
            (ended, out, err) => {
                let message = format!("the answer was {ended}, {:?}, {:?}", brief(&out), brief(&err));
                Err(Error::new(code::INTEGRITY, "smoke", message)
                    .subject(id)
                    .hint("`pcoder instance exec INSTANCE -- COMMAND` tries commands"))
            }
        }
    }

    /// Without the process manager nothing else can work; without the agent, credentials and files still can.
    async fn tools(&self, id: &str, tool: &str) -> Found {
        let manager = &self.manager_name;
        if let Err(error) = self.list_processes(id).await {
            let hint = error.hint.clone().unwrap_or_else(|| format!("install `{manager}` on the instance"));
            return Err(Error::new(error.code.clone(), "smoke", error.message.clone()).subject(id).hint(hint));
        }
        Ok(match self.on_path(id, tool).await? {
            Some(path) => ok(format!("{manager}, {path}")),
            None => (Outcome::Warning, format!("{manager}; `{tool}` is not on the instance's PATH")),
        })
    }

    /// The agent that came with pcoder, and what it works with.
    async fn brought(&self, id: &str, tool: &str) -> Found {
        let agent = self.pcoder.plugin(Kind::Agent, tool).await?;
        let info = agent.agent()?.info(self.pcoder.context(&agent)).await?;
        let there = self.provider.look(id, &info.engines).await?;
        let mut found: Vec<String> = there.engines.into_iter().map(|it| it.entrypoint).collect();
        let mut missing = Vec::new();
        for name in GUEST_TOOLS {
            match self.on_path(id, name).await? {
                Some(path) => found.push(path),
                None => missing.push(format!("`{name}`")),
            }
        }
        let found = found.join(", ");
        Ok(match missing.as_slice() {
            [] => ok(found),
            missing => (Outcome::Warning, format!("{found}; not on the instance's PATH: {}", missing.join(", "))),
        })
    }

    async fn on_path(&self, id: &str, program: &str) -> Result<Option<String>, Error> {
        let (ended, path, _) = self.shell(id, &format!("command -v {}", quote(program))).await?;
        Ok((ended == 0).then(|| path.trim().to_owned()))
    }

    /// The credentials that were installed, as they are there: private, readable as JSON, and shown by their size only.
    async fn read_back(&self, instance: &PreparedInstance) -> Found {
        let id = &instance.instance_id;
        let mut shown = Vec::new();
        for path in &instance.credential_files {
            let content = self.provider.read_file(id, path).await?;
            let mode = self.mode_of(id, path).await?;
            let wrong = |message: &str| {
                Err(Error::new(code::INTEGRITY, "smoke", message)
                    .subject(path.clone())
                    .hint("the instance's file system may not keep what is written"))
            };
            if content.is_empty() {
                return wrong("the file is empty");
            }
            if path.ends_with(".json") && serde_json::from_slice::<serde_json::Value>(&content).is_err() {
                return wrong("the file is no JSON");
            }
            if mode != "600" {
                return wrong(&format!("others could read it: its mode is {mode}"));
            }
            shown.push(format!("{path}: {} bytes, mode {mode}, ****", content.len()));
        }
        Ok(ok(if shown.is_empty() { "none were asked for".to_owned() } else { shown.join("; ") }))
    }

    async fn mode_of(&self, id: &str, path: &str) -> Result<String, Error> {
        Ok(self.shell(id, &format!("stat -c %a {}", quote_path(path))).await?.1.trim().to_owned())
    }

    async fn files(&self, id: &str, home: &str) -> Found {
        let every: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let folder = format!("{home}/.pcoder-smoke");
        for (name, content) in [("a.json", &b"{\"smoke\": true}\n"[..]), ("a b\n.bin", &every), ("empty", b"")] {
            let path = format!("{folder}/{name}");
            let options = WriteOptions { create_parents: true, mode: Some(0o600), owner: None };
            self.provider.write_file(id, &path, content, options).await?;
            let (back, mode) = (self.provider.read_file(id, &path).await?, self.mode_of(id, &path).await?);
            if back != content || mode != "600" {
                let message = format!("{} bytes came back of {}, with the mode {mode}", back.len(), content.len());
                return Err(Error::new(code::INTEGRITY, "smoke", message).subject(text::for_people(&path, 200)));
            }
        }
        self.shell(id, &format!("rm -rf {}", quote(&folder))).await?;
        Ok(ok("text, bytes and an empty file came back as they were, with their modes".into()))
    }

    /// Waits until the agent has ended, and looks for its answer.
    async fn answer(&self, id: &str, process: &str, expected: &str) -> Found {
        let started = Instant::now();
        let ended = loop {
            let list = self.list_processes(id).await?;
            match list.into_iter().find(|it| it.name == process) {
                Some(it) if it.status == "online" || it.status == "launching" => {}
                Some(it) => break Some(it),
                None => break None,
            }
            if started.elapsed() > ANSWERED {
                return Err(no_answer().subject(process));
            }
            tokio::time::sleep(LOOK).await;
        };
        let logs = self.logs(id, process, LINES).await?;
        judged(process, ended.and_then(|it| it.exit_code), expected, &logs.out, &logs.err)
    }

    /// The agent as a run has it: to its end, with what its machine lets it reach. Looks for its answer.
    async fn run(&self, id: &str, request: &SessionRequest, expected: &str) -> Found {
        let described = self.provider.get(id).await?;
        let leads_back = self.provider.has(WAY_BACK).await?;
        let session = self.session(&described, request, self.provider.secret_source(), leads_back).await;
        let Session { agent, spec, identity, allow, .. } = session.map_err(|error| in_instance("smoke", id, error))?;
        let mut command = spec.command;
        command.env.extend(identity.key);
        let reach = if leads_back {
            let wanted = Wanted { here: identity.here, services: identity.services, agent: Some(agent), allow };
            self.pcoder.reach(&described, wanted).await?
        } else {
            Reach::default()
        };
        let control = self.provider.control();
        let with = With { secrets: Some(identity.secrets), wall: Some(ANSWERED), reach: Some(&reach) };
        let run = |stdio| self.provider.exec_as(id, &command, stdio, &control, with);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let found = match capture(Feed::Nothing, KEPT, run).await {
            Ok(said) => {
                let (out, err) = (text(&said.stdout.bytes), text(&said.stderr.bytes));
                judged(&request.tool, Some(exit_code(said.status)), expected, &out, &err)
            }
            Err(error) if error.is(code::TIMEOUT) => Err(no_answer().subject(request.tool.clone())),
            Err(error) => Err(error),
        };
        found.map_err(|error| {
            let has_network = described.details.iter().all(|it| it.name != "network" || it.value != "none");
            with_network(error, has_network, reach.refused())
        })
    }
}

/// An agent's error, with what its machine's network may have to do with it.
fn with_network(error: Error, has_network: bool, refused: Option<Refused>) -> Error {
    let mut hints: Vec<String> = error.hint.iter().cloned().collect();
    if !has_network {
        hints.push("the machine has no network: `--network restricted` lets the agent reach its model".to_owned());
    }
    if let Some(refused) = refused {
        let hosts = |hosts: &[String]| text::for_people(&hosts.join(", "), 400);
        if let Some(allow) = refused.allow {
            hints.push(format!("it was kept from {}: {allow} allows that", hosts(&refused.hosts)));
        }
        if !refused.inside.is_empty() {
            hints
                .push(format!("it was kept from {}, which lead into this host or its network", hosts(&refused.inside)));
        }
    }
    if hints.is_empty() { error } else { error.hint(hints.join("; ")) }
}

fn no_answer() -> Error {
    Error::new(code::TIMEOUT, "smoke", format!("the agent did not end within {} s", ANSWERED.as_secs()))
        .hint("one that is refused may ask again and again: check its login and its network")
}

/// Whether an agent that has ended gave the answer.
fn judged(process: &str, ended: Option<i32>, expected: &str, out: &str, err: &str) -> Found {
    if out.to_lowercase().contains(&expected.to_lowercase()) && !out.trim().is_empty() && ended == Some(0) {
        return Ok(ok(format!("{process}: {}", brief(answer_in(out).as_deref().unwrap_or(out)))));
    }
    let said = if out.trim().is_empty() { err } else { out };
    let code_shown = ended.map_or_else(|| "?".to_owned(), |it| it.to_string());
    let message = format!("the agent ended with {code_shown} and without the answer: {}", brief(said));
    Err(Error::new(code::PROCESS, "smoke", message)
        .subject(process)
        .hint("check the agent's login: `--credentials`, or a `--profile` with a key"))
}

/// The text of the last answer in lines of JSON, as agents print them.
fn answer_in(out: &str) -> Option<String> {
    let answer = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        let item = value.get("item").filter(|it| it["type"] == "agent_message");
        let text = value.get("result").or_else(|| item?.get("text"))?;
        text.as_str().map(str::to_owned)
    };
    out.lines().rev().find_map(answer)
}

fn ok(detail: String) -> (Outcome, String) {
    (Outcome::Ok, detail)
}

/// The end of what was said, on one line.
fn brief(said: &str) -> String {
    let line = said.trim().replace('\n', " ");
    let skipped = line.chars().count().saturating_sub(300);
    line.chars().skip(skipped).collect()
}

/// The steps so far.
struct Steps<'a> {
    done: Vec<Step>,
    told: &'a mut (dyn FnMut(&Step) + Send),
}

impl Steps<'_> {
    /// Adds one, and says whether the rest can go on.
    fn add(&mut self, name: &'static str, started: Instant, found: Found) -> bool {
        let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let step = match found {
            Ok((outcome, detail)) => Step { name, outcome, detail, milliseconds, error: None },
            Err(error) => {
                let detail = error.message.clone();
                Step { name, outcome: Outcome::Failed, detail, milliseconds, error: Some(error) }
            }
        };
        (self.told)(&step);
        self.done.push(step);
        self.done.last().is_some_and(|step| step.outcome != Outcome::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_found_as_each_agent_prints_it() {
        let claude = "{\"type\":\"assistant\"}\n{\"type\":\"result\",\"result\":\"Pineapple.\"}\n";
        let codex = "{\"type\":\"item.completed\",\"item\":{\"type\":\"agent_message\",\"text\":\"Pineapple.\"}}\n\
                     {\"type\":\"turn.completed\",\"usage\":{}}\n";
        for out in [claude, codex] {
            assert_eq!(answer_in(out).as_deref(), Some("Pineapple."));
        }
        assert_eq!(answer_in("Pineapple.\n"), None);
    }

    #[test]
    fn an_error_says_what_the_machines_network_has_to_do_with_it() {
        let failed = || judged("claude", Some(1), EXPECTED, "", "no route").expect_err("no answer");
        let hint = |error: Error| error.hint.clone().unwrap_or_default();
        let plain = hint(failed());
        assert_eq!(hint(with_network(failed(), true, None)), plain);
        assert!(hint(with_network(failed(), false, None)).starts_with(&format!("{plain}; the machine has no network")));
        let refused = Refused {
            hosts: vec!["api.example\u{1b}[1m".into()],
            inside: vec!["10.0.0.1".into()],
            allow: Some("`allow it`".into()),
        };
        let said = hint(with_network(failed(), true, Some(refused)));
        assert!(said.contains("`allow it` allows that; it was kept from 10.0.0.1, which lead into"), "{said}");
        assert!(!said.contains('\u{1b}'), "{said}");
    }
}
