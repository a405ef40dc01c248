//! Reads a tarball as the installer would, and keeps only what is in it.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, sync_channel};

use bytes::Bytes;
use sha2::{Digest as _, Sha512};

use crate::error::{Error, Result};
use crate::extract::{BUFFER, ExtractError, Limits, Sink, Stop, extract};
use crate::http::{Failure, Http, Start, judge_status};
use crate::ledger::FileRecord;
use crate::lock_file::Package;
use crate::safe_path::SafePath;
use crate::sri::Sri;

/// What nothing honest exceeds.
const LIMITS: Limits = Limits { bytes: 4 << 30, files: 100_000 };
/// Descriptions are small.
const TEXT: u64 = 64 * 1024;

/// What is in a tarball.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Bytes of the tarball.
    pub(super) size: u64,
    /// Each file, as the installer would record it.
    pub(super) files: BTreeMap<SafePath, FileRecord>,
    /// Contents of the descriptions.
    pub(super) texts: BTreeMap<SafePath, Vec<u8>>,
    pub(super) current: Option<(SafePath, blake3::Hasher)>,
    pub(super) spare: Vec<u8>,
}

impl Sink for Survey {
    fn file(&mut self, path: SafePath, size: u64, executable: bool) -> Result<(), Stop> {
        if size <= TEXT && path.as_str().ends_with("package.json") {
            self.texts.insert(path.clone(), Vec::new());
        }
        let record = FileRecord { path: path.clone(), size, blake3: String::new(), executable };
        self.files.insert(path.clone(), record);
        self.current = Some((path, blake3::Hasher::new()));
        Ok(())
    }
    fn buffer(&mut self) -> Result<Vec<u8>, Stop> {
        Ok(std::mem::take(&mut self.spare)).map(|buffer| if buffer.is_empty() { vec![0; BUFFER] } else { buffer })
    }
    fn data(&mut self, buffer: Vec<u8>, len: usize) -> Result<(), Stop> {
        if let (Some((path, hasher)), Some(bytes)) = (&mut self.current, buffer.get(..len)) {
            hasher.update(bytes);
            if let Some(text) = self.texts.get_mut(path) {
                text.extend(bytes);
            }
        }
        self.spare = buffer;
        Ok(())
    }
    fn end(&mut self) -> Result<(), Stop> {
        if let Some((path, hasher)) = self.current.take()
            && let Some(record) = self.files.get_mut(&path)
        {
            record.blake3 = hasher.finalize().to_hex().to_string();
        }
        Ok(())
    }
}

/// Downloads, hashes and reads one tarball, without keeping it. Tried again from the start when the line breaks.
pub(super) async fn survey(http: &Http, package: &Package) -> Result<Survey> {
    let mut last = Error::internal("nothing was tried");
    for _ in 0..4 {
        match once(http, package).await {
            Ok(survey) => return Ok(survey),
            Err(Failure::Fatal(error)) => return Err(error),
            Err(Failure::Again { detail, status, .. }) => {
                last = Error::Registry { package: package.id(), detail, status };
            }
        }
    }
    Err(last)
}

async fn once(http: &Http, package: &Package) -> Result<Survey, Failure> {
    let mut response = http.tarball(package, Start { offset: 0, validator: None }).await?;
    let status = response.status();
    if !status.is_success() {
        return Err(judge_status(&package.id(), status, response.headers()));
    }
    let (to, from) = sync_channel::<Bytes>(16);
    let reader = tokio::task::spawn_blocking(move || {
        let mut survey = Survey::default();
        extract(Chunks { from, now: Bytes::new() }, LIMITS, &mut survey).map(|()| survey)
    });
    let mut hash = Sha512::new();
    let mut size = 0;
    let mut to = Some(to);
    loop {
        let chunk = tokio::time::timeout(http.patience.stall, response.chunk()).await;
        let again = |detail: String| Failure::Again { detail, status: None, after: None };
        let chunk = chunk.map_err(|_| again("it stalled".to_owned()))?;
        let Some(bytes) = chunk.map_err(|error| again(error.without_url().to_string()))? else {
            break;
        };
        size += bytes.len() as u64;
        hash.update(&bytes);
        // A reader that ended has said why, or has seen the end of the archive.
        if let Some(sender) = to.take() {
            to =
                tokio::task::spawn_blocking(move || sender.send(bytes).is_ok().then_some(sender)).await.unwrap_or(None);
        }
    }
    drop(to);
    let found = Sri::from_digest(hash.finalize().into());
    if found != package.integrity {
        let detail = format!("the registry says {}, its bytes are {found}", package.integrity);
        return Err(Error::Integrity { package: package.id(), detail }.into());
    }
    let survey = reader.await.map_err(|_| Error::internal("the thread that reads an archive ended"))?;
    match survey {
        Ok(survey) => Ok(Survey { size, ..survey }),
        Err(ExtractError::Refused(detail)) => Err(Error::Archive { package: package.id(), detail }.into()),
        Err(ExtractError::Stopped) => Err(Error::internal("the survey stopped").into()),
    }
}

struct Chunks {
    from: Receiver<Bytes>,
    now: Bytes,
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.now.is_empty() {
            self.now = self.from.recv().unwrap_or_default();
        }
        Ok(&self.now)
    }
    fn consume(&mut self, amount: usize) {
        self.now = self.now.split_off(amount.min(self.now.len()));
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
