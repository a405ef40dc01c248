//! Machines that are not this one, on a stand-in for Morph Cloud on this machine: what pcoder adds to its requests.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Failure;
use crate::measure::{Row, in_turn, median, show};

const ROUNDS: usize = 51;
const BOOT_ROUNDS: usize = 7;
const AT_ONCE: usize = 100;
const KEY: &str = "bench";

/// The stand-in as a process of its own; it ends with its input.
struct Cloud {
    process: Child,
    url: String,
    _until: ChildStdin,
}

impl Cloud {
    fn start(program: &Path) -> Result<Self, Failure> {
        let mut process = Command::new(program)
            .args(["--key", KEY, "--until-eof"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (until, stdout) = process.stdin.take().zip(process.stdout.take()).ok_or("no pipes")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ready: Value = serde_json::from_str(&line)?;
        let url = ready["base_url"].as_str().ok_or("no address")?.to_owned();
        Ok(Self { process, url, _until: until })
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// pcoder with a folder of its own, which knows the stand-in.
struct Pcoder<'a> {
    program: &'a Path,
    home: &'a Path,
}

impl Pcoder<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.args(args).env("PCODER_HOME", self.home).env("MORPH_API_KEY", KEY).stdin(Stdio::null());
        command
    }

    fn output(&self, args: &[&str]) -> Result<String, Failure> {
        let output = self.command(args).output()?;
        if !output.status.success() {
            return Err(format!("pcoder {args:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Boots instances: how long that took, and the most memory that pcoder had, in KiB. They are gone then.
    fn boots(&self, count: usize) -> Result<(Duration, u64), Failure> {
        let count = count.to_string();
        let started = Instant::now();
        let mut child =
            self.command(&["instance", "boot", "--count", &count, "--json"]).stdout(Stdio::piped()).spawn()?;
        let mut peak = 0;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            peak = peak.max(most_memory(child.id()).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(1));
        };
        let took = started.elapsed();
        if !status.success() {
            return Err(format!("{count} boots at once: {status}").into());
        }
        let listed: Value = serde_json::from_str(&self.output(&["instance", "list", "--json"])?)?;
        let ids = listed["instances"].as_array().into_iter().flatten().filter_map(|it| it["id"].as_str());
        let mut args = vec!["instance", "terminate"];
        args.extend(ids);
        self.output(&args)?;
        Ok((took, peak))
    }
}

/// The kernel's own record of the most memory that a process had.
fn most_memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}

/// A command on an instance beside `curl` making the same request, and many boots at once beside one.
pub fn rows(pcoder: &Path, fake_morph: &Path) -> Result<Vec<Row>, Failure> {
    let work = std::env::temp_dir().join("pcoder-bench-remote");
    drop(std::fs::remove_dir_all(&work));
    let cloud = Cloud::start(fake_morph)?;
    let pcoder = Pcoder { program: pcoder, home: &work };
    pcoder.output(&["config", "set", "plugins.provider-morph.endpoint", &cloud.url])?;
    pcoder.output(&["config", "set", "plugins.provider-morph.snapshot", "snapshot_c1p8b6c2"])?;
    pcoder.output(&["config", "set", "provider", "morph"])?;
    let id = pcoder.output(&["instance", "boot"])?.trim().to_owned();

    let exec = ["instance", "exec", &id, "--", "true"];
    pcoder.output(&exec)?;
    let origin = cloud.url.trim_end_matches("/api");
    let seen = Command::new("curl").args(["-sSf", &format!("{origin}/__fake/requests")]).output()?;
    let seen: Value = serde_json::from_slice(&seen.stdout)?;
    let last = seen.as_array().and_then(|all| all.last()).ok_or("no request was seen")?;
    let (path, body) = last["path"].as_str().zip(last["body"].as_str()).ok_or("the request cannot be read")?;
    let (url, login) = (format!("{origin}{path}"), format!("Authorization: Bearer {KEY}"));
    let curl = || {
        let output = Command::new("curl")
            .args(["-sSf", "-X", "POST", "-H", &login, "-H", "Content-Type: application/json", "-d", body, &url])
            .output()?;
        if output.status.success() { Ok(()) } else { Err(Failure::from("curl failed")) }
    };
    let (ours, theirs) = in_turn(ROUNDS, || pcoder.output(&exec).map(drop), curl)?;
    let added =
        if ours > theirs { format!("{} added", show(ours - theirs)) } else { format!("{} less", show(theirs - ours)) };
    let exec = Row {
        what: "`pcoder instance exec` of `true` on a stand-in for Morph, whole process".into(),
        ours: show(ours),
        other: "`curl` making the same request".into(),
        theirs: show(theirs),
        result: added,
        aim: "under 3 ms added",
    };
    pcoder.output(&["instance", "terminate", &id])?;

    let (mut many, mut one, mut peak) = (Vec::new(), Vec::new(), 0);
    for _ in 0..BOOT_ROUNDS {
        let (took, memory) = pcoder.boots(AT_ONCE)?;
        many.push(took);
        peak = peak.max(memory);
        one.push(pcoder.boots(1)?.0);
    }
    let (many, one) = (median(many), median(one));
    let boots = Row {
        what: format!("{AT_ONCE} instances booted at once, at most {} MiB of memory", peak >> 10),
        ours: show(many),
        other: "one".into(),
        theirs: show(one),
        result: format!("{:.2} times its time", many.as_secs_f64() / one.as_secs_f64()),
        aim: "1.5 times, under 200 MiB",
    };
    drop(std::fs::remove_dir_all(&work));
    Ok(vec![exec, boots])
}
