//! A port of another machine, on this one's loopback.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::connect::Connection;
use crate::error::Error;
use crate::gate::Gate;
use crate::host::dial::Metered;

const OPERATION: &str = "ssh.forward";

/// Connections through one port at once; further ones wait.
const MANY: usize = 64;

/// An open port. Dropping it closes the port and cuts what goes through it.
pub(super) struct Forward {
    _tasks: JoinSet<()>,
}

/// Listens on a port of the system's choice and forwards to `port` there.
pub(super) async fn listen(connection: Arc<Connection>, port: u16, gate: Arc<Gate>) -> Result<(Forward, u16), Error> {
    let failed = |error: std::io::Error| Error::io(OPERATION, "127.0.0.1", &error);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?.port();
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(listener, connection, port, gate));
    Ok((Forward { _tasks: tasks }, local))
}

async fn accept(listener: TcpListener, connection: Arc<Connection>, port: u16, gate: Arc<Gate>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < MANY => {
                // One that failed is that one's affair.
                let Ok((stream, from)) = accepted else { continue };
                open.spawn(carry(stream, from.port(), Arc::clone(&connection), port, Arc::clone(&gate)));
            }
            Some(_) = open.join_next(), if !open.is_empty() => {}
        }
    }
}

async fn carry(stream: TcpStream, from: u16, connection: Arc<Connection>, port: u16, gate: Arc<Gate>) {
    // By name, because a service there may listen on the loopback of either family.
    let opened = connection.handle.channel_open_direct_tcpip("localhost", port.into(), "127.0.0.1", from.into()).await;
    if let Ok(channel) = opened {
        let mut stream = Metered::new(stream, gate, OPERATION);
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut channel.into_stream()).await;
    }
}
