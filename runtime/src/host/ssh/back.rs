//! Ports there that lead back to this host, for the command that its user runs there.
//!
//! A program on another machine often needs one thing of this host: a model that runs here, a proxy that knows where it may
//! go. The other machine listens on its own loopback, and what arrives there is carried here, to a port that the caller
//! named. Nothing else that the other side opens is taken.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use russh::client::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelOpenFailure};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::connect::Connection;
use super::failed;
use crate::call::Back;
use crate::error::{Error, code};

const OPERATION: &str = "ssh.exec";
/// Where the other side listens.
const LOOPBACK: &str = "127.0.0.1";
/// A server that is started for `localhost` may listen on either of these alone.
const HERE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Which ports of the other side lead where.
#[derive(Clone, Default)]
pub(super) struct Ways(Arc<Mutex<HashMap<u32, u16>>>);

impl Ways {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, u16>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries what arrived at a port there, where that was asked for, until one of its ends or the connection does.
    pub(super) async fn carry(
        &self,
        channel: Channel<Msg>,
        port: u32,
        reply: ChannelOpenHandle,
        cut: CancellationToken,
    ) {
        // Dropped without a word, it is refused.
        let Some(to) = self.lock().get(&port).copied() else { return };
        tokio::spawn(async move {
            let carried = async {
                // Before it is taken: who waits there for an answer is to see that nobody gives one.
                let Ok(mut here) = TcpStream::connect(HERE.map(|it| SocketAddr::new(it, to)).as_slice()).await else {
                    return reply.reject(ChannelOpenFailure::ConnectFailed).await;
                };
                reply.accept().await;
                // One that fails is that one's affair. Its end over there is closed with the stream.
                let _ = tokio::io::copy_bidirectional(&mut channel.into_stream(), &mut here).await;
            };
            tokio::select! {
                () = carried => {}
                () = cut.cancelled() => {}
            }
        });
    }
}

fn back_subject(port: u32) -> String {
    format!("{LOOPBACK}:{port}")
}

/// Has the other side listen on its loopback. It does so for as long as the connection is there.
pub(super) async fn listen(connection: &Connection, back: &[Back]) -> Result<(), Error> {
    for Back { port, to } in back {
        let port = u32::from(*port);
        if connection.ways.lock().insert(port, *to).is_some_and(|before| before == *to) {
            continue;
        }
        let asked = connection.handle.tcpip_forward(LOOPBACK, port).await;
        if let Err(error) = asked {
            connection.ways.lock().remove(&port);
            return Err(match error {
                russh::Error::RequestDenied => {
                    let message = format!("the other side does not listen on its port {port} for this host");
                    Error::new(code::CONFLICT, OPERATION, message)
                        .subject(back_subject(port))
                        .hint("something else may have that port there, or the machine allows no forwarding")
                }
                error => failed(OPERATION, &error),
            });
        }
    }
    Ok(())
}
