//! `fake-morph`: the fake as a program, for tests that are not in Rust and for trying things by hand.
#![forbid(unsafe_code)]

#[cfg(unix)]
mod program {
    use std::io::Write;
    use std::path::PathBuf;

    use clap::{Parser, ValueEnum};
    use pcoder_fake_morph::{ExecReading, FakeMorph, Fault, Options, SnapshotSeed, SseFormat};
    use tokio::io::AsyncReadExt;
    use tokio::signal::unix::{SignalKind, signal};

    #[derive(Clone, Copy, ValueEnum)]
    enum Exec {
        Joined,
        Strict,
    }

    #[derive(Clone, Copy, ValueEnum)]
    enum Sse {
        Unnamed,
        Named,
    }

    /// A fake of Morph Cloud on 127.0.0.1. Says where it is as a line of JSON, and ends on SIGTERM.
    #[derive(Parser)]
    #[command(name = "fake-morph")]
    struct Args {
        /// The API's port; 0 takes a free one.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// The SSH gateway's port; 0 takes a free one.
        #[arg(long, default_value_t = 0)]
        ssh_port: u16,
        /// The API key.
        #[arg(long, default_value = "key")]
        key: String,
        /// The folder of the instances and of the host key; a temporary one if it is not said.
        #[arg(long)]
        root: Option<PathBuf>,
        /// How a command's elements are read.
        #[arg(long, value_enum, default_value = "joined")]
        exec: Exec,
        /// The form of streamed output.
        #[arg(long, value_enum, default_value = "unnamed")]
        sse: Sse,
        /// How many reads of a new instance say `pending`.
        #[arg(long, default_value_t = 1)]
        boot_polls: u32,
        /// The id of a snapshot that is there from the start; may be repeated.
        #[arg(long, default_value = "snapshot_c1p8b6c2")]
        snapshot: Vec<String>,
        /// A further writable folder of instances; may be repeated.
        #[arg(long)]
        folder: Vec<String>,
        /// A variable of commands, `NAME=VALUE`; may be repeated.
        #[arg(long, value_parser = variable)]
        env: Vec<(String, String)>,
        /// A folder of this machine with programs, and where instances see it: POINT=FOLDER.
        #[arg(long, value_parser = variable)]
        share: Vec<(String, String)>,
        /// A fault as JSON, as `POST /__fake/faults` takes it; may be repeated.
        #[arg(long, value_parser = fault)]
        fault: Vec<Fault>,
        /// Ends also when the standard input is closed.
        #[arg(long)]
        until_eof: bool,
    }

    fn variable(text: &str) -> Result<(String, String), String> {
        let pair = text.split_once('=').ok_or("it is to be NAME=VALUE")?;
        Ok((pair.0.to_owned(), pair.1.to_owned()))
    }

    fn fault(text: &str) -> Result<Fault, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[tokio::main]
    pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
        let args = Args::parse();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let seed = |id: &String| SnapshotSeed { id: id.clone(), digest: None, metadata: Vec::new() };
        let fake = FakeMorph::start(Options {
            key: args.key,
            root: args.root,
            port: args.port,
            ssh_port: args.ssh_port,
            snapshots: args.snapshot.iter().map(seed).collect(),
            folders: args.folder,
            environment: args.env,
            shared: args.share.into_iter().map(|(point, folder)| (folder.into(), point)).collect(),
            exec: match args.exec {
                Exec::Joined => ExecReading::Joined,
                Exec::Strict => ExecReading::Strict,
            },
            sse: match args.sse {
                Sse::Unnamed => SseFormat::Unnamed,
                Sse::Named => SseFormat::Named,
            },
            boot_polls: args.boot_polls,
        })
        .await?;
        for fault in args.fault {
            fake.faults().push(fault)?;
        }
        let ready = serde_json::json!({
            "base_url": fake.base_url(), "ssh_address": fake.ssh_address().to_string(),
            "ssh_host": fake.ssh_address().ip().to_string(), "ssh_port": fake.ssh_address().port(),
            "ssh_host_key": fake.ssh_host_key(),
        });
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{ready}")?;
        stdout.flush()?;
        let closed = async {
            if !args.until_eof {
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
        fake.stop().await?;
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
