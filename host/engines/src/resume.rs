//! A file of a known length over a line that breaks: asked for again from where it broke, until it is whole or cannot be.
//!
//! What becomes of the bytes is the receiver's: a package goes into a pipeline that unpacks it, any other file to the disk.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode};

use crate::error::{Error, Result};
use crate::http::{Failure, Http, Start, judge, judge_status, validator};

/// So many new bytes make the next failure a first one.
const GOT_FURTHER: u64 = 1024 * 1024;

/// Where the bytes come from and go to, and what is said when they do not.
pub(crate) trait Receiver {
    /// What is fetched, in messages.
    fn name(&self) -> String;
    /// Its whole length in bytes.
    fn size(&self) -> u64;
    /// Asks for it, or for its end.
    async fn ask(&self, http: &Http, from: Start<'_>) -> Result<Response, Failure>;
    /// The next bytes. False when it wants no more; why not is said elsewhere.
    async fn take(&mut self, bytes: Bytes) -> Result<bool>;
    /// Throws away the `have` bytes that it took, and begins anew.
    async fn restart(&mut self, have: u64) -> Result<()>;
    /// Something worth a line.
    fn message(&self, message: &str);
    /// The error when it is not tried again.
    fn gave_up(&self, detail: String, status: Option<u16>) -> Error;
    /// The error when the other side has another length.
    fn wrong_size(&self, length: &str) -> Error;
}

/// A transfer under way.
pub(crate) struct Transfer<R> {
    pub(crate) receiver: R,
    /// Bytes that the receiver has.
    pub(crate) have: u64,
    validator: Option<HeaderValue>,
}

impl<R: Receiver> Transfer<R> {
    pub(crate) fn new(receiver: R, have: u64) -> Self {
        Self { receiver, have, validator: None }
    }

    /// Until the receiver has all of it or wants no more.
    pub(crate) async fn run(&mut self, http: &Http) -> Result<()> {
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
        while self.have < self.receiver.size() {
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
                return Err(self.receiver.gave_up(detail, status));
            };
            let pause = after.unwrap_or_default().max(pause);
            let name = self.receiver.name();
            tracing::debug!(name, %detail, have = self.have, ?pause, "trying again");
            self.receiver.message(&format!("{name}: {detail}; trying again"));
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
        Error::Cancelled { subject: self.receiver.name() }
    }

    async fn restart(&mut self) -> Result<()> {
        let have = std::mem::take(&mut self.have);
        self.validator = None;
        self.receiver.restart(have).await
    }

    /// One request, and its bytes to the receiver.
    async fn request(&mut self, http: &Http) -> Result<(), Failure> {
        let size = self.receiver.size();
        let from = Start { offset: self.have, validator: self.validator.as_ref() };
        let mut response = self.receiver.ask(http, from).await?;
        let status = response.status();
        match status {
            StatusCode::OK => {
                if self.have > 0 {
                    // The whole file, asked for or not: a changed validator, or a proxy that knows no ranges.
                    self.restart().await?;
                }
                if let Some(length) = content_length(response.headers()).filter(|length| *length != size) {
                    return Err(self.receiver.wrong_size(&length.to_string()).into());
                }
            }
            StatusCode::PARTIAL_CONTENT if content_range(response.headers()) == Some((self.have, Some(size))) => {}
            StatusCode::PARTIAL_CONTENT if content_range(response.headers()) == Some((self.have, None)) => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                self.restart().await?;
                let detail = format!("it gives another part than the one asked for ({status})");
                return Err(Failure::Again { detail, status: Some(status.as_u16()), after: None });
            }
            status => return Err(judge_status(&self.receiver.name(), status, response.headers())),
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
                Ok(Ok(None)) if self.have < size => {
                    let detail = format!("the connection ended after {} of {size} bytes", self.have);
                    return Err(Failure::Again { detail, status: None, after: None });
                }
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(judge(&self.receiver.name(), error)),
                Err(_) => {
                    let detail = format!("nothing came for {} s", http.patience.stall.as_secs_f32());
                    return Err(Failure::Again { detail, status: None, after: None });
                }
            }
        }
    }

    async fn take(&mut self, bytes: Bytes) -> Result<bool> {
        let length = bytes.len() as u64;
        if self.have + length > self.receiver.size() {
            return Err(self.receiver.wrong_size("more"));
        }
        self.have += length;
        self.receiver.take(bytes).await
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
