//! One large file from anywhere, to the disk: resumed where it broke, hashed as it comes.
//!
//! It is for what has a digest of its own, such as the image of a virtual machine. A part file lasts until the next
//! time; whether it may still become the right file is known when it is whole.

use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Response, Url};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::{At, Error, Result};
use crate::fetch::{check, shown};
use crate::http::{Failure, Http, Patience, Start};
use crate::network::NetworkConfig;
use crate::progress::{Phase, Progress};
use crate::resume::{Receiver, Transfer};
use crate::sparse::SparseWriter;

/// Network reads in flight, as in the pipeline of packages.
const CHUNKS: usize = 12;
const READ: usize = 1 << 20;

/// A file elsewhere, and what it must be.
#[derive(Debug, Clone, Copy)]
pub struct RemoteFile<'a> {
    /// Its address.
    pub url: &'a str,
    /// Its length in bytes.
    pub size: u64,
    /// Its sha256, in small hexadecimal digits.
    pub sha256: &'a str,
    /// Where it is put. What is there already is gone on with.
    pub part: &'a Path,
}

/// Fetches a file of a known length and digest into its part file, which is whole, right and flushed when this succeeds.
/// Zeroes take no room there. Logins for registries are not sent anywhere else. Over plain HTTP it goes to this machine
/// only.
///
/// A part file stays when the line breaks or when it is cancelled, and is gone when it has other bytes than it should.
///
/// # Errors
/// `Invalid` for another address; `Fetch` when it does not come; `WrongFile` for other bytes; `DiskFull` and `Io`;
/// `Cancelled`.
pub async fn download(
    network: Arc<NetworkConfig>,
    file: &RemoteFile<'_>,
    patience: Patience,
    agent: &str,
    progress: &dyn Progress,
    cancel: CancellationToken,
) -> Result<()> {
    let url = check(file.url)?;
    let name = shown(&url);
    let http = Http::new(network, patience, cancel, agent)?;
    progress.phase(Phase::Downloading);
    loop {
        let have = fs::metadata(file.part).map_or(0, |data| data.len());
        let have = if have <= file.size { have } else { 0 };
        let receiver = ToDisk { file, url: &url, name: &name, progress, done: have, keeper: None };
        let mut transfer = Transfer::new(receiver, have);
        transfer.receiver.keeper = Some(Keeper::start(file.part, have));
        progress.bytes(have, file.size);
        let fetched = transfer.run(&http).await;
        let kept = match transfer.receiver.keeper.take() {
            Some(keeper) => keeper.finish().await,
            None => Err(Error::internal("a download lost its file")),
        };
        // A disk that fails is why the rest failed.
        let outcome = match (fetched, kept) {
            (_, Err(error)) | (Err(error), Ok(_)) => Err(error),
            (Ok(()), Ok(sha256)) => Ok(sha256),
        };
        let wrong = match outcome {
            Ok(sha256) if sha256 == file.sha256 => return Ok(()),
            Ok(sha256) => {
                let detail = format!("its sha256 is {sha256}, not {}", file.sha256);
                Error::WrongFile { url: name.clone(), detail }
            }
            Err(Error::Registry { detail, .. }) => return Err(Error::Fetch { url: name, detail }),
            Err(error @ Error::WrongFile { .. }) => error,
            Err(error) => return Err(error),
        };
        let _ = fs::remove_file(file.part);
        if have == 0 {
            return Err(wrong);
        }
        // What was there already may be what is wrong: another file had that name then, or the power failed.
        progress.message(&format!("{name}: what was left of the last time is of another file; it begins anew"));
    }
}

/// The bytes of a file, on their way to the disk.
struct ToDisk<'a> {
    file: &'a RemoteFile<'a>,
    url: &'a Url,
    name: &'a str,
    progress: &'a dyn Progress,
    done: u64,
    keeper: Option<Keeper>,
}

impl Receiver for ToDisk<'_> {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn size(&self) -> u64 {
        self.file.size
    }

    async fn ask(&self, http: &Http, from: Start<'_>) -> Result<Response, Failure> {
        http.get(self.name, self.url.clone(), from.headers(HeaderMap::new())).await
    }

    async fn take(&mut self, bytes: Bytes) -> Result<bool> {
        self.done += bytes.len() as u64;
        self.progress.bytes(self.done, self.file.size);
        match &self.keeper {
            Some(keeper) => Ok(keeper.feed.send(bytes).await.is_ok()),
            None => Ok(false),
        }
    }

    async fn restart(&mut self, _have: u64) -> Result<()> {
        if let Some(keeper) = self.keeper.take() {
            drop(keeper.finish().await);
        }
        self.done = 0;
        self.progress.bytes(0, self.file.size);
        self.keeper = Some(Keeper::start(self.file.part, 0));
        Ok(())
    }

    fn message(&self, message: &str) {
        self.progress.message(message);
    }

    fn gave_up(&self, detail: String, _status: Option<u16>) -> Error {
        Error::Fetch { url: self.name.to_owned(), detail }
    }

    fn wrong_size(&self, length: &str) -> Error {
        Error::WrongFile {
            url: self.name.to_owned(),
            detail: format!("{length} bytes are sent, {} were expected", self.file.size),
        }
    }
}

/// The thread that hashes and writes.
struct Keeper {
    feed: mpsc::Sender<Bytes>,
    thread: JoinHandle<Result<String>>,
}

impl Keeper {
    /// Behind the first `have` bytes of what is there.
    fn start(part: &Path, have: u64) -> Self {
        let (feed, fed) = mpsc::channel(CHUNKS);
        let part = part.to_owned();
        Self { feed, thread: tokio::task::spawn_blocking(move || keep(part, have, fed)) }
    }

    /// The sha256 of all of it, when it is flushed to the disk.
    async fn finish(self) -> Result<String> {
        drop(self.feed);
        self.thread.await.map_err(|_| Error::internal("the thread that writes a download ended"))?
    }
}

fn keep(part: PathBuf, have: u64, mut fed: mpsc::Receiver<Bytes>) -> Result<String> {
    let part = part.as_path();
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(false).open(part).at("open", part)?;
    file.set_len(have).at("truncate", part)?;
    let mut hash = Sha256::new();
    let mut left = have;
    let mut buffer = vec![0; READ];
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let piece = buffer.get_mut(..want).unwrap_or_default();
        file.read_exact(piece).at("read", part)?;
        hash.update(piece);
        left -= want as u64;
    }
    let mut writer = SparseWriter::new(file, have);
    while let Some(bytes) = fed.blocking_recv() {
        hash.update(&bytes);
        writer.write(&bytes).at("write", part)?;
    }
    writer.finish().at("flush", part)?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
