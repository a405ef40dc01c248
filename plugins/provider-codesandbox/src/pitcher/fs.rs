//! Files: `fs/*`. Contents are bytes, whole files at a time.

use pcoder_sdk::{Error, Result, code};
use rmpv::Value;

use super::Agent;
use super::frame::{Param, field};
use crate::agent::{Content, Kind};

/// How much content one message carries. The largest message that the agent takes is not documented; the host takes 16
/// MiB.
pub(crate) const FRAME: usize = 4 << 20;

impl Agent<'_> {
    pub(crate) fn read_file(&mut self, path: &str) -> Result<Vec<u8>> {
        match taken(self.call("fs/readFile", &[("path", Param::Text(path))])?, "content") {
            Some(Value::Binary(content)) => Ok(content),
            _ => Err(self.wrong("fs/readFile", "content")),
        }
    }

    /// Writes a file of at most [`FRAME`] bytes in place.
    pub(crate) fn write_file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let id = self.send_file(path, content)?;
        self.reply(id, "fs/writeFile").map(drop)
    }

    /// Writes several of them at once.
    pub(crate) fn write_files(&mut self, files: &[(String, Content<'_>)]) -> Result<()> {
        let mut sent = Vec::new();
        for (path, content) in files {
            let content = match content {
                Content::Script(script) => script.as_bytes(),
                Content::Bytes(bytes) => bytes,
            };
            sent.push(self.send_file(path, content)?);
        }
        sent.into_iter().try_for_each(|id| self.reply(id, "fs/writeFile").map(drop))
    }

    /// Sends what [`Agent::write_file`] does and does not wait for it.
    pub(crate) fn send_file(&mut self, path: &str, content: &[u8]) -> Result<u64> {
        let yes = Param::Bool(true);
        let params =
            [("path", Param::Text(path)), ("content", Param::Bytes(content)), ("create", yes), ("overwrite", yes)];
        self.send("fs/writeFile", &params)
    }

    /// What there is at a path; nothing where nothing is.
    pub(crate) fn stat(&mut self, path: &str) -> Result<Option<(Kind, bool)>> {
        let answer = match self.call("fs/stat", &[("path", Param::Text(path))]) {
            Err(error) if error.code == code::NOT_FOUND => return Ok(None),
            answer => answer?,
        };
        let linked = field(&answer, "isSymlink").and_then(Value::as_bool).unwrap_or(false);
        match (number(&answer, "type"), number(&answer, "size")) {
            (Some(1), _) => Ok(Some((Kind::Folder, linked))),
            (Some(0), Some(size)) => Ok(Some((Kind::File(size), linked))),
            (Some(0), None) => Err(self.wrong("fs/stat", "size")),
            _ => Err(self.wrong("fs/stat", "type")),
        }
    }

    /// The size of a file.
    pub(crate) fn size(&mut self, path: &str) -> Result<u64> {
        match self.stat(path)? {
            Some((Kind::File(size), _)) => Ok(size),
            Some((Kind::Folder, _)) => {
                Err(Error::invalid(self.operation, "this is a folder, not a file").subject(path))
            }
            None => Err(Error::new(code::NOT_FOUND, self.operation, "there is no such file").subject(path)),
        }
    }

    /// Makes a folder and the missing ones above it.
    pub(crate) fn make_folders(&mut self, path: &str) -> Result<()> {
        self.call("fs/mkdir", &[("path", Param::Text(path)), ("recursive", Param::Bool(true))]).map(drop)
    }

    /// Makes a folder; whether it was not there before.
    pub(crate) fn claim(&mut self, path: &str) -> Result<bool> {
        match self.call("fs/mkdir", &[("path", Param::Text(path)), ("recursive", Param::Bool(false))]) {
            Ok(_) => Ok(true),
            Err(error) if error.code == code::ALREADY_EXISTS => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The names in a folder.
    pub(crate) fn names(&mut self, path: &str) -> Result<Vec<String>> {
        let answer = self.call("fs/readdir", &[("path", Param::Text(path))])?;
        let entries = field(&answer, "entries").and_then(Value::as_array);
        let entries = entries.ok_or_else(|| self.wrong("fs/readdir", "entries"))?;
        let name = |entry: &Value| field(entry, "name").and_then(Value::as_str).map(str::to_owned);
        entries.iter().map(|entry| name(entry).ok_or_else(|| self.wrong("fs/readdir", "name"))).collect()
    }

    /// Removes a file or a folder; one that is not there is no error.
    pub(crate) fn remove(&mut self, path: &str, recursive: bool) -> Result<()> {
        match self.call("fs/remove", &[("path", Param::Text(path)), ("recursive", Param::Bool(recursive))]) {
            Err(error) if error.code != code::NOT_FOUND => Err(error),
            _ => Ok(()),
        }
    }

    /// Renames a file, in the place of one that is there.
    pub(crate) fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let params = [("from", Param::Text(from)), ("to", Param::Text(to)), ("overwrite", Param::Bool(true))];
        self.call("fs/rename", &params).map(drop)
    }

    /// The error of a reply in which a field is not what it must be.
    pub(super) fn wrong(&self, method: &str, name: &str) -> Error {
        let message = format!("the field `{name}` of the agent's answer to `{method}` is missing or of another kind");
        Error::new(code::SERVER, self.operation, message).subject(&self.sandbox)
    }
}

/// A field of a map, taken out of it.
fn taken(value: Value, name: &str) -> Option<Value> {
    let Value::Map(fields) = value else { return None };
    fields.into_iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
}

/// A whole number, in whatever form it came.
pub(super) fn number(value: &Value, name: &str) -> Option<u64> {
    let value = field(value, name)?;
    // JavaScript's numbers may come as floating-point ones.
    value.as_u64().or_else(|| {
        let float =
            value.as_f64().filter(|float| float.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(float))?;
        format!("{float:.0}").parse().ok()
    })
}
