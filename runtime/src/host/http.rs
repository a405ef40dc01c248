//! `wasi:http`: requests. Capability `net`.
//!
//! Wasmtime's own sender is not built in (the feature `default-send-request` is off), so the only way out is the one
//! here: the request is checked, its host is looked up, the address is checked, and that very address is dialled.
//! Redirects are not followed: a plugin that follows one makes a request, and that is checked like any other.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use url::Url;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::bindings::io::error::Error as StreamFailure;
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody, WasiHttpHooks};

use super::dial::{CONNECT, Part as Reach, dial};
use crate::call::CallState;
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

/// Which part of a request failed. With the error's code it decides which of `wasi:http`'s errors the plugin gets.
#[derive(Clone, Copy)]
enum Part {
    Request,
    Reach(Reach),
    Exchange,
}

type Failed = (Part, Error);

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
        .map_err(|error| as_wasi(Part::Request, &error))?;
    let result = async {
        let of = |part: Part| move |error: Error| (part, error);
        for value in request.headers_mut().values_mut() {
            let Ok(text) = value.to_str() else { continue };
            let filled = secrets.fill(text, &Place::Request(url.clone()), false, &gate).map_err(of(Part::Request))?;
            if let Cow::Owned(filled) = filled {
                *value = HeaderValue::from_str(&filled)
                    .map_err(|_| Error::new(code::INVALID, "net.request", "a secret is not a header's value"))
                    .map_err(of(Part::Request))?;
                value.set_sensitive(true);
            }
        }
        let mut request = with_secrets(request, &secrets, &url, &gate).await.map_err(of(Part::Request))?;
        let connect = options.as_ref().and_then(|it| it.connect_timeout).unwrap_or(CONNECT);
        let reached = dial(&gate, Some(&method), &url, connect).await;
        let stream = reached.map_err(|it| (Part::Reach(it.part), it.error))?;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Error::new(code::NETWORK, "net.request", error.to_string()))
            .map_err(of(Part::Exchange))?;
        // The connection is driven beside the body; it ends with the call, whose runtime task this is.
        let driver = tokio::spawn(async move { drop(connection.await) });
        // What is sent is what was checked: the address in normal form.
        *request.uri_mut() = url[url::Position::BeforePath..url::Position::AfterQuery]
            .parse()
            .map_err(|_| Error::new(code::INVALID, "net.request", "not a path"))
            .map_err(of(Part::Request))?;
        let first_byte = options.as_ref().and_then(|it| it.first_byte_timeout).unwrap_or(FIRST_BYTE);
        let response = tokio::time::timeout(first_byte, sender.send_request(request))
            .await
            .map_err(|_| Error::new(code::TIMEOUT, "net.request", "no answer in time"))
            .and_then(|it| it.map_err(|error| not_sent(&error)))
            .map_err(of(Part::Exchange))?;
        Ok::<_, Failed>((response, sender, driver))
    }
    .await;
    let part = result.as_ref().err().map_or(Part::Exchange, |(part, _)| *part);
    match permit.finish(0, result.map_err(|(_, error)| error)) {
        Ok((response, sender, driver)) => {
            let body = super::answer::Answer::new(response, secrets, gate).map(|body| body.boxed_unsync());
            let rest = async move {
                let _open = sender;
                drop(driver.await);
                Ok(())
            };
            Ok((body, Box::new(rest) as Box<dyn Future<Output = _> + Send>))
        }
        Err(error) => Err(as_wasi(part, &error)),
    }
}

/// The request with a body whose placeholders are filled. It is held whole for that, within the call's budget; a call
/// that knows no secrets sends it as it comes.
async fn with_secrets(
    request: hyper::Request<Counted>,
    secrets: &Broker,
    url: &Url,
    gate: &Arc<Gate>,
) -> Result<hyper::Request<WasiBody>, Error> {
    let (mut head, body) = request.into_parts();
    if secrets.is_empty() || body.is_end_stream() {
        return Ok(hyper::Request::from_parts(head, body.boxed_unsync()));
    }
    let bytes = body
        .collect()
        .await
        .map_err(|error| match error {
            HttpError::HttpRequestBodySize(_) => too_large(),
            _ => Error::new(code::NETWORK, "net.request", "the plugin did not give the whole body"),
        })?
        .to_bytes();
    let filled = match secrets.fill_bytes(&bytes, &Place::Request(url.clone()), false, gate)? {
        Cow::Borrowed(_) => bytes.clone(),
        Cow::Owned(filled) => Bytes::from(filled),
    };
    if head.headers.contains_key(CONTENT_LENGTH) {
        head.headers.insert(CONTENT_LENGTH, filled.len().into());
    }
    let body = http_body_util::Full::new(filled).map_err(|never| match never {}).boxed_unsync();
    Ok(hyper::Request::from_parts(head, body))
}

fn too_large() -> Error {
    Error::new(code::LIMIT, "net.request", "its body is larger than what this call may still move")
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
        return too_large();
    }
    Error::new(code::NETWORK, "net.request", error.to_string())
}

fn as_wasi(part: Part, error: &Error) -> HttpError {
    match (error.code.as_ref(), part) {
        (code::DENIED, Part::Reach(Reach::Connection)) => HttpError::DestinationIpProhibited,
        (code::DENIED, _) => HttpError::HttpRequestDenied,
        (code::LIMIT, Part::Exchange) => HttpError::HttpRequestBodySize(None),
        (code::LIMIT, _) => HttpError::ConnectionLimitReached,
        (code::TIMEOUT, Part::Exchange) => HttpError::HttpResponseTimeout,
        (code::TIMEOUT, _) => HttpError::ConnectionTimeout,
        (code::NOT_FOUND, _) => HttpError::DestinationNotFound,
        (code::INVALID, _) => HttpError::HttpRequestUriInvalid,
        (_, Part::Reach(Reach::Tls)) => HttpError::TlsProtocolError,
        (_, Part::Reach(Reach::Certificate)) => HttpError::TlsCertificateError,
        (_, Part::Exchange) => HttpError::ConnectionTerminated,
        _ => HttpError::ConnectionRefused,
    }
}

/// Links `http-error-code`, with which a plugin asks what an error of a stream was, in the place of Wasmtime's.
///
/// Wasmtime 48's knows the errors of what guests write, and none of what they read: those are of another type. A plugin
/// could not tell an answer that is too large from a connection that broke off.
pub(crate) fn link_error_code(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance("wasi:http/types@0.2.12")?.func_wrap(
        "http-error-code",
        |store: StoreContextMut<'_, CallState>, (error,): (Resource<StreamFailure>,)| {
            let error = store.data().table.get(&error)?;
            let code = match error.downcast_ref::<HttpError>() {
                Some(HttpError::HttpResponseBodySize(size)) => Some(ErrorCode::HttpResponseBodySize(*size)),
                Some(_) => Some(ErrorCode::HttpResponseIncomplete),
                None => error.downcast_ref::<ErrorCode>().cloned(),
            };
            Ok((code,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}
