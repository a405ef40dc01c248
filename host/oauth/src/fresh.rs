//! One refresher at a time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pcoder_state::Lock;
use tokio::task::JoinError;

use crate::clock::Clock;
use crate::credentials::{CredentialsFile, Found, Loaded};
use crate::error::{Error, Result};
use crate::http::Http;
use crate::service::Service;
use crate::tokens::refresh;

/// Tokens are refreshed this long before they expire, so that a request that is under way with them ends.
pub const REFRESH_EARLY: Duration = Duration::from_secs(10 * 60);

/// Beside one request, what a holder of the lock needs.
const LOCK_MARGIN: Duration = Duration::from_secs(15);
/// How a login was found, or what was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// It is good for more than ten minutes, or another process has just seen to it.
    Fresh,
    /// It was refreshed, and the file has the new one.
    Refreshed,
    /// It ends within ten minutes or has ended, and has no refresh token.
    NoRefreshToken,
    /// There is no login in the file.
    Absent,
}

/// Sees to it that the login in `file` is good for ten minutes.
///
/// When it is not, it takes the lock at `lock` (waiting for at most the deadline of a request and 15 s), reads the file
/// again, since another process may have refreshed it meanwhile, asks for new tokens and writes them. A refresh token that
/// rotates is so used once. Everything that can be found out before is: that the file can be understood, its folder written,
/// and the disk has room. Between the answer and the write lies nothing but the merge of the two. If the process is killed
/// there, or the network breaks under the answer, the login is lost. Dropping the future does not end a refresh that was
/// begun: it goes on in a task of the runtime.
///
/// When the server says that the refresh token is not valid, the file is read once more: Claude Code itself, which knows
/// nothing of this lock, may have used it.
///
/// # Errors
/// `LoginExpired` and what a request can meet, `Io` and `Credentials` for a file that cannot be read or written beside,
/// `State` for the lock, `NotSaved`. After a `Network` or `Timeout` tokens that have not expired are still good, and so is
/// the file.
pub async fn ensure_fresh(
    file: &CredentialsFile,
    lock: &Path,
    service: &Service,
    clock: &Clock,
    http: &Http,
) -> Result<Freshness> {
    if let Judged::Done(freshness) = judge(file, clock)? {
        return Ok(freshness);
    }
    let task = refresh_alone(file.clone(), lock.to_path_buf(), service.clone(), clock.clone(), http.clone());
    joined(tokio::spawn(task).await)?
}

enum Judged {
    Done(Freshness),
    Due(Found),
}

fn judge(file: &CredentialsFile, clock: &Clock) -> Result<Judged> {
    Ok(match file.load()? {
        Loaded { tokens: None, .. } => Judged::Done(Freshness::Absent),
        Loaded { tokens: Some(tokens), root } => {
            if !tokens.expires_within(REFRESH_EARLY, clock.now_ms()) {
                Judged::Done(Freshness::Fresh)
            } else if tokens.refresh.is_none() {
                Judged::Done(Freshness::NoRefreshToken)
            } else {
                Judged::Due(Found { root, tokens })
            }
        }
    })
}

async fn refresh_alone(
    file: CredentialsFile,
    lock: PathBuf,
    service: Service,
    clock: Clock,
    http: Http,
) -> Result<Freshness> {
    let patience = http.deadline().saturating_add(LOCK_MARGIN);
    // Waiting for it blocks a thread.
    let _lock = joined(tokio::task::spawn_blocking(move || Lock::take(&lock, patience)).await)??;
    let mut found = match judge(&file, &clock)? {
        Judged::Done(freshness) => return Ok(freshness),
        Judged::Due(found) => found,
    };
    let mut once_more = true;
    loop {
        file.prove_writable()?;
        let error = match refresh(&service, &found.tokens, &http, &clock).await {
            Ok(new) if file.replace(&found, &new)? => return Ok(Freshness::Refreshed),
            // Somebody logged in or out meanwhile.
            Ok(_) => Error::Unsettled { path: file.path().to_path_buf() },
            Err(error @ Error::LoginExpired { .. }) => error,
            Err(error) => return Err(error),
        };
        found = match judge(&file, &clock)? {
            Judged::Done(freshness) => return Ok(freshness),
            Judged::Due(other) if once_more && !other.tokens.has_refresh_of(&found.tokens) => other,
            Judged::Due(_) => return Err(error),
        };
        once_more = false;
    }
}

/// A task is not cancelled by anybody but a runtime that ends.
fn joined<T>(result: Result<T, JoinError>) -> Result<T> {
    result.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Error::Interrupted,
    })
}
