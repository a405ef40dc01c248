//! Where Debian's packages come from on this machine, and the programs that an image is built with.

use std::process::Command;

use crate::Failure;
use crate::debian;

/// What the building machine needs: the package, and a program that shows that it is there.
const TOOLS: [(&str, &str); 5] = [
    ("mmdebstrap", "mmdebstrap"),
    ("kmod", "depmod"),
    ("xz-utils", "xz"),
    ("zstd", "zstd"),
    ("debian-archive-keyring", "/usr/share/keyrings/debian-archive-keyring.gpg"),
];

/// Installs them where they are missing.
pub(super) fn tools() -> Result<(), Failure> {
    let missing = || TOOLS.iter().filter(|(_, shown)| !is_there(shown)).map(|(package, _)| *package).collect();
    let missing_now: Vec<&str> = missing();
    let advice = format!(
        "the guest image is built by root on Debian 12 or newer. Run\n\n    {}\n\nand this command again",
        debian::install_command(&TOOLS.map(|(package, _)| package))
    );
    if !debian::is_root() {
        return Err(advice);
    }
    if missing_now.is_empty() {
        return Ok(());
    }
    debian::install(&missing_now, "what the guest image is built with", missing, &advice)
}

fn is_there(shown: &str) -> bool {
    debian::on_path(shown)
        || ["/usr/sbin", "/sbin", "/"].iter().any(|folder| std::path::Path::new(folder).join(shown).is_file())
}

/// The release of the building machine: `bookworm`.
pub(super) fn own_release() -> Result<String, Failure> {
    let path = std::path::Path::new("/etc/os-release");
    let text = std::fs::read_to_string(path).map_err(crate::workspace::at(path))?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .ok_or_else(|| "/etc/os-release names no release: is this Debian?".to_owned())
}

/// The lines for a list of sources of another release: from where apt brings this machine's own packages.
pub(super) fn sources(suite: &str) -> Result<Vec<String>, Failure> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(CREATED_BY) $(SITE) $(RELEASE) $(COMPONENT)"])
        .output()
        .map_err(|error| format!("apt-get: {error}"))?;
    let own = own_release()?;
    sources_of(&String::from_utf8_lossy(&output.stdout), &own, suite)
        .ok_or_else(|| format!("apt has no source of `{own} main`; name a mirror of Debian with `--mirror URL`"))
}

/// The same, from what apt says of its own sources. Corrections of security are taken where they are taken here.
fn sources_of(targets: &str, own: &str, suite: &str) -> Option<Vec<String>> {
    let site = |release: &str| {
        targets.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            ["Packages", site, of, "main"] if of == release => Some(site.trim_end_matches('/').to_owned()),
            _ => None,
        })
    };
    let mut lines = vec![format!("deb {} {suite} main", site(own)?)];
    for also in ["updates", "security"] {
        lines.extend(site(&format!("{own}-{also}")).map(|site| format!("deb {site} {suite}-{also} main")));
    }
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_one_of_this_machines_own_release() {
        let targets = "Packages http://other.example/apt stable main\n\
                       DEP-11 http://debian.example/debian/ bookworm main\n\
                       Packages http://debian.example/debian/ bookworm contrib\n\
                       Packages http://debian.example/debian/ bookworm main\n\
                       Packages http://security.example/debian-security/ bookworm-security main\n";
        let lines = sources_of(targets, "bookworm", "trixie").expect("there is one");
        let expected = [
            "deb http://debian.example/debian trixie main",
            "deb http://security.example/debian-security trixie-security main",
        ];
        assert_eq!(lines, expected);
        assert_eq!(sources_of(targets, "bullseye", "trixie"), None);
    }
}
