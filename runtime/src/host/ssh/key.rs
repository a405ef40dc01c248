//! Private keys: made, and known by their public half.

use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKey, decode_secret_key};
use secrecy::{ExposeSecret as _, SecretString};

use crate::error::{Error, code};

/// A new private key for SSH: an ed25519 key in OpenSSH's format, without a passphrase.
///
/// # Errors
/// `internal` when the system has no randomness.
pub fn new_key() -> Result<SecretString, Error> {
    const OPERATION: &str = "ssh.new-key";
    let key = random_key(OPERATION)?;
    let text =
        key.to_openssh(LineEnding::LF).map_err(|error| Error::new(code::INTERNAL, OPERATION, error.to_string()))?;
    Ok(SecretString::from(text.as_str()))
}

/// A key that nobody keeps.
pub(super) fn random_key(operation: &'static str) -> Result<PrivateKey, Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| Error::new(code::INTERNAL, operation, format!("no randomness: {error}")))?;
    Ok(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
}

/// One line of OpenSSH's public key format, without a comment.
pub(super) fn public_half(private: &SecretString) -> Result<String, Error> {
    const OPERATION: &str = "ssh.public-key";
    let key = decode_secret_key(private.expose_secret(), None).map_err(|_| {
        Error::new(code::UNAUTHENTICATED, OPERATION, "the private key cannot be read")
            .hint("it must be an ed25519 or ecdsa key in OpenSSH's format, without a passphrase")
    })?;
    let mut public = key.public_key().clone();
    public.set_comment("");
    let line = public.to_openssh().map_err(|error| Error::new(code::INTERNAL, OPERATION, error.to_string()))?;
    Ok(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_has_a_public_half_and_is_like_no_other() {
        let (one, another) = (new_key().expect("a key"), new_key().expect("a key"));
        let public = public_half(&one).expect("its public half");
        assert!(public.starts_with("ssh-ed25519 ") && public.split(' ').count() == 2, "{public}");
        assert_eq!(public, public_half(&one).expect("the same"));
        assert_ne!(public, public_half(&another).expect("another"));
        let none = public_half(&SecretString::from("hunter2")).expect_err("a password has none");
        assert!(none.is(code::UNAUTHENTICATED) && !none.to_string().contains("hunter2"));
    }
}
