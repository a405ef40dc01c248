//! From a manifest to a QEMU that starts.

#![cfg(unix)]

use std::fs;
use std::io::{Cursor, Write as _};

use pcoder_vm::{Error, Origin, Outcome, platform};
use serde_json::{Value, json};
use zip::write::SimpleFileOptions;

use crate::world::{World, arch, gzip, sha256};

const VERSION: &str = "11.1.1";

fn script(version: &str) -> Vec<u8> {
    format!("#!/bin/sh\necho 'QEMU emulator version {version} (of a test)'\n").into_bytes()
}

fn program() -> String {
    format!("q/bin/qemu-system-{}", arch().qemu())
}

/// Files with their modes, and links to somewhere.
fn tar(files: &[(&str, u32, Vec<u8>)], links: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, bytes) in files {
        let mut header = tar::Header::new_gnu();
        // As a hostile archive has it: the builder itself refuses such names.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        header.set_cksum();
        builder.append(&header, &**bytes).unwrap();
    }
    for (path, to) in links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_cksum();
        builder.append_link(&mut header, path, to).unwrap();
    }
    gzip(&builder.into_inner().unwrap())
}

fn zip(files: &[(&str, u32, Vec<u8>)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (path, mode, bytes) in files {
        writer.start_file(*path, SimpleFileOptions::default().unix_permissions(*mode)).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

impl World {
    /// A manifest with an image and this archive.
    fn with_qemu(&self, archive: &[u8], kind: &str, version: &str) -> Origin {
        let mut manifest: Value = self.served(&self.built("built", 7), None);
        self.server.put("q", archive.to_vec());
        let platform = platform(std::env::consts::OS, std::env::consts::ARCH);
        manifest["qemu"] = json!({ platform: {
            "version": version, "url": "q", "sha256": sha256(archive), "size": archive.len(), "archive": kind,
        } });
        self.serve_manifest(&manifest)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qemu_is_brought_unpacked_started_and_found_before_any_other() {
    for kind in ["tar.gz", "zip"] {
        let world = World::new();
        let program = program();
        let files = [(program.as_str(), 0o755, script(VERSION)), ("q/share/bios.bin", 0o644, vec![1; 9])];
        let archive = if kind == "zip" { zip(&files) } else { tar(&files, &[]) };
        let origin = world.with_qemu(&archive, kind, VERSION);
        let qemu = world.bootstrap(Some(origin.clone())).await.unwrap().qemu.unwrap();
        assert_eq!((qemu.name.as_str(), qemu.outcome), (VERSION, Outcome::Installed));
        assert!(qemu.path.starts_with(world.path("machine/qemu")) && qemu.path.ends_with(&program));
        let beside = qemu.path.parent().unwrap().parent().unwrap().join("share/bios.bin");
        assert_eq!(fs::read(beside).unwrap(), [1; 9]);
        assert_eq!(fs::read_dir(world.path("machine/qemu")).unwrap().count(), 1, "nothing else is left");
        let again = world.bootstrap(Some(origin)).await.unwrap().qemu.unwrap();
        assert_eq!((again.path, again.outcome), (qemu.path, Outcome::Present));
        assert_eq!(world.server.requests().iter().filter(|it| it.path.ends_with("/q")).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_start_is_another_version_or_too_old_is_not_installed() {
    let program = program();
    let bad: [(Vec<u8>, u32, &str); 4] = [
        (b"#!/bin/sh\nexit 3\n".to_vec(), 0o755, "ended with"),
        (script("11.0.0"), 0o755, "says that it is 11.0.0"),
        (script("8.2.0"), 0o755, "too old"),
        (script(VERSION), 0o644, "ermission denied"),
    ];
    for (bytes, mode, says) in bad {
        let world = World::new();
        let origin = world.with_qemu(&tar(&[(&program, mode, bytes)], &[]), "tar.gz", VERSION);
        let error = world.bootstrap(Some(origin)).await.unwrap_err();
        assert!(error.to_string().contains(says), "{says}: {error}");
        assert_eq!(fs::read_dir(world.path("machine/qemu")).unwrap().count(), 1, "only the staging folder");
        assert!(world.images().list().unwrap()[0].image.is_ok(), "the image is there all the same");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_that_mean_harm_write_nothing_outside() {
    let program = program();
    let right = || (program.as_str(), 0o755, script(VERSION));
    let hostile: Vec<(Vec<u8>, &str, &str)> = vec![
        (tar(&[right(), ("../../evil", 0o644, vec![1])], &[]), "tar.gz", "no path below a folder"),
        (tar(&[right(), ("/tmp/evil", 0o644, vec![1])], &[]), "tar.gz", "no path below a folder"),
        (tar(&[right()], &[("q/link", "/etc")]), "tar.gz", "neither a file nor a folder"),
        (tar(&[right(), right()], &[]), "tar.gz", "twice"),
        (tar(&[("q/else", 0o755, script(VERSION))], &[]), "tar.gz", "has no qemu-system-"),
        (zip(&[right(), ("../../evil", 0o644, vec![1])]), "zip", "no path below a folder"),
        (b"no archive at all".to_vec(), "tar.gz", "cannot be read"),
        (b"no archive at all".to_vec(), "zip", "cannot be read"),
    ];
    for (archive, kind, says) in hostile {
        let world = World::new();
        let error = world.bootstrap(Some(world.with_qemu(&archive, kind, VERSION))).await.unwrap_err();
        assert!(matches!(error, Error::Archive { .. }) && error.to_string().contains(says), "{says}: {error}");
        assert!(!world.path("evil").exists() && !world.path("machine/evil").exists());
    }
}
