//! Signals that reach pcoder while it works for someone.

use std::convert::Infallible;
#[cfg(unix)]
use std::sync::LazyLock;
use std::time::Duration;

use pcoder_core::Control;
use pcoder_core::runtime::process::Signal;
#[cfg(unix)]
use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit;
use crate::output::note;

/// How long a tool may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// After how long somebody who asked for the end is told that it takes time.
const NOTICE: Duration = Duration::from_secs(1);

/// What asks this process to end: Ctrl-C, the system, the end of the terminal. All are heard from the moment that this
/// is made: before it is, they end the process, whatever it has begun.
#[cfg(unix)]
struct Heard {
    interrupt: Option<UnixSignal>,
    terminate: Option<UnixSignal>,
    hangup: Option<UnixSignal>,
}

#[cfg(unix)]
impl Heard {
    fn new() -> Self {
        // Looked at once: from the first time on that it is waited for, it is not ignored any more.
        static HANGUP_IGNORED: LazyLock<bool> = LazyLock::new(hangup_is_ignored);
        let hangup = (!*HANGUP_IGNORED).then(|| signal(SignalKind::hangup()).ok()).flatten();
        Self {
            interrupt: signal(SignalKind::interrupt()).ok(),
            terminate: signal(SignalKind::terminate()).ok(),
            hangup,
        }
    }

    /// The next of them.
    async fn next(&mut self) -> Signal {
        tokio::select! {
            () = next(&mut self.interrupt) => Signal::Interrupt,
            () = next(&mut self.terminate) => Signal::Terminate,
            () = next(&mut self.hangup) => Signal::Hangup,
        }
    }
}

/// A signal that cannot be waited for does not come.
#[cfg(unix)]
async fn next(signal: &mut Option<UnixSignal>) {
    if let Some(it) = signal
        && it.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

#[cfg(not(unix))]
struct Heard(Option<tokio::signal::windows::CtrlC>);

#[cfg(not(unix))]
impl Heard {
    fn new() -> Self {
        Self(tokio::signal::windows::ctrl_c().ok())
    }

    async fn next(&mut self) -> Signal {
        if let Some(it) = &mut self.0
            && it.recv().await.is_some()
        {
            return Signal::Interrupt;
        }
        std::future::pending().await
    }
}

/// Passes signals on to a run until it ends, from this call on. In a terminal the tool gets Ctrl-C from the terminal
/// itself: pcoder only has to live through it.
pub(crate) fn pass_on(control: Control, in_terminal: bool) -> impl Future<Output = Infallible> {
    let mut heard = Heard::new();
    async move {
        let mut interrupted = 0_u32;
        loop {
            match heard.next().await {
                Signal::Interrupt if in_terminal => {}
                Signal::Interrupt => {
                    interrupted += 1;
                    // The first asks; someone who asks again means it. Where nobody hears signals, it ends.
                    if interrupted > 1 || !control.signal(Signal::Interrupt) || cfg!(not(unix)) {
                        control.cancel();
                    }
                }
                signal => end(&control, signal),
            }
        }
    }
}

fn end(control: &Control, signal: Signal) {
    if control.signal(signal) { end_after_grace(control) } else { control.cancel() }
}

fn end_after_grace(control: &Control) {
    let control = control.clone();
    tokio::spawn(async move {
        tokio::time::sleep(GRACE).await;
        control.cancel();
    });
}

/// A token that Ctrl-C cancels, and a request to end too, and the end of the terminal.
pub(crate) fn cancelled_by_user() -> CancellationToken {
    let token = CancellationToken::new();
    let (theirs, mut heard) = (token.clone(), Heard::new());
    tokio::spawn(async move {
        heard.next().await;
        theirs.cancel();
    });
    token
}

/// The same for all that this process still does: the second time it ends at once.
pub(crate) fn process_cancelled_by_user() -> CancellationToken {
    let token = CancellationToken::new();
    let theirs = token.clone();
    tokio::spawn(once_and_again(move || theirs.cancel()));
    token
}

/// Waits for somebody who asks again. Where a session ends, its terminal goes and all in it are asked to end: both are
/// one wish.
async fn again(heard: &mut Heard, first: Signal) {
    loop {
        match heard.next().await {
            Signal::Interrupt => return,
            Signal::Terminate if first != Signal::Hangup => return,
            Signal::Terminate | Signal::Hangup => {}
        }
    }
}

/// Does something when the user, or the system, asks for the end, from this call on. What that takes can be long: who
/// waits is told, and who then asks again does not wait.
#[expect(clippy::exit, reason = "who asks twice waits for nothing, destructors included")]
pub(crate) fn once_and_again(end: impl FnOnce()) -> impl Future<Output = Infallible> {
    let mut heard = Heard::new();
    async move {
        let first = heard.next().await;
        end();
        let mut again = std::pin::pin!(again(&mut heard, first));
        tokio::select! {
            () = &mut again => {}
            () = tokio::time::sleep(NOTICE) => {
                note("Stopping. Ctrl-C stops at once, and leaves what is under way as it is.");
                again.await;
            }
        }
        pcoder_core::runtime::restore_terminal();
        std::process::exit(i32::from(exit::CANCELLED))
    }
}

/// Whether this process was started so that the signal does not end it. Only Linux says (`man 5 proc_pid_status`).
#[cfg(unix)]
fn hangup_is_ignored() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return false };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The signal with the number 1 is the lowest bit.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    /// Nothing was polled in between: whoever is about to ask for a machine must not be ended after having asked.
    #[tokio::test]
    async fn a_signal_is_heard_that_comes_before_anybody_waits_for_it() {
        let ours = rustix::process::getpid();
        let token = cancelled_by_user();
        rustix::process::kill_process(ours, rustix::process::Signal::TERM).expect("a signal");
        token.cancelled().await;

        let (asked, heard) = tokio::sync::oneshot::channel::<()>();
        let ending = once_and_again(move || drop(asked));
        rustix::process::kill_process(ours, rustix::process::Signal::INT).expect("a signal");
        tokio::select! {
            never = ending => match never {},
            _ = heard => {}
        }
    }
}
