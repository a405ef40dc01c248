//! Keys: the gateway's own, and those that the API makes for an instance.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, decode_secret_key};
use serde_json::{Value, json};

/// What lets one into an instance without the API key.
#[derive(Clone, Debug)]
pub(crate) struct SshKeys {
    pub(crate) private: String,
    pub(crate) public: String,
    pub(crate) password: String,
    pub(crate) token: String,
}

impl SshKeys {
    pub(crate) fn new() -> io::Result<Self> {
        let key = new_key()?;
        Ok(Self {
            private: key.to_openssh(LineEnding::LF).map_err(io::Error::other)?.to_string(),
            public: key.public_key().to_openssh().map_err(io::Error::other)?,
            password: word(24),
            token: format!("morph_{}", word(24)),
        })
    }

    pub(crate) fn show(&self) -> Value {
        json!({
            "object": "instance_ssh_key", "private_key": self.private, "public_key": self.public,
            "password": self.password, "access_token": self.token,
        })
    }
}

/// The gateway's host key: the one in `folder`, or a new one that is put there.
pub(crate) fn host_key(folder: &Path) -> io::Result<PrivateKey> {
    let path = folder.join("ssh_host_ed25519_key");
    match fs::read_to_string(&path) {
        Ok(text) => return decode_secret_key(&text, None).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let key = new_key()?;
    let text = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    Ok(key)
}

fn new_key() -> io::Result<PrivateKey> {
    PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).map_err(io::Error::other)
}

/// A word of letters and digits that is another one each time.
pub(crate) fn word(length: usize) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut word = String::new();
    while word.len() < length {
        // A new state has new keys; this is for names in tests, not for secrets.
        let mut bits = RandomState::new().hash_one(word.len());
        for _ in 0..8 {
            let letter = usize::try_from(bits % 36).unwrap_or_default();
            word.extend(LETTERS.get(letter).map(|letter| char::from(*letter)));
            bits /= 36;
        }
    }
    word.truncate(length);
    word
}
