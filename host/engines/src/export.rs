//! An installed engine as one file, for a machine without a network.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use crate::archive::{Writer, file_name};
use crate::error::{At, Error, Result};
use crate::extract::BUFFER;
use crate::files;
use crate::findings::write_damaged;
use crate::install_lock::Hold;
use crate::ledger::{FileRecord, TREE};
use crate::lock_file::Locked;
use crate::progress::{Phase, Progress};
use crate::store::{Inner, Store, children};

/// How the name of a file that is not finished ends.
const PART: &str = ".part";
/// A part file that nobody has written to for so long may have been left by an export that died.
const QUIET: Duration = Duration::from_secs(60);

/// An engine that was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The platform that it is for, or `any`.
    pub platform: String,
    /// Number of its files.
    pub files: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// The exported file.
    pub file: PathBuf,
    /// Bytes of the exported file.
    pub file_bytes: u64,
}

impl Store {
    /// Writes each of these engines (names and versions; none is the default one) as one file into the folder
    /// `destination`, which is created. A file is there whole or not at all; one that is there already is replaced.
    ///
    /// Every byte is compared with `engines.lock` on the way, and nobody removes or replaces the engine meanwhile. The
    /// same engine is the same file, byte for byte, as long as the same pcoder writes it.
    ///
    /// # Errors
    /// As [`require`](Self::require), before anything is written; an engine is not whole, and is marked as damaged; it is
    /// being installed right now; the disk fails; cancelled.
    pub async fn export(
        &self,
        engines: &[(&str, Option<&str>)],
        destination: &Path,
        progress: Arc<dyn Progress>,
        cancel: CancellationToken,
    ) -> Result<Vec<Exported>> {
        let mut named: Vec<(String, String)> = Vec::new();
        for (name, version) in engines {
            let locked = self.inner.lookup(name, *version)?;
            self.require(name, *version)?;
            let engine = (locked.name.to_owned(), locked.version.to_owned());
            if !named.contains(&engine) {
                named.push(engine);
            }
        }
        let token = cancel.child_token();
        let _ends_it = token.clone().drop_guard();
        let (inner, destination) = (self.inner.clone(), destination.to_owned());
        let task = tokio::task::spawn_blocking(move || {
            let locked = named.iter().map(|(name, version)| inner.lookup(name, Some(version)));
            let all = locked.collect::<Result<Vec<_>>>()?;
            let total = all.iter().map(|locked| locked.build.unpacked_size()).sum();
            let mut export =
                Export { inner: &inner, progress: progress.as_ref(), cancel: &token, done: 0, shown: 0, total };
            fs::create_dir_all(&destination).at("create", &destination)?;
            progress.phase(Phase::Exporting);
            all.into_iter().map(|locked| export.one(locked, &destination)).collect()
        });
        task.await.map_err(|_| Error::internal("the thread that exports ended"))?
    }
}

struct Export<'a> {
    inner: &'a Inner,
    progress: &'a dyn Progress,
    cancel: &'a CancellationToken,
    done: u64,
    /// What `done` was when it was last told.
    shown: u64,
    total: u64,
}

impl Export<'_> {
    /// An adapter has thousands of small files, which nobody wants to be told of one by one.
    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if self.done - self.shown >= BUFFER as u64 || self.done == self.total {
            self.shown = self.done;
            self.progress.bytes(self.done, self.total);
        }
    }

    fn one(&mut self, locked: Locked<'_>, destination: &Path) -> Result<Exported> {
        let _hold = Hold::take(&self.inner.locks, &locked.key(), &locked.subject())?;
        let (_, mut files) = self.inner.listed(locked)?;
        self.inner.check_names(locked, &files)?;
        files.sort_by(|a, b| a.path.as_str().cmp(b.path.as_str()));
        let name = file_name(locked);
        let prefix = format!(".{name}.");
        sweep(destination, &prefix);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(PART);
        // As a file that the user makes, and not as a secret one: it is there to be handed on.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        // Deleted when it is dropped, unless it was renamed.
        let part = builder.tempfile_in(destination).at("create", destination)?;
        // Tells other exports that its writer lives. Not every file system has locks, and it does without.
        let _ = part.as_file().try_lock();
        let path = part.path().to_owned();
        let out = Writer::begin(BufWriter::with_capacity(1 << 20, part.as_file()), locked).at("write", &path)?;
        let out = self.fill(out, locked, &files, &path)?;
        let mut out = out.finish().at("write", &path)?;
        out.flush().at("write", &path)?;
        drop(out);
        part.as_file().sync_all().at("flush", &path)?;
        let file_bytes = part.as_file().metadata().at("read", &path)?.len();
        let file = destination.join(&name);
        part.persist(&file).map_err(|error| error.error).at("move into place", &file)?;
        // The file's own bytes are on the disk. Not every folder that files are handed over in can be flushed.
        let _ = files::flush_folder(destination);
        Ok(Exported {
            name: locked.name.to_owned(),
            version: locked.version.to_owned(),
            platform: locked.platform.to_owned(),
            files: files.len() as u64,
            bytes: files.iter().map(|file| file.size).sum(),
            file,
            file_bytes,
        })
    }

    fn fill<W: io::Write>(
        &mut self,
        mut out: Writer<W>,
        locked: Locked<'_>,
        files: &[FileRecord],
        to: &Path,
    ) -> Result<Writer<W>> {
        let folder = self.inner.engine_folder(locked);
        let tree = folder.join(TREE);
        for record in files {
            let from = record.path.below(&tree);
            let file = File::open(&from).at("open", &from)?;
            let mut reader =
                Compared { file, hash: blake3::Hasher::new(), left: record.size, export: self, failed: None };
            let written = out.file(record, BufReader::with_capacity(BUFFER, &mut reader));
            let (hash, left, failed) = (reader.hash.finalize(), reader.left, reader.failed);
            if self.cancel.is_cancelled() {
                return Err(Error::Stopped { doing: "exporting", subject: locked.subject() });
            }
            // The reader's failure is the cause of the writer's.
            failed.map_or(Ok(()), Err).at("read", &from)?;
            written.at("write", to)?;
            if left > 0 || hash.to_hex().as_str() != record.blake3 {
                write_damaged(&folder, 1);
                return Err(locked.damaged(format!("`{}` was changed", record.path)));
            }
        }
        Ok(out)
    }
}

/// A file of an engine on its way into an archive.
struct Compared<'a, 'b> {
    file: File,
    hash: blake3::Hasher,
    left: u64,
    export: &'a mut Export<'b>,
    failed: Option<io::Error>,
}

impl Read for Compared<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.export.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = match buffer.get_mut(..want).map_or(Ok(0), |buffer| self.file.read(buffer)) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                return Err(kind.into());
            }
        };
        if let Some(bytes) = buffer.get(..read) {
            self.hash.update(bytes);
        }
        self.left -= read as u64;
        self.export.add(read as u64);
        Ok(read)
    }
}

/// Deletes what exports of the same engine that died left. Whatever fails: it is only litter.
fn sweep(destination: &Path, prefix: &str) {
    for name in children(destination).unwrap_or_default() {
        let path = destination.join(&name);
        if name.starts_with(prefix)
            && name.ends_with(PART)
            && let Ok(file) = File::options().read(true).write(true).open(&path)
            && file.metadata().and_then(|data| data.modified()).is_ok_and(quiet)
            && file.try_lock().is_ok()
        {
            drop(file);
            let _ = fs::remove_file(&path);
        }
    }
}

fn quiet(changed: SystemTime) -> bool {
    changed.elapsed().is_ok_and(|age| age > QUIET)
}
