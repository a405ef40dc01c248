//! `guest.json`: what an image is. pcoder starts what it describes and nothing else.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Failure;
use crate::workspace::{at, entries, write_if_changed};

use super::{Architecture, SUITE};

/// The format of the file, and of what it describes.
const FORMAT: u32 = 1;

/// To be raised when this program makes something else of the same `guest/`.
const BUILDER: u32 = 2;

const NAME: &str = "guest.json";

/// What is in `guest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) format: u32,
    /// Debian's name of it.
    pub(super) arch: String,
    pub(super) suite: String,
    pub(super) kernel_version: String,
    pub(super) kernel: Part,
    pub(super) initrd: Part,
    /// The first virtio disk. Read-only: machines write to an overlay.
    pub(super) root: Part,
    /// What the kernel is told in any case.
    pub(super) cmdline: String,
    /// What it is told after that where software emulates the processor.
    pub(super) cmdline_emulated: String,
    /// sha256 of what the image was made of.
    pub(super) inputs: String,
    /// Debian's packages in it, with their versions.
    pub(super) packages: BTreeMap<String, String>,
}

/// One file beside `guest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    pub(super) file: String,
    /// Bytes.
    pub(super) size: u64,
    pub(super) sha256: String,
}

impl Manifest {
    /// Describes what was built.
    pub(super) fn make(
        out: &Path,
        architecture: &Architecture,
        inputs: String,
        kernel_version: String,
        packages: BTreeMap<String, String>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            format: FORMAT,
            arch: architecture.name.to_owned(),
            suite: SUITE.to_owned(),
            kernel_version,
            kernel: Part::of(out, "vmlinux")?,
            initrd: Part::of(out, "initrd")?,
            root: Part::of(out, "root.img")?,
            cmdline: architecture.cmdline.to_owned(),
            cmdline_emulated: architecture.cmdline_emulated.to_owned(),
            inputs,
            packages,
        })
    }

    /// The one of a folder.
    pub(super) fn read(out: &Path) -> Result<Self, Failure> {
        let path = out.join(NAME);
        let text = fs::read(&path).map_err(at(&path))?;
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Makes the folder one that has no image.
    pub(super) fn remove(out: &Path) -> Result<(), Failure> {
        let path = out.join(NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(&path)(error)),
            _ => Ok(()),
        }
    }

    /// Makes the folder an image, in one step.
    pub(super) fn write(&self, out: &Path) -> Result<(), Failure> {
        for file in self.files() {
            let path = out.join(&file.file);
            File::open(&path).and_then(|it| it.sync_all()).map_err(at(&path))?;
        }
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())? + "\n";
        write_if_changed(&out.join(NAME), text.as_bytes()).map(drop)
    }

    /// Whether the files are there, as long as they should be. Whoever wants to know more compares the sums.
    pub(super) fn is_there(&self, out: &Path) -> bool {
        self.format == FORMAT
            && self.files().iter().all(|it| fs::metadata(out.join(&it.file)).is_ok_and(|file| file.len() == it.size))
    }

    pub(super) fn files(&self) -> [&Part; 3] {
        [&self.kernel, &self.initrd, &self.root]
    }
}

impl Part {
    fn of(out: &Path, name: &str) -> Result<Self, Failure> {
        let path = out.join(name);
        let mut file = File::open(&path).map_err(at(&path))?;
        let size = file.metadata().map_err(at(&path))?.len();
        let (mut hash, mut done, mut buffer, zeroes) = (Sha256::new(), 0, vec![0; PIECE], vec![0; PIECE]);
        while done < size {
            let (data, end) = extent(&file, done, size);
            while done < data {
                let count = usize::try_from(data - done).map_or(PIECE, |it| it.min(PIECE));
                hash.update(&zeroes[..count]);
                done += count as u64;
            }
            file.seek(SeekFrom::Start(done)).map_err(at(&path))?;
            while done < end {
                let count = usize::try_from(end - done).map_or(PIECE, |it| it.min(PIECE));
                file.read_exact(&mut buffer[..count]).map_err(at(&path))?;
                hash.update(&buffer[..count]);
                done += count as u64;
            }
        }
        Ok(Self { file: name.to_owned(), size, sha256: hexadecimal(&hash.finalize()) })
    }
}

/// Bytes that are hashed at a time.
const PIECE: usize = 1 << 20;

/// Where the next data of a file begins, from `from` on, and where it ends. The disk is nearly all holes: to read them
/// takes a minute, and the memory of everything else that this machine had read.
#[cfg(target_os = "linux")]
fn extent(file: &File, from: u64, size: u64) -> (u64, u64) {
    use rustix::fs::{SeekFrom, seek};
    match seek(file, SeekFrom::Data(from)) {
        Ok(data) => (data, seek(file, SeekFrom::Hole(data)).unwrap_or(size).min(size)),
        // There is none.
        Err(rustix::io::Errno::NXIO) => (size, size),
        // The file system knows no holes.
        Err(_) => (from, size),
    }
}

#[cfg(not(target_os = "linux"))]
fn extent(_: &File, from: u64, size: u64) -> (u64, u64) {
    (from, size)
}

/// The sha256 of everything that an image is made of but Debian's packages, which are the mirror's.
pub(super) fn inputs(guest: &Path, architecture: &Architecture) -> Result<String, Failure> {
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for part in [SUITE, architecture.name, architecture.kernel_package] {
        field(part.as_bytes());
    }
    for part in [architecture.cmdline, architecture.cmdline_emulated, &format!("{FORMAT} {BUILDER}")] {
        field(part.as_bytes());
    }
    let mut folders = vec![guest.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in entries(&folder)? {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_none_or(|it| it != "md") {
                field(path.strip_prefix(guest).unwrap_or(&path).to_string_lossy().as_bytes());
                field(&fs::read(&path).map_err(at(&path))?);
            }
        }
    }
    Ok(hexadecimal(&hash.finalize()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::PathBuf;

    use super::super::AMD64;
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("xtask-guest-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    #[test]
    fn a_folder_is_an_image_when_its_manifest_is_there_and_its_files_are_whole() {
        let out = folder("manifest");
        for (name, text) in [("vmlinux", "kernel"), ("initrd", ""), ("root.img", "disk")] {
            fs::write(out.join(name), text).expect("a file");
        }
        let packages = BTreeMap::from([("git".to_owned(), "1:2.47".to_owned())]);
        let made = Manifest::make(&out, &AMD64, "abc".to_owned(), "6.12".to_owned(), packages).expect("a manifest");
        assert!(Manifest::read(&out).is_err());
        made.write(&out).expect("written");
        let read = Manifest::read(&out).expect("read");
        assert!(read.is_there(&out));
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!((read.initrd.size, read.initrd.sha256.as_str()), (0, empty));
        assert_eq!((read.format, read.arch.as_str(), read.packages["git"].as_str()), (1, "amd64", "1:2.47"));
        fs::write(out.join("root.img"), "dis").expect("a file");
        assert!(!read.is_there(&out));
        Manifest::remove(&out).expect("removed");
        Manifest::remove(&out).expect("removed before");
        assert!(Manifest::read(&out).is_err());
        fs::remove_dir_all(&out).expect("the test's own folder");
    }

    #[test]
    fn holes_are_hashed_as_the_zeroes_that_they_are() {
        let out = folder("holes");
        let mut file = File::create(out.join("disk")).expect("a file");
        file.write_all(b"begin").expect("written");
        file.set_len((5 << 20) + 7).expect("longer");
        file.seek(SeekFrom::Start(3 << 20)).expect("sought");
        file.write_all(b"middle").expect("written");
        let part = Part::of(&out, "disk").expect("hashed");
        let mut whole = Sha256::new();
        whole.update(fs::read(out.join("disk")).expect("read"));
        assert_eq!((part.size, part.sha256), ((5 << 20) + 7, hexadecimal(&whole.finalize())));
        fs::remove_dir_all(&out).expect("the test's own folder");
    }

    #[test]
    fn the_inputs_are_the_files_their_names_and_nothing_that_people_read() {
        let guest = folder("inputs");
        let digest = || inputs(&guest, &AMD64).expect("a digest");
        fs::write(guest.join("a"), "1").expect("a file");
        let first = digest();
        fs::write(guest.join("README.md"), "words").expect("a file");
        assert_eq!(digest(), first);
        fs::write(guest.join("a"), "2").expect("a file");
        let second = digest();
        assert_ne!(second, first);
        fs::rename(guest.join("a"), guest.join("b")).expect("renamed");
        assert_ne!(digest(), second);
        fs::remove_dir_all(&guest).expect("the test's own folder");
    }
}
