//! Subresource Integrity strings, as npm writes them.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// A sha512 digest. Weaker hashes of an SRI string are passed over, and one without sha512 is refused: there is no
/// package in the lock that has none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sri([u8; 64]);

impl Sri {
    /// From a finished hash.
    pub const fn from_digest(digest: [u8; 64]) -> Self {
        Self(digest)
    }

    /// The first 16 bytes in hexadecimal, for file names.
    pub fn short_hex(&self) -> String {
        self.0.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Not an SRI string with a sha512 in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` has no sha512 hash (`sha512-` and 88 characters of base64)")]
pub struct SriError(String);

impl FromStr for Sri {
    type Err = SriError;
    fn from_str(text: &str) -> Result<Self, SriError> {
        text.split_ascii_whitespace()
            .filter_map(|hash| hash.strip_prefix("sha512-"))
            // Options after `?` are part of the SRI grammar and mean nothing.
            .map(|hash| hash.split_once('?').map_or(hash, |(hash, _)| hash))
            .find_map(|hash| STANDARD.decode(hash).ok()?.try_into().ok())
            .map(Self)
            .ok_or_else(|| SriError(text.chars().take(120).collect()))
    }
}

impl TryFrom<String> for Sri {
    type Error = SriError;
    fn try_from(text: String) -> Result<Self, SriError> {
        text.parse()
    }
}

impl From<Sri> for String {
    fn from(sri: Sri) -> Self {
        sri.to_string()
    }
}

impl fmt::Display for Sri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha512-{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Sri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes in proptest::collection::vec(any::<u8>(), 64)) {
            let sri = Sri::from_digest(bytes.try_into().unwrap());
            prop_assert_eq!(sri.to_string().parse::<Sri>().unwrap(), sri);
            let among = format!("sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk= {sri}?opt");
            prop_assert_eq!(among.parse::<Sri>().unwrap(), sri);
        }

        #[test]
        fn anything_else_is_refused_and_nothing_panics(text in "\\PC*") {
            prop_assert!(text.contains("sha512-") || text.parse::<Sri>().is_err());
        }
    }

    #[test]
    fn a_short_or_weak_hash_is_refused() {
        for text in ["", "sha512-", "sha512-AAAA", "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="] {
            assert!(text.parse::<Sri>().is_err(), "{text}");
        }
    }
}
