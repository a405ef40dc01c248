//! `cargo xtask bench vm`: pcoder's virtual machines beside plain QEMU, OpenSSH and rsync, with the same image and the
//! same accelerator, in one run: the second table of docs/performance.md.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Failure;
use crate::build::{build, run, target};
use crate::debian;
use crate::guest_image;
use crate::workspace::at;

#[path = "../../../tests/bench/src/measure.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is the other benchmark's, which is a program of its own")]
mod measure;

use measure::{Row, in_turn, median, show, table};

const BOOTS: usize = 7;
const COMMANDS: usize = 31;
const STREAMS: usize = 21;
/// Between two commands.
const BREATH: Duration = Duration::from_millis(100);
const SYNCS: usize = 5;

/// What is streamed.
const BULK: u64 = 64 << 20;
/// The project that is synced.
const FILES: usize = 5_000;
const PROJECT: usize = 50 << 20;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(300);

/// Builds pcoder and the guest image, and prints the table. `only` names parts of it.
pub(super) fn bench(only: &[&str]) -> Result<(), Failure> {
    let program = build()?;
    let image = target().join("guest-image");
    guest_image::for_tests(&image)?;
    debian::bench_vm()?;
    let work = target().join("bench-vm");
    drop(fs::remove_dir_all(&work));
    fs::create_dir_all(&work).map_err(at(&work))?;
    let bench = Bench::new(program, image, work)?;
    // What was built just now is not written to the disk while something is timed.
    run(&mut Command::new("sync"))?;
    let parts: [(&str, Part); 4] =
        [("boot", Bench::boots), ("exec", Bench::commands), ("bulk", Bench::streams), ("sync", Bench::syncs)];
    if let Some(unknown) = only.iter().find(|it| parts.iter().all(|(name, _)| name != *it)) {
        return Err(format!("there is no part `{unknown}`"));
    }
    let mut rows = Vec::new();
    for (name, part) in parts {
        if only.is_empty() || only.contains(&name) {
            let part = part(&bench)?;
            // Shown as they come: the whole takes minutes.
            eprint!("{}", table(&part));
            rows.extend(part);
        }
    }
    print!("{}", table(&rows));
    Ok(())
}

/// Some rows of the table.
type Part = fn(&Bench) -> Result<Vec<Row>, Failure>;

struct Bench {
    program: PathBuf,
    image: PathBuf,
    work: PathBuf,
    home: PathBuf,
}

impl Bench {
    fn new(program: PathBuf, image: PathBuf, work: PathBuf) -> Result<Self, Failure> {
        let home = work.join("home");
        let there = home.join("images").join("debian-13-amd64");
        fs::create_dir_all(&there).map_err(at(&there))?;
        for file in ["vmlinux", "initrd", "root.img", "guest.json"] {
            fs::hard_link(image.join(file), there.join(file)).map_err(at(&there))?;
        }
        let bench = Self { program, image, work, home };
        bench.pcoder(&["config", "set", "provider", "qemu"])?;
        Ok(bench)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("PCODER_HOME", &self.home).stdin(Stdio::null());
        command
    }

    fn pcoder(&self, args: &[&str]) -> Result<String, Failure> {
        output(&mut self.command(args))
    }

    /// From nothing to the first command's answer; the instance is ended after that.
    fn boot(&self, options: &[&str]) -> Result<Duration, Failure> {
        let started = Instant::now();
        let id = self.pcoder(&[&["instance", "boot"], options].concat())?;
        let said = self.pcoder(&["instance", "exec", id.trim(), "--", "echo", "ok"])?;
        let took = started.elapsed();
        self.pcoder(&["instance", "terminate", id.trim()])?;
        if said == "ok\n" { Ok(took) } else { Err(format!("the guest says `{said}`")) }
    }

    /// The same with QEMU and a loop of `ssh`, as one would write it by hand.
    fn plain_boot(&self, number: usize) -> Result<Duration, Failure> {
        let folder = self.work.join(format!("plain-{number}"));
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        let key = folder.join("key");
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key))?;
        let public = fs::read_to_string(key.with_extension("pub")).map_err(at(&key))?;
        let (mut qemu, port) = guest_image::plain(&self.image, &folder, &public)?;
        qemu.stdin(Stdio::null()).stdout(Stdio::null());
        let started = Instant::now();
        let mut machine = Ended(qemu.spawn().map_err(at(&folder))?);
        let config = Ssh { port, key, folder: folder.clone() }.config(false)?;
        loop {
            let answer = Command::new("ssh").arg("-F").arg(&config).args(["guest", "echo", "ok"]).output();
            if answer.map_err(|error| format!("ssh: {error}"))?.stdout == b"ok\n" {
                return Ok(started.elapsed());
            }
            let has_ended = machine.0.try_wait().is_ok_and(|it| it.is_some());
            if has_ended || started.elapsed() > PATIENCE {
                return Err(format!("plain QEMU's guest does not answer: {}", folder.join("console.log").display()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn boots(&self) -> Result<Vec<Row>, Failure> {
        // The first one is cold, and the second one makes the template.
        self.boot(&[])?;
        self.boot(&[])?;
        // In turn, as a computer is not as fast all the time: in a home that has no template, without pcoder, and from
        // it.
        let without = Self::new(self.program.clone(), self.image.clone(), self.work.join("cold"))?;
        let (mut cold, mut plain, mut warm) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..BOOTS {
            cold.push(without.boot(&["--option", "template=off"])?);
            plain.push(self.plain_boot(number)?);
            warm.push(self.boot(&[])?);
        }
        let (cold, plain, warm) = (median(cold), median(plain), median(warm));
        Ok(vec![
            Row {
                what: "from nothing to the first command's answer, cold".to_owned(),
                ours: show(cold),
                other: "`qemu-system` with the same image, and a loop of `ssh`".to_owned(),
                theirs: show(plain),
                result: format!("{:.2} of it", cold.as_secs_f64() / plain.as_secs_f64()),
                aim: "at most 1.1 of it",
            },
            measure::factor("the same from a template's memory", warm, "cold", cold, "4 times"),
        ])
    }

    /// An instance that stays for as long as this, and OpenSSH's way to the same one.
    fn instance(&self) -> Result<Instance<'_>, Failure> {
        let id = self.pcoder(&["instance", "boot"])?.trim().to_owned();
        let mut instance = Instance { bench: self, id, config: PathBuf::new() };
        instance.config = self.ssh(&instance.id)?;
        instance.ssh(&["true"]).status().map_err(|error| format!("ssh: {error}"))?;
        self.pcoder(&["instance", "exec", &instance.id, "--", "true"])?;
        Ok(instance)
    }

    fn ssh(&self, id: &str) -> Result<PathBuf, Failure> {
        let said: Value = serde_json::from_str(&self.pcoder(&["instance", "get", id, "--json"])?)
            .map_err(|error| format!("`instance get`: {error}"))?;
        let port = said["instance"]["details"]["ssh-port"].as_str().and_then(|it| it.parse().ok());
        let key = self.home.join("keys").join("provider-qemu").join("MACHINE_KEY");
        let folder = self.work.join(id);
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        Ssh { port: port.ok_or("no port for SSH")?, key, folder }.config(true)
    }

    fn commands(&self) -> Result<Vec<Row>, Failure> {
        let instance = self.instance()?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..COMMANDS {
            ours.push(timed(|| self.pcoder(&["instance", "exec", &instance.id, "--", "true"]))?);
            // What pcoder still does in the machine after a command is not to slow the other one.
            std::thread::sleep(BREATH);
            theirs.push(timed(|| output(&mut instance.ssh(&["true"])))?);
            std::thread::sleep(BREATH);
        }
        let (ours, theirs) = (median(ours), median(theirs));
        Ok(vec![no_slower(
            "`pcoder instance exec` of `true`, whole process",
            ours,
            "`ssh` with a control master",
            theirs,
        )])
    }

    fn streams(&self) -> Result<Vec<Row>, Failure> {
        let instance = self.instance()?;
        let make = format!("head -c {BULK} /dev/urandom > bulk; cat bulk > /dev/null");
        self.pcoder(&["instance", "exec", &instance.id, "--shell", &make])?;
        let (ours, theirs) = in_turn(
            STREAMS,
            || run(self.command(&["instance", "exec", &instance.id, "--", "cat", "bulk"]).stdout(Stdio::null())),
            || run(instance.ssh(&["cat", "bulk"]).stdout(Stdio::null())),
        )?;
        Ok(vec![no_slower("64 MiB of a command's output", ours, "`ssh … cat` with a control master", theirs)])
    }

    /// What a sync adds to a run: the same run with and without it. The agent ends at once.
    fn syncs(&self) -> Result<Vec<Row>, Failure> {
        let instance = self.instance()?;
        let agent = "printf '#!/bin/sh\\nexit 0\\n' | sudo tee /usr/local/bin/claude >/dev/null; \
                     sudo chmod 755 /usr/local/bin/claude";
        self.pcoder(&["instance", "exec", &instance.id, "--shell", agent])?;
        let rsync = instance.bring_rsync()?;
        let (mut first, mut first_rsync, mut again, mut again_rsync) = (vec![], vec![], vec![], vec![]);
        for number in 0..SYNCS {
            let project = self.work.join(format!("project-{number}"));
            make_project(&project)?;
            let without = timed(|| instance.run(&project, "--no-sync"))?;
            let sync = || instance.run(&project, "--no-sync-back").map(drop);
            first.push(timed(sync)?.saturating_sub(without));
            first_rsync.push(timed(|| instance.rsync(&rsync, &project))?);
            for _ in 0..SYNCS {
                let without = timed(|| instance.run(&project, "--no-sync"))?;
                again.push(timed(sync)?.saturating_sub(without));
                again_rsync.push(timed(|| instance.rsync(&rsync, &project))?);
            }
        }
        let (first, first_rsync) = (median(first), median(first_rsync));
        let beside = "`rsync -a` over `ssh` with a control master";
        Ok(vec![
            measure::factor(
                "a project of 5,000 files and 50 MB, the first time",
                first,
                beside,
                first_rsync,
                "1.5 times",
            ),
            no_slower("the same, unchanged", median(again), beside, median(again_rsync)),
        ])
    }
}

fn no_slower(what: &str, ours: Duration, other: &str, theirs: Duration) -> Row {
    Row {
        what: what.to_owned(),
        ours: show(ours),
        other: other.to_owned(),
        theirs: show(theirs),
        result: format!("{:.2} of its time", ours.as_secs_f64() / theirs.as_secs_f64()),
        aim: "no slower",
    }
}

fn timed<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<Duration, Failure> {
    let started = Instant::now();
    work().map(|_| started.elapsed())
}

/// A process that ends with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// How OpenSSH gets to a guest.
struct Ssh {
    port: u16,
    key: PathBuf,
    folder: PathBuf,
}

impl Ssh {
    fn config(&self, master: bool) -> Result<PathBuf, Failure> {
        let Self { port, key, folder } = self;
        let mut text = format!(
            "Host guest\n HostName 127.0.0.1\n Port {port}\n User pcoder\n IdentityFile \"{}\"\n IdentitiesOnly yes\n \
             StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n ConnectTimeout 1\n",
            key.display()
        );
        if master {
            // A name that fits into a socket's.
            text += &format!(" ControlMaster auto\n ControlPath /tmp/pcoder-bench-{port}\n ControlPersist 600\n");
        }
        let path = folder.join("ssh.conf");
        fs::write(&path, text).map_err(at(&path))?;
        Ok(path)
    }
}

struct Instance<'a> {
    bench: &'a Bench,
    id: String,
    /// OpenSSH's, with `guest` for the machine.
    config: PathBuf,
}

impl Instance<'_> {
    fn ssh(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(&self.config).arg("guest").args(args).stdin(Stdio::null());
        command
    }

    /// This host's rsync and its libraries: how it is started there.
    fn bring_rsync(&self) -> Result<String, Failure> {
        output(&mut self.ssh(&["mkdir", "-p", "rsync"]))?;
        let libraries = output(Command::new("sh").args(["-c", "ldd \"$(command -v rsync)\""]))?;
        let program = output(Command::new("sh").args(["-c", "command -v rsync"]))?;
        // The guest has a C library of its own, which is newer.
        let own = ["libc.so", "libm.so", "ld-linux"];
        let files = libraries.lines().filter_map(|line| line.split_whitespace().find(|it| it.starts_with('/')));
        let files = files.filter(|it| own.iter().all(|own| !it.contains(own))).chain([program.trim()]);
        for file in files {
            let name = Path::new(file).file_name().ok_or("a file without a name")?.to_string_lossy().into_owned();
            let mut copy = self.ssh(&[&format!("cat > rsync/{name} && chmod 755 rsync/{name}")]);
            let bytes = fs::read(file).map_err(at(Path::new(file)))?;
            let mut child = copy.stdin(Stdio::piped()).spawn().map_err(|error| format!("ssh: {error}"))?;
            child.stdin.take().ok_or("no pipe")?.write_all(&bytes).map_err(|error| format!("{file}: {error}"))?;
            if !child.wait().map_err(|error| format!("ssh: {error}"))?.success() {
                return Err(format!("{file} was not copied"));
            }
        }
        Ok("LD_LIBRARY_PATH=/home/pcoder/rsync /home/pcoder/rsync/rsync".to_owned())
    }

    fn rsync(&self, there: &str, project: &Path) -> Result<(), Failure> {
        let name = project.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = Command::new("rsync");
        command.args(["-a", "-e"]).arg(format!("ssh -F {}", self.config.display()));
        command.arg(format!("--rsync-path={there}")).arg(project).arg(format!("guest:rsynced-{name}/"));
        run(&mut command)
    }

    fn run(&self, project: &Path, how: &str) -> Result<String, Failure> {
        let project = project.to_str().ok_or("the target folder's path is not Unicode")?;
        self.bench.pcoder(&["run", "claude", "--instance", &self.id, "--project", project, how, "--", "--version"])
    }
}

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        drop(Command::new("ssh").arg("-F").arg(&self.config).args(["-O", "exit", "guest"]).output());
        drop(self.bench.pcoder(&["instance", "terminate", &self.id]));
    }
}

fn output(command: &mut Command) -> Result<String, Failure> {
    let shown = format!("{command:?}");
    let output = command.output().map_err(|error| format!("{shown}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{shown} ({}): {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("{shown} prints bytes"))
}

/// Files like a source tree's: text that packs as such text does, in folders of fifty.
fn make_project(folder: &Path) -> Result<(), Failure> {
    const LINE: &str = "let mut {} = {}; // what is here differs from line to line\n";
    for number in 0..FILES {
        let into = folder.join(format!("module-{:03}", number / 50));
        fs::create_dir_all(&into).map_err(at(&into))?;
        let mut text = String::new();
        let mut word = number as u64;
        while text.len() < PROJECT / FILES {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text +=
                &LINE.replacen("{}", &format!("name_{:x}", word >> 40), 1).replacen("{}", &(word >> 33).to_string(), 1);
        }
        let file = into.join(format!("file-{number}.rs"));
        fs::write(&file, text).map_err(at(&file))?;
    }
    Ok(())
}
