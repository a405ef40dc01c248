//! Which QEMU is used.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::arch::{Arch, platform};
use crate::error::{Error, Result};
use crate::sys::Sys;

/// 7.2, which Debian 12 has, corrupts guests whose processor is emulated (`lock cmpxchg16b` gives wrong flags), and
/// saved memory that can be mapped (`mapped-ram`) came with 9.0.
pub const OLDEST: Version = Version { major: 9, minor: 0, micro: 0 };

/// The variable that names the program.
const VARIABLE: &str = "PCODER_QEMU";

/// How deep a program may lie in an unpacked archive: `NAME/bin/qemu-system-x86_64`.
const DEPTH: usize = 3;

/// The version of a QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
    /// The third.
    pub micro: u32,
}

impl Version {
    /// Out of what `--version` prints.
    pub fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once("version ")?;
        let number = rest.split(|it: char| !it.is_ascii_digit() && it != '.').next()?;
        let mut numbers = number.split('.').map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        Some(Self { major: next()?, minor: next()?, micro: next().unwrap_or(0) })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// Where a QEMU was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Its user named it.
    Chosen,
    /// pcoder's own, which `runtime bootstrap` brought.
    Own,
    /// On the `PATH`.
    Path,
    /// Where the system has it although it is not on the `PATH`.
    Usual,
}

/// A QEMU that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// The program.
    pub program: PathBuf,
    /// Its version.
    pub version: Version,
    /// Where it was found.
    pub place: Place,
    /// The names of the accelerators that it was built with, or why it does not say.
    pub accelerators: std::result::Result<Vec<String>, String>,
}

/// The QEMU for guests of a processor. The first of these that is there and can be used:
///
/// 1. `PCODER_QEMU`, and then no other one
/// 2. `qemu-system-ARCH` in `qemu/VERSION-PLATFORM-DIGEST/` below `machine`, up to two folders deeper; the newest first
/// 3. on the `PATH`
/// 4. `/usr/libexec/qemu-kvm` on Linux, Homebrew's folders on macOS, `C:\Program Files\qemu` on Windows
///
/// # Errors
/// `QemuMissing`; `QemuTooOld` and `QemuBroken` when there is one and it cannot be used.
pub async fn find(sys: &dyn Sys, machine: &Path, arch: Arch) -> Result<Qemu> {
    if let Some(chosen) = sys.variable(VARIABLE) {
        let program = PathBuf::from(chosen);
        if !program.is_absolute() && sys.os() == std::env::consts::OS {
            return Err(Error::QemuBroken { program, detail: format!("{VARIABLE} is not an absolute path") });
        }
        if !sys.is_program(&program) {
            let detail = format!("{VARIABLE} names no file that can be started");
            return Err(Error::QemuBroken { program, detail });
        }
        return asked(sys, program, Place::Chosen, arch).await;
    }
    let mut worst = None;
    for (program, place) in candidates(sys, machine, arch) {
        match asked(sys, program, place, arch).await {
            Ok(qemu) => return Ok(qemu),
            // The first one is the one that its user expects to be used.
            Err(error) => worst = worst.or(Some(error)),
        }
    }
    Err(worst.unwrap_or_else(|| Error::QemuMissing { arch, os: sys.os().to_owned() }))
}

/// Asks a program whether it can be used.
pub(crate) async fn asked(sys: &dyn Sys, program: PathBuf, place: Place, arch: Arch) -> Result<Qemu> {
    // At once: each takes QEMU twenty milliseconds, most of which are spent on being loaded.
    let (line, accelerators) =
        tokio::join!(sys.answer(&program, &["--version"]), sys.output(&program, &["-accel", "help"]));
    let line = match line {
        Ok(line) => line,
        Err(detail) => return Err(Error::QemuBroken { program, detail }),
    };
    let Some(version) = Version::parse(&line) else {
        let detail = format!("it says that it is `{}`", line.replace('`', "'"));
        return Err(Error::QemuBroken { program, detail });
    };
    if version < OLDEST {
        return Err(Error::QemuTooOld { arch, program, version, os: sys.os().to_owned() });
    }
    let accelerators = accelerators
        .map(|said| said.lines().map(|line| line.trim().to_owned()).collect())
        .map_err(|problem| format!("QEMU does not say which accelerators it has: {problem}"));
    Ok(Qemu { program, version, place, accelerators })
}

/// The folder of pcoder's own.
pub(crate) fn own_folder(machine: &Path) -> PathBuf {
    machine.join("qemu")
}

fn candidates(sys: &dyn Sys, machine: &Path, arch: Arch) -> Vec<(PathBuf, Place)> {
    let mut found = Vec::new();
    let mut own = own(sys, machine);
    own.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    for (_, folder) in own {
        found.extend(program_in(sys, &folder, arch).map(|program| (program, Place::Own)));
    }
    found.extend(sys.find(&format!("qemu-system-{}", arch.qemu())).map(|program| (program, Place::Path)));
    let usual = usual(sys, arch).into_iter().map(PathBuf::from).filter(|it| sys.is_program(it));
    for program in usual {
        if !found.iter().any(|(it, _)| *it == program) {
            found.push((program, Place::Usual));
        }
    }
    found
}

/// pcoder's own for this host, with the versions in their folders' names. A stick may have those of other hosts too.
fn own(sys: &dyn Sys, machine: &Path) -> Vec<(Option<Version>, PathBuf)> {
    let platform = platform(sys.os(), sys.arch());
    let folders = sys.entries(&own_folder(machine)).into_iter();
    let named = folders.filter_map(|folder| {
        let name = folder.file_name()?.to_str()?.to_owned();
        let (version, rest) = name.split_once('-')?;
        let fits = rest == platform || rest.strip_prefix(&platform).is_some_and(|rest| rest.starts_with('-'));
        fits.then(|| (Version::parse(&format!("version {version}")), folder))
    });
    named.collect()
}

/// The program in an unpacked archive.
pub(crate) fn program_in(sys: &dyn Sys, folder: &Path, arch: Arch) -> Option<PathBuf> {
    let ending = if sys.os() == "windows" { ".exe" } else { "" };
    let name = format!("qemu-system-{}{ending}", arch.qemu());
    let mut folders = vec![folder.to_path_buf()];
    for _ in 0..DEPTH {
        let found = folders.iter().map(|folder| folder.join(&name)).find(|it| sys.is_program(it));
        if found.is_some() {
            return found;
        }
        folders = folders.iter().flat_map(|folder| sys.entries(folder)).collect();
    }
    None
}

/// Where a system has it although it is not on the `PATH`. The texts are the system's own paths, whichever one this is.
fn usual(sys: &dyn Sys, arch: Arch) -> Vec<String> {
    let name = format!("qemu-system-{}", arch.qemu());
    match sys.os() {
        // It is for guests of the host's own processor alone.
        "linux" if sys.arch() == arch.qemu() => vec![format!("/usr/bin/{name}"), "/usr/libexec/qemu-kvm".to_owned()],
        "linux" => vec![format!("/usr/bin/{name}")],
        "macos" => ["/opt/homebrew/bin", "/usr/local/bin", "/opt/local/bin"].map(|it| format!("{it}/{name}")).into(),
        "windows" => {
            let folder = sys.variable("ProgramFiles").and_then(|it| it.into_string().ok());
            let folder = folder.unwrap_or_else(|| r"C:\Program Files".to_owned());
            vec![format!(r"{folder}\qemu\{name}.exe")]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    const NEW: &str = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)";
    const OLD: &str = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)";

    async fn found(fake: &Fake) -> Result<(String, Place)> {
        let qemu = find(fake, Path::new("/data/machine"), Arch::X86_64).await?;
        Ok((qemu.program.to_string_lossy().into_owned(), qemu.place))
    }

    #[test]
    fn versions_are_read_as_every_distribution_writes_them() {
        let read = |line: &str| Version::parse(line).map(|it| it.to_string());
        assert_eq!(read(NEW).as_deref(), Some("10.0.2"));
        assert_eq!(read("QEMU emulator version 9.2.0 (v9.2.0-12345-dirty)").as_deref(), Some("9.2.0"));
        assert_eq!(read("QEMU emulator version 11.1 ").as_deref(), Some("11.1.0"));
        assert_eq!(read("QEMU emulator version 10.1.0-rc2").as_deref(), Some("10.1.0"));
        for other in ["", "QEMU", "version x", "version 9", "version 99999999999.1"] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn the_users_own_choice_comes_first_and_nothing_comes_after_it() {
        let fake = Fake::linux().program("/opt/q/qemu-system-x86_64", NEW).on_path("qemu-system-x86_64", NEW);
        let chosen = fake.variable("PCODER_QEMU", "/opt/q/qemu-system-x86_64");
        assert_eq!(found(&chosen).await.unwrap(), ("/opt/q/qemu-system-x86_64".to_owned(), Place::Chosen));
        let wrong = chosen.variable("PCODER_QEMU", "/nowhere/qemu");
        let error = found(&wrong).await.unwrap_err();
        assert!(error.to_string().contains("PCODER_QEMU"), "{error}");
    }

    #[tokio::test]
    async fn pcoders_own_comes_before_the_systems_the_newest_first_and_only_this_hosts() {
        let fake = Fake::linux()
            .program("/data/machine/qemu/10.0.2-linux-x64-aaaa/bin/qemu-system-x86_64", NEW)
            .program("/data/machine/qemu/11.1.1-linux-x64-bbbb/q/bin/qemu-system-x86_64", NEW)
            .program("/data/machine/qemu/12.0.0-win32-x64-cccc/qemu-system-x86_64", NEW)
            .program("/data/machine/qemu/12.0.0-linux-x64er/qemu-system-x86_64", NEW)
            .on_path("qemu-system-x86_64", NEW);
        let (program, place) = found(&fake).await.unwrap();
        assert_eq!(place, Place::Own);
        assert_eq!(program, "/data/machine/qemu/11.1.1-linux-x64-bbbb/q/bin/qemu-system-x86_64");
    }

    #[tokio::test]
    async fn one_that_is_too_old_or_broken_is_passed_over_for_a_better_one_and_named_without() {
        let old = Fake::linux().on_path("qemu-system-x86_64", OLD);
        let error = found(&old).await.unwrap_err();
        assert!(matches!(error, Error::QemuTooOld { .. }) && error.hint().contains("bookworm-backports"), "{error}");
        let both = old.program("/usr/libexec/qemu-kvm", NEW);
        assert_eq!(found(&both).await.unwrap(), ("/usr/libexec/qemu-kvm".to_owned(), Place::Usual));
        let strange = Fake::linux().on_path("qemu-system-x86_64", "something else");
        assert!(matches!(found(&strange).await.unwrap_err(), Error::QemuBroken { .. }));
    }

    #[tokio::test]
    async fn the_usual_places_of_each_system() {
        let windows = Fake::new("windows", "x86_64").program(r"C:\Program Files\qemu\qemu-system-x86_64.exe", NEW);
        assert_eq!(found(&windows).await.unwrap().1, Place::Usual);
        let other = Fake::new("windows", "x86_64")
            .variable("ProgramFiles", r"D:\Apps")
            .program(r"D:\Apps\qemu\qemu-system-x86_64.exe", NEW);
        assert_eq!(found(&other).await.unwrap().1, Place::Usual);
        let mac = Fake::new("macos", "aarch64").program("/opt/homebrew/bin/qemu-system-aarch64", NEW);
        let qemu = find(&mac, Path::new("/m"), Arch::Aarch64).await.unwrap();
        assert_eq!(qemu.place, Place::Usual);
        // RHEL's is for guests of the host's own processor alone.
        let red_hat = Fake::linux().program("/usr/libexec/qemu-kvm", NEW);
        assert!(find(&red_hat, Path::new("/m"), Arch::Aarch64).await.is_err());
    }

    #[tokio::test]
    async fn without_any_each_system_hears_how_to_get_it() {
        for (os, word) in [("linux", "apt-get"), ("macos", "brew"), ("windows", "winget"), ("freebsd", "bootstrap")] {
            let error = found(&Fake::new(os, "x86_64")).await.unwrap_err();
            assert!(error.hint().contains(word), "{os}: {}", error.hint());
        }
    }
}
