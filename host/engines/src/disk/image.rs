//! What is on a disk, and how it is written.
//!
//! ```text
//! /NAME-VERSION/…     an engine's tree
//! /bin/NAME           its entry point: a link, or a script where folders have to go on its PATH first
//! ```
//!
//! It is a squashfs of which nothing is compressed: a machine whose processor is emulated reads it faster than it could
//! decompress it. Everything is root's, of one time and in one order, so that the same engines are the same bytes.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use backhand::compression::{CompressionAction, Compressor};
use backhand::kind::Kind;
use backhand::{BackhandError, DEFAULT_BLOCK_SIZE, FilesystemCompressor, FilesystemWriter, NodeHeader, SuperBlock};

use super::{MAKING, Making, Plan};
use crate::error::{At, Error, Result};
use crate::extract::BUFFER;
use crate::findings::write_damaged;
use crate::install_lock::Hold;
use crate::ledger::{FileRecord, TREE};
use crate::lock_file::Locked;
use crate::safe_path::SafePath;
use crate::store::Store;

/// The time of everything on a disk. npm's packages have it: tools that dislike 1970 take it.
pub(super) const MTIME: u32 = 499_162_500;

const FOLDER: u16 = 0o755;
const PROGRAM: u16 = 0o755;
const PLAIN: u16 = 0o644;

/// Stores everything as it is.
///
/// The kernel reads blocks that are not compressed whatever the disk's compressor is, but it takes no disk without one.
/// backhand stores a block as it is when compressing it made it longer.
struct Stored;

impl CompressionAction for Stored {
    type Error = BackhandError;
    type Compressor = Compressor;
    type FilesystemCompressor = FilesystemCompressor;
    type SuperBlock = SuperBlock;

    fn decompress(&self, _: &[u8], _: &mut Vec<u8>, _: Compressor) -> Result<(), BackhandError> {
        Err(BackhandError::UnsupportedCompression(String::new()))
    }

    fn compress(&self, bytes: &[u8], _: FilesystemCompressor, _: u32) -> Result<Vec<u8>, BackhandError> {
        Ok(vec![0; bytes.len() + 1])
    }
}

/// The engines that go onto a disk. Nobody replaces them while this lives.
pub(super) struct Image<'a> {
    engines: Vec<Held<'a>>,
}

struct Held<'a> {
    locked: Locked<'a>,
    folder: PathBuf,
    files: Vec<FileRecord>,
    _hold: Hold,
}

/// Why it was given up.
enum Failure {
    Read(PathBuf, io::Error),
    Write(io::Error),
    /// A file of this engine is not what it should be.
    Changed(usize, String),
    Cancelled,
}

impl<'a> Image<'a> {
    pub(super) fn of(store: &'a Store, plan: &Plan) -> Result<Self> {
        let mut engines = Vec::new();
        for engine in &plan.engines {
            let locked = store.inner.lookup(&engine.name, Some(&engine.version))?;
            store.require(&engine.name, Some(&engine.version))?;
            let hold = Hold::take(&store.inner.locks, &locked.key(), &locked.subject())?;
            let (_, files) = store.inner.listed(locked)?;
            store.inner.check_names(locked, &files)?;
            engines.push(Held { locked, folder: store.inner.engine_folder(locked), files, _hold: hold });
        }
        Ok(Self { engines })
    }

    /// Of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.engines.iter().flat_map(|it| &it.files).map(|it| it.size).sum()
    }

    pub(super) fn write(&self, to: &File, path: &Path, plan: &Plan, making: &Making<'_>) -> Result<()> {
        let job = Job {
            making,
            subject: plan.subject(),
            total: self.bytes(),
            done: Cell::default(),
            shown: Cell::default(),
            failed: RefCell::default(),
        };
        let written = self.fill(&job).and_then(|mut image| {
            let mut out = Out { inner: BufWriter::with_capacity(1 << 20, to), job: &job };
            image.write(&mut out)?;
            Ok(out.flush()?)
        });
        // What failed first is the cause of the writer's own failure, which does not say much.
        match (job.failed.into_inner(), written) {
            (Some(Failure::Read(path, error)), _) => Err(Error::io("read", &path, error)),
            (Some(Failure::Write(error)), _) => Err(Error::io("write", path, error)),
            (Some(Failure::Cancelled), _) => Err(plan.stopped()),
            (Some(Failure::Changed(engine, file)), _) => match self.engines.get(engine) {
                Some(held) => {
                    write_damaged(&held.folder, 1);
                    Err(held.locked.damaged(format!("`{file}` was changed")))
                }
                None => Err(Error::internal("an engine that is not there was changed")),
            },
            (None, Err(error)) => Err(io::Error::from(error)).at("write", path),
            (None, Ok(())) => Ok(()),
        }
    }

    fn fill<'b>(&'b self, job: &'b Job<'b>) -> Result<FilesystemWriter<'b, 'b, 'b>, BackhandError> {
        let mut image = FilesystemWriter::default();
        image.set_kind(Kind::new_v4(&Stored));
        image.set_compressor(FilesystemCompressor::new(Compressor::Gzip, None)?);
        image.set_block_size(DEFAULT_BLOCK_SIZE);
        image.set_time(MTIME);
        // It would take files with one short digest for the same.
        image.set_no_duplicate_files(false);
        image.set_root_mode(FOLDER);
        image.push_dir("bin", header(FOLDER))?;
        for (index, held) in self.engines.iter().enumerate() {
            let (locked, tree) = (held.locked, held.folder.join(TREE));
            let root = root(locked);
            image.push_dir(&root, header(FOLDER))?;
            for record in &held.files {
                let at = format!("{root}/{}", record.path);
                if let Some(folder) = Path::new(&at).parent() {
                    image.push_dir_all(folder, header(FOLDER))?;
                }
                let entry = record.path == locked.build.entrypoint;
                let mode = if record.executable || entry { PROGRAM } else { PLAIN };
                image.push_file(Source::new(index, record, &tree, job), &at, header(mode))?;
            }
            let at = format!("bin/{}", locked.name);
            if locked.build.path.is_empty() {
                image.push_symlink(format!("../{root}/{}", locked.build.entrypoint), at, header(0o777))?;
            } else {
                image.push_file(io::Cursor::new(script(locked)), at, header(PROGRAM))?;
            }
        }
        Ok(image)
    }
}

fn header(permissions: u16) -> NodeHeader {
    NodeHeader::new(permissions, 0, 0, MTIME)
}

/// An engine's folder.
fn root(locked: Locked<'_>) -> String {
    format!("{}-{}", locked.name, locked.version)
}

/// Starts an engine with its folders on the PATH. It is called by its path, whatever started it.
fn script(locked: Locked<'_>) -> String {
    let root = root(locked);
    let at = |path: &SafePath| format!("\"$here\"/'{}'", format!("{root}/{path}").replace('\'', r"'\''"));
    let path: String = locked.build.path.iter().map(|it| format!("{}:", at(it))).collect();
    format!("#!/bin/sh\nhere=${{0%/*}}/..\nexport PATH={path}\"$PATH\"\nexec {} \"$@\"\n", at(&locked.build.entrypoint))
}

/// What readers and the writer share.
struct Job<'a> {
    making: &'a Making<'a>,
    subject: String,
    total: u64,
    done: Cell<u64>,
    /// What `done` was when it was last told.
    shown: Cell<u64>,
    failed: RefCell<Option<Failure>>,
}

impl Job<'_> {
    /// Notes why, and ends it.
    fn fail(&self, failure: Failure) -> io::Error {
        self.failed.borrow_mut().get_or_insert(failure);
        io::Error::other("the disk was given up")
    }

    /// An adapter has thousands of small files, which nobody wants to be told of one by one.
    fn add(&self, bytes: u64) {
        let done = self.done.get() + bytes;
        self.done.set(done);
        if done - self.shown.get() < BUFFER as u64 && done < self.total {
            return;
        }
        self.shown.set(done);
        let percent = done.saturating_mul(100).checked_div(self.total).unwrap_or(100).min(100);
        self.making.progress.bytes(done, self.total);
        let doing = format!("{MAKING} {}", self.subject);
        self.making.lock.borrow_mut().percent(&doing, u8::try_from(percent).unwrap_or(100));
    }
}

/// A file of an engine on its way onto the disk, opened when it is its turn: there are thousands.
struct Source<'a> {
    engine: usize,
    record: &'a FileRecord,
    path: PathBuf,
    file: Option<File>,
    hash: blake3::Hasher,
    left: u64,
    job: &'a Job<'a>,
}

impl<'a> Source<'a> {
    fn new(engine: usize, record: &'a FileRecord, tree: &Path, job: &'a Job<'a>) -> Self {
        let path = record.path.below(tree);
        Self { engine, record, path, file: None, hash: blake3::Hasher::new(), left: record.size, job }
    }

    fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(&self.path)?),
        };
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        loop {
            match file.read(buffer.get_mut(..want).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.job.making.cancel.is_cancelled() {
            return Err(self.job.fail(Failure::Cancelled));
        }
        if buffer.is_empty() || (self.left == 0 && self.record.size > 0) {
            return Ok(0);
        }
        let read = self.next(buffer).map_err(|error| self.job.fail(Failure::Read(self.path.clone(), error)))?;
        self.hash.update(buffer.get(..read).unwrap_or_default());
        self.left -= read as u64;
        let ends = self.left == 0 || read == 0;
        if ends {
            // Thousands of them are not open at once.
            self.file = None;
            if self.left > 0 || self.hash.finalize().to_hex().as_str() != self.record.blake3 {
                return Err(self.job.fail(Failure::Changed(self.engine, self.record.path.to_string())));
            }
        }
        self.job.add(read as u64);
        Ok(read)
    }
}

/// The file that is written.
struct Out<'a> {
    inner: BufWriter<&'a File>,
    job: &'a Job<'a>,
}

impl Out<'_> {
    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => self.job.fail(Failure::Write(error)),
        })
    }
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes);
        self.note(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        self.note(flushed)
    }
}

impl Seek for Out<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let sought = self.inner.seek(to);
        self.note(sought)
    }

    // Asked for each file: what is buffered need not be written for it.
    fn stream_position(&mut self) -> io::Result<u64> {
        let position = self.inner.stream_position();
        self.note(position)
    }
}
