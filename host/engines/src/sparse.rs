//! Writing files in which what is zero takes no room: the disk of a virtual machine is nearly all zeroes.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};

/// What file systems give and take room by. Smaller runs of zeroes are written.
const BLOCK: usize = 4096;
static ZEROES: [u8; BLOCK] = [0; BLOCK];

/// Appends to a file. Between two calls the file is as long as what was written, also where that was zeroes: how far it
/// came can be told from its length.
///
/// Where the file system knows no holes, the room is taken all the same.
#[derive(Debug)]
pub struct SparseWriter {
    file: File,
    at: u64,
}

impl SparseWriter {
    /// Goes on at the end of a file that has `length` bytes and is open for writing.
    pub fn new(file: File, length: u64) -> Self {
        Self { file, at: length }
    }

    /// Writes what follows.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        let mut hole = false;
        while !rest.is_empty() {
            let (run, zero) = self.run(rest);
            let (now, later) = rest.split_at(run);
            if !zero {
                self.file.seek(SeekFrom::Start(self.at))?;
                self.file.write_all(now)?;
            }
            hole = zero;
            self.at += run as u64;
            rest = later;
        }
        if hole { self.file.set_len(self.at) } else { Ok(()) }
    }

    /// Writes so many zeroes.
    ///
    /// # Errors
    /// The system's.
    pub fn skip(&mut self, count: u64) -> io::Result<()> {
        self.at += count;
        self.file.set_len(self.at)
    }

    /// Flushes it to the disk.
    ///
    /// # Errors
    /// The system's.
    pub fn finish(self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// The length of the first run of whole blocks that are all zero, or of those that are not.
    fn run(&self, bytes: &[u8]) -> (usize, bool) {
        let mut length = 0;
        let mut kind = None;
        while length < bytes.len() {
            // Blocks lie as the file's own do, wherever this piece begins.
            let offset = usize::try_from((self.at + length as u64) % BLOCK as u64).unwrap_or(0);
            let block = (BLOCK - offset).min(bytes.len() - length);
            let zero = bytes.get(length..length + block) == ZEROES.get(..block);
            if kind.is_some_and(|kind| kind != zero) {
                break;
            }
            kind = Some(zero);
            length += block;
        }
        (length, kind.unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(pieces: &[Vec<u8>]) -> (Vec<u8>, Vec<u64>, std::fs::Metadata) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = SparseWriter::new(file.reopen().unwrap(), 0);
        let mut lengths = Vec::new();
        for piece in pieces {
            writer.write(piece).unwrap();
            lengths.push(file.path().metadata().unwrap().len());
        }
        writer.finish().unwrap();
        (std::fs::read(file.path()).unwrap(), lengths, file.path().metadata().unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_file_is_what_was_written_and_always_as_long(
            pieces in prop::collection::vec((any::<u8>(), 0_usize..9000).prop_map(|(byte, count)| {
                // Half of them zeroes.
                vec![if byte < 128 { 0 } else { byte }; count]
            }), 0..8),
        ) {
            let (bytes, lengths, _) = written(&pieces);
            prop_assert_eq!(&bytes, &pieces.concat());
            let mut length = 0;
            let expected: Vec<u64> = pieces.iter().map(|piece| { length += piece.len() as u64; length }).collect();
            prop_assert_eq!(lengths, expected);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn zeroes_take_no_room() {
        use std::os::unix::fs::MetadataExt as _;
        let (bytes, _, data) = written(&[vec![1; 4096], vec![0; 8 << 20], vec![2; 10], vec![0; 5 << 20]]);
        assert_eq!(bytes.len(), 4096 + (13 << 20) + 10);
        assert!(data.blocks() * 512 < 1 << 20, "{} blocks", data.blocks());
    }

    #[test]
    fn it_goes_on_where_another_one_stopped() {
        let file = tempfile::NamedTempFile::new().unwrap();
        SparseWriter::new(file.reopen().unwrap(), 0).write(&[0; 5000]).unwrap();
        let mut writer = SparseWriter::new(file.reopen().unwrap(), 5000);
        writer.write(b"end").unwrap();
        writer.skip(7).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!((bytes.len(), &bytes[5000..5003]), (5010, &b"end"[..]));
    }
}
