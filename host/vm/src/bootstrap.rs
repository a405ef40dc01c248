//! From nothing to a machine that can be started: an image, and a QEMU where a manifest has one.
//!
//! Running it again does nothing when all is there. Whatever ends it half-way, the next run goes on: what was downloaded
//! stays, and what has a name is whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pcoder_engines::{NetworkConfig, Patience, Phase, Progress};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::arch::{Arch, platform};
use crate::archive;
use crate::cloud;
use crate::error::{At as _, Error, Result};
use crate::files::{blocking, expect_room, flush_folder, hexadecimal, locked, publish, remove_tree};
use crate::guest::{self, Guest};
use crate::images::Images;
use crate::manifest::{ImageEntry, Manifest, Origin, QemuEntry};
use crate::obtain::{Supply, Wanted};
use crate::qemu::{self, Place, asked, own_folder, program_in};
use crate::sys::Sys;

/// An unpacked QEMU has some four times its archive's bytes.
const UNPACKED: u64 = 5;

/// Where things are put.
#[derive(Clone, Debug)]
pub struct Places {
    /// The images.
    pub images: PathBuf,
    /// What belongs to machines; pcoder's own QEMU is in there.
    pub machine: PathBuf,
    /// The locks, on a disk that has some.
    pub locks: PathBuf,
}

/// Makes who is told of one file's progress, of the file's name.
pub type Reporter = Arc<dyn Fn(&str) -> Arc<dyn Progress> + Send + Sync>;

/// What is wanted.
#[derive(Clone)]
pub struct Bootstrap {
    /// Where to put it.
    pub places: Places,
    /// The guests' processor.
    pub arch: Arch,
    /// The manifest, where there is one.
    pub origin: Option<Origin>,
    /// A folder with an image, which is taken instead of the manifest's.
    pub image: Option<PathBuf>,
    /// Bring again what is there.
    pub force: bool,
    /// How the network is reached. None: not at all.
    pub network: Option<Arc<NetworkConfig>>,
    /// How patient downloads are.
    pub patience: Patience,
    /// Who is asking, for servers.
    pub agent: String,
    /// Who is told.
    pub reporter: Reporter,
    /// Ends it.
    pub cancel: CancellationToken,
}

/// What became of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settled {
    /// The image's name, or the QEMU's version.
    pub name: String,
    /// Its folder, or the QEMU's program.
    pub path: PathBuf,
    /// What was done.
    pub outcome: Outcome,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was brought.
    Installed,
    /// It was there.
    Present,
}

/// What is there now.
#[derive(Debug)]
pub struct Bootstrapped {
    /// The image.
    pub image: Settled,
    /// The QEMU that will be used; or what is wrong, where the manifest has none and this machine neither.
    pub qemu: Result<Settled>,
}

/// Brings an image, and a QEMU where the manifest has one for this host. Without a manifest, what is there already will
/// do.
///
/// # Errors
/// `NoManifest` when something is missing and nothing says where it is; those of reading a manifest, of downloads, of
/// the disk; `Wrong` names the file that is another; `QemuBroken` for one that does not run here. Nothing that was there
/// is lost.
pub async fn bootstrap(sys: &dyn Sys, what: &Bootstrap) -> Result<Bootstrapped> {
    let images = Images::new(&what.places.images, &what.places.locks);
    let supply = what.origin.as_ref().map(|origin| Supply {
        origin: origin.clone(),
        network: what.network.clone(),
        patience: what.patience.clone(),
        agent: what.agent.clone(),
        cancel: what.cancel.clone(),
    });
    let manifest = match &supply {
        Some(supply) => what.manifest(&images, supply).await?,
        None => None,
    };
    let known = manifest.as_ref().zip(supply.as_ref());
    let image = what.image(&images, known).await?;
    let qemu = what.qemu(sys, known).await?;
    Ok(Bootstrapped { image, qemu })
}

type Known<'a> = Option<(&'a Manifest, &'a Supply)>;

impl Bootstrap {
    /// The manifest. One that is on the network, which is not to be used, is not missed where an image is there.
    async fn manifest(&self, images: &Images, supply: &Supply) -> Result<Option<Manifest>> {
        let (network, progress) = (supply.network.as_ref(), (self.reporter)("manifest"));
        let loaded = Manifest::load(&supply.origin, network, &supply.agent, &*progress, self.cancel.clone()).await;
        match loaded {
            Err(Error::Offline { .. })
                if !self.force && (self.image.is_some() || images.find(&self.arch.default_image()).is_ok()) =>
            {
                Ok(None)
            }
            loaded => loaded.map(Some),
        }
    }

    async fn image(&self, images: &Images, known: Known<'_>) -> Result<Settled> {
        if let Some(from) = &self.image {
            let progress = (self.reporter)("image");
            let done = images.import(from, None, self.force, progress, self.cancel.clone()).await?;
            let outcome = if done.present { Outcome::Present } else { Outcome::Installed };
            return Ok(Settled { name: done.name, path: done.folder, outcome });
        }
        let name = self.arch.default_image();
        let place = images.place(&name)?;
        let Some((manifest, supply)) = known else {
            return match images.find(&name) {
                Ok(_) if !self.force => Ok(Settled { name, path: place, outcome: Outcome::Present }),
                _ => Err(Error::NoManifest { what: format!("the image `{name}`") }),
            };
        };
        let Some(entry) = manifest.images.get(&name) else {
            let known = manifest.images.keys().cloned().collect();
            return Err(Error::NotInManifest { place: supply.origin.shown(), what: format!("image `{name}`"), known });
        };
        let _lock = images.lock(&name, &*(self.reporter)(&name), &self.cancel).await?;
        if !self.force && images.find(&name).is_ok() && self.same_guest(entry, &place).await {
            return Ok(Settled { name, path: place, outcome: Outcome::Present });
        }
        self.bring_image(images, &name, entry, supply).await?;
        Ok(Settled { name, path: place, outcome: Outcome::Installed })
    }

    /// Whether an image's `guest.json` is the manifest's: it names the other files by their digests.
    async fn same_guest(&self, entry: &ImageEntry, place: &Path) -> bool {
        let read = std::fs::read(place.join(guest::NAME));
        let wanted = entry.guest().map(|it| it.sha256.as_str());
        read.is_ok_and(|text| Some(hexadecimal(&Sha256::digest(text)).as_str()) == wanted)
    }

    async fn bring_image(&self, images: &Images, name: &str, entry: &ImageEntry, supply: &Supply) -> Result<()> {
        // Named after what it is to become, so that what is in it belongs to no other manifest.
        let mut digest = Sha256::new();
        entry.files.iter().for_each(|file| digest.update(format!("{} {}\n", file.sha256, file.file)));
        let digest = hexadecimal(&digest.finalize());
        let staging = images.staged(name, digest.get(..12).unwrap_or_default());
        images.sweep(name, Some(&staging))?;
        if self.force {
            remove_tree(&staging)?;
        }
        std::fs::create_dir_all(&staging).at("create", &staging)?;
        expect_room(&staging, room(entry, &staging))?;
        for file in &entry.files {
            let progress = (self.reporter)(&file.file);
            supply.image_file(file, &staging, &progress).await?;
        }
        let checked = self.check(entry, &staging);
        if let Err(detail) = checked {
            remove_tree(&staging)?;
            return Err(Error::Wrong { file: guest::NAME.to_owned(), detail });
        }
        let (images, name) = (images.clone(), name.to_owned());
        blocking(move || {
            flush_folder(&staging)?;
            images.publish(&name, &staging)
        })
        .await
    }

    /// Whether the manifest and the image say the same of its files. That each is what the manifest says is known.
    fn check(&self, entry: &ImageEntry, staging: &Path) -> Result<(), String> {
        let guest = Guest::read(staging).map_err(|error| error.to_string())?;
        if guest.arch != self.arch || entry.arch != self.arch {
            return Err(format!("it is for {}, not for {}", guest.arch, self.arch));
        }
        for part in guest.parts() {
            let same =
                entry.files.iter().any(|it| (&it.file, it.size, &it.sha256) == (&part.file, part.size, &part.sha256));
            if !same {
                return Err(format!("it and the manifest differ in `{}`", part.file));
            }
        }
        if entry.files.len() != guest.parts().len() + 1 {
            return Err("the manifest has files that are no part of the image".to_owned());
        }
        cloud::check_disk(staging, &guest)
    }

    async fn qemu(&self, sys: &dyn Sys, known: Known<'_>) -> Result<Result<Settled>> {
        let platform = platform(sys.os(), sys.arch());
        let mut outcome = Outcome::Present;
        if let Some((manifest, supply)) = known
            && let Some(entry) = manifest.qemu.get(&platform)
        {
            outcome = self.bring_qemu(sys, &platform, entry, supply).await?;
        }
        let found = qemu::find(sys, &self.places.machine, self.arch).await;
        Ok(found.map(|qemu| Settled { name: qemu.version.to_string(), path: qemu.program, outcome }))
    }

    async fn bring_qemu(&self, sys: &dyn Sys, platform: &str, entry: &QemuEntry, supply: &Supply) -> Result<Outcome> {
        let name = format!("qemu {}", entry.version);
        let progress = (self.reporter)(&name);
        let folder = own_folder(&self.places.machine);
        let key = format!("{}-{platform}-{}", entry.version, entry.sha256.get(..8).unwrap_or_default());
        let place = folder.join(&key);
        let lock = self.places.locks.join("qemu.lock");
        let _lock = locked(&lock, &name, &*progress, &self.cancel).await?;
        if !self.force && program_in(sys, &place, self.arch).is_some() {
            return Ok(Outcome::Present);
        }
        let staging = folder.join(".staging");
        std::fs::create_dir_all(&staging).at("create", &staging)?;
        expect_room(&staging, entry.size.saturating_mul(UNPACKED + 1))?;
        // In it, so that no other file of the archive's can have its name.
        let packed = staging.join(&key);
        let wanted = Wanted { file: &name, url: &entry.url, size: entry.size, sha256: &entry.sha256 };
        supply.raw(wanted, &packed, &progress).await?;
        let tree = staging.join(format!("{key}.tree"));
        remove_tree(&tree)?;
        std::fs::create_dir_all(&tree).at("create", &tree)?;
        let (from, kind, into) = (packed.clone(), entry.archive, tree.clone());
        let (told, cancel) = (Arc::clone(&progress), self.cancel.clone());
        let unpacked = blocking(move || archive::unpack(&from, kind, &into, &*told, &cancel)).await;
        let ran = match unpacked {
            Ok(()) => self.runs(sys, &tree, entry, &*progress).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ran {
            remove_tree(&tree)?;
            // What was compared is kept where the next time may end otherwise.
            if !matches!(error, Error::Cancelled { .. } | Error::DiskFull { .. }) {
                crate::files::remove_file(&packed)?;
            }
            return Err(error);
        }
        publish(&tree, &place, &staging.join(format!("{key}.old")))?;
        // What other versions left on the way goes with it: there is one lock for all of them.
        remove_tree(&staging)?;
        Ok(Outcome::Installed)
    }

    /// Whether what was unpacked is that QEMU, and starts here.
    async fn runs(&self, sys: &dyn Sys, tree: &Path, entry: &QemuEntry, progress: &dyn Progress) -> Result<()> {
        progress.phase(Phase::Checking);
        let Some(program) = program_in(sys, tree, self.arch) else {
            let detail = format!("it has no qemu-system-{} that can be started", self.arch.qemu());
            return Err(Error::Archive { file: format!("qemu {}", entry.version), detail });
        };
        let found = asked(sys, program, Place::Own, self.arch).await?;
        if found.version.to_string() != entry.version {
            let detail = format!("it says that it is {}, and the manifest says {}", found.version, entry.version);
            return Err(Error::QemuBroken { program: found.program, detail });
        }
        Ok(())
    }
}

/// Bytes that are still needed: what has to come, and what it unpacks to.
fn room(entry: &ImageEntry, staging: &Path) -> u64 {
    let needed = entry.files.iter().filter(|file| {
        // What has its name already is whole.
        !staging.join(&file.file).metadata().is_ok_and(|data| data.len() == file.size)
    });
    let packed = |file: &crate::manifest::ImageFile| file.compression.map_or(0, |_| file.wire().0);
    needed.fold(0, |sum: u64, file| sum.saturating_add(file.room()).saturating_add(packed(file)))
}
