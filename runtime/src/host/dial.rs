//! How every connection of a plugin is opened: the name is looked up here, each address is checked, the very address
//! that was checked is dialled, and TLS is the system's trust store.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use url::{Host, Url};

use crate::capability::net::{Dial, port_of};
use crate::error::{Error, code};
use crate::gate::{Gate, Permit};

/// A host that does not answer in this time is not there.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

const OPERATION: &str = "net.connect";

/// An open connection, encrypted where its scheme says so.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Which part of reaching a host failed.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    Connection,
    Tls,
    Certificate,
}

/// That a host was not reached.
pub(crate) struct Unreached {
    pub(crate) part: Part,
    pub(crate) error: Error,
}

impl From<Unreached> for Error {
    fn from(unreached: Unreached) -> Self {
        unreached.error
    }
}

/// A connection to the host, with TLS where the scheme asks for it. `wait` holds for each of the two.
pub(crate) async fn dial(
    gate: &Arc<Gate>,
    method: Option<&str>,
    url: &Url,
    wait: Duration,
) -> Result<Box<dyn Stream>, Unreached> {
    let stream = connect(gate, method, url, wait).await.map_err(|error| Unreached { part: Part::Connection, error })?;
    match url.host_str() {
        Some(host) if matches!(url.scheme(), "https" | "wss") => {
            let error = || Error::new(code::TIMEOUT, OPERATION, "TLS was not agreed on in time").subject(host);
            tokio::time::timeout(wait, tls(host, stream))
                .await
                .map_err(|_| Unreached { part: Part::Tls, error: error() })?
        }
        _ => Ok(Box::new(stream)),
    }
}

/// Whether this address may be dialled for the URL.
fn authorize(gate: &Arc<Gate>, method: Option<&str>, url: &Url, address: IpAddr) -> Result<Permit<Dial>, Error> {
    gate.authorize(Dial { method: method.map(str::to_owned), url: url.clone(), address })
}

/// The same for a connection that somebody else has dialled: the decision is this call's.
pub(crate) fn permit(gate: &Arc<Gate>, url: &Url, address: IpAddr) -> Result<Permit<Dial>, Error> {
    authorize(gate, None, url, address)
}

/// Looks the host up, checks each address, and dials the first one that may be dialled.
async fn connect(gate: &Arc<Gate>, method: Option<&str>, url: &Url, wait: Duration) -> Result<TcpStream, Error> {
    let host = url.host_str().ok_or_else(|| Error::new(code::INVALID, OPERATION, "the URL has no host"))?;
    let port = port_of(url).ok_or_else(|| Error::new(code::INVALID, OPERATION, "the URL has no port"))?;
    // Parsed again, because a URL keeps the host of a scheme that it does not know (`ssh`) as it was written.
    let addresses: Vec<IpAddr> = match Host::parse(host) {
        Ok(Host::Ipv4(address)) => vec![IpAddr::V4(address)],
        Ok(Host::Ipv6(address)) => vec![IpAddr::V6(address)],
        Ok(Host::Domain(name)) => tokio::net::lookup_host((name.as_str(), port))
            .await
            .map_err(|error| {
                Error::new(code::NOT_FOUND, OPERATION, format!("no address for it: {error}")).subject(host)
            })?
            .map(|address| address.ip())
            .collect(),
        Err(error) => return Err(Error::new(code::INVALID, OPERATION, format!("not a host: {error}")).subject(host)),
    };
    let mut last = Error::new(code::NOT_FOUND, OPERATION, "no address for it").subject(host);
    for address in addresses {
        let permit = match authorize(gate, method, url, address) {
            Ok(permit) => permit,
            Err(denied) => {
                last = denied;
                continue;
            }
        };
        let result = tokio::time::timeout(wait, TcpStream::connect(SocketAddr::new(address, port)))
            .await
            .map_err(|_| Error::new(code::TIMEOUT, OPERATION, "no answer in time").subject(address.to_string()))
            .and_then(|result| result.map_err(|error| Error::io(OPERATION, address.to_string(), &error)));
        if let Ok(stream) = &result {
            // Keys that somebody presses must not wait for more of them.
            let _ = stream.set_nodelay(true);
        }
        match permit.finish(0, result) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// TLS against the system's trust store.
async fn tls(host: &str, stream: TcpStream) -> Result<Box<dyn Stream>, Unreached> {
    use rustls_platform_verifier::BuilderVerifierExt as _;
    let failed = |part: Part, error: String| {
        let error = Error::new(code::NETWORK, OPERATION, format!("TLS failed: {error}"))
            .subject(host)
            .hint("if a proxy of your company ends TLS, add its certificate to the system's trust store");
        Unreached { part, error }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|it| it.with_platform_verifier())
        .map_err(|error| failed(Part::Tls, error.to_string()))?
        .with_no_client_auth();
    let name = host.trim_matches(['[', ']']).to_owned();
    let name = rustls::pki_types::ServerName::try_from(name).map_err(|error| failed(Part::Tls, error.to_string()))?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| {
        let part = match error.get_ref().and_then(|it| it.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(_)) => Part::Certificate,
            _ => Part::Tls,
        };
        failed(part, error.to_string())
    })?;
    Ok(Box::new(stream))
}

/// A connection whose every byte, in both directions, comes out of the call's budget.
pub(crate) struct Metered<S> {
    stream: S,
    gate: Arc<Gate>,
    operation: &'static str,
}

/// What a [`Metered`] stream fails with when the budget is used up.
#[derive(Debug)]
pub(crate) struct OverBudget(Error);

impl std::fmt::Display for OverBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for OverBudget {}

impl OverBudget {
    /// The error, when it is the reason why something failed.
    pub(crate) fn behind(error: &(dyn std::error::Error + 'static)) -> Option<Error> {
        let mut at = Some(error);
        while let Some(error) = at {
            let io = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if let Some(over) = io.and_then(|it| it.downcast_ref::<Self>()) {
                return Some(over.0.clone());
            }
            at = error.source();
        }
        None
    }
}

impl<S> Metered<S> {
    pub(crate) fn new(stream: S, gate: Arc<Gate>, operation: &'static str) -> Self {
        Self { stream, gate, operation }
    }

    fn charge(&self, bytes: usize) -> io::Result<()> {
        self.gate.budget().charge(self.operation, bytes as u64).map_err(|error| io::Error::other(OverBudget(error)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        Poll::Ready(self.charge(buffer.filled().len() - before))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        Poll::Ready(self.charge(written).map(|()| written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
