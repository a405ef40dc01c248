//! An archive as it is sent: one stream in parts, so that an instance with several processors can unpack two at once.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::describe::Packing;

/// Sources become little smaller above it, and take several times as long.
const GZIP_LEVEL: Compression = Compression::new(2);
const ZSTD_LEVEL: i32 = 1;
/// To make a file takes as long as to write this many bytes of one.
const FILE: u64 = 16 << 10;
/// Below this weight, to start another process takes longer than it saves.
const LEAST: u64 = 8 << 20;
/// What a part weighs, unless half of everything is less.
const MOST: u64 = 64 << 20;
/// The most bytes of a part that lies on the instance's disk until the one beside it has come.
const WAITS_MOST: u64 = 2 * MOST;

/// How long something takes to unpack, as the bytes of a file that takes as long.
pub(crate) fn weight(size: u64) -> u64 {
    size.saturating_add(FILE)
}

/// Packs what is written to it. Whoever knows nothing of its parts unpacks it as one.
pub(crate) struct Stream {
    how: Packing,
    encoder: Encoder,
    /// The lengths of all parts but the last.
    parts: Vec<usize>,
    /// What one weighs, and what this one does.
    each: u64,
    weight: u64,
    /// What is still to come.
    left: u64,
    /// What was written to this one.
    written: u64,
}

impl Stream {
    /// For things that weigh this much together.
    pub(crate) fn new(how: Packing, weight: u64) -> io::Result<Self> {
        let each = if weight < LEAST { u64::MAX } else { MOST.min(weight / 2) };
        let encoder = Encoder::new(how, Vec::new())?;
        Ok(Self { how, encoder, parts: Vec::new(), each, weight: 0, left: weight, written: 0 })
    }

    /// Told before something of this weight is written. Whether a part begins with it.
    pub(crate) fn begins_with(&mut self, weight: u64) -> io::Result<bool> {
        let waits = self.parts.len().is_multiple_of(2);
        let begins = self.weight >= self.each && self.left >= LEAST / 2 && (!waits || self.written <= WAITS_MOST);
        if begins {
            let done = std::mem::replace(&mut self.encoder, Encoder::Plain(Vec::new())).finish()?;
            self.parts.push(done.len() - self.parts.iter().sum::<usize>());
            self.encoder = Encoder::new(self.how, done)?;
            (self.weight, self.written) = (0, 0);
        }
        self.weight = self.weight.saturating_add(weight);
        self.left = self.left.saturating_sub(weight);
        Ok(begins)
    }

    /// The lengths of all parts but the last, as the script is told them.
    pub(crate) fn parts(&self) -> String {
        self.parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn finish(self) -> io::Result<Vec<u8>> {
        self.encoder.finish()
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.encoder {
            Encoder::Gzip(encoder) => encoder.write(bytes),
            Encoder::Zstd(encoder) => encoder.write(bytes),
            Encoder::Plain(sink) => sink.write(bytes),
        }?;
        self.written = self.written.saturating_add(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Encoder {
    Gzip(Box<GzEncoder<Vec<u8>>>),
    Zstd(zstd::Encoder<'static, Vec<u8>>),
    Plain(Vec<u8>),
}

impl Encoder {
    /// Writes to the end of what is there.
    fn new(how: Packing, done: Vec<u8>) -> io::Result<Self> {
        Ok(match how {
            Packing::None => Self::Plain(done),
            Packing::Gzip => Self::Gzip(Box::new(GzEncoder::new(done, GZIP_LEVEL))),
            Packing::Zstd => Self::Zstd(zstd::Encoder::new(done, ZSTD_LEVEL)?),
        })
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Plain(bytes) => Ok(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Files of this size, and the parts that they come in; the last one's length too.
    fn sent(how: Packing, files: u64, size: usize) -> (Vec<u8>, Vec<usize>) {
        let mut stream = Stream::new(how, files * weight(size as u64)).unwrap();
        for file in 0..files {
            stream.begins_with(weight(size as u64)).unwrap();
            stream.write_all(&vec![u8::try_from(file % 251).unwrap(); size]).unwrap();
        }
        let mut lengths = stream.parts.clone();
        let bytes = stream.finish().unwrap();
        lengths.push(bytes.len() - lengths.iter().sum::<usize>());
        (bytes, lengths)
    }

    fn unpacked(how: Packing, bytes: &[u8]) -> Vec<u8> {
        match how {
            Packing::None => bytes.to_vec(),
            Packing::Gzip => {
                let mut all = Vec::new();
                flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut all).unwrap();
                all
            }
            Packing::Zstd => zstd::decode_all(bytes).unwrap(),
        }
    }

    #[test]
    fn each_part_is_whole_and_so_are_all_together() {
        for how in [Packing::None, Packing::Gzip, Packing::Zstd] {
            let (bytes, lengths) = sent(how, 2_000, 10_000);
            assert_eq!(lengths.len(), 2, "{how:?}");
            let (first, second) = bytes.split_at(lengths[0]);
            let halves = [unpacked(how, first), unpacked(how, second)];
            assert_eq!(halves.each_ref().map(Vec::len), [10_000_000; 2], "{how:?}");
            assert_eq!(unpacked(how, &bytes), halves.concat(), "{how:?}");
        }
    }

    #[test]
    fn what_is_little_is_one_part_and_what_is_much_is_many() {
        let parts = |files, size| sent(Packing::None, files, size).1.len();
        assert_eq!(parts(1, 100 << 20), 1);
        assert_eq!(parts(100, 10_000), 1);
        assert_eq!(parts(600, 0), 2);
        assert_eq!(parts(300, 1 << 20), 5);
    }

    #[test]
    fn what_waits_on_a_disk_has_a_limit() {
        let (_, lengths) = sent(Packing::None, 2, 130 << 20);
        // The first would wait.
        assert_eq!(lengths, [260 << 20]);
    }
}
