//! A static registry for measurements: `mirror FOLDER [PORT]` serves the files of a folder, ranges too, and prints its
//! address. A tarball is a file at its registry path; a packument for npm is a file `NAME.json`.
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};

fn main() -> io::Result<()> {
    let mut words = std::env::args().skip(1);
    let folder = PathBuf::from(words.next().unwrap_or_else(|| ".".to_owned()));
    let port = words.next().and_then(|port| port.parse().ok()).unwrap_or(0);
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("http://{}/", listener.local_addr()?);
    for stream in listener.incoming() {
        let (stream, folder) = (stream?, folder.clone());
        std::thread::spawn(move || {
            // A client that goes away is its own affair.
            let _ = serve(&folder, &stream);
        });
    }
    Ok(())
}

fn serve(folder: &Path, mut stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut start = 0;
        let mut line = String::new();
        loop {
            line.clear();
            if reader.read_line(&mut line)? <= 2 {
                break;
            }
            if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
                start = range.trim().trim_end_matches('-').parse().unwrap_or(0);
            }
        }
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let Some((mut file, size)) = open(folder, path) else {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        };
        let start = u64::min(start, size);
        let status = match start {
            0 => "200 OK".to_owned(),
            _ => format!("206 Partial Content\r\ncontent-range: bytes {start}-{}/{size}", size.saturating_sub(1)),
        };
        write!(stream, "HTTP/1.1 {status}\r\naccept-ranges: bytes\r\ncontent-length: {}\r\n\r\n", size - start)?;
        if method != "HEAD" {
            file.seek(SeekFrom::Start(start))?;
            // `sendfile` or `splice` where the system has it.
            io::copy(&mut file.take(size - start), &mut stream)?;
        }
    }
}

/// A file below the folder, or its `.json`.
fn open(folder: &Path, path: &str) -> Option<(File, u64)> {
    let path = path.trim_start_matches('/').replace("%2f", "/").replace("%2F", "/").replace("%40", "@");
    if !Path::new(&path).components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    [folder.join(&path), folder.join(format!("{path}.json"))].iter().find_map(|path| {
        let file = File::open(path).ok()?;
        let data = file.metadata().ok()?;
        data.is_file().then_some((file, data.len()))
    })
}
