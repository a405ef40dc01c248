//! Installing an engine from a mirror on this machine, against npm and against a shell's pipeline.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Failure;
use crate::measure::{Row, factor, in_turn};

const ROUNDS: usize = 5;
const PACKAGE: &str = "claude-agent-sdk-linux-x64";
const VERSION: &str = "0.3.316";

struct Mirror {
    process: Child,
    url: String,
}

impl Drop for Mirror {
    fn drop(&mut self) {
        // It only serves files; there is nothing to lose.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// Fetches the package once with npm, and lays it out as a registry does.
fn lay_out(folder: &Path) -> Result<(), Failure> {
    let path = folder.join("@anthropic-ai").join(PACKAGE).join("-");
    fs::create_dir_all(&path)?;
    let tarball = path.join(format!("{PACKAGE}-{VERSION}.tgz"));
    if !tarball.is_file() {
        run(Command::new("npm")
            .args(["pack", &format!("@anthropic-ai/{PACKAGE}@{VERSION}"), "--pack-destination"])
            .arg(folder))?;
        fs::rename(folder.join(format!("anthropic-ai-{PACKAGE}-{VERSION}.tgz")), tarball)?;
    }
    Ok(())
}

fn serve(mirror: &Path, folder: &Path) -> Result<Mirror, Failure> {
    let mut process = Command::new(mirror).arg(folder).stdout(Stdio::piped()).spawn()?;
    let mut url = String::new();
    BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut url)?;
    Ok(Mirror { process, url: url.trim().trim_end_matches('/').to_owned() })
}

/// What npm asks a registry before it downloads.
fn packument(folder: &Path, url: &str) -> Result<(), Failure> {
    let output =
        Command::new("npm").args(["view", &format!("@anthropic-ai/{PACKAGE}@{VERSION}"), "dist.integrity"]).output()?;
    let integrity = String::from_utf8(output.stdout)?.trim().to_owned();
    let text = format!(
        "{{\"name\":\"@anthropic-ai/{PACKAGE}\",\"dist-tags\":{{\"latest\":\"{VERSION}\"}},\"versions\":{{\"{VERSION}\":\
         {{\"name\":\"@anthropic-ai/{PACKAGE}\",\"version\":\"{VERSION}\",\"dist\":{{\"integrity\":\"{integrity}\",\
         \"tarball\":\"{url}/@anthropic-ai/{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz\"}}}}}}}}"
    );
    fs::write(folder.join("@anthropic-ai").join(format!("{PACKAGE}.json")), text)?;
    Ok(())
}

fn emptied(folder: &Path) -> Result<(), Failure> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(fs::create_dir_all(folder)?)
}

/// The three ways, in turn.
pub fn rows(pcoder: &Path, mirror: &Path) -> Result<Vec<Row>, Failure> {
    let work = std::env::temp_dir().join("pcoder-bench");
    let registry = work.join("registry");
    fs::create_dir_all(&registry)?;
    lay_out(&registry)?;
    let mirror = serve(mirror, &registry)?;
    packument(&registry, &mirror.url)?;
    let ours = || {
        emptied(&work.join("pcoder"))?;
        run(Command::new(pcoder)
            .args(["engine", "install", "claude", "--registry", &mirror.url])
            .env("PCODER_HOME", work.join("pcoder"))
            .env_remove("PCODER_ENGINES"))
    };
    let npm = || {
        emptied(&work.join("npm"))?;
        emptied(&work.join("npm-cache"))?;
        run(Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--force", "--prefix"])
            .arg(work.join("npm"))
            .arg(format!("@anthropic-ai/{PACKAGE}@{VERSION}"))
            .arg(format!("--registry={}", mirror.url))
            .arg("--cache")
            .arg(work.join("npm-cache")))
    };
    let pipeline = || {
        emptied(&work.join("pipeline"))?;
        let url = format!("{}/@anthropic-ai/{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz", mirror.url);
        run(Command::new("bash").current_dir(work.join("pipeline")).args([
            "-c",
            "set -o pipefail; curl -sSf \"$1\" | tee >(sha512sum > sum) | tar xz",
            "bash",
            &url,
        ]))
    };
    let what = "`pcoder engine install claude` from a local mirror (152 MB)";
    let (a, b) = in_turn(ROUNDS, ours, npm)?;
    let (c, d) = in_turn(ROUNDS, ours, pipeline)?;
    let rows = vec![
        factor(what, a, "`npm install` of the same package", b, "2.5 times"),
        factor(what, c, "`curl | tee >(sha512sum) | tar xz`", d, "2 times"),
    ];
    drop(mirror);
    for folder in ["pcoder", "npm", "npm-cache", "pipeline"] {
        emptied(&work.join(folder))?;
    }
    Ok(rows)
}
