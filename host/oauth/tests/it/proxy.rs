//! Token requests through a proxy, over TLS with a certificate that is named.

use std::sync::{Arc, Mutex};

use pcoder_oauth::{ClientOptions, Error, Http, HttpOptions, Proxies, Service, Url, refresh};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::server::{NOW, SECRET, Server, clock, shown};

/// The name that the certificate has beside 127.0.0.1. It cannot be looked up, so only a proxy leads to it.
const NAME: &str = "login.invalid";

/// An authorisation server, TLS before it, and a proxy that leads there whatever it is asked for.
struct World {
    server: Server,
    tls: u16,
    proxy: u16,
    certificate: CertificateDer<'static>,
    /// The heads of all requests to the proxy.
    asked: Arc<Mutex<Vec<String>>>,
}

impl World {
    async fn new() -> Self {
        let server = Server::start();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([NAME.to_owned(), "127.0.0.1".to_owned()]).expect("a certificate");
        let certificate = cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("a key");
        let (acceptor, behind) = (TlsAcceptor::from(Arc::new(config)), server.url("/").port().expect("one"));
        let (listener, tls) = listen().await;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await?;
                    copy_bidirectional(&mut stream, &mut TcpStream::connect(("127.0.0.1", behind)).await?).await
                });
            }
        });
        let (asked, (listener, proxy)) = (Arc::<Mutex<Vec<String>>>::default(), listen().await);
        let heads = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let heads = Arc::clone(&heads);
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await?);
                    }
                    heads.lock().expect("it").push(String::from_utf8_lossy(&head).into_owned());
                    stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
                    copy_bidirectional(&mut stream, &mut TcpStream::connect(("127.0.0.1", tls)).await?).await
                });
            }
        });
        Self { server, tls, proxy, certificate, asked }
    }

    fn service(&self, token_url: &str) -> Service {
        Service { token_url: Url::parse(token_url).expect("a URL"), ..self.server.service() }
    }

    fn http(&self, https: &str, http: Option<&str>, except: Option<&str>) -> Http {
        let url = |text: &str| Url::parse(text).expect("a URL");
        let proxies = Proxies { https: Some(url(https)), http: http.map(url), except: except.map(str::to_owned) };
        let client = ClientOptions { proxies, extra_roots: vec![self.certificate.clone()], ..ClientOptions::default() };
        Http::new(HttpOptions { client, ..HttpOptions::default() }).expect("a client")
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("it"))
    }
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_request_goes_through_the_proxy_and_exceptions_around_it() {
    let world = World::new().await;
    let proxy = format!("http://ada:{SECRET}@127.0.0.1:{}", world.proxy);
    let (far, near) = (format!("https://{NAME}/token"), format!("https://127.0.0.1:{}/token", world.tls));
    for (url, except, through) in [
        (&far, None, Some(format!("{NAME}:443"))),
        (&far, Some("127.0.0.1"), Some(format!("{NAME}:443"))),
        (&near, None, Some(format!("127.0.0.1:{}", world.tls))),
        (&near, Some("example.com,127.0.0.1"), None),
    ] {
        let http = world.http(&proxy, None, except);
        let tokens = world.server.login(NOW);
        refresh(&world.service(url), &tokens, &http, &clock()).await.expect("refreshed");
        let asked = world.asked();
        assert_eq!(asked.len(), usize::from(through.is_some()), "{url} {except:?}: {asked:?}");
        if let (Some(target), Some(head)) = (through, asked.first()) {
            assert!(head.starts_with(&format!("CONNECT {target} HTTP/1.1\r\n")), "{head}");
            assert!(head.to_lowercase().contains("\r\nproxy-authorization: basic "), "{head}");
            assert!(!head.contains("refresh-"), "the proxy sees no token: {head}");
        }
    }
    assert_eq!((world.server.requests().len(), world.server.complaints()), (4, Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_not_there_is_an_error_and_not_gone_around() {
    let world = World::new().await;
    let (tokens, nobody) = (world.server.login(NOW), format!("http://ada:{SECRET}@127.0.0.1:1"));
    let service = world.service(&format!("https://127.0.0.1:{}/token", world.tls));
    let error = refresh(&service, &tokens, &world.http(&nobody, None, None), &clock()).await.expect_err("no proxy");
    assert!(matches!(error, Error::Network { .. }), "{}", shown(&error));
    assert!(world.server.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_proxy_sees_a_token_in_the_clear() {
    let world = World::new().await;
    let proxy = format!("http://127.0.0.1:{}", world.proxy);
    let http = world.http(&proxy, Some(&proxy), None);
    let tokens = world.server.login(NOW);
    refresh(&world.server.service(), &tokens, &http, &clock()).await.expect("refreshed");
    assert_eq!(world.asked(), [""; 0]);
}
