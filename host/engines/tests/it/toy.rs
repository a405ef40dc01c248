//! Engines made for tests: tarballs, lock files, stores.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flate2::{Compression, write::GzEncoder};
use pcoder_engines::{
    EnginesLock, Error, FORMAT, InstallOptions, InstalledEngine, NetworkConfig, Patience, Phase, Platform, Progress,
    Source, Sri, Store,
};
use sha2::{Digest as _, Sha512};
use tokio_util::sync::CancellationToken;

use crate::registry::Registry;

/// The program of a toy engine.
pub(crate) const PROGRAM: &[u8] = b"#!/bin/sh\necho toy 1.0.0\n";

/// A tarball, and what the lock says of it.
#[derive(Clone)]
pub(crate) struct Tarball {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) at: Option<String>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) unpacked: u64,
    pub(crate) files: u64,
}

/// One entry of an archive.
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) kind: tar::EntryType,
    pub(crate) mode: u32,
    pub(crate) data: &'a [u8],
    pub(crate) link: &'a [u8],
}

pub(crate) fn file<'a>(name: &'a str, data: &'a [u8]) -> Entry<'a> {
    Entry { name: name.as_bytes(), kind: tar::EntryType::Regular, mode: 0o644, data, link: b"" }
}

/// Writes headers by hand: the `tar` crate would not write what these tests need.
pub(crate) fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        let raw = header.as_old_mut();
        raw.name[..entry.name.len()].copy_from_slice(entry.name);
        raw.linkname[..entry.link.len()].copy_from_slice(entry.link);
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_size(entry.data.len() as u64);
        header.set_mtime(0);
        header.set_cksum();
        out.extend(header.as_bytes());
        out.extend(entry.data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress, the same each time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut reader = blake3::Hasher::new().finalize_xof();
    reader.fill(&mut bytes);
    bytes
}

pub(crate) fn package(name: &str, version: &str, entries: &[Entry<'_>]) -> Tarball {
    let plain: Vec<_> = entries.iter().filter(|entry| entry.kind == tar::EntryType::Regular).collect();
    Tarball {
        name: name.to_owned(),
        version: version.to_owned(),
        at: None,
        bytes: gzip(&tar(entries)),
        unpacked: plain.iter().map(|entry| entry.data.len() as u64).sum(),
        files: plain.len() as u64,
    }
}

/// A program, a description, and `ballast` bytes that do not compress.
pub(crate) fn toy(version: &str, ballast: usize) -> Tarball {
    let ballast = noise(ballast);
    let program = Entry { mode: 0o755, ..file("package/bin/toy", PROGRAM) };
    package("@toys/toy", version, &[program, file("package/package.json", b"{}"), file("package/data/noise", &ballast)])
}

impl Tarball {
    pub(crate) fn path(&self) -> String {
        let base = self.name.rsplit('/').next().unwrap();
        format!("{}/-/{base}-{}.tgz", self.name, self.version)
    }

    fn json(&self) -> serde_json::Value {
        let digest: [u8; 64] = Sha512::digest(&self.bytes).into();
        let mut json = serde_json::json!({
            "name": self.name, "version": self.version, "integrity": Sri::from_digest(digest).to_string(),
            "size": self.bytes.len(), "unpacked": self.unpacked, "files": self.files,
        });
        if let Some(at) = &self.at {
            json["at"] = at.as_str().into();
        }
        json
    }
}

/// The digest of the tree, written down from its definition and not with the crate's code. Of an archive that is broken, of what
/// can be read.
fn tree(tarballs: &[Tarball]) -> String {
    let mut lines = Vec::new();
    for tarball in tarballs {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&tarball.bytes[..]));
        for mut entry in archive.entries().into_iter().flatten().map_while(Result::ok) {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let Some((_, name)) = name.split_once('/') else { continue };
            let path = tarball.at.as_ref().map_or_else(|| name.to_owned(), |at| format!("{at}/{name}"));
            let executable = entry.header().mode().unwrap() & 0o111 != 0 || path == "bin/toy";
            let mut bytes = Vec::new();
            if entry.header().entry_type() == tar::EntryType::Regular && entry.read_to_end(&mut bytes).is_ok() {
                let (hash, mark) = (blake3::hash(&bytes).to_hex(), if executable { 'x' } else { '-' });
                lines.push((path.clone(), format!("{hash} {} {mark} {path}\n", bytes.len())));
            }
        }
    }
    lines.sort();
    let text: String = lines.into_iter().map(|(_, line)| line).collect();
    format!("blake3-{}", blake3::hash(format!("pcoder-tree 1\n{text}").as_bytes()).to_hex())
}

/// A lock with one engine `toy`, one version a list of packages; the first is the default.
pub(crate) fn lock_text(versions: &[(&str, &[Tarball])]) -> String {
    let versions_json: serde_json::Map<_, _> = versions
        .iter()
        .map(|(version, tarballs)| {
            let packages: Vec<_> = tarballs.iter().map(Tarball::json).collect();
            let build = serde_json::json!({
                "entrypoint": "bin/toy", "path": ["data"], "tree": tree(tarballs), "packages": packages
            });
            let builds = serde_json::json!({ "platforms": { "linux-x64": build, "linux-arm64": build } });
            let smoke = serde_json::json!({ "args": ["--version"], "expect": "toy 1.0.0" });
            let unsupported = serde_json::json!({ "win32-x64": "toys are for Unix" });
            ((*version).to_owned(), serde_json::json!({ "builds": builds, "smoke": smoke, "unsupported": unsupported }))
        })
        .collect();
    let toy = serde_json::json!({ "default": versions[0].0, "licence": "MIT", "versions": versions_json });
    serde_json::json!({ "format": FORMAT, "engines": { "toy": toy } }).to_string()
}

/// A registry, a lock and an empty store.
pub(crate) struct World {
    pub(crate) registry: Registry,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) lock: String,
}

impl World {
    pub(crate) fn new(packages: &[Tarball]) -> Self {
        Self::with_versions(&[("1.0.0", packages)])
    }

    pub(crate) fn with_versions(versions: &[(&str, &[Tarball])]) -> Self {
        let registry = Registry::start();
        for package in versions.iter().flat_map(|(_, packages)| packages.iter()) {
            registry.put(&package.path(), package.bytes.clone());
        }
        Self { registry, folder: tempfile::tempdir().unwrap(), lock: lock_text(versions) }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub(crate) fn store(&self) -> Store {
        let platform = Platform::detect(Path::new("/")).unwrap();
        Store::new(self.root(), EnginesLock::parse(&self.lock).unwrap(), platform)
    }

    pub(crate) fn options(&self) -> InstallOptions {
        options(NetworkConfig::plain(&self.registry.url()).unwrap())
    }

    pub(crate) async fn install(&self) -> Result<InstalledEngine, Error> {
        self.install_with(&self.options()).await
    }

    pub(crate) async fn install_with(&self, options: &InstallOptions) -> Result<InstalledEngine, Error> {
        let store = self.store();
        store.install("toy", None, options, Arc::new(Log::default()), CancellationToken::new()).await
    }

    /// Everything below the store's root that is neither an engine's nor a lock.
    pub(crate) fn litter(&self) -> Vec<String> {
        let mut litter = Vec::new();
        for folder in ["staging", "trash"] {
            if let Ok(entries) = std::fs::read_dir(self.root().join(folder)) {
                litter.extend(entries.map(|entry| entry.unwrap().path().display().to_string()));
            }
        }
        if let Ok(entries) = std::fs::read_dir(self.root().join("locks")) {
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            litter.extend(names.filter(|name| !name.ends_with(".lock")));
        }
        litter
    }

    /// The engine is there, every byte of it, and nothing else is.
    pub(crate) fn assert_whole(&self) {
        let report = self.store().verify("toy", None).unwrap();
        assert_eq!(report.problems, []);
        assert!(report.files > 0);
        assert_eq!(self.litter(), Vec::<String>::new());
    }

    /// Nothing is there that a later call could take for an engine, and nothing else but what may be gone on with.
    pub(crate) fn assert_absent(&self) {
        assert_eq!(self.store().find("toy", None).unwrap(), None);
        assert!(self.store().list().unwrap().iter().all(|line| line.condition == pcoder_engines::Condition::Missing));
        let litter: Vec<_> = self.litter().into_iter().filter(|name| !name.ends_with(".part")).collect();
        assert_eq!(litter, Vec::<String>::new());
    }

    pub(crate) fn parts(&self) -> Vec<String> {
        self.litter().into_iter().filter(|name| name.ends_with(".part")).collect()
    }
}

/// Short of patience, so that tests are quick.
pub(crate) fn options(network: NetworkConfig) -> InstallOptions {
    let mut options = InstallOptions::new(Source::Registry(Arc::new(network)));
    options.patience = Patience {
        retries: 3,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(5),
        ..Patience::default()
    };
    options
}

/// Remembers the progress.
#[derive(Default)]
pub(crate) struct Log(pub(crate) Mutex<Vec<String>>);

impl Progress for Log {
    fn phase(&self, phase: Phase) {
        self.0.lock().unwrap().push(phase.word().to_owned());
    }
    fn bytes(&self, done: u64, total: u64) {
        self.0.lock().unwrap().push(format!("{done}/{total}"));
    }
    fn message(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}
