//! A line's bytes: how a record is written, and how it is known again.

use std::io::{self, BufRead, Read as _};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// The version that every line begins with.
pub(crate) const VERSION: u64 = 1;
/// The longest line, without its end. A record is some 400 bytes.
pub(crate) const MAX_LINE: usize = 1 << 20;
/// Larger numbers are not exact in every reader of JSON.
const MAX_SEQ: u64 = (1 << 53) - 1;

const BEGIN: &[u8] = b"{\"schema_version\":";
const SEQ: &[u8] = b",\"seq\":";
const PREV: &[u8] = b",\"prev\":\"";
const AFTER_TORN: &[u8] = b",\"after_torn\":true";
const HASH: &[u8] = b",\"hash\":\"";
const END: &[u8] = b"\"}";
/// Fields of ours. Where a record had one too, nobody could say which one counts.
const RESERVED: [&[u8]; 5] = [b"\"schema_version\"", b"\"seq\"", b"\"prev\"", b"\"after_torn\"", b"\"hash\""];

/// A SHA-256 as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Hex([u8; 64]);

impl Hex {
    /// Stands before the first record.
    pub(crate) const ZERO: Self = Self([b'0'; 64]);

    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut hex = [0; 64];
        // The lengths fit, so this cannot fail.
        let _ = hex::encode_to_slice(Sha256::digest(bytes), &mut hex);
        Self(hex)
    }

    /// Takes exactly 64 lower-case digits, so that one hash has one spelling.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let digits: [u8; 64] = text.try_into().ok()?;
        digits.iter().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f')).then_some(Self(digits))
    }
}

impl std::fmt::Display for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// The number and the hash of a record: noted elsewhere, they prove everything up to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its number, from 1.
    pub seq: u64,
    /// Its hash, 64 lower-case hexadecimal digits.
    pub hash: String,
}

/// A record's place in the chain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) seq: u64,
    pub(crate) hash: Hex,
}

impl Place {
    /// Before the first record.
    pub(crate) const START: Self = Self { seq: 0, hash: Hex::ZERO };

    pub(crate) fn head(self) -> Head {
        Head { seq: self.seq, hash: self.hash.to_string() }
    }
}

/// What a whole line says about the chain. Its hash was checked.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    pub(crate) place: Place,
    pub(crate) prev: Hex,
    pub(crate) after_torn: bool,
}

impl Link {
    pub(crate) fn follows(&self, before: Place) -> bool {
        self.place.seq == before.seq + 1 && self.prev == before.hash
    }
}

/// A record as JSON, checked to be one that can be chained.
pub(crate) fn body(record: &impl Serialize) -> Result<Vec<u8>> {
    let refuse = |reason: &str| Error::Record { reason: reason.to_owned() };
    let mut body = Vec::with_capacity(512);
    serde_json::to_writer(&mut body, record).map_err(|error| refuse(&error.to_string()))?;
    if body.first() != Some(&b'{') || body.last() != Some(&b'}') {
        return Err(refuse("it is no object"));
    }
    if body.len() > MAX_LINE - 512 {
        return Err(refuse("it is too long"));
    }
    // A quote within a string is escaped, so `":` ends a name. A name of ours at any depth is refused: simple, and
    // enough.
    let clash = body.windows(2).enumerate().filter(|(_, it)| *it == b"\":").find_map(|(at, _)| {
        let name = body.get(..=at)?;
        RESERVED.iter().find(|reserved| name.ends_with(reserved))
    });
    match clash {
        Some(name) => Err(refuse(&format!("it has a field {}", String::from_utf8_lossy(name)))),
        None => Ok(body),
    }
}

/// Writes a record's line into `line`, with the newline at its end.
pub(crate) fn write(line: &mut Vec<u8>, before: Place, after_torn: bool, body: &[u8]) -> Result<Place> {
    let seq = before.seq + 1;
    if seq > MAX_SEQ {
        return Err(Error::Record { reason: "there are no more numbers".to_owned() });
    }
    let start = line.len();
    line.extend_from_slice(&beginning(before));
    if after_torn {
        line.extend_from_slice(AFTER_TORN);
    }
    // `body` is an object: what is between its braces.
    let fields = body.get(1..body.len().saturating_sub(1)).unwrap_or_default();
    if !fields.is_empty() {
        line.push(b',');
        line.extend_from_slice(fields);
    }
    let hash = Hex::of(line.get(start..).unwrap_or_default());
    line.extend_from_slice(HASH);
    line.extend_from_slice(&hash.0);
    line.extend_from_slice(END);
    line.push(b'\n');
    Ok(Place { seq, hash })
}

/// How the line after `before` must begin.
fn beginning(before: Place) -> Vec<u8> {
    let mut begin = Vec::with_capacity(128);
    begin.extend_from_slice(BEGIN);
    begin.extend_from_slice(VERSION.to_string().as_bytes());
    begin.extend_from_slice(SEQ);
    begin.extend_from_slice((before.seq + 1).to_string().as_bytes());
    begin.extend_from_slice(PREV);
    begin.extend_from_slice(&before.hash.0);
    begin.push(b'"');
    begin
}

/// Reads a line, without its newline. Nothing unless its hash holds.
pub(crate) fn parse(line: &[u8]) -> Option<Link> {
    let split = line.len().checked_sub(HASH.len() + 64 + END.len())?;
    let (covered, rest) = line.split_at_checked(split)?;
    let hash = Hex::parse(rest.strip_prefix(HASH)?.strip_suffix(END)?)?;
    let (seq, rest) = numbered(covered)?;
    let rest = rest.strip_prefix(PREV)?;
    let (prev, rest) = rest.split_at_checked(64)?;
    let prev = Hex::parse(prev)?;
    let rest = rest.strip_prefix(b"\"")?;
    let after_torn = rest.starts_with(AFTER_TORN);
    let whole = Hex::of(covered) == hash && is_json(line);
    whole.then_some(Link { place: Place { seq, hash }, prev, after_torn })
}

/// The number that a line says it has, whether its hash holds or not.
pub(crate) fn claimed_seq(line: &[u8]) -> Option<u64> {
    numbered(line).map(|(seq, _)| seq)
}

fn numbered(line: &[u8]) -> Option<(u64, &[u8])> {
    let (version, rest) = number(line.strip_prefix(BEGIN)?)?;
    let (seq, rest) = number(rest.strip_prefix(SEQ)?)?;
    (version == VERSION && (1..=MAX_SEQ).contains(&seq)).then_some((seq, rest))
}

/// The version of a line that is newer than ours.
pub(crate) fn newer_version(line: &[u8]) -> Option<u64> {
    let (version, _) = number(line.strip_prefix(BEGIN)?)?;
    (version > VERSION).then_some(version)
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|it| it.is_ascii_digit()).count();
    let (number, rest) = text.split_at_checked(digits)?;
    Some((std::str::from_utf8(number).ok()?.parse().ok()?, rest))
}

/// Whether a file that begins so is of this format, torn or not.
pub(crate) fn begins_a_file(bytes: &[u8]) -> bool {
    let bytes = without_zeros(bytes);
    bytes.starts_with(BEGIN) || BEGIN.starts_with(bytes)
}

/// Whether this may be what is left of the record after `before`, whose writing was cut short. A system that lost its
/// power leaves zeros at the end.
pub(crate) fn is_fragment(bytes: &[u8], before: Place) -> bool {
    let bytes = without_zeros(bytes);
    let begin = beginning(before);
    (bytes.starts_with(&begin) || begin.starts_with(bytes)) && !is_json(bytes)
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().rev().take_while(|it| **it == 0).count();
    bytes.get(..bytes.len() - zeros).unwrap_or_default()
}

pub(crate) fn is_json(line: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
}

/// One line of a file.
pub(crate) struct Raw<'a> {
    /// From 1.
    pub(crate) number: u64,
    /// Without the newline; the beginning of one that is too long.
    pub(crate) bytes: &'a [u8],
}

/// Lines from the first to the last. It holds one at a time, and of that no more than [`MAX_LINE`].
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: R,
    number: u64,
    buffer: Vec<u8>,
    /// A line without its end was read. It is the last one, also when whoever was writing it has finished meanwhile:
    /// what would be read next is its other half.
    over: bool,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, number: 0, buffer: Vec::new(), over: false }
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<Raw<'_>>> {
        self.buffer.clear();
        if self.over {
            return Ok(None);
        }
        let limit = MAX_LINE as u64 + 1;
        if (&mut self.reader).take(limit).read_until(b'\n', &mut self.buffer)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let ended = self.buffer.pop_if(|it| *it == b'\n').is_some();
        if !ended && self.buffer.len() > MAX_LINE {
            self.reader.skip_until(b'\n')?;
        } else {
            self.over = !ended;
        }
        Ok(Some(Raw { number: self.number, bytes: &self.buffer }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(before: Place, after_torn: bool, record: &impl Serialize) -> (String, Place) {
        let mut line = Vec::new();
        let place = write(&mut line, before, after_torn, &body(record).expect("a record")).expect("written");
        (String::from_utf8(line).expect("text"), place)
    }

    /// A file in which a line is finished after half of it was read.
    struct Growing(Vec<&'static [u8]>);

    impl std::io::Read for Growing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let part = if self.0.is_empty() { &[][..] } else { self.0.remove(0) };
            buffer[..part.len()].copy_from_slice(part);
            Ok(part.len())
        }
    }

    #[test]
    fn the_other_half_of_a_line_that_was_being_written_is_no_line() {
        let mut lines = Lines::new(io::BufReader::new(Growing(vec![b"one\ntw", b"", b"o\nthree\n"])));
        let mut read = Vec::new();
        while let Some(line) = lines.next().expect("no error") {
            read.push((line.number, line.bytes.to_vec()));
        }
        assert_eq!(read, [(1, b"one".to_vec()), (2, b"tw".to_vec())]);
    }

    #[test]
    fn a_line_is_written_exactly_so() {
        let (first, place) = line(Place::START, false, &serde_json::json!({"a": 1}));
        let zeros = "0".repeat(64);
        let covered = format!("{{\"schema_version\":1,\"seq\":1,\"prev\":\"{zeros}\",\"a\":1");
        let hash = hex::encode(Sha256::digest(&covered));
        assert_eq!(first, format!("{covered},\"hash\":\"{hash}\"}}\n"));
        let (second, _) = line(place, true, &serde_json::json!({}));
        assert!(second.starts_with(&format!(
            "{{\"schema_version\":1,\"seq\":2,\"prev\":\"{hash}\",\"after_torn\":true,\"hash\":\""
        )));
        let link = parse(second.trim_end().as_bytes()).expect("whole");
        assert!(link.follows(place) && link.after_torn && link.place.seq == 2);
    }

    #[test]
    fn a_line_with_another_spelling_is_no_record() {
        let (first, _) = line(Place::START, false, &serde_json::json!({"a": 1}));
        let first = first.trim_end();
        let hash_at = first.len() - 66;
        let upper = format!("{}{}", &first[..hash_at], first[hash_at..].to_uppercase());
        for other in [upper, format!("{first} "), format!(" {first}"), first.replace("\"seq\":1", "\"seq\": 1")] {
            assert!(other == first || parse(other.as_bytes()).is_none(), "{other}");
        }
    }

    #[test]
    fn a_record_cannot_have_fields_of_the_chain_and_must_be_an_object() {
        for record in [
            serde_json::json!({"hash": 1}),
            serde_json::json!({"a": {"seq": 1}}),
            serde_json::json!({"after_torn": true}),
            serde_json::json!([1]),
            serde_json::json!("text"),
        ] {
            assert!(body(&record).is_err(), "{record}");
        }
        // As text they are fine.
        assert!(body(&serde_json::json!({"target": "\"hash\":\"x\"", "prev2": "seq"})).is_ok());
        assert!(body(&serde_json::json!({"target": "x".repeat(MAX_LINE)})).is_err());
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let text = [vec![b'x'; 3 * MAX_LINE], b"\nshort\n".to_vec()].concat();
        let mut lines = Lines::new(std::io::BufReader::new(&text[..]));
        assert!(lines.next().expect("read").expect("a line").bytes.len() <= MAX_LINE + 1);
        let second = lines.next().expect("read").expect("a line");
        assert_eq!((second.bytes, second.number), (&b"short"[..], 2));
        assert!(lines.next().expect("read").is_none());
    }
}
