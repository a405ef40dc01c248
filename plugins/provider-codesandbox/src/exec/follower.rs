//! What a follower prints, as the bytes that it follows.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The reader of one follower's terminal.
///
/// Pieces that come twice are left out. What does not fit (a piece that is missing, a line of somebody else's) breaks it:
/// what comes then is nothing, and the file is what counts.
#[derive(Debug, Default)]
pub(super) struct Follower {
    /// What came and ends no line.
    line: String,
    /// The lines of a piece that has not ended.
    piece: String,
    /// The number of the last piece.
    last: u64,
    broken: bool,
}

impl Follower {
    /// Takes what was printed; the bytes that it makes whole.
    pub(super) fn push(&mut self, text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.broken {
            return bytes;
        }
        for character in text.chars() {
            match character {
                '\r' => {}
                '\n' => {
                    let line = std::mem::take(&mut self.line);
                    match self.line(&line) {
                        Some(more) => bytes.extend(more),
                        None => {
                            self.broken = true;
                            return bytes;
                        }
                    }
                }
                other => self.line.push(other),
            }
        }
        bytes
    }

    /// Whether more can come.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    fn line(&mut self, line: &str) -> Option<Vec<u8>> {
        let Some(mark) = line.strip_prefix('.') else {
            if !self.piece.is_empty() {
                self.piece.push('\n');
            }
            self.piece.push_str(line);
            return Some(Vec::new());
        };
        let (number, length) = mark.split_once('.')?;
        let (number, length): (u64, usize) = (number.parse().ok()?, length.parse().ok()?);
        let piece = std::mem::take(&mut self.piece);
        if number <= self.last {
            return Some(Vec::new());
        }
        if number != self.last + 1 || piece.len() != length {
            return None;
        }
        self.last = number;
        STANDARD.decode(piece.replace('\n', "")).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_however_they_are_cut() {
        let text = "b25l\r\n.1.4\r\nAP8=\r\nAP8=\r\n.2.9\r\n";
        // Two lines of a piece are one text of base64: padding ends it.
        assert!(Follower::default().push("AP8=\nAP8=\n.1.9\n").is_empty());
        for size in 1..text.len() {
            let mut follower = Follower::default();
            let chars: Vec<char> = text.replace("AP8=\r\nAP8=\r\n.2.9", "AP8A\r\n/w==\r\n.2.9").chars().collect();
            let bytes: Vec<u8> =
                chars.chunks(size).flat_map(|chunk| follower.push(&chunk.iter().collect::<String>())).collect();
            assert_eq!(bytes, b"one\0\xff\0\xff", "{size}");
        }
    }

    #[test]
    fn a_piece_that_comes_twice_counts_once() {
        let mut follower = Follower::default();
        assert_eq!(follower.push("b25l\n.1.4\nb25l\n.1.4\ndHdv\n.2.4\n"), b"onetwo");
        assert!(!follower.is_broken());
    }

    #[test]
    fn what_does_not_fit_ends_it() {
        for text in ["b25l\n.2.4\n", "b25l\n.1.5\n", "b2\n5l\n.1.4\n", "!!!!\n.1.4\n", "b25l\n.x.4\n", "b25l\n.1\n"] {
            let mut follower = Follower::default();
            assert!(follower.push(text).is_empty(), "{text}");
            assert!(follower.is_broken(), "{text}");
            assert!(follower.push("b25l\n.1.4\n").is_empty());
        }
    }
}
