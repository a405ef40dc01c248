//! One package: part file, network and pipeline, until the package is there or cannot be.
//!
//! A large package's compressed bytes are kept in a part file while it downloads, so that a killed or cancelled
//! installation goes on where it was, through the same pipeline. That costs written bytes (174 MB beside 377 MB), which
//! matters on a stick; fetching 174 MB again over a slow line matters more, and a part file that is deleted before the system
//! writes it out never reaches the disk. Small packages are fetched again.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use reqwest::Response;

use crate::error::{At, Error, Result};
use crate::http::{Failure, Http, Start};
use crate::lock_file::Package;
use crate::meter::Meter;
use crate::pipeline::{Pipeline, Unpacked};
use crate::resume::{Receiver, Transfer};

/// Packages from this size on have a part file.
pub(crate) const PART_FROM: u64 = 4 * 1024 * 1024;
const READ: usize = 256 * 1024;

/// One package to fetch and unpack.
pub(crate) struct Job<'a> {
    pub(crate) package: &'a Package,
    /// The folder that it is unpacked into.
    pub(crate) root: PathBuf,
    /// Where its part file may be.
    pub(crate) part: Option<PathBuf>,
    pub(crate) meter: &'a Meter,
}

/// A job under way.
struct Unpacking<'a> {
    job: &'a Job<'a>,
    pipeline: Option<Pipeline>,
}

impl Job<'_> {
    /// From a registry.
    pub(crate) async fn download(&self, http: &Http) -> Result<Unpacked> {
        let mut unpacking = Unpacking { job: self, pipeline: None };
        let fetched = unpacking.fetch(http).await;
        let outcome = match (unpacking.pipeline.take(), fetched) {
            (Some(pipeline), Ok(())) => pipeline.finish(self.package).await,
            (Some(pipeline), Err(error)) => {
                pipeline.abandon().await;
                Err(error)
            }
            (None, fetched) => fetched.and(Err(Error::internal("nothing was downloaded"))),
        };
        // Kept for the next time only if it may still become the right file.
        let keep = matches!(
            outcome,
            Err(Error::Cancelled { .. } | Error::Offline { .. } | Error::Registry { .. } | Error::Certificate { .. })
        );
        if !keep && let Some(part) = &self.part {
            let _ = fs::remove_file(part);
        }
        outcome
    }

    /// From a file that someone brought.
    pub(crate) async fn sideload(&self, path: &Path, cancel: &tokio_util::sync::CancellationToken) -> Result<Unpacked> {
        let length = fs::metadata(path).at("read", path)?.len();
        if length != self.package.size {
            return Err(Error::Integrity {
                package: self.package.id(),
                detail: format!("`{}` has {length} bytes, not {}", path.display(), self.package.size),
            });
        }
        let file = File::open(path).at("open", path)?;
        let pipeline = Pipeline::start(self.package, &self.root, None);
        match self.feed(&pipeline, file, path, cancel).await {
            Ok(_) => pipeline.finish(self.package).await,
            Err(error) => {
                pipeline.abandon().await;
                Err(error)
            }
        }
    }

    /// Puts a file's bytes into the pipeline, and says how many went in.
    async fn feed(
        &self,
        pipeline: &Pipeline,
        file: File,
        path: &Path,
        cancel: &tokio_util::sync::CancellationToken,
    ) -> Result<u64> {
        let mut file = tokio::fs::File::from_std(file);
        let mut fed = 0;
        loop {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled { subject: self.package.id() });
            }
            let mut buffer = bytes::BytesMut::with_capacity(READ);
            let read = tokio::io::AsyncReadExt::read_buf(&mut file, &mut buffer).await.at("read", path)?;
            // A pipeline that failed says why when it is finished.
            if read == 0 || !pipeline.replay(buffer.freeze()).await {
                return Ok(fed);
            }
            fed += read as u64;
            self.meter.add(read as u64);
        }
    }
}

impl Unpacking<'_> {
    async fn fetch(&mut self, http: &Http) -> Result<()> {
        let have = self.resume(http).await?;
        let mut transfer = Transfer::new(Unpacking { job: self.job, pipeline: self.pipeline.take() }, have);
        let fetched = transfer.run(http).await;
        self.pipeline = transfer.receiver.pipeline.take();
        fetched
    }

    /// Goes on from the part file, if there is one that can be right, and says how much of it there is.
    async fn resume(&mut self, http: &Http) -> Result<u64> {
        let size = self.job.package.size;
        let Some(path) = &self.job.part else {
            self.pipeline = Some(Pipeline::start(self.job.package, &self.job.root, None));
            return Ok(0);
        };
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(path).at("open", path)?;
        let length = file.metadata().at("read", path)?.len();
        if length > size {
            file.set_len(0).at("truncate", path)?;
        }
        let reader = File::open(path).at("open", path)?;
        let pipeline = Pipeline::start(self.job.package, &self.job.root, Some((path.clone(), file)));
        let fed = if length > 0 && length <= size {
            self.job.feed(&pipeline, reader, path, &http.cancel).await
        } else {
            Ok(0)
        };
        self.pipeline = Some(pipeline);
        fed
    }
}

impl Receiver for Unpacking<'_> {
    fn name(&self) -> String {
        self.job.package.id()
    }

    fn size(&self) -> u64 {
        self.job.package.size
    }

    async fn ask(&self, http: &Http, from: Start<'_>) -> Result<Response, Failure> {
        http.tarball(self.job.package, from).await
    }

    async fn take(&mut self, bytes: Bytes) -> Result<bool> {
        self.job.meter.add(bytes.len() as u64);
        match &self.pipeline {
            Some(pipeline) => Ok(pipeline.push(bytes).await),
            None => Ok(false),
        }
    }

    async fn restart(&mut self, have: u64) -> Result<()> {
        if let Some(pipeline) = self.pipeline.take() {
            for file in pipeline.abandon().await {
                fs::remove_file(&file).at("remove", &file)?;
            }
        }
        self.job.meter.take_back(have);
        let part = match &self.job.part {
            Some(path) => Some((path.clone(), File::create(path).at("create", path)?)),
            None => None,
        };
        self.pipeline = Some(Pipeline::start(self.job.package, &self.job.root, part));
        Ok(())
    }

    fn message(&self, message: &str) {
        self.job.meter.message(message);
    }

    fn gave_up(&self, detail: String, status: Option<u16>) -> Error {
        let package = self.job.package.id();
        match status {
            Some(_) => Error::Registry { package, detail, status },
            None => Error::Offline { package, detail, tarball: self.job.package.tarball() },
        }
    }

    fn wrong_size(&self, length: &str) -> Error {
        Error::Integrity {
            package: self.job.package.id(),
            detail: format!("the registry sends {length} bytes, the lock says {}", self.job.package.size),
        }
    }
}
