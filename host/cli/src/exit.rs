//! Exit codes: documented in `pcoder --help`, and nowhere else decided.

use pcoder_core::runtime::Error;
use pcoder_core::runtime::contract::ExitStatus;
use pcoder_core::runtime::error::code;

/// The user, or the system, ended it.
pub(crate) const CANCELLED: u8 = 130;

/// The exit code of an error.
pub(crate) fn of_error(error: &Error) -> u8 {
    match error.code.as_ref() {
        code::INVALID => 2,
        code::NOT_FOUND | code::UNSUPPORTED => 3,
        code::NETWORK | code::UNAVAILABLE | code::TIMEOUT | code::RATE_LIMITED | code::SERVER => 4,
        code::INTEGRITY => 5,
        code::UNAUTHENTICATED => 6,
        code::DENIED => 7,
        code::CANCELLED => CANCELLED,
        _ => 1,
    }
}

/// The exit code that passes a tool's end on.
pub(crate) fn of_tool(status: &ExitStatus) -> u8 {
    match status {
        // What the system keeps of an exit code is its last byte; Windows codes that do not fit stay failures.
        ExitStatus::Exited(0) => 0,
        ExitStatus::Exited(code) => u8::try_from(code & 0xff).ok().filter(|&it| it != 0).unwrap_or(1),
        ExitStatus::Signaled(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_never_looks_like_a_success() {
        assert_eq!(of_tool(&ExitStatus::Exited(0)), 0);
        assert_eq!(of_tool(&ExitStatus::Exited(3)), 3);
        assert_eq!(of_tool(&ExitStatus::Exited(256)), 1);
        assert_eq!(of_tool(&ExitStatus::Exited(-1_073_741_515)), 0x35);
        assert_eq!(of_tool(&ExitStatus::Signaled(9)), 137);
        assert_eq!(of_tool(&ExitStatus::Signaled(15)), 143);
    }
}
