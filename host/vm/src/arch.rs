//! Processors, by the names that everyone has for them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The processor of a guest. It is written as Debian writes it; the names of Rust and of QEMU are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Arch {
    /// By any of its names.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "x86_64" | "amd64" | "x64" => Some(Self::X86_64),
            "aarch64" | "arm64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// Debian's name, which is the one in images.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Rust's name, which is QEMU's too.
    pub const fn qemu(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The image that is taken when none is named.
    pub fn default_image(self) -> String {
        format!("debian-13-{self}")
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.debian())
    }
}

impl Serialize for Arch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.debian())
    }
}

impl<'de> Deserialize<'de> for Arch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::parse(&name).ok_or_else(|| serde::de::Error::custom("the processor is neither amd64 nor arm64"))
    }
}

/// The name under which a manifest has a QEMU for a host, as engines have theirs: `linux-x64`, `darwin-arm64`,
/// `win32-x64`.
pub fn platform(os: &str, arch: &str) -> String {
    let os = match os {
        "macos" => "darwin",
        "windows" => "win32",
        os => os,
    };
    let arch = match Arch::parse(arch) {
        Some(Arch::X86_64) => "x64",
        Some(Arch::Aarch64) => "arm64",
        None => arch,
    };
    format!("{os}-{arch}")
}
