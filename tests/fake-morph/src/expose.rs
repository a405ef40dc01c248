//! Exposed HTTP services: each has a port of this machine that leads to the instance's.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::world::{Access, World};

/// How long the head of a request may be.
const MAX_HEAD: usize = 64 * 1024;

/// A service; dropped, its port is closed.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    port: u16,
    address: SocketAddr,
    key: bool,
    _end: DropGuard,
}

impl Service {
    /// Listens, which needs a Tokio runtime. With `key`, the first request of each connection must carry the API key.
    pub(crate) fn start(world: Arc<World>, id: &str, name: String, port: u16, key: bool) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let end = world.ending.child_token();
        let (id, token) = (id.to_owned(), end.clone());
        tokio::spawn(async move {
            let serving = async {
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    let connection = connection(Arc::clone(&world), id.clone(), stream, port, key);
                    tokio::spawn(until(token.clone(), connection));
                }
            };
            until(token.clone(), serving).await;
        });
        Ok(Self { name, port, address, key, _end: end.drop_guard() })
    }

    pub(crate) fn show(&self) -> Value {
        json!({ "name": self.name, "port": self.port, "url": format!("http://{}", self.address),
                "auth_mode": if self.key { "api_key" } else { "none" } })
    }
}

async fn until(end: CancellationToken, work: impl Future) {
    tokio::select! {
        () = end.cancelled() => {}
        _ = work => {}
    }
}

async fn connection(world: Arc<World>, id: String, mut stream: TcpStream, port: u16, key: bool) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if head.len() > MAX_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    if key && !carries(&head, &world.options.key) {
        return refuse(stream, "401 Unauthorized").await;
    }
    let ready = tokio::task::spawn_blocking(move || world.ready_for(&id, Access::Http)).await;
    if !matches!(ready, Ok(Ok(_))) {
        return refuse(stream, "503 Service Unavailable").await;
    }
    let Ok(mut service) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
        return refuse(stream, "502 Bad Gateway").await;
    };
    service.write_all(&head).await?;
    tokio::io::copy_bidirectional(&mut stream, &mut service).await.map(drop)
}

fn carries(head: &[u8], key: &str) -> bool {
    String::from_utf8_lossy(head).lines().any(|line| {
        line.split_once(':').is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("authorization") && value.trim().strip_prefix("Bearer ") == Some(key)
        })
    })
}

async fn refuse(mut stream: TcpStream, status: &str) -> io::Result<()> {
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
