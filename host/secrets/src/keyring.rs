//! The system's keyring: a Secret Service on Linux, the keychain on macOS, the credential manager on Windows.

use std::sync::Arc;
use std::time::Duration;

use keyring_core::{CredentialStore, Entry, Error as Refusal};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::oneshot;
use zeroize::Zeroize as _;

use crate::error::{Error, Result};
use crate::reference::{Reference, Source};
use crate::value;

/// The service under which entries are kept. Their users are the names in references.
pub const SERVICE: &str = "pcoder";

/// How long the keyring has by default.
pub const KEYRING_DEADLINE: Duration = Duration::from_secs(10);

/// Stores a value under a name. One that is there is replaced.
///
/// # Errors
/// `Malformed` for a name that is none; `Empty` and `Nul`; `NoKeyring`, `KeyringSilent` after 10 s (the keyring may
/// store it later all the same), `KeyringLocked`, `Ambiguous`, `Keyring`.
pub async fn keyring_set(name: &str, value: SecretString) -> Result<()> {
    let subject = subject(name)?;
    // What could not be read back is not stored.
    value::value(value.expose_secret().as_bytes(), &subject)?;
    ask(name, subject, KEYRING_DEADLINE, move |entry| entry.set_password(value.expose_secret())).await
}

/// Removes what is stored under a name. `false` when there was nothing.
///
/// # Errors
/// As [`keyring_set`].
pub async fn keyring_remove(name: &str) -> Result<bool> {
    ask(name, subject(name)?, KEYRING_DEADLINE, |entry| there_was(entry.delete_credential())).await
}

/// Whether something is stored under a name.
///
/// # Errors
/// As [`keyring_set`].
pub async fn keyring_has(name: &str) -> Result<bool> {
    ask(name, subject(name)?, KEYRING_DEADLINE, |entry| there_was(entry.get_credential())).await
}

/// The value that is stored under a name.
///
/// # Errors
/// `NoEntry`, and as [`keyring_set`].
pub(crate) async fn get(name: &str, subject: &str, deadline: Duration) -> Result<SecretString> {
    let value = ask(name, subject.to_owned(), deadline, |entry| {
        let mut text = entry.get_password()?;
        let value = SecretString::from(text.as_str());
        text.zeroize();
        Ok(value)
    })
    .await?;
    value::value(value.expose_secret().as_bytes(), subject)
}

fn there_was<T>(answer: keyring_core::Result<T>) -> keyring_core::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(Refusal::NoEntry) => Ok(false),
        Err(error) => Err(error),
    }
}

fn subject(name: &str) -> Result<String> {
    let reference: Reference = format!("{}:{name}", Source::Keyring).parse()?;
    Ok(reference.subject())
}

/// Asks the keyring on a thread of its own. The system's libraries block, and may wait for ever for a window that nobody
/// sees; such a thread is left behind, and holds up neither the caller nor the end of the program.
async fn ask<T: Send + 'static>(
    name: &str,
    subject: String,
    deadline: Duration,
    question: impl FnOnce(&Entry) -> keyring_core::Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, answer) = oneshot::channel();
    let name = name.to_owned();
    let about = subject.clone();
    let work = move || {
        let result = match open() {
            Err(error) => Err(Error::NoKeyring { reason: reason(error), subject: about }),
            Ok(store) => Entry::new_in_store(&store, SERVICE, &name)
                .and_then(|entry| question(&entry))
                .map_err(|error| refused(error, about)),
        };
        // Nobody waits for it any more after the deadline.
        let _ = sender.send(result);
    };
    if let Err(source) = std::thread::Builder::new().name("keyring".into()).spawn(work) {
        return Err(Error::Io { doing: "start a thread for", subject, source });
    }
    match tokio::time::timeout(deadline, answer).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Error::Keyring { subject, reason: "the system's library for it failed".to_owned() }),
        Err(_) => Err(Error::KeyringSilent { subject, seconds: deadline.as_secs_f64() }),
    }
}

/// The system's keyring. It is asked for anew each time: whoever speaks for it may have been started since.
fn open() -> keyring_core::Result<Arc<CredentialStore>> {
    #[cfg(all(unix, not(target_os = "macos")))]
    return Ok(zbus_secret_service_keyring_store::Store::new()?);
    #[cfg(target_os = "macos")]
    return Ok(apple_native_keyring_store::keychain::Store::new()?);
    #[cfg(windows)]
    return Ok(windows_native_keyring_store::Store::new()?);
    #[cfg(not(any(unix, windows)))]
    return Err(Refusal::NotSupportedByStore("this system has none that is known".to_owned()));
}

fn refused(error: Refusal, subject: String) -> Error {
    match error {
        Refusal::NoEntry => Error::NoEntry { subject },
        Refusal::NoStorageAccess(_) => Error::KeyringLocked { reason: reason(error), subject },
        Refusal::Ambiguous(_) => Error::Ambiguous { subject },
        Refusal::BadEncoding(mut value) => {
            value.zeroize();
            Error::NotText { subject }
        }
        error => Error::Keyring { reason: reason(error), subject },
    }
}

/// What the system said. Where it says it of a value, the value is not kept.
fn reason(error: Refusal) -> String {
    match error {
        Refusal::PlatformFailure(error) | Refusal::NoStorageAccess(error) => error.to_string(),
        Refusal::BadEncoding(mut value) | Refusal::BadDataFormat(mut value, _) => {
            value.zeroize();
            "the entry is no text".to_owned()
        }
        Refusal::TooLong(_, most) => format!("the value is longer than {most} characters"),
        Refusal::Ambiguous(_) => "there is more than one such entry".to_owned(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_no_text_is_not_shown() {
        let canary = || b"canary\xff".to_vec();
        for error in [Refusal::BadEncoding(canary()), Refusal::BadDataFormat(canary(), "canary".into())] {
            let error = refused(error, "keyring:x".to_owned());
            // As text, and as the numbers of its bytes.
            let shown = format!("{error} {error:?} {}", error.hint());
            assert!(!shown.contains("canary") && !shown.contains("99, 97"), "{shown}");
        }
    }
}
