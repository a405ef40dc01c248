//! Images for clouds, which `cloud-init` makes somebody's machine: a folder with a disk, its kernel and its initial
//! file system, as Ubuntu publishes them (<https://cloud-images.ubuntu.com/noble/current/>, the last two in `unpacked/`).
//!
//! The kernel is started directly, as that of pcoder's own images: there is no firmware and no boot loader to wait for.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use pcoder_engines::{Phase, Progress};
use tokio_util::sync::CancellationToken;

use crate::arch::Arch;
use crate::error::{At as _, Error, Result};
use crate::files::{Meter, hash};
use crate::guest::{CLOUD_FORMAT, DiskFormat, Guest, Part, Setup};
use crate::images::is_name;

/// A file in the folder whose line the kernel is told instead of [`cmdline`].
const CMDLINE: &str = "cmdline";
/// The longest line that kernels of both processors take.
const LONGEST: usize = 2048;

/// The three files of a folder, by their names.
struct Files {
    disk: String,
    kernel: String,
    initrd: String,
}

impl Files {
    /// None where one is missing, or there are two. Hidden files are some system's own, and links lead elsewhere.
    fn of(folder: &Path) -> Result<Option<Self>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).at("list", folder)? {
            let entry = entry.at("list", folder)?;
            let is_file = entry.file_type().is_ok_and(|it| it.is_file());
            names.extend(entry.file_name().into_string().ok().filter(|it| is_file && !it.starts_with('.')));
        }
        let one = |is: &dyn Fn(&str) -> bool| {
            let mut found = names.iter().filter(|it| is(it));
            found.next().filter(|_| found.next().is_none()).cloned()
        };
        let is_disk =
            |it: &str| [".img", ".qcow2", ".raw"].iter().any(|end| it.ends_with(end)) && !it.contains("initrd");
        let (disk, kernel, initrd) =
            (one(&is_disk), one(&|it| it.contains("vmlinu")), one(&|it| it.contains("initrd")));
        Ok(disk.zip(kernel).zip(initrd).map(|((disk, kernel), initrd)| Self { disk, kernel, initrd }))
    }
}

/// Whether the plugin that starts machines takes a file of this name.
fn is_startable(name: &str) -> bool {
    name.len() <= 100 && name.bytes().all(|it| it.is_ascii_alphanumeric() || b"_-.".contains(&it))
}

/// Describes the image that is in a folder.
///
/// # Errors
/// `NotAnImage` where there is none, and for a disk that has parts elsewhere; `Io`; `Cancelled`.
pub(crate) fn describe(folder: &Path, progress: &dyn Progress, cancel: &CancellationToken) -> Result<Guest> {
    let refused = |detail: String| Error::NotAnImage { path: folder.to_path_buf(), detail };
    let Some(files) = Files::of(folder)? else {
        let detail = "it has neither a guest.json nor just one cloud image (`*.img`) with its kernel (`*vmlinuz*`) and \
                      its initial file system (`*initrd*`)";
        return Err(refused(detail.to_owned()));
    };
    if let Some(name) = [&files.disk, &files.kernel, &files.initrd].into_iter().find(|it| !is_startable(it)) {
        return Err(refused(format!(
            "`{}` has a name with other signs than letters, digits, `.`, `_` and `-`",
            name.escape_debug()
        )));
    }
    let disk = folder.join(&files.disk);
    let (root_format, root_bytes) = format(&disk)?;
    let stem = Path::new(&files.disk).file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    if !is_name(&stem) {
        return Err(Error::Name { name: stem });
    }
    let named = ["amd64", "x86_64", "arm64", "aarch64"].into_iter().find(|it| stem.contains(it));
    let arch = Arch::parse(named.unwrap_or(std::env::consts::ARCH)).unwrap_or(Arch::X86_64);
    let cmdline = own_cmdline(folder)?.unwrap_or_else(|| cmdline(arch));
    progress.phase(Phase::Checking);
    let part = |file: &String| -> Result<Part> {
        let path = folder.join(file);
        let size = path.metadata().at("read", &path)?.len();
        let sha256 = hash(&path, Meter::new(file, size, progress, cancel))?;
        Ok(Part { file: file.clone(), size, sha256 })
    };
    Ok(Guest {
        format: CLOUD_FORMAT,
        arch,
        suite: stem,
        kernel_version: String::new(),
        kernel: part(&files.kernel)?,
        initrd: part(&files.initrd)?,
        root: part(&files.disk)?,
        cmdline,
        cmdline_emulated: String::new(),
        inputs: String::new(),
        packages: std::collections::BTreeMap::new(),
        setup: Some(Setup::CloudInit),
        root_format,
        root_bytes: Some(root_bytes),
    })
}

/// The line that is in the folder, where there is one.
fn own_cmdline(folder: &Path) -> Result<Option<String>> {
    let path = folder.join(CMDLINE);
    let refused = || {
        let detail = format!(
            "its `{CMDLINE}` is no file with one line of at most {LONGEST} plain signs, without quotes and backslashes"
        );
        Error::NotAnImage { path: folder.to_path_buf(), detail }
    };
    match path.symlink_metadata() {
        Ok(data) if data.is_file() && data.len() <= LONGEST as u64 + 2 => {}
        Ok(_) => return Err(refused()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", &path, error)),
    }
    let text = String::from_utf8_lossy(&fs::read(&path).at("read", &path)?).trim().to_owned();
    // What a plugin may tell a kernel.
    let plain = |it: u8| (it.is_ascii_graphic() || it == b' ') && !b"\"'\\".contains(&it);
    if text.len() <= LONGEST && text.bytes().all(plain) { Ok(Some(text)) } else { Err(refused()) }
}

/// Whether a disk that somebody has described is what it was described as, and names no other files.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_disk(folder: &Path, guest: &Guest) -> Result<(), String> {
    if guest.root_format != DiskFormat::Qcow2 {
        return Ok(());
    }
    match format(&folder.join(&guest.root.file)) {
        Ok((DiskFormat::Qcow2, bytes)) if guest.root_bytes == Some(bytes) => Ok(()),
        Ok(_) => Err(format!("`{}` is not the disk that it is described as", guest.root.file)),
        Err(Error::NotAnImage { detail, .. }) => Err(detail),
        Err(error) => Err(error.to_string()),
    }
}

/// What Ubuntu's kernels are told by Ubuntu's boot loader, but for the place of the console.
fn cmdline(arch: Arch) -> String {
    let console = match arch {
        Arch::X86_64 => "ttyS0",
        Arch::Aarch64 => "ttyAMA0",
    };
    format!("root=LABEL=cloudimg-rootfs ro console={console} panic=-1")
}

/// A disk's format, and the bytes that its machine sees. A disk that names other files would bring what is in them into the
/// machine, whosever they are.
///
/// The header: <https://www.qemu.org/docs/master/interop/qcow2.html>.
fn format(path: &Path) -> Result<(DiskFormat, u64)> {
    const DATA_FILE: u64 = 1 << 2;
    const DAMAGED: u64 = 1 << 1;
    let refused = |detail: &str| Error::NotAnImage { path: path.to_path_buf(), detail: detail.to_owned() };
    let mut header = Vec::new();
    File::open(path).and_then(|it| it.take(80).read_to_end(&mut header)).at("read", path)?;
    if !header.starts_with(b"QFI\xfb") {
        return Ok((DiskFormat::Raw, path.metadata().at("read", path)?.len()));
    }
    let number = |at: usize| header.get(at..at + 8).and_then(|it| it.try_into().ok()).map(u64::from_be_bytes);
    let version = header.get(4..8);
    let (Some(backing), Some(bytes), Some(crypt)) = (number(8), number(24), header.get(32..36)) else {
        return Err(refused("its disk ends within its header"));
    };
    let incompatible = match version {
        Some([0, 0, 0, 2]) => 0,
        Some([0, 0, 0, 3]) => number(72).ok_or_else(|| refused("its disk ends within its header"))?,
        _ => return Err(refused("its disk is of a newer format than qcow2's version 3")),
    };
    if backing != 0 || incompatible & DATA_FILE != 0 {
        return Err(refused("its disk is a part of another file's: make it whole with `qemu-img convert -O qcow2`"));
    }
    if crypt != [0; 4] || incompatible & DAMAGED != 0 {
        return Err(refused("its disk is encrypted or damaged"));
    }
    Ok((DiskFormat::Qcow2, bytes))
}

#[cfg(test)]
mod tests {
    use pcoder_engines::Silent;

    use super::*;

    fn header(version: u8, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = b"QFI\xfb\0\0\0".to_vec();
        bytes.push(version);
        bytes.resize(104, 0);
        bytes[24..32].copy_from_slice(&(3_u64 << 30).to_be_bytes());
        change(&mut bytes);
        bytes
    }

    fn described(folder: &Path) -> Result<Guest> {
        describe(folder, &Silent, &CancellationToken::new())
    }

    #[test]
    fn what_ubuntu_publishes_is_an_image_that_cloud_init_sets_up() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        let why = |folder: &Path| described(folder).unwrap_err().to_string();
        assert!(why(folder.path()).contains("neither a guest.json nor just one cloud image"));
        put("noble-server-cloudimg-amd64.img", &header(3, |_| {}));
        put("noble-server-cloudimg-amd64-initrd-generic", b"i");
        assert!(why(folder.path()).contains("neither"), "no kernel");
        put("noble-server-cloudimg-amd64-vmlinuz-generic", b"k");
        put("SHA256SUMS", b"");
        let guest = described(folder.path()).unwrap();
        assert_eq!(guest.name(), "noble-server-cloudimg-amd64");
        assert_eq!((guest.setup, guest.root_format), (Some(Setup::CloudInit), DiskFormat::Qcow2));
        assert_eq!((guest.arch, guest.root_bytes, guest.root.size), (Arch::X86_64, Some(3 << 30), 104));
        assert_eq!(guest.cmdline, "root=LABEL=cloudimg-rootfs ro console=ttyS0 panic=-1");
        // It is read as it was written.
        let text = serde_json::to_vec(&guest).unwrap();
        assert_eq!(Guest::parse(&text).unwrap(), guest);
        put("cmdline", b"root=/dev/vda1 ro\n");
        assert_eq!(described(folder.path()).unwrap().cmdline, "root=/dev/vda1 ro");
        put("cmdline", b"root=/dev/vda1\nro");
        assert!(why(folder.path()).contains("no file with one line"));
        for bad in [b"root=\"a\"".to_vec(), vec![b'x'; LONGEST + 3]] {
            put("cmdline", &bad);
            assert!(why(folder.path()).contains("no file with one line"));
        }
        put("cmdline", b"");
        put("._noble-server-cloudimg-amd64.img", b"hidden");
        described(folder.path()).unwrap();
        put("other-arm64.img", b"raw");
        assert!(why(folder.path()).contains("neither"), "two disks");
        fs::remove_file(folder.path().join("noble-server-cloudimg-amd64.img")).unwrap();
        let other = described(folder.path()).unwrap();
        assert_eq!((other.arch, other.root_format, other.root_bytes), (Arch::Aarch64, DiskFormat::Raw, Some(3)));
        fs::rename(folder.path().join("other-arm64.img"), folder.path().join("other (1).img")).unwrap();
        assert!(why(folder.path()).contains("other signs"));
        #[cfg(unix)]
        {
            fs::remove_file(folder.path().join("other (1).img")).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", folder.path().join("linked-amd64.img")).unwrap();
            assert!(why(folder.path()).contains("neither"), "a link is no file of the folder's");
            put("plain-amd64.img", b"raw");
            fs::remove_file(folder.path().join("cmdline")).unwrap();
            std::os::unix::fs::symlink("/etc/hostname", folder.path().join("cmdline")).unwrap();
            assert!(why(folder.path()).contains("no file with one line"));
        }
    }

    #[test]
    fn a_disk_that_names_other_files_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            format(&path).unwrap_err().to_string()
        };
        assert!(refused(&header(2, |it| it[15] = 80)).contains("part of another"));
        assert!(refused(&header(3, |it| it[79] = 4)).contains("part of another"));
        assert!(refused(&header(3, |it| it[79] = 2)).contains("damaged"));
        assert!(refused(&header(3, |it| it[35] = 2)).contains("encrypted"));
        assert!(refused(&header(4, |_| {})).contains("newer format"));
        assert!(refused(&header(3, |it| it.truncate(70))).contains("within its header"));
    }
}
