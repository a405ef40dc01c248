//! `runtime probe`: what this machine has, and which way of running tools that leaves.
//!
//! These are facts and no findings: a machine without QEMU is a machine without QEMU. So they are records as `doctor`'s,
//! which are always `ok`, and where one is less than it looks like, it says what it means.

use std::time::Instant;

use pcoder_runtime::manifest::Kind;
use pcoder_vm::{Accelerator, HostFacts, QemuFact, Sys};
use serde::Serialize;

use super::record::{Check, Finding};
use super::redact::Redactor;
use super::sys::ThisMachine;
use crate::Pcoder;

const CATEGORY: &str = "host";
const MIB: u64 = 1 << 20;

/// What this machine has, and what follows from that.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// pcoder's version.
    pub version: &'static str,
    /// How tools are best run here, of what this pcoder can do: `host-native`, `linux-portable` or `linux-wsl`.
    pub recommended_backend: &'static str,
    /// Why.
    pub reason: String,
    /// The QEMU that virtual machines are started with, where there is one that can be used.
    pub qemu: Option<QemuFact>,
    /// The accelerators that they may be tried with, the fastest first, and why not.
    pub accelerators: Vec<Accelerator>,
    /// What was found, by name.
    pub facts: Vec<Check>,
}

/// A way of running tools, and the provider that does so.
struct Mode {
    name: &'static str,
    provider: &'static str,
}

const HOST_NATIVE: Mode = Mode { name: "host-native", provider: "local" };
const LINUX_PORTABLE: Mode = Mode { name: "linux-portable", provider: "qemu" };
const LINUX_WSL: Mode = Mode { name: "linux-wsl", provider: "wsl" };

impl Pcoder {
    /// Looks at this machine. It starts no virtual machine and no container, and asks a few programs for their versions.
    pub async fn probe(&self) -> Probe {
        let machine = ThisMachine::new(self.surroundings(), &self.layout().data);
        let (host, _) = self.look_at_host().await;
        let mut probe = probe(&machine, host, &self.names(Kind::Provider)).await;
        let redactor = Redactor::new(self.surroundings());
        for fact in &mut probe.facts {
            redactor.check(fact);
        }
        probe.reason = redactor.text(&probe.reason);
        if let Some(qemu) = &mut probe.qemu {
            qemu.program = redactor.text(&qemu.program);
        }
        for accelerator in &mut probe.accelerators {
            accelerator.why = accelerator.why.as_ref().map(|why| redactor.text(why));
        }
        probe
    }
}

/// What a recommendation is made of.
struct Host {
    /// Hardware acceleration for guests, as far as that can be seen without starting one.
    accelerated: bool,
    qemu: bool,
    /// There is a QEMU, and none that can be used.
    unusable: bool,
    wsl: bool,
}

async fn probe(sys: &dyn Sys, facts_of_host: &HostFacts, providers: &[String]) -> Probe {
    // Side by side: a program that hangs is waited for once.
    let asked = Instant::now();
    let (os, memory, virtualization, x86_64, aarch64, podman) = tokio::join!(
        os(sys),
        memory(sys),
        virtualization(sys),
        version(sys, "qemu-system-x86_64"),
        version(sys, "qemu-system-aarch64"),
        version(sys, "podman"),
    );
    let (virtualization, has_extensions) = virtualization;
    let (kvm, opens) = kvm(sys, has_extensions);
    let (wsl, has_wsl) = wsl(sys);
    let native = if sys.arch() == "aarch64" { &aarch64 } else { &x86_64 };
    let host = Host {
        accelerated: if sys.os() == "linux" { opens && has_extensions } else { has_extensions },
        qemu: facts_of_host.qemu.is_some(),
        unusable: facts_of_host.qemu.is_none() && native.is_ok(),
        wsl: has_wsl,
    };
    let said = |version: Result<String, String>| version.map_or_else(Finding::ok, Finding::ok);
    let facts = [
        ("arch", Finding::ok(sys.arch())),
        ("container", container(sys)),
        ("cpus", Finding::ok(sys.cpus().map_or_else(not_known, |cpus| cpus.to_string()))),
        ("disk", Finding::ok(sys.free().map_or_else(not_known, |free| format!("{} MiB free", free / MIB)))),
        ("hypervisor", hypervisor(sys)),
        ("kvm", kvm),
        ("memory", memory),
        ("os", os),
        ("podman", said(podman)),
        ("qemu-aarch64", said(aarch64)),
        ("qemu-x86_64", said(x86_64)),
        ("user-namespaces", user_namespaces(sys)),
        ("virtualization", virtualization),
        ("wsl", wsl),
    ];
    let took = asked.elapsed();
    let facts = facts.map(|(id, found)| found.into_check(format!("host.{id}"), CATEGORY, took)).into();
    let (mode, reason) = recommend(&host, providers);
    Probe {
        version: env!("CARGO_PKG_VERSION"),
        recommended_backend: mode.name,
        reason,
        qemu: facts_of_host.qemu.clone(),
        accelerators: facts_of_host.accelerators.clone(),
        facts,
    }
}

fn not_known() -> String {
    "not known".to_owned()
}

/// The first of the modes that this pcoder has a provider for and this machine can serve.
fn recommend(host: &Host, providers: &[String]) -> (Mode, String) {
    let has = |mode: &Mode| providers.iter().any(|it| it == mode.provider);
    let lacks = if host.unusable { "the QEMU that is here cannot be used" } else { "QEMU is not installed" };
    let machines = match (host.qemu, host.accelerated) {
        (true, true) => "QEMU is here and this processor can run guests".to_owned(),
        (true, false) => "QEMU is here and would emulate the processor, which is slow".to_owned(),
        (false, true) => format!("this processor can run guests, and {lacks}"),
        (false, false) => format!("{lacks}, and no acceleration for guests is seen"),
    };
    if has(&LINUX_PORTABLE) && host.qemu && host.accelerated {
        return (LINUX_PORTABLE, format!("{machines}: tools are kept apart from this machine"));
    }
    if has(&LINUX_WSL) && host.wsl {
        return (LINUX_WSL, "WSL is here: tools run in a Linux of their own".to_owned());
    }
    if has(&LINUX_PORTABLE) && host.qemu {
        return (LINUX_PORTABLE, format!("{machines}; they are kept apart from this machine"));
    }
    let mut reason = "tools run as programs of this machine, without isolation".to_owned();
    if has(&LINUX_PORTABLE) {
        reason = format!("{reason}: {machines}");
    } else {
        reason = format!("{reason}: this pcoder has no provider for virtual machines. With one: {machines}");
    }
    if host.wsl && !has(&LINUX_WSL) {
        reason.push_str("; WSL is here, and there is no provider for it either");
    }
    (HOST_NATIVE, reason)
}

async fn os(sys: &dyn Sys) -> Finding {
    let name = match sys.os() {
        "linux" => {
            let release = sys.text("/etc/os-release").unwrap_or_default();
            let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
            let kernel = sys.text("/proc/sys/kernel/osrelease").unwrap_or_else(not_known);
            let name = pretty.map_or("Linux", |it| it.trim_matches(['"', '\'']));
            format!("{name}, Linux {}", kernel.trim())
        }
        "macos" => {
            let version = answer(sys, "sw_vers", &["-productVersion"]).await;
            format!("macOS {}", version.unwrap_or_else(not_known))
        }
        "windows" => answer(sys, "cmd", &["/d", "/c", "ver"]).await.unwrap_or_else(|| "Windows".to_owned()),
        other => other.to_owned(),
    };
    Finding::ok(name)
}

async fn answer(sys: &dyn Sys, program: &str, args: &[&str]) -> Option<String> {
    sys.answer(&sys.find(program)?, args).await.ok()
}

async fn memory(sys: &dyn Sys) -> Finding {
    let mib = |bytes: u64| format!("{} MiB", bytes / MIB);
    let text = match sys.os() {
        "linux" => {
            let info = sys.text("/proc/meminfo").unwrap_or_default();
            let field = |name: &str| {
                let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
                line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
            };
            let total = field("MemTotal").map_or_else(not_known, mib);
            let available = field("MemAvailable").map_or_else(not_known, mib);
            let limit = sys.text("/sys/fs/cgroup/memory.max").and_then(|it| it.trim().parse::<u64>().ok());
            let limit = limit.map_or_else(String::new, |limit| format!(", limited to {}", mib(limit)));
            format!("{total}, {available} available{limit}")
        }
        "macos" => {
            let bytes = answer(sys, "sysctl", &["-n", "hw.memsize"]).await.and_then(|it| it.parse::<u64>().ok());
            bytes.map_or_else(not_known, mib)
        }
        _ => not_known(),
    };
    Finding::ok(text)
}

/// The flags of the first processor.
fn flags(sys: &dyn Sys) -> Vec<String> {
    let info = sys.text("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    let flags = line.and_then(|line| line.split_once(':')).map(|(_, flags)| flags).unwrap_or_default();
    flags.split_whitespace().map(str::to_owned).collect()
}

/// Whether the processor can run guests, as far as it says so.
async fn virtualization(sys: &dyn Sys) -> (Finding, bool) {
    match (sys.os(), sys.arch()) {
        ("linux", "x86" | "x86_64") => {
            let found = flags(sys).into_iter().find(|flag| flag == "vmx" || flag == "svm");
            match found {
                Some(flag) => (Finding::ok(format!("the processor has {flag}")), true),
                None => (Finding::ok("the processor shows neither vmx nor svm"), false),
            }
        }
        // Nothing in its flags says so there: that /dev/kvm opens is all that is known.
        ("linux", _) => (Finding::ok("not said by this processor"), true),
        ("macos", _) => match answer(sys, "sysctl", &["-n", "kern.hv_support"]).await.as_deref() {
            Some("1") => (Finding::ok("Hypervisor.framework is there"), true),
            Some(_) => (Finding::ok("there is no Hypervisor.framework"), false),
            None => (Finding::ok(not_known()), false),
        },
        _ => (Finding::ok(not_known()), false),
    }
}

fn kvm(sys: &dyn Sys, has_extensions: bool) -> (Finding, bool) {
    const DEVICE: &str = "/dev/kvm";
    if sys.os() != "linux" {
        return (Finding::ok("only Linux has it"), false);
    }
    match sys.opens(DEVICE) {
        Ok(()) => {
            let meaning = if has_extensions {
                "whether guests run is found out when one is started"
            } else {
                "whether guests run is found out when one is started; on a processor without vmx and svm, ordinary ones \
                 are known to hang"
            };
            (Finding::ok(format!("{DEVICE} opens")).meaning(meaning), true)
        }
        Err(std::io::ErrorKind::NotFound) => (Finding::ok(format!("there is no {DEVICE}")), false),
        Err(std::io::ErrorKind::PermissionDenied) => {
            let finding = Finding::ok(format!("{DEVICE} is there, and this user may not open it"));
            (finding.meaning("guests would be emulated, which is slow; members of the group `kvm` may open it"), false)
        }
        Err(_) => (Finding::ok(format!("{DEVICE} is there and does not open")), false),
    }
}

fn hypervisor(sys: &dyn Sys) -> Finding {
    match (sys.os(), sys.arch()) {
        ("linux", "x86" | "x86_64") if flags(sys).iter().any(|flag| flag == "hypervisor") => {
            Finding::ok("this is a virtual machine")
                .meaning("guests in here are guests of a guest: slower, where they run")
        }
        ("linux", "x86" | "x86_64") => Finding::ok("none is seen"),
        _ => Finding::ok(not_known()),
    }
}

fn container(sys: &dyn Sys) -> Finding {
    if sys.os() != "linux" {
        return Finding::ok("none");
    }
    let groups = sys.text("/proc/1/cgroup").unwrap_or_default();
    let known = ["docker", "kubepods", "containerd", "libpod", "lxc"];
    let found = if sys.exists("/.dockerenv") {
        Some("/.dockerenv")
    } else if sys.exists("/run/.containerenv") {
        Some("/run/.containerenv")
    } else {
        known.into_iter().find(|name| groups.contains(name))
    };
    match found {
        Some(sign) => Finding::ok(format!("this is a container ({sign})"))
            .meaning("what runs here is kept in by the container, and containers and guests in it may not be allowed"),
        None => Finding::ok("none is seen"),
    }
}

fn wsl(sys: &dyn Sys) -> (Finding, bool) {
    match sys.os() {
        "linux" => {
            let version = sys.text("/proc/version").unwrap_or_default().to_ascii_lowercase();
            if version.contains("microsoft") {
                // Already inside of it: there is no other one to start from here.
                return (Finding::ok("this is Linux inside of WSL"), false);
            }
            (Finding::ok("this is not WSL"), false)
        }
        "windows" => match sys.find("wsl") {
            Some(_) => {
                (Finding::ok("wsl.exe is there").meaning("whether a Linux is installed in it is not looked at"), true)
            }
            None => (Finding::ok("there is no wsl.exe"), false),
        },
        _ => (Finding::ok("only Windows has it"), false),
    }
}

fn user_namespaces(sys: &dyn Sys) -> Finding {
    if sys.os() != "linux" {
        return Finding::ok("only Linux has them");
    }
    let number = |path: &str| sys.text(path).and_then(|text| text.trim().parse::<u64>().ok());
    match number("/proc/sys/user/max_user_namespaces") {
        None => Finding::ok(not_known()),
        Some(0) => Finding::ok("turned off (user.max_user_namespaces is 0)"),
        Some(_) if number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) => {
            Finding::ok("only for root (kernel.unprivileged_userns_clone is 0)")
        }
        Some(_) if number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) => {
            Finding::ok("only for programs that AppArmor names (kernel.apparmor_restrict_unprivileged_userns is 1)")
        }
        Some(_) => Finding::ok("available"),
    }
}

/// A program's version, or why there is none.
async fn version(sys: &dyn Sys, program: &str) -> Result<String, String> {
    let Some(path) = sys.find(program) else { return Err("not installed".to_owned()) };
    let place = path.display();
    match sys.answer(&path, &["--version"]).await {
        Ok(line) => Ok(format!("{line} ({place})")),
        Err(problem) => Err(format!("{place}: {problem}")),
    }
}

#[cfg(test)]
mod tests {
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
            recommend(host, &providers).0.name
        };
        assert_eq!(mode(&host(true, true, true), &["local"]), "host-native");
        assert_eq!(mode(&host(true, true, true), &["local", "qemu", "wsl"]), "linux-portable");
        assert_eq!(mode(&host(false, true, true), &["local", "qemu", "wsl"]), "linux-wsl");
        assert_eq!(mode(&host(false, true, false), &["local", "qemu", "wsl"]), "linux-portable");
        assert_eq!(mode(&host(true, false, false), &["local", "qemu", "wsl"]), "host-native");
    }
}
