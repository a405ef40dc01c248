//! A file from its end: what the next record follows, and the newest records first.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use crate::error::{At as _, Error, Result};
use crate::line::{self, MAX_LINE, Place, VERSION};

const CHUNK: u64 = 64 << 10;

/// Lines from the last to the first. It holds no more than the longest line and a chunk.
pub(crate) struct Backward<'a> {
    file: &'a File,
    /// What is before this was not read yet.
    start: u64,
    /// What was read and not yet handed out; it ends where the last line handed out begins.
    buffer: Vec<u8>,
    /// The end of the line was dropped because the line is too long.
    cut: bool,
}

/// A line, without its newline.
pub(crate) struct BackwardLine {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ended: bool,
}

impl<'a> Backward<'a> {
    pub(crate) fn new(file: &'a File) -> io::Result<Self> {
        Ok(Self { file, start: file.metadata()?.len(), buffer: Vec::new(), cut: false })
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<BackwardLine>> {
        if self.buffer.is_empty() && !self.read_more()? {
            return Ok(None);
        }
        let ended = self.buffer.pop_if(|it| *it == b'\n').is_some();
        loop {
            if let Some(newline) = self.buffer.iter().rposition(|it| *it == b'\n') {
                let bytes = self.buffer.split_off(newline + 1);
                return Ok(Some(self.line(bytes, ended)));
            }
            if self.buffer.len() > MAX_LINE {
                self.buffer.clear();
                self.cut = true;
            }
            if !self.read_more()? {
                let bytes = std::mem::take(&mut self.buffer);
                return Ok(Some(self.line(bytes, ended)));
            }
        }
    }

    /// What is left of a line that is too long is no line of ours.
    fn line(&mut self, bytes: Vec<u8>, ended: bool) -> BackwardLine {
        let bytes = if std::mem::take(&mut self.cut) { Vec::new() } else { bytes };
        BackwardLine { bytes, ended }
    }

    fn read_more(&mut self) -> io::Result<bool> {
        let begin = self.start.saturating_sub(CHUNK);
        let mut chunk = Vec::new();
        let mut file = self.file;
        file.seek(SeekFrom::Start(begin))?;
        file.take(self.start - begin).read_to_end(&mut chunk)?;
        self.start = begin;
        let more = !chunk.is_empty();
        chunk.append(&mut self.buffer);
        self.buffer = chunk;
        Ok(more)
    }
}

/// What the end of a file says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Lines of this format, or none.
    Ours(Tail),
    /// Lines without a chain, of the format before this one.
    Legacy,
}

/// The end of a file of this format.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The last whole record.
    pub(crate) last: Option<Place>,
    /// Something else is behind it.
    pub(crate) torn: bool,
    /// The last line has its newline.
    pub(crate) ended: bool,
    pub(crate) len: u64,
    /// The number that the first line has.
    pub(crate) first_seq: Option<u64>,
}

/// Looks at a file. It is not changed.
pub(crate) fn look(file: &File, path: &Path) -> Result<Found> {
    let len = file.metadata().at("read", path)?.len();
    let first = first_bytes(file).at("read", path)?;
    refuse_newer(&first, path)?;
    let mut tail = Tail { last: None, torn: false, ended: true, len, first_seq: line::claimed_seq(&first) };
    let mut lines = Backward::new(file).at("read", path)?;
    let mut at_end = true;
    while let Some(line) = lines.next().at("read", path)? {
        if std::mem::take(&mut at_end) {
            tail.ended = line.ended;
        }
        if let Some(link) = line::parse(&line.bytes) {
            tail.last = Some(link.place);
            return Ok(Found::Ours(tail));
        }
        refuse_newer(&line.bytes, path)?;
        tail.torn = true;
    }
    Ok(if line::begins_a_file(&first) { Found::Ours(tail) } else { Found::Legacy })
}

/// Enough of the first line to know it by.
pub(crate) fn first_bytes(mut file: &File) -> io::Result<Vec<u8>> {
    let mut first = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(256).read_to_end(&mut first)?;
    let end = first.iter().position(|it| *it == b'\n').unwrap_or(first.len());
    first.truncate(end);
    Ok(first)
}

fn refuse_newer(line: &[u8], path: &Path) -> Result<()> {
    match line::newer_version(line) {
        Some(found) => Err(Error::Newer { path: path.to_path_buf(), found, known: VERSION }),
        None => Ok(()),
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.seq, self.hash)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn backward(content: &[u8]) -> Vec<(Vec<u8>, bool)> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("written");
        let mut lines = Backward::new(&file).expect("opened");
        let mut all = Vec::new();
        while let Some(line) = lines.next().expect("read") {
            all.push((line.bytes, line.ended));
        }
        all.reverse();
        all
    }

    proptest::proptest! {
        #[test]
        fn backward_gives_the_same_lines_as_forward(
            lines in proptest::collection::vec((0usize..70_000, b'a'..=b'z'), 0..6), ended: bool,
        ) {
            let mut content: Vec<u8> =
                lines.iter().flat_map(|(len, byte)| [vec![*byte; *len], b"\n".to_vec()].concat()).collect();
            if !ended {
                content.pop();
            }
            let mut forward = line::Lines::new(&content[..]);
            let mut expected = Vec::new();
            while let Some(line) = forward.next().expect("read") {
                expected.push((line.bytes.to_vec(), true));
            }
            if let Some((_, last)) = expected.last_mut() {
                *last = content.ends_with(b"\n");
            }
            proptest::prop_assert_eq!(backward(&content), expected);
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_none_of_ours_and_the_one_before_is_found() {
        let content = [b"before\n".to_vec(), vec![b'x'; 2 * MAX_LINE], b"\nafter\n".to_vec()].concat();
        let lines = backward(&content);
        assert_eq!(lines, [(b"before".to_vec(), true), (Vec::new(), true), (b"after".to_vec(), true)]);
    }
}
