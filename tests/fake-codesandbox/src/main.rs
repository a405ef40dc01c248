//! The fake as a program, for clients in other languages.

#![forbid(unsafe_code)]

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use pcoder_fake_codesandbox::{Agent, FakeCodeSandbox, Fault, Options, SetupStep};

/// A stand-in for CodeSandbox. Prints one line of JSON with its addresses when it is ready.
#[derive(Parser)]
struct Arguments {
    /// The port of the REST API on 127.0.0.1; a free one without
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The key that it asks for
    #[arg(long, default_value = "csb_v1_fake")]
    key: String,
    /// Where the instances' folders are made; a temporary folder without
    #[arg(long)]
    root: Option<PathBuf>,
    /// The agent in the sandboxes
    #[arg(long, value_enum, default_value = "pitcher")]
    agent: AgentName,
    /// What goes wrong, for instance `vm.start=503` or `fs/readFile=error:102,errno=13,times=2`
    #[arg(long)]
    fault: Vec<Fault>,
    /// Notifications and replies come in the orders that hurt
    #[arg(long)]
    shuffle_notifications: bool,
    /// What a fresh boot runs, instead of a step that succeeds at once
    #[arg(long)]
    setup: Vec<String>,
    /// Ends when the standard input does
    #[arg(long)]
    until_eof: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum AgentName {
    Pitcher,
    Pint,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut options = Options {
        port: arguments.port,
        key: arguments.key.clone(),
        root: arguments.root,
        agent: match arguments.agent {
            AgentName::Pitcher => Agent::Pitcher,
            AgentName::Pint => Agent::Pint,
        },
        shuffle_notifications: arguments.shuffle_notifications,
        ..Options::default()
    };
    if !arguments.setup.is_empty() {
        let step = |command: String| SetupStep { name: command.clone(), command };
        options.setup = arguments.setup.into_iter().map(step).collect();
    }
    let fake = match FakeCodeSandbox::start(options).await {
        Ok(fake) => fake,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            return ExitCode::FAILURE;
        }
    };
    for fault in arguments.fault {
        fake.faults().push(fault);
    }
    let addresses =
        serde_json::json!({"base_url": fake.base_url(), "agents": fake.agents_address(), "key": arguments.key});
    let mut stdout = std::io::stdout();
    if writeln!(stdout, "{addresses}").and_then(|()| stdout.flush()).is_err() {
        return ExitCode::FAILURE;
    }
    if arguments.until_eof {
        let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        let _ = end.await;
    } else {
        // Without signals to wait for, it ends as others do: by being killed.
        let _ = tokio::signal::ctrl_c().await;
    }
    fake.stop().await;
    ExitCode::SUCCESS
}
