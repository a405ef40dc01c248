//! Server-sent events, and the body that plays them with pauses and cuts.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// A piece of a response body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Bytes to send.
    Text(String),
    /// Time to let pass.
    Pause(Duration),
    /// The connection ends here, without the end of the body.
    Cut,
}

/// One event. Its data has its name as `type` too, as both services do it.
pub(crate) fn event(name: &str, mut data: Value) -> Frame {
    data["type"] = Value::from(name);
    Frame::Text(format!("event: {name}\ndata: {data}\n\n"))
}

/// A body that sends the frames, `delay` apart, until it is stopped.
pub(crate) fn body(frames: Vec<Frame>, delay: Duration, stop: CancellationToken) -> Body {
    let stream = async_stream::stream! {
        for (index, frame) in frames.into_iter().enumerate() {
            if index > 0 && !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            match frame {
                Frame::Text(text) => yield Ok(Bytes::from(text)),
                Frame::Pause(pause) => tokio::time::sleep(pause).await,
                Frame::Cut => {
                    // The server flushes when its body has nothing ready; what came before the cut is to arrive.
                    tokio::task::yield_now().await;
                    yield Err(io::Error::from(io::ErrorKind::ConnectionAborted));
                    return;
                }
            }
        }
    };
    // A stopped server must not wait for a script that sleeps; a body that just ended would look complete.
    let stopped = async_stream::stream! {
        stop.cancelled_owned().await;
        yield Err(io::Error::from(io::ErrorKind::ConnectionAborted));
    };
    let ended = stream.map(Some).chain(futures_util::stream::once(async { None }));
    let merged = futures_util::stream::select(ended, stopped.map(Some));
    Body::from_stream(merged.take_while(|item| std::future::ready(item.is_some())).filter_map(std::future::ready))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    async fn read(body: Body) -> (String, bool) {
        let mut stream = body.into_data_stream();
        let mut text = String::new();
        while let Some(item) = stream.next().await {
            match item {
                Ok(bytes) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
                Err(_) => return (text, false),
            }
        }
        (text, true)
    }

    #[test]
    fn an_event_is_named_twice() {
        assert_eq!(event("ping", json!({})), Frame::Text("event: ping\ndata: {\"type\":\"ping\"}\n\n".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn frames_are_played_in_order() {
        let frames = vec![Frame::Text("a".into()), Frame::Pause(Duration::from_secs(3600)), Frame::Text("b".into())];
        let start = tokio::time::Instant::now();
        let played = read(body(frames, Duration::from_secs(1), CancellationToken::new())).await;
        assert_eq!(played, ("ab".into(), true));
        assert_eq!(start.elapsed().as_secs(), 3602);
    }

    #[tokio::test]
    async fn a_cut_is_an_error() {
        let frames = vec![Frame::Text("a".into()), Frame::Cut, Frame::Text("b".into())];
        let played = read(body(frames, Duration::ZERO, CancellationToken::new())).await;
        assert_eq!(played, ("a".into(), false));
    }

    #[tokio::test]
    async fn a_stop_ends_a_pause() {
        let stop = CancellationToken::new();
        let frames = vec![Frame::Pause(Duration::from_secs(3600)), Frame::Text("b".into())];
        let body = body(frames, Duration::ZERO, stop.clone());
        stop.cancel();
        assert_eq!(read(body).await, (String::new(), false));
    }
}
