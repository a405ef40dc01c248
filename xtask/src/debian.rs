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

/// OpenSSH's server, which the tests speak with. It is not started as a service, and needs no rights.
pub(crate) fn openssh() -> Result<(), Failure> {
    const PACKAGES: [&str; 2] = ["openssh-server", "openssh-client"];
    // A server is often on nobody's `PATH`.
    let server =
        || ["/usr/sbin/sshd", "/usr/libexec/sshd", "/usr/local/sbin/sshd"].iter().any(|it| Path::new(it).exists());
    let missing = || {
        let found = [server(), on_path("ssh-keygen")];
        PACKAGES.into_iter().zip(found).filter_map(|(package, found)| (!found).then_some(package)).collect()
    };
    let missing_now: Vec<&str> = missing();
    if missing_now.is_empty() {
        return Ok(());
    }
    let advice = format!(
        "the tests need OpenSSH's server and `ssh-keygen`. On Debian, run\n\n    {}",
        install_command(&PACKAGES)
    );
    install(&PACKAGES, "OpenSSH's server for the tests", missing, &advice)
}

/// A keyring of the system's and the bus that it is on, for a test of secrets that are kept there. Neither is started as
/// a service.
pub(crate) fn keyring() -> Result<(), Failure> {
    const PACKAGES: [&str; 2] = ["gnome-keyring", "dbus"];
    let missing = || {
        let found = [on_path("gnome-keyring-daemon"), on_path("dbus-run-session")];
        PACKAGES.into_iter().zip(found).filter_map(|(package, found)| (!found).then_some(package)).collect()
    };
    let missing_now: Vec<&str> = missing();
    if missing_now.is_empty() {
        return Ok(());
    }
    let advice = format!(
        "the tests need GNOME Keyring and `dbus-run-session`. On Debian, run\n\n    {}",
        install_command(&PACKAGES)
    );
    install(&PACKAGES, "a keyring for the tests", missing, &advice)
}

/// The program that writes down which files another one opens, for the test of portable folders.
pub(crate) fn strace() -> Result<(), Failure> {
    const PACKAGES: [&str; 1] = ["strace"];
    // Nothing else is traced: elsewhere that test does not exist.
    let missing = || if cfg!(target_os = "linux") && !on_path("strace") { PACKAGES.to_vec() } else { Vec::new() };
    if missing().is_empty() {
        return Ok(());
    }
    let advice = format!("the tests need `strace`. On Debian, run\n\n    {}", install_command(&PACKAGES));
    install(&PACKAGES, "strace for the tests", missing, &advice)
}

/// The file system that most sticks have, as a program: the tests mount one where they may.
pub(crate) fn exfat() -> Result<(), Failure> {
    const PACKAGES: [&str; 2] = ["exfat-fuse", "exfatprogs"];
    // On nobody's `PATH` but root's, who alone mounts.
    let there = |name: &str| ["/usr/sbin", "/sbin", "/usr/bin"].iter().any(|it| Path::new(it).join(name).exists());
    let missing = || {
        let found = [there("mount.exfat-fuse"), there("mkfs.exfat")];
        PACKAGES.into_iter().zip(found).filter_map(|(package, found)| (!found).then_some(package)).collect()
    };
    let missing_now: Vec<&str> = missing();
    if missing_now.is_empty() || !is_root() {
        return Ok(());
    }
    install(&PACKAGES, "exFAT for the tests", missing, &format!("on Debian, run\n\n    {}", install_command(&PACKAGES)))
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
