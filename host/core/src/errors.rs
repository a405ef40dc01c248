//! Other crates' errors, in the one shape.

use pcoder_runtime::Error;
use pcoder_runtime::error::code;

/// An error of the engine store. Its own words stay; its code becomes one of the contract's.
pub fn from_engines(error: &pcoder_engines::Error) -> Error {
    let code = contracts(error.code());
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        message = format!("{message}: {inner}");
        cause = inner.source();
    }
    let plain = Error::new(code, "engine", message).subject(error.subject());
    match error.hint() {
        Some(hint) => plain.hint(hint),
        None => plain,
    }
}

/// An error of what virtual machines need.
pub fn from_vm(error: &pcoder_vm::Error) -> Error {
    let message = error.to_string();
    Error::new(contracts(error.code()), "runtime", message).subject(error.subject()).hint(error.hint())
}

/// The contract's code for the word that those crates have for it.
fn contracts(word: &str) -> &'static str {
    match word {
        "offline" => code::NETWORK,
        "integrity" => code::INTEGRITY,
        "unsupported-platform" | "unsupported" => code::UNSUPPORTED,
        "disk-full" | "io" => code::IO,
        "cancelled" => code::CANCELLED,
        "not-installed" => code::NOT_FOUND,
        "locked" => code::CONFLICT,
        "registry" => code::SERVER,
        "smoke" => code::PROCESS,
        _ => code::INVALID,
    }
}

/// An error of a file that lasts, in the one shape.
pub(crate) fn from_state(operation: &'static str, error: &pcoder_state::Error) -> Error {
    use pcoder_state::Error as State;
    let subject = error.path().display().to_string();
    let plain = match error {
        State::Io { source, .. } => {
            let sorted = Error::io(operation, &subject, source);
            Error::new(sorted.code.clone(), operation, error.to_string())
        }
        State::Invalid(_) => Error::new(code::INVALID, operation, error.to_string()),
        State::Newer { .. } => Error::new(code::UNSUPPORTED, operation, error.to_string()),
        State::Busy { .. } => Error::new(code::CONFLICT, operation, error.to_string()),
        _ => Error::new(code::IO, operation, error.to_string()),
    };
    plain.subject(subject).hint(error.hint())
}
