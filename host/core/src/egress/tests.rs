//! The proxy, asked over sockets by programs that write what they like.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use pcoder_http::Proxies;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Names, and public addresses that servers of this test stand for.
#[derive(Clone, Default)]
struct World {
    names: HashMap<String, Vec<IpAddr>>,
    servers: HashMap<SocketAddr, SocketAddr>,
    dialled: Arc<Mutex<Vec<SocketAddr>>>,
    own: Vec<IpAddr>,
}

const PUBLIC: &str = "93.184.216.34";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[async_trait]
impl Net for World {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.names.get(name).cloned().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such name"))
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.dialled.lock().expect("no panic").push(address);
        match self.servers.get(&address) {
            Some(server) => TcpStream::connect(server).await,
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }
}

impl World {
    fn named(mut self, name: &str, addresses: &[&str]) -> Self {
        self.names.insert(name.to_owned(), addresses.iter().map(|it| ip(it)).collect());
        self
    }

    fn serves(mut self, address: &str, server: SocketAddr) -> Self {
        self.servers.insert(address.parse().expect("an address"), server);
        self
    }

    fn dialled(&self) -> Vec<SocketAddr> {
        self.dialled.lock().expect("no panic").clone()
    }

    async fn proxy(&self, allow: &str, proxies: Proxies) -> Egress {
        let rules = Rules { allow: Hosts::new(allow).expect("hosts").0, setting: Hosts::default() };
        // A test's proxies are plain, and the system may have no certificates.
        let network = ClientOptions { proxies, certificates: false, ..ClientOptions::default() };
        Egress::start_with(rules, network, Arc::new(self.clone()), HEAD).await.expect("it listens")
    }
}

/// A server that answers every connection with what it got up to the end of a head, and with that to whatever follows.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("a port");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// A web server that says what it was asked, head and body, and closes.
async fn web() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("a port");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = Vec::new();
                // Each body of these tests ends with a full stop, and what has none with its head.
                while !asked.ends_with(b".") && (is_long(&asked) || !asked.ends_with(b"\r\n\r\n")) {
                    let mut buffer = [0; 4096];
                    match stream.read(&mut buffer).await {
                        Ok(count @ 1..) => asked.extend_from_slice(&buffer[..count]),
                        _ => break,
                    }
                }
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", asked.len());
                let _ = stream.write_all(&[head.as_bytes(), &asked].concat()).await;
            });
        }
    });
    address
}

/// Whether a body follows this head that has not ended.
fn is_long(asked: &[u8]) -> bool {
    let text = String::from_utf8_lossy(asked).to_lowercase();
    text.contains("transfer-encoding: chunked") && !text.contains("\r\n0\r\n\r\n")
}

fn credential(proxy: &Egress) -> String {
    format!("Proxy-Authorization: {}\r\n", serve::header(USER, proxy.token.expose_secret()))
}

async fn open(proxy: &Egress) -> TcpStream {
    TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("it listens")
}

/// What the proxy says up to the end of a head.
async fn head(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            break;
        }
        said.push(byte[0]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// Everything that the proxy says to this, which asks it to close.
async fn said_to(proxy: &Egress, request: &str) -> String {
    let mut stream = open(proxy).await;
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut said = Vec::new();
    // One that resets the connection has said what it says.
    let _ = stream.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).into_owned()
}

async fn asked(proxy: &Egress, line: &str, more: &str) -> String {
    said_to(proxy, &format!("{line}\r\nHost: x\r\n{}{more}Connection: close\r\n\r\n", credential(proxy))).await
}

fn status(said: &str) -> &str {
    said.split(' ').nth(1).unwrap_or_default()
}

/// A tunnel that carries what is sent through it.
async fn tunnels(proxy: &Egress, authority: &str) -> bool {
    let mut stream = open(proxy).await;
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{}\r\n", credential(proxy));
    stream.write_all(request.as_bytes()).await.expect("it reads");
    if status(&head(&mut stream).await) != "200" {
        return false;
    }
    stream.write_all(b"hello").await.expect("it reads");
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.is_ok() && &back == b"hello"
}

#[tokio::test]
async fn what_is_allowed_gets_a_tunnel_and_what_is_not_is_named_with_what_allows_it() {
    let world = World::default().named("api.example.com", &[PUBLIC]).serves("93.184.216.34:443", echo().await);
    let proxy = world.proxy("api.example.com", Proxies::default()).await;
    assert!(tunnels(&proxy, "api.example.com:443").await && tunnels(&proxy, "API.example.com.:443").await);
    assert_eq!(proxy.refused(), None);
    for authority in ["evil.test:443", "evil.test:443", "api.example.com:22", "api.example.com.evil.test:443"] {
        let said = asked(&proxy, &format!("CONNECT {authority} HTTP/1.1"), "").await;
        assert_eq!(status(&said), "403", "{said}");
        let host = authority.trim_end_matches(":443");
        assert!(said.contains(&format!("`pcoder config set network-allow {host}`")), "{said}");
    }
    let refused = proxy.refused().expect("some");
    assert_eq!(refused.hosts, ["api.example.com.evil.test", "api.example.com:22", "evil.test"]);
    assert!(
        refused
            .allow
            .expect("a command")
            .contains("network-allow api.example.com.evil.test,api.example.com:22,evil.test")
    );
    assert_eq!(world.dialled().len(), 2);
}

#[tokio::test]
async fn a_plain_request_goes_on_with_one_host_and_without_what_is_the_lines() {
    let world = World::default().named("deb.example.com", &[PUBLIC]).serves("93.184.216.34:80", web().await);
    let proxy = world.proxy("deb.example.com", Proxies::default()).await;
    let more = "X-Mine: 1\r\nProxy-Connection: keep-alive\r\nX-Hop: 1\r\nConnection: x-hop\r\nTE: trailers\r\n";
    let said = asked(&proxy, "GET http://deb.example.com/a?b HTTP/1.1", more).await;
    let lower = said.to_lowercase();
    assert!(said.starts_with("HTTP/1.1 200") && said.contains("GET /a?b HTTP/1.1"), "{said}");
    assert!(lower.contains("host: deb.example.com") && lower.contains("x-mine: 1"), "{said}");
    for gone in ["host: x", "proxy-", "x-hop", "\nte:"] {
        assert!(!lower.contains(gone), "{gone}: {said}");
    }
    let body = "Content-Length: 5\r\nConnection: close\r\n\r\nbody.";
    let request = format!("POST http://deb.example.com/ HTTP/1.1\r\nHost: x\r\n{}{body}", credential(&proxy));
    assert!(said_to(&proxy, &request).await.ends_with("body."));
}

#[tokio::test]
async fn nothing_is_asked_without_the_credential_of_the_run() {
    let world = World::default().named("a.example", &[PUBLIC]).serves("93.184.216.34:443", echo().await);
    let proxy = world.proxy("a.example", Proxies::default()).await;
    let other = world.proxy("a.example", Proxies::default()).await;
    for header in [
        String::new(),
        "Proxy-Authorization: Basic cGNvZGVyOg==\r\n".to_owned(),
        format!("Proxy-Authorization: {}\r\n", serve::header(USER, "")),
        credential(&other),
        credential(&proxy).replace("Proxy-", ""),
    ] {
        let request = format!("CONNECT a.example:443 HTTP/1.1\r\nHost: x\r\n{header}Connection: close\r\n\r\n");
        let said = said_to(&proxy, &request).await;
        assert_eq!(status(&said), "407", "{said}");
    }
    assert_eq!((world.dialled(), proxy.refused()), (Vec::new(), None));
}

#[tokio::test]
async fn no_name_and_no_number_leads_into_this_host_or_its_network() {
    let own = "93.184.216.35";
    let world = World { own: vec![ip(own)], ..World::default() }
        .named("own.example", &[own])
        .named("rebound.example", &["127.0.0.1"])
        .named("mapped.example", &["::ffff:10.0.0.1"])
        .named("metadata.example", &["169.254.169.254", "fd00:ec2::254"])
        .named("both.example", &["192.168.0.1", PUBLIC])
        .serves("93.184.216.34:443", echo().await);
    let inside = "127.0.0.1,[::1],10.0.0.1,169.254.169.254,[::ffff:127.0.0.1],0.0.0.0";
    let proxy = world.proxy(&format!("*.example,{inside},{own}"), Proxies::default()).await;
    for authority in [
        "own.example:443",
        "93.184.216.35:443",
        "rebound.example:443",
        "mapped.example:443",
        "metadata.example:443",
        "127.0.0.1:443",
        "2130706433:443",
        "0x7f.1:443",
        "[::1]:443",
        "[::ffff:7f00:1]:443",
        "10.0.0.1:443",
        "169.254.169.254:443",
        "0.0.0.0:443",
    ] {
        let said = asked(&proxy, &format!("CONNECT {authority} HTTP/1.1"), "").await;
        assert_eq!(status(&said), "403", "{authority}: {said}");
        assert!(said.contains("leads into the host or its network"), "{authority}: {said}");
    }
    let said = asked(&proxy, "GET http://rebound.example/ HTTP/1.1", "").await;
    assert_eq!(status(&said), "403", "{said}");
    let said = asked(&proxy, "TRACE http://both.example/ HTTP/1.1", "").await;
    assert_eq!(status(&said), "405", "{said}");
    assert_eq!(world.dialled(), []);
    let refused = proxy.refused().expect("some");
    assert_eq!((refused.hosts.len(), refused.allow), (0, None), "to allow them is of no use");
    assert!(refused.inside.contains(&"rebound.example".to_owned()), "{:?}", refused.inside);
    // Of several addresses, the outer one alone is dialled.
    assert!(tunnels(&proxy, "both.example:443").await);
    assert_eq!(world.dialled(), ["93.184.216.34:443".parse().expect("an address")]);
}

#[test]
fn this_hosts_own_addresses_are_known() {
    assert!(System.is_own(ip("127.0.0.1")));
    assert!(!System.is_own(ip("93.184.216.34")) && !System.is_own(ip("2606:4700::1111")));
}

#[tokio::test]
async fn an_address_of_ipv6_is_a_host_like_another() {
    let world = World::default().serves("[2606:4700::1111]:443", echo().await);
    let proxy = world.proxy("[2606:4700::1111]", Proxies::default()).await;
    assert!(tunnels(&proxy, "[2606:4700::1111]:443").await);
    assert!(tunnels(&proxy, "[2606:4700:0:0::1111]:443").await);
    let said = asked(&proxy, "CONNECT [2606:4700::2222]:443 HTTP/1.1", "").await;
    assert_eq!(status(&said), "403", "{said}");
}

#[tokio::test]
async fn what_is_not_clear_is_not_passed_on() {
    let world = World::default().named("a.example", &[PUBLIC]).serves("93.184.216.34:80", web().await);
    let proxy = world.proxy("a.example", Proxies::default()).await;
    for line in [
        "GET / HTTP/1.1",
        "GET https://a.example/ HTTP/1.1",
        "GET ftp://a.example/ HTTP/1.1",
        "GET http://user:word@a.example/ HTTP/1.1",
        "GET http://a.example:0/ HTTP/1.1",
        "GET http://a.example:99999/ HTTP/1.1",
        "GET http://a.example:/ HTTP/1.1",
        "CONNECT a.example:65979 HTTP/1.1",
        "CONNECT a.example HTTP/1.1",
        "CONNECT user@a.example:443 HTTP/1.1",
        "CONNECT a.example:x HTTP/1.1",
        "GET  http://a.example/ HTTP/1.1",
        "PRI * HTTP/2.0",
        "\u{1}\u{2}",
    ] {
        let said = asked(&proxy, line, "").await;
        assert!(matches!(status(&said), "400" | "") || said.is_empty(), "{line}: {said}");
    }
    assert_eq!(world.dialled(), []);
}

#[tokio::test]
async fn a_request_that_two_readers_take_for_different_ones_is_one_request_behind_the_proxy() {
    let world = World::default().named("a.example", &[PUBLIC]).serves("93.184.216.34:80", web().await);
    let proxy = world.proxy("a.example", Proxies::default()).await;
    let head =
        |more: &str| format!("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\n{}{more}", credential(&proxy));
    // A body by its chunks, which its length says is longer: the rest would be a second request.
    let both = head("Content-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n0\r\n\r\n")
        + "GET http://a.example/smuggled HTTP/1.1\r\n\r\n";
    let said = said_to(&proxy, &both).await;
    assert!(!said.contains("smuggled"), "{said}");
    assert!(!said.to_lowercase().contains("content-length: 60"), "{said}");
    for more in [
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nbody.",
        "Content-Length: +5\r\n\r\nbody.",
        "Transfer-Encoding: xchunked\r\n\r\nbody.",
        "X: a\rb\r\n\r\n",
        "X : a\r\n\r\n",
        " folded\r\n\r\n",
    ] {
        let before = world.dialled().len();
        let said = said_to(&proxy, &head(more)).await;
        assert!(!said.starts_with("HTTP/1.1 200"), "{more:?}: {said}");
        assert_eq!(world.dialled().len(), before, "{more:?}");
    }
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let proxy = World::default().proxy("a.example", Proxies::default()).await;
    let long = format!("CONNECT a.example:443 HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let said = said_to(&proxy, &long).await;
    assert!(matches!(status(&said), "431" | ""), "{said}");
    let many = format!("CONNECT a.example:443 HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000));
    let said = said_to(&proxy, &many).await;
    assert!(matches!(status(&said), "431" | ""), "{said}");
}

#[tokio::test]
async fn who_says_nothing_is_cut_off() {
    let (rules, network) = (Rules::default(), ClientOptions { certificates: false, ..ClientOptions::default() });
    let soon = Duration::from_millis(50);
    let proxy = Egress::start_with(rules, network, Arc::new(World::default()), soon).await.expect("it listens");
    for begun in ["", "CONNECT a.ex", "CONNECT a.example:443 HTTP/1.1\r\nHost: "] {
        // It ends by itself, or the test does not.
        said_to(&proxy, begun).await;
    }
}

#[tokio::test]
async fn a_host_that_is_down_or_unknown_is_told_apart_from_one_that_is_not_allowed() {
    let world = World::default().named("down.example", &[PUBLIC]);
    let proxy = world.proxy("*.example", Proxies::default()).await;
    for line in ["CONNECT down.example:443 HTTP/1.1", "GET http://down.example/ HTTP/1.1"] {
        let said = asked(&proxy, line, "").await;
        assert!(status(&said) == "502" && said.contains("down.example cannot be reached"), "{said}");
    }
    let said = asked(&proxy, "CONNECT unknown.example:443 HTTP/1.1", "").await;
    assert!(status(&said) == "502" && said.contains("no address for it"), "{said}");
    assert_eq!(proxy.refused(), None);
}

/// A proxy as a company has one, which takes a login.
async fn companys(login: &'static str, web: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("a port");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let head = head(&mut stream).await;
                seen.lock().expect("no panic").push(head.lines().next().unwrap_or_default().to_owned());
                if !head.to_lowercase().contains(&format!("proxy-authorization: {login}").to_lowercase()) {
                    let _ = stream.write_all(b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n").await;
                } else if head.starts_with("CONNECT") {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                    let mut out = TcpStream::connect(web).await.expect("it listens");
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut out).await;
                } else {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                }
            });
        }
    });
    (address, told)
}

#[tokio::test]
async fn the_proxy_of_this_host_is_gone_through_and_its_login_stays_here() {
    let (theirs, seen) = companys("Basic bWU6d29yZA==", echo().await).await;
    let world = World::default().named("near.example", &[PUBLIC]).serves("10.1.2.3:3128", theirs);
    let world = world.serves("93.184.216.34:443", echo().await);
    let url = |login: &str| Some(format!("http://{login}10.1.2.3:3128").parse().expect("a URL"));
    let proxies = Proxies { https: url("me:word@"), http: url("me:word@"), except: Some("near.example".into()) };
    let proxy = world.proxy("*.example", proxies).await;
    // The name is the other proxy's to look up.
    assert!(tunnels(&proxy, "far.example:443").await);
    let said = asked(&proxy, "GET http://far.example/x HTTP/1.1", "").await;
    assert!(said.ends_with("ok") && !said.contains("bWU6d29yZA"), "{said}");
    assert!(tunnels(&proxy, "near.example:443").await);
    assert_eq!(
        *seen.lock().expect("no panic"),
        ["CONNECT far.example:443 HTTP/1.1", "GET http://far.example/x HTTP/1.1"]
    );
    // What is not allowed is not asked there either, and a number inside is none of its business.
    for authority in ["evil.test:443", "10.0.0.1:443"] {
        assert_eq!(status(&asked(&proxy, &format!("CONNECT {authority} HTTP/1.1"), "").await), "403");
    }
    assert_eq!(seen.lock().expect("no panic").len(), 2);
    let wrong = world.proxy("*.example", Proxies { https: url("me:other@"), http: None, except: None }).await;
    let said = asked(&wrong, "CONNECT far.example:443 HTTP/1.1", "").await;
    assert!(status(&said) == "502" && said.contains("the proxy of this host answered 407"), "{said}");
    let down = "http://10.9.9.9:1".parse().expect("a URL");
    let down = world.proxy("*.example", Proxies { https: Some(down), http: None, except: None }).await;
    let said = asked(&down, "CONNECT far.example:443 HTTP/1.1", "").await;
    assert!(status(&said) == "502" && said.contains("the proxy of this host cannot be reached"), "{said}");
}

#[tokio::test]
async fn many_at_once_are_served_and_more_than_there_is_room_for_wait() {
    let world = World::default().named("a.example", &[PUBLIC]).serves("93.184.216.34:443", echo().await);
    let proxy = Arc::new(world.proxy("a.example", Proxies::default()).await);
    let each = (0..400).map(|_| {
        let proxy = Arc::clone(&proxy);
        tokio::spawn(async move { tunnels(&proxy, "a.example:443").await })
    });
    for done in each.collect::<Vec<_>>() {
        assert!(done.await.expect("no panic"));
    }
}

#[tokio::test]
async fn it_ends_with_the_run_and_takes_every_tunnel_along() {
    let world = World::default().named("a.example", &[PUBLIC]).serves("93.184.216.34:443", echo().await);
    let proxy = world.proxy("a.example", Proxies::default()).await;
    let (port, credential) = (proxy.port(), credential(&proxy));
    let mut stream = open(&proxy).await;
    let request = format!("CONNECT a.example:443 HTTP/1.1\r\nHost: x\r\n{credential}\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    assert_eq!(status(&head(&mut stream).await), "200");
    drop(proxy);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
    // The listener is dropped by its task, which has been told by now and may not have been asked yet.
    while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn its_address_is_said_with_a_port_of_the_machine_and_its_credential_is_in_no_debug() {
    let proxy = World::default().proxy("a.example", Proxies::default()).await;
    let url = proxy.url(4567);
    let token = proxy.token.expose_secret();
    assert_eq!(url.expose_secret(), format!("http://pcoder:{token}@127.0.0.1:4567"));
    assert!(token.len() == 48 && !format!("{url:?}").contains(token));
}
