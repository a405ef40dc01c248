//! What the tools of a step print: into a file, whose end is shown when one fails.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Failure;
use crate::workspace::at;

/// Lines of it that are shown.
const TAIL: usize = 25;

/// A file that tools write to.
pub(super) struct Log {
    path: PathBuf,
}

impl Log {
    /// An empty one.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        File::create(path).map_err(at(path))?;
        Ok(Self { path: path.to_owned() })
    }

    fn open(&self) -> Result<File, Failure> {
        OpenOptions::new().append(true).open(&self.path).map_err(at(&self.path))
    }

    /// Runs a command to its end, with nothing to read.
    pub(super) fn run(&self, command: &mut Command) -> Result<(), Failure> {
        let output = self.open()?;
        self.end(command.stdin(Stdio::null()).stdout(output))
    }

    /// Runs a command that reads one file and writes another.
    pub(super) fn run_filter(&self, command: &mut Command, input: File, output: File) -> Result<(), Failure> {
        self.end(command.stdin(input).stdout(output))
    }

    fn end(&self, command: &mut Command) -> Result<(), Failure> {
        let mut log = self.open()?;
        writeln!(log, "+ {command:?}").map_err(at(&self.path))?;
        let name = command.get_program().to_string_lossy().into_owned();
        let status = command.stderr(log).status().map_err(|error| format!("{name}: {error}"))?;
        if status.success() {
            return Ok(());
        }
        Err(format!("`{name}` failed ({status}). The end of {}:\n\n{}", self.path.display(), tail(&self.path)))
    }
}

/// The last lines of a file, as far as there is one.
pub(super) fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_what_the_tool_said() {
        let path = std::env::temp_dir().join(format!("xtask-log-{}", std::process::id()));
        let log = Log::create(&path).expect("a file");
        log.run(Command::new("sh").args(["-c", "seq 100"])).expect("it works");
        let failure = log.run(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"])).expect_err("it fails");
        assert!(failure.contains("no such thing") && failure.contains("100"), "{failure}");
        assert!(!failure.contains("\n50\n"), "{failure}");
        std::fs::remove_file(&path).expect("the test's own file");
    }
}
