//! Errors that the agent replies.

use pcoder_sdk::{Error, code, text};

use super::frame::Failure;

/// The errors of files (`RAWFS_ERROR`); `errno` says which one.
const RAWFS: i64 = 102;

/// An error reply as the contract's error. `method` is what was asked for.
pub(crate) fn error(failure: Failure, operation: &str, method: &str, sandbox: &str) -> Error {
    let code = match (failure.code, failure.errno) {
        (RAWFS, Some(errno)) => of_errno(errno),
        (RAWFS, None) => code::IO,
        (1, _) => code::UNSUPPORTED,
        (2 | 200, _) => code::DENIED,
        (3, _) => code::RATE_LIMITED,
        (100 | 101, _) => code::INVALID,
        (201, _) => code::CONFLICT,
        (204 | 601 | 704, _) => code::NOT_FOUND,
        _ => code::SERVER,
    };
    let said = text::tail(failure.message.as_bytes(), 1, 200);
    let said = if said.is_empty() { format!("error {} of `{method}`", failure.code) } else { said };
    Error::new(code, operation, said).subject(sandbox)
}

/// By its number on Linux.
fn of_errno(errno: i64) -> &'static str {
    match errno {
        // ENOENT; and ENOTDIR: a part of the path is a file, so nothing is there.
        2 | 20 => code::NOT_FOUND,
        // EPERM, EACCES, EROFS.
        1 | 13 | 30 => code::DENIED,
        // EEXIST.
        17 => code::ALREADY_EXISTS,
        // EISDIR, EINVAL, ENAMETOOLONG, ELOOP.
        21 | 22 | 36 | 40 => code::INVALID,
        // EBUSY, ENOTEMPTY.
        16 | 39 => code::CONFLICT,
        _ => code::IO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_agent_has_one_of_the_contract() {
        for (number, errno, expected) in [
            (0, None, "server"),
            (1, None, "unsupported"),
            (2, None, "denied"),
            (3, None, "rate-limited"),
            (100, None, "invalid"),
            (101, None, "invalid"),
            (102, None, "io"),
            (102, Some(2), "not-found"),
            (102, Some(13), "denied"),
            (102, Some(17), "already-exists"),
            (102, Some(20), "not-found"),
            (102, Some(21), "invalid"),
            (102, Some(28), "io"),
            (102, Some(39), "conflict"),
            (200, None, "denied"),
            (201, None, "conflict"),
            (204, None, "not-found"),
            (601, None, "not-found"),
            (704, None, "not-found"),
            (999, None, "server"),
        ] {
            let failure = Failure { code: number, message: String::new(), errno };
            let error = error(failure, "o", "fs/stat", "box");
            assert_eq!(error.code, expected, "{number} {errno:?}");
            assert_eq!(error.message, format!("error {number} of `fs/stat`"));
        }
    }
}
