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
use crate::{Mode, Pcoder};

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

impl Pcoder {
    /// Looks at this machine. It starts no virtual machine and no container, and asks a few programs for their versions.
    pub async fn probe(&self) -> Probe {
        let machine = ThisMachine::new(self.surroundings(), &self.layout().data);
        let host = self.host_as_tried().await;
        let mut probe = probe(&machine, &host, &self.names(Kind::Provider)).await;
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
    // What QEMU can do with it is known where there is one.
    let accelerated = match (&facts_of_host.qemu, sys.os()) {
        (Some(_), _) => facts_of_host.accelerators.iter().any(|it| it.usable && it.name != "tcg"),
        (None, "linux") => opens && has_extensions,
        (None, _) => has_extensions,
    };
    let host = Host {
        accelerated,
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
        recommended_backend: mode.name(),
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
    let has = |mode: Mode| providers.iter().any(|it| it == mode.provider());
    let lacks = if host.unusable { "the QEMU that is here cannot be used" } else { "QEMU is not installed" };
    let machines = match (host.qemu, host.accelerated) {
        (true, true) => "QEMU is here and this processor can run guests".to_owned(),
        (true, false) => "QEMU is here and would emulate the processor, which is slow".to_owned(),
        (false, true) => format!("this processor can run guests, and {lacks}"),
        (false, false) => format!("{lacks}, and no acceleration for guests is seen"),
    };
    if has(Mode::LinuxPortable) && host.qemu && host.accelerated {
        return (Mode::LinuxPortable, format!("{machines}: tools are kept apart from this machine"));
    }
    if has(Mode::LinuxWsl) && host.wsl {
        return (Mode::LinuxWsl, "WSL is here: tools run in a Linux of their own".to_owned());
    }
    if has(Mode::LinuxPortable) && host.qemu {
        return (Mode::LinuxPortable, format!("{machines}; they are kept apart from this machine"));
    }
    let mut reason = "tools run as programs of this machine, without isolation".to_owned();
    if has(Mode::LinuxPortable) {
        reason = format!("{reason}: {machines}");
    } else {
        reason = format!("{reason}: this pcoder has no provider for virtual machines. With one: {machines}");
    }
    if host.wsl && !has(Mode::LinuxWsl) {
        reason.push_str("; WSL is here, and there is no provider for it either");
    }
    (Mode::HostNative, reason)
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
mod tests;
