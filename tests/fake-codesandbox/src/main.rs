//! The fake as a program, for clients in other languages and for trying things by hand.

#![forbid(unsafe_code)]

#[cfg(unix)]
mod program {
    use std::error::Error;
    use std::io::Write as _;
    use std::path::PathBuf;

    use clap::{Parser, ValueEnum};
    use pcoder_fake_codesandbox::{Agent, FakeCodeSandbox, Fault, Options, SetupStep};
    use tokio::io::AsyncReadExt as _;
    use tokio::signal::unix::{SignalKind, signal};

    /// A stand-in for CodeSandbox on 127.0.0.1. Prints one line of JSON with its addresses when it is ready, and ends
    /// on SIGTERM.
    #[derive(Parser)]
    #[command(name = "fake-codesandbox")]
    struct Arguments {
        /// The port of the REST API; a free one without
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
        /// Ends when the standard input does, too
        #[arg(long)]
        until_eof: bool,
    }

    #[derive(Clone, Copy, ValueEnum)]
    enum AgentName {
        Pitcher,
        Pint,
        PintAlone,
    }

    fn options(arguments: &Arguments) -> Options {
        let mut options = Options {
            port: arguments.port,
            key: arguments.key.clone(),
            root: arguments.root.clone(),
            agent: match arguments.agent {
                AgentName::Pitcher => Agent::Pitcher,
                AgentName::Pint => Agent::Pint,
                AgentName::PintAlone => Agent::PintAlone,
            },
            shuffle_notifications: arguments.shuffle_notifications,
            ..Options::default()
        };
        if !arguments.setup.is_empty() {
            let step = |command: &String| SetupStep { name: command.clone(), command: command.clone() };
            options.setup = arguments.setup.iter().map(step).collect();
        }
        options
    }

    #[tokio::main]
    pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
        let arguments = Arguments::parse();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let fake = FakeCodeSandbox::start(options(&arguments)).await?;
        for fault in arguments.fault {
            fake.faults().push(fault);
        }
        let ready = serde_json::json!({
            "base_url": fake.base_url(), "agents": fake.agents_address(), "key": arguments.key,
        });
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{ready}")?;
        stdout.flush()?;
        let closed = async {
            if !arguments.until_eof {
                return std::future::pending().await;
            }
            let (mut stdin, mut bytes) = (tokio::io::stdin(), [0; 1024]);
            while matches!(stdin.read(&mut bytes).await, Ok(count) if count > 0) {}
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = closed => {}
        }
        fake.stop().await;
        // A read of the standard input may be under way, which Tokio would wait for.
        #[allow(clippy::exit, reason = "everything has ended")]
        std::process::exit(0)
    }
}

#[cfg(unix)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    program::main()
}

#[cfg(not(unix))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    Err("the fake needs Unix".into())
}
