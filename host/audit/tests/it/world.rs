//! A folder with a log in it, and records as the runtime makes them.

use std::path::{Path, PathBuf};

use pcoder_audit::{Log, Report, Rotation, verify};
use serde::Serialize;

#[derive(Clone, Serialize)]
pub(crate) struct Record {
    pub(crate) time_ms: u64,
    pub(crate) call: String,
    pub(crate) operation: &'static str,
    pub(crate) plugin: String,
    pub(crate) digest: String,
    #[serde(flatten)]
    pub(crate) event: Event,
}

#[derive(Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event {
    Decision {
        class: &'static str,
        verb: &'static str,
        target: String,
        rule: Option<String>,
        permit: u64,
    },
    Effect {
        class: &'static str,
        verb: &'static str,
        target: String,
        permit: u64,
        outcome: String,
        bytes: u64,
        ms: u64,
    },
    Call {
        outcome: String,
        ms: u64,
    },
}

/// The three shapes by turns; every fourth decision is a denial.
pub(crate) fn record(number: u64) -> Record {
    let target = format!("/home/é \"{number}\"/\u{1}");
    let event = match number % 3 {
        0 => {
            let rule = (!number.is_multiple_of(4)).then(|| "git in PATH".to_owned());
            Event::Decision { class: "exec", verb: "run", target, rule, permit: number }
        }
        1 => Event::Effect {
            class: "files",
            verb: "read",
            target,
            permit: number - 1,
            outcome: "ok".to_owned(),
            bytes: 4096,
            ms: 3,
        },
        _ => Event::Call { outcome: "not-found".to_owned(), ms: 12 },
    };
    Record {
        time_ms: 1_790_000_000_000 + number,
        call: format!("77-1790000000000-{}", number / 3),
        operation: "provider.exec",
        plugin: ["provider-local", "agent-claude"][usize::from(number.is_multiple_of(2))].to_owned(),
        digest: "ab".repeat(32),
        event,
    }
}

pub(crate) struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// With so many records, the log closed.
    pub(crate) fn with(records: u64, rotation: Rotation) -> Self {
        let world = Self::new();
        let log = world.log_with(rotation);
        for number in 0..records {
            log.append(&record(number)).unwrap();
        }
        world
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.path().join("audit.jsonl")
    }

    pub(crate) fn head(&self) -> PathBuf {
        self.path().join("audit.head")
    }

    pub(crate) fn log(&self) -> Log {
        self.log_with(Rotation::default())
    }

    pub(crate) fn log_with(&self, rotation: Rotation) -> Log {
        log_in(self.path(), rotation)
    }

    pub(crate) fn verify(&self) -> Report {
        verify(&self.file()).unwrap()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        lines(&self.file())
    }

    pub(crate) fn write_lines(&self, lines: &[String]) {
        std::fs::write(self.file(), lines.concat()).unwrap();
    }

    /// The files' names, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.path())
            .unwrap()
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .filter(|it| it != "locks")
            .collect();
        names.sort();
        names
    }
}

pub(crate) fn log_in(folder: &Path, rotation: Rotation) -> Log {
    Log::open(folder.join("audit.jsonl"), folder.join("locks").join("audit.lock"), rotation)
}

/// With their newlines.
pub(crate) fn lines(file: &Path) -> Vec<String> {
    // A character may be torn as well.
    String::from_utf8_lossy(&std::fs::read(file).unwrap()).split_inclusive('\n').map(str::to_owned).collect()
}

/// As they are shown to people.
pub(crate) fn problems(report: &Report) -> Vec<String> {
    report.problems.iter().map(ToString::to_string).collect()
}
