//! `guest.json`: what an image is. `cargo xtask guest-image` writes it.

use std::collections::BTreeMap;
use std::path::Path;

use pcoder_engines::SafePath;
use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::error::{At as _, Error, Result};

/// The formats that are understood: pcoder's own images, and those that something else sets up.
const FORMAT: u32 = 1;
pub(crate) const CLOUD_FORMAT: u32 = 2;

/// Its name in an image's folder.
pub(crate) const NAME: &str = "guest.json";

/// It has a few kilobytes: Debian's packages are in it.
const LARGEST: u64 = 4 << 20;

/// What an image is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// 1, or 2 for one that `setup` is said of.
    pub format: u32,
    /// Its processor.
    pub arch: Arch,
    /// Debian's name of the release; of a cloud's image, the disk's name.
    pub suite: String,
    /// The kernel's version.
    pub kernel_version: String,
    /// The kernel.
    pub kernel: Part,
    /// The first file system.
    pub initrd: Part,
    /// The first virtio disk. Nobody writes to it: machines have an overlay.
    pub root: Part,
    /// What the kernel is told in any case.
    pub cmdline: String,
    /// What it is told after that where software emulates the processor.
    pub cmdline_emulated: String,
    /// sha256 of what the image was made of.
    pub inputs: String,
    /// Debian's packages in it, with their versions.
    #[serde(default)]
    pub packages: BTreeMap<String, String>,
    /// What makes it somebody's machine. None for pcoder's own, which does so itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<Setup>,
    /// How `root` is to be read.
    #[serde(default, skip_serializing_if = "DiskFormat::is_raw")]
    pub root_format: DiskFormat,
    /// The bytes that the machine sees, where its format says them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_bytes: Option<u64>,
}

/// What makes an image somebody's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setup {
    /// `cloud-init`, by a seed of its kind `NoCloud`.
    CloudInit,
}

/// How a disk is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    /// As it is.
    #[default]
    Raw,
    /// QEMU's.
    Qcow2,
}

impl DiskFormat {
    fn is_raw(&self) -> bool {
        *self == Self::Raw
    }
}

/// One file beside `guest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name.
    pub file: String,
    /// Bytes.
    pub size: u64,
    /// Its digest, in small hexadecimal digits.
    pub sha256: String,
}

impl Guest {
    /// Reads the one of a folder.
    ///
    /// # Errors
    /// `NotAnImage` for a folder without one and for one that is not understood; `Io`.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        let refused = |detail: String| Error::NotAnImage { path: folder.to_path_buf(), detail };
        match path.metadata() {
            Ok(data) if data.is_file() && data.len() <= LARGEST => {}
            Ok(_) => return Err(refused(format!("{NAME} is no file of a few kilobytes"))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(refused(format!("there is no {NAME} in it")));
            }
            Err(error) => return Err(Error::io("read", &path, error)),
        }
        Self::parse(&std::fs::read(&path).at("read", &path)?).map_err(refused)
    }

    /// Reads one, or says what is wrong with it.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let wrong = |error: serde_json::Error| format!("{NAME}: {error}");
        let Format { format } = serde_json::from_slice(text).map_err(wrong)?;
        if ![FORMAT, CLOUD_FORMAT].contains(&format) {
            return Err(format!("{NAME} has format {format}, this pcoder reads {FORMAT} and {CLOUD_FORMAT}"));
        }
        let guest: Self = serde_json::from_slice(text).map_err(wrong)?;
        // Whoever reads the first format does not look for it.
        if (format == FORMAT) != (guest.setup.is_none() && guest.root_format.is_raw()) {
            return Err(format!("{NAME} is not what its format {format} is for"));
        }
        for part in guest.parts() {
            if !is_plain(&part.file) || part.file == NAME {
                return Err(format!("{NAME} names a file that is none of its folder: `{}`", part.file.escape_debug()));
            }
            if !is_sha256(&part.sha256) {
                return Err(format!("{NAME}: the sha256 of `{}` is none", part.file));
            }
        }
        let [kernel, initrd, root] = guest.parts().map(|it| it.file.to_lowercase());
        if kernel == initrd || kernel == root || initrd == root {
            return Err(format!("{NAME} names one file twice"));
        }
        Ok(guest)
    }

    /// As it is written.
    pub(crate) fn text(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// Its files: kernel, first file system, disk.
    pub fn parts(&self) -> [&Part; 3] {
        [&self.kernel, &self.initrd, &self.root]
    }

    /// The name that it has when it is given none: `debian-13-amd64`, or that of a cloud's disk.
    pub fn name(&self) -> String {
        if self.setup.is_some() {
            return self.suite.clone();
        }
        // The number is what people know; other releases have the word that is in the file.
        let suite = if self.suite == "trixie" { "13" } else { &self.suite };
        format!("debian-{suite}-{}", self.arch)
    }
}

/// Whether a text is a file's name on every system, and no path.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.contains(['/', '\\']) && !name.starts_with('.') && SafePath::parse(name.as_bytes()).is_ok()
}

pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(change: impl Fn(&mut serde_json::Value)) -> Vec<u8> {
        let sha = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let part = |file: &str| serde_json::json!({ "file": file, "size": 0, "sha256": sha });
        let mut value = serde_json::json!({
            "format": 1, "arch": "amd64", "suite": "trixie", "kernel_version": "6.12", "kernel": part("vmlinux"),
            "initrd": part("initrd"), "root": part("root.img"), "cmdline": "a", "cmdline_emulated": "b",
            "inputs": "c", "packages": { "git": "1" }, "later": true,
        });
        change(&mut value);
        serde_json::to_vec(&value).unwrap()
    }

    #[test]
    fn what_the_builder_writes_is_read_and_named() {
        let guest = Guest::parse(&text(|_| {})).unwrap();
        assert_eq!((guest.arch, guest.name().as_str()), (Arch::X86_64, "debian-13-amd64"));
        let other = Guest::parse(&text(|it| it["suite"] = "forky".into())).unwrap();
        assert_eq!(other.name(), "debian-forky-amd64");
    }

    #[test]
    fn a_newer_format_and_files_elsewhere_are_refused() {
        assert!(Guest::parse(&text(|it| it["format"] = 3.into())).unwrap_err().contains("has format 3"));
        let mixed = text(|it| it["root_format"] = "qcow2".into());
        assert!(Guest::parse(&mixed).unwrap_err().contains("not what its format 1 is for"));
        for name in ["../x", "/etc/passwd", "a/b", r"a\b", "", ".hidden", "guest.json", "nul", "INITRD"] {
            assert!(Guest::parse(&text(|it| it["root"]["file"] = name.into())).is_err(), "{name}");
        }
        assert!(Guest::parse(&text(|it| it["root"]["sha256"] = "E3".into())).is_err());
        assert!(Guest::parse(&text(|it| it["arch"] = "m68k".into())).unwrap_err().contains("neither amd64 nor arm64"));
        assert!(Guest::parse(b"{").is_err());
    }
}
