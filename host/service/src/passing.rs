//! Outputs that one process hands another over a socket, so that what is written to them takes no way through it.

use std::fs::File;
use std::io;

use crate::socket::Stream;

/// Where a command's output goes. What is missing was not handed over: it takes the way that it would take otherwise.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Standard output.
    pub stdout: Option<File>,
    /// Standard error.
    pub stderr: Option<File>,
}

#[cfg(unix)]
impl Outputs {
    /// Which of them there are, as it is said on the socket.
    fn which(&self) -> u8 {
        b'0' + u8::from(self.stdout.is_some()) + 2 * u8::from(self.stderr.is_some())
    }
}

/// What the one says who takes outputs, before any are sent.
#[cfg(unix)]
const HERE: u8 = b'+';

/// Hands these over, as the first thing that is said on a connection: one byte, also where there are none. It waits until
/// the other side says that it is there, however long: what were sent to somebody who never takes it would stay open.
/// Whoever gets them must be known to be this user's own, as from a folder that is nobody else's.
///
/// # Errors
/// The system's, and `InvalidData` for whoever begins with something else; then the connection is of no use any more.
#[cfg(unix)]
pub async fn give(stream: &Stream, outputs: &Outputs) -> io::Result<()> {
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd as _;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use tokio::io::Interest;

    let Stream::UdSocket(stream) = stream;
    let stream = stream.inner();
    let mut said = [0];
    match stream.async_io(Interest::READABLE, || Ok(rustix::io::read(stream, &mut said)?)).await? {
        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
        _ if said != [HERE] => return Err(io::ErrorKind::InvalidData.into()),
        _ => {}
    }
    let files: Vec<_> = [&outputs.stdout, &outputs.stderr].into_iter().flatten().map(|it| it.as_fd()).collect();
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(sendmsg(stream, &[IoSlice::new(&[outputs.which()])], &mut control, SendFlags::empty())?)
    };
    stream.async_io(Interest::WRITABLE, send).await.map(drop)
}

/// Takes what [`give`] hands over.
///
/// # Errors
/// The system's, and `InvalidData` for whoever begins with something else.
#[cfg(unix)]
pub async fn take(stream: &Stream) -> io::Result<Outputs> {
    use std::io::IoSliceMut;
    use std::mem::MaybeUninit;

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use tokio::io::Interest;

    let Stream::UdSocket(stream) = stream;
    let stream = stream.inner();
    stream.async_io(Interest::WRITABLE, || Ok(rustix::io::write(stream, &[HERE])?)).await?;
    let receive = || {
        let mut said = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        // A program that is started meanwhile is not to have them.
        #[cfg(target_os = "linux")]
        let flags = RecvFlags::CMSG_CLOEXEC;
        #[cfg(not(target_os = "linux"))]
        let flags = RecvFlags::empty();
        let message = recvmsg(stream, &mut [IoSliceMut::new(&mut said)], &mut control, flags)?;
        if message.bytes == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let files = control.drain().filter_map(|it| match it {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        let mut files = files.flatten().map(File::from);
        let mut next = |is_there: bool| if is_there { files.next() } else { None };
        let which = said[0].wrapping_sub(b'0');
        let outputs = Outputs { stdout: next(which & 1 != 0), stderr: next(which & 2 != 0) };
        match which {
            0..=3 if outputs.which() == said[0] => Ok(outputs),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    };
    stream.async_io(Interest::READABLE, receive).await
}

/// On Windows a handle cannot be handed over by a message: there are none, and nothing is said.
///
/// # Errors
/// None.
#[cfg(windows)]
pub async fn give(_: &Stream, _: &Outputs) -> io::Result<()> {
    Ok(())
}

/// What [`give`] hands over: nothing.
///
/// # Errors
/// None.
#[cfg(windows)]
pub async fn take(_: &Stream) -> io::Result<Outputs> {
    Ok(Outputs::default())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;
    use crate::socket::{Listener, connect, named};

    /// A connection, as its giver and its taker have it.
    async fn ends() -> (Stream, Stream) {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = named(&folder.path().join("s"), b"x").expect("a name");
        let listener = Listener::new(&socket).expect("it listens");
        let giver = connect(&socket).await.expect("it listens");
        (giver, listener.accept().await.expect("somebody is there"))
    }

    async fn handed_over(outputs: Outputs) -> io::Result<Outputs> {
        let (giver, taker) = ends().await;
        let given = async {
            give(&giver, &outputs).await.expect("they are handed over");
            drop(outputs);
        };
        tokio::join!(take(&taker), given).0
    }

    #[tokio::test]
    async fn what_is_handed_over_is_the_same_pipe() {
        for (has_stdout, has_stderr) in [(true, true), (true, false), (false, true), (false, false)] {
            let (mut reader, writer) = io::pipe().expect("a pipe");
            let file = |is_there: bool| {
                is_there.then(|| File::from(std::os::fd::OwnedFd::from(writer.try_clone().expect("a pipe"))))
            };
            let given = Outputs { stdout: file(has_stdout), stderr: file(has_stderr) };
            let mut taken = handed_over(given).await.expect("they came");
            drop(writer);
            assert_eq!((taken.stdout.is_some(), taken.stderr.is_some()), (has_stdout, has_stderr));
            for (name, file) in [("out", &mut taken.stdout), ("err", &mut taken.stderr)] {
                if let Some(file) = file {
                    file.write_all(name.as_bytes()).expect("somebody reads");
                }
            }
            drop(taken);
            let mut said = String::new();
            // To its end: nobody has it open any more.
            reader.read_to_string(&mut said).expect("text");
            let expected = [(has_stdout, "out"), (has_stderr, "err")].map(|(is, name)| if is { name } else { "" });
            assert_eq!(said, expected.concat());
        }
    }

    #[tokio::test]
    async fn who_begins_with_something_else_hands_over_nothing() {
        use tokio::io::AsyncWriteExt as _;
        // The last one says that there are two files, and sends none.
        for said in ["SSH-2.0-x\r\n", "4", "/", "", "3"] {
            let (mut giver, taker) = ends().await;
            giver.write_all(said.as_bytes()).await.expect("it is written");
            // Who says nothing is gone again.
            let expected = match said {
                "" => {
                    drop(giver);
                    io::ErrorKind::BrokenPipe
                }
                _ => io::ErrorKind::InvalidData,
            };
            assert_eq!(take(&taker).await.expect_err("it is nothing of the kind").kind(), expected, "{said}");
        }
    }

    #[tokio::test]
    async fn nothing_is_handed_to_who_is_not_there_to_take_it() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        for (said, expected) in [("", io::ErrorKind::UnexpectedEof), ("S", io::ErrorKind::InvalidData)] {
            let (giver, mut taker) = ends().await;
            taker.write_all(said.as_bytes()).await.expect("it is written");
            // It stays, but for the one that says nothing.
            let mut taker = Some(taker).filter(|_| !said.is_empty());
            assert_eq!(give(&giver, &Outputs::default()).await.expect_err("nobody takes it").kind(), expected);
            drop(giver);
            if let Some(taker) = &mut taker {
                assert_eq!(taker.read(&mut [0]).await.expect("its end"), 0, "something was sent");
            }
        }
    }
}
