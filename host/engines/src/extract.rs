//! gzip and tar, read as a stream, with every entry judged before anything of it reaches the disk.
//!
//! What an archive may hold: regular files and folders below one common first component, which is taken away as npm
//! does. Everything else is refused: links, devices, fifos, sparse files, paths that [`SafePath`] refuses, two files that
//! some file system takes for one, a file where a folder is, more files or bytes than the lock file says.
//!
//! Long names (pax, GNU) are read here and not by the `tar` crate, which would read one of any length into memory.

use std::collections::HashSet;
use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;
use tar::{Archive, EntryType, PaxExtensions};

use crate::safe_path::{SafePath, fold};

/// Size of a buffer of unpacked bytes.
pub(crate) const BUFFER: usize = 256 * 1024;
/// Longest pax or GNU header that is read. Names are at most 1024 bytes.
const MAX_EXTENSION: u64 = 64 * 1024;

/// What the lock file says about an archive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Number of files.
    pub(crate) files: u64,
}

impl Limits {
    /// Bytes of the tar stream at most: files, their padding and headers, folders, extensions.
    fn stream(self) -> u64 {
        self.bytes.saturating_add(self.files.saturating_mul(8 * 1024)).saturating_add(1024 * 1024)
    }
}

/// Where an archive's files go.
pub(crate) trait Sink {
    /// A file begins. `path` is without the common first component.
    fn file(&mut self, path: SafePath, size: u64, executable: bool) -> Result<(), Stop>;
    /// An empty buffer of [`BUFFER`] bytes.
    fn buffer(&mut self) -> Result<Vec<u8>, Stop>;
    /// The next `len` bytes of the file.
    fn data(&mut self, buffer: Vec<u8>, len: usize) -> Result<(), Stop>;
    /// The file ends.
    fn end(&mut self) -> Result<(), Stop>;
}

/// The sink wants no more: it failed, and says itself why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stop;

/// Why an archive was not read to its end.
#[derive(Debug)]
pub(crate) enum ExtractError {
    /// The archive is refused or broken.
    Refused(String),
    /// The sink stopped.
    Stopped,
}

impl From<Stop> for ExtractError {
    fn from(_: Stop) -> Self {
        Self::Stopped
    }
}

fn refused(reason: impl Into<String>) -> ExtractError {
    ExtractError::Refused(reason.into())
}

fn broken(error: &io::Error) -> ExtractError {
    refused(format!("it is damaged ({error})"))
}

/// Reads a `.tgz` into a sink. Bytes after the end of the archive are not read.
pub(crate) fn extract(tgz: impl BufRead, limits: Limits, sink: &mut impl Sink) -> Result<(), ExtractError> {
    let reader = Limited { inner: GzDecoder::new(tgz), left: limits.stream() };
    let mut archive = Archive::new(reader);
    let mut judge = Judge::new(limits);
    let mut long_name: Option<Vec<u8>> = None;
    let entries = archive.entries().map_err(|error| broken(&error))?.raw(true);
    for entry in entries {
        let mut entry = entry.map_err(|error| broken(&error))?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::XHeader => {
                let pax = read_extension(&mut entry)?;
                if let Some(name) = pax_name(&pax, &entry)? {
                    long_name = Some(name);
                }
                continue;
            }
            EntryType::GNULongName => {
                let mut name = read_extension(&mut entry)?;
                while name.last() == Some(&0) {
                    name.pop();
                }
                long_name = Some(name);
                continue;
            }
            // `git archive` writes its commit into one. Nothing in it may concern a file's name.
            EntryType::XGlobalHeader => {
                let pax = read_extension(&mut entry)?;
                if pax_name(&pax, &entry)?.is_some() {
                    return Err(refused("a global header names a path"));
                }
                continue;
            }
            EntryType::Regular | EntryType::Directory => {}
            other => {
                return Err(refused(format!("`{}` is {}", lossy(&entry, long_name.as_deref()), kind_name(other))));
            }
        }
        let name = long_name.take().unwrap_or_else(|| entry.header().path_bytes().into_owned());
        if kind == EntryType::Directory {
            judge.folder(&name)?;
            if entry.size() != 0 {
                return Err(refused("a folder has contents"));
            }
            continue;
        }
        let size = entry.size();
        let path = judge.file(&name, size)?;
        let executable = entry.header().mode().map_err(|error| broken(&error))? & 0o111 != 0;
        sink.file(path, size, executable)?;
        copy(&mut entry, size, sink)?;
        sink.end()?;
    }
    Ok(())
}

/// Fills whole buffers, so that the writer makes few and large writes.
fn copy(entry: &mut impl Read, size: u64, sink: &mut impl Sink) -> Result<(), ExtractError> {
    let mut left = size;
    while left > 0 {
        let mut buffer = sink.buffer()?;
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut filled = 0;
        while let Some(free) = buffer.get_mut(filled..want).filter(|free| !free.is_empty()) {
            match entry.read(free) {
                Ok(0) => return Err(refused("it ends in the middle of a file")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(&error)),
            }
        }
        left -= filled as u64;
        sink.data(buffer, filled)?;
    }
    Ok(())
}

fn read_extension<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Vec<u8>, ExtractError> {
    if entry.size() > MAX_EXTENSION {
        return Err(refused("an extension header is too large"));
    }
    let mut bytes = Vec::new();
    entry.take(MAX_EXTENSION).read_to_end(&mut bytes).map_err(|error| broken(&error))?;
    Ok(bytes)
}

/// The path of a pax header. A size in one would make two readers see two archives, so it is refused.
fn pax_name<R: Read>(pax: &[u8], _entry: &tar::Entry<'_, R>) -> Result<Option<Vec<u8>>, ExtractError> {
    let mut name = None;
    for extension in PaxExtensions::new(pax) {
        let extension = extension.map_err(|error| broken(&error))?;
        match extension.key_bytes() {
            b"path" => name = Some(extension.value_bytes().to_vec()),
            b"size" | b"linkpath" => {
                return Err(refused("a pax header changes a size or names a link"));
            }
            key if key.starts_with(b"GNU.sparse") => return Err(refused("it has a sparse file")),
            _ => {}
        }
    }
    Ok(name)
}

fn lossy<R: Read>(entry: &tar::Entry<'_, R>, long_name: Option<&[u8]>) -> String {
    let name = long_name.map_or_else(|| entry.header().path_bytes(), |name| name.into());
    String::from_utf8_lossy(&name).chars().filter(|c| !c.is_control()).take(200).collect()
}

fn kind_name(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Link => "a hard link",
        EntryType::Symlink => "a symbolic link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a fifo",
        EntryType::GNUSparse => "a sparse file",
        EntryType::GNULongLink => "a link with a long name",
        _ => "neither a file nor a folder",
    }
}

/// Remembers what was seen, and refuses what does not fit to it.
struct Judge {
    limits: Limits,
    bytes: u64,
    prefix: Option<String>,
    files: HashSet<String>,
    folders: HashSet<String>,
}

impl Judge {
    fn new(limits: Limits) -> Self {
        Self { limits, bytes: 0, prefix: None, files: HashSet::new(), folders: HashSet::new() }
    }

    fn file(&mut self, name: &[u8], size: u64) -> Result<SafePath, ExtractError> {
        let full = SafePath::parse(name).map_err(|error| refused(error.to_string()))?;
        let Some(path) = self.strip(&full)? else {
            return Err(refused(format!("`{full}` is not below the package's folder")));
        };
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.bytes {
            return Err(refused(format!("it unpacks to more than the {} bytes of the lock", self.limits.bytes)));
        }
        if self.files.len() as u64 >= self.limits.files {
            return Err(refused(format!("it has more than the {} files of the lock", self.limits.files)));
        }
        let folded = path.folded();
        if self.folders.contains(&folded) {
            return Err(refused(format!("`{path}` is a file and a folder")));
        }
        for parent in path.parents() {
            let parent = fold(parent);
            if self.files.contains(&parent) {
                return Err(refused(format!("`{parent}` is a file and a folder")));
            }
            self.folders.insert(parent);
        }
        if !self.files.insert(folded) {
            return Err(refused(format!("`{path}` is there twice, for some file systems at least")));
        }
        Ok(path)
    }

    /// Folders are made when a file needs them. Here they are only looked at.
    fn folder(&mut self, name: &[u8]) -> Result<(), ExtractError> {
        let name = name.strip_suffix(b"/").unwrap_or(name);
        let full = SafePath::parse(name).map_err(|error| refused(error.to_string()))?;
        if let Some(path) = self.strip(&full)?
            && self.files.contains(&path.folded())
        {
            return Err(refused(format!("`{path}` is a file and a folder")));
        }
        Ok(())
    }

    fn strip(&mut self, full: &SafePath) -> Result<Option<SafePath>, ExtractError> {
        let (first, rest) = full.split_first();
        match &self.prefix {
            None => self.prefix = Some(first.to_owned()),
            Some(prefix) if prefix == first => {}
            Some(prefix) => {
                return Err(refused(format!("`{full}` is not below `{prefix}/` as the others are")));
            }
        }
        Ok(rest)
    }
}

/// Fails when more bytes come than the lock file allows: what stops a decompression bomb.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it unpacks to more than the lock allows"))?;
        Ok(read)
    }
}
