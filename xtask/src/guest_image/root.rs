//! The root: a tree of Debian's packages with what is in `guest/`, and the disk that is made of it. Nothing is mounted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Failure;
use crate::workspace::at;

use super::Architecture;
use super::log::Log;

/// What the disk says to have. It is sparse: what nobody wrote takes no room.
const SIZE: &str = "16G";

const LABEL: &str = "pcoder-root";

pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Puts Debian's packages into `work/root`, and the kernel's package beside.
pub(super) fn packages(
    log: &Log,
    guest: &Path,
    work: &Path,
    architecture: &Architecture,
    sources: &[String],
) -> Result<PathBuf, Failure> {
    let path = guest.join("packages");
    let list = fs::read_to_string(&path).map_err(at(&path))?;
    let (tree, kernel) = (work.join("root"), work.join("kernel"));
    fs::create_dir_all(&kernel).map_err(at(&kernel))?;
    let option = |name: &str, folder: &str| format!("{name}={}", guest.join("rootfs/etc").join(folder).display());
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args(["--mode=root", "--variant=apt", "--format=directory"])
        .arg(format!("--architectures={}", architecture.name))
        .arg(format!("--include={}", words(&list).join(",")))
        .arg(format!("--keyring={KEYRING}"))
        .arg(option("--dpkgopt", "dpkg/dpkg.cfg.d/50pcoder"))
        .arg(option("--aptopt", "apt/apt.conf.d/50pcoder"))
        .args(checks()?.iter().map(|it| format!("--aptopt={it}")))
        .arg(format!("--customize-hook={}", guest.join("fetch-kernel").display()))
        .arg(super::SUITE)
        .arg(&tree)
        .args(sources)
        .env("PCODER_KERNEL_PACKAGE", architecture.kernel_package)
        .env("PCODER_KERNEL_FOLDER", &kernel)
        // mmdebstrap makes what it needs for a while there, and it must be a place where programs may run.
        .env("TMPDIR", work);
    log.run(&mut mmdebstrap)?;
    Ok(tree)
}

/// What this machine's apt does not insist on, for a mirror that lags or a clock that is wrong. It stays out of the guest.
pub(super) fn checks() -> Result<Vec<String>, Failure> {
    let output = Command::new("apt-config").arg("dump").output().map_err(|error| format!("apt-config: {error}"))?;
    let wanted = ["Acquire::Check-Valid-Until ", "Acquire::Check-Date "];
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter(|line| wanted.iter().any(|it| line.starts_with(it))).map(str::to_owned).collect())
}

/// The words of a list with comments.
fn words(list: &str) -> Vec<&str> {
    list.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace).collect()
}

/// Lays our files over the tree. Returns the folder with the modules of the initial file system. What is newer than
/// `started`, in Unix seconds, was made by this build.
pub(super) fn customize(log: &Log, guest: &Path, work: &Path, kernel: &Path, started: u64) -> Result<PathBuf, Failure> {
    let (tree, modules) = (work.join("root"), work.join("modules"));
    let mut script = Command::new("sh");
    script.arg(guest.join("customize")).arg(tree).arg(kernel).arg(guest).arg(&modules).arg(started.to_string());
    log.run(&mut script)?;
    Ok(modules)
}

/// Unix time.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs())
}

/// Makes the disk of the tree.
pub(super) fn image(
    log: &Log,
    tree: &Path,
    architecture: &Architecture,
    inputs: &str,
    image: &Path,
) -> Result<(), Failure> {
    // What was laid over the tree is as old as the newest file of Debian's.
    let ours = tree.join("usr/lib/pcoder/common");
    let newest = fs::metadata(&ours).and_then(|it| it.modified()).map_err(at(&ours))?;
    let uuid = uuid(inputs);
    match fs::remove_file(image) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(at(image)(error)),
        _ => {}
    }
    // The guest's own: it knows SOURCE_DATE_EPOCH, which the one of Debian 12 does not, and what it makes fits the guest.
    let mut mke2fs = Command::new(tree.join(architecture.linker));
    mke2fs
        .arg("--library-path")
        .arg(tree.join("usr/lib").join(architecture.libraries))
        .arg(tree.join("usr/sbin/mke2fs"))
        .args(["-q", "-t", "ext4", "-L", LABEL, "-U", &uuid])
        // The file is new and full of zeroes. Without this, the guest's kernel would write them again, in each overlay.
        .args(["-E", &format!("hash_seed={uuid},assume_storage_prezeroed=1,root_owner=0:0")])
        // Without a journal, files that are made again right after they were removed take five times as long.
        .args(["-J", "size=64", "-m", "1", "-d"])
        .arg(tree)
        .arg(image)
        .arg(SIZE)
        .env("MKE2FS_CONFIG", tree.join("etc/mke2fs.conf"))
        .env("SOURCE_DATE_EPOCH", seconds(newest).to_string());
    log.run(&mut mke2fs)
}

/// An identifier of the content: the same for the same.
fn uuid(digest: &str) -> String {
    let part = |from: usize, to: usize| digest.get(from..to).unwrap_or_default();
    // The digits that say "made by whoever knows how" (version 8).
    format!("{}-{}-8{}-8{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}

/// The packages of the tree.
pub(super) fn versions(tree: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let output = Command::new("dpkg-query")
        .arg(format!("--admindir={}", tree.join("var/lib/dpkg").display()))
        .args(["--show", "--showformat=${Package} ${Version}\\n"])
        .output()
        .map_err(|error| format!("dpkg-query: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let all: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once(' ').map(|(name, version)| (name.to_owned(), version.to_owned())))
        .collect();
    if all.is_empty() { Err("the guest's tree has no packages".to_owned()) } else { Ok(all) }
}

/// Removes a folder of work, if there is one. Not across file systems: somebody may have mounted something.
pub(super) fn remove(folder: &Path) -> Result<(), Failure> {
    if !folder.exists() {
        return Ok(());
    }
    let status = Command::new("rm").args(["-rf", "--one-file-system"]).arg(folder).status();
    match status {
        Ok(status) if status.success() && !folder.exists() => Ok(()),
        Ok(status) => Err(format!("{}: it cannot be removed ({status})", folder.display())),
        Err(error) => Err(format!("rm: {error}")),
    }
}

/// What a file takes on the disk, for people.
pub(super) fn occupied(path: &Path) -> String {
    let mut blocks = Command::new("du");
    let output = blocks.arg("-h").arg(path).output().map(|it| it.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).split_whitespace().next().unwrap_or("?").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_comments_and_words() {
        assert_eq!(words("# about\na\n\nb c\n"), ["a", "b", "c"]);
    }

    #[test]
    fn the_disks_name_is_a_uuid_of_its_content() {
        let digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        assert_eq!(uuid(digest), "01234567-89ab-8def-8123-456789abcdef");
    }

    #[test]
    fn every_package_and_module_of_the_lists_is_one_word() {
        let guest = crate::workspace::root().join("guest");
        let text = |name: &str| fs::read_to_string(guest.join(name)).expect("a list");
        let packages = text("packages");
        assert!(words(&packages).contains(&"git"));
        for line in packages.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            assert!(line.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'+')), "{line}");
        }
        for line in text("modules").lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let place = line.split(' ').next();
            assert!(
                matches!(place, Some("initrd" | "boot" | "disk" | "later")) && line.split(' ').count() == 2,
                "{line}"
            );
        }
    }
}
