//! `vm-manifest.json`: which images and QEMUs there are, where, and what each byte of them must be.
//!
//! Whoever names a manifest trusts it. It is the root of trust for all that it names: nothing that another server sends
//! is taken unless it has the digest in here.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pcoder_engines::{NetworkConfig, Progress, SafePath};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::arch::Arch;
use crate::error::{At as _, Error, Result};
use crate::guest::{self, is_plain, is_sha256};

/// The format that is understood.
const FORMAT: u32 = 1;
/// Its name, where it is looked for.
pub(crate) const NAME: &str = "vm-manifest.json";
const LARGEST: u64 = 4 << 20;
/// No file is larger than that.
const LARGEST_FILE: u64 = 1 << 40;

/// What a manifest has.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Manifest {
    /// 1.
    pub format: u32,
    /// The images, by name.
    #[serde(default)]
    pub images: BTreeMap<String, ImageEntry>,
    /// The QEMUs, by the platform that they run on: `linux-x64`, `darwin-arm64`, `win32-x64`.
    #[serde(default)]
    pub qemu: BTreeMap<String, QemuEntry>,
}

/// An image in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ImageEntry {
    /// Its processor.
    pub arch: Arch,
    /// Its files, `guest.json` among them.
    pub files: Vec<ImageFile>,
}

/// A file of an image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageFile {
    /// Its name in the image's folder.
    pub file: String,
    /// Where it is; without a scheme, beside the manifest.
    pub url: String,
    /// What it must be once it is not compressed.
    pub sha256: String,
    /// Bytes, once it is not compressed.
    pub size: u64,
    /// Bytes of it that are no zeroes: what it takes on a disk that knows holes. Guessed without.
    #[serde(default)]
    pub data: Option<u64>,
    /// How it is compressed there.
    #[serde(default)]
    pub compression: Option<Compression>,
    /// What must come over the line.
    #[serde(default)]
    pub compressed_sha256: Option<String>,
    /// How much must come.
    #[serde(default)]
    pub compressed_size: Option<u64>,
}

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// RFC 8878, in one frame.
    Zstd,
}

/// A QEMU in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct QemuEntry {
    /// Its version.
    pub version: String,
    /// Where it is; without a scheme, beside the manifest.
    pub url: String,
    /// What the archive must be.
    pub sha256: String,
    /// Its bytes.
    pub size: u64,
    /// Its kind.
    pub archive: Archive,
}

/// A kind of archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Archive {
    /// tar, in gzip.
    #[serde(rename = "tar.gz")]
    TarGz,
    /// zip.
    #[serde(rename = "zip")]
    Zip,
}

/// Where a manifest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file here.
    File(PathBuf),
    /// An address, `https` or on this machine.
    Url(Url),
}

/// Where a file is that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    File(PathBuf),
    Url(Url),
}

impl Origin {
    /// What a person wrote: an address, or a path that is taken below `cwd`.
    ///
    /// # Errors
    /// `Manifest` for an address that is none or that is not safe.
    pub fn parse(text: &OsStr, cwd: &Path) -> Result<Self> {
        match text.to_str().filter(|it| it.contains("://")) {
            Some(url) => address(url).map(Self::Url).map_err(|detail| Error::Manifest {
                // Without what may be a secret in it.
                place: url.split(['?', '#']).next().unwrap_or_default().rsplit('@').next().unwrap_or_default().into(),
                detail,
            }),
            None => Ok(Self::File(cwd.join(text))),
        }
    }

    /// The one that is used: what was said on the command line, else what `PCODER_VM_MANIFEST` says, else a
    /// `vm-manifest.json` in the first of the folders that has one.
    ///
    /// # Errors
    /// As [`Origin::parse`].
    pub fn choose(
        said: Option<&OsStr>,
        variable: Option<&OsStr>,
        cwd: &Path,
        folders: &[PathBuf],
    ) -> Result<Option<Self>> {
        if let Some(text) = said.or(variable) {
            return Self::parse(text, cwd).map(Some);
        }
        let beside = folders.iter().map(|folder| folder.join(NAME)).find(|path| path.is_file());
        Ok(beside.map(Self::File))
    }

    /// As it is shown: without what may be a secret in it.
    pub fn shown(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Url(url) => shown(url),
        }
    }

    /// Where a file of this manifest is.
    pub(crate) fn resolve(&self, url: &str) -> Result<Source> {
        let wrong = |detail: String| Error::Manifest { place: self.shown(), detail };
        if url.contains("://") {
            return address(url).map(Source::Url).map_err(|detail| wrong(format!("an address in it: {detail}")));
        }
        let path = SafePath::parse(url.as_bytes())
            .map_err(|_| wrong(format!("`{}` is neither an address nor a path below it", url.escape_debug())))?;
        match self {
            Self::File(file) => Ok(Source::File(path.below(file.parent().unwrap_or(Path::new("."))))),
            Self::Url(base) => {
                let joined = base.join(path.as_str()).map_err(|error| wrong(error.to_string()))?;
                Ok(Source::Url(joined))
            }
        }
    }
}

pub(crate) fn shown(url: &Url) -> String {
    let mut plain = url.clone();
    plain.set_query(None);
    plain.set_fragment(None);
    plain.to_string()
}

/// The engine store's network says the same once it is asked; here it is said of the manifest, before anything is.
fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("it is no address ({error})"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address must not hold a login".to_owned());
    }
    let here = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if here => Ok(url),
        _ => Err("only https can be trusted with a program".to_owned()),
    }
}

impl Manifest {
    /// Reads one.
    ///
    /// # Errors
    /// `Manifest` for one that cannot be used; `Offline`, `Download`, `Io` when it cannot be had.
    pub async fn load(
        origin: &Origin,
        network: Option<&Arc<NetworkConfig>>,
        agent: &str,
        progress: &dyn Progress,
        cancel: CancellationToken,
    ) -> Result<Self> {
        let text = match (origin, network) {
            (Origin::File(path), _) => {
                let too_large = path.metadata().at("read", path)?.len() > LARGEST;
                if too_large {
                    let detail = format!("it is larger than {} MiB", LARGEST >> 20);
                    return Err(Error::Manifest { place: origin.shown(), detail });
                }
                std::fs::read(path).at("read", path)?
            }
            (Origin::Url(url), Some(network)) => {
                pcoder_engines::fetch(Arc::clone(network), url.as_str(), LARGEST, agent, progress, cancel)
                    .await
                    .map_err(|error| Error::download(NAME, error))?
            }
            (Origin::Url(url), None) => return Err(Error::Offline { url: shown(url) }),
        };
        let manifest = Self::parse(&text).and_then(|it| {
            it.check(origin)?;
            Ok(it)
        });
        manifest.map_err(|detail| Error::Manifest { place: origin.shown(), detail })
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if format != FORMAT {
            return Err(format!("it has format {format}, this pcoder reads {FORMAT}"));
        }
        serde_json::from_slice(text).map_err(|error| error.to_string())
    }

    /// What the fields say together, in words.
    fn check(&self, origin: &Origin) -> Result<(), String> {
        for (name, image) in &self.images {
            if image.files.iter().filter(|it| it.file == guest::NAME).count() != 1 {
                return Err(format!("the image `{name}` has no {}", guest::NAME));
            }
            for file in &image.files {
                file.check(origin).map_err(|detail| format!("`{}` of `{name}`: {detail}", file.file.escape_debug()))?;
            }
            let names: std::collections::BTreeSet<_> = image.files.iter().map(|it| it.file.to_lowercase()).collect();
            if names.len() != image.files.len() {
                return Err(format!("the image `{name}` names one file twice"));
            }
        }
        for (platform, qemu) in &self.qemu {
            let wrong = |detail: &str| format!("QEMU for `{}`: {detail}", platform.escape_debug());
            if !is_plain(platform) || !is_plain(&qemu.version) || qemu.version.contains('-') {
                return Err(wrong("its version or platform is no word"));
            }
            if !is_sha256(&qemu.sha256) {
                return Err(wrong("its sha256 is none"));
            }
            if qemu.size > LARGEST_FILE {
                return Err(wrong("its size is none"));
            }
            origin.resolve(&qemu.url).map_err(|error| wrong(&error.to_string()))?;
        }
        Ok(())
    }
}

impl ImageEntry {
    /// The entry of `guest.json`.
    pub(crate) fn guest(&self) -> Option<&ImageFile> {
        self.files.iter().find(|it| it.file == guest::NAME)
    }
}

impl ImageFile {
    fn check(&self, origin: &Origin) -> Result<(), String> {
        if !is_plain(&self.file) {
            return Err("it is no file's name".to_owned());
        }
        if !is_sha256(&self.sha256) || self.compressed_sha256.as_ref().is_some_and(|it| !is_sha256(it)) {
            return Err("its sha256 is none".to_owned());
        }
        if self.size.max(self.compressed_size.unwrap_or(0)) > LARGEST_FILE {
            return Err("its size is none".to_owned());
        }
        let compressed = (self.compressed_sha256.is_some(), self.compressed_size.is_some());
        match self.compression {
            Some(_) if compressed != (true, true) => {
                return Err("it is compressed, and has no compressed-sha256 and compressed-size".to_owned());
            }
            None if compressed != (false, false) => {
                return Err("it has a compressed-sha256 or compressed-size, and no compression".to_owned());
            }
            _ => {}
        }
        match origin.resolve(&self.url) {
            Ok(_) => Ok(()),
            Err(Error::Manifest { detail, .. }) => Err(detail),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What comes over the line: its length and digest.
    pub(crate) fn wire(&self) -> (u64, &str) {
        (self.compressed_size.unwrap_or(self.size), self.compressed_sha256.as_deref().unwrap_or(&self.sha256))
    }

    /// Bytes that it takes on a disk, as far as is known. What is no zeroes is rarely compressed to an eighth.
    pub(crate) fn room(&self) -> u64 {
        let guessed = self.compressed_size.map(|it| it.saturating_mul(8));
        self.data.or(guessed).unwrap_or(self.size).min(self.size)
    }
}
