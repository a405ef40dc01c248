//! `cargo xtask guest-image --boot N`: the image is started as pcoder starts it, used, and saved; two copies of it go on
//! from there, one that learns by itself who it is and one that is told; so many times. One that hangs fails the check.

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
use super::machine::{Control, Machine, Place};
use super::manifest::Manifest;
use super::qemu::{self, Accelerator, Disks, Memory};
use super::seed::seed;

/// From the start of QEMU to its end.
const DEADLINE: Duration = Duration::from_secs(120);

/// How long the guest has to go down.
const DOWN: Duration = Duration::from_secs(20);

/// A guest that is renewed is told that so much time went by, to see that it believes it.
const LATER: Duration = Duration::from_secs(86_400);

/// How far the clock of a guest may be off that set it by the hardware's, whose smallest unit is the second.
const OFF: Duration = Duration::from_secs(5);

/// What one round took: since the QEMU in question was started, or what is named.
struct Times {
    ready: Duration,
    login: Duration,
    /// To stop it, write its state and end QEMU.
    saved: Duration,
    /// The copy says that it is another machine.
    copied: Duration,
    copy_login: Duration,
    /// From the word of the host until the other copy says so.
    renewed: Duration,
    /// From the word of the host until QEMU has ended.
    down: Duration,
    way: &'static str,
}

impl Times {
    const NAMES: [&str; 7] = ["ready", "ssh ok", "saved", "restored", "ssh ok", "renew", "down"];

    fn all(&self) -> [Duration; 7] {
        [self.ready, self.login, self.saved, self.copied, self.copy_login, self.renewed, self.down]
    }
}

/// The folders of a round's machines: one that boots and is saved, a copy of it, and another one.
const MACHINES: [&str; 3] = ["template", "copy", "told"];

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
    println!("{:>5} {}  by", "boot", Times::NAMES.map(|it| format!("{it:>8}")).join(" "));
    let mut all = Vec::new();
    for number in 1..=times {
        let took = check.round(number).map_err(|failure| {
            let consoles = MACHINES.map(|it| tail(&folder.join(it).join("console.log"))).join("\n");
            format!("boot {number} of {times}: {failure}\n\nThe end of what the guests' consoles say:\n\n{consoles}")
        })?;
        row(&number.to_string(), took.all(), took.way);
        all.push(took.all());
    }
    let of = |pick: fn(Vec<Duration>) -> Duration| {
        let mut column = 0..;
        [(); 7].map(|()| {
            let column = column.next().unwrap_or_default();
            pick(all.iter().map(|it| it[column]).collect())
        })
    };
    row("min", of(|all| all.into_iter().min().unwrap_or_default()), "");
    row("mid", of(median), "");
    row("max", of(|all| all.into_iter().max().unwrap_or_default()), "");
    super::root::remove(&folder)
}

fn row(name: &str, times: [Duration; 7], way: &str) {
    println!("{name:>5} {}  {way}", times.map(|it| format!("{:8.2}", it.as_secs_f64())).join(" "));
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
    fn round(&self, number: usize) -> Result<Times, Failure> {
        let name = format!("check-{number}");
        let memory = self.folder.join("memory");
        let [template, copy, told] = MACHINES.map(|it| self.folder.join(it));

        self.disks(&template, &self.image.join(&self.manifest.root.file), &name)?;
        let started = Instant::now();
        let until = started + DEADLINE;
        let mut machine = self.start(&template, Memory::Kept(&memory), Control::Ring, until)?;
        let key = ready(&mut machine, until)?;
        let ready_after = started.elapsed();
        let port = machine.ssh_port(until)?;
        self.pin(port, &key)?;
        begins(&self.ssh(port, "echo ok")?, &["ok"])?;
        let login = started.elapsed();
        let question = "id -un; uname -n; echo $PCODER_CHECK; sudo -n id -u; git --version; rg --version | head -n 1";
        begins(&self.ssh(port, question)?, &["pcoder", &name, &name, "0", "git version ", "ripgrep "])?;
        // Every other time at once: the boot goes on in the copies.
        if number.is_multiple_of(2) {
            self.ssh(port, "until [ -e /run/pcoder/settled ]; do sleep 0.1; done")?;
        }
        let asked = Instant::now();
        machine.save(&template.join("state"), until)?;
        let saved = asked.elapsed();

        let [name, other] = ["copy", "told"].map(|it| format!("{name}-{it}"));
        self.disks(&copy, &template.join("root.qcow2"), &name)?;
        self.disks(&told, &template.join("root.qcow2"), &other)?;
        let (machine, port, copied, copy_login) = self.copy(&copy, &name, &key)?;
        let (down, way) = self.end(machine, port, number)?;
        let renewed = self.told(&told, &other, &key)?;
        Ok(Times { ready: ready_after, login, saved, copied, copy_login, renewed, down, way })
    }

    /// Shuts a guest down, in one of two ways.
    fn end(&self, mut machine: Machine, port: u16, number: usize) -> Result<(Duration, &'static str), Failure> {
        let way = if number.is_multiple_of(2) { "power button" } else { "guest agent" };
        // Its start may be among what a copy has still to do.
        self.ssh(port, "until pidof -q qemu-ga; do sleep 0.1; done")?;
        let asked = Instant::now();
        if number.is_multiple_of(2) {
            self.press(&mut machine, asked)?;
        } else {
            machine.agent.say(&json!({ "execute": "guest-shutdown" }).to_string())?;
        }
        if !machine.ended(asked + DOWN)? {
            return Err(format!("the guest does not go down by the {way}"));
        }
        Ok((asked.elapsed(), way))
    }

    /// A copy that finds out by itself that it is one: how long until it said so, and until somebody logged in.
    fn copy(&self, folder: &Path, name: &str, key: &str) -> Result<(Machine, u16, Duration, Duration), Failure> {
        let memory = self.folder.join("memory");
        let started = Instant::now();
        let until = started + DEADLINE;
        let mut machine = self.start(folder, Memory::Copied(&memory), Control::Ring, until)?;
        machine.restore(&self.folder.join("template").join("state"), until)?;
        let copied = another(&mut machine, key, name, until)?;
        let ready_after = started.elapsed();
        let port = machine.ssh_port(until)?;
        self.pin(port, &copied)?;
        begins(&self.ssh(port, "echo ok")?, &["ok"])?;
        let login = started.elapsed();
        begins(&self.ssh(port, "uname -n; echo $PCODER_CHECK")?, &[name, name])?;
        self.clock(port, unix_time()?)?;
        Ok((machine, port, ready_after, login))
    }

    /// Another copy beside it, which is told by the host what it is: how long that took.
    fn told(&self, folder: &Path, name: &str, key: &str) -> Result<Duration, Failure> {
        let memory = self.folder.join("memory");
        let until = Instant::now() + DEADLINE;
        let mut machine = self.start(folder, Memory::Copied(&memory), Control::Socket(Place::open()?), until)?;
        machine.restore(&self.folder.join("template").join("state"), until)?;
        let copied = another(&mut machine, key, name, until)?;
        let asked = Instant::now();
        let name = format!("{name}-again");
        let renewed = renew(&mut machine, &name, &copied, until)?;
        let took = asked.elapsed();
        let port = machine.ssh_port(until)?;
        self.pin(port, &renewed)?;
        self.clock(port, unix_time()? + LATER)?;
        Ok(took)
    }

    fn start(&self, folder: &Path, memory: Memory<'_>, control: Control, until: Instant) -> Result<Machine, Failure> {
        let agent = Place::open()?;
        let disks = Disks { folder, memory, control: control.number()?, agent: agent.number()? };
        let arguments = qemu::arguments(self.image, self.manifest, self.accelerator, &disks);
        Machine::start(self.architecture.qemu, &arguments, &folder.join("qemu.log"), control, agent, until)
    }

    fn clock(&self, port: u16, now: Duration) -> Result<(), Failure> {
        let (said, now) = (self.ssh(port, "date +%s")?, now.as_secs());
        if said.trim().parse().is_ok_and(|it: u64| it.abs_diff(now) <= OFF.as_secs()) {
            return Ok(());
        }
        Err(format!("it is {now}, and the guest's clock says {said}"))
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

    /// A folder with the overlay that takes what the guest writes, and its seed.
    fn disks(&self, folder: &Path, base: &Path, name: &str) -> Result<(), Failure> {
        super::root::remove(folder)?;
        fs::create_dir_all(folder).map_err(at(folder))?;
        let format = if base.extension().is_some_and(|it| it == "qcow2") { "qcow2" } else { "raw" };
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "-F", format, "-b"]).arg(base).arg(folder.join("root.qcow2"));
        self.log.run(&mut create)?;
        let path = self.folder.join("key.pub");
        let key = fs::read_to_string(&path).map_err(at(&path))?;
        let disk = seed(&[
            ("meta-data", &format!("instance-id: {name}\nlocal-hostname: {name}\n")),
            ("authorized_keys", &key),
            ("environment", &format!("PCODER_CHECK={name}\n")),
        ])?;
        let path = folder.join("seed.img");
        fs::write(&path, disk).map_err(at(&path))
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

/// Waits until somebody can log in, and returns the host key with whose it is.
fn ready(machine: &mut Machine, until: Instant) -> Result<String, Failure> {
    let line = machine.told(until).map_err(|failure| format!("the guest is not ready: {failure}"))?;
    match line.strip_prefix("ready ") {
        Some(key) if key.starts_with("ssh-ed25519 ") => Ok(key.to_owned()),
        _ => Err(format!("the guest says `{line}` instead of `ready` with its key")),
    }
}

/// The same for a guest that is to be another one now, with another key.
fn another(machine: &mut Machine, key: &str, name: &str, until: Instant) -> Result<String, Failure> {
    let now = ready(machine, until)?;
    let part = |key: &str| key.split(' ').nth(1).map(str::to_owned);
    if part(&now) == part(key) {
        return Err("the guest kept its host key".to_owned());
    }
    if now.split(' ').nth(2) != Some(name) {
        return Err(format!("the guest is `{now}`, not {name}"));
    }
    Ok(now)
}

/// What a host says that can say something. Another key comes back.
fn renew(machine: &mut Machine, name: &str, key: &str, until: Instant) -> Result<String, Failure> {
    machine.tell("what?")?;
    let answer = machine.told(until)?;
    if answer != "unknown" {
        return Err(format!("the guest answers `{answer}` to what it cannot know"));
    }
    let now = unix_time()? + LATER;
    let (seconds, nanoseconds) = (now.as_secs(), now.subsec_nanos());
    machine.tell(&format!("renew {seconds}.{nanoseconds:09} {name} {}", "5a".repeat(32)))?;
    another(machine, key, name, until)
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
