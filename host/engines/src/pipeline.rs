//! From compressed bytes to files, in one pass on three threads.
//!
//! ```text
//!  push() ─► digest: sha512, sha256, `.part` ─► unpack: gunzip, tar ─► write: blake3, files
//! ```
//! Inflating is what takes the time (1.2 s for 377 MB), so it has a thread to itself and everything else happens beside it.
//! Channels are bounded and buffers go round: memory stays the same whatever the size.
//!
//! A wrong archive does not end the digest: whether the *bytes* were wrong is the better answer, and nothing of a wrong
//! archive reaches the disk anyway. A failing disk ends everything at once.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use sha2::{Digest, Sha256, Sha512};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::{At, Error, Result};
use crate::extract::{ExtractError, Limits, extract};
use crate::ledger::FileRecord;
use crate::lock_file::Package;
use crate::sri::Sri;
use crate::writer::{self, Written};

/// Network reads in flight. hyper's are at most some 400 KiB each.
const CHUNKS: usize = 12;

/// What comes into the pipeline.
enum Feed {
    /// From the network: also kept in the part file.
    Fresh(Bytes),
    /// From the part file.
    Replayed(Bytes),
    /// Nothing follows. Without it the pipeline was abandoned.
    End,
}

/// What came out of it.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) sha256: String,
    pub(crate) files: Vec<FileRecord>,
}

/// One package on its way to the disk.
pub(crate) struct Pipeline {
    feed: mpsc::Sender<Feed>,
    failed: Arc<AtomicBool>,
    digest: JoinHandle<Result<Digests>>,
    unpack: JoinHandle<Result<(), ExtractError>>,
    write: JoinHandle<(Written, Result<()>)>,
}

struct Digests {
    sri: Sri,
    sha256: String,
    size: u64,
}

impl Pipeline {
    /// Starts the threads. Files go below `root`, fresh bytes also to the end of `part`.
    pub(crate) fn start(package: &Package, root: &Path, part: Option<(PathBuf, File)>) -> Self {
        let (feed, fed) = mpsc::channel(CHUNKS);
        let (to_unpack, unpack_from) = sync_channel(CHUNKS);
        let (mut sink, writer) = writer::start(root);
        let failed = Arc::new(AtomicBool::new(false));
        let limits = Limits { bytes: package.unpacked, files: package.files };
        let disk_failed = failed.clone();
        let part_failed = failed.clone();
        Self {
            feed,
            failed,
            digest: tokio::task::spawn_blocking(move || {
                digest(fed, to_unpack, part).inspect_err(|_| part_failed.store(true, Ordering::Relaxed))
            }),
            unpack: tokio::task::spawn_blocking(move || {
                extract(FromDigest { from: unpack_from, now: Bytes::new() }, limits, &mut sink)
            }),
            write: tokio::task::spawn_blocking(move || {
                let (written, result) = writer.run();
                (written, result.inspect_err(|_| disk_failed.store(true, Ordering::Relaxed)))
            }),
        }
    }

    /// Hands on bytes from the network. False when the pipeline failed: [`finish`](Self::finish) says why.
    pub(crate) async fn push(&self, bytes: Bytes) -> bool {
        !self.failed.load(Ordering::Relaxed) && self.feed.send(Feed::Fresh(bytes)).await.is_ok()
    }

    /// Hands on bytes that are in the part file already.
    pub(crate) async fn replay(&self, bytes: Bytes) -> bool {
        !self.failed.load(Ordering::Relaxed) && self.feed.send(Feed::Replayed(bytes)).await.is_ok()
    }

    /// Ends without a result. When it returns, nothing writes any more. Returns the files that were created.
    pub(crate) async fn abandon(self) -> Vec<PathBuf> {
        drop(self.feed);
        let (_, _, write) = tokio::join!(self.digest, self.unpack, self.write);
        write.map(|(written, _)| written.created).unwrap_or_default()
    }

    /// Waits for the end, and compares.
    ///
    /// # Errors
    /// The disk failed; the bytes are not the package's; the archive is refused.
    pub(crate) async fn finish(self, package: &Package) -> Result<Unpacked> {
        // After a failure the receiver is gone, and the result below says why.
        let _ = self.feed.send(Feed::End).await;
        drop(self.feed);
        let (digest, unpack, write) = tokio::join!(self.digest, self.unpack, self.write);
        let crashed = |_| Error::internal(format!("a thread that unpacked {} ended", package.id()));
        let (digest, unpack, write) = (digest.map_err(crashed)?, unpack.map_err(crashed)?, write.map_err(crashed)?);
        // The disk's failure is the cause of all others.
        let (written, result) = write;
        result?;
        let files = written.files;
        let digest = digest?;
        if digest.sri != package.integrity {
            let detail = if digest.size == package.size {
                format!("its sha512 is {}", digest.sri)
            } else {
                format!("it has {} bytes, not {}", digest.size, package.size)
            };
            return Err(Error::Integrity { package: package.id(), detail });
        }
        let refused = |detail| Error::Archive { package: package.id(), detail };
        match unpack {
            Err(ExtractError::Refused(reason)) => return Err(refused(reason)),
            Err(ExtractError::Stopped) => {
                return Err(Error::internal("the writer stopped without a reason"));
            }
            Ok(()) => {}
        }
        let bytes: u64 = files.iter().map(|file| file.size).sum();
        if bytes != package.unpacked || files.len() as u64 != package.files {
            return Err(refused(format!(
                "it has {} files of {bytes} bytes, the lock says {} of {}",
                files.len(),
                package.files,
                package.unpacked
            )));
        }
        Ok(Unpacked { sha256: digest.sha256, files })
    }
}

/// First thread.
fn digest(
    mut fed: mpsc::Receiver<Feed>,
    to_unpack: SyncSender<Bytes>,
    mut part: Option<(PathBuf, File)>,
) -> Result<Digests> {
    let (mut sha512, mut sha256, mut size) = (Sha512::new(), Sha256::new(), 0);
    // Gone once the archive was refused: the digest goes on.
    let mut to_unpack = Some(to_unpack);
    loop {
        let bytes = match fed.blocking_recv() {
            Some(Feed::Fresh(bytes)) => {
                if let Some((path, file)) = &mut part {
                    file.write_all(&bytes).at("write", path)?;
                }
                bytes
            }
            Some(Feed::Replayed(bytes)) => bytes,
            Some(Feed::End) => break,
            // Abandoned: the reader of this result is gone as well.
            None => return Err(Error::internal("the download was abandoned")),
        };
        size += bytes.len() as u64;
        // To the slowest stage first.
        if let Some(unpack) = &to_unpack
            && unpack.send(bytes.clone()).is_err()
        {
            to_unpack = None;
        }
        sha512.update(&bytes);
        sha256.update(&bytes);
    }
    let sha256: [u8; 32] = sha256.finalize().into();
    Ok(Digests {
        sri: Sri::from_digest(sha512.finalize().into()),
        sha256: sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        size,
    })
}

/// The second thread's input.
struct FromDigest {
    from: Receiver<Bytes>,
    now: Bytes,
}

impl BufRead for FromDigest {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.now.is_empty() {
            match self.from.recv() {
                Ok(bytes) => self.now = bytes,
                Err(_) => break,
            }
        }
        Ok(&self.now)
    }
    fn consume(&mut self, amount: usize) {
        self.now = self.now.split_off(amount.min(self.now.len()));
    }
}

impl Read for FromDigest {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let amount = available.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..amount), available.get(..amount)) {
            to.copy_from_slice(from);
        }
        self.consume(amount);
        Ok(amount)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    /// More than all buffers hold comes out of few bytes, so unpacking is always ahead of a disk that fails at once.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_that_fails_ends_an_unpacking_that_waits_for_it() {
        let zeros = vec![0; 16 * 1024 * 1024];
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut header = tar::Header::new_ustar();
        header.set_size(zeros.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, "package/zeros", zeros.as_slice()).unwrap();
        let bytes = Bytes::from(archive.into_inner().unwrap().finish().unwrap());
        let package = Package {
            at: None,
            name: "toy".to_owned(),
            version: "1.0.0".to_owned(),
            integrity: Sri::from_digest(Sha512::digest(&bytes).into()),
            size: bytes.len() as u64,
            unpacked: zeros.len() as u64,
            files: 1,
        };

        // A file, where the package's folder would have to be.
        let blocked = tempfile::NamedTempFile::new().unwrap();
        for gives_up in [false, true] {
            let pipeline = Pipeline::start(&package, blocked.path(), None);
            pipeline.push(bytes.clone()).await;
            let end = async {
                if gives_up {
                    assert_eq!(pipeline.abandon().await, [] as [PathBuf; 0]);
                } else {
                    assert_eq!(pipeline.finish(&package).await.unwrap_err().code(), "io");
                }
            };
            tokio::time::timeout(Duration::from_secs(60), end).await.expect("it never ends");
        }
    }
}
