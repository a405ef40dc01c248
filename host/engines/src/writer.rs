//! From unpacked bytes to files, on a thread of their own: the one place where an engine's files are written and hashed.
//!
//! Whoever reads an archive or a tree is the [`Sink`]'s caller. Channels are bounded and buffers go round: memory stays the
//! same whatever the size.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use crate::error::{At, Error, Result};
use crate::extract::{BUFFER, Sink, Stop};
use crate::ledger::FileRecord;
use crate::safe_path::SafePath;

/// Buffers of [`BUFFER`] bytes between reading and writing.
const BUFFERS: usize = 12;

/// What a reader tells the writer.
enum Order {
    File { path: SafePath, size: u64, executable: bool },
    Data(Vec<u8>, usize),
    End,
}

/// The reader's end.
pub(crate) struct ToWriter {
    out: SyncSender<Order>,
    recycled: Receiver<Vec<u8>>,
    made: usize,
}

impl Sink for ToWriter {
    fn file(&mut self, path: SafePath, size: u64, executable: bool) -> Result<(), Stop> {
        self.out.send(Order::File { path, size, executable }).map_err(|_| Stop)
    }
    fn buffer(&mut self) -> Result<Vec<u8>, Stop> {
        if let Ok(buffer) = self.recycled.try_recv() {
            return Ok(buffer);
        }
        if self.made < BUFFERS {
            self.made += 1;
            return Ok(vec![0; BUFFER]);
        }
        self.recycled.recv().map_err(|_| Stop)
    }
    fn data(&mut self, buffer: Vec<u8>, len: usize) -> Result<(), Stop> {
        self.out.send(Order::Data(buffer, len)).map_err(|_| Stop)
    }
    fn end(&mut self) -> Result<(), Stop> {
        self.out.send(Order::End).map_err(|_| Stop)
    }
}

/// The thread's end.
pub(crate) struct Writer {
    root: PathBuf,
    orders: Receiver<Order>,
    recycle: Sender<Vec<u8>>,
    folders: HashSet<PathBuf>,
    done: Written,
}

/// What a [`Writer`] did until it ended, well or not.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Files that were created, whole or not.
    pub(crate) created: Vec<PathBuf>,
    /// Files that were written.
    pub(crate) files: Vec<FileRecord>,
}

/// Both ends. Files go below `root`, which is fresh.
pub(crate) fn start(root: &Path) -> (ToWriter, Writer) {
    let (out, orders) = sync_channel(BUFFERS);
    let (recycle, recycled) = channel();
    let writer = Writer { root: root.to_owned(), orders, recycle, folders: HashSet::new(), done: Written::default() };
    (ToWriter { out, recycled, made: 0 }, writer)
}

/// Runs a reader and the writer beside each other, to the end of both.
///
/// # Errors
/// The disk that is written to failed, which is the cause of whatever the reader says.
pub(crate) async fn write_tree<E: Send + 'static>(
    root: &Path,
    read: impl FnOnce(&mut ToWriter) -> Result<(), E> + Send + 'static,
) -> Result<(Result<(), E>, Vec<FileRecord>)> {
    let (mut sink, writer) = start(root);
    let read = tokio::task::spawn_blocking(move || read(&mut sink));
    let write = tokio::task::spawn_blocking(move || writer.run());
    let (read, write) = tokio::join!(read, write);
    let ended = |_| Error::internal("a thread that copies an engine ended");
    let (written, result) = write.map_err(ended)?;
    result?;
    Ok((read.map_err(ended)?, written.files))
}

impl Writer {
    /// Until the reader is through, or the disk fails.
    ///
    /// When it returns, its ends of the channels are gone: a reader that waits for room or for a buffer is told to stop.
    pub(crate) fn run(mut self) -> (Written, Result<()>) {
        let result = self.write_all();
        (self.done, result)
    }

    fn write_all(&mut self) -> Result<()> {
        let mut open: Option<(PathBuf, File, blake3::Hasher, FileRecord)> = None;
        while let Ok(order) = self.orders.recv() {
            match order {
                Order::File { path, size, executable } => {
                    let target = path.below(&self.root);
                    if let Some(parent) = target.parent()
                        && !self.folders.contains(parent)
                    {
                        fs::create_dir_all(parent).at("create", parent)?;
                        self.folders.insert(parent.to_owned());
                    }
                    // Never through something that is there: the folder is fresh, and this makes sure of it. Not
                    // executable yet: nothing may be, before the hash is known to be right.
                    let file = OpenOptions::new().write(true).create_new(true).open(&target).at("create", &target)?;
                    self.done.created.push(target.clone());
                    let record = FileRecord { path, size, blake3: String::new(), executable };
                    open = Some((target, file, blake3::Hasher::new(), record));
                }
                Order::Data(buffer, len) => {
                    if let (Some((path, file, hash, _)), Some(bytes)) = (&mut open, buffer.get(..len)) {
                        file.write_all(bytes).at("write", path)?;
                        hash.update(bytes);
                    }
                    // The reader may be through already.
                    let _ = self.recycle.send(buffer);
                }
                Order::End => {
                    if let Some((_, _, hash, mut record)) = open.take() {
                        record.blake3 = hash.finalize().to_hex().to_string();
                        self.done.files.push(record);
                    }
                }
            }
        }
        Ok(())
    }
}
