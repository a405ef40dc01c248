//! The disk with the agents' programs, which pcoder makes and every machine can read.
//!
//! A machine keeps the one that it was booted with, as its copies do: what runs in it was started from there. When the file
//! is gone a machine does not start, and says so. Without it, an agent that worked yesterday would just not be found.

use pcoder_sdk::{Error, Result, code};

use crate::image::is_file_name;
use crate::record::Record;
use crate::store::Store;

/// The option of a boot, whose value is the file's name.
pub(crate) const OPTION: &str = "engines";
/// The root of files that it is in.
const ROOT: &str = "engines";

/// The value of the option, if it can be one.
pub(crate) fn checked(name: &str, operation: &str) -> Result<String> {
    if is_file_name(name) {
        return Ok(name.to_owned());
    }
    let message = "this cannot be the name of a disk with engines";
    Err(Error::invalid(operation, message).subject(name.escape_debug().to_string()))
}

/// Fails where the machine's disk is not there.
pub(crate) fn look(store: Store<'_>, record: &Record) -> Result<()> {
    let Some(name) = &record.engines else { return Ok(()) };
    store.host.files().stat(ROOT, name).map(drop).map_err(|error| match error.code.as_str() {
        code::NOT_FOUND => Error::new(code::NOT_FOUND, store.operation, "the disk with the machine's engines is gone")
            .subject(name)
            .hint("a run with a new machine makes it again; then resume this one"),
        _ => error.during(store.operation),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{record, world};

    const NAME: &str = "linux-x64-0a.squashfs";

    #[test]
    fn only_the_name_of_one_file_is_a_disk() {
        assert_eq!(checked(NAME, "o").as_deref(), Ok(NAME));
        for bad in ["", "..", "../x", "a/b", "-x", "a b", "a,b"] {
            assert_eq!(checked(bad, "o").map_err(|it| it.code), Err(code::INVALID.to_owned()), "{bad}");
        }
    }

    #[test]
    fn a_disk_that_is_gone_is_an_error_that_names_it() {
        let host = world();
        let store = Store::new(host.provider(), "provider.resume");
        let mut record = record("vm-0000000a");
        look(store, &record).unwrap();
        record.engines = Some(NAME.to_owned());
        let error = look(store, &record).unwrap_err();
        assert_eq!((error.code.as_str(), error.subject.as_deref()), (code::NOT_FOUND, Some(NAME)));
        host.put_on_host(ROOT, NAME, b"12345");
        look(store, &record).unwrap();
    }
}
