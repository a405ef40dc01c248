//! Credentials installers: what puts a tool's credentials onto an instance.

use std::marker::PhantomData;

use crate::bindings::credentials::exports::pcoder::plugin::credentials as contract;
use crate::error::{Error, Result, code};
use crate::export::begin;
use crate::host::CredentialsHost;
use crate::path;
use crate::types::{Profile, WriteOptions};

const OPERATION: &str = "credentials.install";

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

/// A profile that is one file, made of one secret. Most installers are a list of these:
///
/// ```
/// use pcoder_sdk::host::CredentialsHost;
/// use pcoder_sdk::{Credentials, Form, Profile, Result, SecretFile};
///
/// const PROFILES: [SecretFile; 1] = [SecretFile {
///     name: "api-key",
///     description: "A key of the API",
///     secret: "CLAW_API_KEY",
///     path: "~/.claw/login.json",
///     form: Form::Inside(|key| format!(r#"{{"key":"{key}"}}"#)),
/// }];
///
/// #[derive(Default)]
/// struct Claw;
///
/// impl Credentials for Claw {
///     fn profiles(&self) -> Vec<Profile> {
///         SecretFile::profiles(&PROFILES)
///     }
///
///     fn install(&self, host: CredentialsHost<'_>, profile: &str) -> Result<()> {
///         SecretFile::install(&PROFILES, host, profile)
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SecretFile {
    /// The profile's name.
    pub name: &'static str,
    /// One line for people.
    pub description: &'static str,
    /// The secret, by the name that the manifest asks for.
    pub secret: &'static str,
    /// The file, with `~/` for the instance's home.
    pub path: &'static str,
    /// What the file is made of.
    pub form: Form,
}

/// How a file of credentials holds its secret.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// The secret is the whole file.
    Whole,
    /// A text with the secret inside, in quotes. The function gets its placeholder, which needs no escaping.
    Inside(fn(&str) -> String),
}

impl SecretFile {
    /// What [`Credentials::profiles`] answers.
    pub fn profiles(all: &[Self]) -> Vec<Profile> {
        all.iter()
            .map(|file| Profile {
                name: file.name.to_owned(),
                description: file.description.to_owned(),
                secrets: vec![file.secret.to_owned()],
                paths: vec![file.path.to_owned()],
            })
            .collect()
    }

    /// Installs the one whose name is `profile`, with [`install_file`].
    ///
    /// # Errors
    /// `invalid` when there is none of that name; otherwise those of [`quotable_secret`] and [`install_file`]. Nothing is
    /// written without the secret.
    pub fn install(all: &[Self], host: CredentialsHost<'_>, profile: &str) -> Result<()> {
        let Some(file) = all.iter().find(|file| file.name == profile) else {
            let names: Vec<_> = all.iter().map(|file| file.name).collect();
            let message = format!("there is no such profile, only {}", names.join(", "));
            return Err(Error::invalid(OPERATION, message).subject(profile));
        };
        let content = match file.form {
            Form::Whole => host.secrets().get(file.secret)?,
            Form::Inside(text) => text(&quotable_secret(host, file.secret)?),
        };
        install_file(host, file.path, content.as_bytes())
    }
}

/// Writes one file of credentials: its folder private (700), the file private (600) and whole or not at all, and looks
/// afterwards whether it is there.
///
/// # Errors
/// The target's, with the path as subject; `integrity` when the file is not there afterwards. What is in the file is in
/// no message.
pub fn install_file(host: CredentialsHost<'_>, path: &str, content: &[u8]) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeHost;

    const PATH: &str = "~/.claw/login.json";

    const FILES: [SecretFile; 2] = [
        SecretFile {
            name: "api-key",
            description: "A key",
            secret: "CLAW_KEY",
            path: PATH,
            form: Form::Inside(|key| format!(r#"{{"key":"{key}"}}"#)),
        },
        SecretFile { name: "file", description: "A file", secret: "CLAW_FILE", path: PATH, form: Form::Whole },
    ];

    fn host() -> FakeHost {
        let host = FakeHost::new();
        host.secret("CLAW_KEY", "placeholder-1");
        host.secret("CLAW_FILE", "placeholder\"2\n");
        host
    }

    #[test]
    fn a_profile_is_its_file_and_its_secret() {
        let profiles = SecretFile::profiles(&FILES);
        let expected = Profile {
            name: "file".to_owned(),
            description: "A file".to_owned(),
            secrets: vec!["CLAW_FILE".to_owned()],
            paths: vec![PATH.to_owned()],
        };
        assert_eq!((profiles.len(), &profiles[1]), (2, &expected));
    }

    #[test]
    fn a_secret_becomes_a_private_file_and_again() {
        let host = host();
        for _ in 0..2 {
            SecretFile::install(&FILES, host.credentials(), "api-key").unwrap();
        }
        assert_eq!(
            host.log_of_calls()[..4],
            [
                "secrets.get CLAW_KEY",
                "target.create-directory ~/.claw mode 700",
                "target.write-file-atomic ~/.claw/login.json mode 600 parents 23 bytes",
                "target.file-exists ~/.claw/login.json",
            ]
        );
        assert_eq!(host.file(PATH).as_deref(), Some(br#"{"key":"placeholder-1"}"#.as_slice()));
        assert_eq!((host.mode(PATH), host.mode("~/.claw")), (Some(0o600), Some(0o700)));
        SecretFile::install(&FILES, host.credentials(), "file").unwrap();
        assert_eq!(host.file(PATH).as_deref(), Some(b"placeholder\"2\n".as_slice()));
    }

    #[test]
    fn a_failure_names_the_path_and_nothing_of_the_secret() {
        for operation in ["target.create-directory", "target.write-file-atomic", "target.file-exists"] {
            let host = host();
            host.fail(operation, Error::new(code::IO, operation, "disk full"));
            let error = SecretFile::install(&FILES, host.credentials(), "api-key").unwrap_err();
            assert_eq!((error.code.as_str(), error.subject.as_deref()), ("io", Some(PATH)));
            assert_eq!(error.operation, "credentials.install");
            assert!(!format!("{error:?}").contains("placeholder"));
        }
    }

    #[test]
    fn nothing_is_written_without_the_secret_or_the_profile() {
        let host = FakeHost::new();
        let refused = |profile: &str| SecretFile::install(&FILES, host.credentials(), profile).unwrap_err();
        assert_eq!(refused("api-key").code, "unauthenticated");
        assert_eq!(host.log_of_calls(), ["secrets.get CLAW_KEY"]);
        let error = refused("other");
        assert_eq!(error.line(), "credentials.install (other): there is no such profile, only api-key, file");
        host.secret("CLAW_KEY", "a\"b");
        assert_eq!(refused("api-key").code, "internal");
        assert_eq!(host.log_of_calls(), ["secrets.get CLAW_KEY"; 2]);
    }
}
