//! Files from the instance: in which runs they come, and taking them out of what came.
//!
//! What comes is not trusted. Nothing in it decides where anything is written: each file that was asked for has a number,
//! and is written to the staging folder under that.

use std::collections::BTreeMap;
use std::io::{self, Read, Write as _};
use std::path::Path;

use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt as _};
use cap_std::fs::{Dir, File, OpenOptions};
use flate2::read::MultiGzDecoder;
use tar::EntryType;

use crate::error::{At as _, Error, Result};
use crate::local;
use crate::pack::{Tick, here};
use crate::path::TreePath;
use crate::remote::quoted;
use crate::report::Reason;
use crate::tree::Sum;

/// A file that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) path: TreePath,
    pub(crate) size: u64,
    pub(crate) sum: Sum,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Run {
    /// Whole files, by their places in the list.
    Files(Vec<usize>),
    /// A piece of one that is too large.
    Piece { file: usize, offset: u64, length: u64 },
}

/// What a file takes in an archive: its header, two more for a long name, and what fills up its last block.
fn packed_size(wanted: &Wanted) -> u64 {
    let long = wanted.path.as_bytes().len() as u64 + 2;
    wanted.size.saturating_add(4 * 512 + long.next_multiple_of(512))
}

/// What a file of that size may have become when it is packed and cannot be made smaller.
fn grown(size: u64) -> u64 {
    size.saturating_add(size / 1000).saturating_add(64 << 10)
}

/// Divides files into runs whose output stays below a limit, should nothing of it get smaller.
pub(crate) fn runs(wanted: &[Wanted], limit: u64) -> Vec<Run> {
    let mut runs = Vec::new();
    let (mut files, mut size) = (Vec::new(), 0u64);
    for (index, file) in wanted.iter().enumerate() {
        let one = packed_size(file);
        if grown(one) > limit {
            // At least something in each run, however small the limit is.
            let length = limit.saturating_sub(64 << 10).saturating_mul(999) / 1000;
            let length = length.max(limit / 2).max(1);
            let mut offset = 0;
            while offset < file.size {
                let length = length.min(file.size - offset);
                runs.push(Run::Piece { file: index, offset, length });
                offset += length;
            }
            if file.size == 0 {
                runs.push(Run::Files(vec![index]));
            }
            continue;
        }
        if grown(size.saturating_add(one)) > limit && !files.is_empty() {
            runs.push(Run::Files(std::mem::take(&mut files)));
            size = 0;
        }
        files.push(index);
        size = size.saturating_add(one);
    }
    if !files.is_empty() {
        runs.push(Run::Files(files));
    }
    runs
}

impl Run {
    /// The script, and what it is fed.
    pub(crate) fn script(&self, root: &str, wanted: &[Wanted]) -> (String, Vec<u8>) {
        let root = format!("root={}\n", quoted(root));
        let name = |it: usize| wanted.get(it).map(|it| [here(&it.path), vec![0]].concat()).unwrap_or_default();
        match self {
            Self::Files(files) => {
                (root + include_str!("scripts/fetch.sh"), files.iter().flat_map(|it| name(*it)).collect())
            }
            Self::Piece { file, offset, length } => {
                let numbers = format!("offset={offset}\nlength={length}\n");
                (root + &numbers + include_str!("scripts/piece.sh"), name(*file))
            }
        }
    }
}

/// A staging folder with what came so far.
pub(crate) struct Staging<'a> {
    pub(crate) dir: &'a Dir,
    /// For errors.
    pub(crate) shown: &'a Path,
    pub(crate) wanted: &'a [Wanted],
    /// For each file why it did not come; nothing for one that did.
    pub(crate) missing: Vec<Option<Reason>>,
    pub(crate) done: u64,
    pub(crate) tick: Tick<'a>,
}

/// A file that was not there, and that only its owner can read.
pub(crate) fn new_file(folder: &Dir, name: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).follow(FollowSymlinks::No);
    #[cfg(unix)]
    cap_std::fs::OpenOptionsExt::mode(&mut options, 0o600);
    folder.open_with(name, &options)
}

/// The name of a file in the staging folder.
pub(crate) fn staged(index: usize) -> String {
    index.to_string()
}

impl<'a> Staging<'a> {
    pub(crate) fn new(dir: &'a Dir, shown: &'a Path, wanted: &'a [Wanted], tick: Tick<'a>) -> Self {
        let missing = vec![Some(Reason::Changed); wanted.len()];
        Self { dir, shown, wanted, missing, done: 0, tick }
    }

    /// Takes what a run wrote.
    ///
    /// # Errors
    /// `Garbled`, `Io`.
    pub(crate) fn take(&mut self, run: &Run, output: &[u8]) -> Result<()> {
        let plain: Box<dyn Read> =
            if output.starts_with(&[0x1f, 0x8b]) { Box::new(MultiGzDecoder::new(output)) } else { Box::new(output) };
        match run {
            Run::Files(files) => self.archive(files, plain),
            Run::Piece { file, offset, length } => self.piece(*file, *offset, *length, plain),
        }
    }

    fn archive(&mut self, files: &[usize], plain: Box<dyn Read + '_>) -> Result<()> {
        let expected: u64 = files.iter().filter_map(|it| self.wanted.get(*it)).map(packed_size).sum();
        // Some more, as files may have grown; without an end, as a few bytes can be packed zeros for hours.
        let most = expected.saturating_mul(2).saturating_add(64 << 20);
        let by_name: BTreeMap<&TreePath, usize> =
            files.iter().filter_map(|it| Some((&self.wanted.get(*it)?.path, *it))).collect();
        let mut seen: BTreeMap<usize, bool> = BTreeMap::new();
        let mut archive = tar::Archive::new(plain.take(most));
        // Several archives one after the other, each with an end of its own.
        archive.set_ignore_zeros(true);
        let bad = |error: io::Error| Error::garbled(format!("an archive cannot be unpacked: {error}"));
        for entry in archive.entries().map_err(bad)? {
            let mut entry = entry.map_err(bad)?;
            let name = entry.path_bytes().into_owned();
            let strange = || Error::garbled(format!("an archive has `{}`, not asked for", name.escape_ascii()));
            let plain = name.strip_prefix(b"./").unwrap_or(&name);
            let plain = plain.strip_suffix(b"/").filter(|_| entry.header().entry_type().is_dir()).unwrap_or(plain);
            let path = TreePath::new(plain).ok_or_else(strange)?;
            let Some(index) = by_name.get(&path).copied() else {
                // What was a file may have become a folder meanwhile.
                if by_name.keys().any(|it| path.is_in(it)) {
                    continue;
                }
                return Err(strange());
            };
            if seen.insert(index, false).is_some() {
                return Err(Error::garbled(format!("an archive has {path:?} twice")));
            }
            match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    let size = entry.size();
                    if self.wanted.get(index).is_some_and(|it| it.size == size) {
                        self.write(index, 0, &mut entry)?;
                        self.check(index)?;
                        seen.insert(index, true);
                    }
                }
                EntryType::Link => {
                    // The second name of a file that came before.
                    let target = entry.link_name_bytes().unwrap_or_default();
                    let target = TreePath::new(target.strip_prefix(b"./").unwrap_or(&target));
                    let first = target.and_then(|it| by_name.get(&it).copied());
                    let first = first.filter(|it| *it != index && seen.contains_key(it)).ok_or_else(strange)?;
                    if seen.get(&first) == Some(&true) {
                        let mut copy = self.dir.open(staged(first)).at("read", self.shown)?;
                        self.write(index, 0, &mut copy)?;
                        self.check(index)?;
                        seen.insert(index, true);
                    }
                }
                // It was a file when it was described.
                EntryType::Symlink | EntryType::Directory => {}
                _ => return Err(Error::garbled(format!("an archive has {path:?} as something that is no file"))),
            }
        }
        let mut rest = archive.into_inner();
        let left = io::copy(&mut rest, &mut io::sink()).map_err(bad)?;
        if left > 0 || rest.limit() == 0 {
            return Err(Error::garbled("an archive is longer than what was asked for"));
        }
        Ok(())
    }

    fn piece(&mut self, file: usize, offset: u64, length: u64, plain: Box<dyn Read + '_>) -> Result<()> {
        let Some(wanted) = self.wanted.get(file) else { return Ok(()) };
        let mut content = plain.take(length.saturating_add(1));
        let mut bytes = Vec::new();
        let bad = |error: io::Error| Error::garbled(format!("a piece of a file cannot be unpacked: {error}"));
        content.read_to_end(&mut bytes).map_err(bad)?;
        if bytes.len() as u64 > length {
            return Err(Error::garbled("a piece of a file is longer than what was asked for"));
        }
        self.write(file, offset, &mut bytes.as_slice())?;
        if offset + length == wanted.size {
            self.check(file)?;
        }
        Ok(())
    }

    fn write(&mut self, index: usize, offset: u64, content: &mut dyn Read) -> Result<()> {
        let name = staged(index);
        let opened = if offset == 0 {
            new_file(self.dir, Path::new(&name))
        } else {
            self.dir.open_with(&name, OpenOptions::new().append(true).follow(FollowSymlinks::No))
        };
        let mut file = opened.at("write", self.shown)?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let read =
                content.read(&mut buffer).map_err(|error| Error::garbled(format!("a file breaks off: {error}")))?;
            if read == 0 {
                return Ok(());
            }
            file.write_all(&buffer[..read]).at("write", self.shown)?;
            self.done = self.done.saturating_add(read as u64);
            (self.tick)(self.done);
        }
    }

    /// Whether what came is what was described.
    fn check(&mut self, index: usize) -> Result<()> {
        let file = self.dir.open(staged(index)).at("read", self.shown)?;
        let (_, sum) = local::sum_of(file).at("read", self.shown)?;
        if let (Some(wanted), Some(missing)) = (self.wanted.get(index), self.missing.get_mut(index)) {
            *missing = (sum != wanted.sum).then_some(Reason::Changed);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
