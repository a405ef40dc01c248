//! What every error says: its code, its words, what it is about, and what to do.
//!
//! Each area makes its errors happen for real and keeps what was printed. `every_error_is_in_a_snapshot` reads the
//! sources, and fails when an error is made there that none of these shows.

mod accounts;
mod bundles;
mod complete;
mod files;
mod grants;
mod machines;
mod runs;
mod secrets;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{World, finish};

/// What was typed and what came of it, one after the other.
struct Told<'a> {
    world: &'a World,
    environment: Vec<(&'static str, String)>,
    without: &'static [&'static str],
    text: String,
}

impl<'a> Told<'a> {
    fn new(world: &'a World) -> Self {
        Self { world, environment: Vec::new(), without: &[], text: String::new() }
    }

    /// From now on with this variable.
    fn set(&mut self, name: &'static str, value: impl Into<String>) -> &mut Self {
        self.environment.retain(|(it, _)| *it != name);
        self.environment.push((name, value.into()));
        self
    }

    /// From now on without it.
    fn unset(&mut self, name: &str) -> &mut Self {
        self.environment.retain(|(it, _)| *it != name);
        self
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.pcoder(args);
        command.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        for name in self.without {
            command.env_remove(name);
        }
        command
    }

    /// Something that has to work on the way to an error.
    fn make(&self, args: &[&str]) {
        finish(self.command(args), "").printed();
    }

    /// A command that fails.
    fn fails(&mut self, args: &[&str]) -> &mut Self {
        self.fails_with(args, "")
    }

    /// A command that fails with this on its standard input.
    fn fails_with(&mut self, args: &[&str], input: &str) -> &mut Self {
        let command = self.command(args);
        self.fails_as(&args.join(" "), command, input)
    }

    /// A command that fails, shown as `typed`.
    fn fails_as(&mut self, typed: &str, command: Command, input: &str) -> &mut Self {
        let outcome = finish(command, input);
        assert!(outcome.code.is_none_or(|code| code != 0 && code != 101), "{typed}: {outcome:#?}");
        self.text += &format!("$ pcoder {typed}\n{}\n", outcome.shown());
        self
    }

    /// A line between two commands that says what changed.
    fn note(&mut self, what: &str) -> &mut Self {
        self.text += &format!("# {what}\n");
        self
    }

    /// Writes a file below pcoder's own folder.
    fn write(&mut self, name: &str, text: impl AsRef<[u8]>) -> &mut Self {
        let path = self.world.path("pcoder").join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
        self
    }

    /// Compares what was printed with the snapshot of this name.
    #[track_caller]
    fn are(&self, name: &str) {
        // What differs from machine to machine, and from version to version.
        let filters = vec![
            (r"[^\s`']*/e2e-\w+", "[WORLD]"),
            ("[0-9a-f]{64}", "[DIGEST]"),
            (r"sha256 [0-9a-f]{16}…", "sha256 [SHORT]…"),
            (r"127\.0\.0\.1:[1-9]\d{3,}", "LOOPBACK:[PORT]"),
            (r"127\.0\.0\.1", "LOOPBACK"),
            (r"\b\d+\.\d+\.\d+\b", "[VERSION]"),
            (r"[0-9]+\.[0-9]+ (KiB|MiB)", "[SIZE] $1"),
            (r"[0-9]+ MB", "[SIZE] MB"),
            (r"has 7 bytes, not [0-9]+", "has 7 bytes, not [SIZE]"),
            (r"offset 0x[0-9a-f]+", "offset [OFFSET]"),
            (r"linux-(x64|arm64)", "[PLATFORM]"),
            (r"at line \d+ column \d+", "at [PLACE]"),
            (r"morphvm_[a-z0-9]{8}\b", "[INSTANCE]"),
            (r"\(\d+\.\d s\)", "([TIME])"),
        ];
        let engines = std::env::var("PCODER_TEST_ENGINES").unwrap_or_else(|_| "no engines".to_owned());
        let text = self.text.replace(&engines, "[ENGINES]");
        insta::with_settings!({ filters => filters, omit_expression => true }, {
            insta::assert_snapshot!(name, text);
        });
    }
}

/// The largest file below a folder.
fn largest(folder: &Path) -> PathBuf {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let data = entry.metadata().expect("it is there");
            if data.is_dir() { folders.push(entry.path()) } else { all.push((data.len(), entry.path())) }
        }
    }
    all.into_iter().max().expect("a file").1
}
