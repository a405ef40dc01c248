//! Another process: this very test binary, started with the one test below, which appends when it is told to by its
//! environment and otherwise passes.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use pcoder_audit::Rotation;

use crate::world::{log_in, record};

const TOLD: &str = "PCODER_AUDIT_TEST_CHILD";

/// How much another process appends.
pub(crate) struct Work {
    pub(crate) threads: u64,
    pub(crate) records: u64,
    pub(crate) rotation: Rotation,
}

/// Appends, and prints a line for each record.
pub(crate) fn start(folder: &Path, work: &Work) -> Child {
    start_by(folder, work, Command::new(std::env::current_exe().unwrap()))
}

/// The same by a program whose last arguments are the command.
pub(crate) fn start_by(folder: &Path, work: &Work, mut program: Command) -> Child {
    let Work { threads, records, rotation: Rotation { max_bytes, keep } } = work;
    program
        .args(["--exact", "child::appends_when_told", "--nocapture"])
        .env(TOLD, format!("{}\n{threads}\n{records}\n{max_bytes}\n{keep}", folder.to_str().unwrap()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn appends_when_told() {
    let Ok(told) = std::env::var(TOLD) else {
        return;
    };
    let told: Vec<_> = told.lines().collect();
    let [threads, records, max_bytes, keep] = [1, 2, 3, 4].map(|at| told[at].parse::<u64>().unwrap());
    let log = log_in(Path::new(told[0]), Rotation { max_bytes, keep: usize::try_from(keep).unwrap() });
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for number in 0..records {
                    match log.append(&record(number)) {
                        Ok(head) => println!("appended {}", head.seq),
                        Err(error) => println!("failed: {error}"),
                    }
                }
            });
        }
    });
}
