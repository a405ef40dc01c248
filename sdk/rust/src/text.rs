//! Other programs' output in one's own messages: bounded, on one line, without control characters.

/// The last `lines` lines that say something, joined with ` / `, in at most `limit` characters of the end.
pub fn tail(bytes: &[u8], lines: usize, limit: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut last: Vec<String> = text
        .lines()
        .rev()
        .map(|line| line.chars().filter(|character| !character.is_control()).collect::<String>().trim().to_owned())
        .filter(|line| !line.is_empty())
        .take(lines)
        .collect();
    last.reverse();
    let joined = last.join(" / ");
    match joined.char_indices().rev().nth(limit.saturating_sub(1)) {
        Some((start, _)) if start > 0 => format!("…{}", &joined[start..]),
        _ => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_what_counts() {
        assert_eq!(tail(b"one\ntwo\r\n\n three \n", 2, 100), "two / three");
        assert_eq!(tail(b"\x1b[31mred\x07\n", 3, 100), "[31mred");
        assert_eq!(tail("äöü".as_bytes(), 1, 2), "…öü");
        assert_eq!(tail(b"abc", 1, 3), "abc");
        assert_eq!(tail(b"", 3, 10), "");
        assert_eq!(tail(b"\xff", 1, 10), "\u{fffd}");
    }
}
