//! The command line, as clap's types and nothing else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pcoder_core::engine_store::Platform;

mod account;
mod bundle;
mod instance;
mod plugin;
mod runtime;
mod state;

pub(crate) use account::{
    Auth, AuthKind, AuthLogin, AuthLogout, AuthStatus, EngineExport, EngineImport, Profile, ProfileCreate, Secret,
    Setup,
};
pub(crate) use bundle::{Bundle, BundleExport, BundleVerify};
pub(crate) use instance::{
    Boot, CommandLine, Instance, InstanceBoot, InstanceCp, InstanceExec, InstancePorts, InstanceTerminate, Managed,
    Network, OnProvider, Place, Process, ProcessStart, Smoke,
};
pub(crate) use plugin::{Plugin, PluginAdd, PluginGrant, PluginInspect, PluginRemove, PluginRevoke};
pub(crate) use runtime::{ImageNamed, ImagesCommand, Runtime, RuntimeBootstrap, RuntimeImages};
pub(crate) use state::{Audit, AuditShow, AuditVerify, Completions, Config, ConfigCommand, Man};

/// The help: commands in groups, which clap has none of. A test compares it with the commands.
const HELP: &str = "\
{about-with-newline}
{usage-heading} {usage}

Work:
  run          Run a coding agent in a project
  list-tools   List the agents that `run` knows
  demo         Show real agents at work, offline, without an account

Machines:
  instance     Start, use and end machines of a provider
  process      Start and watch processes that go on when pcoder has ended
  smoke        Try a provider from boot to an agent's answer

Set up:
  setup        Set pcoder up: the default tool, its engine, its login
  auth         Log tools in and out
  profile      Choose a key, a model, a service for a tool
  secret       Put secrets into the system's keyring
  config       Show and change settings, and where each comes from
  engine       Install, check, move and remove the agents' own programs
  bundle       Make a folder with pcoder and its engines that runs from a stick, and check one

Trust:
  plugin       Add plugins, and say what each may do
  audit        Show what plugins did, and check that the record is whole

Help:
  doctor       Look for what is missing, and say what mends it
  runtime      Look at what this machine can run, and bring what virtual machines need
  completions  Print completions for a shell
  man          Print manual pages
  help         Print this message or the help of a command

Options:
{options}

Examples:
  pcoder setup                                 from nothing to a first run
  pcoder run claude                            in this folder and this terminal
  pcoder run codex --profile work -- exec \"fix the tests\"
  pcoder plugin add ./provider-box.wasm        asks before it grants anything
  pcoder doctor{after-help}";

const EXIT_CODES: &str = "Exit codes:
  0  it worked                    6  a login or a key is missing
  1  it failed                    7  denied: a grant is missing
  2  the command line is wrong  130  stopped with Ctrl-C
  3  something is not there
  4  the network                `run` passes on the tool's own exit code,
  5  bytes are not right        and 128+N when signal N ended it.";

/// Runs coding agents on a machine that you choose.
#[derive(Debug, Parser)]
#[command(name = "pcoder", version, after_help = EXIT_CODES, help_template = HELP, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// Say more; twice for every step
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Send the audit there too, as OpenTelemetry over HTTP
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a coding agent in a project
    #[command(after_help = "Examples:
  pcoder run claude                             the agent, in this folder and this terminal
  pcoder run codex --project ../app             in another folder
  pcoder run claude --profile work              with another key, model or service
  pcoder run claude -- -p \"fix the tests\"       with the agent's own arguments")]
    Run(Run),
    /// List the agents that `run` knows
    ListTools(Json),
    /// Start, use and end machines of a provider
    #[command(subcommand)]
    Instance(Instance),
    /// Start and watch processes that go on when pcoder has ended
    #[command(subcommand)]
    Process(Process),
    /// Try a provider from boot to an agent's answer
    Smoke(Smoke),
    /// Set pcoder up: the default tool, its engine, its login
    #[command(after_help = "Examples:
  pcoder setup                                     asks, in a terminal
  pcoder setup --default-tool codex --install --auth codex=env:WORK_KEY
  pcoder setup --show --json")]
    Setup(Setup),
    /// Log tools in and out
    #[command(subcommand)]
    Auth(Auth),
    /// Choose a key, a model, a service for a tool
    #[command(subcommand)]
    Profile(Profile),
    /// Put secrets into the system's keyring
    #[command(subcommand)]
    Secret(Secret),
    /// Show and change settings, and where each comes from
    Config(Config),
    /// Show what plugins did, and check that the record is whole
    #[command(subcommand)]
    Audit(Audit),
    /// Print completions for a shell
    #[command(after_help = "Example: pcoder completions bash > ~/.local/share/bash-completion/completions/pcoder")]
    Completions(Completions),
    /// Print manual pages
    #[command(after_help = "Example: pcoder man --to ~/.local/share/man/man1")]
    Man(Man),
    /// Look for what is missing, and say what mends it
    #[command(after_help = "Exit codes: 0 all is well, 1 warnings, 2 something does not work.")]
    Doctor(Doctor),
    /// Look at what this machine can run, and bring what virtual machines need
    #[command(subcommand)]
    Runtime(Runtime),
    /// Install, check, move and remove the agents' own programs
    #[command(subcommand)]
    Engine(Engine),
    /// Add plugins, and say what each may do
    #[command(subcommand)]
    Plugin(Plugin),
    /// Make a folder with pcoder and its engines that runs from a stick, and check one
    #[command(subcommand)]
    Bundle(Bundle),
    /// Show real agents at work, offline, without an account
    #[command(after_help = "Installs the pinned engines where they are missing, starts a model server inside this \
                            program, and lets the real Claude Code and Codex answer and change a file.")]
    Demo(Demo),
    /// End what a pcoder that was killed ran; started by pcoder
    #[command(name = "__guard", hide = true)]
    Guard,
    /// Compile a component within limits; started by pcoder
    #[command(name = "__compile", hide = true)]
    Compile,
    /// Become a command that has a `/tmp` of its own; started by pcoder
    #[command(name = "__private-tmp", hide = true)]
    PrivateTmp(PrivateTmp),
    /// Keep a program running for a plugin; started by pcoder
    #[command(name = "__service", hide = true)]
    Service,
    /// Keep connections to a machine; started by pcoder
    #[command(name = "__ssh-keeper", hide = true)]
    SshKeeper,
    /// Become a program that ends with the process that keeps it; started by pcoder
    #[command(name = "__service-program", hide = true)]
    ServiceProgram(ServiceProgram),
    /// Compile components ahead of time; for the build
    #[command(name = "__precompile", hide = true)]
    Precompile(Precompile),
}

impl Command {
    /// Whether a script reads the answer.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Run(arguments) => arguments.json,
            Self::ListTools(arguments) => arguments.json,
            Self::Runtime(runtime) => runtime.json(),
            Self::Doctor(arguments) => arguments.json.json,
            Self::Instance(instance) => instance.json(),
            Self::Process(process) => process.json(),
            Self::Smoke(arguments) => arguments.json.json,
            Self::Engine(engine) => engine.json(),
            Self::Plugin(plugin) => plugin.json(),
            Self::Bundle(bundle) => bundle.json(),
            Self::Demo(arguments) => arguments.json,
            Self::Setup(arguments) => arguments.json.json,
            Self::Auth(auth) => auth.json(),
            Self::Profile(profile) => profile.json(),
            Self::Secret(secret) => secret.json(),
            Self::Config(config) => config.json(),
            Self::Audit(audit) => audit.json(),
            Self::Completions(_) | Self::Man(_) => false,
            Self::Guard
            | Self::Compile
            | Self::PrivateTmp(_)
            | Self::Service
            | Self::SshKeeper
            | Self::ServiceProgram(_)
            | Self::Precompile(_) => false,
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
    /// The agent; `pcoder list-tools` shows them [default: the setting `tool`, which is claude]
    pub(crate) tool: Option<String>,
    /// How it uses the tool: a key, a model, a service; `pcoder profile list` shows them
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// The machine that it runs on [default: the setting `provider`, which is `local`: this one]
    #[arg(long)]
    pub(crate) provider: Option<String>,
    /// The kind of machine that it runs on
    #[arg(long, conflicts_with = "provider")]
    pub(crate) mode: Option<Mode>,
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
    /// Give it a `/tmp` of its own, in memory, which is gone with it (Linux)
    #[arg(long)]
    pub(crate) private_tmp: bool,
    /// The agent's own arguments
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
    #[command(flatten)]
    pub(crate) away: Away,
}

/// What is said of a run on another machine.
#[derive(Debug, Args)]
#[command(next_help_heading = "On another machine")]
pub(crate) struct Away {
    /// Boot this image, snapshot or template [default: the provider's]
    #[arg(long, conflicts_with = "instance")]
    pub(crate) image: Option<String>,
    /// Use an instance that is there, and leave it running
    #[arg(long, value_name = "INSTANCE")]
    pub(crate) instance: Option<String>,
    /// What the machine that is booted reaches [default: the provider's]
    #[arg(long, conflicts_with = "instance")]
    pub(crate) network: Option<Network>,
    /// More that the provider knows of the machine that is booted, as `memory-mib=4096`
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = instance::pair, conflicts_with = "instance")]
    pub(crate) options: Vec<(String, String)>,
    /// Leave the instance running that was booted
    #[arg(long)]
    pub(crate) keep: bool,
    /// Do not bring the project there
    #[arg(long)]
    pub(crate) no_sync: bool,
    /// Do not bring the project's changes back
    #[arg(long)]
    pub(crate) no_sync_back: bool,
    /// What is not synced, as in `.gitignore`, beside `.git` and `node_modules`
    #[arg(long, value_name = "PATTERN")]
    pub(crate) ignore: Vec<String>,
}

impl Away {
    /// Whether anything was said.
    pub(crate) fn is_said(&self) -> bool {
        self.image.is_some()
            || self.instance.is_some()
            || self.network.is_some()
            || !self.options.is_empty()
            || self.keep
            || self.no_sync
            || self.no_sync_back
            || !self.ignore.is_empty()
    }
}

#[derive(Debug, Args)]
pub(crate) struct PrivateTmp {
    /// Only try
    #[arg(long)]
    pub(crate) probe: bool,
    /// With a folder for sockets in it
    #[arg(long)]
    pub(crate) sockets: bool,
    #[arg(last = true)]
    pub(crate) command: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct ServiceProgram {
    /// The process that keeps it
    pub(crate) supervisor: u32,
    /// What to become
    pub(crate) program: std::path::PathBuf,
    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<std::ffi::OsString>,
}

/// Kinds of machine, by the names that people know them by.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Mode {
    /// This machine, without isolation
    HostNative,
    /// A Linux machine that needs no installation
    LinuxPortable,
    /// The Linux that Windows brings
    LinuxWsl,
    /// The portable Linux machine where it can be started, else this machine
    Auto,
}

impl From<Mode> for pcoder_core::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::HostNative => Self::HostNative,
            Mode::LinuxPortable => Self::LinuxPortable,
            Mode::LinuxWsl => Self::LinuxWsl,
            Mode::Auto => Self::Auto,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Also mend what is safe to: missing folders, permissions of pcoder's own files, what a killed pcoder left
    #[arg(long)]
    pub(crate) fix: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Engine {
    /// List engines and what is installed
    List(EngineList),
    /// Download, verify and install engines
    Install(EngineInstall),
    /// Write installed engines to files, for a machine without a network
    Export(EngineExport),
    /// Install engines from files that `engine export` wrote; what they must be stands in this program
    Import(EngineImport),
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
            Self::List(it) => it.json.json,
            Self::Prune(it) => it.json,
            Self::Install(it) => it.json.json,
            Self::Export(it) => it.json.json,
            Self::Import(it) => it.json.json,
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
    /// For another platform than this machine's, as `linux-x64`
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<Platform>,
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
pub(crate) struct EngineList {
    /// For another platform than this machine's, as `linux-x64`
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<Platform>,
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
    /// For another platform than this machine's, as `linux-x64`
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<Platform>,
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
