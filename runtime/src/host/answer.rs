//! An HTTP answer on its way to a plugin: counted, and without the values of secrets that it may send back.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::HeaderValue;
use wasmtime_wasi_http::Error as HttpError;

use crate::gate::Gate;
use crate::secrets::Broker;

/// A body that is let through while there is something left of the call's limit.
pub(crate) struct Answer {
    body: Incoming,
    secrets: Arc<Broker>,
    gate: Arc<Gate>,
    /// What could be the beginning of a secret's value.
    held: Vec<u8>,
    trailers: Option<Frame<Bytes>>,
    ended: bool,
}

impl Answer {
    /// Looks through the head now and through the body as it comes.
    pub(crate) fn new(
        answer: hyper::Response<Incoming>,
        secrets: Arc<Broker>,
        gate: Arc<Gate>,
    ) -> hyper::Response<Self> {
        let (mut head, body) = answer.into_parts();
        for value in head.headers.values_mut() {
            let mut bytes = value.as_bytes().to_vec();
            secrets.mask(&mut bytes);
            if bytes != value.as_bytes() {
                *value = HeaderValue::from_bytes(&bytes).unwrap_or(HeaderValue::from_static(""));
            }
        }
        let body = Self { body, secrets, gate, held: Vec::new(), trailers: None, ended: false };
        hyper::Response::from_parts(head, body)
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        while !this.ended {
            let ready = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(frame) => match frame?.into_data() {
                    Ok(data) => {
                        if this.gate.budget().charge("net.request", data.len() as u64).is_err() {
                            this.ended = true;
                            this.held.clear();
                            return Poll::Ready(Some(Err(HttpError::HttpResponseBodySize(None))));
                        }
                        this.held.extend_from_slice(&data);
                        this.secrets.mask(&mut this.held)
                    }
                    Err(trailers) => {
                        this.trailers = Some(trailers);
                        continue;
                    }
                },
                None => {
                    this.ended = true;
                    this.held.len()
                }
            };
            if ready > 0 {
                let rest = this.held.split_off(ready);
                let bytes = std::mem::replace(&mut this.held, rest);
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from(bytes)))));
            }
        }
        Poll::Ready(this.trailers.take().map(Ok))
    }
}
