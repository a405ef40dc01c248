//! A connection to the agent.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;

use super::wire::Request;
use super::{Caller, Done, Out, call};
use crate::record;

type Stream = WebSocketStream<TokioIo<Upgraded>>;

/// How long a reply waits that is to come after the next one.
const LATE: Duration = Duration::from_millis(500);
/// How long a client has to answer the end of the connection.
const CLOSING: Duration = Duration::from_secs(1);
/// Nothing larger is read at all.
const MAX_MESSAGE: usize = 256 << 20;

/// Serves a connection until it ends.
pub(crate) async fn serve(upgraded: Upgraded, mut caller: Caller) {
    let number = caller.cloud.connection();
    caller.connection = Some(number);
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let (sink, mut source) = stream.split();
    let (out, outs) = mpsc::unbounded_channel();
    caller.sandbox.agent.connect(number, out.clone());
    // It may have stopped before it knew of this connection.
    if !caller.sandbox.running() {
        let _ = out.send(Out::Close(1001, "Not running".to_owned()));
    }
    let done = CancellationToken::new();
    let writing = tokio::spawn(write(sink, outs, done.clone()));
    let caller = Arc::new(caller);
    loop {
        let message = tokio::select! {
            message = source.next() => message,
            () = done.cancelled() => break,
            () = caller.cloud.stop.cancelled() => break,
        };
        match message {
            Some(Ok(Message::Binary(bytes))) => received(&caller, number, &bytes, &out).await,
            Some(Ok(Message::Text(text))) => {
                if text.is_empty() {
                    note(&caller, number, "", 0);
                }
                let _ = out.send(Out::Heartbeat);
            }
            // The end is answered by reading on.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_) | Message::Close(_))) => {}
            Some(Err(_)) | None => break,
        }
    }
    caller.sandbox.agent.disconnect(number);
    drop(out);
    // What is to be said last is said; then the writer ends, because nobody can send to it.
    let abort = writing.abort_handle();
    match tokio::time::timeout(CLOSING, writing).await {
        // Read to the end: what is left unread would take the close frame along.
        Ok(Ok(Ended::Closed)) => {
            let rest = async { while let Some(Ok(_)) = source.next().await {} };
            let _ = tokio::time::timeout(CLOSING, rest).await;
        }
        Ok(_) => {}
        Err(_) => abort.abort(),
    }
}

/// How the writing ended.
enum Ended {
    /// With a close frame.
    Closed,
    Cut,
}

fn note(caller: &Caller, number: u64, method: &str, size: usize) {
    let sandbox = caller.sandbox.id.clone();
    caller.cloud.records.message(record::Message { sandbox, connection: number, method: method.to_owned(), size });
}

async fn received(caller: &Arc<Caller>, number: u64, bytes: &[u8], out: &mpsc::UnboundedSender<Out>) {
    if bytes.len() > caller.cloud.options.max_frame {
        let _ = out.send(Out::Close(1009, "Message too big".to_owned()));
        return;
    }
    let request = match Request::decode(bytes) {
        Ok(request) => request,
        Err(reason) => {
            let _ = out.send(Out::Close(1003, reason));
            return;
        }
    };
    note(caller, number, &request.method, bytes.len());
    let (slow, caller, out) = (waits(caller, &request.method), caller.clone(), out.clone());
    let work = async move {
        let what = match call(&caller, &request).await {
            Done::Reply(bytes) => Out::Reply(bytes),
            Done::LateReply(bytes) => Out::LateReply(bytes),
            Done::Silence => return,
            Done::Cut => Out::Cut,
            Done::Close(code) => Out::Close(code, "Closed on demand".to_owned()),
        };
        let _ = out.send(what);
    };
    // In the order of requests, but where one takes its time.
    if slow {
        tokio::spawn(work);
    } else {
        work.await;
    }
}

/// Whether a method may take long, so that others go on meanwhile.
fn waits(caller: &Caller, method: &str) -> bool {
    let shells = matches!(method, "shell/create" | "shell/restart" | "shell/terminate" | "task/run" | "task/stop");
    shells || caller.cloud.faults.pending().iter().any(|fault| fault.matches(method))
}

async fn write(
    mut sink: SplitSink<Stream, Message>,
    mut outs: mpsc::UnboundedReceiver<Out>,
    done: CancellationToken,
) -> Ended {
    let _ended = done.drop_guard();
    let mut held: Option<(Instant, Vec<u8>)> = None;
    loop {
        let until = held.as_ref().map_or_else(Instant::now, |(until, _)| *until);
        let out = tokio::select! {
            out = outs.recv() => out,
            () = tokio::time::sleep_until(until), if held.is_some() => Some(Out::Reply(Vec::new())),
        };
        let sent = match out {
            None | Some(Out::Cut) => return Ended::Cut,
            Some(Out::Reply(bytes)) => {
                let mut sent = Ok(());
                // Without bytes, the one that was held has waited long enough.
                if !bytes.is_empty() {
                    sent = sink.send(Message::binary(bytes)).await;
                }
                match held.take() {
                    Some((_, bytes)) if sent.is_ok() => sink.send(Message::binary(bytes)).await,
                    _ => sent,
                }
            }
            Some(Out::LateReply(bytes)) => match held.replace((Instant::now() + LATE, bytes)) {
                Some((_, bytes)) => sink.send(Message::binary(bytes)).await,
                None => Ok(()),
            },
            Some(Out::Notification(bytes)) => sink.send(Message::binary(bytes)).await,
            Some(Out::Heartbeat) => sink.send(Message::text("")).await,
            Some(Out::Close(code, reason)) => {
                let frame = CloseFrame { code: code.into(), reason: Utf8Bytes::from(reason) };
                let _ = sink.send(Message::Close(Some(frame))).await;
                return Ended::Closed;
            }
        };
        if sent.is_err() {
            return Ended::Cut;
        }
    }
}
