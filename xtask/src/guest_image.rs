//! `cargo xtask guest-image`: the portable Linux machine's kernel, initial file system and disk, made of Debian's packages
//! and of what is in `guest/`, and started to see that it works.
//!
//! `guest.json` describes the rest of the folder and is written last: a folder without it is no image.

mod apt;
mod boot;
mod cloud;
mod initrd;
mod kernel;
mod log;
mod machine;
mod manifest;
mod qemu;
mod root;
mod seed;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use crate::Failure;
use crate::workspace::{at, root};

pub(crate) use self::cloud::for_tests as cloud_image_for_tests;
use self::log::Log;
use self::manifest::Manifest;

/// Debian's release that the guest is.
const SUITE: &str = "trixie";

/// What differs between processors.
pub(crate) struct Architecture {
    /// Debian's name.
    name: &'static str,
    /// The package that points to the newest kernel for virtual machines.
    kernel_package: &'static str,
    /// Debian's name of the folder for libraries, and the linker's file in the guest.
    libraries: &'static str,
    linker: &'static str,
    /// QEMU's program, and Debian's package of it.
    qemu: &'static str,
    qemu_package: &'static str,
    /// What Rust calls it.
    rust: &'static str,
    /// What the kernel is told in any case.
    cmdline: &'static str,
    /// What it is told too where software emulates the processor: there, what is left out is seen.
    cmdline_emulated: &'static str,
}

/// The machines of 64 bits that most people have.
const AMD64: Architecture = Architecture {
    name: "amd64",
    kernel_package: "linux-image-cloud-amd64",
    libraries: "x86_64-linux-gnu",
    linker: "lib64/ld-linux-x86-64.so.2",
    qemu: "qemu-system-x86_64",
    qemu_package: "qemu-system-x86",
    rust: "x86_64",
    cmdline: "console=ttyS0 quiet panic=-1 reboot=t",
    // The last three leave out the tests that the kernel's cryptography makes of itself, and a table of errors of hardware:
    // measured together, a quarter of the boot. Not `tsc=reliable`: on a busy host, a guest's
    // clock was seen to run seven times too fast. With a wrong `tsc_early_khz` it does so every time, and the watchdog that
    // this would turn off corrects it.
    cmdline_emulated: "mitigations=off nokaslr init_on_alloc=0 lsm=capability no_timer_check \
                       cryptomgr.notests initcall_blacklist=jent_mod_init,bert_init",
};

/// All that can be built.
const ARCHITECTURES: [&Architecture; 1] = [&AMD64];

struct Options {
    out: PathBuf,
    architecture: &'static Architecture,
    mirror: Option<String>,
    force: bool,
    boots: Option<usize>,
}

fn parse(args: &[&str]) -> Result<Options, Failure> {
    let mut options = Options {
        out: root().join("target").join("guest"),
        architecture: &AMD64,
        mirror: None,
        force: false,
        boots: None,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("`{arg}` needs a value"));
        match *arg {
            "--force" => options.force = true,
            "--out" => options.out = std::path::absolute(value()?).map_err(|error| format!("--out: {error}"))?,
            "--mirror" => options.mirror = Some((*value()?).to_owned()),
            "--boot" => {
                let times = value()?;
                let number = times.parse().ok().filter(|number| *number > 0);
                options.boots = Some(number.ok_or_else(|| format!("`--boot {times}`: how many times?"))?);
            }
            "--arch" => {
                let name = value()?;
                options.architecture = ARCHITECTURES.into_iter().find(|it| it.name == *name).ok_or_else(|| {
                    let known: Vec<&str> = ARCHITECTURES.iter().map(|it| it.name).collect();
                    format!("there is no image for `{name}`, only for: {}", known.join(", "))
                })?;
            }
            other => return Err(format!("`guest-image` has no option `{other}`")),
        }
    }
    Ok(options)
}

/// Builds the image unless it is there, and boots it as often as is asked for.
pub(crate) fn run(args: &[&str]) -> Result<(), Failure> {
    let options = parse(args)?;
    if !cfg!(target_os = "linux") {
        return Err("the guest image is built on Linux (Debian 12 or newer)".to_owned());
    }
    fs::create_dir_all(&options.out).map_err(at(&options.out))?;
    let _lock = lock(&options.out)?;
    let manifest = build(&options)?;
    match options.boots {
        Some(times) => boot::check(options.architecture, &options.out, &manifest, times),
        None => Ok(()),
    }
}

/// The image and a QEMU that starts it, for the tests: built and installed unless they are there.
pub(crate) fn for_tests(out: &Path) -> Result<(), Failure> {
    let options = Options { out: out.to_path_buf(), architecture: &AMD64, mirror: None, force: false, boots: None };
    fs::create_dir_all(out).map_err(at(out))?;
    let _lock = lock(out)?;
    build(&options)?;
    qemu::find(options.architecture, qemu::Accelerator::Tcg, out).map(drop)
}

/// QEMU with the image and nothing of pcoder's, as one would start it by hand: the command, and the port where the guest's
/// SSH will be. Its disk and its seed are in `folder`; `key` may log in.
pub(crate) fn plain(image: &Path, folder: &Path, key: &str) -> Result<(std::process::Command, u16), Failure> {
    let manifest = Manifest::read(image)?;
    let accelerator = qemu::Accelerator::of_this_machine();
    let seed = folder.join("seed.img");
    let files = [("meta-data", "instance-id: plain\nlocal-hostname: plain\n"), ("authorized_keys", key)];
    fs::write(&seed, seed::seed(&files)?).map_err(at(&seed))?;
    // Free for now, as everybody does it who writes this by hand.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|it| it.local_addr());
    let port = port.map_err(|error| format!("127.0.0.1: {error}"))?.port();
    Ok((qemu::plain(&AMD64, image, &manifest, accelerator, folder, port)?, port))
}

/// Why the tests of virtual machines are left out here, if they are.
pub(crate) fn missing_for_tests() -> Option<&'static str> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        Some("the guest image is built on Linux, for x86_64")
    } else if !crate::debian::on_path("apt-get") || !crate::debian::is_root() {
        Some("building the guest image takes root on Debian")
    } else {
        None
    }
}

/// Two builds in one folder would mix.
fn lock(out: &Path) -> Result<File, Failure> {
    let path = out.join(".lock");
    let file = File::create(&path).map_err(at(&path))?;
    file.try_lock().map_err(|error| format!("{}: somebody else builds there ({error})", out.display()))?;
    Ok(file)
}

fn build(options: &Options) -> Result<Manifest, Failure> {
    let (out, architecture) = (&options.out, options.architecture);
    let guest = root().join("guest");
    let inputs = manifest::inputs(&guest, architecture)?;
    let existing = Manifest::read(out).ok().filter(|it| it.inputs == inputs && it.is_there(out));
    if let (Some(manifest), false) = (existing, options.force) {
        eprintln!("{} is up to date (`--force` builds it again)", out.display());
        return Ok(manifest);
    }
    if std::env::consts::ARCH != architecture.rust {
        return Err(format!("an image for {} is built on such a machine", architecture.name));
    }
    apt::tools()?;
    let (started, began) = (Instant::now(), SystemTime::now());
    Manifest::remove(out)?;
    let work = out.join("work");
    root::remove(&work)?;
    fs::create_dir_all(&work).map_err(at(&work))?;
    let log = Log::create(&out.join("build.log"))?;

    let sources = match &options.mirror {
        Some(mirror) => vec![format!("deb {mirror} {SUITE} main")],
        None => apt::sources(SUITE)?,
    };
    eprintln!("bringing Debian's packages ({})", sources.join(", "));
    let tree = root::packages(&log, &guest, &work, architecture, &sources)?;
    let package = kernel::unpack(&log, &work)?;
    eprintln!("laying over them what is in guest/");
    let modules = root::customize(&log, &guest, &work, &package, root::seconds(began))?;
    let kernel_version = kernel::version(&package)?;
    eprintln!("unpacking the kernel, {kernel_version}");
    kernel::extract(&log, &package, &work, &out.join("vmlinux"))?;
    initrd::make(&guest, &tree, &modules, &out.join("initrd"))?;
    eprintln!("making the disk");
    root::image(&log, &tree, architecture, &inputs, &out.join("root.img"))?;

    let mut packages = root::versions(&tree)?;
    packages.extend(kernel::package_version(&package)?);
    eprintln!("hashing");
    let manifest = Manifest::make(out, architecture, inputs, kernel_version, packages)?;
    root::remove(&work)?;
    manifest.write(out)?;
    eprintln!("{} is built, in {:.0} s:", out.display(), started.elapsed().as_secs_f64());
    for file in manifest.files() {
        eprintln!("{:>12} bytes  {}  ({} on the disk)", file.size, file.file, root::occupied(&out.join(&file.file)));
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_what_they_say_and_nothing_else() {
        let options = parse(&["--boot", "3", "--arch", "amd64", "--force", "--out", "/x"]).expect("fine");
        assert_eq!((options.boots, options.force, options.out), (Some(3), true, PathBuf::from("/x")));
        let refused = |args: &[&str]| parse(args).map(drop).expect_err("refused");
        assert!(refused(&["--boot", "0"]).contains("how many"));
        assert!(refused(&["--boot"]).contains("needs a value"));
        assert!(refused(&["--arch", "vax"]).contains("only for: amd64"));
        assert!(refused(&["--fast"]).contains("no option `--fast`"));
    }

    #[test]
    fn one_builds_in_a_folder_at_a_time() {
        let folder = std::env::temp_dir().join(format!("xtask-guest-lock-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let first = lock(&folder).expect("free");
        assert!(lock(&folder).expect_err("taken").contains("somebody else"));
        drop(first);
        lock(&folder).expect("free again");
        fs::remove_dir_all(&folder).expect("the test's own folder");
    }
}
