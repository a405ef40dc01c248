//! Channels: what is said on one side is said on the other.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use russh::server::{self, Msg};
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client};
use tokio::sync::Notify;

use super::outputs::Outputs;
use super::upstream::Upstream;
use super::{FAILED, OUTPUTS};

/// What a call has opened on its connection.
#[derive(Default)]
pub(super) struct Channels {
    open: AtomicUsize,
    /// There has been one.
    used: AtomicBool,
    /// One was left before the machine had closed it.
    left: AtomicBool,
    ended: Notify,
}

impl Channels {
    /// Whether it looks as if the call were about to end.
    pub(super) fn is_done(&self) -> bool {
        self.used.load(Ordering::SeqCst) && self.open.load(Ordering::SeqCst) == 0
    }

    /// Waits until nobody carries one any more. Whether the machine had closed each.
    pub(super) async fn all_ended(&self) -> bool {
        while self.open.load(Ordering::SeqCst) > 0 {
            self.ended.notified().await;
        }
        !self.left.load(Ordering::SeqCst)
    }
}

/// A channel that somebody carries, for as long as this is there.
pub(super) struct Carried {
    channels: Arc<Channels>,
    is_closed: bool,
}

impl Carried {
    pub(super) fn new(channels: &Arc<Channels>) -> Self {
        channels.open.fetch_add(1, Ordering::SeqCst);
        channels.used.store(true, Ordering::SeqCst);
        Self { channels: Arc::clone(channels), is_closed: false }
    }

    /// The machine has closed it, or never opened it.
    pub(super) fn closed(&mut self) {
        self.is_closed = true;
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        if !self.is_closed {
            self.channels.left.store(true, Ordering::SeqCst);
        }
        self.channels.open.fetch_sub(1, Ordering::SeqCst);
        self.channels.ended.notify_one();
    }
}

/// Carries a session. What is asked for first says which channel to the machine it is.
pub(super) async fn carry_session(
    theirs: Channel<Msg>,
    upstream: &Upstream,
    handle: &server::Handle,
    carried: &mut Carried,
    ended: &AtomicU64,
    given: &Mutex<Outputs>,
) {
    let id = theirs.id();
    let (mut from_call, to_call) = theirs.split();
    let mut outputs = Outputs::default();
    let first = loop {
        match from_call.wait().await {
            Some(ChannelMsg::SetEnv { variable_name, .. }) if variable_name == OUTPUTS => {
                outputs = std::mem::take(&mut *given.lock().unwrap_or_else(PoisonError::into_inner));
            }
            Some(first) if !matches!(first, ChannelMsg::Close) => break first,
            // Nothing was asked for.
            _ => {
                carried.closed();
                return;
            }
        }
    };
    let opened = match upstream.run(&first, ended.load(Ordering::SeqCst)).await {
        Some(channel) => {
            // Whoever hears that it runs may go on with its input.
            let _ = handle.channel_success(id).await;
            Ok((channel, None))
        }
        None => upstream.connection.handle.channel_open_session().await.map(|channel| (channel, Some(first))),
    };
    match opened {
        Ok((machines, first)) => {
            let machines = machines.split();
            let there = There { machines, outputs };
            carry_on((from_call, to_call, id), first, there, handle, carried, Some(ended)).await;
        }
        // A connection on which the machine opens no more is not used again.
        Err(_) => {
            let _ = handle.channel_failure(id).await;
            let _ = handle.close(id).await;
        }
    }
}

/// Carries a channel in both directions until one side has closed it.
pub(super) async fn carry(
    theirs: Channel<Msg>,
    machines: Channel<client::Msg>,
    handle: &server::Handle,
    carried: &mut Carried,
) {
    let id = theirs.id();
    let (from_call, to_call) = theirs.split();
    let there = There { machines: machines.split(), outputs: Outputs::default() };
    carry_on((from_call, to_call, id), None, there, handle, carried, None).await;
}

/// The machine's side of a channel, and where what it says goes beside the call.
struct There {
    machines: (ChannelReadHalf, ChannelWriteHalf<client::Msg>),
    outputs: Outputs,
}

/// The same, with what the call has said before.
async fn carry_on(
    (mut from_call, to_call, id): (ChannelReadHalf, ChannelWriteHalf<Msg>, ChannelId),
    first: Option<ChannelMsg>,
    there: There,
    handle: &server::Handle,
    carried: &mut Carried,
    ended: Option<&AtomicU64>,
) {
    let There { machines: (mut from_machine, to_machine), outputs } = there;
    let note = || ended.map(|it| it.fetch_add(1, Ordering::SeqCst));
    tokio::select! {
        biased;
        is_closed = there_to_here(&mut from_machine, outputs, &to_call, handle, id) => {
            // Noted before the call hears of it: it may be gone in the next moment.
            if is_closed {
                carried.closed();
            }
            note();
            let _ = handle.close(id).await;
        }
        () = here_to_there(first, &mut from_call, &to_machine) => {
            note();
            // The call wants no more of it. What the machine says to that, nobody hears: its connection is not used
            // again.
            let _ = to_machine.close().await;
        }
    }
}

/// What the machine says. Whether it has closed the channel in the end. The outputs are closed then, before the call
/// hears of it: nobody else has them open who would be waited for.
async fn there_to_here(
    from: &mut ChannelReadHalf,
    mut outputs: Outputs,
    to: &ChannelWriteHalf<Msg>,
    handle: &server::Handle,
    id: ChannelId,
) -> bool {
    loop {
        let written = tokio::select! {
            biased;
            message = from.wait() => match message {
                Some(message) => outputs.write(message).await,
                None => break,
            },
            error = outputs.fail() => Err(error),
        };
        let message = match written {
            Ok(Some(message)) => message,
            Ok(None) => continue,
            Err(error) => {
                fail(to, &error).await;
                return false;
            }
        };
        let is_told = match message {
            ChannelMsg::Data { data } => to.data_bytes(data).await.is_ok(),
            // This is the keeper's to say.
            ChannelMsg::ExtendedData { ext: FAILED, .. } => true,
            ChannelMsg::ExtendedData { data, ext } => to.extended_data_bytes(ext, data).await.is_ok(),
            ChannelMsg::Eof => to.eof().await.is_ok(),
            ChannelMsg::Success => handle.channel_success(id).await.is_ok(),
            ChannelMsg::Failure => handle.channel_failure(id).await.is_ok(),
            ChannelMsg::ExitStatus { exit_status } => to.exit_status(exit_status).await.is_ok(),
            ChannelMsg::ExitSignal { signal_name, core_dumped, error_message, lang_tag } => {
                handle.exit_signal_request(id, signal_name, core_dumped, error_message, lang_tag).await.is_ok()
            }
            ChannelMsg::Close => {
                outputs.close().await;
                return true;
            }
            _ => true,
        };
        if !is_told {
            return false;
        }
    }
    // The machine is gone. What it has said is there before the call hears of that.
    if let Err(error) = outputs.flush().await {
        fail(to, &error).await;
    }
    outputs.close().await;
    false
}

/// Tells a call that what it has handed over takes no more.
async fn fail(to: &ChannelWriteHalf<Msg>, error: &std::io::Error) {
    let number = error.raw_os_error().unwrap_or_default().to_string();
    let _ = to.extended_data_bytes(FAILED, number.into_bytes()).await;
}

/// What the call says, until it closes the channel or is gone.
async fn here_to_there(mut first: Option<ChannelMsg>, from: &mut ChannelReadHalf, to: &ChannelWriteHalf<client::Msg>) {
    loop {
        let message = match first.take() {
            Some(message) => message,
            None => match from.wait().await {
                Some(message) => message,
                None => return,
            },
        };
        let told = match message {
            ChannelMsg::Data { data } => to.data_bytes(data).await,
            ChannelMsg::Eof => to.eof().await,
            ChannelMsg::RequestPty {
                want_reply,
                term,
                col_width,
                row_height,
                pix_width,
                pix_height,
                terminal_modes,
            } => to.request_pty(want_reply, &term, col_width, row_height, pix_width, pix_height, &terminal_modes).await,
            ChannelMsg::Exec { want_reply, command } => to.exec(want_reply, command).await,
            ChannelMsg::RequestShell { want_reply } => to.request_shell(want_reply).await,
            ChannelMsg::RequestSubsystem { want_reply, name } => to.request_subsystem(want_reply, name).await,
            ChannelMsg::SetEnv { want_reply, variable_name, variable_value } => {
                to.set_env(want_reply, variable_name, variable_value).await
            }
            ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height } => {
                to.window_change(col_width, row_height, pix_width, pix_height).await
            }
            ChannelMsg::Signal { signal } => to.signal(signal).await,
            ChannelMsg::Close => return,
            _ => Ok(()),
        };
        if told.is_err() {
            // The machine is gone. What it said before that is still to be heard.
            return std::future::pending().await;
        }
    }
}
