//! What is known of this host, in one record.

use std::path::Path;

use serde::Serialize;

use crate::accelerators::{Accelerator, ladder};
use crate::arch::Arch;
use crate::error::Error;
use crate::qemu::find;
use crate::sys::Sys;

/// The format of the record.
const FORMAT: u32 = 1;
const MIB: u64 = 1 << 20;

/// What whoever starts machines has to know of this host. Its form in JSON is a contract with plugins; what is not known
/// is `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HostFacts {
    /// 1.
    pub format: u32,
    /// `linux`, `macos`, `windows`.
    pub os: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// Which start of the host this is: another text after every restart. What was found out about a host by trying holds
    /// as long as this stays.
    pub boot: Option<String>,
    /// Processors that may be used.
    pub cpus: Option<usize>,
    /// Memory that may be used, in MiB.
    pub memory_mib: Option<u64>,
    /// The QEMU for guests of this host's own processor.
    pub qemu: Option<QemuFact>,
    /// The accelerators, in the order in which they are to be tried.
    pub accelerators: Vec<Accelerator>,
}

/// The QEMU in [`HostFacts`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QemuFact {
    /// The program.
    pub program: String,
    /// Its version.
    pub version: String,
}

impl HostFacts {
    /// Looks at a host. It asks a few programs, which takes some tens of milliseconds; on Windows it is a second. Besides
    /// the facts there is what is wrong with the QEMU, where there is none that can be used.
    pub async fn of(sys: &dyn Sys, machine: &Path) -> (Self, Option<Error>) {
        // A host of another kind has no guests of its own kind; then the common kind is emulated.
        let arch = Arch::parse(sys.arch()).unwrap_or(Arch::X86_64);
        let found = async {
            let qemu = find(sys, machine, arch).await;
            let why = qemu.as_ref().map_err(|error| match error {
                Error::QemuMissing { .. } => "QEMU is not installed".to_owned(),
                error => format!("QEMU cannot be used: {error}"),
            });
            let accelerators = ladder(sys, why.as_ref().map(|it| *it).map_err(String::as_str), arch).await;
            (qemu, accelerators)
        };
        let ((qemu, accelerators), (boot, memory)) = tokio::join!(found, system(sys));
        let (qemu, problem) = match qemu {
            Ok(qemu) => {
                let program = qemu.program.to_string_lossy().into_owned();
                (Some(QemuFact { program, version: qemu.version.to_string() }), None)
            }
            Err(error) => (None, Some(error)),
        };
        let facts = Self {
            format: FORMAT,
            os: sys.os().to_owned(),
            arch: sys.arch().to_owned(),
            boot,
            cpus: sys.cpus(),
            memory_mib: memory.map(|bytes| bytes / MIB),
            qemu,
            accelerators,
        };
        (facts, problem)
    }

    /// The fastest accelerator that may be tried.
    pub fn best(&self) -> Option<&Accelerator> {
        self.accelerators.iter().find(|it| it.usable)
    }
}

/// Which start of the system this is, and how many bytes of memory it has.
async fn system(sys: &dyn Sys) -> (Option<String>, Option<u64>) {
    match sys.os() {
        "linux" => {
            let boot = sys.text("/proc/sys/kernel/random/boot_id").map(|it| it.trim().to_owned());
            let total = sys.text("/proc/meminfo").as_deref().and_then(total);
            // That of cgroup 2, else that of cgroup 1, whose "none" is a number larger than any memory.
            let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
            let limit = limits.iter().filter_map(|path| sys.text(path)?.trim().parse::<u64>().ok()).min();
            (boot, total.map(|total| limit.map_or(total, |limit| limit.min(total))))
        }
        "macos" => {
            let program = sys.find("sysctl").unwrap_or_else(|| "/usr/sbin/sysctl".into());
            let said = |name: &'static str| {
                let program = program.clone();
                async move { sys.answer(&program, &["-n", name]).await.ok() }
            };
            let (boot, memory) = tokio::join!(said("kern.boottime"), said("hw.memsize"));
            (boot.as_deref().and_then(boot_time), memory.and_then(|it| it.trim().parse().ok()))
        }
        "windows" => {
            const ASK: &str = "$it = Get-CimInstance Win32_OperatingSystem; \
                               \"$($it.LastBootUpTime.ToUniversalTime().Ticks) $($it.TotalVisibleMemorySize)\"";
            let Some(program) = sys.find("powershell") else { return (None, None) };
            let said = sys.answer(&program, &["-NoProfile", "-NonInteractive", "-Command", ASK]).await;
            let said = said.unwrap_or_default();
            let mut words = said.split_whitespace();
            let boot = words.next().filter(|it| it.parse::<u64>().is_ok()).map(str::to_owned);
            let memory = words.next().and_then(|it| it.parse::<u64>().ok()).map(|kib| kib.saturating_mul(1024));
            (boot, memory)
        }
        _ => (None, None),
    }
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The seconds in `{ sec = 1700000000, usec = 123456 } Tue Nov 14 22:13:20 2023`.
fn boot_time(said: &str) -> Option<String> {
    let (_, rest) = said.split_once("sec = ")?;
    let seconds = rest.split(|it: char| !it.is_ascii_digit()).next()?;
    (!seconds.is_empty()).then(|| seconds.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    const QEMU: &str = "QEMU emulator version 10.0.2 (Debian)";
    const LISTED: &str = "Accelerators supported in QEMU binary:\ntcg\nkvm\n";

    async fn json(fake: Fake) -> String {
        let (facts, _) = HostFacts::of(&fake, Path::new("/m")).await;
        serde_json::to_string(&facts).unwrap()
    }

    /// Plugins read it.
    #[tokio::test]
    async fn the_form_in_json_is_a_contract() {
        let fake = Fake::linux()
            .on_path("qemu-system-x86_64", QEMU)
            .answers("-accel help", LISTED)
            .file("/proc/sys/kernel/random/boot_id", "3f0c2d1e\n")
            .file("/proc/meminfo", "MemTotal:       16384000 kB\nMemFree: 1 kB\n")
            .file("/sys/fs/cgroup/memory.max", "max\n")
            .file("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(
            json(fake).await,
            "{\"format\":1,\"os\":\"linux\",\"arch\":\"x86_64\",\"boot\":\"3f0c2d1e\",\"cpus\":8,\"memory-mib\":16000,\
             \"qemu\":{\"program\":\"/bin/qemu-system-x86_64\",\"version\":\"10.0.2\"},\"accelerators\":[\
             {\"name\":\"kvm\",\"usable\":false,\"why\":\"there is no /dev/kvm: virtualisation is turned off in the \
             firmware, or this is a virtual machine that has none\"},{\"name\":\"tcg\",\"usable\":true}]}"
        );
        let bare = json(Fake::new("freebsd", "riscv64")).await;
        assert!(bare.contains("\"boot\":null") && bare.contains("\"qemu\":null"), "{bare}");
        assert!(bare.ends_with("[{\"name\":\"tcg\",\"usable\":false,\"why\":\"QEMU is not installed\"}]}"), "{bare}");
    }

    #[tokio::test]
    async fn a_container_has_the_memory_that_it_may_use() {
        let fake = Fake::linux()
            .file("/proc/meminfo", "MemTotal:       16384000 kB\n")
            .file("/sys/fs/cgroup/memory.max", "2147483648\n");
        assert_eq!(HostFacts::of(&fake, Path::new("/m")).await.0.memory_mib, Some(2048));
    }

    #[tokio::test]
    async fn macos_and_windows_say_when_they_were_started() {
        let mac = Fake::new("macos", "aarch64")
            .on_path("sysctl", "")
            .answers("-n kern.boottime", "{ sec = 1700000000, usec = 123456 } Tue Nov 14 22:13:20 2023")
            .answers("-n hw.memsize", "34359738368");
        let facts = HostFacts::of(&mac, Path::new("/m")).await.0;
        assert_eq!((facts.boot.as_deref(), facts.memory_mib), (Some("1700000000"), Some(32768)));
        let mute = HostFacts::of(&Fake::new("windows", "x86_64"), Path::new("/m")).await.0;
        assert_eq!((mute.boot, mute.memory_mib), (None, None));
        for strange in ["", "sec = x", "{ usec = 5 }"] {
            assert!(boot_time(strange).is_none_or(|it| it == "5"), "{strange}");
        }
    }

    #[tokio::test]
    async fn why_there_is_no_qemu_is_said_with_every_accelerator() {
        let old = Fake::linux().on_path("qemu-system-x86_64", "QEMU emulator version 7.2.22");
        let (facts, problem) = HostFacts::of(&old, Path::new("/m")).await;
        assert!(facts.best().is_none() && matches!(problem, Some(Error::QemuTooOld { .. })));
        let why = facts.accelerators.last().and_then(|it| it.why.clone()).unwrap();
        assert!(why.starts_with("QEMU cannot be used: ") && why.contains("7.2.22"), "{why}");
    }
}
