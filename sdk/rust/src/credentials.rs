//! Credentials installers: what puts a tool's credentials onto an instance.

use std::marker::PhantomData;

use crate::bindings::credentials::exports::pcoder::plugin::credentials as contract;
use crate::error::{Error, Result, code};
use crate::export::begin;
use crate::host::CredentialsHost;
use crate::path;
use crate::types::{Profile, WriteOptions};

/// What puts a tool's credentials onto an instance.
///
/// Secrets are placeholders here: the host puts the values in while it writes the file, where a grant allows it.
pub trait Credentials: Default {
    /// Lists what can be installed. Does nothing else.
    fn profiles(&self) -> Vec<Profile>;

    /// Installs one on the call's instance. Doing it again is no error.
    ///
    /// # Errors
    /// The contract's; the subject names the path and never what is in it.
    fn install(&self, host: CredentialsHost<'_>, profile: &str) -> Result<()>;
}

/// Writes one file of credentials: its folder private (700), the file private (600) and whole or not at all, and looks
/// afterwards whether it is there.
///
/// # Errors
/// The target's, with the path as subject; `integrity` when the file is not there afterwards. What is in the file is in
/// no message.
pub fn install_file(host: CredentialsHost<'_>, path: &str, content: &[u8]) -> Result<()> {
    const OPERATION: &str = "credentials.install";
    let of_path = |error: Error| error.during(OPERATION).subject(path);
    let target = host.target();
    target.create_directory(path::parent(path), Some(0o700)).map_err(of_path)?;
    let options = WriteOptions::plain().with_parents().with_mode(0o600);
    target.write_file_atomic(path, content, options).map_err(of_path)?;
    if target.file_exists(path).map_err(of_path)? {
        return Ok(());
    }
    Err(of_path(Error::new(code::INTEGRITY, OPERATION, "the file was written and is not there")))
}

/// A secret's placeholder inside a text that the plugin writes, such as JSON. What would change in quotes is refused: the
/// host looks for the placeholder as it gave it.
///
/// # Errors
/// The host's when the secret cannot be had; `internal` for a placeholder that needs escaping.
pub fn quotable_secret(host: CredentialsHost<'_>, name: &str) -> Result<String> {
    let placeholder = host.secrets().get(name)?;
    let plain = |character: char| !character.is_control() && !matches!(character, '"' | '\\');
    if !placeholder.is_empty() && placeholder.chars().all(plain) {
        return Ok(placeholder);
    }
    Err(Error::new(code::INTERNAL, "secrets.get", "the placeholder cannot stand inside quotes").subject(name))
}

/// Connects [`Credentials`] to the contract; [`crate::export!`] uses it.
#[doc(hidden)]
pub struct CredentialsExport<C>(PhantomData<C>);

impl<C: Credentials + 'static> contract::Guest for CredentialsExport<C> {
    fn profiles() -> Vec<Profile> {
        begin();
        C::default().profiles()
    }

    fn install(profile: String) -> Result<()> {
        begin();
        C::default().install(CredentialsHost::real(), &profile)
    }
}
