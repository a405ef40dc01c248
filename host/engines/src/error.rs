//! What can go wrong, said so that a person can mend it.
//!
//! Every error has a stable [`code`](Error::code), the [`subject`](Error::subject) it is about, and where there is one
//! a [`hint`](Error::hint): the exact command or act that mends it. No error carries a token, or an address with
//! credentials in it.

use std::io;
use std::path::{Path, PathBuf};

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the engine store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No engine of that name is in `engines.lock`.
    #[error("there is no engine called `{name}`")]
    UnknownEngine {
        /// The name that was asked for.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// The engine exists, that version of it is not in `engines.lock`.
    #[error("`{name}` {version} is not in engines.lock")]
    UnknownVersion {
        /// The engine.
        name: String,
        /// The version that was asked for.
        version: String,
        /// The versions that exist.
        known: Vec<String>,
    },
    /// The engine is not published for this platform.
    #[error("`{name}` {version} does not exist for {platform}: {reason}")]
    UnsupportedPlatform {
        /// The engine.
        name: String,
        /// Its version.
        version: String,
        /// The platform, as in `linux-x64-musl`.
        platform: String,
        /// Why.
        reason: String,
    },
    /// The engine is not installed.
    #[error("`{name}` {version} is not installed")]
    NotInstalled {
        /// The engine.
        name: String,
        /// Its version.
        version: String,
        /// The hint: the command that installs it.
        install: String,
    },
    /// Something is at the engine's place, and not what was installed.
    #[error("`{name}` {version} is damaged: {detail}")]
    Damaged {
        /// The engine.
        name: String,
        /// Its version.
        version: String,
        /// What is wrong.
        detail: String,
        /// For the hint: the command that replaces it.
        install: String,
    },
    /// The registry could not be reached, or must not be.
    #[error("cannot download `{package}`: {detail}")]
    Offline {
        /// The package, as `name@version`.
        package: String,
        /// What happened.
        detail: String,
        /// The tarball's path on a registry: what to fetch by hand.
        tarball: String,
    },
    /// A file that was named by its address could not be fetched.
    #[error("cannot fetch `{url}`: {detail}")]
    Fetch {
        /// The address, without what may be a secret in it.
        url: String,
        /// What happened.
        detail: String,
    },
    /// A file that was named by its address and digest has other bytes.
    #[error("`{url}` is not the file that was expected: {detail}")]
    WrongFile {
        /// The address, without what may be a secret in it.
        url: String,
        /// What differs.
        detail: String,
    },
    /// The registry answered, and not with the package.
    #[error("the registry did not give `{package}`: {detail}")]
    Registry {
        /// The package, as `name@version`.
        package: String,
        /// What it answered.
        detail: String,
        /// The HTTP status, if that was the answer.
        status: Option<u16>,
    },
    /// The registry's certificate is not trusted here.
    #[error("the registry's certificate is not trusted, so `{package}` was not downloaded: {detail}")]
    Certificate {
        /// The package, as `name@version`.
        package: String,
        /// What the check found.
        detail: String,
    },
    /// The bytes are not the ones that `engines.lock` names.
    #[error("`{package}` is not what engines.lock says: {detail}")]
    Integrity {
        /// The package, as `name@version`.
        package: String,
        /// What differs.
        detail: String,
    },
    /// The right bytes, and an archive that will not be unpacked.
    #[error("the archive of `{package}` is refused: {detail}")]
    Archive {
        /// The package, as `name@version`.
        package: String,
        /// What is in it.
        detail: String,
    },
    /// The disk is full, or has not enough room to begin.
    #[error("not enough room in `{}`: {}", path.display(), room(*needed, *free))]
    DiskFull {
        /// Where.
        path: PathBuf,
        /// Bytes that the whole installation needs, if known.
        needed: Option<u64>,
        /// Bytes that are free, if known.
        free: Option<u64>,
    },
    /// The caller cancelled.
    #[error("installing `{subject}` was cancelled")]
    Cancelled {
        /// The engine.
        subject: String,
    },
    /// The caller cancelled an import, an export or a copy. There is nothing to go on with.
    #[error("{doing} `{subject}` was cancelled")]
    Stopped {
        /// The verb, as in `exporting`.
        doing: &'static str,
        /// The engine.
        subject: String,
    },
    /// The file is none that an export wrote.
    #[error("`{}` is not an exported engine: {detail}", path.display())]
    NotAnExport {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        detail: String,
    },
    /// An exported file whose contents are not what `engines.lock` says, or not all there.
    #[error("`{}` does not hold `{subject}` as engines.lock says: {detail}", path.display())]
    WrongExport {
        /// The file.
        path: PathBuf,
        /// The engine and version that it says it holds.
        subject: String,
        /// What differs.
        detail: String,
    },
    /// An exported file for another platform than the one that is imported for.
    #[error("`{}` holds `{subject}` for {platform}, not for {wanted}", path.display())]
    ForeignExport {
        /// The file.
        path: PathBuf,
        /// The engine and version.
        subject: String,
        /// The platform that it is for.
        platform: String,
        /// The platform that is imported for.
        wanted: String,
    },
    /// Another process holds the engine: installs it or runs it.
    #[error("`{subject}` is in use: {holder}")]
    Locked {
        /// The engine.
        subject: String,
        /// Who holds it, as far as is known.
        holder: String,
    },
    /// An input or output operation failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// The verb, as in `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own error.
        #[source]
        source: io::Error,
    },
    /// A setting or a file has a value that cannot be used.
    #[error("{subject}: {detail}")]
    Invalid {
        /// The setting or file.
        subject: String,
        /// What is wrong with it.
        detail: String,
        /// What to write instead.
        hint: String,
    },
    /// The engine was unpacked, and does not run on this machine.
    #[error("`{subject}` does not run here: {detail}")]
    Smoke {
        /// The engine.
        subject: String,
        /// What its `--version` did.
        detail: String,
        /// What to try.
        hint: String,
    },
}

impl Error {
    /// A short stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownEngine { .. }
            | Self::UnknownVersion { .. }
            | Self::Invalid { .. }
            | Self::NotAnExport { .. } => "invalid",
            Self::UnsupportedPlatform { .. } | Self::ForeignExport { .. } => "unsupported-platform",
            Self::NotInstalled { .. } => "not-installed",
            Self::Offline { .. } | Self::Fetch { .. } => "offline",
            Self::Registry { .. } | Self::Certificate { .. } => "registry",
            Self::Integrity { .. }
            | Self::Archive { .. }
            | Self::Damaged { .. }
            | Self::WrongExport { .. }
            | Self::WrongFile { .. } => "integrity",
            Self::DiskFull { .. } => "disk-full",
            Self::Cancelled { .. } | Self::Stopped { .. } => "cancelled",
            Self::Locked { .. } => "locked",
            Self::Io { .. } => "io",
            Self::Smoke { .. } => "smoke",
        }
    }

    /// What the error is about: an engine, a package, a path, a setting.
    pub fn subject(&self) -> String {
        match self {
            Self::UnknownEngine { name, .. }
            | Self::UnknownVersion { name, .. }
            | Self::UnsupportedPlatform { name, .. }
            | Self::NotInstalled { name, .. }
            | Self::Damaged { name, .. } => name.clone(),
            Self::Offline { package, .. }
            | Self::Registry { package, .. }
            | Self::Certificate { package, .. }
            | Self::Integrity { package, .. }
            | Self::Archive { package, .. } => package.clone(),
            Self::Fetch { url, .. } | Self::WrongFile { url, .. } => url.clone(),
            Self::DiskFull { path, .. } | Self::Io { path, .. } | Self::NotAnExport { path, .. } => {
                path.display().to_string()
            }
            Self::Cancelled { subject }
            | Self::Stopped { subject, .. }
            | Self::WrongExport { subject, .. }
            | Self::ForeignExport { subject, .. }
            | Self::Locked { subject, .. }
            | Self::Invalid { subject, .. }
            | Self::Smoke { subject, .. } => subject.clone(),
        }
    }

    /// The command or act that mends it, where one is known. What is typed stands in backticks.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownEngine { known, .. } => format!("engines are {}", quoted(known)),
            Self::UnknownVersion { name, known, .. } => {
                format!("versions of `{name}` are {}; newer ones come with a newer pcoder", quoted(known))
            }
            Self::UnsupportedPlatform { .. } => {
                "install it on a machine of a platform that it is published for; `pcoder engine list` shows what this \
                 one has"
                    .to_owned()
            }
            Self::NotInstalled { install, .. } => install.clone(),
            Self::Damaged { install, .. } => format!("{install} replaces it"),
            Self::Offline { tarball, .. } => format!(
                "check the network and the proxy (`HTTPS_PROXY`, or `proxy=` in .npmrc); or fetch \
                 `<registry>/{tarball}` elsewhere and run `pcoder engine install … --from FILE.tgz`"
            ),
            Self::Fetch { .. } => {
                "check the address, the network and the proxy; or download it elsewhere and give the file".to_owned()
            }
            Self::WrongFile { .. } => {
                "nothing of it was kept. Try again; if it stays, it was changed there or on the way \
                 (a proxy, a mirror): get it elsewhere and give the file"
                    .to_owned()
            }
            Self::Registry { status: Some(401 | 403), .. } => {
                "the registry wants a login: put `//HOST/PATH/:_authToken=${NPM_TOKEN}` into .npmrc".to_owned()
            }
            Self::Registry { status: Some(404), .. } => {
                "this registry does not carry the package: name one that does, `npm_config_registry=https://…`"
                    .to_owned()
            }
            Self::Registry { .. } => "try again, or name another registry: `npm_config_registry=https://…`".to_owned(),
            Self::Certificate { .. } => "if a proxy of your organisation opens TLS, name its certificate: \
                 `npm_config_cafile=FILE.pem` or `NODE_EXTRA_CA_CERTS=FILE.pem`"
                .to_owned(),
            Self::Integrity { .. } => {
                "nothing was installed and the download was deleted. Try again; if it stays, something between here \
                 and the registry changes what is downloaded (a proxy, a mirror): name another registry, \
                 `npm_config_registry=https://…`"
                    .to_owned()
            }
            Self::Archive { .. } => "nothing was installed; report this, with the version of pcoder".to_owned(),
            Self::DiskFull { .. } => {
                "free some room (`pcoder engine prune`), then run the same command again".to_owned()
            }
            Self::Cancelled { .. } => {
                "run the same command again: it goes on with what was downloaded already".to_owned()
            }
            Self::Stopped { .. } => "run the same command again: it begins anew".to_owned(),
            Self::NotAnExport { .. } => {
                "`pcoder engine export NAME --to FOLDER` writes one, `NAME-VERSION-PLATFORM.pcoder-engine`".to_owned()
            }
            Self::WrongExport { .. } => "nothing was installed. Copy the file again, or export it again where the \
                 engine is installed: `pcoder engine export NAME --to FOLDER`"
                .to_owned(),
            Self::ForeignExport { wanted, .. } => {
                format!(
                    "export it on a machine of {wanted}, or name the other platform to put it into a portable folder"
                )
            }
            Self::Locked { .. } => "wait for it to end, or stop it".to_owned(),
            Self::Io { source, path, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => format!("check who owns `{}` and its permissions", path.display()),
                io::ErrorKind::ReadOnlyFilesystem => {
                    "make the disk writable, or set `PCODER_ENGINES` to a folder on another one".to_owned()
                }
                _ => "look at what is at that path, and whether its disk works; then try again".to_owned(),
            },
            Self::Invalid { hint, .. } | Self::Smoke { hint, .. } => hint.clone(),
        })
    }

    /// Is it the system's "no room left", however deep it lies?
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.to_owned(), needed: None, free: free_space(path) }
            }
            _ => Self::Io { action, path: path.to_owned(), source },
        }
    }

    /// A stage of the installer ended without saying why: a bug of ours, reported and not hidden.
    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        Self::Invalid {
            subject: "pcoder".to_owned(),
            detail: detail.into(),
            hint: "this is a bug: report it with the command that was run".to_owned(),
        }
    }
}

/// Adds a verb and a path to a bare I/O error.
pub(crate) trait At<T> {
    /// `file.read().at("read", &path)`.
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::io(action, path, source))
    }
}

/// Bytes free for this user in the nearest existing folder above `path`, where the system says.
pub fn free_space(path: &Path) -> Option<u64> {
    path.ancestors().find(|folder| folder.is_dir()).and_then(|folder| fs4::available_space(folder).ok())
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn room(needed: Option<u64>, free: Option<u64>) -> String {
    // Rounded against the user, so that what is shown as enough is enough.
    let needs = |bytes: u64| format!("{} MB needed", bytes.div_ceil(1_000_000));
    let has = |bytes: u64| format!("{} MB free", bytes / 1_000_000);
    match (needed, free) {
        (Some(needed), Some(free)) => format!("{}, {}", needs(needed), has(free)),
        (Some(needed), None) => needs(needed),
        (None, Some(free)) => format!("the disk is full, {}", has(free)),
        (None, None) => "the disk is full".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_its_own_error_wherever_it_happens() {
        let error = Error::io("write", Path::new("/x"), io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(error.code(), "disk-full");
        let error = Error::DiskFull { path: "/x".into(), needed: Some(552_000_001), free: Some(12) };
        assert_eq!(error.to_string(), "not enough room in `/x`: 553 MB needed, 0 MB free");
    }

    #[test]
    fn hints_are_commands() {
        let lock = crate::EnginesLock::embedded().unwrap();
        let platform = crate::Platform::LinuxX64;
        let error = lock.lookup("claude", Some("0.3.156"), platform).unwrap().not_installed();
        assert_eq!(error.hint().unwrap(), "`pcoder engine install claude --version 0.3.156`");
        assert_eq!((error.code(), error.subject().as_str()), ("not-installed", "claude"));
        let error = lock.lookup("claude", None, platform).unwrap().not_installed();
        assert_eq!(error.hint().unwrap(), "`pcoder engine install claude`");
        let own = crate::Store::new("/nowhere".into(), lock, platform);
        let hint = |store: &crate::Store, name| store.install_hint(name, None).unwrap();
        let other = own.for_platform(crate::Platform::LinuxArm64);
        assert_eq!(hint(&other, "claude"), "`pcoder engine install claude --platform linux-arm64`");
        assert_eq!(hint(&other, "codex-acp"), "`pcoder engine install codex-acp`", "it is for every platform");
        assert_eq!(hint(&other.for_platform(platform), "claude"), "`pcoder engine install claude`");
        assert_eq!(hint(&own.for_platform(platform), "claude"), "`pcoder engine install claude`");
    }
}
