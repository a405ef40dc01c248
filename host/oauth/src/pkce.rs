//! Random values, and the proof that the one who asks for the tokens is the one who began (RFC 7636).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::error::{Error, Result};

/// 256 random bits as 43 characters that need no escaping: a verifier, or a state.
pub(crate) fn random() -> Result<SecretString> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(Error::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes).into())
}

/// The S256 challenge of a verifier.
pub(crate) fn challenge(verifier: &SecretString) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.expose_secret().as_bytes()))
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
pub(crate) fn same(a: &SecretString, b: &str) -> bool {
    a.expose_secret().as_bytes().ct_eq(b.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_rfc_7636_appendix_b() {
        let verifier = SecretString::from("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(challenge(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn a_verifier_is_as_long_as_the_rfc_demands_and_never_the_same() {
        let (a, b) = (random().expect("random"), random().expect("random"));
        assert_eq!(a.expose_secret().len(), 43);
        assert!(!same(&a, b.expose_secret()) && same(&a, a.expose_secret()));
    }
}
