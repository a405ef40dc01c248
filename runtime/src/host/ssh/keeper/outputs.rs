//! A call's outputs, as the keeper writes to them.

use pcoder_service::passing;
use russh::ChannelMsg;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

/// Those that were handed over.
#[derive(Default)]
pub(super) struct Outputs {
    stdout: Option<Output>,
    stderr: Option<Output>,
}

impl From<passing::Outputs> for Outputs {
    fn from(given: passing::Outputs) -> Self {
        let output = |file| Output { file: Some(File::from_std(file)), waits: false };
        Self { stdout: given.stdout.map(output), stderr: given.stderr.map(output) }
    }
}

impl Outputs {
    /// Writes what the machine says, in the order in which it does: both may be one file. What is for the call itself
    /// is given back, once all that came before is written.
    ///
    /// # Errors
    /// The system's: that of what is written now, or was before.
    pub(super) async fn write(&mut self, message: ChannelMsg) -> std::io::Result<Option<ChannelMsg>> {
        let (output, other, data) = match (&message, &mut self.stdout, &mut self.stderr) {
            (ChannelMsg::Data { data }, Some(stdout), stderr) => (stdout, stderr, data),
            (ChannelMsg::ExtendedData { data, ext: 1 }, stdout, Some(stderr)) => (stderr, stdout, data),
            _ => {
                self.flush().await?;
                return Ok(Some(message));
            }
        };
        if let Some(other) = other {
            other.flush().await?;
        }
        output.write(data).await?;
        Ok(None)
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// The system's.
    pub(super) async fn flush(&mut self) -> std::io::Result<()> {
        for output in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            output.flush().await?;
        }
        Ok(())
    }

    /// Closes them.
    pub(super) async fn close(self) {
        for output in [self.stdout, self.stderr].into_iter().flatten() {
            output.close().await;
        }
    }

    /// Ends when what waits cannot be written: the machine may say nothing more by which that would be seen.
    pub(super) async fn fail(&mut self) -> std::io::Error {
        match self.flush().await {
            Err(error) => error,
            Ok(()) => std::future::pending().await,
        }
    }
}

/// One output. Who reads it, or keeps it, may take nothing for as long as they like: that waits in a thread of its own.
struct Output {
    /// There until it is closed, which may take as long as writing: a file system over a network writes then.
    file: Option<File>,
    /// Something may wait there.
    waits: bool,
}

impl Output {
    async fn write(&mut self, data: &[u8]) -> std::io::Result<()> {
        self.flush().await?;
        let Some(file) = &mut self.file else { return Ok(()) };
        let rest = data.get(at_once(file, data)..).unwrap_or_default();
        if !rest.is_empty() {
            self.waits = true;
            file.write_all(rest).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        // Whoever asks may be gone before it is done.
        if let (true, Some(file)) = (self.waits, &mut self.file) {
            file.flush().await?;
            self.waits = false;
        }
        Ok(())
    }

    async fn close(mut self) {
        if let Some(file) = self.file.take() {
            let _ = tokio::task::spawn_blocking(move || drop(file)).await;
        }
    }
}

/// One whose call has left is closed too, and for that nobody waits.
impl Drop for Output {
    fn drop(&mut self) {
        if let (Some(file), Ok(runtime)) = (self.file.take(), tokio::runtime::Handle::try_current()) {
            drop(runtime.spawn_blocking(move || drop(file)));
        }
    }
}

/// Writes what is taken without waiting, which saves two changes of threads for each packet: how much that was.
/// Whatever keeps it from that is said to who writes the rest.
#[cfg(target_os = "linux")]
fn at_once(file: &File, data: &[u8]) -> usize {
    use rustix::io::{ReadWriteFlags, pwritev2};
    /// Where the file is, for `pwritev2(2)`.
    const HERE: u64 = u64::MAX;
    pwritev2(file, &[std::io::IoSlice::new(data)], HERE, ReadWriteFlags::NOWAIT).unwrap_or_default()
}

/// Only Linux can be asked for that without changing the file for everybody who has it open.
#[cfg(not(target_os = "linux"))]
fn at_once(_: &File, _: &[u8]) -> usize {
    0
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;

    use super::*;

    fn data(text: &str) -> ChannelMsg {
        ChannelMsg::Data { data: text.as_bytes().to_vec().into() }
    }

    #[tokio::test]
    async fn a_file_is_written_to_where_it_is() {
        let mut file = tempfile::tempfile().expect("a file");
        let given = passing::Outputs { stdout: Some(file.try_clone().expect("a file")), stderr: None };
        std::io::Write::write_all(&mut file, b"before ").expect("written");
        let mut outputs = Outputs::from(given);
        for text in ["one ", "two "] {
            assert!(outputs.write(data(text)).await.expect("written").is_none());
        }
        // What it does not have is the call's; and then the rest is there.
        let error = ChannelMsg::ExtendedData { data: b"error"[..].into(), ext: 1 };
        assert!(outputs.write(error).await.expect("passed on").is_some());
        std::io::Write::write_all(&mut file, b"after").expect("written");
        let mut text = String::new();
        std::io::Seek::rewind(&mut file).expect("a file");
        file.read_to_string(&mut text).expect("text");
        assert_eq!(text, "before one two after");
    }

    #[tokio::test]
    async fn two_outputs_that_are_one_pipe_keep_their_order() {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let file = || File::from(std::os::fd::OwnedFd::from(writer.try_clone().expect("a pipe")));
        let mut outputs = Outputs::from(passing::Outputs { stdout: Some(file()), stderr: Some(file()) });
        drop(writer);
        let read = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        // Much more than the pipe holds.
        for number in 0..20_000 {
            let text = format!("{number}\n").into_bytes();
            let message = match number % 2 {
                0 => ChannelMsg::Data { data: text.into() },
                _ => ChannelMsg::ExtendedData { data: text.into(), ext: 1 },
            };
            assert!(outputs.write(message).await.expect("written").is_none());
        }
        outputs.flush().await.expect("written");
        drop(outputs);
        let expected: String = (0..20_000).map(|number| format!("{number}\n")).collect();
        assert_eq!(read.await.expect("a thread").expect("text"), expected);
    }

    #[tokio::test]
    async fn a_pipe_that_is_full_is_waited_for_and_nothing_of_it_is_lost() {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let given = passing::Outputs { stdout: Some(File::from(std::os::fd::OwnedFd::from(writer))), stderr: None };
        let mut outputs = Outputs::from(given);
        // No pipe holds as much, nor a whole number of these.
        let piece = "0123456789abc".repeat(1000);
        let read = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        for _ in 0..200 {
            assert!(outputs.write(data(&piece)).await.expect("written").is_none());
        }
        assert!(outputs.write(ChannelMsg::Close).await.expect("passed on").is_some());
        drop(outputs);
        assert_eq!(read.await.expect("a thread").expect("text"), piece.repeat(200));
    }
}
