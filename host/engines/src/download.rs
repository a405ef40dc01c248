//! One package: part file, network and pipeline, until the package is there or cannot be.
//!
//! A large package's compressed bytes are kept in a part file while it downloads, so that a killed or cancelled
//! installation goes on where it was, through the same pipeline. That costs written bytes (174 MB beside 377 MB), which
//! matters on a stick; fetching 174 MB again over a slow line matters more, and a part file that is deleted before the system
//! writes it out never reaches the disk. Small packages are fetched again.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{self, HeaderMap, HeaderValue};

use crate::error::{At, Error, Result};
use crate::http::{Failure, Http, Start, judge, judge_status, validator};
use crate::lock_file::Package;
use crate::meter::Meter;
use crate::pipeline::{Pipeline, Unpacked};

/// Packages from this size on have a part file.
pub(crate) const PART_FROM: u64 = 4 * 1024 * 1024;
/// So many new bytes make the next failure a first one.
const GOT_FURTHER: u64 = 1024 * 1024;
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
struct Download<'a> {
    job: &'a Job<'a>,
    pipeline: Option<Pipeline>,
    /// Bytes that went into the pipeline.
    have: u64,
    validator: Option<HeaderValue>,
}

impl Job<'_> {
    /// From a registry.
    pub(crate) async fn download(&self, http: &Http) -> Result<Unpacked> {
        let mut download = Download { job: self, pipeline: None, have: 0, validator: None };
        let fetched = download.fetch(http).await;
        let outcome = match (download.pipeline.take(), fetched) {
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
        let mut download = Download { job: self, pipeline: None, have: 0, validator: None };
        let pipeline = Pipeline::start(self.package, &self.root, None);
        let fed = download.feed(&pipeline, file, path, cancel).await;
        match fed {
            Ok(()) => pipeline.finish(self.package).await,
            Err(error) => {
                pipeline.abandon().await;
                Err(error)
            }
        }
    }
}

impl Download<'_> {
    async fn fetch(&mut self, http: &Http) -> Result<()> {
        self.resume(http).await?;
        let patience = &http.patience;
        let schedule = || {
            ExponentialBuilder::default()
                .with_min_delay(patience.first_pause)
                .with_max_delay(patience.longest_pause)
                .with_max_times(patience.retries)
                .with_jitter()
                .build()
        };
        let mut pauses = schedule();
        let mut mark = self.have;
        while self.have < self.job.package.size {
            let failure = match self.request(http).await {
                Ok(()) => break,
                Err(failure) => failure,
            };
            let (detail, status, after) = match failure {
                Failure::Fatal(error) => return Err(error),
                Failure::Again { detail, status, after } => (detail, status, after),
            };
            if self.have >= mark.saturating_add(GOT_FURTHER) {
                pauses = schedule();
                mark = self.have;
            }
            let Some(pause) = pauses.next() else {
                return Err(self.gave_up(detail, status));
            };
            let pause = after.unwrap_or_default().max(pause);
            tracing::debug!(package = self.job.package.id(), %detail, have = self.have, ?pause, "trying again");
            self.job.meter.message(&format!("{}: {detail}; trying again", self.job.package.id()));
            self.pause(http, pause).await?;
        }
        Ok(())
    }

    async fn pause(&self, http: &Http, pause: Duration) -> Result<()> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = http.cancel.cancelled() => Err(self.cancelled()),
        }
    }

    fn cancelled(&self) -> Error {
        Error::Cancelled { subject: self.job.package.id() }
    }

    fn gave_up(&self, detail: String, status: Option<u16>) -> Error {
        let package = self.job.package.id();
        match status {
            Some(_) => Error::Registry { package, detail, status },
            None => Error::Offline { package, detail, tarball: self.job.package.tarball() },
        }
    }

    /// Goes on from the part file, if there is one that can be right.
    async fn resume(&mut self, http: &Http) -> Result<()> {
        let size = self.job.package.size;
        let Some(path) = &self.job.part else {
            self.pipeline = Some(Pipeline::start(self.job.package, &self.job.root, None));
            return Ok(());
        };
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(path).at("open", path)?;
        let length = file.metadata().at("read", path)?.len();
        if length > size {
            file.set_len(0).at("truncate", path)?;
        }
        let reader = File::open(path).at("open", path)?;
        let pipeline = Pipeline::start(self.job.package, &self.job.root, Some((path.clone(), file)));
        let fed =
            if length > 0 && length <= size { self.feed(&pipeline, reader, path, &http.cancel).await } else { Ok(()) };
        self.pipeline = Some(pipeline);
        fed
    }

    /// Puts a file's bytes into the pipeline.
    async fn feed(
        &mut self,
        pipeline: &Pipeline,
        file: File,
        path: &Path,
        cancel: &tokio_util::sync::CancellationToken,
    ) -> Result<()> {
        let mut file = tokio::fs::File::from_std(file);
        loop {
            if cancel.is_cancelled() {
                return Err(self.cancelled());
            }
            let mut buffer = bytes::BytesMut::with_capacity(READ);
            let read = tokio::io::AsyncReadExt::read_buf(&mut file, &mut buffer).await.at("read", path)?;
            // A pipeline that failed says why when it is finished.
            if read == 0 || !pipeline.replay(buffer.freeze()).await {
                return Ok(());
            }
            self.have += read as u64;
            self.job.meter.add(read as u64);
        }
    }

    /// Throws away what was unpacked, and begins anew.
    async fn restart(&mut self) -> Result<()> {
        if let Some(pipeline) = self.pipeline.take() {
            for file in pipeline.abandon().await {
                fs::remove_file(&file).at("remove", &file)?;
            }
        }
        self.job.meter.take_back(self.have);
        self.have = 0;
        self.validator = None;
        let part = match &self.job.part {
            Some(path) => Some((path.clone(), File::create(path).at("create", path)?)),
            None => None,
        };
        self.pipeline = Some(Pipeline::start(self.job.package, &self.job.root, part));
        Ok(())
    }

    /// One request, and its bytes into the pipeline.
    async fn request(&mut self, http: &Http) -> Result<(), Failure> {
        let package = self.job.package;
        let from = Start { offset: self.have, validator: self.validator.as_ref() };
        let mut response = http.tarball(package, from).await?;
        let status = response.status();
        let length = content_length(response.headers());
        match status {
            StatusCode::OK => {
                if self.have > 0 {
                    // The whole file, asked for or not: a changed validator, or a proxy that knows no ranges.
                    self.restart().await?;
                }
                self.expect_size(length)?;
            }
            StatusCode::PARTIAL_CONTENT
                if content_range(response.headers()) == Some((self.have, Some(package.size))) => {}
            StatusCode::PARTIAL_CONTENT if content_range(response.headers()) == Some((self.have, None)) => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                self.restart().await?;
                let detail = format!("it gives another part than the one asked for ({status})");
                return Err(Failure::Again { detail, status: Some(status.as_u16()), after: None });
            }
            status => return Err(judge_status(&package.id(), status, response.headers())),
        }
        self.validator = validator(response.headers()).or(self.validator.take());
        loop {
            let chunk = tokio::select! {
                chunk = tokio::time::timeout(http.patience.stall, response.chunk()) => chunk,
                () = http.cancel.cancelled() => return Err(self.cancelled().into()),
            };
            match chunk {
                Ok(Ok(Some(bytes))) => {
                    if !self.take(bytes).await? {
                        return Ok(());
                    }
                }
                Ok(Ok(None)) if self.have < package.size => {
                    let detail = format!("the connection ended after {} of {} bytes", self.have, package.size);
                    return Err(Failure::Again { detail, status: None, after: None });
                }
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(judge(&package.id(), error)),
                Err(_) => {
                    let detail = format!("nothing came for {} s", http.patience.stall.as_secs_f32());
                    return Err(Failure::Again { detail, status: None, after: None });
                }
            }
        }
    }

    /// False when the pipeline wants no more.
    async fn take(&mut self, bytes: Bytes) -> Result<bool, Failure> {
        let length = bytes.len() as u64;
        if self.have + length > self.job.package.size {
            return Err(self.wrong_size("more").into());
        }
        self.job.meter.add(length);
        self.have += length;
        match &self.pipeline {
            Some(pipeline) => Ok(pipeline.push(bytes).await),
            None => Ok(false),
        }
    }

    fn expect_size(&self, length: Option<u64>) -> Result<(), Error> {
        match length {
            Some(length) if length != self.job.package.size => Err(self.wrong_size(&length.to_string())),
            _ => Ok(()),
        }
    }

    fn wrong_size(&self, length: &str) -> Error {
        Error::Integrity {
            package: self.job.package.id(),
            detail: format!("the registry sends {length} bytes, the lock says {}", self.job.package.size),
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// First byte and whole length of a `Content-Range`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((first.trim().parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        let read = |text: &'static str| {
            content_range(&[(header::CONTENT_RANGE, HeaderValue::from_static(text))].into_iter().collect())
        };
        assert_eq!(read("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(read("bytes 5-9/*"), Some((5, None)));
        for bad in ["bytes */10", "5-9/10", "bytes 5-9", "bytes x-9/10", ""] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
