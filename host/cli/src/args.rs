//! The command line, as clap's types and nothing else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXIT_CODES: &str = "Exit codes:
  0  it worked                    6  a login or a key is missing
  1  it failed                    7  denied: a grant is missing
  2  the command line is wrong  130  stopped with Ctrl-C
  3  something is not there
  4  the network                `run` passes on the tool's own exit code,
  5  bytes are not right        and 128+N when signal N ended it.";

/// Runs coding agents on a machine that you choose.
#[derive(Debug, Parser)]
#[command(name = "pcoder", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// Say more; twice for every step
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a coding agent in a project
    #[command(after_help = "Examples:
  pcoder run claude                             the agent, in this folder and this terminal
  pcoder run codex --project ../app             in another folder
  pcoder run claude -- -p \"fix the tests\"       with the agent's own arguments")]
    Run(Run),
    /// List the agents that `run` knows
    ListTools(Json),
    /// Look for what is missing, and say what mends it
    #[command(after_help = "Exit codes: 0 all is well, 1 warnings, 2 something does not work.")]
    Doctor(Json),
    /// Install, check and remove the agents' own programs
    #[command(subcommand)]
    Engine(Engine),
    /// Look at plugins
    #[command(subcommand)]
    Plugin(Plugin),
    /// Show real agents at work, offline, without an account
    #[command(after_help = "Installs the pinned engines where they are missing, starts a model server inside this \
                            program, and lets the real Claude Code and Codex answer and change a file.")]
    Demo(Demo),
    /// End what a pcoder that was killed ran; started by pcoder
    #[command(name = "__guard", hide = true)]
    Guard,
    /// Compile components ahead of time; for the build
    #[command(name = "__precompile", hide = true)]
    Precompile(Precompile),
}

impl Command {
    /// Whether a script reads the answer.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Run(arguments) => arguments.json,
            Self::ListTools(arguments) | Self::Doctor(arguments) => arguments.json,
            Self::Engine(engine) => engine.json(),
            Self::Plugin(Plugin::List(arguments)) => arguments.json,
            Self::Plugin(Plugin::Inspect(arguments)) => arguments.json.json,
            Self::Demo(arguments) => arguments.json,
            Self::Guard | Self::Precompile(_) => false,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Json {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The agent; `pcoder list-tools` shows them
    #[arg(default_value = "claude")]
    pub(crate) tool: String,
    /// The machine that it runs on; `local` is this one
    #[arg(long, default_value = "local")]
    pub(crate) provider: String,
    /// The project's folder [default: this folder]
    #[arg(long, value_name = "PATH")]
    pub(crate) project: Option<PathBuf>,
    /// The engine's version [default: the pinned one]
    #[arg(long = "engine-version", value_name = "VERSION")]
    pub(crate) version: Option<String>,
    /// Capture what the agent prints, and print one JSON object when it has ended
    #[arg(long)]
    pub(crate) json: bool,
    /// Fail instead of downloading a missing engine
    #[arg(long)]
    pub(crate) no_install: bool,
    /// The agent's own arguments
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Engine {
    /// List engines and what is installed
    List(Json),
    /// Download, verify and install engines
    Install(EngineInstall),
    /// Compare installed files with what was installed
    Verify(EngineNamed),
    /// Remove an installed engine
    Remove(EngineNamed),
    /// Remove every version that is not the default one
    Prune(Json),
}

impl Engine {
    fn json(&self) -> bool {
        match self {
            Self::List(it) | Self::Prune(it) => it.json,
            Self::Install(it) => it.json.json,
            Self::Verify(it) | Self::Remove(it) => it.json.json,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct EngineInstall {
    /// Engines, as `claude` or `codex`; all of the default ones when none is named
    pub(crate) names: Vec<String>,
    /// Another version than the default one
    #[arg(long)]
    pub(crate) version: Option<String>,
    /// Another npm registry than npm's configuration names
    #[arg(long, value_name = "URL")]
    pub(crate) registry: Option<String>,
    /// Install again what is there already
    #[arg(long, conflicts_with = "offline")]
    pub(crate) force: bool,
    /// Do not use the network
    #[arg(long)]
    pub(crate) offline: bool,
    /// A tarball, or a folder of tarballs, that was downloaded elsewhere; verified all the same
    #[arg(long, value_name = "FILE", conflicts_with_all = ["registry", "offline"])]
    pub(crate) from: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct EngineNamed {
    /// The engine
    pub(crate) name: String,
    /// Another version than the default one
    #[arg(long)]
    pub(crate) version: Option<String>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Plugin {
    /// List plugins
    List(Json),
    /// Show what a plugin asks for, and what it could never do
    Inspect(PluginInspect),
}

#[derive(Debug, Args)]
pub(crate) struct PluginInspect {
    /// A plugin's name, or a component's file
    pub(crate) plugin: String,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Only these agents
    pub(crate) tools: Vec<String>,
    /// Start the model server, print how to point the agents at it, and wait
    #[arg(long, conflicts_with_all = ["tools", "json"])]
    pub(crate) serve: bool,
    /// The model server's port [default: a free one]
    #[arg(long, default_value_t = 0, requires = "serve")]
    pub(crate) port: u16,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Precompile {
    /// The target triple
    #[arg(long)]
    pub(crate) target: String,
    /// Components; the code is written beside each
    #[arg(required = true)]
    pub(crate) components: Vec<PathBuf>,
}
