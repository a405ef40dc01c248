//! Virtual machines: what this host has for them, and how it gets what it lacks. They are started by plugins.

use std::ffi::OsString;
use std::path::PathBuf;

use pcoder_engines::Patience;
use pcoder_runtime::Error;
use pcoder_runtime::manifest::Kind;
use pcoder_vm::{Arch, Bootstrap, Bootstrapped, HostFacts, Images, Origin, Places, Reporter, Tried};
use tokio_util::sync::CancellationToken;

use crate::doctor::ThisMachine;
use crate::errors::{from_state, from_vm};
use crate::layout::absolute;
use crate::{Mode, Pcoder};

/// The file of the facts, for plugins.
pub(crate) const FACTS: &str = "facts.json";

/// What is known of this host, and what is wrong with its QEMU where there is none that can be used.
pub(crate) type Looked = (HostFacts, Option<pcoder_vm::Error>);

/// How a machine is set up.
#[derive(Clone)]
pub struct Bootstrapping {
    /// The manifest's file or address; without it, what `PCODER_VM_MANIFEST` says, or the one in the folder.
    pub manifest: Option<OsString>,
    /// A folder with an image, which is taken instead of the manifest's.
    pub image: Option<PathBuf>,
    /// Bring again what is there.
    pub force: bool,
    /// Use the network.
    pub online: bool,
    /// Who is told of each file.
    pub reporter: Reporter,
    /// Ends it.
    pub cancel: CancellationToken,
}

impl Pcoder {
    /// The images of virtual machines.
    pub fn images(&self) -> Images {
        Images::new(self.layout().images(), &self.layout().locks)
    }

    /// What is known of this host, once for as long as this process lives. It is also put where plugins read it, whole
    /// or not at all.
    ///
    /// # Errors
    /// When it cannot be written there.
    pub async fn host_facts(&self) -> Result<&HostFacts, Error> {
        let (facts, _) = self.look_at_host().await;
        let folder = self.layout().machine_facts(&self.surroundings);
        #[cfg(unix)]
        if self.layout().portable {
            // In a folder where anybody may make some, a stranger's would name the QEMU that is started.
            for place in [&self.surroundings.sockets(), &folder] {
                let failed = |error| Error::of_service("runtime", &error);
                pcoder_service::private_folder(place).map_err(failed)?;
            }
        }
        let path = folder.join(FACTS);
        let text = serde_json::to_vec(facts).unwrap_or_default();
        // The same facts are not written again: a stick wears out, and a reader may be there.
        if std::fs::read(&path).ok().as_deref() != Some(&text) {
            pcoder_state::write_atomic(&path, &text).map_err(|error| from_state("runtime", &error))?;
        }
        Ok(facts)
    }

    /// The QEMU that was found, where somebody looked.
    pub(crate) fn found_qemu(&self) -> Option<&std::path::Path> {
        let (facts, _) = self.host.get()?;
        facts.qemu.as_ref().map(|it| std::path::Path::new(&it.program))
    }

    /// The same without leaving anything.
    pub(crate) async fn look_at_host(&self) -> &Looked {
        let machine = self.this_machine();
        self.host.get_or_init(|| async move { HostFacts::of(&machine, &self.layout().machine()).await }).await
    }

    /// The same with what the provider of machines has found out by starting some. For people: whoever starts a machine may
    /// want what did not work to be tried again.
    pub(crate) async fn host_as_tried(&self) -> HostFacts {
        let provider = format!("{}{}", Kind::Provider.prefix(), Mode::LinuxPortable.provider());
        let (facts, _) = self.look_at_host().await;
        facts.after(&Tried::read(&self.layout().plugin_state(&provider)))
    }

    fn this_machine(&self) -> ThisMachine {
        ThisMachine::new(&self.surroundings, &self.layout().data)
    }

    /// Brings what a virtual machine needs: an image, and a QEMU where the manifest has one for this host. What is there
    /// stays.
    ///
    /// # Errors
    /// `not-found` where nothing says where something is to be had; those of the network and of the disk; `integrity`
    /// for other bytes than the manifest says.
    pub async fn bootstrap(&self, how: &Bootstrapping) -> Result<Bootstrapped, Error> {
        let cwd = &self.surroundings.cwd;
        let variable = self.surroundings.variable("PCODER_VM_MANIFEST");
        // Beside the program of a portable folder, which is what is carried; or where everything else is kept.
        let layout = self.layout();
        let program = self.surroundings.executable.as_deref().and_then(std::path::Path::parent);
        let portable = layout.portable_folder();
        let folders = portable.into_iter().chain(program.filter(|_| layout.portable)).chain([layout.data.as_path()]);
        let folders: Vec<PathBuf> = folders.map(PathBuf::from).collect();
        let origin = Origin::choose(how.manifest.as_deref(), variable, cwd, &folders).map_err(|it| from_vm(&it))?;
        let network = if how.online { Some(std::sync::Arc::new(self.network(None)?)) } else { None };
        let bootstrap = Bootstrap {
            places: Places { images: layout.images(), machine: layout.machine(), locks: layout.locks.clone() },
            arch: Arch::parse(std::env::consts::ARCH).unwrap_or(Arch::X86_64),
            origin,
            image: how.image.as_deref().map(|folder| absolute(cwd, folder)),
            force: how.force,
            network,
            patience: Patience::default(),
            agent: concat!("pcoder/", env!("CARGO_PKG_VERSION")).to_owned(),
            reporter: how.reporter.clone(),
            cancel: how.cancel.clone(),
        };
        pcoder_vm::bootstrap(&self.this_machine(), &bootstrap).await.map_err(|error| from_vm(&error))
    }
}
