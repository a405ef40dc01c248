//! The kernel: out of its package, and as an ELF file, which QEMU starts directly. The compressed image of the package
//! would unpack itself in the guest, which takes 1.5 s there where software emulates the processor.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::workspace::{at, entries};

use super::log::Log;

/// How a kernel is packed, told by the first bytes of its payload.
#[derive(Debug, PartialEq, Eq)]
struct Packing {
    tool: &'static str,
    package: &'static str,
    magic: &'static [u8],
    /// Whether the size of what is unpacked, which ends every payload, is a part of the format too.
    has_size: bool,
}

const PACKINGS: [Packing; 4] = [
    Packing { tool: "xz", package: "xz-utils", magic: b"\xfd7zXZ\0", has_size: false },
    Packing { tool: "zstd", package: "zstd", magic: b"\x28\xb5\x2f\xfd", has_size: false },
    Packing { tool: "gzip", package: "gzip", magic: b"\x1f\x8b", has_size: true },
    Packing { tool: "lz4", package: "lz4", magic: b"\x02\x21\x4c\x18", has_size: false },
];

/// What is inside of a `bzImage`.
#[derive(Debug)]
struct Payload<'a> {
    packing: &'static Packing,
    packed: &'a [u8],
    /// Bytes of what is unpacked.
    size: u32,
}

/// Finds the payload by the header of the boot protocol (2.08 and newer), `Documentation/arch/x86/boot.rst` of the kernel.
fn payload(image: &[u8]) -> Result<Payload<'_>, Failure> {
    let bytes =
        |at: usize, count: usize| image.get(at..at.saturating_add(count)).ok_or("the kernel's image is cut off");
    let number =
        |at: usize| bytes(at, 4).map(|it| it.iter().rev().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)));
    if bytes(0x1fe, 2)? != b"\x55\xaa" || bytes(0x202, 4)? != b"HdrS" {
        return Err("the kernel's image is no `bzImage`".to_owned());
    }
    let protocol = number(0x206)? & 0xffff;
    if protocol < 0x208 {
        return Err(format!("the kernel's boot protocol {protocol:#x} does not say where its payload is"));
    }
    // Sectors of 512 bytes; the boot sector is not counted, and no number means four.
    let setup = match bytes(0x1f1, 1)?[0] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (setup + 1) * 512 + number(0x248)? as usize;
    let whole = bytes(start, number(0x24c)? as usize)?;
    let packing = PACKINGS.iter().find(|it| whole.starts_with(it.magic)).ok_or_else(|| {
        format!("the kernel is packed in a way that is not known ({:x?})", &whole[..whole.len().min(6)])
    })?;
    let end = whole.len().checked_sub(4).ok_or("the kernel's payload is cut off")?;
    let packed = if packing.has_size { whole } else { &whole[..end] };
    Ok(Payload { packing, packed, size: number(start + end)? })
}

/// Unpacks the package that the hook brought, without its maintainer's scripts.
pub(super) fn unpack(log: &Log, work: &Path) -> Result<PathBuf, Failure> {
    let package = only(&work.join("kernel"), "linux-image-")?;
    let tree = work.join("kernel").join("tree");
    log.run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&tree))?;
    log.run(Command::new("dpkg-deb").arg("--control").arg(&package).arg(tree.join("DEBIAN")))?;
    Ok(tree)
}

/// The kernel's own version, as `uname -r` says it.
pub(super) fn version(tree: &Path) -> Result<String, Failure> {
    let image = only(&tree.join("boot"), "vmlinuz-")?;
    let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(name.trim_start_matches("vmlinuz-").to_owned())
}

/// The package's name and version.
pub(super) fn package_version(tree: &Path) -> Result<Option<(String, String)>, Failure> {
    let path = tree.join("DEBIAN").join("control");
    let control = fs::read_to_string(&path).map_err(at(&path))?;
    let field = |name: &str| control.lines().find_map(|line| line.strip_prefix(name)).map(|it| it.trim().to_owned());
    Ok(field("Package:").zip(field("Version:")))
}

/// Writes the ELF file.
pub(super) fn extract(log: &Log, tree: &Path, work: &Path, vmlinux: &Path) -> Result<(), Failure> {
    let path = only(&tree.join("boot"), "vmlinuz-")?;
    let image = fs::read(&path).map_err(at(&path))?;
    let payload = payload(&image)?;
    let packed = work.join("kernel").join("payload");
    fs::write(&packed, payload.packed).map_err(at(&packed))?;
    let tool = payload.packing.tool;
    if !crate::debian::on_path(tool) {
        return Err(format!("the kernel is packed with `{tool}`: `apt-get install {}`", payload.packing.package));
    }
    let output = File::create(vmlinux).map_err(at(vmlinux))?;
    // By its standard input, because tools go by the names of files.
    let input = File::open(&packed).map_err(at(&packed))?;
    log.run_filter(Command::new(tool).arg("-dc"), input, output)?;
    let (mut magic, mut file) = ([0; 4], File::open(vmlinux).map_err(at(vmlinux))?);
    file.read_exact(&mut magic).map_err(at(vmlinux))?;
    let size = file.metadata().map_err(at(vmlinux))?.len();
    if magic != *b"\x7fELF" || size != u64::from(payload.size) {
        return Err(format!(
            "{}: what the kernel's image holds is no ELF file of {} bytes",
            path.display(),
            payload.size
        ));
    }
    Ok(())
}

/// The one entry of a folder that begins so.
fn only(folder: &Path, begins: &str) -> Result<PathBuf, Failure> {
    let mut found = entries(folder)?;
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begins)));
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(others) => Err(format!("{}: {} files `{begins}…` instead of one", folder.display(), others.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `bzImage` with three sectors of setup and a payload 16 bytes into the rest.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 4 * 512 + 16];
        image[0x1f1] = 3;
        image[0x1fe..0x200].copy_from_slice(b"\x55\xaa");
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).expect("small").to_le_bytes());
        image.extend_from_slice(payload);
        image.extend_from_slice(b"what follows");
        image
    }

    #[test]
    fn the_payload_is_found_and_its_size_cut_off_where_the_format_has_none() {
        let xz = image(b"\xfd7zXZ\0packed\x00\x01\x00\x00");
        let found = payload(&xz).expect("a payload");
        assert_eq!((found.packing.tool, found.packed, found.size), ("xz", &b"\xfd7zXZ\0packed"[..], 256));
        let zstd = image(b"\x28\xb5\x2f\xfdpacked\x02\x00\x00\x00");
        let found = payload(&zstd).expect("a payload");
        assert_eq!((found.packing.tool, found.packed, found.size), ("zstd", &b"\x28\xb5\x2f\xfdpacked"[..], 2));
        let gzip = image(b"\x1f\x8bpacked\x05\x00\x00\x00");
        let found = payload(&gzip).expect("a payload");
        assert_eq!((found.packing.tool, found.packed.len(), found.size), ("gzip", 12, 5));
    }

    #[test]
    fn no_number_of_sectors_means_four() {
        let mut whole = image(b"\xfd7zXZ\0packed\x00\x01\x00\x00");
        whole[0x1f1] = 0;
        whole.splice(4 * 512..4 * 512, [0; 512]);
        assert_eq!(payload(&whole).expect("a payload").packed, b"\xfd7zXZ\0packed");
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let refused = |image: &[u8]| payload(image).map(drop).expect_err("refused");
        assert!(refused(b"").contains("cut off"));
        assert!(refused(&[0; 4096]).contains("no `bzImage`"));
        assert!(refused(&image(b"BZh9packed\0\0\0\0")).contains("not known"));
        let mut old = image(b"\xfd7zXZ\0packed\x00\x01\x00\x00");
        old[0x206] = 7;
        assert!(refused(&old).contains("0x207"));
        let mut long = image(b"\xfd7zXZ\0packed\x00\x01\x00\x00");
        long[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(refused(&long).contains("cut off"));
    }
}
