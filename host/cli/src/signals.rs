//! Signals that reach pcoder while it works for someone.

use pcoder_core::Control;
use pcoder_core::runtime::process::Signal;
use tokio_util::sync::CancellationToken;

/// How long a tool may take to end after it was asked to.
#[cfg(unix)]
const GRACE: std::time::Duration = std::time::Duration::from_secs(5);

/// Passes signals on to a run until it ends. In a terminal the tool gets Ctrl-C from the terminal itself: pcoder only
/// has to live through it.
#[cfg(unix)]
pub(crate) async fn pass_on(control: Control, in_terminal: bool) {
    use tokio::signal::unix::{SignalKind, signal};
    let streams = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()));
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = streams else {
        return std::future::pending().await;
    };
    let mut interrupted = 0_u32;
    loop {
        tokio::select! {
            _ = interrupt.recv() => {
                if !in_terminal {
                    interrupted += 1;
                    // The first asks; someone who asks again means it.
                    if interrupted == 1 { control.signal(Signal::Interrupt) } else { control.cancel() }
                }
            }
            _ = terminate.recv() => { control.signal(Signal::Terminate); end_after_grace(&control); }
            _ = hangup.recv() => { control.signal(Signal::Hangup); end_after_grace(&control); }
        }
    }
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

/// A token that Ctrl-C cancels, and a request to end too.
pub(crate) fn cancelled_by_user() -> CancellationToken {
    let token = CancellationToken::new();
    let theirs = token.clone();
    tokio::spawn(async move {
        wait_for_end().await;
        theirs.cancel();
    });
    token
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
    }
}

#[cfg(not(unix))]
async fn wait_for_end() {
    drop(tokio::signal::ctrl_c().await);
}
