//! Reading records.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{At as _, Result};
use crate::files::snapshot;
use crate::line::Lines;
use crate::tail::Backward;

/// Which records are wanted. All of it must hold; by default all records are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those of this plugin.
    pub plugin: Option<String>,
    /// Those of this call.
    pub call: Option<String>,
    /// Those from this time on, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Those with this outcome.
    pub outcome: Option<String>,
    /// Decisions that said no.
    pub denied: bool,
    /// The newest of them, so many.
    pub last: Option<usize>,
}

impl Filter {
    fn takes(&self, record: &Value) -> bool {
        let is = |field: &str, wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| record.get(field).and_then(Value::as_str) == Some(wanted))
        };
        let since = |since: u64| record.get("time_ms").and_then(Value::as_u64).is_some_and(|time| time >= since);
        is("plugin", &self.plugin)
            && is("call", &self.call)
            && is("outcome", &self.outcome)
            && self.since_ms.is_none_or(since)
            && (!self.denied || is_denied(record))
    }
}

/// A decision without a rule.
pub(crate) fn is_denied(record: &Value) -> bool {
    record.get("event").and_then(Value::as_str) == Some("decision") && record.get("rule").is_none_or(Value::is_null)
}

/// Records, from the oldest, one at a time.
#[derive(Debug)]
pub struct Records {
    filter: Filter,
    /// What is still to be read.
    files: VecDeque<PathBuf>,
    /// The newest file, as it was at the beginning.
    current: Option<(PathBuf, File)>,
    lines: Option<(PathBuf, Lines<BufReader<File>>)>,
    /// The answer, where the newest were asked for.
    ready: VecDeque<Value>,
}

/// Reads the records of all files, those of the old format first. Lines that are torn or no JSON are left out; the
/// chain is not checked. It needs no lock, holds one record at a time, or as many as `last` says, and for `last` it
/// begins at the end and reads no further than it must.
///
/// # Errors
/// `Io`. A log that is not there has no records.
pub fn read(file: &Path, filter: &Filter) -> Result<Records> {
    let (beside, current) = snapshot(file)?;
    let files: VecDeque<_> = beside.legacy.into_iter().chain(beside.rotated).collect();
    let mut records = Records {
        filter: filter.clone(),
        files,
        current: current.map(|it| (file.to_path_buf(), it)),
        lines: None,
        ready: VecDeque::new(),
    };
    if let Some(last) = filter.last {
        records.take_last(last)?;
    }
    Ok(records)
}

impl Records {
    fn take_last(&mut self, last: usize) -> Result<()> {
        let mut current = self.current.take();
        while self.ready.len() < last {
            let (path, file) = match current.take() {
                Some(it) => it,
                None => match self.files.pop_back() {
                    Some(path) => match open(&path)? {
                        Some(file) => (path, file),
                        None => continue,
                    },
                    None => break,
                },
            };
            let mut lines = Backward::new(&file).at("read", &path)?;
            while self.ready.len() < last
                && let Some(line) = lines.next().at("read", &path)?
            {
                if let Some(record) = parse(&line.bytes, &self.filter) {
                    self.ready.push_front(record);
                }
            }
        }
        self.files.clear();
        Ok(())
    }

    fn next_record(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Ok(Some(record));
            }
            if let Some((path, lines)) = &mut self.lines {
                while let Some(line) = lines.next().at("read", path)? {
                    if let Some(record) = parse(line.bytes, &self.filter) {
                        return Ok(Some(record));
                    }
                }
            }
            let next = match self.files.pop_front() {
                Some(path) => open(&path)?.map(|file| (path, file)),
                None => match self.current.take() {
                    Some(it) => Some(it),
                    None => return Ok(None),
                },
            };
            self.lines = next.map(|(path, file)| (path, Lines::new(BufReader::with_capacity(64 << 10, file))));
        }
    }
}

impl Iterator for Records {
    type Item = Result<Value>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_record().transpose();
        if matches!(next, Some(Err(_))) {
            // It is said once; what cannot be read will not be readable next time.
            (self.lines, self.current) = (None, None);
            self.files.clear();
        }
        next
    }
}

fn parse(line: &[u8], filter: &Filter) -> Option<Value> {
    let record: Value = serde_json::from_slice(line).ok()?;
    (record.is_object() && filter.takes(&record)).then_some(record)
}

/// Opens a rotated file. One that was deleted since is too old to be wanted.
pub(crate) fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("open", path),
    }
}
