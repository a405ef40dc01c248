//! `wasi:http`: requests. Capability `net`.
//!
//! Wasmtime's own sender is not built in (the feature `default-send-request` is off), so the only way out is the one
//! here: the request is checked, its host is looked up, the address is checked, and that very address is dialled.
//! Redirects are not followed: a plugin that follows one makes a request, and that is checked like any other.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::HeaderValue;
use url::Url;
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody, WasiHttpHooks};

use super::dial::{CONNECT, dial};
use crate::capability::net::Request;
use crate::capability::secrets::Place;
use crate::error::{Error, code};
use crate::gate::Gate;
use crate::secrets::Broker;

/// How long the first byte of an answer may take; models think.
const FIRST_BYTE: Duration = Duration::from_secs(600);

/// Makes requests for one call.
pub(crate) struct Requests {
    gate: Arc<Gate>,
    secrets: Arc<Broker>,
}

impl Requests {
    pub(crate) fn new(gate: Arc<Gate>, secrets: Arc<Broker>) -> Self {
        Self { gate, secrets }
    }
}

type Answer = Result<(hyper::Response<WasiBody>, Box<dyn Future<Output = Result<(), HttpError>> + Send>), HttpError>;

impl WasiHttpHooks for Requests {
    fn send_request(
        &mut self,
        request: hyper::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ) -> Box<dyn Future<Output = Answer> + Send> {
        let (gate, secrets) = (Arc::clone(&self.gate), Arc::clone(&self.secrets));
        Box::new(async move { send(gate, secrets, request, options).await })
    }
}

async fn send(
    gate: Arc<Gate>,
    secrets: Arc<Broker>,
    request: hyper::Request<WasiBody>,
    options: Option<RequestOptions>,
) -> Answer {
    let mut request = request.map(|body| Counted { body, gate: Arc::clone(&gate) });
    let url = Url::parse(&request.uri().to_string()).map_err(|_| HttpError::HttpRequestUriInvalid)?;
    let method = request.method().as_str().to_ascii_uppercase();
    let permit = gate
        .authorize(Request { method: method.clone(), url: url.clone() })
        .map_err(|_| HttpError::HttpRequestDenied)?;
    let result = async {
        for value in request.headers_mut().values_mut() {
            let Ok(text) = value.to_str() else { continue };
            let filled = secrets.fill(text, &Place::Request(url.clone()), false, &gate)?;
            if let std::borrow::Cow::Owned(filled) = filled {
                *value = HeaderValue::from_str(&filled)
                    .map_err(|_| Error::new(code::INVALID, "net.request", "a secret is not a header's value"))?;
                value.set_sensitive(true);
            }
        }
        let connect = options.as_ref().and_then(|it| it.connect_timeout).unwrap_or(CONNECT);
        let stream = dial(&gate, Some(&method), &url, connect).await?;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Error::new(code::NETWORK, "net.request", error.to_string()))?;
        // The connection is driven beside the body; it ends with the call, whose runtime task this is.
        let driver = tokio::spawn(async move { drop(connection.await) });
        // What is sent is what was checked: the address in normal form.
        *request.uri_mut() = url[url::Position::BeforePath..url::Position::AfterQuery]
            .parse()
            .map_err(|_| Error::new(code::INVALID, "net.request", "not a path"))?;
        let first_byte = options.as_ref().and_then(|it| it.first_byte_timeout).unwrap_or(FIRST_BYTE);
        let response = tokio::time::timeout(first_byte, sender.send_request(request))
            .await
            .map_err(|_| Error::new(code::TIMEOUT, "net.request", "no answer in time"))?
            .map_err(|error| not_sent(&error))?;
        Ok((response, sender, driver))
    }
    .await;
    match permit.finish(0, result) {
        Ok((response, sender, driver)) => {
            let body = super::answer::Answer::new(response, secrets, gate).map(|body| body.boxed_unsync());
            let rest = async move {
                let _open = sender;
                drop(driver.await);
                Ok(())
            };
            Ok((body, Box::new(rest) as Box<dyn Future<Output = _> + Send>))
        }
        Err(error) => Err(match error.code.as_ref() {
            code::DENIED => HttpError::DestinationIpProhibited,
            code::TIMEOUT => HttpError::ConnectionTimeout,
            code::NOT_FOUND => HttpError::DestinationNotFound,
            code::INVALID => HttpError::HttpRequestUriInvalid,
            code::LIMIT => HttpError::HttpRequestBodySize(None),
            _ => HttpError::ConnectionRefused,
        }),
    }
}

/// A request's body, counted as it is sent.
struct Counted {
    body: WasiBody,
    gate: Arc<Gate>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let bytes = frame.as_ref().and_then(|it| it.as_ref().ok()?.data_ref()).map_or(0, |data| data.len() as u64);
        if self.gate.budget().charge("net.request", bytes).is_err() {
            return Poll::Ready(Some(Err(HttpError::HttpRequestBodySize(None))));
        }
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Why a request had no answer: its body went over the call's budget, or the network failed.
fn not_sent(error: &hyper::Error) -> Error {
    let own = std::error::Error::source(error).and_then(|it| it.downcast_ref::<HttpError>());
    if let Some(HttpError::HttpRequestBodySize(_)) = own {
        return Error::new(code::LIMIT, "net.request", "its body is larger than what this call may still move");
    }
    Error::new(code::NETWORK, "net.request", error.to_string())
}
