//! Placeholders of secrets in bytes that travel: where they are, and how they keep whole.
//!
//! A command or a file that a provider is asked about may hold placeholders, for which the host puts values in on the way
//! out. They must reach the host whole: cut in two, or inside of base64, it does not see them.

use std::ops::Range;

/// What a placeholder begins with; [`DIGITS`] hexadecimal digits follow.
const MARK: &[u8] = b"pcoder-secret-";
/// The same digits behind this stand for the base64 of the value.
const BASE64_MARK: &str = "pcoder-base64-";
const DIGITS: usize = 32;

/// The longest that a placeholder is.
pub(crate) const LONGEST: usize = MARK.len() + DIGITS;

/// Where placeholders are, in order.
pub fn spans(content: &[u8]) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut at = 0;
    while let Some(found) = find(&content[at..], MARK) {
        let start = at + found;
        let digits = start + MARK.len();
        let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if content.get(digits..digits + DIGITS).is_some_and(|it| it.iter().all(is_digit)) {
            spans.push(start..digits + DIGITS);
            at = digits + DIGITS;
        } else {
            at = digits;
        }
    }
    spans
}

/// Whether there is one.
pub fn is_in(content: &[u8]) -> bool {
    !spans(content).is_empty()
}

/// What stands for the base64 of the value that `placeholder` stands for.
pub fn as_base64(placeholder: &[u8]) -> String {
    let digits = placeholder.get(MARK.len()..).unwrap_or_default();
    format!("{BASE64_MARK}{}", String::from_utf8_lossy(digits))
}

/// Cuts a content into pieces of at most `size` bytes, and none through a placeholder. A `size` smaller than a
/// placeholder counts as that. There is always a piece, which may be empty.
pub fn pieces(content: &[u8], size: usize) -> Vec<&[u8]> {
    let size = size.max(LONGEST);
    let spans = spans(content);
    let mut pieces = Vec::new();
    let mut start = 0;
    while content.len() - start > size {
        let end = start + size;
        let end = spans.iter().find(|span| span.start < end && end < span.end).map_or(end, |span| span.start);
        pieces.push(&content[start..end]);
        start = end;
    }
    pieces.push(&content[start..]);
    pieces
}

fn find(content: &[u8], needle: &[u8]) -> Option<usize> {
    content.windows(needle.len()).position(|it| it == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "pcoder-secret-0123456789abcdef0123456789abcdef";

    #[test]
    fn a_placeholder_is_found_and_what_looks_like_one_is_not() {
        let text = format!("a{ONE}b{ONE}pcoder-secret-0123456789ABCDEF0123456789abcdef pcoder-secret-");
        assert_eq!(spans(text.as_bytes()), [1..47, 48..94]);
        assert_eq!(as_base64(ONE.as_bytes()), "pcoder-base64-0123456789abcdef0123456789abcdef");
    }

    #[test]
    fn no_piece_ends_inside_of_a_placeholder() {
        let text = format!("{}{ONE}{}{ONE}{ONE}", "x".repeat(70), "y".repeat(30));
        for size in [1, 50, 80, 100, 1000] {
            let pieces = pieces(text.as_bytes(), size);
            assert_eq!(pieces.concat(), text.as_bytes());
            assert!(pieces.iter().all(|piece| piece.len() <= size.max(LONGEST)));
            assert_eq!(pieces.iter().map(|piece| spans(piece).len()).sum::<usize>(), 3);
        }
        assert_eq!(pieces(b"", 10), [b""]);
    }
}
