//! Where instances are kept, and what goes when they do.

use std::time::Duration;

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::types::ServiceStatus;
use pcoder_sdk::{Error, Result, WriteOptions, code};

use crate::disk;
use crate::record::{FORMAT, Record};
use crate::template;

pub(crate) const ROOT: &str = "state";
const INSTANCES: &str = "instances";

/// A folder without a record that is this old belongs to nobody who is about to write one.
const FORGOTTEN_MS: u64 = 600_000;

/// How long a program that is ended may take to do so by itself. QEMU writes back what it holds.
const GRACE: Duration = Duration::from_secs(5);

/// The instances, as one call sees them.
#[derive(Clone, Copy)]
pub(crate) struct Store<'a> {
    pub(crate) host: ProviderHost<'a>,
    pub(crate) operation: &'static str,
}

/// The folder of an instance, or of a template.
pub(crate) fn folder(id: &str) -> String {
    let above = if template::is_id(id) { template::FOLDER } else { INSTANCES };
    format!("{above}/{id}")
}

fn file(id: &str) -> String {
    format!("{INSTANCES}/{id}/instance.json")
}

/// The service that makes an instance's first disk.
pub(crate) fn maker(id: &str) -> String {
    format!("{id}-blank")
}

/// Whether a text is an instance's identity. Paths are made of nothing else.
pub(crate) fn is_id(text: &str) -> bool {
    text.strip_prefix("vm-").is_some_and(is_number)
}

/// What tells one identity from the next.
pub(crate) fn is_number(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// What did not work is not there any more.
pub(crate) fn if_there(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.code != code::NOT_FOUND => Err(error),
        _ => Ok(()),
    }
}

impl<'a> Store<'a> {
    pub(crate) fn new(host: ProviderHost<'a>, operation: &'static str) -> Self {
        Self { host, operation }
    }

    fn absent(self, id: &str) -> Error {
        Error::new(code::NOT_FOUND, self.operation, "there is no such instance")
            .subject(id.escape_debug().to_string())
            .hint("`pcoder instance list --provider qemu` shows those that there are")
    }

    /// An identity that none has.
    pub(crate) fn new_id(self) -> String {
        loop {
            let id = format!("vm-{:08x}", self.host.random().bits() >> 32);
            if self.host.files().stat(ROOT, &folder(&id)).is_err() {
                return id;
            }
        }
    }

    pub(crate) fn read(self, id: &str) -> Result<Record> {
        if !is_id(id) {
            return Err(self.absent(id));
        }
        let text = self.host.files().read(ROOT, &file(id)).map_err(|error| match error.code.as_str() {
            code::NOT_FOUND => self.absent(id),
            _ => error.during(self.operation),
        })?;
        let garbled = |why: String| {
            Error::new(code::INTEGRITY, self.operation, format!("what is known of the instance cannot be read: {why}"))
                .subject(id)
                .hint(format!("`pcoder instance terminate {id} --provider qemu` removes it"))
        };
        let record: Record = serde_json::from_slice(&text).map_err(|error| garbled(error.to_string()))?;
        if record.format > FORMAT {
            return Err(garbled("it was written by a newer pcoder".to_owned()));
        }
        if record.id != id || record.layers.is_empty() || !record.needs().all(disk::is_layer) {
            return Err(garbled("it is another one's".to_owned()));
        }
        Ok(record)
    }

    pub(crate) fn write(self, record: &Record) -> Result<()> {
        let garbled = |error: serde_json::Error| Error::new(code::INTERNAL, self.operation, error.to_string());
        let text = serde_json::to_vec_pretty(record).map_err(garbled)?;
        let written = self.host.files().write_atomic(ROOT, &file(&record.id), &text, WriteOptions::plain());
        written.map_err(|error| error.during(self.operation))
    }

    /// The first of an instance that is there: from now on it can be found, and its layers are somebody's.
    pub(crate) fn create(self, record: &Record) -> Result<()> {
        self.host.files().create_directory(ROOT, &folder(&record.id), None)?;
        self.write(record)
    }

    pub(crate) fn service(self, id: &str) -> Result<Option<ServiceStatus>> {
        self.host.services().status(id).map_err(|error| error.during(self.operation))
    }

    pub(crate) fn names(self, folder: &str) -> Result<Vec<String>> {
        match self.host.files().list(ROOT, folder) {
            Ok(entries) => Ok(entries.into_iter().map(|it| it.name).collect()),
            Err(error) if error.code == code::NOT_FOUND => Ok(Vec::new()),
            Err(error) => Err(error.during(self.operation)),
        }
    }

    /// The identities that there are folders of.
    pub(crate) fn ids(self) -> Result<Vec<String>> {
        Ok(self.names(INSTANCES)?.into_iter().filter(|it| is_id(it)).collect())
    }

    /// Ends what runs of an instance, at once, and forgets that it ran.
    pub(crate) fn end(self, service: &str, grace: Duration) -> Result<()> {
        let services = self.host.services();
        if_there(services.stop(service, grace).map(drop)).map_err(|error| error.during(self.operation))?;
        if_there(services.remove(service)).map_err(|error| error.during(self.operation))
    }

    /// Ends an instance, whatever there is of it, and removes what only it needed. The record goes last but for the
    /// layers: what is cut short is done again.
    pub(crate) fn remove(self, id: &str) -> Result<()> {
        self.end(id, GRACE)?;
        self.end(&maker(id), Duration::ZERO)?;
        if_there(self.host.files().remove(ROOT, &folder(id), true)).map_err(|error| error.during(self.operation))?;
        self.remove_unneeded_layers()
    }

    /// Removes the layers that no instance and no template needs.
    ///
    /// The layers are listed first: whoever makes one has written before that it is needed. Templates come before
    /// instances: one that takes a template's layer writes that down, and then sees whether the template is still there.
    /// While what one instance needs cannot be read, nothing goes.
    pub(crate) fn remove_unneeded_layers(self) -> Result<()> {
        let layers = self.names(disk::FOLDER)?;
        let mut needed: Vec<String> = template::layers(self)?.iter().map(|it| disk::file(it)).collect();
        for id in self.ids()? {
            match self.read(&id) {
                Ok(record) => needed.extend(record.needs().map(disk::file)),
                Err(error) if error.code == code::NOT_FOUND => {}
                Err(_) => return Ok(()),
            }
        }
        for layer in layers.iter().filter(|it| !needed.contains(it)) {
            // Somebody may be faster, and Windows keeps a file that is open: it goes next time.
            drop(self.host.files().remove(ROOT, &format!("{}/{layer}", disk::FOLDER), false));
        }
        Ok(())
    }

    /// Removes what boots left behind that were killed. What fails is left for the next time.
    pub(crate) fn sweep(self) {
        let now = self.host.clock().now_ms();
        for id in self.ids().unwrap_or_default() {
            let goes = match self.read(&id) {
                Ok(record) => record.is_abandoned(now),
                Err(error) if error.code == code::NOT_FOUND => {
                    let folder = self.host.files().stat(ROOT, &folder(&id));
                    folder.ok().and_then(|it| it.modified_ms).is_some_and(|it| now.saturating_sub(it) > FORGOTTEN_MS)
                }
                Err(_) => false,
            };
            if goes {
                drop(self.remove(&id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::record;
    use crate::record::Wish;
    use pcoder_sdk::testing::FakeHost;

    #[test]
    fn only_an_identity_becomes_a_path() {
        assert!(is_id("vm-0123abcd"));
        for wrong in
            ["", "vm-", "vm-../../x", "vm-0123abcd/x", "vm-0123ABCD", "vm-0123abcd0", "../x", "morphvm_1", "vm-ää"]
        {
            assert!(!is_id(wrong), "{wrong}");
            let host = FakeHost::new();
            let store = Store::new(host.provider(), "o");
            assert_eq!(store.read(wrong).map_err(|it| it.code), Err(code::NOT_FOUND.to_owned()));
            assert!(host.calls().is_empty(), "nothing was looked for");
        }
    }

    #[test]
    fn a_record_comes_back_and_one_that_is_garbled_is_told() {
        let host = FakeHost::new();
        let store = Store::new(host.provider(), "o");
        let record = record("vm-0000000a");
        store.create(&record).unwrap();
        assert_eq!(store.read("vm-0000000a").unwrap(), record);
        assert_eq!(store.ids().unwrap(), ["vm-0000000a"]);
        let text = String::from_utf8(host.host_file(ROOT, &file("vm-0000000a")).unwrap()).unwrap();
        for (from, to) in [
            ("vm-0000000a", "vm-0000000b"),
            ("\"format\": 1", "\"format\": 2"),
            ("l000000000000000a", "../../x"),
            ("{", ""),
        ] {
            host.put_on_host(ROOT, &file("vm-0000000a"), text.replace(from, to).as_bytes());
            assert_eq!(store.read("vm-0000000a").map_err(|it| it.code), Err(code::INTEGRITY.to_owned()), "{to}");
        }
    }

    #[test]
    fn layers_go_when_nobody_needs_them() {
        let host = FakeHost::new();
        let store = Store::new(host.provider(), "o");
        let (a, b, c) = ("l000000000000000a", "l000000000000000b", "l000000000000000c");
        let mut one = record("vm-0000000a");
        one.layers = vec![a.to_owned(), c.to_owned()];
        let mut other = record("vm-0000000b");
        other.layers = vec![b.to_owned(), c.to_owned()];
        other.next = Some("l000000000000000d".to_owned());
        store.create(&one).unwrap();
        store.create(&other).unwrap();
        for layer in [a, b, c, "l000000000000000d", "l000000000000000e"] {
            host.put_on_host(ROOT, &disk::path(layer), b"");
        }
        let there =
            || store.names(disk::FOLDER).unwrap().join(" ").replace("l000000000000000", "").replace(".qcow2", "");
        store.remove("vm-0000000a").unwrap();
        assert_eq!(there(), "b c d");
        store.remove("vm-0000000a").unwrap();
        // What cannot be read may need anything.
        host.put_on_host(ROOT, &file("vm-0000000b"), b"{");
        store.remove("vm-0000000a").unwrap();
        assert_eq!(there(), "b c d");
        store.remove("vm-0000000b").unwrap();
        assert_eq!(there(), "");
    }

    #[test]
    fn boots_that_were_killed_leave_nothing_for_long() {
        let host = FakeHost::new();
        let store = Store::new(host.provider(), "o");
        let now = host.provider().clock().now_ms();
        for (id, wish, seen) in [
            ("vm-00000001", Wish::New, now - 1_000),
            ("vm-00000002", Wish::New, now - 1_000_000),
            ("vm-00000003", Wish::Halt, 0),
            ("vm-00000004", Wish::Run, 0),
        ] {
            let mut record = record(id);
            (record.wish, record.seen_ms) = (wish, seen);
            store.create(&record).unwrap();
        }
        store.sweep();
        assert_eq!(store.ids().unwrap(), ["vm-00000001", "vm-00000003", "vm-00000004"]);
    }
}
