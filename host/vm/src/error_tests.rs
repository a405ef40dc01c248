//! Every error, as people read it: a snapshot of all of them.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Arch, Error, Version};

pcoder_error_tests::every_error_is_shown! {
    errors, shown,
    QemuMissing QemuTooOld QemuBroken ImageMissing ImageDamaged NotAnImage Name NoManifest Manifest NotInManifest
    Offline Download Wrong Archive DiskFull Cancelled Io State
}

fn errors() -> Vec<Error> {
    let program = || PathBuf::from("/usr/bin/qemu-system-x86_64");
    let image = || "debian-13-amd64".to_owned();
    let folder = || PathBuf::from("/home/ada/.local/share/pcoder/images/debian-13-amd64");
    let place = || "https://example.com/vm-manifest.json".to_owned();
    let missing = |arch, os: &str| Error::QemuMissing { arch, os: os.to_owned() };
    let io = |doing, kind: ErrorKind| Error::io(doing, &folder(), io::Error::from(kind));
    let fetch = || pcoder_engines::Error::Fetch {
        url: "https://example.com/root.img.zst".to_owned(),
        detail: "it does not have it (404)".to_owned(),
    };
    vec![
        missing(Arch::X86_64, "linux"),
        missing(Arch::Aarch64, "linux"),
        missing(Arch::Aarch64, "macos"),
        missing(Arch::X86_64, "windows"),
        missing(Arch::X86_64, "freebsd"),
        Error::QemuTooOld {
            arch: Arch::X86_64,
            program: program(),
            version: Version { major: 7, minor: 2, micro: 22 },
            os: "linux".to_owned(),
        },
        Error::QemuBroken { program: program(), detail: "`--version` ended with exit status: 127".to_owned() },
        Error::ImageMissing { name: image(), known: Vec::new() },
        Error::ImageMissing { name: image(), known: vec!["mine".to_owned(), "other".to_owned()] },
        Error::ImageDamaged { name: image(), detail: "`root.img` is missing".to_owned() },
        Error::NotAnImage { path: folder(), detail: "there is no guest.json in it".to_owned() },
        Error::Name { name: "../x".to_owned() },
        Error::NoManifest { what: "the image `debian-13-amd64`".to_owned() },
        Error::Manifest { place: place(), detail: "it has format 2, this pcoder reads 1".to_owned() },
        Error::NotInManifest { place: place(), what: "image `debian-13-arm64`".to_owned(), known: vec![image()] },
        Error::NotInManifest { place: place(), what: "image `debian-13-arm64`".to_owned(), known: Vec::new() },
        Error::Offline { url: "https://example.com/root.img.zst".to_owned() },
        Error::download("root.img", fetch()),
        Error::download(
            "root.img",
            pcoder_engines::Error::WrongFile {
                url: "https://example.com/root.img.zst".to_owned(),
                detail: "its sha256 is another one".to_owned(),
            },
        ),
        Error::Archive { file: "qemu.tar.gz".to_owned(), detail: "`../x` leads out of it".to_owned() },
        Error::DiskFull { path: folder(), needed: Some(2_000_000_001), free: Some(12_000_000) },
        io("write", ErrorKind::StorageFull),
        Error::Cancelled { subject: image() },
        io("open", ErrorKind::PermissionDenied),
        io("write", ErrorKind::FileTooLarge),
        io("read", ErrorKind::InvalidData),
        Error::State(pcoder_state::Error::Busy {
            path: Path::new("/home/ada/.local/share/pcoder/locks/image-debian-13-amd64.lock").into(),
            waited: Duration::from_secs(30),
        }),
    ]
}

fn shown(error: &Error) -> String {
    // How much is free is the machine's own.
    let message = match error {
        Error::DiskFull { needed: None, .. } => "not enough room: the disk is full".to_owned(),
        error => error.to_string(),
    };
    let (name, code, subject, hint) = (variant(error), error.code(), error.subject(), error.hint());
    format!("{name} ({code})\nerror: {message}\n  in {subject}\nhint: {hint}\n")
}
