//! `instance …` and `process …`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use pcoder_core::orchestrator::SMOKE_PROMPT;

use super::Json;

#[derive(Debug, Subcommand)]
pub(crate) enum Instance {
    /// Start instances, and wait until they are ready
    #[command(after_help = "Examples:
  pcoder instance boot --provider morph --image snapshot_1a2b --ttl 30m
  pcoder instance boot --provider codesandbox --name demo --option tier=Micro
  pcoder instance boot --provider morph --count 10 --json")]
    Boot(InstanceBoot),
    /// List the instances that were started here
    List(InstanceList),
    /// Show one instance
    Get(InstanceNamed),
    /// Halt an instance; it can be resumed
    Stop(InstanceNamed),
    /// Continue an instance, and wait until it is ready
    Resume(InstanceNamed),
    /// End instances and free what they hold
    Terminate(InstanceTerminate),
    /// Copy a running instance
    Fork(InstanceNamed),
    /// Run a command on an instance
    #[command(after_help = "Examples:
  pcoder instance exec ID -- uname -a
  pcoder instance exec ID --shell 'cd /srv && ls | wc -l'
  tar -cz . | pcoder instance exec ID -- tar -xzC /srv

It ends with the command's own exit code, and with 128+N when signal N ended it.")]
    Exec(InstanceExec),
    /// Copy a file to or from an instance
    #[command(after_help = "Examples:
  pcoder instance cp notes.txt ID:~/notes.txt
  pcoder instance cp ID:/etc/os-release .")]
    Cp(InstanceCp),
    /// Make a port reachable and print its address, or list those that are
    Ports(InstancePorts),
    /// Open a shell on an instance, in this terminal
    Ssh(InstanceNamed),
}

impl Instance {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Boot(it) => it.json.json,
            Self::List(it) => it.json.json,
            Self::Get(it) | Self::Stop(it) | Self::Resume(it) | Self::Fork(it) => it.json.json,
            Self::Terminate(it) => it.json.json,
            Self::Exec(it) => it.json.json,
            Self::Cp(it) => it.json.json,
            Self::Ports(it) => it.json.json,
            Self::Ssh(_) => false,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct OnProvider {
    /// The provider [default: the setting `provider`]
    #[arg(long)]
    pub(crate) provider: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InstanceNamed {
    /// The instance; `pcoder instance list` shows them
    #[arg(value_name = "INSTANCE")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) on: OnProvider,
    #[command(flatten)]
    pub(crate) json: Json,
}

/// What the end of an instance's time does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TtlAction {
    /// It can be resumed
    Stop,
    /// It is gone
    Terminate,
}

impl TtlAction {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Terminate => "terminate",
        }
    }
}

/// What a machine reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    /// Nothing
    None,
    /// The model, the npm registry and the setting `network-allow`, by a proxy on this host
    Restricted,
    /// All that this host reaches
    Full,
}

impl Network {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Restricted => "restricted",
            Self::Full => "full",
        }
    }
}

/// What instances are made of.
#[derive(Debug, Args)]
pub(crate) struct Boot {
    /// The image, snapshot or template [default: the provider's]
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// A name for people
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// End the instance after this time, as `30m` or `2h` [default: never]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) ttl: Option<Duration>,
    /// What the end of its time does [default: stop]
    #[arg(long, requires = "ttl")]
    pub(crate) ttl_action: Option<TtlAction>,
    /// What the machine reaches [default: the provider's]
    #[arg(long)]
    pub(crate) network: Option<Network>,
    /// More that the provider knows, as `vcpus=4`
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) options: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(crate) struct InstanceBoot {
    #[command(flatten)]
    pub(crate) boot: Boot,
    /// How many, at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub(crate) count: u16,
    #[command(flatten)]
    pub(crate) on: OnProvider,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct InstanceList {
    #[command(flatten)]
    pub(crate) on: OnProvider,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct InstanceTerminate {
    /// The instances; those that are gone already are no error
    #[arg(value_name = "INSTANCE", required_unless_present = "all")]
    pub(crate) ids: Vec<String>,
    /// All that `pcoder instance list` shows
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) on: OnProvider,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct InstanceExec {
    /// The instance
    #[arg(value_name = "INSTANCE")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) command: CommandLine,
    #[command(flatten)]
    pub(crate) on: OnProvider,
    #[command(flatten)]
    pub(crate) json: Json,
}

/// What is run on an instance.
#[derive(Debug, Args)]
pub(crate) struct CommandLine {
    /// A script for `sh -c`, in the place of a command
    #[arg(long, value_name = "SCRIPT", conflicts_with = "command")]
    pub(crate) shell: Option<String>,
    /// The working folder on the instance [default: its home]
    #[arg(long, value_name = "PATH")]
    pub(crate) cwd: Option<String>,
    /// A variable for the command
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// The command, behind `--`
    #[arg(last = true, required_unless_present = "shell")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InstanceCp {
    /// A file here, or `INSTANCE:PATH`
    pub(crate) from: String,
    /// A file or a folder here, or `INSTANCE:PATH`
    pub(crate) to: String,
    /// Permission bits on the instance, as `600`
    #[arg(long, value_parser = octal)]
    pub(crate) mode: Option<u32>,
    /// To whom it belongs on the instance: `user`, `user:group` or `:group`
    #[arg(long, value_name = "OWNER")]
    pub(crate) owner: Option<String>,
    #[command(flatten)]
    pub(crate) on: OnProvider,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct InstancePorts {
    /// The instance
    #[arg(value_name = "INSTANCE")]
    pub(crate) id: String,
    /// The port on it [default: list]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    #[command(flatten)]
    pub(crate) on: OnProvider,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Process {
    /// Start a process that goes on when pcoder has ended
    #[command(after_help = "Examples:
  pcoder process start --on ID --name web -- python3 -m http.server 3000
  pcoder process start --on ID --name job --restart 3 --shell './job.sh >> job.log'")]
    Start(ProcessStart),
    /// List processes
    List(ProcessList),
    /// Show the last lines of a process's output
    Logs(ProcessLogs),
    /// End a process; it stays in the list
    Stop(ProcessNamed),
    /// End a process and take it off the list
    Delete(ProcessNamed),
}

impl Process {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Start(it) => it.json.json,
            Self::List(it) => it.json.json,
            Self::Logs(it) => it.json.json,
            Self::Stop(it) | Self::Delete(it) => it.json.json,
        }
    }
}

/// Which processes: an instance, and what keeps them there.
#[derive(Debug, Args)]
pub(crate) struct Managed {
    /// The instance that they are on; `pcoder instance list` shows them
    #[arg(long = "on", value_name = "INSTANCE")]
    pub(crate) instance: String,
    /// What keeps them: a plugin of the kind process-manager
    #[arg(long, default_value = "pm2")]
    pub(crate) manager: String,
    #[command(flatten)]
    pub(crate) on: OnProvider,
}

#[derive(Debug, Args)]
pub(crate) struct ProcessStart {
    #[command(flatten)]
    pub(crate) managed: Managed,
    /// Its name in lists and logs
    #[arg(long)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) command: CommandLine,
    /// Start it again when it ends, so often in a row [default: never]
    #[arg(long, value_name = "TIMES")]
    pub(crate) restart: Option<u32>,
    /// A run of this length counts as a success, as `5s`
    #[arg(long, value_name = "TIME", requires = "restart", value_parser = humantime::parse_duration)]
    pub(crate) min_uptime: Option<Duration>,
    /// Start it again when it needs more memory than this
    #[arg(long, value_name = "MIB")]
    pub(crate) max_memory_mib: Option<u64>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct ProcessList {
    #[command(flatten)]
    pub(crate) managed: Managed,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct ProcessNamed {
    /// The process
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) managed: Managed,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct ProcessLogs {
    /// The process
    pub(crate) name: String,
    /// How many lines of each stream
    #[arg(long, default_value_t = 100)]
    pub(crate) lines: u32,
    #[command(flatten)]
    pub(crate) managed: Managed,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pcoder smoke --provider qemu --credentials claude/oauth-token
  pcoder smoke --provider morph --image snapshot_1a2b
  pcoder smoke --provider codesandbox --credentials claude/oauth-token --json

It boots an instance, writes files, installs credentials, runs the agent and ends the instance,
which costs what that costs there. Where pcoder brings the agent, it runs by itself; else under PM2.")]
pub(crate) struct Smoke {
    #[command(flatten)]
    pub(crate) on: OnProvider,
    #[command(flatten)]
    pub(crate) boot: Boot,
    /// Credentials to install: `INSTALLER/PROFILE`, as `claude/oauth-token`
    #[arg(long, value_name = "NAME")]
    pub(crate) credentials: Vec<String>,
    /// The agent
    #[arg(long, default_value = "claude")]
    pub(crate) tool: String,
    /// How it uses the tool: a key, a model, a service
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Leave the instance running
    #[arg(long)]
    pub(crate) keep: bool,
    /// What the agent is asked
    #[arg(long, default_value = SMOKE_PROMPT)]
    pub(crate) prompt: String,
    #[command(flatten)]
    pub(crate) json: Json,
}

/// A file here or there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Here(PathBuf),
    There { id: String, path: String },
}

impl Place {
    /// `INSTANCE:PATH` is there. A path with a slash in front of the colon is here, and so is `C:\…`.
    pub(crate) fn of(text: &str) -> Self {
        match text.split_once(':') {
            Some((id, path)) if id.len() > 1 && !id.contains(['/', '\\']) && !path.is_empty() => {
                Self::There { id: id.to_owned(), path: path.to_owned() }
            }
            _ => Self::Here(PathBuf::from(text)),
        }
    }
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    super::account::pair(text, "expected `NAME=VALUE`")
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).ok().filter(|&mode| mode <= 0o7777).ok_or_else(|| "expected bits as `600`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_told_from_what_is_here() {
        let there = |id: &str, path: &str| Place::There { id: id.into(), path: path.into() };
        assert_eq!(Place::of("morphvm_1:~/x"), there("morphvm_1", "~/x"));
        assert_eq!(Place::of("box:/a:b"), there("box", "/a:b"));
        for here in ["./a:b", "a", "/a:b", r"C:\x", "C:x", "a:"] {
            assert_eq!(Place::of(here), Place::Here(here.into()));
        }
        assert_eq!(pair("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert!(pair("=b").is_err() && pair("A").is_err());
        assert_eq!(octal("600"), Ok(0o600));
        assert!(octal("9").is_err() && octal("77777").is_err());
    }
}
