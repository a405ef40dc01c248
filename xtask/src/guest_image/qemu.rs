//! The QEMU that the check starts: which, and with which arguments.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::debian;
use crate::workspace::at;

use super::manifest::Manifest;
use super::{Architecture, apt};

/// Debian 12's 7.2 emulates `cmpxchg16b` wrongly, and kernels die of it.
const OLDEST_EMULATING: u32 = 9;

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    Kvm,
    /// Software.
    Tcg,
}

impl Accelerator {
    /// The one that works here. That `/dev/kvm` can be opened proves nothing: on a processor without virtualisation, it is
    /// a software KVM on which ordinary kernels hang.
    pub(super) fn of_this_machine() -> Self {
        let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let opens = || OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
        let can = !cfg!(target_arch = "x86_64") || has_virtualisation(&flags);
        if can && opens() { Self::Kvm } else { Self::Tcg }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Tcg => "TCG (software)",
        }
    }
}

fn has_virtualisation(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm")
}

/// Finds QEMU, or installs one that works.
pub(super) fn find(architecture: &Architecture, accelerator: Accelerator, out: &Path) -> Result<String, Failure> {
    let fits = |found: Option<u32>| match accelerator {
        Accelerator::Kvm => found.is_some(),
        Accelerator::Tcg => found.is_some_and(|major| major >= OLDEST_EMULATING),
    };
    let found = version(architecture.qemu);
    if !fits(found.as_deref().and_then(major)) || !debian::on_path("qemu-img") {
        install(architecture, out, found.as_deref())?;
    }
    let found = version(architecture.qemu).ok_or_else(|| format!("`{}` does not run", architecture.qemu))?;
    if fits(major(&found)) {
        return Ok(found);
    }
    Err(format!("QEMU {found} emulates processors wrongly; what is needed is {OLDEST_EMULATING}.0 or newer"))
}

fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.strip_prefix("QEMU emulator version ")?.split_whitespace().next()?.to_owned())
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

/// Debian 12 has a QEMU that works in its backports, which are no source of apt's there as a rule. They are used for this
/// once, with lists of their own.
fn install(architecture: &Architecture, out: &Path, found: Option<&str>) -> Result<(), Failure> {
    let has = found.map_or_else(|| "there is none".to_owned(), |version| format!("QEMU {version} is there"));
    let packages = [architecture.qemu_package, "qemu-utils"];
    let advice = format!(
        "to boot the image takes QEMU {OLDEST_EMULATING}.0 or newer ({has}): `{}` and `{}`, on Debian 12 those of \
         bookworm-backports",
        packages[0], packages[1]
    );
    if !debian::is_root() || !debian::on_path("apt-get") {
        return Err(advice);
    }
    let release = apt::own_release()?;
    let mut sources = apt::sources(&release)?;
    if release == "bookworm" {
        let main = sources.first().cloned().unwrap_or_default();
        sources.push(main.replace(" bookworm ", " bookworm-backports "));
    }
    let folder = out.join("apt");
    let lists = folder.join("lists");
    fs::create_dir_all(&lists).map_err(at(&lists))?;
    let list = folder.join("sources.list");
    fs::write(&list, sources.join("\n") + "\n").map_err(at(&list))?;
    let apt = || {
        let mut apt = Command::new("apt-get");
        for (name, value) in [("Dir::Etc::sourcelist", &list), ("Dir::State::lists", &lists)] {
            apt.arg("-o").arg(format!("{name}={}", value.display()));
        }
        apt.args(["-o", "Dir::Etc::sourceparts=-", "-q", "-y"]).env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    eprintln!("installing QEMU ({has}), from {}", sources.join(", "));
    let log = super::Log::create(&out.join("qemu.log"))?;
    log.run(apt().arg("update"))?;
    let mut install = apt();
    install.args(["--no-install-recommends", "install"]).args(packages);
    if release == "bookworm" {
        install.args(["-t", "bookworm-backports"]);
    }
    let installed = log.run(&mut install);
    super::root::remove(&folder)?;
    installed.map_err(|failure| format!("{failure}\n\n{advice}"))
}

/// What a start needs besides the image.
pub(super) struct Disks<'a> {
    /// The folder with `root.qcow2` and `seed.img`; the console is written there too.
    pub(super) folder: &'a Path,
    /// The guest's memory.
    pub(super) memory: Memory<'a>,
    /// Where the port for control connects to, on 127.0.0.1; or to a buffer.
    pub(super) control: Option<u16>,
    /// Where the port for the guest's agent connects to.
    pub(super) agent: u16,
}

/// The file that a guest's memory is in.
#[derive(Clone, Copy)]
pub(super) enum Memory<'a> {
    /// It is written, so that it can be saved with the rest of the machine.
    Kept(&'a Path),
    /// It was, and is only read: what this guest writes is its own. QEMU waits for the rest of the machine.
    Copied(&'a Path),
}

/// The whole command line. The machine is q35, because under software emulation it finds its clocks each time. The
/// firmware is QEMU's usual one: `qboot.rom` hangs when there is a `vmgenid`, and is no faster by more than can be measured.
pub(super) fn arguments(image: &Path, manifest: &Manifest, accelerator: Accelerator, disks: &Disks<'_>) -> Vec<String> {
    let path = |folder: &Path, name: &str| folder.join(name).display().to_string();
    let file = |path: PathBuf| path.display().to_string().replace(',', ",,");
    let (accel, cpu, cmdline) = match accelerator {
        Accelerator::Kvm => ("kvm", "host", manifest.cmdline.clone()),
        Accelerator::Tcg => ("tcg", "max", format!("{} {}", manifest.cmdline, manifest.cmdline_emulated)),
    };
    let overlay = file(disks.folder.join("root.qcow2"));
    let seed = file(disks.folder.join("seed.img"));
    let agent = disks.agent;
    let control = match disks.control {
        Some(port) => format!("socket,id=control,host=127.0.0.1,port={port}"),
        None => "ringbuf,id=control,size=4096".to_owned(),
    };
    let (memory, share) = match disks.memory {
        Memory::Kept(path) => (path, "on"),
        Memory::Copied(path) => (path, "off"),
    };
    let memory = file(memory.to_owned());
    let mut all = ["-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned).to_vec();
    let mut add = |name: &str, value: String| all.extend([name.to_owned(), value]);
    add("-display", "none".into());
    add("-machine", "q35,vmport=off,memory-backend=ram".into());
    add("-accel", accel.into());
    add("-cpu", cpu.into());
    add("-smp", "1".into());
    add("-m", "512".into());
    add("-object", format!("memory-backend-file,id=ram,mem-path={memory},size=512M,share={share}"));
    add("-rtc", "base=utc,clock=host".into());
    add("-device", "vmgenid,guid=auto".into());
    add("-kernel", path(image, &manifest.kernel.file));
    add("-initrd", path(image, &manifest.initrd.file));
    add("-append", cmdline);
    add("-drive", format!("if=none,id=root,format=qcow2,file={overlay}"));
    add("-device", "virtio-blk-pci,drive=root,serial=pcoder-root".into());
    add("-drive", format!("if=none,id=seed,format=raw,readonly=on,file={seed}"));
    add("-device", "virtio-blk-pci,drive=seed,serial=CIDATA".into());
    add("-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22".into());
    add("-device", "virtio-net-pci,netdev=net,romfile=".into());
    add("-device", "virtio-serial-pci".into());
    add("-chardev", control);
    add("-device", "virtserialport,chardev=control,name=pcoder.control,id=control".into());
    add("-chardev", format!("socket,id=agent,host=127.0.0.1,port={agent}"));
    add("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0".into());
    add("-device", "virtio-rng-pci".into());
    add("-serial", format!("file:{}", path(disks.folder, "console.log")));
    add("-qmp", "stdio".into());
    if let Memory::Copied(_) = disks.memory {
        add("-incoming", "defer".into());
    }
    all
}

/// How much a machine has of which nobody says it, as with pcoder: at most so much.
const USUAL_CPUS: usize = 4;
const USUAL_MEMORY: &str = "2048";

/// What one starts by hand: the machine's parts that the guest needs to be logged in to, and a disk of its own.
pub(super) fn plain(
    architecture: &Architecture,
    image: &Path,
    manifest: &Manifest,
    accelerator: Accelerator,
    folder: &Path,
    port: u16,
) -> Result<Command, Failure> {
    let path = |folder: &Path, name: &str| folder.join(name).display().to_string();
    let overlay = path(folder, "root.qcow2");
    let base = path(image, &manifest.root.file);
    let mut make = Command::new("qemu-img");
    make.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(&base).arg(&overlay);
    crate::build::run(&mut make)?;
    let (accel, cpu, cmdline) = match accelerator {
        Accelerator::Kvm => ("kvm", "host", manifest.cmdline.clone()),
        Accelerator::Tcg => ("tcg", "max", format!("{} {}", manifest.cmdline, manifest.cmdline_emulated)),
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from).min(USUAL_CPUS);
    let mut qemu = Command::new(architecture.qemu);
    qemu.args(["-machine", "q35", "-accel", accel, "-cpu", cpu, "-m", USUAL_MEMORY]);
    qemu.arg("-smp").arg(cpus.to_string());
    qemu.args(["-display", "none", "-no-reboot", "-append", &cmdline]);
    qemu.arg("-kernel").arg(path(image, &manifest.kernel.file));
    qemu.arg("-initrd").arg(path(image, &manifest.initrd.file));
    qemu.arg("-drive").arg(format!("if=none,id=root,format=qcow2,file={}", overlay.replace(',', ",,")));
    qemu.args(["-device", "virtio-blk-pci,drive=root"]);
    let seed = path(folder, "seed.img").replace(',', ",,");
    qemu.arg("-drive").arg(format!("if=none,id=seed,format=raw,readonly=on,file={seed}"));
    qemu.args(["-device", "virtio-blk-pci,drive=seed,serial=CIDATA"]);
    qemu.arg("-netdev").arg(format!("user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22"));
    qemu.args(["-device", "virtio-net-pci,netdev=net"]);
    qemu.arg("-serial").arg(format!("file:{}", path(folder, "console.log")));
    Ok(qemu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtualisation_is_a_flag_of_the_processor() {
        assert!(has_virtualisation("processor : 0\nflags\t\t: fpu vmx sse\n"));
        assert!(has_virtualisation("flags : svm\n"));
        assert!(!has_virtualisation("flags : fpu vmx_not\nbugs : vmx\n"));
        assert!(!has_virtualisation(""));
    }

    #[test]
    fn versions_are_told_by_their_first_number() {
        assert_eq!(major("10.0.2"), Some(10));
        assert_eq!(major("7.2.22"), Some(7));
        assert_eq!(major("unknown"), None);
    }
}
