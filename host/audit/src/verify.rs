//! Verifying.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde::Serialize;

use crate::chain::Judge;
use crate::error::{At as _, Error, Result};
use crate::files::{HeadFound, head_path, name, read_head, snapshot};
use crate::line::{Head, Hex, Lines};
use crate::read::open;
use crate::tail::{Found, look};

/// More problems are counted and not listed.
const LISTED: usize = 1_000;

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// How many whole records there are.
    pub records: u64,
    /// The files that were read, from the oldest.
    pub files: Vec<String>,
    /// Files of the format before the chain. They are not verified.
    pub legacy: Vec<String>,
    /// The first record's number. It is larger than 1 once old files were deleted: by rotation, or by somebody.
    pub first_seq: Option<u64>,
    /// The last record. Note it elsewhere, for [`verify_against`].
    pub head: Option<Head>,
    /// What does not fit, in the order of files and lines; the first 1,000.
    pub problems: Vec<Problem>,
    /// How many more problems there are.
    pub more_problems: u64,
    /// Lines that a crash or a full disk cut short, with the chain whole around them. They are no problem.
    pub torn: Vec<Torn>,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_intact(&self) -> bool {
        self.problems.is_empty()
    }
}

/// A line that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// The line, from 1; 0 for a file without lines.
    pub line: u64,
    /// The number of the record that it is about, where that is known.
    pub seq: Option<u64>,
    /// What is wrong.
    #[serde(flatten)]
    pub kind: Kind,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, line {}", self.file, self.line)?;
        if let Some(seq) = self.seq {
            write!(f, ", record {seq}")?;
        }
        write!(f, ": {}", self.kind)
    }
}

/// A line that was cut short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Torn {
    /// The file's name.
    pub file: String,
    /// The line, from 1.
    pub line: u64,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// Its hash is not that of its bytes.
    #[error("the line was changed")]
    Changed,
    /// It is no JSON, and no line that a crash has torn.
    #[error("the line is no JSON")]
    NotJson,
    /// No record is missing where it stands.
    #[error("the line was inserted")]
    Inserted,
    /// It stands elsewhere than it was written.
    #[error("the line was moved")]
    Reordered,
    /// Records are missing before this line.
    #[error("before it, records {from} to {to} are missing")]
    Missing {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// Its number fits, and its `prev` is not the hash of the record before: one of the two was written anew.
    #[error("it does not continue the record before it")]
    ChainBroken,
    /// `audit.head` knows of records after this line.
    #[error("after it, records {from} to {to} were cut off")]
    Cut {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// There are records and no `audit.head`.
    #[error("the file with the head was deleted, so records may have been cut off")]
    HeadMissing,
    /// `audit.head` is not as it was written.
    #[error("the file with the head was changed")]
    HeadUnreadable,
    /// `audit.head` has another hash for this record.
    #[error("this record is another one than the head says")]
    HeadDiffers,
    /// The head that was noted elsewhere is none of the records, nor the one before the first.
    #[error("the head that was noted is not among the records")]
    ExpectedHeadMissing,
    /// It says that a newer pcoder wrote it.
    #[error("it has format {found}, which this pcoder does not know")]
    NewerVersion {
        /// The version that it says.
        found: u64,
    },
}

/// Follows the chain through all files of the log whose current file is `file`. It takes no lock and changes nothing;
/// records that are appended meanwhile may or may not be seen. It holds one line at a time.
///
/// # Errors
/// `Io`. A log that is not there has no records and no problems.
pub fn verify(file: &Path) -> Result<Report> {
    run(file, None)
}

/// As [`verify`], and the record whose hash was noted elsewhere must be there, followed by any number of others. So
/// records that were cut off are noticed, and a chain that was written anew.
///
/// # Errors
/// `Io`, and `Head` when `head` is no hash.
pub fn verify_against(file: &Path, head: &str) -> Result<Report> {
    let head = Hex::parse(head.trim().to_ascii_lowercase().as_bytes()).ok_or(Error::Head)?;
    run(file, Some(head))
}

fn run(path: &Path, expected: Option<Hex>) -> Result<Report> {
    // First the head: what is appended after that makes it older than the files, and never newer.
    let head = read_head(path)?;
    let (beside, current) = snapshot(path)?;
    let mut report = Report { legacy: beside.legacy.iter().map(|it| name(it)).collect(), ..Report::default() };
    let mut judge = Judge::new(if let HeadFound::Place(place) = head { Some(place) } else { None }, expected);
    for path in &beside.rotated {
        if let Some(file) = open(path)? {
            follow(&mut judge, &mut report.files, path, file)?;
        }
    }
    if let Some(current) = current {
        if matches!(look(&current, path), Ok(Found::Legacy)) {
            report.legacy.push(name(path));
        } else {
            follow(&mut judge, &mut report.files, path, current)?;
        }
    }
    let findings = judge.finish(&head, report.files.len());
    let name_of = |file: usize| match report.files.get(file) {
        Some(name) => name.clone(),
        None => name(&head_path(path)),
    };
    report.torn = judge.torn.iter().map(|at| Torn { file: name_of(at.file), line: at.line }).collect();
    report.more_problems = judge.more + findings.len().saturating_sub(LISTED) as u64;
    let problem =
        |it: crate::chain::Finding| Problem { file: name_of(it.at.file), line: it.at.line, seq: it.seq, kind: it.kind };
    report.problems = findings.into_iter().take(LISTED).map(problem).collect();
    report.records = judge.records;
    report.first_seq = judge.first.map(|link| link.place.seq);
    report.head = judge.head().map(|place| place.head());
    Ok(report)
}

fn follow(judge: &mut Judge, files: &mut Vec<String>, path: &Path, mut file: File) -> Result<()> {
    let at = files.len();
    files.push(name(path));
    std::io::Seek::rewind(&mut file).at("read", path)?;
    let mut lines = Lines::new(BufReader::with_capacity(64 << 10, file));
    while let Some(line) = lines.next().at("read", path)? {
        judge.line(at, &line);
    }
    Ok(())
}
