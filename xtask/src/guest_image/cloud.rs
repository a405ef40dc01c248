//! An image as clouds have them, for the tests: Debian with systemd and cloud-init, its disk in qcow2, its kernel and
//! its initial file system beside it. Ubuntu's, which this stands for, are not among Debian's packages.

use std::fs;
use std::path::Path;
use std::process::Command;

use sha2::{Digest as _, Sha256};

use super::log::Log;
use super::{AMD64, SUITE, apt, lock, qemu, root};
use crate::Failure;
use crate::workspace::{at, entries};

/// What such an image has. Its files begin with the same name, as Ubuntu's do.
const PACKAGES: &str = "systemd-sysv,udev,dbus,systemd-resolved,netplan.io,cloud-init,cloud-guest-utils,openssh-server,\
                        sudo,procps,iproute2,ca-certificates,e2fsprogs,initramfs-tools,linux-image-cloud-amd64";
const NAME: &str = "test-server-cloudimg-amd64";
/// To be raised when this program makes something else of the same packages.
const BUILDER: &str = "1";
/// Ubuntu's label of a root.
const LABEL: &str = "cloudimg-rootfs";
const SIZE: &str = "3G";
const STAMP: &str = "inputs";

/// Builds it unless it is there.
pub(crate) fn for_tests(out: &Path) -> Result<(), Failure> {
    fs::create_dir_all(out).map_err(at(out))?;
    let _lock = lock(out)?;
    let digest = Sha256::digest(format!("{BUILDER} {SUITE} {PACKAGES} {LABEL} {SIZE}"));
    let inputs: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let stamp = out.join(STAMP);
    if fs::read_to_string(&stamp).is_ok_and(|it| it == inputs) {
        return Ok(());
    }
    apt::tools()?;
    // `qemu-img` comes with it.
    qemu::find(&AMD64, qemu::Accelerator::Tcg, out)?;
    let work = out.join("work");
    root::remove(&work)?;
    fs::create_dir_all(&work).map_err(at(&work))?;
    let log = Log::create(&out.join("build.log"))?;
    let tree = work.join("root");
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args(["--mode=root", "--variant=apt", "--format=directory"])
        .arg(format!("--architectures={}", AMD64.name))
        .arg(format!("--include={PACKAGES}"))
        .arg(format!("--keyring={}", root::KEYRING))
        .args(root::checks()?.iter().map(|it| format!("--aptopt={it}")))
        .arg(SUITE)
        .arg(&tree)
        .args(apt::sources(SUITE)?)
        .env("TMPDIR", &work);
    log.run(&mut mmdebstrap)?;
    for (what, name) in [("vmlinuz-", "vmlinuz-generic"), ("initrd.img-", "initrd-generic")] {
        let boot = entries(&tree.join("boot"))?;
        let is_it = |it: &&std::path::PathBuf| it.file_name().is_some_and(|it| it.to_string_lossy().starts_with(what));
        let file = boot.iter().find(is_it).ok_or_else(|| format!("the tree has no `{what}…`"))?;
        let to = out.join(format!("{NAME}-{name}"));
        fs::copy(file, &to).map_err(at(&to))?;
    }
    // What every machine has of its own.
    for path in entries(&tree.join("etc/ssh"))? {
        if path.file_name().is_some_and(|it| it.to_string_lossy().starts_with("ssh_host_")) {
            fs::remove_file(&path).map_err(at(&path))?;
        }
    }
    for (file, text) in [("etc/machine-id", ""), ("etc/fstab", "LABEL=cloudimg-rootfs / ext4 defaults 0 1\n")] {
        let path = tree.join(file);
        fs::write(&path, text).map_err(at(&path))?;
    }
    let (raw, disk) = (work.join("disk.raw"), out.join(format!("{NAME}.img")));
    let mut mke2fs = Command::new("mke2fs");
    log.run(mke2fs.args(["-q", "-t", "ext4", "-L", LABEL, "-d"]).arg(&tree).arg(&raw).arg(SIZE))?;
    log.run(Command::new("qemu-img").args(["convert", "-O", "qcow2"]).arg(&raw).arg(&disk))?;
    root::remove(&work)?;
    fs::write(&stamp, inputs).map_err(at(&stamp))
}
