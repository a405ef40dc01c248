//! From bytes to a value.

use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// How long a value from a file or a command may be, in bytes, the line end at its end included: 64 KiB.
pub const MAX_LENGTH: usize = 64 * 1024;

/// Bytes that are overwritten when they are no longer needed. They never move to a larger place, which would leave a
/// copy behind.
pub(crate) type Buffer = Zeroizing<Vec<u8>>;

/// Room for one byte more than a value may have, and for what a reader wants to have free at the end.
pub(crate) fn buffer() -> Buffer {
    Zeroizing::new(Vec::with_capacity(MAX_LENGTH + 1024))
}

/// How many bytes are read: one more than a value may have, so that a longer one is noticed.
pub(crate) const READ_AT_MOST: u64 = MAX_LENGTH as u64 + 1;

/// The value that a file or a command gave: without one line end at its end.
///
/// # Errors
/// `TooLong`, and as [`value`].
pub(crate) fn written(bytes: &[u8], subject: &str) -> Result<SecretString> {
    if bytes.len() > MAX_LENGTH {
        return Err(Error::TooLong { subject: subject.to_owned() });
    }
    let line = bytes.strip_suffix(b"\n").map(|it| it.strip_suffix(b"\r").unwrap_or(it));
    value(line.unwrap_or(bytes), subject)
}

/// A value, exactly as it is.
///
/// # Errors
/// `Empty`, `Nul`, `NotText`.
pub(crate) fn value(bytes: &[u8], subject: &str) -> Result<SecretString> {
    let subject = || subject.to_owned();
    if bytes.is_empty() {
        return Err(Error::Empty { subject: subject() });
    }
    if bytes.contains(&0) {
        return Err(Error::Nul { subject: subject() });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Error::NotText { subject: subject() })?;
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn of(bytes: &[u8]) -> String {
        written(bytes, "file:x").map_or_else(|error| error.to_string(), |it| it.expose_secret().to_owned())
    }

    #[test]
    fn one_line_end_at_the_end_is_no_part_of_a_value() {
        assert_eq!(of(b"key"), "key");
        assert_eq!(of(b"key\n"), "key");
        assert_eq!(of(b"key\r\n"), "key");
        assert_eq!(of(b"key\n\n"), "key\n");
        assert_eq!(of(b"key\r"), "key\r");
        assert_eq!(of(b" two\nlines \n"), " two\nlines ");
    }

    #[test]
    fn what_is_no_value_is_refused() {
        assert_eq!(of(b""), "it is empty");
        assert_eq!(of(b"\r\n"), "it is empty");
        assert_eq!(of(b"a\0b"), "it holds a NUL byte");
        assert_eq!(of(b"a\xff"), "it is not UTF-8 text");
        assert_eq!(of(&vec![b'a'; MAX_LENGTH + 1]), "it is longer than 64 KiB");
        assert_eq!(of(&vec![b'a'; MAX_LENGTH]).len(), MAX_LENGTH);
    }
}
