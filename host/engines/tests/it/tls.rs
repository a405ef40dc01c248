//! Certificates: one that nobody here trusts, and the same one named as an organisation's own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use pcoder_engines::{Environment, NetworkConfig, NpmPlaces};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::toy::{World, options, toy};

/// A registry behind TLS that serves one body for every path. Returns its address, its authority's certificate, and
/// the number of its connections.
fn serve(body: Vec<u8>) -> (String, String, Arc<AtomicUsize>) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let connections = Arc::new(AtomicUsize::new(0));
    let (config, counted) = (Arc::new(config), connections.clone());
    // It ends with the process, as a thread that only waits may.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::Relaxed);
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut reader = BufReader::new(StreamOwned::new(connection, stream));
            let mut line = String::new();
            // A handshake that the client refuses ends here.
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            let stream = reader.get_mut();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    (address, authority_certificate.pem(), connections)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_certificate_is_fatal_until_it_is_named() {
    let tarball = toy("1.0.0", 300_000);
    let world = World::new(std::slice::from_ref(&tarball));
    let (address, authority, connections) = serve(tarball.bytes);
    let home = world.folder.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let network = |npmrc: &str, environment: Environment| {
        std::fs::write(home.join(".npmrc"), npmrc).unwrap();
        let places = NpmPlaces { home: Some(&home), prefix: Some(&home), project: None };
        NetworkConfig::from_npm(&environment, places, Some(&address)).unwrap()
    };
    let error = world.install_with(&options(network("", Environment::default()))).await.unwrap_err();
    assert_eq!(error.code(), "registry");
    assert!(error.to_string().contains("certificate is not trusted"), "{error}");
    assert!(error.hint().unwrap().contains("npm_config_cafile="));
    assert_eq!(connections.load(Ordering::Relaxed), 1, "not tried again");
    world.assert_absent();

    let pem = home.join("authority.pem");
    std::fs::write(&pem, &authority).unwrap();
    let pem = pem.to_str().unwrap();
    let inline = format!("ca=\"{}\"", authority.trim().replace("\r\n", "\n").replace('\n', "\\n"));
    for (npmrc, environment) in [
        (format!("cafile={pem}"), Environment::default()),
        (inline, Environment::default()),
        (String::new(), [("NODE_EXTRA_CA_CERTS", pem)].into_iter().collect()),
        (String::new(), [("SSL_CERT_FILE", pem)].into_iter().collect()),
    ] {
        world.install_with(&options(network(&npmrc, environment))).await.unwrap();
        world.assert_whole();
        world.store().remove("toy", None).unwrap();
    }
}
