//! `cargo xtask guest-image --boot N`: the image is started as pcoder starts it, used, and shut down, so many times. One
//! boot that hangs fails the check.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::Failure;
use crate::debian::on_path;
use crate::workspace::at;

use super::Architecture;
use super::log::{Log, tail};
use super::machine::{Machine, Place};
use super::manifest::Manifest;
use super::qemu::{self, Accelerator, Disks};
use super::seed::seed;

/// From the start of QEMU to its end.
const DEADLINE: Duration = Duration::from_secs(120);

/// How long the guest has to go down.
const DOWN: Duration = Duration::from_secs(20);

/// A guest that is renewed is told that so much time went by, to see that it believes it.
const LATER: Duration = Duration::from_secs(86_400);

/// What one boot took, since QEMU was started; the end since it was asked for.
struct Times {
    ready: Duration,
    login: Duration,
    renewed: Duration,
    down: Duration,
    way: &'static str,
}

struct Check<'a> {
    architecture: &'a Architecture,
    image: &'a Path,
    manifest: &'a Manifest,
    accelerator: Accelerator,
    folder: &'a Path,
    log: Log,
}

/// Boots an image several times and prints what that took.
pub(super) fn check(
    architecture: &Architecture,
    image: &Path,
    manifest: &Manifest,
    times: usize,
) -> Result<(), Failure> {
    let accelerator = Accelerator::of_this_machine();
    let version = qemu::find(architecture, accelerator, image)?;
    if !on_path("ssh") || !on_path("ssh-keygen") {
        return Err("the check logs in with `ssh`: `apt-get install openssh-client`".to_owned());
    }
    let folder = image.join("boot");
    super::root::remove(&folder)?;
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    let log = Log::create(&image.join("boot.log"))?;
    let key = folder.join("key");
    log.run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "check", "-f"]).arg(&key))?;
    let check = Check { architecture, image, manifest, accelerator, folder: &folder, log };
    println!("QEMU {version}, {}; seconds:", accelerator.name());
    println!("{:>5} {:>8} {:>8} {:>8} {:>8}  by", "boot", "ready", "ssh ok", "renew", "down");
    let mut all = Vec::new();
    for number in 1..=times {
        let took = check.boot(number).map_err(|failure| {
            let console = tail(&folder.join("console.log"));
            format!("boot {number} of {times}: {failure}\n\nThe end of what the guest's console says:\n\n{console}")
        })?;
        row(&number.to_string(), &took, took.way);
        all.push(took);
    }
    let of = |pick: fn(Vec<Duration>) -> Duration| Times {
        ready: pick(all.iter().map(|it| it.ready).collect()),
        login: pick(all.iter().map(|it| it.login).collect()),
        renewed: pick(all.iter().map(|it| it.renewed).collect()),
        down: pick(all.iter().map(|it| it.down).collect()),
        way: "",
    };
    row("min", &of(|all| all.into_iter().min().unwrap_or_default()), "");
    row("mid", &of(median), "");
    row("max", &of(|all| all.into_iter().max().unwrap_or_default()), "");
    super::root::remove(&folder)
}

fn row(name: &str, times: &Times, way: &str) {
    let seconds = [times.ready, times.login, times.renewed, times.down].map(|it| format!("{:8.2}", it.as_secs_f64()));
    println!("{name:>5} {}  {way}", seconds.join(" "));
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    match (all.get(all.len() / 2), all.len() % 2) {
        (Some(upper), 0) => (*upper + all[all.len() / 2 - 1]) / 2,
        (Some(middle), _) => *middle,
        (None, _) => Duration::ZERO,
    }
}

impl Check<'_> {
    fn boot(&self, number: usize) -> Result<Times, Failure> {
        let name = format!("check-{number}");
        self.disks(&name)?;
        let (control, agent) = (Place::open()?, Place::open()?);
        let disks = Disks { folder: self.folder, control: control.number()?, agent: agent.number()? };
        let arguments = qemu::arguments(self.image, self.manifest, self.accelerator, &disks);
        let errors = self.folder.join("qemu.log");
        let started = Instant::now();
        let until = started + DEADLINE;
        let mut machine = Machine::start(self.architecture.qemu, &arguments, &errors, control, agent, until)?;

        let key = ready(&machine, until)?;
        let ready_after = started.elapsed();
        let port = machine.ssh_port(until)?;
        self.pin(port, &key)?;
        begins(&self.ssh(port, "echo ok")?, &["ok"])?;
        let login = started.elapsed();
        let question = "id -un; uname -n; echo $PCODER_CHECK; sudo -n id -u; git --version; rg --version | head -n 1";
        begins(&self.ssh(port, question)?, &["pcoder", &name, &name, "0", "git version ", "ripgrep "])?;

        let asked = Instant::now();
        let renewed = self.renew(&mut machine, &name, &key, until)?;
        let renewal = asked.elapsed();
        self.pin(port, &renewed)?;
        let (said, now) = (self.ssh(port, "date +%s")?, (unix_time()? + LATER).as_secs());
        if !said.trim().parse().is_ok_and(|it: u64| it.abs_diff(now) <= 5) {
            return Err(format!("the guest was told that it is {now}, and its clock says {said}"));
        }

        let (asked, way) = (Instant::now(), if number.is_multiple_of(2) { "power button" } else { "guest agent" });
        if number.is_multiple_of(2) {
            self.press(&mut machine, asked)?;
        } else {
            machine.agent.say(&json!({ "execute": "guest-shutdown" }).to_string())?;
        }
        if !machine.ended(asked + DOWN)? {
            return Err(format!("the guest does not go down by the {way}"));
        }
        Ok(Times { ready: ready_after, login, renewed: renewal, down: asked.elapsed(), way })
    }

    /// Presses the power button, once a second: the guest does not hear it before it listens.
    fn press(&self, machine: &mut Machine, asked: Instant) -> Result<(), Failure> {
        loop {
            let pressed = machine.execute("system_powerdown", &json!({}), asked + DOWN);
            let until = Instant::now() + Duration::from_secs(1);
            if machine.ended(until)? || until > asked + DOWN {
                return Ok(());
            }
            pressed?;
        }
    }

    /// The overlay that takes what the guest writes, and its seed.
    fn disks(&self, name: &str) -> Result<(), Failure> {
        let base = self.image.join(&self.manifest.root.file);
        let overlay = self.folder.join("root.qcow2");
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(base).arg(overlay);
        self.log.run(&mut create)?;
        let path = self.folder.join("key.pub");
        let key = fs::read_to_string(&path).map_err(at(&path))?;
        let disk = seed(&[
            ("meta-data", &format!("instance-id: {name}\nlocal-hostname: {name}\n")),
            ("authorized_keys", &key),
            ("environment", &format!("PCODER_CHECK={name}\n")),
        ])?;
        let path = self.folder.join("seed.img");
        fs::write(&path, disk).map_err(at(&path))
    }

    /// What is said to a guest whose memory was restored. Another key comes back.
    fn renew(&self, machine: &mut Machine, name: &str, key: &str, until: Instant) -> Result<String, Failure> {
        machine.control.say("what?")?;
        let answer = machine.control.lines.next(until)?;
        if answer != "unknown" {
            return Err(format!("the guest answers `{answer}` to what it cannot know"));
        }
        let now = unix_time()? + LATER;
        let (seconds, nanoseconds) = (now.as_secs(), now.subsec_nanos());
        machine.control.say(&format!("renew {seconds}.{nanoseconds:09} {name}-again {}", "5a".repeat(32)))?;
        let renewed = ready(machine, until)?;
        if renewed == key {
            return Err("the guest kept its host key".to_owned());
        }
        Ok(renewed)
    }

    /// Believes this host key and no other.
    fn pin(&self, port: u16, key: &str) -> Result<(), Failure> {
        let path = self.folder.join("known_hosts");
        fs::write(&path, format!("[127.0.0.1]:{port} {key}\n")).map_err(at(&path))
    }

    /// Logs in, runs a command and returns what it printed.
    fn ssh(&self, port: u16, command: &str) -> Result<String, Failure> {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes"])
            // So ssh ends by itself, whatever the guest does.
            .args(["-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile=\"{}\"", self.folder.join("known_hosts").display()))
            .arg("-i")
            .arg(self.folder.join("key"))
            .args(["-p", &port.to_string(), "pcoder@127.0.0.1", command]);
        let output = ssh.output().map_err(|error| format!("ssh: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(format!("`ssh … {command}` failed ({}): {text}{errors}", output.status))
    }
}

/// Whether the lines of a text begin so.
fn begins(text: &str, expected: &[&str]) -> Result<(), Failure> {
    let lines: Vec<&str> = text.lines().collect();
    let fits = lines.len() == expected.len() && lines.iter().zip(expected).all(|(line, it)| line.starts_with(it));
    if fits { Ok(()) } else { Err(format!("a command in the guest says {lines:?} instead of {expected:?}")) }
}

/// Waits until somebody can log in, and returns the host key.
fn ready(machine: &Machine, until: Instant) -> Result<String, Failure> {
    let line = machine.control.lines.next(until).map_err(|failure| format!("the guest is not ready: {failure}"))?;
    match line.strip_prefix("ready ") {
        Some(key) if key.starts_with("ssh-ed25519 ") => Ok(key.to_owned()),
        _ => Err(format!("the guest says `{line}` instead of `ready` with its key")),
    }
}

fn unix_time() -> Result<Duration, Failure> {
    SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| format!("this machine's clock: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let seconds = |all: &[u64]| median(all.iter().map(|it| Duration::from_secs(*it)).collect());
        assert_eq!(seconds(&[3, 1, 2]), Duration::from_secs(2));
        assert_eq!(seconds(&[4, 1, 2, 3]), Duration::from_millis(2500));
        assert_eq!(seconds(&[]), Duration::ZERO);
    }
}
