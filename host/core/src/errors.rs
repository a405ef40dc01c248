//! Other crates' errors, in the one shape.

use pcoder_runtime::Error;
use pcoder_runtime::error::code;

/// An error of the engine store. Its own words stay; its code becomes one of the contract's.
pub fn from_engines(error: &pcoder_engines::Error) -> Error {
    let code = match error.code() {
        "offline" => code::NETWORK,
        "integrity" => code::INTEGRITY,
        "unsupported-platform" => code::UNSUPPORTED,
        "disk-full" | "io" => code::IO,
        "cancelled" => code::CANCELLED,
        "not-installed" => code::NOT_FOUND,
        "locked" => code::CONFLICT,
        "registry" => code::SERVER,
        "smoke" => code::PROCESS,
        _ => code::INVALID,
    };
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
