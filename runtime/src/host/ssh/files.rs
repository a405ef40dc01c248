//! Files on another machine, over SFTP.

use russh::ChannelMsg;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::fs::File;
use russh_sftp::client::{Config, SftpSession};
use russh_sftp::protocol::{FileAttributes, OpenFlags, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::connect::Connection;
use super::failed;
use crate::bindings::host::pcoder::plugin::types::WriteOptions;
use crate::capability::limits::Budget;
use crate::error::{Error, code};

/// How long one answer may take.
const ANSWER_SECONDS: u64 = 60;
/// What is read at once.
const CHUNK: usize = 256 << 10;

/// Reads a whole file, within the budget.
pub(super) async fn read(connection: &Connection, path: &str, budget: &Budget) -> Result<Vec<u8>, Error> {
    const OPERATION: &str = "ssh.read-file";
    let session = session(connection, OPERATION).await?;
    let mut file = session.open(relative(path)).await.map_err(|error| refused(OPERATION, path, &error))?;
    let mut content = Vec::new();
    loop {
        content.reserve(CHUNK);
        let length = file.read_buf(&mut content).await.map_err(|error| broken(OPERATION, path, &error))?;
        if length == 0 {
            break;
        }
        budget.charge(OPERATION, length as u64)?;
    }
    let _ = file.close().await;
    Ok(content)
}

/// Writes a whole file.
pub(super) async fn write(
    connection: &Connection,
    path: &str,
    content: &[u8],
    options: WriteOptions,
) -> Result<(), Error> {
    const OPERATION: &str = "ssh.write-file";
    if options.owner.is_some() {
        // The protocol knows numbers only, and not whose they are over there.
        let error = Error::new(code::UNSUPPORTED, OPERATION, "SFTP gives no file to somebody by name");
        return Err(error.subject(path).hint("write it without an owner, then run `chown` there"));
    }
    let session = session(connection, OPERATION).await?;
    let there = relative(path);
    let attributes = FileAttributes { permissions: options.mode, ..FileAttributes::empty() };
    let mut file = match create(session, there, &attributes).await {
        Err(error) if options.create_parents && is(&error, StatusCode::NoSuchFile) => {
            create_parents(session, there).await?;
            create(session, there, &attributes).await
        }
        result => result,
    }
    .map_err(|error| refused(OPERATION, path, &error))?;
    if options.mode.is_some() {
        // A file that was there keeps its mode otherwise. Set before there is anything in it.
        file.set_metadata(attributes).await.map_err(|error| refused(OPERATION, path, &error))?;
    }
    file.write_all(content).await.map_err(|error| broken(OPERATION, path, &error))?;
    file.close().await.map_err(|error| broken(OPERATION, path, &error))
}

async fn create(session: &SftpSession, path: &str, attributes: &FileAttributes) -> Result<File, SftpError> {
    let flags = OpenFlags::CREATE | OpenFlags::TRUNCATE | OpenFlags::WRITE;
    session.open_with_flags_and_attributes(path, flags, attributes.clone()).await
}

/// Creates the folders above a path that are not there, the topmost first.
async fn create_parents(session: &SftpSession, path: &str) -> Result<(), Error> {
    const OPERATION: &str = "ssh.write-file";
    for (at, _) in path.match_indices('/').filter(|&(at, _)| at > 0) {
        let folder = &path[..at];
        if session.metadata(folder).await.is_ok() {
            continue;
        }
        if let Err(error) = session.create_dir(folder).await {
            // Somebody else may have been faster.
            session.metadata(folder).await.map_err(|_| refused(OPERATION, folder, &error))?;
        }
    }
    Ok(())
}

/// A path as SFTP has it, whose folder at the beginning is the home.
fn relative(path: &str) -> &str {
    match path.strip_prefix('~') {
        Some("") => ".",
        Some(rest) if rest.starts_with('/') => match rest.trim_start_matches('/') {
            "" => ".",
            rest => rest,
        },
        _ => path,
    }
}

async fn session<'a>(connection: &'a Connection, operation: &'static str) -> Result<&'a SftpSession, Error> {
    connection
        .files
        .get_or_try_init(|| async {
            let gone = |error: russh::Error| failed(operation, &error);
            let mut channel = connection.handle.channel_open_session().await.map_err(gone)?;
            channel.request_subsystem(true, "sftp").await.map_err(gone)?;
            loop {
                match channel.wait().await {
                    Some(ChannelMsg::Success) => break,
                    Some(ChannelMsg::Failure) => {
                        return Err(Error::new(code::UNSUPPORTED, operation, "the other side has no SFTP"));
                    }
                    Some(ChannelMsg::Close) | None => return Err(gone(russh::Error::Disconnect)),
                    Some(_) => {}
                }
            }
            let config = Config { request_timeout_secs: ANSWER_SECONDS, ..Config::default() };
            SftpSession::new_with_config(channel.into_stream(), config)
                .await
                .map_err(|error| refused(operation, "sftp", &error))
        })
        .await
}

fn is(error: &SftpError, code: StatusCode) -> bool {
    matches!(error, SftpError::Status(status) if status.status_code == code)
}

/// What the other side said no to, without a word of its own.
fn refused(operation: &'static str, path: &str, error: &SftpError) -> Error {
    let (code, message) = match error {
        SftpError::Status(status) => match status.status_code {
            StatusCode::NoSuchFile => (code::NOT_FOUND, "it is not there"),
            StatusCode::PermissionDenied => (code::IO, "the user there may not do that"),
            StatusCode::OpUnsupported => (code::UNSUPPORTED, "the other side cannot do that"),
            _ => (code::IO, "the other side could not do that"),
        },
        SftpError::Timeout => (code::TIMEOUT, "no answer in time"),
        SftpError::Limited(_) => (code::LIMIT, "more than the other side takes"),
        SftpError::IO(_) => (code::UNAVAILABLE, "the connection was lost"),
        SftpError::UnexpectedPacket | SftpError::UnexpectedBehavior(_) => {
            (code::SERVER, "the other side does not speak SFTP as it should")
        }
    };
    Error::new(code, operation, message).subject(crate::text::for_people(path, 400))
}

/// A stream of a file that failed: what the other side said is in it, and stays there.
fn broken(operation: &'static str, path: &str, error: &std::io::Error) -> Error {
    let cause = error.get_ref().and_then(|it| it.downcast_ref::<SftpError>());
    match cause {
        Some(error) => refused(operation, path, error),
        None => Error::new(code::IO, operation, "the other side could not do that")
            .subject(crate::text::for_people(path, 400)),
    }
}
