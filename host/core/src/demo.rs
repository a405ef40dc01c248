//! `pcoder demo`: the real engines, at work, without an account or a network.
//!
//! A scripted model server answers inside this process. Everything else is the real thing: the engines as their vendors
//! published them, launched by plugins through the gate, in a temporary project. It is what the end-to-end tests run.

use std::path::Path;
use std::time::Duration;

use pcoder_acp::schema::PermissionOptionKind;
use pcoder_acp::{Event, Session, Stop, Update};
use pcoder_model_server::environment::{self, OFFLINE_KEY, Variable};
use pcoder_model_server::{ModelServer, Options};
use pcoder_runtime::Error;
use pcoder_runtime::contract::ExitStatus;
use pcoder_runtime::error::code;
use serde::Serialize;

use crate::acp::{from_acp, with_agent};
use crate::capture::Feed;
use crate::private_tmp::PrivateTmp;
use crate::{Pcoder, RunRequest};

/// The agents that the model server's scripts are written for.
pub const TOOLS: [&str; 2] = ["claude", "codex"];

/// A turn that takes longer has stopped.
const TURN: Duration = Duration::from_secs(90);
/// What is kept of an engine's output.
const KEPT: u64 = 4 << 20;

/// One thing that was shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The agent.
    pub tool: String,
    /// `command` for its own command line, `acp` for the protocol.
    pub by: &'static str,
    /// What it was to do.
    pub what: &'static str,
    /// What it answered or did.
    pub answer: String,
}

/// An agent, pointed at the model server.
pub struct Stage<'a> {
    pcoder: &'a Pcoder,
    server: &'a ModelServer,
    tool: &'a str,
    folder: tempfile::TempDir,
}

/// Starts a model server for the agents.
///
/// # Errors
/// `io` when the port is taken.
pub async fn serve(port: u16) -> Result<ModelServer, Error> {
    let mut options = Options::default();
    options.port = port;
    ModelServer::start(options).await.map_err(|error| {
        Error::new(code::IO, "demo", error.to_string()).hint("another program has that port: give another one")
    })
}

/// What points an agent at the model server, and keeps it off every other network. `state` is a folder for its own
/// files; a configuration is written there where the agent needs one.
///
/// # Errors
/// `io`; `not-found` for another agent than [`TOOLS`].
pub fn point(tool: &str, server: &ModelServer, state: &Path) -> Result<Vec<Variable>, Error> {
    let failed = |error: std::io::Error| Error::io("demo", state.display().to_string(), &error);
    std::fs::create_dir_all(state).map_err(failed)?;
    match tool {
        "claude" => Ok(environment::claude(&server.anthropic_url(), OFFLINE_KEY, state)),
        "codex" => {
            let config = environment::codex_config(&server.openai_url());
            std::fs::write(state.join("config.toml"), config).map_err(failed)?;
            let mut variables = environment::codex(OFFLINE_KEY, state);
            // The engine's own part of what the adapter gets: its plugin adds the rest.
            variables.extend(environment::codex_acp(Path::new("")).into_iter().filter(|it| it.name != "CODEX_PATH"));
            Ok(variables)
        }
        _ => Err(Error::new(code::NOT_FOUND, "demo", "the model server has no script for this agent")
            .subject(tool)
            .hint(format!("choose from {}", TOOLS.join(", ")))),
    }
}

impl Pcoder {
    /// A folder for the agents' own files while the model server runs alone. It is deleted when it is dropped.
    ///
    /// # Errors
    /// `io`.
    pub fn demo_folder(&self) -> Result<tempfile::TempDir, Error> {
        self.temporary_folder("pcoder-model-").map_err(|error| Error::io("demo", "a temporary folder", &error))
    }
}

impl<'a> Stage<'a> {
    /// A temporary home and project for one agent.
    ///
    /// # Errors
    /// `io`, and those of [`point`].
    pub fn new(pcoder: &'a Pcoder, server: &'a ModelServer, tool: &'a str) -> Result<Self, Error> {
        let folder =
            pcoder.temporary_folder("pcoder-demo-").map_err(|error| Error::io("demo", "a temporary folder", &error))?;
        for name in ["home", "project", "tmp"] {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).map_err(|error| Error::io("demo", path.display().to_string(), &error))?;
        }
        Ok(Self { pcoder, server, tool, folder })
    }

    /// The temporary project.
    pub fn project(&self) -> std::path::PathBuf {
        self.folder.path().join("project")
    }

    /// A run of this agent that reaches only the model server.
    ///
    /// # Errors
    /// Those of [`point`].
    pub fn request(&self, args: &[&str]) -> Result<RunRequest, Error> {
        let at = |name: &str| self.folder.path().join(name);
        let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
        let mut env: Vec<(String, String)> = point(self.tool, self.server, &at("state"))?
            .into_iter()
            .map(|variable| (variable.name.to_owned(), variable.value))
            .collect();
        env.push(("HOME".into(), text(at("home"))));
        env.push(("USERPROFILE".into(), text(at("home"))));
        // Codex leaves out its helpers when its home is below the folder for temporary files.
        env.push(("TMPDIR".into(), text(at("tmp"))));
        Ok(RunRequest {
            tool: self.tool.to_owned(),
            provider: "local".into(),
            project: Some(self.project()),
            version: None,
            profile: None,
            args: args.iter().map(|&it| it.to_owned()).collect(),
            env,
            clear_env: true,
            // What is shown from a folder that leaves nothing behind leaves nothing behind.
            private_tmp: if self.pcoder.layout().portable { PrivateTmp::WherePossible } else { PrivateTmp::No },
        })
    }

    fn shown(&self, by: &'static str, what: &'static str, answer: impl Into<String>) -> Shown {
        Shown { tool: self.tool.to_owned(), by, what, answer: answer.into() }
    }

    async fn command(&self, args: &[&str], prompt: &str) -> Result<String, Error> {
        let prepared = self.pcoder.prepare(self.request(args)?, false).await?;
        let control = prepared.control();
        let captured = prepared.capture(Feed::Bytes(prompt.as_bytes().to_vec()), KEPT, &control).await?;
        let said = |kept: &[u8]| pcoder_runtime::text::for_people(String::from_utf8_lossy(kept).trim(), 2000);
        if captured.status == ExitStatus::Exited(0) {
            return Ok(said(&captured.stdout.bytes));
        }
        let message = format!("the engine failed: {}", pcoder_runtime::text::ended(&captured.status));
        Err(Error::new(code::PROCESS, "demo", message).subject(self.tool).hint(format!(
            "it said: {} {}",
            said(&captured.stdout.bytes),
            said(&captured.stderr.bytes)
        )))
    }

    /// Reads a file that the agent was to write.
    fn written(&self, name: &str, expected: &str) -> Result<String, Error> {
        let path = self.project().join(name);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            Error::io("demo", path.display().to_string(), &error)
                .hint("the agent did not write the file that it was asked for")
        })?;
        if text.trim_end() == expected {
            return Ok(format!("{name}: {}", text.trim_end()));
        }
        Err(unlike("the file", expected, &text))
    }

    /// One reply, and one tool call that changes a file, by the agent's own command line.
    ///
    /// # Errors
    /// When it did anything else.
    pub async fn by_command(&self) -> Result<Vec<Shown>, Error> {
        let args: &[&str] = match self.tool {
            "claude" => &["-p"],
            _ => &["exec", "--skip-git-repo-check", "-"],
        };
        let reply = self.command(args, "@say hello from the real engine").await?;
        same("the reply", "hello from the real engine", &reply)?;
        let args: &[&str] = match self.tool {
            "claude" => &["-p", "--permission-mode", "acceptEdits"],
            _ => &["exec", "--skip-git-repo-check", "--sandbox", "workspace-write", "-"],
        };
        let script = match self.tool {
            "claude" => format!(
                "@tool Write {}\n@say done",
                serde_json::json!({
                    "file_path": self.project().join("by-command.txt"),
                    "content": "written by a tool call\n",
                })
            ),
            _ => "@sh echo written by a tool call > by-command.txt\n@say done".to_owned(),
        };
        self.command(args, &script).await?;
        let file = self.written("by-command.txt", "written by a tool call")?;
        Ok(vec![self.shown("command", "reply", reply), self.shown("command", "change a file", file)])
    }

    /// A reply, a tool call that asks first and is allowed, and a turn that is cancelled, over the protocol.
    ///
    /// # Errors
    /// When it did anything else.
    pub async fn by_acp(&self) -> Result<Vec<Shown>, Error> {
        let prepared = self.pcoder.prepare(self.request(&[])?, true).await?;
        let project = prepared.project().to_owned();
        with_agent(&prepared, async |client| {
            let mut session =
                client.new_session(&project, crate::acp::START).await.map_err(|error| from_acp(&error))?;
            let first = turn(&mut session, "@say hello over ACP", false).await?;
            same("the reply", "hello over ACP", &first.text)?;
            let shell = if self.tool == "codex" { "@shx" } else { "@sh" };
            let script = format!("{shell} echo allowed > by-acp.txt\n@say second turn done");
            let second = turn(&mut session, &script, false).await?;
            if second.asked == 0 {
                return Err(Error::new(code::PROCESS, "demo", "the agent changed a file without asking"));
            }
            let file = self.written("by-acp.txt", "allowed")?;
            let third = turn(&mut session, "@say one moment\n@sleep 600\n@say too late", true).await?;
            if third.stop != Stop::Cancelled {
                return Err(unlike("the end of the cancelled turn", "Cancelled", &format!("{:?}", third.stop)));
            }
            Ok(vec![
                self.shown("acp", "reply", first.text),
                self.shown("acp", "ask, then change a file", file),
                self.shown("acp", "cancel a turn", "cancelled"),
            ])
        })
        .await
    }
}

struct Told {
    text: String,
    asked: usize,
    stop: Stop,
}

/// One turn. Every question is answered with "allow once"; `cancel` ends it at its first word.
async fn turn(session: &mut Session, prompt: &str, cancel: bool) -> Result<Told, Error> {
    let canceller = session.canceller();
    let mut turn = session.prompt(prompt).map_err(|error| from_acp(&error))?;
    let (mut text, mut asked, mut is_to_be_cancelled) = (String::new(), 0, cancel);
    loop {
        match turn.next(TURN).await.map_err(|error| from_acp(&error))? {
            Event::Update(Update::Text(piece)) => {
                // Once, also where the first piece is empty: an agent may say that it was interrupted, and have ended by then.
                if std::mem::take(&mut is_to_be_cancelled) {
                    canceller.cancel().map_err(|error| from_acp(&error))?;
                }
                text.push_str(&piece);
            }
            Event::Permission(request) => {
                asked += 1;
                request.choose(PermissionOptionKind::AllowOnce).map_err(|error| from_acp(&error))?;
            }
            Event::End(end) => {
                return Ok(Told { text, asked, stop: end.stop });
            }
            _ => {}
        }
    }
}

fn same(what: &str, expected: &str, found: &str) -> Result<(), Error> {
    if found.trim() == expected { Ok(()) } else { Err(unlike(what, expected, found)) }
}

fn unlike(what: &str, expected: &str, found: &str) -> Error {
    Error::new(code::PROCESS, "demo", format!("{what} should be `{expected}`"))
        .hint(format!("it is `{}`", pcoder_runtime::text::for_people(found, 1000)))
}
