//! Whole processes: what someone at a prompt waits for.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Failure;
use crate::measure::{Row, factor, in_turn, show};

const ROUNDS: usize = 25;

fn quietly(program: &Path, args: &[&str]) -> Result<(), Failure> {
    let status = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{} {args:?} failed", program.display()).into()) }
}

/// Where `pcoder engine install` put an engine's program.
pub fn entrypoint(pcoder: &Path, engine: &str) -> Result<PathBuf, Failure> {
    let output = Command::new(pcoder).args(["engine", "install", engine, "--json"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("\"entrypoint\": \"")).ok_or("no entrypoint")?;
    Ok(PathBuf::from(line.trim_end_matches(['"', ','])))
}

/// `list-tools` against Node doing nothing, and what `run` adds to a tool that exits at once.
pub fn rows(pcoder: &Path) -> Result<Vec<Row>, Failure> {
    let node = Path::new("node");
    let (ours, theirs) =
        in_turn(ROUNDS, || quietly(pcoder, &["list-tools", "--json"]), || quietly(node, &["-e", "0"]))?;
    let tools = factor("`pcoder list-tools --json`, whole process", ours, "`node -e 0`", theirs, "8 times");
    let codex = entrypoint(pcoder, "codex")?;
    let (through, direct) =
        in_turn(ROUNDS, || quietly(pcoder, &["run", "codex", "--", "--version"]), || quietly(&codex, &["--version"]))?;
    let run = Row {
        what: "`pcoder run` of a tool that exits at once".into(),
        ours: show(through),
        other: "the tool itself".into(),
        theirs: show(direct),
        result: format!("{} added", show(through.saturating_sub(direct))),
        aim: "under 15 ms added",
    };
    Ok(vec![tools, run])
}
