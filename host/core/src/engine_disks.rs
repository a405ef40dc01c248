//! Engines for machines that take them as a disk: which build, which disk, and that nobody removes it before the machine
//! is known.
//!
//! Such a provider names the feature `engines-disk`. Its machines run Linux with glibc on this computer's architecture,
//! whatever system this one has, and they find the disk by the boot's option `engines`, which is the file's name below the
//! root `engines`.

use std::sync::Arc;

use pcoder_engines::{Disks, DisksPruned, EnginesDisk, Platform, Progress, Store};
use pcoder_runtime::Error;
use pcoder_runtime::contract::Setting;
use pcoder_runtime::contract::provider::BootOptions;
use pcoder_runtime::error::code;
use pcoder_runtime::manifest::Kind;
use tokio_util::sync::CancellationToken;

use crate::Pcoder;
use crate::errors::from_engines;
use crate::instances::Provider;

/// What a provider can do whose machines take a disk with engines.
pub(crate) const FEATURE: &str = "engines-disk";
/// Where such a machine has the engines' commands. The `PATH` of its sessions is its SSH server's own, and a command cannot
/// be given another one on its way: it goes there as its user said it, or without its secrets.
pub(crate) const COMMANDS: &str = "/opt/pcoder/engines/bin";
/// The option of a boot that names it, and what an instance says of it.
const OPTION: &str = "engines";

/// Engines that have to be installed before a machine can have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingForGuest {
    /// The machines' platform.
    pub platform: Platform,
    /// Names, and versions where they were chosen.
    pub engines: Vec<(String, Option<String>)>,
}

/// What a machine is to have, before it is booted.
#[derive(Clone, Debug)]
pub(crate) struct ForGuest {
    store: Store,
    engines: Vec<(String, Option<String>)>,
}

impl Pcoder {
    /// The engine store, for engines of another platform too.
    ///
    /// # Errors
    /// As [`Pcoder::store`].
    pub fn store_for(&self, platform: Option<Platform>) -> Result<Store, Error> {
        let store = self.store()?;
        Ok(match platform {
            Some(platform) => store.for_platform(platform),
            None => store,
        })
    }

    /// The disks with engines.
    fn engine_disks(&self) -> Disks {
        Disks::new(self.layout().engine_disks(), self.layout().locks.clone())
    }

    /// The engines that a new machine of a provider would need for a tool, `version` being that of its first one, and that
    /// would still have to be installed. None where that provider takes no disk: then they are what the machine has.
    ///
    /// # Errors
    /// `not-found` for an unknown tool or provider; those of the store.
    pub async fn missing_for_guest(
        &self,
        provider: &str,
        tool: &str,
        version: Option<&str>,
    ) -> Result<Option<MissingForGuest>, Error> {
        let provider = self.provider(provider, CancellationToken::new()).await?;
        let Some(wanted) = self.for_guest(&provider, tool, version).await? else { return Ok(None) };
        let failed = |error: pcoder_engines::Error| from_engines(&error);
        // Whoever has the disk needs nothing else.
        if self.engine_disks().find(&wanted.store, &wanted.named()).map_err(failed)?.is_some() {
            return Ok(None);
        }
        let mut engines = Vec::new();
        for (name, version) in wanted.engines {
            if wanted.store.find(&name, version.as_deref()).map_err(failed)?.is_none() {
                engines.push((name, version));
            }
        }
        Ok((!engines.is_empty()).then(|| MissingForGuest { platform: wanted.store.platform(), engines }))
    }

    /// What a machine of this provider is to have for a tool, `version` being that of its first engine. None where the
    /// provider takes no disk.
    pub(crate) async fn for_guest(
        &self,
        provider: &Provider<'_>,
        tool: &str,
        version: Option<&str>,
    ) -> Result<Option<ForGuest>, Error> {
        if !provider.has(FEATURE).await? {
            return Ok(None);
        }
        let agent = self.plugin(Kind::Agent, tool).await?;
        let info = agent.agent()?.info(self.context(&agent)).await?;
        let arch = &self.host_facts().await?.arch;
        let platform = platform_of(arch).ok_or_else(|| {
            Error::new(
                code::UNSUPPORTED,
                "engine",
                "there are no engines for a machine of this processor's architecture",
            )
            .subject(arch.as_str())
            .hint("run it on this machine: `pcoder run --provider local`")
        })?;
        let engines = info.engines.into_iter().enumerate();
        let engines = engines.map(|(index, name)| (name, version.filter(|_| index == 0).map(str::to_owned)));
        Ok(Some(ForGuest { store: self.store_for(Some(platform))?, engines: engines.collect() }))
    }

    /// The disk, which is made where it is not there, and put into the options of a boot that names none. It is to be kept
    /// until the machine is booted: then the machine's own description names it.
    pub(crate) async fn with_engines(
        &self,
        wanted: &ForGuest,
        boot: &mut BootOptions,
        progress: Arc<dyn Progress>,
        cancel: CancellationToken,
    ) -> Result<Option<EnginesDisk>, Error> {
        if boot.options.iter().any(|it| it.name == OPTION) {
            return Ok(None);
        }
        let made = self.engine_disks().make(&wanted.store, &wanted.named(), progress, cancel).await;
        let disk = made.map_err(|error| from_engines(&error))?;
        boot.options.push(Setting { name: OPTION.to_owned(), value: disk.name.clone() });
        Ok(Some(disk))
    }

    /// Removes disks with engines that no machine uses, and that hold something else than the default versions. Where a
    /// provider does not say what its machines use, nothing is removed.
    ///
    /// # Errors
    /// The providers', and those of the disk.
    pub async fn prune_engine_disks(&self) -> Result<DisksPruned, Error> {
        if !self.layout().engine_disks().is_dir() {
            return Ok(DisksPruned::default());
        }
        let mut used = Vec::new();
        for name in self.names(Kind::Provider) {
            let provider = match self.provider(&name, CancellationToken::new()).await {
                // One that the policy does not let run can have machines of earlier days.
                Err(error) if error.is(code::DENIED) => return Ok(DisksPruned::default()),
                provider => provider?,
            };
            if provider.has(FEATURE).await? {
                let details = provider.list().await?.into_iter().flat_map(|it| it.details);
                used.extend(details.filter(|it| it.name == OPTION).map(|it| it.value));
            }
        }
        let lock = self.store()?.lock().clone();
        self.engine_disks().prune(&lock, &used).map_err(|error| from_engines(&error))
    }
}

impl ForGuest {
    fn named(&self) -> Vec<(&str, Option<&str>)> {
        self.engines.iter().map(|(name, version)| (name.as_str(), version.as_deref())).collect()
    }
}

/// What a Linux machine of an architecture, in Rust's words, runs.
fn platform_of(arch: &str) -> Option<Platform> {
    match arch {
        "x86_64" => Some(Platform::LinuxX64),
        "aarch64" => Some(Platform::LinuxArm64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pcoder(folder: &std::path::Path) -> Pcoder {
        let environment = vec![("PCODER_HOME".into(), folder.into())];
        let surroundings =
            crate::Surroundings { environment, cwd: folder.to_path_buf(), ..crate::Surroundings::default() };
        Pcoder::new(surroundings, &[], false).expect("a pcoder")
    }

    /// Another platform's than this machine's.
    fn foreign(pcoder: &Pcoder) -> ForGuest {
        let own = pcoder.store().expect("a store").platform();
        let other = if own == Platform::LinuxArm64 { Platform::LinuxX64 } else { Platform::LinuxArm64 };
        let store = pcoder.store_for(Some(other)).expect("a store");
        ForGuest { store, engines: vec![("claude".to_owned(), None)] }
    }

    #[tokio::test]
    async fn an_engine_that_is_missing_is_named_with_the_machines_platform() {
        let folder = tempfile::tempdir().expect("a folder");
        let pcoder = pcoder(folder.path());
        let (wanted, mut boot) = (foreign(&pcoder), crate::instances::plain_boot());
        let silent = || Arc::new(pcoder_engines::Silent);
        let error = pcoder.with_engines(&wanted, &mut boot, silent(), CancellationToken::new()).await;
        let error = error.expect_err("it is not installed");
        assert!(error.is(code::NOT_FOUND), "{error:?}");
        let platform = format!(" claude --platform {}`", wanted.store.platform());
        assert!(error.hint.as_deref().is_some_and(|it| it.ends_with(&platform)), "{error:?}");
        assert!(boot.options.is_empty() && !pcoder.layout().engine_disks().exists());
        // Whoever names a disk gets that one, and nothing is made.
        boot.options.push(Setting { name: OPTION.to_owned(), value: "mine".to_owned() });
        let made = pcoder.with_engines(&wanted, &mut boot, silent(), CancellationToken::new()).await;
        assert!(matches!(made, Ok(None)) && boot.options.len() == 1);
    }

    #[tokio::test]
    async fn disks_are_pruned_where_no_machine_can_have_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let pcoder = pcoder(folder.path());
        assert_eq!(pcoder.prune_engine_disks().await, Ok(DisksPruned::default()));
        let disks = pcoder.layout().engine_disks();
        assert!(!disks.exists(), "looking makes nothing");
        std::fs::create_dir(&disks).expect("a folder");
        std::fs::write(disks.join("linux-x64-0a.squashfs"), "12345").expect("a disk");
        let pruned = pcoder.prune_engine_disks().await.expect("pruned");
        assert_eq!((pruned.removed, pruned.freed_bytes), (vec!["linux-x64-0a.squashfs".to_owned()], 5));
    }

    #[test]
    fn a_machine_gets_linux_engines_of_its_own_architecture_whatever_the_host_runs() {
        assert_eq!(platform_of("x86_64"), Some(Platform::LinuxX64));
        assert_eq!(platform_of("aarch64"), Some(Platform::LinuxArm64));
        assert_eq!(platform_of("riscv64"), None);
    }
}
