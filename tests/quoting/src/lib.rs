//! The test of whoever quotes commands for a shell on an instance: random ones go through the quoting and through real
//! shells, and their arguments, variables and folders arrive byte for byte.
//!
//! `PROPTEST_CASES` says how many commands there are; without it, there are [`CASES`].
#![cfg(unix)]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "all of it is a test")]

mod case;
mod shell;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{env, fs, panic, thread};

use pcoder_sdk::CommandSpec;
use proptest::strategy::{Strategy as _, ValueTree};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::case::Case;
pub use crate::shell::Shell;

/// How many commands there are when nobody says another number.
pub const CASES: usize = 10_000;

/// How many commands a transport gets at once: enough for what it does once a call not to count.
const BATCH: usize = 20;

const SHELLS: [&str; 2] = ["bash", "dash"];

/// A way into a shell on an instance, with the quoting that is under test.
pub trait Transport: Sync {
    /// Runs these commands one after the other, and gives what they printed.
    fn run(&self, shell: &Shell, commands: &[Command]) -> Vec<u8>;
}

/// One command, and where it is run.
#[derive(Debug)]
pub struct Command {
    /// The command.
    pub spec: CommandSpec,
    /// What `HOME` is, which is for the transport to say. Its name has characters that mean something to shells.
    pub home: String,
    /// For files of the transport's: an empty folder whose name means nothing to any shell.
    pub folder: PathBuf,
}

/// Sends random commands through bash and dash, half of them through each, and fails when one does not arrive as it was.
pub fn assert_commands_arrive(transport: &impl Transport) {
    // Thousands of folders take long on a disk that others use too.
    let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let shells = SHELLS.map(|name| Shell::new(name, &root.path().join(name)));
    let each = cases().div_ceil(SHELLS.len());
    thread::scope(|scope| {
        let threads = shells.each_ref().map(|shell| scope.spawn(move || random(transport, shell, each)));
        for thread in threads {
            thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked));
        }
    });
}

fn random(transport: &impl Transport, shell: &Shell, most: usize) {
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let commands = case::command();
    let (begin, mut count) = (Instant::now(), 0);
    while count < most {
        let batch = (0..BATCH.min(most - count)).map(|_| commands.new_tree(&mut runner).unwrap()).collect::<Vec<_>>();
        let cases = batch.iter().map(ValueTree::current).collect::<Vec<_>>();
        match arrive(transport, shell, &cases) {
            Ok(()) => count += cases.len(),
            Err(together) => {
                for case in batch {
                    let alone =
                        runner.run_one(case, |case| arrive(transport, shell, &[case]).map_err(TestCaseError::fail));
                    alone.unwrap_or_else(|error| panic!("{}: {error}", shell.name()));
                }
                panic!("{}: each arrives alone, and not all of them together: {together}", shell.name());
            }
        }
    }
    println!("{count} commands through {} in {:?}", shell.name(), begin.elapsed());
}

/// proptest reads the variable itself, but does not tell its number from its default.
fn cases() -> usize {
    if env::var_os("PROPTEST_CASES").is_none() { CASES } else { usize::try_from(Config::default().cases).unwrap() }
}

/// Or what arrived in place of what was sent.
fn arrive(transport: &impl Transport, shell: &Shell, cases: &[Case]) -> Result<(), String> {
    let root = tempfile::tempdir_in(shell.folder()).unwrap();
    let (mut commands, mut expected) = (Vec::new(), Vec::new());
    for (index, case) in cases.iter().enumerate() {
        let root = root.path().join(index.to_string());
        let (home, folder) = (root.join(&case.home), root.join("transport"));
        let cwd = home.join(&case.folder);
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(&cwd).unwrap();
        expected.extend(case.expected(text(&cwd)));
        commands.push(Command { spec: case.spec(text(&home)), home: text(&home).to_owned(), folder });
    }
    // A panic is of one command too, which is then looked for.
    let printed = panic::catch_unwind(AssertUnwindSafe(|| transport.run(shell, &commands)));
    let printed = printed.map_err(|_| "the transport panicked".to_owned())?;
    if printed == expected {
        return Ok(());
    }
    let [printed, expected] = [printed, expected].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Err(format!("{printed:?} is not {expected:?}"))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
