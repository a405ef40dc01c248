//! Boots: one try for each accelerator, each watched from its start until the guest says that somebody can log in.

use std::collections::VecDeque;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pcoder_sdk::{Error, ExitStatus, Result, ServiceSpec, Setting, WriteOptions, code, text};
use serde_json::json;

use crate::console;
use crate::disk;
use crate::engines;
use crate::exec::KEY;
use crate::facts::Facts;
use crate::image::Image;
use crate::ladder::{Failure, Memory, rungs};
use crate::machine::{self, Accelerator, Architecture};
use crate::ports;
use crate::qmp::{Event, Qmp};
use crate::record::{Record, Wish, is_alive};
use crate::seed::Seed;
use crate::store::{ROOT, Store, folder};

/// How long a kernel may be silent that hardware runs. It speaks within milliseconds, or it hangs.
const SILENCE: Duration = Duration::from_secs(5);
/// How long a boot may take.
const HARDWARE: Duration = Duration::from_secs(20);
const SOFTWARE: Duration = Duration::from_secs(180);

/// How often one looks.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_AT_STATUS: Duration = Duration::from_secs(1);
/// How often one says that one still boots.
const BEAT: Duration = Duration::from_secs(5);

/// How much of what a guest says without a line's end is kept.
const LONGEST_LINE: usize = 16 << 10;

/// The control port, and where what the guest says there waits to be read.
const CONTROL: &str = "control";

/// What a boot needs to know besides the record.
pub(crate) struct Boot<'a> {
    pub(crate) store: Store<'a>,
    pub(crate) facts: Facts,
    pub(crate) architecture: Architecture,
    pub(crate) image: Image,
}

/// How often software is tried. QEMU 10.0.2 died once in fifty boots of a failed assertion of its own
/// (`msix_table_mmio_write`), and there is nothing below software to fall back to.
const SOFTWARE_TRIES: usize = 2;

/// Why a try ended.
struct Fell {
    why: String,
    console: Option<String>,
    /// QEMU itself died.
    crashed: bool,
}

/// What a guest that is ready says.
struct Ready {
    host_key: String,
    ssh_port: u16,
}

impl Boot<'_> {
    /// Boots the instance on the accelerator that works, and writes down that it runs. Where it fails, nothing runs.
    ///
    /// The first layer of a `fresh` one is made anew for each try: what an accelerator that does not work did to it is
    /// nobody's.
    pub(crate) fn run(&self, record: &mut Record, fresh: bool) -> Result<()> {
        let store = self.store;
        engines::look(store, record)?;
        self.write_seed(record)?;
        let memory = Memory::read(store);
        let wanted = record.wanted.as_deref().and_then(Accelerator::of);
        let first = record.accelerator.as_deref().and_then(Accelerator::of);
        let rungs = rungs(&self.facts, &memory, store.operation, wanted, first)?;
        let mut failures: Vec<Failure> = Vec::new();
        let mut last = None;
        let mut waiting: VecDeque<(Accelerator, usize)> = rungs.try_these.into_iter().map(|it| (it, 1)).collect();
        while let Some((accelerator, attempt)) = waiting.pop_front() {
            if fresh && let Some(top) = record.layers.first() {
                disk::make(store, self.architecture, &record.id, top, record.disk_gib)?;
            }
            match self.attempt(accelerator, record) {
                Ok(Ok(ready)) => {
                    let left_out = rungs.left_out.iter().chain(&failures);
                    record.tried = left_out.map(Failure::line).collect();
                    record.accelerator = Some(accelerator.name().to_owned());
                    record.host_key = Some(ready.host_key);
                    record.ssh_port = Some(ready.ssh_port);
                    record.wish = Wish::Run;
                    store.write(record)?;
                    // To forget it costs another try, and this boot has worked.
                    drop(memory.learn(store, &self.facts, accelerator, &failures));
                    return Ok(());
                }
                Ok(Err(fell)) => {
                    store.end(&record.id, Duration::ZERO)?;
                    if fell.crashed && accelerator.is_software() && attempt < SOFTWARE_TRIES {
                        waiting.push_front((accelerator, attempt + 1));
                    }
                    failures.push(Failure::new(accelerator, fell.why));
                    last = fell.console;
                }
                Err(error) => {
                    drop(store.end(&record.id, Duration::ZERO));
                    return Err(error);
                }
            }
        }
        let tried: Vec<String> = rungs.left_out.iter().chain(&failures).map(Failure::line).collect();
        let console = last.map(|it| format!("; the console ends with: {it}")).unwrap_or_default();
        let message = format!("the machine does not boot: {}{console}", tried.join("; "));
        Err(Error::new(code::PROCESS, store.operation, message)
            .subject(&record.id)
            .hint("`pcoder doctor` shows what this machine can run"))
    }

    fn write_seed(&self, record: &Record) -> Result<()> {
        let host = self.store.host;
        let credential = host.secrets().get(KEY)?;
        let key = host.ssh().public_key(&credential)?;
        let environment: Vec<Setting> =
            record.environment.iter().map(|(name, value)| Setting::new(name, value)).collect();
        let seed = Seed { instance: &record.id, host_name: record.host_name(), key: &key, environment: &environment };
        let path = format!("{}/seed.img", folder(&record.id));
        host.files().write_atomic(ROOT, &path, &seed.disk(self.store.operation)?, WriteOptions::plain())
    }

    /// One try. What is an error of the whole boot is one here, and what only this accelerator did is not.
    fn attempt(&self, accelerator: Accelerator, record: &mut Record) -> Result<Result<Ready, Fell>> {
        let store = self.store;
        store.end(&record.id, Duration::ZERO)?;
        // What is in it is another boot's.
        drop(store.host.files().remove(ROOT, &console::path(&record.id), false));
        let program = machine::Program {
            architecture: self.architecture,
            version: self.facts.version(),
            sandbox: self.facts.os == "linux",
        };
        let spec = ServiceSpec {
            program: self.architecture.program.to_owned(),
            args: machine::arguments(program, accelerator, &self.image, record),
            folder: ".".to_owned(),
        };
        disk::start(store, &record.id, &spec)?;
        let why = match self.watch(accelerator, record) {
            Ok(Ok(ready)) => return Ok(Ok(ready)),
            Ok(Err(why)) => why,
            Err(error) => match error.code.as_str() {
                code::UNAVAILABLE | code::NOT_FOUND => "QEMU ended".to_owned(),
                code::TIMEOUT | code::CONFLICT | code::PROCESS => error.message,
                _ => return Err(error),
            },
        };
        let crashed = matches!(self.exit(&record.id)?, Some(ExitStatus::Signaled(_)));
        let log = store.host.services().log_tail(&record.id, 4000).unwrap_or_default();
        let said = text::tail(&log, 2, 400);
        let why = if said.is_empty() { why } else { format!("{why} ({said})") };
        Ok(Err(Fell { why, console: console::tail(store.host, &record.id), crashed }))
    }

    /// How QEMU ended, where it did. Its output ends a moment before that is known.
    fn exit(&self, id: &str) -> Result<Option<ExitStatus>> {
        for _ in 0..10 {
            match self.store.service(id)? {
                Some(service) if service.exit.is_some() => return Ok(service.exit),
                Some(service) if is_alive(Some(&service)) => self.store.host.clock().sleep(LOOK),
                _ => break,
            }
        }
        Ok(None)
    }

    /// Waits for the guest, and says why that was given up.
    fn watch(&self, accelerator: Accelerator, record: &mut Record) -> Result<Result<Ready, String>> {
        let (host, clock) = (self.store.host, self.store.host.clock());
        let deadline = if accelerator.is_software() { SOFTWARE } else { HARDWARE };
        let started = clock.monotonic();
        let mut qmp = Qmp::open(host, self.store.operation, &record.id, deadline)?;
        qmp.negotiate()?;
        let mut guest = Guest::default();
        let (mut beat, mut status) = (started, started);
        loop {
            for event in qmp.events()? {
                if let Some(why) = guest.hears(&event) {
                    return Ok(Err(why));
                }
            }
            let now = clock.monotonic();
            let passed = now.saturating_sub(started);
            if guest.is_there
                && let Some(host_key) = guest.read(&mut qmp, &record.id)?
            {
                bound_console(&mut qmp)?;
                let Some(ssh_port) = ports::find(&mut qmp, ports::SSH)? else {
                    return Ok(Err("QEMU does not say where the guest's SSH server is".to_owned()));
                };
                return Ok(Ok(Ready { host_key, ssh_port }));
            }
            if now.saturating_sub(status) >= LOOK_AT_STATUS {
                status = now;
                let state = qmp.run("query-status")?;
                let state = state["status"].as_str().unwrap_or_default();
                if !matches!(state, "running" | "prelaunch" | "inmigrate") {
                    return Ok(Err(stopped(state)));
                }
            }
            let speaks = || guest.is_there || console::has_spoken(host, &record.id);
            if !accelerator.is_software() && passed >= SILENCE && !speaks() {
                return Ok(Err(format!("the guest was silent for {} s", SILENCE.as_secs())));
            }
            if passed >= deadline {
                return Ok(Err(format!("the guest was not ready within {} s", deadline.as_secs())));
            }
            if now.saturating_sub(beat) >= BEAT {
                beat = now;
                record.seen_ms = clock.now_ms();
                self.store.write(record)?;
            }
            qmp.wait(LOOK);
        }
    }
}

/// From now on QEMU keeps the end of what the guest writes to its console in memory: it could fill this host's disk.
/// Not every console can be moved.
fn bound_console(qmp: &mut Qmp<'_>) -> Result<()> {
    let backend = json!({ "type": "ringbuf", "data": { "size": 65536 } });
    match qmp.run_with("chardev-change", json!({ "id": "serial0", "backend": backend })) {
        Err(error) if error.code != code::PROCESS => Err(error),
        _ => Ok(()),
    }
}

/// Why a machine stands still, in words.
fn stopped(state: &str) -> String {
    match state {
        "internal-error" => "the accelerator failed (`internal-error`)".to_owned(),
        "io-error" => "a disk failed (`io-error`; is this machine's disk full?)".to_owned(),
        state => format!("the machine stands still (`{}`)", text::tail(state.as_bytes(), 1, 40)),
    }
}

/// What is heard of a guest.
#[derive(Default)]
struct Guest {
    /// Its program for the control port runs.
    is_there: bool,
    said: Vec<u8>,
}

impl Guest {
    /// Takes an event, and says what is wrong if that is.
    fn hears(&mut self, event: &Event) -> Option<String> {
        match event.name.as_str() {
            "VSERPORT_CHANGE" if event.data["id"] == CONTROL && event.data["open"] == true => self.is_there = true,
            "SHUTDOWN" => return Some("the guest shut down".to_owned()),
            "GUEST_PANICKED" => return Some("the guest's kernel panicked".to_owned()),
            _ => {}
        }
        None
    }

    /// Takes what the guest said, and returns its host key once it says that somebody can log in to this instance.
    fn read(&mut self, qmp: &mut Qmp<'_>, id: &str) -> Result<Option<String>> {
        let read = json!({ "device": CONTROL, "size": 4096, "format": "base64" });
        let value = qmp.run_with("ringbuf-read", read)?;
        self.said.extend(STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default());
        while let Some(end) = self.said.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.said.drain(..=end).collect();
            if let Some(key) = ready(&String::from_utf8_lossy(&line), id) {
                return Ok(Some(key));
            }
        }
        if self.said.len() > LONGEST_LINE {
            self.said.clear();
        }
        Ok(None)
    }
}

/// The host key of `ready ssh-ed25519 KEY INSTANCE`, where INSTANCE is this one. A copy of an instance says the other's name
/// until it knows that it is a copy.
fn ready(line: &str, id: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["ready", "ssh-ed25519", key, instance] = words[..] else { return None };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    (instance == id && key.len() <= 200 && key.bytes().all(plain)).then(|| format!("ssh-ed25519 {key}"))
}

#[cfg(test)]
mod tests;
