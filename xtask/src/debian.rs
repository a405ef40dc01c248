//! Packages of Debian's that a step needs, installed where that is possible.

use std::path::Path;
use std::process::Command;

use crate::Failure;

/// Brings packages with `apt-get`, when there is one and we may use it; otherwise fails with `advice`, which says what
/// to do by hand. `missing` is looked at again afterwards.
pub(crate) fn install(
    packages: &[&str],
    purpose: &str,
    missing: impl Fn() -> Vec<&'static str>,
    advice: &str,
) -> Result<(), Failure> {
    if !on_path("apt-get") || !is_root() {
        return Err(advice.to_owned());
    }
    let command = install_command(packages);
    println!("installing {purpose} (missing: {}):", missing().join(", "));
    println!("    {command}");
    let status = Command::new("sh")
        .args(["-c", &command])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .map_err(|error| format!("sh: {error}"))?;
    let still = missing();
    if status.success() && still.is_empty() {
        return Ok(());
    }
    Err(format!("`apt-get` did not bring {}: {advice}", still.join(", ")))
}

/// The command that brings them.
pub(crate) fn install_command(packages: &[&str]) -> String {
    format!("apt-get update && apt-get install -y {}", packages.join(" "))
}

/// Whether there is such a program.
pub(crate) fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// A package, and how it is seen that what it brings is there.
type Package = (&'static str, fn() -> bool);

/// Brings packages that the tests need, where they are missing. `need` is what they are, for people.
fn bring(packages: &[Package], what: &str, need: &str) -> Result<(), Failure> {
    let missing = || packages.iter().filter(|(_, there)| !there()).map(|(package, _)| *package).collect();
    let missing_now: Vec<&str> = missing();
    if missing_now.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = packages.iter().map(|(package, _)| *package).collect();
    let advice = format!("the tests need {need}. On Debian, run\n\n    {}", install_command(&names));
    install(&names, what, missing, &advice)
}

/// Whether a program is there that is on nobody's `PATH` but root's.
fn is_systems(name: &str) -> bool {
    let folders = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin", "/usr/libexec", "/usr/lib/openssh"];
    folders.iter().any(|it| Path::new(it).join(name).exists())
}

/// OpenSSH's server, which the tests speak with. It is not started as a service, and needs no rights.
pub(crate) fn openssh() -> Result<(), Failure> {
    let packages: [Package; 3] = [
        ("openssh-server", || is_systems("sshd")),
        ("openssh-client", || on_path("ssh-keygen")),
        ("openssh-sftp-server", || is_systems("sftp-server")),
    ];
    bring(&packages, "OpenSSH's server for the tests", "OpenSSH's server, `ssh-keygen` and `sftp-server`")
}

/// A keyring of the system's and the bus that it is on, for a test of secrets that are kept there. Neither is started as
/// a service.
pub(crate) fn keyring() -> Result<(), Failure> {
    let packages: [Package; 2] =
        [("gnome-keyring", || on_path("gnome-keyring-daemon")), ("dbus", || on_path("dbus-run-session"))];
    bring(&packages, "a keyring for the tests", "GNOME Keyring and `dbus-run-session`")
}

/// The program that writes down which files another one opens, for the test of portable folders. Nothing but Linux is
/// traced: elsewhere that test does not exist.
pub(crate) fn strace() -> Result<(), Failure> {
    bring(&[("strace", || !cfg!(target_os = "linux") || on_path("strace"))], "strace for the tests", "`strace`")
}

/// The file system that most sticks have, as a program: the tests mount one where they may, which root alone does.
pub(crate) fn exfat() -> Result<(), Failure> {
    let packages: [Package; 2] = [
        ("exfat-fuse", || is_systems("mount.exfat-fuse") || !is_root()),
        ("exfatprogs", || is_systems("mkfs.exfat") || !is_root()),
    ];
    bring(&packages, "exFAT for the tests", "exFAT")
}

/// What the instances of the fakes have: the smallest shell and its programs, and what the official clients ask for. And
/// what reads a machine's disk with engines as its kernel does, and what makes a network from which it is looked at.
pub(crate) fn instances() -> Result<(), Failure> {
    let packages: [Package; 5] = [
        ("busybox", || on_path("busybox")),
        ("zstd", || on_path("zstd")),
        ("unzip", || on_path("unzip")),
        ("squashfs-tools", || on_path("unsquashfs")),
        ("iproute2", || on_path("ip")),
    ];
    bring(&packages, "programs for the instances of the tests", "`busybox`, `zstd`, `unzip`, `unsquashfs` and `ip`")
}

/// What virtual machines are compared with.
pub(crate) fn bench_vm() -> Result<(), Failure> {
    let packages: [Package; 2] = [("openssh-client", || on_path("ssh")), ("rsync", || on_path("rsync"))];
    bring(&packages, "what pcoder is compared with", "`ssh` and `rsync`")
}

/// Whether we may install packages.
pub(crate) fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
