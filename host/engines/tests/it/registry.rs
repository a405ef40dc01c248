//! A registry on 127.0.0.1 that serves tarballs from memory and misbehaves as it is told, one request after the other.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to one request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Promises everything, and ends after so many bytes.
    Truncate(usize),
    /// Sends so many bytes and then nothing, with the connection open, until [`Registry::open`].
    Stall(usize),
    /// As `Stall`, and the rest after [`Registry::open`].
    Gate(usize),
    /// The whole file, whatever part was asked for.
    IgnoreRange,
    /// 206 with a part that was not asked for.
    WrongRange,
    /// A status with a header and no file.
    Status(u16, String),
    /// One byte is another.
    WrongByte(usize),
    /// Another file, whose length it is honest about.
    OtherBody(Vec<u8>),
    /// The right length in the header, more bytes behind. Only a body without a length can be longer than promised.
    Longer(usize),
    /// This many bytes every millisecond.
    Slow(usize),
}

/// What a client asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

#[derive(Default)]
struct State {
    files: HashMap<String, Vec<u8>>,
    faults: VecDeque<Fault>,
    every: Option<Fault>,
    requests: Vec<Request>,
    etag: Option<String>,
    open: bool,
    waiting: usize,
    closed: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

pub(crate) struct Registry {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Registry {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let served = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = served.clone();
                if shared.state.lock().unwrap().closed {
                    return;
                }
                if let Ok(stream) = stream {
                    // A client that was killed is no error of the server.
                    thread::spawn(move || drop(serve(&shared, stream)));
                }
            }
        });
        Self { shared, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/npm/", self.address)
    }

    pub(crate) fn put(&self, tarball: &str, bytes: Vec<u8>) {
        self.shared.state.lock().unwrap().files.insert(format!("/npm/{tarball}"), bytes);
    }

    /// Faults for the next requests, in order; then it behaves.
    pub(crate) fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.state.lock().unwrap().faults.extend(faults);
    }

    /// A fault for every request without one of its own.
    pub(crate) fn always(&self, fault: Option<Fault>) {
        self.shared.state.lock().unwrap().every = fault;
    }

    pub(crate) fn etag(&self, etag: &str) {
        self.shared.state.lock().unwrap().etag = Some(etag.to_owned());
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.state.lock().unwrap().requests.clone()
    }

    /// Returns when so many requests stand at a gate or stall.
    pub(crate) fn wait_for_waiting(&self, count: usize) {
        let state = self.shared.state.lock().unwrap();
        drop(self.shared.changed.wait_while(state, |state| state.waiting < count).unwrap());
    }

    /// Lets all that wait go on.
    pub(crate) fn open(&self) {
        self.shared.state.lock().unwrap().open = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap().closed = true;
        self.open();
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(shared: &Shared, stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut request = Request { path: path.clone(), headers: HashMap::new() };
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let (fault, file, etag) = {
        let mut state = shared.state.lock().unwrap();
        if state.closed || path.is_empty() {
            return Ok(());
        }
        state.requests.push(request.clone());
        let fault = state.faults.pop_front().or_else(|| state.every.clone());
        (fault, state.files.get(&path).cloned(), state.etag.clone())
    };
    answer(shared, stream, &request, fault, file, etag)
}

fn answer(
    shared: &Shared,
    mut stream: TcpStream,
    request: &Request,
    fault: Option<Fault>,
    file: Option<Vec<u8>>,
    etag: Option<String>,
) -> std::io::Result<()> {
    if let Some(Fault::Status(status, header)) = &fault {
        let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
        return write!(stream, "HTTP/1.1 {status} X\r\n{header}content-length: 0\r\nconnection: close\r\n\r\n");
    }
    let Some(mut body) = file else {
        return write!(stream, "HTTP/1.1 404 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    };
    match &fault {
        Some(Fault::WrongByte(at)) => body[*at] ^= 1,
        Some(Fault::OtherBody(other)) => body = other.clone(),
        Some(Fault::Longer(more)) => body.extend(std::iter::repeat_n(0, *more)),
        _ => {}
    }
    let total = body.len();
    let mut start = request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok())
        .filter(|_| !matches!(fault, Some(Fault::IgnoreRange)));
    // A validator that is no longer right gets the whole file.
    if request.header("if-range").is_some_and(|asked| Some(asked) != etag.as_deref()) {
        start = None;
    }
    if start.is_some_and(|start| start >= total) {
        return write!(stream, "HTTP/1.1 416 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }
    let etag = etag.map(|etag| format!("etag: {etag}\r\n")).unwrap_or_default();
    let body = match start {
        Some(start) => {
            let start = if matches!(fault, Some(Fault::WrongRange)) { start - 1 } else { start };
            write!(stream, "HTTP/1.1 206 X\r\ncontent-range: bytes {start}-{}/{total}\r\n", total - 1)?;
            &body[start..]
        }
        None => {
            write!(stream, "HTTP/1.1 200 OK\r\n")?;
            &body[..]
        }
    };
    if !matches!(fault, Some(Fault::Longer(_))) {
        write!(stream, "content-length: {}\r\n", body.len())?;
    }
    write!(stream, "{etag}connection: close\r\n\r\n")?;
    match fault {
        Some(Fault::Truncate(at)) => {
            stream.write_all(&body[..at.min(body.len())])?;
            stream.shutdown(Shutdown::Both)
        }
        Some(Fault::Stall(at) | Fault::Gate(at)) => {
            let at = at.min(body.len());
            stream.write_all(&body[..at])?;
            stream.flush()?;
            let mut state = shared.state.lock().unwrap();
            state.waiting += 1;
            shared.changed.notify_all();
            drop(shared.changed.wait_while(state, |state| !state.open).unwrap());
            match fault {
                Some(Fault::Gate(_)) => stream.write_all(&body[at..]),
                _ => Ok(()),
            }
        }
        Some(Fault::Slow(bytes)) => body.chunks(bytes).try_for_each(|chunk| {
            // A slow line is the fault itself: nobody waits for this.
            thread::sleep(Duration::from_millis(1));
            stream.write_all(chunk)
        }),
        _ => stream.write_all(body),
    }
}
