//! One file that a manifest names, into a folder: fetched or copied, unpacked, compared.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use pcoder_engines::{NetworkConfig, Patience, Phase, Progress, RemoteFile, SparseWriter, download};
use ruzstd::decoding::StreamingDecoder;
use tokio_util::sync::CancellationToken;

use crate::copy::copy_checked;
use crate::error::{At as _, Error, Result};
use crate::files::{Meter, PIECE, blocking, remove_file};
use crate::manifest::{Compression, ImageFile, Origin, Source};

/// How files come here.
#[derive(Clone)]
pub(crate) struct Supply {
    pub(crate) origin: Origin,
    /// None where the network is not to be used.
    pub(crate) network: Option<Arc<NetworkConfig>>,
    pub(crate) patience: Patience,
    pub(crate) agent: String,
    pub(crate) cancel: CancellationToken,
}

/// What a file must be.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) file: &'a str,
    pub(crate) url: &'a str,
    pub(crate) size: u64,
    pub(crate) sha256: &'a str,
}

impl Supply {
    /// The bytes of one file as they are at their place, in a new file `to`, compared and flushed. What is left of a
    /// broken line stays beside it, for the next time.
    pub(crate) async fn raw(&self, wanted: Wanted<'_>, to: &Path, progress: &Arc<dyn Progress>) -> Result<()> {
        let Wanted { file, url, size, sha256 } = wanted;
        match (self.origin.resolve(url)?, &self.network) {
            (Source::File(from), _) => {
                let (to, sha256, file) = (to.to_path_buf(), sha256.to_owned(), file.to_owned());
                let (progress, cancel) = (Arc::clone(progress), self.cancel.clone());
                blocking(move || {
                    copy_checked(&from, &to, (size, &sha256), &*progress, &cancel).map_err(|error| named(error, &file))
                })
                .await
            }
            (Source::Url(url), Some(network)) => {
                let part = part_of(to, sha256);
                let remote = RemoteFile { url: url.as_str(), size, sha256, part: &part };
                let (patience, cancel) = (self.patience.clone(), self.cancel.clone());
                download(Arc::clone(network), &remote, patience, &self.agent, &**progress, cancel)
                    .await
                    .map_err(|error| Error::download(file, error))?;
                fs::rename(&part, to).at("rename", &part)
            }
            (Source::Url(url), None) => Err(Error::Offline { url: crate::manifest::shown(&url) }),
        }
    }

    /// One file of an image, into `folder`. One that is there already was compared when it got its name.
    pub(crate) async fn image_file(&self, file: &ImageFile, folder: &Path, progress: &Arc<dyn Progress>) -> Result<()> {
        let to = folder.join(&file.file);
        if to.metadata().is_ok_and(|data| data.len() == file.size) {
            return Ok(());
        }
        let (size, sha256) = file.wire();
        let wanted = Wanted { file: &file.file, url: &file.url, size, sha256 };
        let Some(compression) = file.compression else {
            // Not under its own name before it is whole.
            let new = folder.join(format!("{}.new", file.file));
            self.raw(wanted, &new, progress).await?;
            return fs::rename(&new, &to).at("rename", &new);
        };
        let packed = folder.join(format!("{}.packed", file.file));
        if packed.metadata().map_or(0, |data| data.len()) != size {
            self.raw(wanted, &packed, progress).await?;
        }
        let (file, progress, cancel) = (file.clone(), Arc::clone(progress), self.cancel.clone());
        blocking(move || {
            unpack(&packed, compression, &file, &to, &*progress, &cancel).inspect_err(|error| {
                // What was compared and does not unpack to the right file never will.
                if matches!(error, Error::Wrong { .. }) {
                    drop(remove_file(&packed));
                }
            })?;
            remove_file(&packed)
        })
        .await
    }
}

/// The part file is named after what it is to become: a manifest may have changed since.
fn part_of(to: &Path, sha256: &str) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(format!(".{}.part", sha256.get(..12).unwrap_or(sha256)));
    PathBuf::from(name)
}

/// The manifest's name of a file, not that of the place where it was.
fn named(error: Error, file: &str) -> Error {
    match error {
        Error::Wrong { detail, .. } => Error::Wrong { file: file.to_owned(), detail },
        error => error,
    }
}

fn unpack(
    packed: &Path,
    compression: Compression,
    file: &ImageFile,
    to: &Path,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<()> {
    let new = to.with_file_name(format!("{}.new", file.file));
    progress.phase(Phase::Unpacking);
    let input = BufReader::new(File::open(packed).at("open", packed)?);
    let wrong = |detail: String| Error::Wrong { file: file.file.clone(), detail };
    let unpacked = match compression {
        Compression::Gzip => write_out(MultiGzDecoder::new(input), file, &new, progress, cancel),
        Compression::Zstd => match StreamingDecoder::new(input) {
            Ok(decoder) => write_out(decoder, file, &new, progress, cancel),
            Err(error) => Err(wrong(format!("it does not unpack: {error}"))),
        },
    };
    let outcome = match unpacked {
        Ok(digest) if digest == file.sha256 => return fs::rename(&new, to).at("rename", &new),
        Ok(digest) => wrong(format!("its sha256 is {digest}, not {}", file.sha256)),
        Err(error) => error,
    };
    let _ = fs::remove_file(&new);
    Err(outcome)
}

fn write_out(
    mut from: impl Read,
    file: &ImageFile,
    to: &Path,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<String> {
    let wrong = |detail: String| Error::Wrong { file: file.file.clone(), detail };
    let mut meter = Meter::new(&file.file, file.size, progress, cancel);
    let mut writer = SparseWriter::new(File::create(to).at("create", to)?, 0);
    let mut buffer = vec![0; PIECE];
    loop {
        let count = from.read(&mut buffer).map_err(|error| wrong(format!("it does not unpack: {error}")))?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if count == 0 {
            break;
        }
        // A small file can unpack to any length.
        if meter.done() + count as u64 > file.size {
            return Err(wrong(format!("it unpacks to more than {} bytes", file.size)));
        }
        meter.bytes(bytes)?;
        writer.write(bytes).at("write", to)?;
    }
    if meter.done() != file.size {
        return Err(wrong(format!("it unpacks to {} bytes, not {}", meter.done(), file.size)));
    }
    writer.finish().at("flush", to)?;
    Ok(meter.digest())
}
