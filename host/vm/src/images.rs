//! The folder of images.
//!
//! ```text
//! IMAGES/NAME/guest.json, vmlinux, initrd, root.img     one that is whole
//! IMAGES/.staging/NAME.*                                one that is on its way
//! ```
//! A folder with a name is whole: it gets its name last, in one step. Nobody writes into it after that.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pcoder_engines::{Phase, Progress, Silent};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::cloud;
use crate::copy::copy_checked;
use crate::error::{At as _, Error, Result};
use crate::files::{Meter, blocking, expect_room, flush_folder, hash, locked, publish, remove_tree, taken};
use crate::guest::{self, Guest, Part};

/// Where images are until they are whole.
const STAGING: &str = ".staging";

/// The folder of images.
#[derive(Clone, Debug)]
pub struct Images {
    folder: PathBuf,
    locks: PathBuf,
}

/// An image that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// What it is.
    pub guest: Guest,
}

/// What is at an image's place.
#[derive(Debug)]
pub struct Listed {
    /// The name.
    pub name: String,
    /// The image, or what is wrong with it.
    pub image: Result<Image>,
}

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// The image's name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Whether it was there already, with the same files.
    pub present: bool,
}

impl Image {
    /// The kernel's file.
    pub fn kernel(&self) -> PathBuf {
        self.folder.join(&self.guest.kernel.file)
    }

    /// The first file system's.
    pub fn initrd(&self) -> PathBuf {
        self.folder.join(&self.guest.initrd.file)
    }

    /// The disk's.
    pub fn root(&self) -> PathBuf {
        self.folder.join(&self.guest.root.file)
    }

    /// Bytes that its files have, holes among them.
    pub fn size(&self) -> u64 {
        self.guest.parts().iter().fold(0, |sum, part| sum.saturating_add(part.size))
    }

    /// Bytes that its files take on their disk.
    pub fn taken(&self) -> u64 {
        let parts = self.guest.parts().into_iter();
        parts.filter_map(|part| self.folder.join(&part.file).metadata().ok()).map(|data| taken(&data)).sum()
    }
}

impl Images {
    /// The images in a folder. Their locks are in another one, which has to be on a disk that has locks.
    pub fn new(folder: impl Into<PathBuf>, locks: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), locks: locks.into() }
    }

    /// The images that are there, by name, each looked at as [`Images::find`] does.
    ///
    /// # Errors
    /// When the folder cannot be read. One that is not there has none.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let listed = self.names()?.into_iter().map(|name| Listed { image: self.find(&name), name });
        Ok(listed.collect())
    }

    /// One image, of which every file is there and as long as it should be.
    ///
    /// # Errors
    /// `ImageMissing`, with the names that there are; `ImageDamaged`.
    pub fn find(&self, name: &str) -> Result<Image> {
        let folder = self.place(name)?;
        let damaged = |detail: String| Error::ImageDamaged { name: name.to_owned(), detail };
        if !folder.is_dir() {
            return Err(Error::ImageMissing { name: name.to_owned(), known: self.names()? });
        }
        let guest = Guest::read(&folder).map_err(|error| match error {
            Error::NotAnImage { detail, .. } => damaged(detail),
            error => error,
        })?;
        check(&folder, &guest).map_err(damaged)?;
        Ok(Image { name: name.to_owned(), folder, guest })
    }

    /// Compares every byte of an image with what its `guest.json` says.
    ///
    /// # Errors
    /// As [`Images::find`]; `ImageDamaged` names the first file that differs; `Cancelled`.
    pub async fn verify(&self, name: &str, progress: Arc<dyn Progress>, cancel: CancellationToken) -> Result<Image> {
        let image = self.find(name)?;
        blocking(move || {
            progress.phase(Phase::Checking);
            for part in image.guest.parts() {
                let path = image.folder.join(&part.file);
                let digest = hash(&path, Meter::new(&image.name, part.size, &*progress, &cancel))?;
                if digest != part.sha256 {
                    let detail = format!("the sha256 of `{}` is {digest}, not {}", part.file, part.sha256);
                    return Err(Error::ImageDamaged { name: image.name, detail });
                }
            }
            Ok(image)
        })
        .await
    }

    /// Takes an image out of a folder that `cargo xtask guest-image` made, or that has a cloud's image, its kernel and
    /// its initial file system. Without a name it gets that of its release and processor. Holes stay holes, and where
    /// the file system can share blocks, it does. One that is there with the same files stays, unless `force`.
    ///
    /// # Errors
    /// `NotAnImage`, `Name`; `Wrong` for a file that is not what the folder's `guest.json` says; `DiskFull`, `Io`;
    /// `Cancelled`. Whatever fails, the image that was there stays.
    pub async fn import(
        &self,
        from: &Path,
        name: Option<&str>,
        force: bool,
        progress: Arc<dyn Progress>,
        cancel: CancellationToken,
    ) -> Result<Imported> {
        if !from.is_dir() {
            let detail = if from.exists() { "it is no folder" } else { "there is no such folder" }.to_owned();
            return Err(Error::NotAnImage { path: from.to_path_buf(), detail });
        }
        let guest = if !from.join(guest::NAME).exists() {
            let (from, progress, cancel) = (from.to_path_buf(), Arc::clone(&progress), cancel.clone());
            blocking(move || cloud::describe(&from, &*progress, &cancel)).await?
        } else {
            Guest::read(from)?
        };
        check(from, &guest).map_err(|detail| Error::NotAnImage { path: from.to_path_buf(), detail })?;
        let name = name.map_or_else(|| guest.name(), str::to_owned);
        let folder = self.place(&name)?;
        let _lock = self.lock(&name, &*progress, &cancel).await?;
        let present = self.find(&name).is_ok_and(|image| image.guest == guest);
        if present && !force {
            return Ok(Imported { name, folder, present });
        }
        let staging = self.staged(&name, "import");
        let (this, from, named) = (self.clone(), from.to_path_buf(), name.clone());
        blocking(move || {
            this.sweep(&named, None)?;
            this.take_from(&from, &guest, &staging, &*progress, &cancel)
                .inspect_err(|_| drop(remove_tree(&staging)))?;
            this.publish(&named, &staging)
        })
        .await?;
        Ok(Imported { name, folder, present: false })
    }

    /// Takes an image away.
    ///
    /// # Errors
    /// `ImageMissing`; `State` while another pcoder is busy with it; `Io`.
    pub async fn remove(&self, name: &str, cancel: CancellationToken) -> Result<()> {
        let folder = self.place(name)?;
        let _lock = self.lock(name, &Silent, &cancel).await?;
        if folder.symlink_metadata().is_err() {
            return Err(Error::ImageMissing { name: name.to_owned(), known: self.names()? });
        }
        let (aside, this, name) = (self.staged(name, "old"), self.clone(), name.to_owned());
        blocking(move || {
            // In two steps: half an image must not look like one.
            this.sweep(&name, None)?;
            fs::create_dir_all(this.folder.join(STAGING)).at("create", &this.folder)?;
            pcoder_engines::rename_folder(&folder, &aside).at("move away", &folder)?;
            flush_folder(&this.folder)?;
            remove_tree(&aside)
        })
        .await
    }

    fn take_from(
        &self,
        from: &Path,
        guest: &Guest,
        staging: &Path,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<()> {
        fs::create_dir_all(staging).at("create", staging)?;
        let room = guest.parts().into_iter().filter_map(|part| from.join(&part.file).metadata().ok());
        expect_room(staging, room.map(|data| taken(&data)).sum())?;
        for part in guest.parts() {
            let Part { file, size, sha256 } = part;
            copy_checked(&from.join(file), &staging.join(file), (*size, sha256), progress, cancel)?;
        }
        // Of what was copied: what it was copied of may have changed.
        cloud::check_disk(staging, guest).map_err(|detail| Error::NotAnImage { path: from.to_path_buf(), detail })?;
        let text = match guest.setup {
            // It was described here.
            Some(_) if !from.join(guest::NAME).exists() => guest.text(),
            _ => fs::read(from.join(guest::NAME)).at("read", from)?,
        };
        // It may have been written again since it was read.
        if Guest::parse(&text).ok().as_ref() != Some(guest) {
            return Err(Error::NotAnImage { path: from.to_path_buf(), detail: "it changed meanwhile".to_owned() });
        }
        pcoder_state::write_atomic(&staging.join(guest::NAME), &text)?;
        flush_folder(staging)
    }

    /// Gives a whole image its name.
    pub(crate) fn publish(&self, name: &str, staging: &Path) -> Result<()> {
        publish(staging, &self.place(name)?, &self.staged(name, "old"))
    }

    /// The lock under which an image of that name is made or taken away.
    pub(crate) async fn lock(
        &self,
        name: &str,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<pcoder_state::Lock> {
        locked(&self.locks.join(format!("image-{name}.lock")), name, progress, cancel).await
    }

    /// Where an image of that name is, or would be.
    ///
    /// # Errors
    /// `Name`.
    pub(crate) fn place(&self, name: &str) -> Result<PathBuf> {
        if is_name(name) { Ok(self.folder.join(name)) } else { Err(Error::Name { name: name.to_owned() }) }
    }

    /// Where one is on its way.
    pub(crate) fn staged(&self, name: &str, what: &str) -> PathBuf {
        self.folder.join(STAGING).join(format!("{name}.{what}"))
    }

    /// Takes away what was left on the way by others that held the lock of this name, but for one.
    pub(crate) fn sweep(&self, name: &str, but: Option<&Path>) -> Result<()> {
        let Ok(entries) = fs::read_dir(self.folder.join(STAGING)) else { return Ok(()) };
        for path in entries.flatten().map(|entry| entry.path()) {
            // Names may have dots in them; what stands behind the last one has none.
            let of_name = path.file_name().and_then(|it| it.to_str()?.rsplit_once('.')).is_some_and(|it| it.0 == name);
            if of_name && but != Some(path.as_path()) {
                remove_tree(&path)?;
            }
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", &self.folder, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.at("list", &self.folder)?;
            names.extend(
                entry.file_name().to_str().filter(|it| is_name(it) && entry.path().is_dir()).map(str::to_owned),
            );
        }
        names.sort();
        Ok(names)
    }
}

/// Whether the files are there, as long as they should be.
fn check(folder: &Path, guest: &Guest) -> Result<(), String> {
    for part in guest.parts() {
        match folder.join(&part.file).symlink_metadata() {
            Ok(data) if data.is_file() && data.len() == part.size => {}
            Ok(data) if data.is_file() => {
                return Err(format!("`{}` has {} bytes, not {}", part.file, data.len(), part.size));
            }
            Ok(_) => return Err(format!("`{}` is no file", part.file)),
            Err(_) => return Err(format!("`{}` is missing", part.file)),
        }
    }
    Ok(())
}

pub(crate) fn is_name(name: &str) -> bool {
    let plain = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
    let more = |it: u8| plain(it) || matches!(it, b'.' | b'_' | b'-');
    (1..=64).contains(&name.len())
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(more)
        && guest::is_plain(name)
}
