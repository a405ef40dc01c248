//! The way out: which address is dialled, and the user's own proxy where there is one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::Empty;
use hyper::body::{Body, Bytes};
use hyper::client::conn::http1;
use hyper::header::PROXY_AUTHORIZATION;
use hyper::{Method, Request, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use pcoder_http::{ClientOptions, Proxies};
use pcoder_runtime::capability::net::{Address, classify};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Host;

use super::hosts::Place;
use super::work::Work;

/// A host that does not answer in this time is not there.
const CONNECT: Duration = Duration::from_secs(10);

/// An open connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Names and connections, which a test has of its own.
#[async_trait]
pub(super) trait Net: Send + Sync {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream>;
    /// Whether an address is one of this host's own: it may have public ones, and with IPv6 most have.
    fn is_own(&self, address: IpAddr) -> bool;
}

/// Addresses that no host has (RFC 5737, RFC 3849).
const NOBODYS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// The system's.
pub(super) struct System;

#[async_trait]
impl Net for System {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        // The port is only there to be asked with.
        Ok(tokio::net::lookup_host((name, 0)).await?.map(|it| it.ip()).collect())
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }

    fn is_own(&self, address: IpAddr) -> bool {
        let binds = |address| std::net::UdpSocket::bind((address, 0)).is_ok();
        // Where programs may take any address (`ip_nonlocal_bind`), that says nothing.
        let nobodys = NOBODYS.into_iter().filter(|it| it.is_ipv4() == address.is_ipv4());
        binds(address) && !nobodys.into_iter().any(binds)
    }
}

/// Why there is no way out.
pub(super) enum NoWay {
    /// The name leads into this host or its network.
    Inside,
    /// What failed.
    Failed(String),
}

/// What is dialled for a request.
pub(super) struct Out {
    net: Arc<dyn Net>,
    proxies: Matcher,
    options: ClientOptions,
}

/// Where a request goes: to the place itself, or to a proxy that is told of it.
pub(super) enum Way {
    Direct(Box<dyn Stream>),
    Through(Box<dyn Stream>, Box<Intercept>),
}

impl Out {
    pub(super) fn new(options: ClientOptions, net: Arc<dyn Net>) -> Self {
        let Proxies { https, http, except } = &options.proxies;
        let text = |url: &Option<url::Url>| url.as_ref().map(ToString::to_string).unwrap_or_default();
        let except = except.as_deref().unwrap_or_default();
        let builder = Matcher::builder().no(except.to_owned());
        // As the engine store has it: a star is everything, addresses too.
        let proxies = match except.split(',').any(|it| it.trim() == "*") {
            true => builder.build(),
            false => builder.https(text(https)).http(text(http)).build(),
        };
        Self { net, proxies, options }
    }

    /// A connection for requests of this scheme.
    pub(super) async fn way(&self, scheme: &str, place: &Place) -> Result<Way, NoWay> {
        // A number leads where it leads, whoever dials it.
        if let Some(address) = literal(&place.host)
            && !self.is_outside(address)
        {
            return Err(NoWay::Inside);
        }
        let uri = Uri::builder().scheme(scheme).authority(authority(place)).path_and_query("/").build();
        let uri = uri.map_err(|error| NoWay::Failed(error.to_string()))?;
        match self.proxies.intercept(&uri) {
            Some(proxy) => Ok(Way::Through(self.to_proxy(&proxy).await.map_err(NoWay::Failed)?, Box::new(proxy))),
            None => self.direct(place).await.map(Way::Direct),
        }
    }

    /// The same as bytes in both directions, whatever they are.
    pub(super) async fn tunnel(&self, place: &Place, work: &Work) -> Result<Box<dyn Stream>, NoWay> {
        match self.way("https", place).await? {
            Way::Direct(stream) => Ok(stream),
            Way::Through(stream, proxy) => tokio::time::timeout(CONNECT, through(stream, &proxy, place, work))
                .await
                .map_err(|_| NoWay::Failed("the proxy of this host does not answer".to_owned()))?
                .map_err(NoWay::Failed),
        }
    }

    fn is_outside(&self, address: IpAddr) -> bool {
        classify(address) == Address::Public && !self.net.is_own(address)
    }

    async fn direct(&self, place: &Place) -> Result<Box<dyn Stream>, NoWay> {
        let addresses = match literal(&place.host) {
            Some(address) => vec![address],
            None => self.looked_up(&place.host.to_string()).await.map_err(NoWay::Failed)?,
        };
        let outside: Vec<IpAddr> = addresses.iter().copied().filter(|it| self.is_outside(*it)).collect();
        if outside.is_empty() && !addresses.is_empty() {
            return Err(NoWay::Inside);
        }
        // The very address that was looked at: a second look-up could say another one.
        self.dial(&outside, place.port).await.map(|it| Box::new(it) as Box<dyn Stream>).map_err(NoWay::Failed)
    }

    /// The proxy may be anywhere: its address is the user's own.
    async fn to_proxy(&self, proxy: &Intercept) -> Result<Box<dyn Stream>, String> {
        let unusable = || "the proxy of this host has no address that can be dialled".to_owned();
        let uri = proxy.uri();
        let (encrypted, usual) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(unusable()),
        };
        let place = Place::new(uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(usual)).ok_or_else(unusable)?;
        let told = |error: String| format!("the proxy of this host cannot be reached: {error}");
        let addresses = match literal(&place.host) {
            Some(address) => vec![address],
            None => self.looked_up(&place.host.to_string()).await.map_err(told)?,
        };
        let stream = self.dial(&addresses, place.port).await.map_err(told)?;
        if !encrypted {
            return Ok(Box::new(stream));
        }
        let config = self.options.tls_config().map_err(|error| told(error.to_string()))?;
        let name = place.host.to_string().trim_matches(['[', ']']).to_owned();
        let name = name.try_into().map_err(|_| unusable())?;
        let agreed = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream);
        match tokio::time::timeout(CONNECT, agreed).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(told(error.to_string())),
            Err(_) => Err(told("TLS was not agreed on in time".to_owned())),
        }
    }

    async fn looked_up(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        match tokio::time::timeout(CONNECT, self.net.resolve(name)).await {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(format!("no address for it: {error}")),
            Err(_) => Err("its name was not looked up in time".to_owned()),
        }
    }

    async fn dial(&self, addresses: &[IpAddr], port: u16) -> Result<TcpStream, String> {
        let mut last = "no address for it".to_owned();
        for &address in addresses {
            match tokio::time::timeout(CONNECT, self.net.connect(SocketAddr::new(address, port))).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = "no answer in time".to_owned(),
            }
        }
        Err(last)
    }
}

fn literal(host: &Host<String>) -> Option<IpAddr> {
    match host {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some(IpAddr::V4(*address)),
        Host::Ipv6(address) => Some(IpAddr::V6(*address)),
    }
}

/// As in a URL and in `CONNECT`, with the port always.
pub(super) fn authority(place: &Place) -> String {
    format!("{}:{}", place.host, place.port)
}

/// A connection that speaks HTTP, driven for as long as the work goes on.
pub(super) async fn client<B>(stream: Box<dyn Stream>, work: &Work) -> hyper::Result<http1::SendRequest<B>>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    work.spawn(async move { drop(connection.with_upgrades().await) });
    Ok(sender)
}

/// Asks a proxy for a tunnel.
async fn through(
    stream: Box<dyn Stream>,
    proxy: &Intercept,
    place: &Place,
    work: &Work,
) -> Result<Box<dyn Stream>, String> {
    let failed = |error: hyper::Error| format!("the proxy of this host failed: {error}");
    let mut sender = client(stream, work).await.map_err(failed)?;
    let authority = authority(place);
    let mut request = Request::builder().method(Method::CONNECT).uri(&authority).header("host", &authority);
    if let Some(login) = proxy.basic_auth() {
        request = request.header(PROXY_AUTHORIZATION, login);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(format!("the proxy of this host answered {}", response.status()));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(failed)?;
    Ok(Box::new(TokioIo::new(upgraded)))
}
