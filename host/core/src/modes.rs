//! Kinds of machine, by the names that people know them by, and which one a run gets.
//!
//! The choice follows from what is here and from nothing else: no machine is started to find out, and a run that has
//! begun on one never goes on on another. docs/machines.md has the same rules as a table.

use pcoder_runtime::Error;
use pcoder_runtime::error::code;
use pcoder_runtime::manifest::Kind;
use pcoder_vm::Arch;

use crate::Pcoder;
use crate::errors::from_vm;

const OPERATION: &str = "run";
const WITHOUT: &str = "`--mode host-native` runs on this machine, without isolation";

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// This machine, without isolation.
    HostNative,
    /// A Linux machine that needs no installation.
    LinuxPortable,
    /// The Linux that Windows brings.
    LinuxWsl,
    /// The portable Linux machine where it can be started, else this machine.
    Auto,
}

impl Mode {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HostNative => "host-native",
            Self::LinuxPortable => "linux-portable",
            Self::LinuxWsl => "linux-wsl",
            Self::Auto => "auto",
        }
    }

    /// The provider that is meant first.
    pub(crate) const fn provider(self) -> &'static str {
        match self {
            Self::HostNative => "local",
            Self::LinuxPortable | Self::Auto => "qemu",
            Self::LinuxWsl => "wsl",
        }
    }
}

/// What a mode became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The provider.
    pub provider: &'static str,
    /// What its user should know of it before anything runs.
    pub note: Option<String>,
}

/// How fast what runs there runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speed {
    Full,
    Emulated,
}

impl Pcoder {
    /// The provider for a mode. `image` is the one that would be booted, where one was named.
    ///
    /// # Errors
    /// `unsupported` where this pcoder has no such provider; what a virtual machine lacks here, where one was asked for;
    /// `denied` where a policy does not let its provider run, which is never a reason to do without.
    pub async fn choose_machine(&self, mode: Mode, image: Option<&str>) -> Result<Chosen, Error> {
        let there = match mode {
            Mode::HostNative => Ok(Speed::Full),
            _ => match (self.plugin(Kind::Provider, mode.provider()).await, mode) {
                (Ok(_), Mode::LinuxPortable | Mode::Auto) => self.virtual_machines(image).await,
                (Ok(_), _) => Ok(Speed::Full),
                (Err(error), _) if error.is(code::NOT_FOUND) => Err(missing(mode)),
                (Err(error), _) => return Err(error),
            },
        };
        rule(mode, there)
    }

    /// What virtual machines would be run with, or what they lack.
    async fn virtual_machines(&self, image: Option<&str>) -> Result<Speed, Error> {
        if let (_, Some(problem)) = self.look_at_host().await {
            return Err(from_vm(problem));
        }
        let facts = self.host_as_tried().await;
        let Some(best) = facts.best() else {
            let said = facts.accelerators.iter().filter_map(|it| Some(format!("{}: {}", it.name, it.why.as_ref()?)));
            let message = format!("nothing runs virtual machines here ({})", said.collect::<Vec<_>>().join("; "));
            return Err(Error::new(code::UNSUPPORTED, OPERATION, message).hint("`pcoder runtime probe` says more"));
        };
        let images = self.images();
        let found = match image {
            Some(image) => images.find(image).map(drop),
            // Which of them is taken is the plugin's to know, which has a setting for it.
            None if images.list().is_ok_and(|all| all.iter().any(|it| it.image.is_ok())) => Ok(()),
            None => images.find(&Arch::parse(&facts.arch).unwrap_or(Arch::X86_64).default_image()).map(drop),
        };
        found.map_err(|error| from_vm(&error))?;
        Ok(if best.name == "tcg" { Speed::Emulated } else { Speed::Full })
    }
}

fn missing(mode: Mode) -> Error {
    let message = format!("this pcoder has no provider `{}`, which that mode needs", mode.provider());
    Error::new(code::UNSUPPORTED, OPERATION, message).subject(mode.name())
}

/// The rules.
fn rule(mode: Mode, there: Result<Speed, Error>) -> Result<Chosen, Error> {
    let chosen = |mode: Mode, note| Ok(Chosen { provider: mode.provider(), note });
    match (mode, there) {
        (mode, Ok(Speed::Full)) => chosen(mode, None),
        (mode, Ok(Speed::Emulated)) => {
            let note = "the machine is emulated, and some ten times slower: `pcoder runtime probe` says why";
            chosen(mode, Some(note.to_owned()))
        }
        (Mode::Auto, Err(error)) => {
            let about = error.subject.as_ref().map(|it| format!(" ({it})")).unwrap_or_default();
            let note = format!("it runs on this machine, without isolation: {}{about}", error.message);
            chosen(Mode::HostNative, Some(note))
        }
        (_, Err(error)) => {
            let hint = match &error.hint {
                Some(hint) => format!("{hint}. {WITHOUT}"),
                None => format!("`pcoder runtime probe` says what this machine can do; {WITHOUT}"),
            };
            Err(error.hint(hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacks() -> Error {
        Error::new(code::NOT_FOUND, OPERATION, "QEMU is not installed").subject("qemu-system-x86_64").hint("`get it`")
    }

    /// Every row of the table in docs/machines.md.
    #[test]
    fn a_mode_becomes_the_same_provider_whenever_the_same_is_here() {
        let provider = |mode, machines| rule(mode, machines).map(|it| (it.provider, it.note.is_some()));
        assert_eq!(provider(Mode::HostNative, Ok(Speed::Full)), Ok(("local", false)));
        assert_eq!(provider(Mode::LinuxPortable, Ok(Speed::Full)), Ok(("qemu", false)));
        assert_eq!(provider(Mode::LinuxWsl, Ok(Speed::Full)), Ok(("wsl", false)));
        assert_eq!(provider(Mode::LinuxPortable, Ok(Speed::Emulated)), Ok(("qemu", true)));
        assert_eq!(provider(Mode::Auto, Ok(Speed::Full)), Ok(("qemu", false)));
        assert_eq!(provider(Mode::Auto, Ok(Speed::Emulated)), Ok(("qemu", true)));
        assert_eq!(provider(Mode::Auto, Err(lacks())), Ok(("local", true)));
        assert_eq!(provider(Mode::Auto, Err(missing(Mode::Auto))), Ok(("local", true)));
        for mode in [Mode::LinuxPortable, Mode::LinuxWsl] {
            let error = rule(mode, Err(missing(mode))).expect_err("isolation that was asked for is not left out");
            assert!(error.is(code::UNSUPPORTED) && error.hint.as_ref().is_some_and(|it| it.contains(WITHOUT)));
        }
    }

    #[test]
    fn what_is_lacking_is_said_with_its_remedy() {
        let error = rule(Mode::LinuxPortable, Err(lacks())).expect_err("there is no QEMU");
        assert!(error.hint.as_ref().is_some_and(|it| it.starts_with("`get it`")));
        let note = rule(Mode::Auto, Err(lacks())).expect("this machine").note.expect("why");
        assert_eq!(note, "it runs on this machine, without isolation: QEMU is not installed (qemu-system-x86_64)");
    }
}
