//! A real HTTP server on 127.0.0.1 that answers as it is told and remembers what it was asked.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// Heads and bodies.
type Requests = Mutex<Vec<(String, Vec<u8>)>>;

/// The server. Its thread ends with it.
pub struct Server {
    address: SocketAddr,
    requests: Arc<Requests>,
    ended: Receiver<()>,
}

impl Server {
    /// `answer` makes the whole answer out of the request's head; an empty one is never sent, and the connection stays.
    pub fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::listen(true, answer)
    }

    /// Answers before it has read the request's body, and never reads it.
    pub fn impatient(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::listen(false, answer)
    }

    fn listen(reads_bodies: bool, answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (sender, ended) = channel();
        let (theirs, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (requests, answer, sender) = (Arc::clone(&theirs), Arc::clone(&answer), sender.clone());
                std::thread::spawn(move || serve(stream, reads_bodies, &requests, answer.as_ref(), &sender));
            }
        });
        Self { address, requests, ended }
    }

    /// A path on it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The heads of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("requests").iter().map(|(head, _)| head.clone()).collect()
    }

    /// The bodies of the requests so far.
    pub fn bodies(&self) -> Vec<Vec<u8>> {
        self.requests.lock().expect("requests").iter().map(|(_, body)| body.clone()).collect()
    }

    /// Whether the other side closes a connection that got no answer.
    pub fn was_closed(&self) -> bool {
        self.ended.recv_timeout(std::time::Duration::from_secs(20)).is_ok()
    }
}

fn serve(
    mut stream: TcpStream,
    reads_bodies: bool,
    requests: &Requests,
    answer: &dyn Fn(&str) -> String,
    ended: &Sender<()>,
) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut body = vec![0; if reads_bodies { length(&head) } else { 0 }];
    if stream.read_exact(&mut body).is_err() {
        return;
    }
    requests.lock().expect("requests").push((head.clone(), body));
    let answer = answer(&head);
    if answer.is_empty() {
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest));
        let _ = ended.send(());
        return;
    }
    drop(stream.write_all(answer.as_bytes()));
    drop(stream.shutdown(Shutdown::Write));
    if !reads_bodies {
        // Closed with bytes unread, a connection is reset, and the answer may be lost with it.
        std::thread::park();
    }
}

fn length(head: &str) -> usize {
    let value = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    value.map_or(0, |value| value.parse().expect("a length"))
}

/// An answer with a text.
pub fn ok(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}", text.len())
}

/// An answer with a status, more headers (each with its line end) and a text.
pub fn answer(status: u16, headers: &str, text: &str) -> String {
    format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{text}", text.len())
}

/// An answer that leads on.
pub fn redirect(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}
