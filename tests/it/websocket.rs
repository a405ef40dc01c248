//! A real WebSocket server on 127.0.0.1 that does as it is told and remembers what it was asked.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::{Message, WebSocket, accept_hdr};

/// The server's end of a connection, and the request that opened it.
pub type Socket = WebSocket<TcpStream>;

/// The server. Its thread ends with the process.
pub struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    ended: Mutex<Receiver<()>>,
}

impl Server {
    /// `serve` gets each connection with the head of its request. When it is done, the other side's end is waited for.
    pub fn start(serve: impl Fn(&mut Socket, &str) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (sender, ended) = channel();
        let (theirs, serve) = (Arc::clone(&requests), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (requests, serve, sender) = (Arc::clone(&theirs), Arc::clone(&serve), sender.clone());
                std::thread::spawn(move || accept(stream, &requests, serve.as_ref(), &sender));
            }
        });
        Self { address, requests, ended: Mutex::new(ended) }
    }

    /// Gives every message back.
    pub fn echo() -> Self {
        Self::start(|socket, _| {
            while let Ok(message) = socket.read() {
                if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                    return;
                }
            }
        })
    }

    /// A path on it.
    pub fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The heads of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("requests").clone()
    }

    /// Whether the other side closes a connection.
    pub fn was_closed(&self) -> bool {
        self.ended.lock().expect("its end").recv_timeout(std::time::Duration::from_secs(20)).is_ok()
    }
}

fn accept(stream: TcpStream, requests: &Mutex<Vec<String>>, serve: &dyn Fn(&mut Socket, &str), ended: &Sender<()>) {
    let mut head = String::new();
    #[allow(clippy::result_large_err, reason = "the signature is tungstenite's")]
    let note = |request: &Request, response: Response| {
        head = format!("GET {}\n", request.uri());
        for (name, value) in request.headers() {
            head.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
        }
        requests.lock().expect("requests").push(head.clone());
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr(stream, note) else { return };
    serve(&mut socket, &head);
    while socket.read().is_ok() {}
    let _ = ended.send(());
}

/// A text message.
pub fn text(text: impl Into<String>) -> Message {
    Message::text(text.into())
}
