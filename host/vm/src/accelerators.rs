//! Which accelerators a guest may be tried with, in the order in which they are tried.
//!
//! These are facts that can be seen without starting anything. That a device opens and that a QEMU greets prove
//! nothing: there are machines on which both do and ordinary guests hang in their first seconds. So whoever starts a
//! machine takes the first of these that is usable, watches it boot, and takes the next one when it does not.

use std::io::ErrorKind;

use serde::Serialize;

use crate::arch::Arch;
use crate::qemu::Qemu;
use crate::sys::Sys;

const KVM: &str = "/dev/kvm";

/// A way of running guests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Accelerator {
    /// QEMU's name: `kvm`, `hvf`, `whpx` or `tcg`.
    pub name: &'static str,
    /// Whether it may be tried.
    pub usable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// All there are on a host's system, the fastest first. The last one is `tcg`, which emulates the processor.
///
/// `qemu` is the QEMU that would start the guest, or why there is none.
pub async fn ladder(sys: &dyn Sys, qemu: Result<&Qemu, &str>, arch: Arch) -> Vec<Accelerator> {
    let hardware = match sys.os() {
        "linux" => Some(("kvm", kvm(sys))),
        "macos" => Some(("hvf", hvf(sys).await)),
        "windows" => Some(("whpx", whpx(sys))),
        _ => None,
    };
    let hardware = hardware.map(|(name, found)| (name, found.and_then(|()| same(sys, arch))));
    let listed = qemu.map_err(str::to_owned).and_then(|it| it.accelerators.clone());
    let rungs = hardware.into_iter().chain([("tcg", Ok(()))]);
    rungs.map(|(name, found)| rung(name, found.and_then(|()| has(&listed, name)))).collect()
}

fn rung(name: &'static str, found: Result<(), String>) -> Accelerator {
    Accelerator { name, usable: found.is_ok(), why: found.err() }
}

fn has(listed: &Result<Vec<String>, String>, name: &str) -> Result<(), String> {
    match listed {
        Ok(names) if names.iter().any(|it| it == name) => Ok(()),
        Ok(_) => Err(format!("this QEMU was built without {name}")),
        Err(why) => Err(why.clone()),
    }
}

/// Hardware runs the code of its own kind.
fn same(sys: &dyn Sys, arch: Arch) -> Result<(), String> {
    if sys.arch() == arch.qemu() {
        return Ok(());
    }
    Err(format!("the guest is for {}, and this host is {}", arch.qemu(), sys.arch()))
}

fn kvm(sys: &dyn Sys) -> Result<(), String> {
    match sys.opens(KVM) {
        Ok(()) => {}
        Err(ErrorKind::NotFound) => {
            return Err(format!(
                "there is no {KVM}: virtualisation is turned off in the firmware, or this is a virtual machine that has none"
            ));
        }
        Err(ErrorKind::PermissionDenied) => {
            return Err(format!(
                "{KVM} is there, and this user may not open it: members of the group `kvm` may \
                 (`sudo usermod -aG kvm $USER`, then log in again)"
            ));
        }
        Err(kind) => return Err(format!("{KVM} is there and does not open: {kind}")),
    }
    // Only these processors say it in their flags.
    if matches!(sys.arch(), "x86" | "x86_64") && !has_extensions(&sys.text("/proc/cpuinfo").unwrap_or_default()) {
        return Err(format!(
            "{KVM} opens, and the processor shows neither vmx nor svm: it is a software KVM on which ordinary guests hang"
        ));
    }
    Ok(())
}

fn has_extensions(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).and_then(|line| line.split_once(':'));
    flags.is_some_and(|(_, flags)| flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

async fn hvf(sys: &dyn Sys) -> Result<(), String> {
    let program = sys.find("sysctl").unwrap_or_else(|| "/usr/sbin/sysctl".into());
    match sys.answer(&program, &["-n", "kern.hv_support"]).await.as_deref() {
        Ok("1") => Ok(()),
        Ok(_) => Err("this Mac has no Hypervisor.framework (kern.hv_support is 0)".to_owned()),
        Err(problem) => Err(format!("whether there is a Hypervisor.framework is not known: {problem}")),
    }
}

/// The file is there when the feature is turned on. To ask Windows itself takes seconds, and says less than a guest.
fn whpx(sys: &dyn Sys) -> Result<(), String> {
    let windows = sys.variable("SystemRoot").and_then(|it| it.into_string().ok());
    let windows = windows.unwrap_or_else(|| r"C:\Windows".to_owned());
    if sys.exists(&format!(r"{windows}\System32\WinHvPlatform.dll")) {
        return Ok(());
    }
    Err("the Windows Hypervisor Platform is turned off: turn it on as administrator \
         (`dism /online /enable-feature /all /featurename:HypervisorPlatform`) and restart"
        .to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::fake::Fake;
    use crate::qemu::{Place, asked};

    const ALL: &str = "Accelerators supported in QEMU binary:\ntcg\nkvm\nhvf\nwhpx\n";
    const VMX: &str = "processor : 0\nvmx flags : x\nflags\t\t: fpu vmx ssse3\n";

    async fn shown(fake: Fake, arch: Arch) -> String {
        let fake = fake.program("/q", "QEMU emulator version 10.0.2");
        let qemu = asked(&fake, PathBuf::from("/q"), Place::Path, arch).await.expect("a QEMU");
        let rungs = ladder(&fake, Ok(&qemu), arch).await;
        let lines = rungs.iter().map(|it| {
            let name = it.name;
            assert_eq!(it.usable, it.why.is_none());
            it.why.as_ref().map_or_else(|| format!("{name}: usable"), |why| format!("{name}: {why}"))
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn linux() -> Fake {
        Fake::linux().answers("-accel help", ALL).file("/proc/cpuinfo", VMX)
    }

    #[tokio::test]
    async fn linux_whose_processor_runs_guests() {
        assert_eq!(shown(linux().device(KVM, Ok(())), Arch::X86_64).await, "kvm: usable\ntcg: usable");
        let svm = linux().file("/proc/cpuinfo", "flags : svm").device(KVM, Ok(()));
        assert_eq!(shown(svm, Arch::X86_64).await, "kvm: usable\ntcg: usable");
        // ARM says nothing of the kind in its flags.
        let arm = Fake::new("linux", "aarch64").answers("-accel help", ALL).device(KVM, Ok(()));
        assert_eq!(shown(arm, Arch::Aarch64).await, "kvm: usable\ntcg: usable");
    }

    #[tokio::test]
    async fn linux_where_kvm_is_missing_closed_or_one_of_software() {
        let missing = shown(linux(), Arch::X86_64).await;
        assert!(missing.starts_with("kvm: there is no /dev/kvm") && missing.ends_with("tcg: usable"), "{missing}");
        let closed = shown(linux().device(KVM, Err(ErrorKind::PermissionDenied)), Arch::X86_64).await;
        assert!(closed.contains("usermod -aG kvm"), "{closed}");
        let other = shown(linux().device(KVM, Err(ErrorKind::ResourceBusy)), Arch::X86_64).await;
        assert!(other.starts_with("kvm: /dev/kvm is there and does not open"), "{other}");
        let software = linux().file("/proc/cpuinfo", "flags : fpu hypervisor vmx_like").device(KVM, Ok(()));
        let software = shown(software, Arch::X86_64).await;
        assert!(software.contains("it is a software KVM on which ordinary guests hang"), "{software}");
    }

    #[tokio::test]
    async fn a_guest_of_another_processor_is_emulated() {
        let shown = shown(linux().device(KVM, Ok(())), Arch::Aarch64).await;
        assert_eq!(shown, "kvm: the guest is for aarch64, and this host is x86_64\ntcg: usable");
    }

    #[tokio::test]
    async fn what_qemu_was_built_without_is_not_usable() {
        let only = "Accelerators supported in QEMU binary:\nkvm\n";
        let red_hat = linux().answers("-accel help", only).device(KVM, Ok(()));
        assert_eq!(shown(red_hat, Arch::X86_64).await, "kvm: usable\ntcg: this QEMU was built without tcg");
        let mute = Fake::linux().file("/proc/cpuinfo", VMX).device(KVM, Ok(()));
        assert!(shown(mute, Arch::X86_64).await.contains("tcg: QEMU does not say which accelerators it has"));
    }

    #[tokio::test]
    async fn without_qemu_nothing_is_usable_and_what_the_hardware_lacks_is_said_first() {
        let fake = linux().device(KVM, Ok(()));
        let rungs = ladder(&fake, Err("QEMU is not installed"), Arch::X86_64).await;
        assert!(rungs.iter().all(|it| !it.usable && it.why.as_deref() == Some("QEMU is not installed")), "{rungs:?}");
        let rungs = ladder(&linux(), Err("QEMU is not installed"), Arch::X86_64).await;
        assert!(rungs[0].why.as_deref().is_some_and(|it| it.starts_with("there is no /dev/kvm")), "{rungs:?}");
    }

    #[tokio::test]
    async fn macos() {
        let mac = |says: &str| {
            let fake = Fake::new("macos", "aarch64").answers("-accel help", ALL).on_path("sysctl", "");
            fake.answers("-n kern.hv_support", says)
        };
        assert_eq!(shown(mac("1"), Arch::Aarch64).await, "hvf: usable\ntcg: usable");
        assert!(shown(mac("0"), Arch::Aarch64).await.contains("hvf: this Mac has no Hypervisor.framework"));
        let mute = Fake::new("macos", "aarch64").answers("-accel help", ALL);
        assert!(shown(mute, Arch::Aarch64).await.contains("is not known: it does not start"));
    }

    #[tokio::test]
    async fn windows() {
        let windows = || Fake::new("windows", "x86_64").answers("-accel help", ALL);
        let on = windows().file(r"C:\Windows\System32\WinHvPlatform.dll", "");
        assert_eq!(shown(on, Arch::X86_64).await, "whpx: usable\ntcg: usable");
        let moved = windows().variable("SystemRoot", r"D:\Win").file(r"D:\Win\System32\WinHvPlatform.dll", "");
        assert_eq!(shown(moved, Arch::X86_64).await, "whpx: usable\ntcg: usable");
        assert!(shown(windows(), Arch::X86_64).await.contains("featurename:HypervisorPlatform"));
    }

    #[tokio::test]
    async fn another_system_emulates() {
        let fake = Fake::new("freebsd", "x86_64").answers("-accel help", ALL);
        assert_eq!(shown(fake, Arch::X86_64).await, "tcg: usable");
    }
}
