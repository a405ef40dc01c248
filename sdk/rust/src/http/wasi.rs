//! One request through `wasi:http`.

use super::{Arriving, Body as Arrived, Request, Response};
use crate::bindings::host::wasi::http::outgoing_handler;
use crate::bindings::host::wasi::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    Scheme, http_error_code,
};
use crate::bindings::host::wasi::io::poll::poll;
use crate::bindings::host::wasi::io::streams::{InputStream, StreamError};
use crate::error::{Error, Result, code};

const OPERATION: &str = "http.send";

/// How much of an answer is read at once.
const CHUNK: u64 = 64 * 1024;

pub(crate) fn send(request: &Request) -> Result<Response> {
    exchange(request).map_err(|error| error.subject(address_of(&request.url)))
}

/// The address without its query, which may hold a key.
fn address_of(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// Sends a request and returns once its answer begins.
pub(crate) fn open(request: &Request) -> Result<Arriving> {
    let opened = begin(request).and_then(|(response, unsent)| {
        let (status, headers) = (response.status(), headers_of(&response));
        let (stream, body) = body_of(&response)?;
        let body = Arrived::of_host(Body { stream, _body: body, _response: response, _unsent: unsent });
        Ok(Arriving { status, headers, body })
    });
    opened.map_err(|error| error.subject(address_of(&request.url)))
}

/// A body that is read while it arrives. What is not dropped before it is over comes behind what is.
pub(crate) struct Body {
    pub(crate) stream: InputStream,
    _body: IncomingBody,
    _response: IncomingResponse,
    _unsent: Option<OutgoingBody>,
}

fn begin(request: &Request) -> Result<(IncomingResponse, Option<OutgoingBody>)> {
    let (outgoing, body) = prepare(request)?;
    let answer = outgoing_handler::handle(outgoing, None).map_err(|error| failure(&error))?;
    let unsent = match body {
        Some(body) => feed(body, &request.body, &answer)?,
        None => None,
    };
    Ok((wait(&answer)?, unsent))
}

fn exchange(request: &Request) -> Result<Response> {
    let (response, unsent) = begin(request)?;
    let response = receive(&response);
    // Before, it would have ended the exchange.
    drop(unsent);
    response
}

/// The request, and its body where there is one. One that is empty is not there: the host would send it in chunks.
fn prepare(request: &Request) -> Result<(OutgoingRequest, Option<OutgoingBody>)> {
    let wrong = |what: &str| Error::invalid(OPERATION, format!("{what} cannot be sent"));
    let (scheme, authority, path) = split(&request.url).ok_or_else(|| wrong("this address"))?;
    let mut headers: Vec<(String, Vec<u8>)> =
        request.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
    if !request.body.is_empty() || matches!(request.method.as_str(), "POST" | "PUT" | "PATCH") {
        headers.push(("content-length".to_owned(), request.body.len().to_string().into_bytes()));
    }
    let fields = Fields::from_list(&headers).map_err(|_| wrong("one of the headers"))?;
    let outgoing = OutgoingRequest::new(fields);
    outgoing.set_method(&method(&request.method)).map_err(|()| wrong("this method"))?;
    outgoing.set_scheme(Some(&scheme)).map_err(|()| wrong("this scheme"))?;
    outgoing.set_authority(Some(authority)).map_err(|()| wrong("this host name"))?;
    outgoing.set_path_with_query(Some(&path)).map_err(|()| wrong("this path"))?;
    let body = match request.body.as_slice() {
        [] => None,
        _ => Some(outgoing.body().map_err(|()| wrong("the body"))?),
    };
    Ok((outgoing, body))
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "CONNECT" => Method::Connect,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

fn split(url: &str) -> Option<(Scheme, &str, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = match scheme {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        _ => return None,
    };
    let rest = rest.split('#').next()?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() {
        return None;
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Some((scheme, authority, path))
}

/// Gives the body away, and returns what nobody takes any more. That is no error: a server may answer before it has
/// read everything, and the host may refuse the request. Which of the two it was, the answer says.
fn feed(body: OutgoingBody, content: &[u8], answer: &FutureIncomingResponse) -> Result<Option<OutgoingBody>> {
    let stream = body.write().map_err(|()| Error::new(code::INTERNAL, OPERATION, "the body was taken before"))?;
    let mut rest = content;
    while !rest.is_empty() {
        match stream.check_write() {
            Ok(0) => {
                let (room, answered) = (stream.subscribe(), answer.subscribe());
                poll(&[&room, &answered]);
                if answered.ready() && !room.ready() {
                    return Ok(Some(body));
                }
            }
            Ok(room) => {
                let (piece, left) = rest.split_at(rest.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
                if stream.write(piece).is_err() {
                    return Ok(Some(body));
                }
                rest = left;
            }
            Err(_) => return Ok(Some(body)),
        }
    }
    drop(stream);
    OutgoingBody::finish(body, None).map_err(|error| failure(&error))?;
    Ok(None)
}

fn wait(answer: &FutureIncomingResponse) -> Result<IncomingResponse> {
    loop {
        match answer.get() {
            Some(Ok(result)) => return result.map_err(|error| failure(&error)),
            Some(Err(())) => {
                return Err(Error::new(code::INTERNAL, OPERATION, "the answer was taken before"));
            }
            None => answer.subscribe().block(),
        }
    }
}

fn headers_of(response: &IncomingResponse) -> Vec<(String, String)> {
    let text = |(name, value): (String, Vec<u8>)| (name.to_ascii_lowercase(), String::from_utf8_lossy(&value).into());
    response.headers().entries().into_iter().map(text).collect()
}

fn body_of(response: &IncomingResponse) -> Result<(InputStream, IncomingBody)> {
    let read_before = |()| Error::new(code::INTERNAL, OPERATION, "the answer was read before");
    let incoming = response.consume().map_err(read_before)?;
    Ok((incoming.stream().map_err(read_before)?, incoming))
}

fn receive(response: &IncomingResponse) -> Result<Response> {
    let headers = headers_of(response);
    let (stream, incoming) = body_of(response)?;
    let body = read(&stream);
    // A stream that is still there when its body goes is a trap, also after an error.
    drop(stream);
    let body = body?;
    drop(IncomingBody::finish(incoming));
    Ok(Response { status: response.status(), headers, body })
}

fn read(stream: &InputStream) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        match stream.blocking_read(CHUNK) {
            Ok(bytes) => body.extend(bytes),
            Err(StreamError::Closed) => return Ok(body),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(failure(&http_error_code(&error).unwrap_or(ErrorCode::HttpResponseIncomplete)));
            }
        }
    }
}

/// What went wrong below HTTP. A refusal by the host's gate comes as "denied" or "prohibited".
fn failure(error: &ErrorCode) -> Error {
    let (code, message) = match error {
        ErrorCode::HttpRequestDenied => (code::DENIED, "this plugin was not granted the request"),
        ErrorCode::DestinationIpProhibited => {
            (code::DENIED, "the name stands for an address that this plugin was not granted")
        }
        ErrorCode::DnsTimeout
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout => (code::TIMEOUT, "no answer in time"),
        ErrorCode::ConnectionLimitReached => (code::LIMIT, "the call asked for too much"),
        ErrorCode::HttpRequestBodySize(_) => (code::LIMIT, "the request is larger than what this call may still move"),
        ErrorCode::HttpResponseBodySize(_) => {
            let message = "the answer is larger than what the call may still get";
            return Error::new(code::LIMIT, OPERATION, message).hint("raise `output-mib` in the plugin's grant");
        }
        ErrorCode::HttpResponseHeaderSectionSize(_) => (code::LIMIT, "the answer's headers are too large"),
        ErrorCode::HttpRequestMethodInvalid | ErrorCode::HttpRequestUriInvalid => {
            (code::INVALID, "the request cannot be right")
        }
        ErrorCode::DestinationNotFound | ErrorCode::DnsError(_) => (code::NETWORK, "there is no address for the name"),
        ErrorCode::ConnectionRefused | ErrorCode::DestinationUnavailable | ErrorCode::DestinationIpUnroutable => {
            (code::NETWORK, "the server could not be reached")
        }
        ErrorCode::ConnectionTerminated | ErrorCode::HttpResponseIncomplete | ErrorCode::HttpProtocolError => {
            (code::NETWORK, "the connection broke off before the answer was whole, or the answer is not HTTP")
        }
        ErrorCode::TlsCertificateError => {
            let hint = "if a proxy of your company ends TLS, add its certificate to the system's trust store";
            return Error::new(code::NETWORK, OPERATION, "the server's certificate is not trusted").hint(hint);
        }
        ErrorCode::TlsProtocolError | ErrorCode::TlsAlertReceived(_) => {
            (code::NETWORK, "the server did not agree on TLS")
        }
        ErrorCode::InternalError(_) => (code::INTERNAL, "the request failed inside the host"),
        other => return Error::new(code::NETWORK, OPERATION, format!("the request failed ({other:?})")),
    };
    Error::new(code, OPERATION, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split() {
        let parts = |url| split(url).map(|(scheme, authority, path)| (scheme, authority.to_owned(), path));
        assert_eq!(parts("https://a.b/c?d=e#f"), Some((Scheme::Https, "a.b".to_owned(), "/c?d=e".to_owned())));
        assert_eq!(parts("http://[::1]:8080"), Some((Scheme::Http, "[::1]:8080".to_owned(), "/".to_owned())));
        assert_eq!(parts("https://a?q"), Some((Scheme::Https, "a".to_owned(), "/?q".to_owned())));
        assert_eq!(parts("ftp://a/"), None);
        assert_eq!(parts("https:///x"), None);
        assert_eq!(parts("a/b"), None);
        assert_eq!(address_of("https://a/b?key=1"), "https://a/b");
    }
}
