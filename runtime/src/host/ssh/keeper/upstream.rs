//! A connection to the machine, and the shell that waits on it for the next command.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use russh::{Channel, ChannelMsg, client};
use tokio_util::sync::DropGuard;

use crate::host::ssh::connect::Connection;

/// One that was used so lately is there; another one is asked, and has so long to answer.
const FRESH: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(2);

/// A connection to the machine, logged in.
pub(super) struct Upstream {
    pub(super) connection: Connection,
    /// What the next call's command is started by.
    shell: Mutex<Option<Shell>>,
    /// A shell there says something by itself: then none waits.
    is_noisy: AtomicBool,
    /// When somebody used it last.
    pub(super) used: Instant,
    _cut: DropGuard,
}

impl Upstream {
    pub(super) fn new(connection: Connection, cut: DropGuard) -> Self {
        let (shell, is_noisy) = (Mutex::default(), AtomicBool::new(false));
        Self { connection, shell, is_noisy, used: Instant::now(), _cut: cut }
    }

    /// Whether the machine is there.
    pub(super) async fn answers(&self) -> bool {
        let is_fresh = self.used.elapsed() < FRESH;
        let answer = async { tokio::time::timeout(ANSWER, self.connection.handle.send_ping()).await };
        !self.is_gone() && (is_fresh || answer.await.is_ok_and(|it| it.is_ok()))
    }

    pub(super) fn is_gone(&self) -> bool {
        self.connection.ended.is_cancelled()
    }

    fn shell(&self) -> std::sync::MutexGuard<'_, Option<Shell>> {
        self.shell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a shell for the next call. It is not waited for. Whether the machine could be asked.
    pub(super) async fn prepare(&self, ended: u64) -> bool {
        let old = self.shell().take();
        if let Some(old) = old {
            old.end().await;
        }
        if self.is_noisy.load(Ordering::SeqCst) {
            return true;
        }
        let started = async {
            let channel = self.connection.handle.channel_open_session().await?;
            channel.exec(false, WAITING).await?;
            Ok::<_, russh::Error>(Shell { channel, since: Instant::now(), ended })
        };
        match tokio::time::timeout(ANSWER, started).await {
            Ok(Ok(shell)) => {
                *self.shell() = Some(shell);
                true
            }
            _ => false,
        }
    }

    /// For how long the shell that waits may do so.
    pub(super) fn shell_waits(&self) -> Option<Duration> {
        self.shell().as_ref().map(|shell| WAITS.saturating_sub(shell.since.elapsed()))
    }

    /// The shell that nobody used in time, to be ended.
    pub(super) fn take_old_shell(&self) -> Option<Shell> {
        self.shell().take_if(|it| it.is_old())
    }

    /// Has the shell that waits run what a session asks for first, where it can: that is one line. A session that has
    /// no use for it ends it, as it may change what a shell is started with.
    pub(super) async fn run(&self, asked: &ChannelMsg, ended: u64) -> Option<Channel<client::Msg>> {
        let shell = self.shell().take();
        let mut shell = shell?;
        let command = match asked {
            ChannelMsg::Exec { command, .. } if !command.iter().any(|it| matches!(it, b'\n' | b'\r' | 0)) => command,
            _ => {
                shell.end().await;
                return None;
            }
        };
        // It says nothing before it has read a line, unless it has ended, or what a shell there begins with does. How
        // much it may be told is the server's word.
        let is_quiet = loop {
            tokio::select! {
                biased;
                said = shell.channel.wait() => match said {
                    Some(ChannelMsg::WindowAdjusted { .. }) => {}
                    _ => break false,
                },
                () = std::future::ready(()) => break true,
            }
        };
        if !is_quiet {
            self.is_noisy.store(true, Ordering::SeqCst);
        }
        let line = [command.as_slice(), b"\n"].concat();
        if is_quiet && !shell.is_old() && shell.ended == ended && shell.channel.data_bytes(line).await.is_ok() {
            return Some(shell.channel);
        }
        shell.end().await;
        None
    }
}

/// A shell on the machine that waits for the line that it is to run: where software emulates the processor, to start
/// one takes longer than most commands.
///
/// It was started after the last command of this keeper had ended, and is used within [`WAITS`]: what it has of the
/// user's environment, groups and start files is what a shell gets that is started when the command is asked for,
/// unless somebody changes those within this time and by another way. The command is the only thing that it reads, byte
/// by byte; what follows is the command's input.
pub(super) struct Shell {
    channel: Channel<client::Msg>,
    since: Instant,
    /// How many sessions had ended when it was started.
    ended: u64,
}

impl Shell {
    pub(super) async fn end(self) {
        let _ = self.channel.close().await;
    }

    fn is_old(&self) -> bool {
        self.since.elapsed() >= WAITS
    }
}

/// What such a shell runs. A user may have another one than POSIX knows, as fish. The line's name is nobody else's.
const WAITING: &str = "exec sh -c 'IFS= read -r pcoder_line && eval \"$pcoder_line\"'";
const WAITS: Duration = Duration::from_secs(10);
