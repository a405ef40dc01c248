//! Which engine build fits this machine.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A platform that engines are published for, named as npm's packages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Platform {
    #[serde(rename = "linux-x64")]
    LinuxX64,
    #[serde(rename = "linux-arm64")]
    LinuxArm64,
    #[serde(rename = "linux-x64-musl")]
    LinuxX64Musl,
    #[serde(rename = "linux-arm64-musl")]
    LinuxArm64Musl,
    #[serde(rename = "darwin-x64")]
    DarwinX64,
    #[serde(rename = "darwin-arm64")]
    DarwinArm64,
    #[serde(rename = "win32-x64")]
    Win32X64,
    #[serde(rename = "win32-arm64")]
    Win32Arm64,
}

impl Platform {
    /// Every platform, in the order of the lock file.
    pub const ALL: [Self; 8] = [
        Self::LinuxX64,
        Self::LinuxArm64,
        Self::LinuxX64Musl,
        Self::LinuxArm64Musl,
        Self::DarwinX64,
        Self::DarwinArm64,
        Self::Win32X64,
        Self::Win32Arm64,
    ];

    /// The name, as in `linux-x64-musl`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LinuxX64 => "linux-x64",
            Self::LinuxArm64 => "linux-arm64",
            Self::LinuxX64Musl => "linux-x64-musl",
            Self::LinuxArm64Musl => "linux-arm64-musl",
            Self::DarwinX64 => "darwin-x64",
            Self::DarwinArm64 => "darwin-arm64",
            Self::Win32X64 => "win32-x64",
            Self::Win32Arm64 => "win32-arm64",
        }
    }

    /// Programs are files that Windows runs.
    pub const fn is_windows(self) -> bool {
        matches!(self, Self::Win32X64 | Self::Win32Arm64)
    }

    /// The machine this program runs on. `root` is `/`; tests pass a made-up one.
    ///
    /// On Linux the C library is told by its loader, not by how pcoder itself was linked: a static pcoder runs on both.
    /// A machine with both loaders counts as glibc (Alpine with gcompat has no `ld-linux` of its own in `/lib64`'s
    /// place of honour, and a Debian with `musl` installed is still a Debian).
    ///
    /// # Errors
    /// The system or the processor is none that engines are published for.
    pub fn detect(root: &Path) -> Result<Self, Error> {
        Self::from_parts(std::env::consts::OS, std::env::consts::ARCH, root)
    }

    fn from_parts(os: &str, arch: &str, root: &Path) -> Result<Self, Error> {
        match (os, arch) {
            ("linux", "x86_64") if is_musl(root) => Ok(Self::LinuxX64Musl),
            ("linux", "aarch64") if is_musl(root) => Ok(Self::LinuxArm64Musl),
            ("linux", "x86_64") => Ok(Self::LinuxX64),
            ("linux", "aarch64") => Ok(Self::LinuxArm64),
            ("macos", "x86_64") => Ok(Self::DarwinX64),
            ("macos", "aarch64") => Ok(Self::DarwinArm64),
            ("windows", "x86_64") => Ok(Self::Win32X64),
            ("windows", "aarch64") => Ok(Self::Win32Arm64),
            _ => Err(Error::UnsupportedPlatform {
                name: "engines".to_owned(),
                version: "of any version".to_owned(),
                platform: format!("{os}-{arch}"),
                reason: "they are published for linux, macOS and Windows on x64 and arm64".to_owned(),
            }),
        }
    }
}

fn is_musl(root: &Path) -> bool {
    let has = |folder: &str, prefix: &str| {
        std::fs::read_dir(root.join(folder))
            .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(prefix)))
    };
    let glibc = has("lib64", "ld-linux-") || has("lib", "ld-linux-");
    !glibc && has("lib", "ld-musl-")
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Platform {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|platform| platform.name() == name).ok_or_else(|| Error::Invalid {
            subject: format!("platform `{name}`"),
            detail: "no engine is published for it".to_owned(),
            hint: format!("platforms are {}", Self::ALL.map(Self::name).join(", ")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        root
    }

    #[test]
    fn the_c_library_is_told_by_its_loader() {
        let debian = machine(&["lib64/ld-linux-x86-64.so.2", "lib/ld-musl-x86_64.so.1"]);
        let alpine = machine(&["lib/ld-musl-x86_64.so.1"]);
        let arm = machine(&["lib/ld-linux-aarch64.so.1"]);
        let bare = machine(&[]);
        let on = |arch, root: &tempfile::TempDir| Platform::from_parts("linux", arch, root.path()).unwrap();
        assert_eq!(on("x86_64", &debian), Platform::LinuxX64);
        assert_eq!(on("x86_64", &alpine), Platform::LinuxX64Musl);
        assert_eq!(on("aarch64", &alpine), Platform::LinuxArm64Musl);
        assert_eq!(on("aarch64", &arm), Platform::LinuxArm64);
        assert_eq!(on("x86_64", &bare), Platform::LinuxX64);
    }

    #[test]
    fn names_go_both_ways_and_other_machines_are_refused() {
        for platform in Platform::ALL {
            assert_eq!(platform.name().parse::<Platform>().unwrap(), platform);
            assert_eq!(serde_json::to_string(&platform).unwrap(), format!("\"{platform}\""));
        }
        let root = machine(&[]);
        assert_eq!(Platform::from_parts("freebsd", "x86_64", root.path()).unwrap_err().code(), "unsupported-platform");
        assert_eq!(Platform::from_parts("windows", "aarch64", root.path()).unwrap(), Platform::Win32Arm64);
    }
}
