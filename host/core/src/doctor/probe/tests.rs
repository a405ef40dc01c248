//! Machines that are made up.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::*;

/// A machine that is made up: its files, and what its programs answer.
struct Fake {
    os: &'static str,
    arch: &'static str,
    files: HashMap<&'static str, &'static str>,
    kvm: Result<(), ErrorKind>,
    programs: HashMap<&'static str, Result<&'static str, &'static str>>,
}

impl Fake {
    fn new(os: &'static str, arch: &'static str) -> Self {
        Self { os, arch, files: HashMap::new(), kvm: Err(ErrorKind::NotFound), programs: HashMap::new() }
    }

    fn linux() -> Self {
        Self::new("linux", "x86_64")
            .file("/etc/os-release", "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n")
            .file("/proc/sys/kernel/osrelease", "6.12.41\n")
            .file("/proc/meminfo", "MemTotal:       16384000 kB\nMemFree: 1 kB\nMemAvailable:    8192000 kB\n")
            .file("/proc/sys/user/max_user_namespaces", "63000\n")
            .file("/proc/version", "Linux version 6.12.41 (Debian)\n")
    }

    fn file(mut self, path: &'static str, text: &'static str) -> Self {
        self.files.insert(path, text);
        self
    }

    fn program(mut self, name: &'static str, answer: Result<&'static str, &'static str>) -> Self {
        self.programs.insert(name, answer);
        self
    }

    fn kvm(mut self, opens: Result<(), ErrorKind>) -> Self {
        self.kvm = opens;
        self
    }
}

#[async_trait]
impl Sys for Fake {
    fn os(&self) -> &str {
        self.os
    }
    fn arch(&self) -> &str {
        self.arch
    }
    fn cpus(&self) -> Option<usize> {
        Some(8)
    }
    fn variable(&self, _: &str) -> Option<OsString> {
        None
    }
    fn is_program(&self, _: &Path) -> bool {
        false
    }
    fn entries(&self, _: &Path) -> Vec<PathBuf> {
        Vec::new()
    }
    async fn output(&self, program: &Path, args: &[&str]) -> Result<String, String> {
        assert_eq!(args, ["-accel", "help"], "{}", program.display());
        Ok("Accelerators supported in QEMU binary:\ntcg\nkvm\nhvf\n".to_owned())
    }
    fn text(&self, path: &str) -> Option<String> {
        self.files.get(path).map(|text| (*text).to_owned())
    }
    fn exists(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }
    fn opens(&self, path: &str) -> Result<(), ErrorKind> {
        assert_eq!(path, "/dev/kvm");
        self.kvm
    }
    fn free(&self) -> Option<u64> {
        Some(100_000 * MIB)
    }
    fn find(&self, program: &str) -> Option<PathBuf> {
        self.programs.contains_key(program).then(|| format!("/bin/{program}").into())
    }
    async fn answer(&self, program: &Path, args: &[&str]) -> Result<String, String> {
        let name = program.file_name().and_then(|name| name.to_str()).expect("a name");
        // With its arguments where these matter.
        let asked = format!("{name} {}", args.join(" "));
        let says = self.programs.get(asked.as_str()).unwrap_or_else(|| &self.programs[name]);
        says.map(str::to_owned).map_err(str::to_owned)
    }
}

async fn shown(fake: Fake, providers: &[&str]) -> String {
    let providers: Vec<String> = providers.iter().map(|&it| it.to_owned()).collect();
    let (host, _) = HostFacts::of(&fake, Path::new("/machine")).await;
    let probe = probe(&fake, &host, &providers).await;
    assert!(probe.facts.iter().map(|it| &it.id).is_sorted(), "in the order of their names");
    let mut text = String::new();
    for fact in &probe.facts {
        text += &format!("{}: {}\n", fact.id, fact.measured);
        if let Some(meaning) = &fact.meaning {
            text += &format!("    {meaning}\n");
        }
    }
    format!("{text}{}: {}\n", probe.recommended_backend, probe.reason)
}

const QEMU: Result<&str, &str> = Ok("QEMU emulator version 10.0.2");

#[tokio::test]
async fn the_accelerators_are_those_of_the_qemu_that_would_be_started() {
    let probe_of = |fake: Fake| async move {
        let (host, _) = HostFacts::of(&fake, Path::new("/machine")).await;
        probe(&fake, &host, &[]).await
    };
    let good = Fake::linux().file("/proc/cpuinfo", "flags : vmx\n").kvm(Ok(()));
    let found = probe_of(good.program("qemu-system-x86_64", QEMU)).await;
    let usable: Vec<_> = found.accelerators.iter().map(|it| (it.name, it.usable)).collect();
    assert_eq!(usable, [("kvm", true), ("tcg", true)]);
    assert!(found.qemu.is_some_and(|it| it.version == "10.0.2"));
    // It is there, and no machine is started with it.
    let old = probe_of(Fake::linux().program("qemu-system-x86_64", Ok("QEMU emulator version 7.2.22"))).await;
    assert!(old.qemu.is_none() && old.accelerators.iter().all(|it| !it.usable));
    assert!(old.reason.contains("the QEMU that is here cannot be used"), "{}", old.reason);
}

#[tokio::test]
async fn a_bare_linux_with_everything() {
    let fake = Fake::linux()
        .file("/proc/cpuinfo", "processor : 0\nflags\t\t: fpu vmx ssse3\n")
        .kvm(Ok(()))
        .program("qemu-system-x86_64", QEMU)
        .program("podman", Ok("podman version 5.4.2"));
    insta::assert_snapshot!(shown(fake, &["local"]).await, @r"
    host.arch: x86_64
    host.container: none is seen
    host.cpus: 8
    host.disk: 100000 MiB free
    host.hypervisor: none is seen
    host.kvm: /dev/kvm opens
        whether guests run is found out when one is started
    host.memory: 16000 MiB, 8000 MiB available
    host.os: Debian GNU/Linux 13 (trixie), Linux 6.12.41
    host.podman: podman version 5.4.2 (/bin/podman)
    host.qemu-aarch64: not installed
    host.qemu-x86_64: QEMU emulator version 10.0.2 (/bin/qemu-system-x86_64)
    host.user-namespaces: available
    host.virtualization: the processor has vmx
    host.wsl: this is not WSL
    host-native: tools run as programs of this machine, without isolation: this pcoder has no provider for virtual machines. With one: QEMU is here and this processor can run guests
    ");
}

#[tokio::test]
async fn a_container_in_a_virtual_machine_whose_kvm_opens_and_hangs_guests() {
    let fake = Fake::linux()
        .file("/proc/cpuinfo", "processor : 0\nflags\t\t: fpu hypervisor\n")
        .file("/.dockerenv", "")
        .file("/sys/fs/cgroup/memory.max", "4294967296\n")
        .file("/proc/sys/kernel/unprivileged_userns_clone", "0\n")
        .kvm(Ok(()))
        .program("podman", Err("`--version` ended with exit status: 125"));
    insta::assert_snapshot!(shown(fake, &["local"]).await, @r"
    host.arch: x86_64
    host.container: this is a container (/.dockerenv)
        what runs here is kept in by the container, and containers and guests in it may not be allowed
    host.cpus: 8
    host.disk: 100000 MiB free
    host.hypervisor: this is a virtual machine
        guests in here are guests of a guest: slower, where they run
    host.kvm: /dev/kvm opens
        whether guests run is found out when one is started; on a processor without vmx and svm, ordinary ones are known to hang
    host.memory: 16000 MiB, 8000 MiB available, limited to 4096 MiB
    host.os: Debian GNU/Linux 13 (trixie), Linux 6.12.41
    host.podman: /bin/podman: `--version` ended with exit status: 125
    host.qemu-aarch64: not installed
    host.qemu-x86_64: not installed
    host.user-namespaces: only for root (kernel.unprivileged_userns_clone is 0)
    host.virtualization: the processor shows neither vmx nor svm
    host.wsl: this is not WSL
    host-native: tools run as programs of this machine, without isolation: this pcoder has no provider for virtual machines. With one: QEMU is not installed, and no acceleration for guests is seen
    ");
}

#[tokio::test]
async fn linux_inside_of_wsl_on_arm() {
    let mut fake = Fake::linux()
        .file("/proc/version", "Linux version 5.15.167.4-microsoft-standard-WSL2\n")
        .file("/proc/sys/user/max_user_namespaces", "0\n")
        .kvm(Err(ErrorKind::PermissionDenied));
    fake.arch = "aarch64";
    insta::assert_snapshot!(shown(fake, &["local"]).await, @r"
    host.arch: aarch64
    host.container: none is seen
    host.cpus: 8
    host.disk: 100000 MiB free
    host.hypervisor: not known
    host.kvm: /dev/kvm is there, and this user may not open it
        guests would be emulated, which is slow; members of the group `kvm` may open it
    host.memory: 16000 MiB, 8000 MiB available
    host.os: Debian GNU/Linux 13 (trixie), Linux 6.12.41
    host.podman: not installed
    host.qemu-aarch64: not installed
    host.qemu-x86_64: not installed
    host.user-namespaces: turned off (user.max_user_namespaces is 0)
    host.virtualization: not said by this processor
    host.wsl: this is Linux inside of WSL
    host-native: tools run as programs of this machine, without isolation: this pcoder has no provider for virtual machines. With one: QEMU is not installed, and no acceleration for guests is seen
    ");
}

#[tokio::test]
async fn windows() {
    let fake = Fake::new("windows", "x86_64")
        .program("cmd", Ok("Microsoft Windows [Version 10.0.26100.1]"))
        .program("wsl", Ok(""));
    insta::assert_snapshot!(shown(fake, &["local"]).await, @r"
    host.arch: x86_64
    host.container: none
    host.cpus: 8
    host.disk: 100000 MiB free
    host.hypervisor: not known
    host.kvm: only Linux has it
    host.memory: not known
    host.os: Microsoft Windows [Version 10.0.26100.1]
    host.podman: not installed
    host.qemu-aarch64: not installed
    host.qemu-x86_64: not installed
    host.user-namespaces: only Linux has them
    host.virtualization: not known
    host.wsl: wsl.exe is there
        whether a Linux is installed in it is not looked at
    host-native: tools run as programs of this machine, without isolation: this pcoder has no provider for virtual machines. With one: QEMU is not installed, and no acceleration for guests is seen; WSL is here, and there is no provider for it either
    ");
}

#[tokio::test]
async fn macos() {
    let fake = Fake::new("macos", "aarch64")
        .program("sw_vers", Ok("15.5"))
        .program("sysctl", Err("unknown oid"))
        .program("sysctl -n hw.memsize", Ok("34359738368"))
        .program("sysctl -n kern.hv_support", Ok("1"))
        .program("qemu-system-aarch64", QEMU);
    insta::assert_snapshot!(shown(fake, &["local"]).await, @r"
    host.arch: aarch64
    host.container: none
    host.cpus: 8
    host.disk: 100000 MiB free
    host.hypervisor: not known
    host.kvm: only Linux has it
    host.memory: 32768 MiB
    host.os: macOS 15.5
    host.podman: not installed
    host.qemu-aarch64: QEMU emulator version 10.0.2 (/bin/qemu-system-aarch64)
    host.qemu-x86_64: not installed
    host.user-namespaces: only Linux has them
    host.virtualization: Hypervisor.framework is there
    host.wsl: only Windows has it
    host-native: tools run as programs of this machine, without isolation: this pcoder has no provider for virtual machines. With one: QEMU is here and this processor can run guests
    ");
}

#[tokio::test]
async fn something_that_says_nothing() {
    insta::assert_snapshot!(shown(Fake::new("freebsd", "riscv64"), &[]).await, @r"
    host.arch: riscv64
    host.container: none
    host.cpus: 8
    host.disk: 100000 MiB free
    host.hypervisor: not known
    host.kvm: only Linux has it
    host.memory: not known
    host.os: freebsd
    host.podman: not installed
    host.qemu-aarch64: not installed
    host.qemu-x86_64: not installed
    host.user-namespaces: only Linux has them
    host.virtualization: not known
    host.wsl: only Windows has it
    host-native: tools run as programs of this machine, without isolation: this pcoder has no provider for virtual machines. With one: QEMU is not installed, and no acceleration for guests is seen
    ");
}

#[test]
fn only_what_this_pcoder_can_do_is_recommended() {
    let host = |accelerated, qemu, wsl| Host { accelerated, qemu, unusable: false, wsl };
    let mode = |host: &Host, providers: &[&str]| {
        let providers: Vec<String> = providers.iter().map(|&it| it.to_owned()).collect();
        recommend(host, &providers).0.name()
    };
    assert_eq!(mode(&host(true, true, true), &["local"]), "host-native");
    assert_eq!(mode(&host(true, true, true), &["local", "qemu", "wsl"]), "linux-portable");
    assert_eq!(mode(&host(false, true, true), &["local", "qemu", "wsl"]), "linux-wsl");
    assert_eq!(mode(&host(false, true, false), &["local", "qemu", "wsl"]), "linux-portable");
    assert_eq!(mode(&host(true, false, false), &["local", "qemu", "wsl"]), "host-native");
}
