//! Connections to machines on this host that outlive a call, so that the next one need not log in again: where software
//! emulates the machine's processor, a login takes longer than most commands.
//!
//! ```text
//!   call ──SSH over a socket of this user's──► keeper ──SSH──► machine
//! ```
//!
//! A keeper is a process of its own for one machine, user and key. It speaks the protocol on both sides, so that a call
//! does with a kept connection exactly what it does with one of its own. **Each call has a connection to the machine to
//! itself**, and gives it back: one that is stuck keeps nobody else waiting, and what a call left open is ended by
//! cutting its connection, as without a keeper.
//!
//! Who may use it is who has the machine's private key. Both sides derive from it what proves that ([`Proof`]), so
//! that neither another user nor a socket of somebody else's gets anything, and nothing about it is written down. What
//! a plugin may reach is decided in its call, before anything of this.
//!
//! Where a command's output goes to a pipe or a file, the call hands that over, and the keeper writes to it: what a
//! machine says much of need not be packed twice, nor wake two processes.

mod carry;
mod outputs;
mod relay;
mod upstream;

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKey, PublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};

use pcoder_service::passing::{self, Outputs};

use super::connect::LOGIN;
use crate::error::{Error, code};
use crate::host::dial::Stream;
use crate::process::Processes;

/// How long somebody waits for a keeper that another one starts.
const STARTING: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The user that calls log in to a keeper as.
pub(super) const USER: &str = "pcoder";

/// A variable that no machine gets: a session that is asked to set it writes to the outputs that the call has handed
/// over.
pub(super) const OUTPUTS: &str = "PCODER_OUTPUTS";

/// The kind of data, beside standard error (1), that says by its number which error of the system's such an output had.
pub(super) const FAILED: u32 = 0x7063_6f64;

/// How keepers are started, and where their sockets are.
#[derive(Clone, Debug)]
pub struct SshKeepers {
    /// The program that does nothing but call [`keep_ssh`].
    pub program: PathBuf,
    /// Its arguments for that.
    pub args: Vec<OsString>,
    /// A folder with a short path, on this machine's own disk and this user's alone; it is made when it is missing.
    pub sockets: PathBuf,
}

/// A login on a machine of this host's loopback.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) port: u16,
    pub(super) user: String,
    /// One line of OpenSSH's public key format.
    pub(super) host_key: String,
    /// In OpenSSH's format.
    pub(super) private_key: String,
}

/// What a keeper is told.
#[derive(Serialize, Deserialize)]
struct Order {
    machine: Machine,
    socket: OsString,
}

/// What only those know who have the machine's private key.
pub(super) struct Proof {
    /// The keeper's host key.
    keeper: PrivateKey,
    /// What calls log in to the keeper with.
    pub(super) password: String,
}

impl Proof {
    fn of(machine: &Machine) -> Self {
        let derived = |what: &str| -> [u8; 32] {
            let mut digest = Sha256::new();
            for part in ["pcoder ssh keeper 1", what, &machine.private_key] {
                digest.update((part.len() as u64).to_be_bytes());
                digest.update(part);
            }
            digest.finalize().into()
        };
        Self {
            keeper: PrivateKey::from(Ed25519Keypair::from_seed(&derived("host key"))),
            password: derived("password").iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    pub(super) fn host_key(&self) -> PublicKey {
        self.keeper.public_key().clone()
    }
}

impl SshKeepers {
    /// A connection to the keeper of a machine, which is started where there is none. It gets these outputs, which it
    /// may write to. Nothing when there can be none: then the machine itself says why.
    pub(super) async fn reach(
        &self,
        processes: &Processes,
        machine: &Machine,
        outputs: &Outputs,
    ) -> Option<(impl Stream + use<>, Proof)> {
        let what = serde_json::to_vec(&(PROTOCOL, largest_file(), machine)).ok()?;
        // Nobody else can be at the other end of what is in there.
        #[cfg(unix)]
        pcoder_service::socket::private_folder(&self.sockets).ok()?;
        let socket = pcoder_service::socket::named(&self.sockets, &what).ok()?;
        let stream = match pcoder_service::socket::connect(&socket).await {
            Ok(stream) => stream,
            Err(_) => {
                self.start(processes, &Order { machine: machine.clone(), socket: socket.clone() }).await?;
                until_there(&socket).await?
            }
        };
        tokio::time::timeout(LOGIN, passing::give(&stream, outputs)).await.ok()?.ok()?;
        Some((stream, Proof::of(machine)))
    }

    async fn start(&self, processes: &Processes, order: &Order) -> Option<()> {
        let order = serde_json::to_vec(order).ok()?;
        let mut command = pcoder_service::socket::detached(&self.program, &self.args, &self.sockets);
        // It is nobody's who ends what calls have started.
        let mut keeper = processes.spare(|| command.spawn(), tokio::process::Child::id).ok()?;
        let mut answer = String::new();
        let told = async {
            let mut stdin = keeper.stdin.take()?;
            stdin.write_all(&order).await.ok()?;
            stdin.shutdown().await.ok()?;
            drop(stdin);
            let stdout = keeper.stdout.take()?.take(64);
            tokio::io::BufReader::new(stdout).read_line(&mut answer).await.ok()
        };
        tokio::time::timeout(LOGIN, told).await.ok()??;
        (answer == READY).then_some(())
    }
}

/// Which one calls and keepers speak with each other. Those of another one have sockets of their own.
const PROTOCOL: u32 = 2;

/// The largest file that this process may write, in bytes: a keeper that writes for it may write no larger one.
#[cfg(unix)]
fn largest_file() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current
}

/// Nothing is written for it.
#[cfg(windows)]
fn largest_file() -> Option<u64> {
    None
}

/// What a keeper says that has logged in, and listens; or that another one does.
const READY: &str = "ready\n";

async fn until_there(socket: &OsString) -> Option<pcoder_service::socket::Stream> {
    let waited = async {
        loop {
            if let Ok(stream) = pcoder_service::socket::connect(socket).await {
                return stream;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(STARTING, waited).await.ok()
}

/// Keeps connections to one machine, until it is gone or nobody has used one for a while. Its process does nothing
/// else.
///
/// `input` is what a call says that started it, `output` is where that reads the one line that is answered.
///
/// # Errors
/// What keeps it from reading, from logging in, and from listening.
pub fn keep_ssh(input: impl Read, mut output: impl Write) -> Result<(), Error> {
    const OPERATION: &str = "ssh.keep";
    pcoder_service::socket::detach();
    let mut order = Vec::new();
    let failed = |error: std::io::Error| Error::io(OPERATION, "what is asked of it", &error);
    BufReader::new(input).take(1 << 20).read_until(b'\0', &mut order).map_err(failed)?;
    let order: Order =
        serde_json::from_slice(&order).map_err(|error| Error::new(code::INVALID, OPERATION, error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io(OPERATION, "the async runtime", &error))?;
    let kept = runtime.block_on(async {
        // A file that becomes larger than it may be is an error of the call's output, and not this process's end.
        #[cfg(unix)]
        let _too_large = {
            use tokio::signal::unix::{SignalKind, signal};
            signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))
        };
        // In this order: who hears that it is ready gets a connection that is logged in.
        let keeper = Arc::new(relay::Keeper::new(order.machine).await?);
        let is_kept = pcoder_service::socket::connect(&order.socket).await.is_ok();
        let listener = match is_kept {
            true => None,
            false => Some(
                pcoder_service::socket::Listener::new(&order.socket)
                    .map_err(|error| Error::of_service(OPERATION, &error))?,
            ),
        };
        // Whoever waited for it may be gone.
        drop(output.write_all(READY.as_bytes()).and_then(|()| output.flush()));
        drop(output);
        match listener {
            Some(listener) => keeper.serve(listener).await,
            None => Ok(()),
        }
    });
    // Somebody's pipe may take nothing any more, and not for that does anybody wait.
    runtime.shutdown_background();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_another_key_proves_nothing() {
        let machine = |key: &str| Machine {
            port: 22,
            user: "u".to_owned(),
            host_key: "k".to_owned(),
            private_key: key.to_owned(),
        };
        let (one, same, other) = (Proof::of(&machine("a")), Proof::of(&machine("a")), Proof::of(&machine("b")));
        assert_eq!((one.host_key(), &one.password), (same.host_key(), &same.password));
        assert_ne!(one.host_key(), other.host_key());
        assert_ne!(one.password, other.password);
        assert!(!one.password.contains('a') || one.password.len() == 64);
    }
}
