//! Signals that reach pcoder while it works for someone.

use std::convert::Infallible;
#[cfg(unix)]
use std::sync::LazyLock;
use std::time::Duration;

use pcoder_core::Control;
use pcoder_core::runtime::process::Signal;
use tokio_util::sync::CancellationToken;

use crate::exit;
use crate::output::note;

/// How long a tool may take to end after it was asked to.
#[cfg(unix)]
const GRACE: Duration = Duration::from_secs(5);

/// After how long somebody who asked for the end is told that it takes time.
const NOTICE: Duration = Duration::from_secs(1);

/// Passes signals on to a run until it ends. In a terminal the tool gets Ctrl-C from the terminal itself: pcoder only
/// has to live through it.
#[cfg(unix)]
pub(crate) async fn pass_on(control: Control, in_terminal: bool) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    let mut hangup = std::pin::pin!(hangup());
    let (mut interrupted, mut hung_up) = (0_u32, false);
    loop {
        tokio::select! {
            _ = interrupt.recv() => {
                if !in_terminal {
                    interrupted += 1;
                    // The first asks; someone who asks again means it.
                    if interrupted > 1 || !control.signal(Signal::Interrupt) {
                        control.cancel();
                    }
                }
            }
            _ = terminate.recv() => end(&control, Signal::Terminate),
            () = &mut hangup, if !hung_up => {
                hung_up = true;
                end(&control, Signal::Hangup);
            }
        }
    }
}

#[cfg(unix)]
fn end(control: &Control, signal: Signal) {
    if control.signal(signal) { end_after_grace(control) } else { control.cancel() }
}

#[cfg(unix)]
fn end_after_grace(control: &Control) {
    let control = control.clone();
    tokio::spawn(async move {
        tokio::time::sleep(GRACE).await;
        control.cancel();
    });
}

#[cfg(not(unix))]
pub(crate) async fn pass_on(control: Control, in_terminal: bool) {
    while tokio::signal::ctrl_c().await.is_ok() {
        if !in_terminal {
            control.signal(Signal::Interrupt);
            control.cancel();
        }
    }
}

/// A token that Ctrl-C cancels, and a request to end too, and the end of the terminal.
pub(crate) fn cancelled_by_user() -> CancellationToken {
    let token = CancellationToken::new();
    let theirs = token.clone();
    tokio::spawn(async move {
        wait_for_end().await;
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

/// Does something when the user, or the system, asks for the end. What that takes can be long: who waits is told, and
/// who then asks again does not wait.
#[expect(clippy::exit, reason = "who asks twice waits for nothing, destructors included")]
pub(crate) async fn once_and_again(end: impl FnOnce()) -> Infallible {
    wait_for_end().await;
    end();
    tokio::select! {
        () = wait_for_end() => {}
        () = tokio::time::sleep(NOTICE) => {
            note("Stopping. Ctrl-C stops at once, and leaves what is under way as it is.");
            wait_for_end().await;
        }
    }
    pcoder_core::runtime::restore_terminal();
    std::process::exit(i32::from(exit::CANCELLED))
}

#[cfg(unix)]
async fn wait_for_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return drop(tokio::signal::ctrl_c().await);
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        () = hangup() => {}
    }
}

/// The end of the terminal. Under `nohup` it means nothing.
#[cfg(unix)]
async fn hangup() {
    use tokio::signal::unix::{SignalKind, signal};
    // Looked at once: from the first time on that it is waited for, it is not ignored any more.
    static IGNORED: LazyLock<bool> = LazyLock::new(hangup_is_ignored);
    if *IGNORED {
        return std::future::pending().await;
    }
    match signal(SignalKind::hangup()) {
        Ok(mut stream) => drop(stream.recv().await),
        Err(_) => std::future::pending().await,
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

#[cfg(not(unix))]
async fn wait_for_end() {
    drop(tokio::signal::ctrl_c().await);
}
