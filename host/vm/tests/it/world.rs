//! A machine, an image, and what is told of both.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use pcoder_engines::{NetworkConfig, Patience, Progress, Silent};
use pcoder_vm::{Arch, Bootstrap, Bootstrapped, Images, Origin, Places, Result, Sys, bootstrap};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::registry::Registry;

/// The machine of the test, without its environment.
pub(crate) struct Host;

#[async_trait]
impl Sys for Host {
    fn os(&self) -> &str {
        std::env::consts::OS
    }
    fn arch(&self) -> &str {
        std::env::consts::ARCH
    }
    fn cpus(&self) -> Option<usize> {
        Some(1)
    }
    fn variable(&self, _: &str) -> Option<OsString> {
        None
    }
    fn text(&self, _: &str) -> Option<String> {
        None
    }
    fn exists(&self, _: &str) -> bool {
        false
    }
    /// Of the test's own folders alone: the machine may have a QEMU.
    fn is_program(&self, path: &Path) -> bool {
        path.starts_with(std::env::temp_dir()) && path.is_file()
    }
    fn entries(&self, folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
    fn opens(&self, _: &str) -> Result<(), io::ErrorKind> {
        Err(io::ErrorKind::NotFound)
    }
    fn free(&self) -> Option<u64> {
        None
    }
    fn find(&self, _: &str) -> Option<PathBuf> {
        None
    }
    async fn output(&self, program: &Path, args: &[&str]) -> Result<String, String> {
        let output = tokio::process::Command::new(program).args(args).output().await;
        let output = output.map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(format!("it ended with {}", output.status));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
    async fn answer(&self, program: &Path, args: &[&str]) -> Result<String, String> {
        self.output(program, args).await.map(|it| it.lines().next().unwrap_or_default().to_owned())
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) struct World {
    pub(crate) server: Registry,
    folder: tempfile::TempDir,
    /// What was reported of, by name.
    pub(crate) told: Arc<Mutex<Vec<String>>>,
}

/// The processor of the machine that the test runs on: QEMUs are started.
pub(crate) fn arch() -> Arch {
    Arch::parse(std::env::consts::ARCH).unwrap()
}

impl World {
    pub(crate) fn new() -> Self {
        Self { server: Registry::start(), folder: tempfile::tempdir().unwrap(), told: Arc::default() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn images(&self) -> Images {
        Images::new(self.path("images"), self.path("locks"))
    }

    /// A folder as the builder of images makes it; `seed` makes it another image.
    pub(crate) fn built(&self, name: &str, seed: u8) -> PathBuf {
        let folder = self.path(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("vmlinux"), vec![seed; 300_000]).unwrap();
        fs::write(folder.join("initrd"), vec![seed ^ 1; 5000]).unwrap();
        let mut disk = File::create(folder.join("root.img")).unwrap();
        disk.write_all(&[seed ^ 2; 70_000]).unwrap();
        disk.seek(SeekFrom::Start(6 << 20)).unwrap();
        disk.write_all(b"the end").unwrap();
        disk.set_len(8 << 20).unwrap();
        let part = |file: &str| {
            let bytes = fs::read(folder.join(file)).unwrap();
            json!({ "file": file, "size": bytes.len(), "sha256": sha256(&bytes) })
        };
        let guest = json!({
            "format": 1, "arch": arch().debian(), "suite": "trixie", "kernel_version": "6.12", "kernel": part("vmlinux"),
            "initrd": part("initrd"), "root": part("root.img"), "cmdline": "a", "cmdline_emulated": "b",
            "inputs": format!("{seed}"), "packages": {},
        });
        fs::write(folder.join("guest.json"), serde_json::to_vec_pretty(&guest).unwrap()).unwrap();
        folder
    }

    /// Puts a built image on the server, the disk compressed, and describes it as a manifest does.
    pub(crate) fn served(&self, built: &Path, compression: Option<&str>) -> Value {
        let mut files = Vec::new();
        for file in ["guest.json", "vmlinux", "initrd", "root.img"] {
            let bytes = fs::read(built.join(file)).unwrap();
            let mut entry = json!({ "file": file, "url": file, "sha256": sha256(&bytes), "size": bytes.len() });
            let mut sent = bytes;
            if let (Some(compression), "root.img") = (compression, file) {
                sent = match compression {
                    "gzip" => gzip(&sent),
                    _ => ruzstd::encoding::compress_to_vec(&*sent, ruzstd::encoding::CompressionLevel::Fastest),
                };
                entry["url"] = format!("root.img.{compression}").into();
                entry["compression"] = compression.into();
                entry["compressed-sha256"] = sha256(&sent).into();
                entry["compressed-size"] = sent.len().into();
            }
            self.server.put(entry["url"].as_str().unwrap(), sent);
            files.push(entry);
        }
        json!({ "format": 1, "images": { arch().default_image(): { "arch": arch().debian(), "files": files } } })
    }

    pub(crate) fn serve_manifest(&self, manifest: &Value) -> Origin {
        self.server.put("vm-manifest.json", serde_json::to_vec(manifest).unwrap());
        let url = format!("{}vm-manifest.json", self.server.url());
        Origin::parse(url.as_ref(), Path::new("/")).unwrap()
    }

    pub(crate) fn wanted(&self, origin: Option<Origin>) -> Bootstrap {
        let told = Arc::clone(&self.told);
        let pause = Duration::from_millis(1);
        Bootstrap {
            places: Places { images: self.path("images"), machine: self.path("machine"), locks: self.path("locks") },
            arch: arch(),
            origin,
            image: None,
            force: false,
            network: Some(Arc::new(NetworkConfig::plain(&self.server.url()).unwrap())),
            patience: Patience { retries: 2, first_pause: pause, longest_pause: pause, ..Patience::default() },
            agent: "test".to_owned(),
            reporter: Arc::new(move |name| {
                told.lock().unwrap().push(name.to_owned());
                Arc::new(Silent) as Arc<dyn Progress>
            }),
            cancel: CancellationToken::new(),
        }
    }

    pub(crate) async fn bootstrap(&self, origin: Option<Origin>) -> Result<Bootstrapped> {
        bootstrap(&Host, &self.wanted(origin)).await
    }

    /// Every path below the images, but for what an image is made of.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let staging = fs::read_dir(self.path("images").join(".staging")).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = staging.map(|it| it.path()).collect();
        found.retain(|it| fs::read_dir(it).is_ok_and(|mut it| it.next().is_some()));
        found
    }

    pub(crate) fn assert_image(&self, built: &Path) {
        let folder = self.path("images").join(arch().default_image());
        for file in ["guest.json", "vmlinux", "initrd", "root.img"] {
            assert!(fs::read(folder.join(file)).unwrap() == fs::read(built.join(file)).unwrap(), "{file}");
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 4);
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::fs::MetadataExt as _;
            let taken = folder.join("root.img").metadata().unwrap().blocks() * 512;
            assert!(taken < 1 << 20, "{taken} bytes are taken");
        }
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
