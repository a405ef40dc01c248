//! QEMU's command line, which is a function of what a machine is.
//!
//! Every argument that is made here is a line of plugin.toml, and pcoder compares them: to add one takes both.

use serde_json::json;

use crate::facts::Version;
use crate::image::{DiskFormat, Image};
use crate::record::{Network, Record};

/// What runs a guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Accelerator {
    Kvm,
    Hvf,
    Whpx,
    /// Software.
    Tcg,
}

impl Accelerator {
    pub(crate) const ALL: [Self; 4] = [Self::Kvm, Self::Hvf, Self::Whpx, Self::Tcg];

    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// QEMU's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Hvf => "hvf",
            Self::Whpx => "whpx",
            Self::Tcg => "tcg",
        }
    }

    pub(crate) fn is_software(self) -> bool {
        self == Self::Tcg
    }
}

/// What differs between processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Architecture {
    /// Rust's name.
    pub(crate) name: &'static str,
    /// Debian's name, which is in the names of images.
    pub(crate) debian: &'static str,
    pub(crate) program: &'static str,
    machine: &'static str,
    /// The processor that software emulates.
    emulated: &'static str,
    /// Arm has it since QEMU knows by itself whose interrupt controller to take.
    old_whpx: bool,
    /// Only there QEMU has a device that tells a guest that it is a copy.
    pub(crate) generation: bool,
    /// What its interrupt controller can serve.
    pub(crate) most_cpus: u32,
}

/// All that can be run.
const ARCHITECTURES: [Architecture; 2] = [
    Architecture {
        name: "x86_64",
        debian: "amd64",
        program: "qemu-system-x86_64",
        machine: "q35,vmport=off",
        // Software takes `rep movsb` byte by byte: without the promise that it is fast, kernel and libraries copy by words,
        // in two thirds of the time.
        emulated: "max,erms=off,fsrm=off",
        old_whpx: true,
        generation: true,
        most_cpus: 64,
    },
    Architecture {
        name: "aarch64",
        debian: "arm64",
        program: "qemu-system-aarch64",
        machine: "virt",
        // The default way to sign pointers takes a quarter of the time of an emulated Arm.
        emulated: "max,pauth-impdef=on",
        old_whpx: false,
        generation: false,
        most_cpus: 8,
    },
];

impl Architecture {
    pub(crate) fn of(name: &str) -> Option<Self> {
        ARCHITECTURES.into_iter().find(|it| it.name == name)
    }
}

/// With it the kernel says its first lines also when it is told to be quiet. A kernel that runs does so within
/// milliseconds of its memory's being set up, so that one that is silent hangs.
const TALK: &str = "loglevel=6";

/// Whose QEMU it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    pub(crate) architecture: Architecture,
    pub(crate) version: Version,
    /// The system can take rights from it.
    pub(crate) sandbox: bool,
}

/// Since then QEMU takes an interrupt controller that works with WHPX by itself, and a processor like the host's.
/// Before, its own one always works, and a plain processor.
const WHPX_CONTROLLER: Version = [11, 0, 0];
const WHPX_HOST: Version = [11, 1, 1];

/// The arguments of a machine.
pub(crate) fn arguments(program: Program, accelerator: Accelerator, image: &Image, record: &Record) -> Vec<String> {
    let id = &record.id;
    let Program { architecture, version, sandbox } = program;
    let old = |since: Version| architecture.old_whpx && version < since;
    let (accel, cpu) = match accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        Accelerator::Hvf => ("hvf", "host"),
        Accelerator::Whpx => (
            if old(WHPX_CONTROLLER) { "whpx,kernel-irqchip=off" } else { "whpx" },
            if old(WHPX_HOST) { "qemu64" } else { "host" },
        ),
        Accelerator::Tcg => ("tcg", architecture.emulated),
    };
    let cmdline = match accelerator.is_software() {
        true => format!("{} {}", image.cmdline, image.cmdline_emulated),
        false => format!("{} {TALK}", image.cmdline),
    };
    let restrict = match record.network {
        Network::None | Network::Restricted => "on",
        Network::Full => "off",
    };
    let mut all = Vec::new();
    let mut add = |name: &str, value: String| all.extend([name.to_owned(), value]);
    if sandbox {
        add("-sandbox", SANDBOX.to_owned());
    }
    add("-machine", architecture.machine.to_owned());
    add("-accel", accel.to_owned());
    add("-cpu", cpu.to_owned());
    add("-smp", record.cpus.to_string());
    add("-m", record.memory_mib.to_string());
    add("-kernel", image.kernel());
    add("-initrd", image.initrd());
    add("-append", cmdline.trim().to_owned());
    add("-blockdev", base(image));
    let mut below = "base".to_owned();
    for (depth, layer) in record.layers.iter().enumerate().rev() {
        add("-blockdev", node(layer, &below, depth > 0));
        below.clone_from(layer);
    }
    add("-blockdev", raw("seed", &format!("{}/seed.img", crate::store::folder(id))));
    if let Some(file) = &record.engines {
        add("-blockdev", raw("engines", file));
    }
    add("-device", format!("virtio-blk-pci,id=root,drive={below},serial=pcoder-root"));
    add("-device", "virtio-blk-pci,drive=seed,serial=CIDATA".to_owned());
    if record.engines.is_some() {
        add("-device", "virtio-blk-pci,drive=engines,serial=PCODER-ENGINES".to_owned());
    }
    add("-netdev", format!("user,id=net,restrict={restrict},hostfwd=tcp:127.0.0.1:0-:22"));
    add("-device", "virtio-net-pci,netdev=net,romfile=".to_owned());
    add("-device", "virtio-serial-pci".to_owned());
    add("-chardev", "ringbuf,id=control,size=4096".to_owned());
    add("-device", "virtserialport,id=control,chardev=control,name=pcoder.control".to_owned());
    add("-device", "virtio-rng-pci".to_owned());
    if architecture.generation {
        add("-device", "vmgenid,guid=auto".to_owned());
    }
    add("-rtc", "base=utc,clock=host".to_owned());
    add("-serial", format!("file:{}", crate::console::path(id)));
    all.push("-no-reboot".to_owned());
    all
}

/// The arguments of a QEMU without a machine, which makes the disk of a file.
pub(crate) fn maker(file: &str) -> Vec<String> {
    let node = json!({ "driver": "file", "node-name": "blank", "filename": file });
    ["-machine", "none", "-accel", "tcg", "-blockdev", &node.to_string()].map(str::to_owned).to_vec()
}

/// What of the system's calls a QEMU never needs: other programs, more rights.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// A disk that is only read.
fn raw(name: &str, path: &str) -> String {
    let file = json!({ "driver": "file", "filename": path, "read-only": true });
    json!({ "driver": "raw", "node-name": name, "read-only": true, "file": file }).to_string()
}

/// The image's disk. Whatever it says itself, nothing is below it.
fn base(image: &Image) -> String {
    let file = json!({ "driver": "file", "filename": image.root(), "read-only": true });
    match image.root_format() {
        DiskFormat::Raw => raw("base", &image.root()),
        DiskFormat::Qcow2 => json!({
            "driver": "qcow2", "node-name": "base", "read-only": true, "backing": null, "file": file,
        })
        .to_string(),
    }
}

/// A layer. What is below it is said here, so that nothing in the file itself is believed.
fn node(layer: &str, below: &str, frozen: bool) -> String {
    let filename = crate::disk::path(layer);
    let node = match frozen {
        true => json!({
            "driver": "qcow2", "node-name": layer, "read-only": true, "backing": below,
            "file": { "driver": "file", "filename": filename, "read-only": true },
        }),
        false => json!({
            "driver": "qcow2", "node-name": layer, "backing": below, "file": { "driver": "file", "filename": filename },
        }),
    };
    node.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::Service;
    use crate::peer::{image, record, world};
    use crate::start::Start;

    fn made(arch: &str, accelerator: Accelerator, version: Version, change: impl FnOnce(&mut Record)) -> Vec<String> {
        let host = world();
        let cloud = image().replace("\"format\":1", "\"format\":2,\"setup\":\"cloud-init\",\"root_format\":\"qcow2\"");
        host.put_on_host("images", "cloud/guest.json", cloud.as_bytes());
        for file in ["vmlinux", "initrd", "root.img"] {
            host.put_on_host("images", &format!("cloud/{file}"), b"12345");
        }
        let mut record = record("vm-0000000a");
        change(&mut record);
        let image = Image::read(host.provider(), "o", &record.image).unwrap();
        let architecture = Architecture::of(arch).unwrap();
        let program = Program { architecture, version, sandbox: accelerator == Accelerator::Kvm };
        arguments(program, accelerator, &image, &record)
    }

    fn lines(arguments: &[String]) -> String {
        let mut text = String::new();
        for argument in arguments {
            let new = argument.starts_with('-') && !text.is_empty();
            text += if new { "\n" } else { " " };
            text += &in_order(argument);
        }
        text.trim_start().to_owned()
    }

    /// An argument whose fields, if it is JSON, are in the order of their names: other crates of a build choose whether
    /// they are in that of their making.
    fn in_order(argument: &str) -> String {
        let Ok(mut value) = serde_json::from_str::<serde_json::Value>(argument) else { return argument.to_owned() };
        if !value.is_object() {
            return argument.to_owned();
        }
        value.sort_all_objects();
        value.to_string()
    }

    #[test]
    fn a_machine_has_these_arguments() {
        for arch in ["x86_64", "aarch64"] {
            for accelerator in Accelerator::ALL {
                let name = format!("{arch}-{}", accelerator.name());
                insta::assert_snapshot!(name, lines(&made(arch, accelerator, [10, 0, 2], |_| ())));
            }
        }
        let whpx = |version| {
            let text = lines(&made("x86_64", Accelerator::Whpx, version, |_| ()));
            text.lines().filter(|it| it.starts_with("-accel") || it.starts_with("-cpu")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(whpx([11, 0, 0]), "-accel whpx -cpu qemu64");
        assert_eq!(whpx([11, 1, 1]), "-accel whpx -cpu host");
    }

    #[test]
    fn plugin_toml_asks_for_every_argument_and_for_no_other() {
        for arch in ["x86_64", "aarch64"] {
            let mut all = vec![maker("instances/vm-0000000a/blank.qcow2")];
            for accelerator in Accelerator::ALL {
                for version in [[10, 0, 2], [11, 0, 0], [11, 1, 1]] {
                    all.push(made(arch, accelerator, version, |_| ()));
                }
            }
            all.push(made(arch, Accelerator::Tcg, [10, 0, 2], |record| {
                record.layers.push("l000000000000000b".to_owned());
                record.network = Network::None;
                record.engines = Some("linux-x64-0a.squashfs".to_owned());
            }));
            all.push(made(arch, Accelerator::Tcg, [10, 0, 2], |record| "cloud".clone_into(&mut record.image)));
            if arch == "x86_64" {
                let cold = made(arch, Accelerator::Tcg, [10, 0, 2], |record| record.id = "tp-0000000a".to_owned());
                all.push(Start::Template.arguments(cold, "tp-0000000a", 2048));
                let cold = made(arch, Accelerator::Kvm, [10, 0, 2], |_| ());
                all.push(Start::Copy("tp-0000000a").arguments(cold.clone(), "vm-0000000a", 2048));
                all.push(Start::Saved.arguments(cold, "vm-0000000a", 2048));
            }
            let asked = Service::of(Architecture::of(arch).unwrap().program);
            for arguments in &all {
                assert_eq!(asked.refuses(arguments), None);
            }
            assert_eq!(asked.unused(&all), [""; 0]);
        }
    }

    #[test]
    fn layers_are_below_each_other_and_only_the_first_is_written() {
        let text = lines(&made("x86_64", Accelerator::Tcg, [10, 0, 2], |record| {
            record.layers = ["top", "middle", "bottom"].map(str::to_owned).to_vec();
            record.network = Network::None;
        }));
        let disks: Vec<&str> = text.lines().filter(|it| it.contains("qcow2") || it.contains("drive=")).collect();
        insta::assert_snapshot!(disks.join("\n"));
        assert!(text.contains("restrict=on"));
    }

    #[test]
    fn what_a_clouds_disk_says_to_be_below_it_is_not_believed() {
        let text = lines(&made("x86_64", Accelerator::Tcg, [10, 0, 2], |it| "cloud".clone_into(&mut it.image)));
        let base = text.lines().find(|it| it.contains("\"node-name\":\"base\"")).unwrap();
        assert!(base.contains("\"driver\":\"qcow2\"") && base.contains("\"backing\":null"), "{base}");
        assert!(text.contains("cloud/root.img") && base.contains("\"read-only\":true"));
    }

    #[test]
    fn engines_are_a_disk_that_is_only_read() {
        let text = lines(&made("aarch64", Accelerator::Tcg, [10, 0, 2], |record| {
            record.engines = Some("linux-arm64-0a.squashfs".to_owned());
        }));
        let disk: Vec<&str> = text.lines().filter(|it| it.contains("engines") || it.contains("ENGINES")).collect();
        insta::assert_snapshot!(disk.join("\n"));
    }

    #[test]
    fn only_a_full_network_is_one_to_the_guest() {
        for (network, restrict) in [(Network::None, "on"), (Network::Restricted, "on"), (Network::Full, "off")] {
            let text = lines(&made("x86_64", Accelerator::Tcg, [10, 0, 2], |record| record.network = network));
            assert!(text.contains(&format!("-netdev user,id=net,restrict={restrict},hostfwd=tcp:127.0.0.1:0-:22")));
        }
    }

    #[test]
    fn a_disk_is_made_by_a_machine_that_is_none() {
        let arguments: Vec<String> = maker("instances/vm-1/blank.qcow2").iter().map(|it| in_order(it)).collect();
        insta::assert_snapshot!(arguments.join(" "));
    }

    #[test]
    fn accelerators_have_names() {
        for accelerator in Accelerator::ALL {
            assert_eq!(Accelerator::of(accelerator.name()), Some(accelerator));
        }
        assert_eq!(Accelerator::of("xen"), None);
        assert_eq!(Architecture::of("riscv64"), None);
    }
}
