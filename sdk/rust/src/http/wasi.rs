//! One request through `wasi:http`.

use std::io::{Read as _, Write as _};

use super::{Request, Response};
use crate::bindings::host::wasi::http::outgoing_handler;
use crate::bindings::host::wasi::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    Scheme,
};
use crate::error::{Error, Result, code};
use crate::host::real::{Input, Writer};

const OPERATION: &str = "http.send";

pub(crate) fn send(request: &Request) -> Result<Response> {
    exchange(request).map_err(|error| error.subject(address_of(&request.url)))
}

/// The address without its query, which may hold a key.
fn address_of(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

fn exchange(request: &Request) -> Result<Response> {
    let (outgoing, body) = prepare(request)?;
    let answer = outgoing_handler::handle(outgoing, None).map_err(|error| failure(&error))?;
    feed(body, &request.body)?;
    receive(&wait(&answer)?)
}

fn prepare(request: &Request) -> Result<(OutgoingRequest, OutgoingBody)> {
    let wrong = |what: &str| Error::invalid(OPERATION, format!("{what} cannot be sent"));
    let (scheme, authority, path) = split(&request.url).ok_or_else(|| wrong("this address"))?;
    let mut headers: Vec<(String, Vec<u8>)> =
        request.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
    if !request.body.is_empty() {
        headers.push(("content-length".to_owned(), request.body.len().to_string().into_bytes()));
    }
    let fields = Fields::from_list(&headers).map_err(|_| wrong("one of the headers"))?;
    let outgoing = OutgoingRequest::new(fields);
    outgoing.set_method(&method(&request.method)).map_err(|()| wrong("this method"))?;
    outgoing.set_scheme(Some(&scheme)).map_err(|()| wrong("this scheme"))?;
    outgoing.set_authority(Some(authority)).map_err(|()| wrong("this host name"))?;
    outgoing.set_path_with_query(Some(&path)).map_err(|()| wrong("this path"))?;
    let body = outgoing.body().map_err(|()| wrong("the body"))?;
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

fn feed(body: OutgoingBody, content: &[u8]) -> Result<()> {
    if !content.is_empty() {
        let stream = body.write().map_err(|()| Error::new(code::INTERNAL, OPERATION, "the body was taken before"))?;
        Writer(stream)
            .write_all(content)
            .map_err(|error| Error::new(code::NETWORK, OPERATION, format!("the request was cut off: {error}")))?;
    }
    OutgoingBody::finish(body, None).map_err(|error| failure(&error))
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

fn receive(response: &IncomingResponse) -> Result<Response> {
    let headers = response
        .headers()
        .entries()
        .into_iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), String::from_utf8_lossy(&value).into_owned()))
        .collect();
    let incoming =
        response.consume().map_err(|()| Error::new(code::INTERNAL, OPERATION, "the answer was read before"))?;
    let mut body = Vec::new();
    {
        let stream =
            incoming.stream().map_err(|()| Error::new(code::INTERNAL, OPERATION, "the answer was read before"))?;
        Input(stream)
            .read_to_end(&mut body)
            .map_err(|error| Error::new(code::NETWORK, OPERATION, format!("the answer was cut off: {error}")))?;
    }
    drop(IncomingBody::finish(incoming));
    Ok(Response { status: response.status(), headers, body })
}

/// What went wrong below HTTP. A refusal by the host's gate comes as "denied" or "prohibited".
fn failure(error: &ErrorCode) -> Error {
    let (code, message) = match error {
        ErrorCode::HttpRequestDenied => (code::DENIED, "this plugin was not granted the address".to_owned()),
        ErrorCode::DestinationIpProhibited => {
            (code::DENIED, "the name stands for an address that this plugin was not granted".to_owned())
        }
        ErrorCode::DnsTimeout
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout => (code::TIMEOUT, format!("no answer in time ({error:?})")),
        ErrorCode::ConnectionLimitReached
        | ErrorCode::HttpResponseBodySize(_)
        | ErrorCode::HttpResponseHeaderSectionSize(_) => (code::LIMIT, format!("a limit was reached ({error:?})")),
        ErrorCode::HttpRequestMethodInvalid | ErrorCode::HttpRequestUriInvalid => {
            (code::INVALID, format!("the request cannot be right ({error:?})"))
        }
        ErrorCode::TlsCertificateError => (code::NETWORK, "the server's certificate is not trusted".to_owned()),
        ErrorCode::InternalError(_) => (code::INTERNAL, "the request failed inside the host".to_owned()),
        other => (code::NETWORK, format!("the server could not be reached ({other:?})")),
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
