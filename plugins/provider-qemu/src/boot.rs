//! Boots: one try for each accelerator, each watched from its start until the guest says that somebody can log in.

use std::collections::VecDeque;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pcoder_sdk::{Error, ExitStatus, Result, ServiceSpec, Setting, WriteOptions, code, text};
use serde_json::json;

use crate::console;
use crate::copy;
use crate::disk;
use crate::engines;
use crate::exec::KEY;
use crate::facts::Facts;
use crate::image::Image;
use crate::ladder::{Failure, Memory, rungs};
use crate::machine::{self, Accelerator, Architecture};
use crate::migrate;
use crate::ports;
use crate::qmp::{Event, Qmp};
use crate::record::{Record, Wish, is_alive};
use crate::seed::Seed;
use crate::start::Start;
use crate::store::{ROOT, Store, folder};
use crate::template;

/// How long a kernel may be silent that hardware runs. It speaks within milliseconds, or it hangs.
const SILENCE: Duration = Duration::from_secs(5);
/// How long a boot may take.
const HARDWARE: Duration = Duration::from_secs(20);
const SOFTWARE: Duration = Duration::from_secs(180);

/// How long a machine may take that only has to go on. It takes a second where software emulates a busy processor.
const RESTORED_HARDWARE: Duration = Duration::from_secs(5);
const RESTORED_SOFTWARE: Duration = Duration::from_secs(15);
/// How long the boot of a template may take, for which an instance waits that can boot without.
const TEMPLATE_SOFTWARE: Duration = Duration::from_secs(60);

/// The same where systemd and cloud-init boot, which takes twenty times as long as pcoder's own guest.
const OTHERS_HARDWARE: Duration = Duration::from_secs(120);
const OTHERS_SOFTWARE: Duration = Duration::from_secs(270);
/// How long a call may take, less what comes before and after a boot: `wall-seconds` in plugin.toml.
const CALL: Duration = Duration::from_secs(560);

/// How often one looks.
const LOOK: Duration = Duration::from_millis(100);
/// The same for what is there in less than a second.
const LOOK_AT_RESTORED: Duration = Duration::from_millis(20);
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
    pub(crate) from: From,
}

/// What a new instance may begin with. Where that does not work, it boots.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum From {
    Nothing,
    /// The memory of a template.
    Template,
    /// The memory of the instance that it is a copy of.
    Saved,
}

/// How often software is tried. QEMU 10.0.2 died once in fifty boots of a failed assertion of its own
/// (`msix_table_mmio_write`), and there is nothing below software to fall back to.
const SOFTWARE_TRIES: usize = 2;

/// Why a try ended.
pub(crate) struct Fell {
    pub(crate) why: String,
    console: Option<String>,
    /// QEMU itself died.
    crashed: bool,
}

/// What a guest that is ready says.
pub(crate) struct Ready {
    pub(crate) host_key: String,
    pub(crate) ssh_port: u16,
}

/// How one that is watched says that somebody still waits for it.
pub(crate) type Beat<'a> = dyn FnMut() -> Result<()> + 'a;

impl Start<'_> {
    fn deadline(self, accelerator: Accelerator) -> Duration {
        match (self, accelerator.is_software()) {
            (Self::Cold | Self::Template, false) => HARDWARE,
            (Self::Cold, true) => SOFTWARE,
            (Self::Template, true) => TEMPLATE_SOFTWARE,
            (Self::Copy(_), false) => RESTORED_HARDWARE,
            (Self::Copy(_), true) => RESTORED_SOFTWARE,
            // All of its memory is read before, which may be much.
            (Self::Saved, _) => RESTORED_SOFTWARE * 2,
        }
    }
}

impl Boot<'_> {
    /// Boots the instance on the accelerator that works, and writes down that it runs. Where it fails, nothing runs.
    ///
    /// The first layer of a `fresh` one is made anew for each try: what an accelerator that does not work did to it is
    /// nobody's. Such a one may begin with a memory that was saved; that this does not work only costs time.
    pub(crate) fn run(&self, record: &mut Record, fresh: bool) -> Result<()> {
        let ran = self.climb(record, fresh);
        if self.from == From::Saved {
            // On every way out, also where the accelerator is another one by now.
            copy::forget(self.store, &record.id);
        }
        ran
    }

    /// Tries one accelerator after the other.
    fn climb(&self, record: &mut Record, fresh: bool) -> Result<()> {
        let store = self.store;
        let started = store.host.clock().monotonic();
        engines::look(store, record)?;
        self.write_seed(record)?;
        let memory = Memory::read(store);
        let wanted = record.wanted.as_deref().and_then(Accelerator::of);
        let first = record.accelerator.as_deref().and_then(Accelerator::of);
        let rungs = rungs(&self.facts, &memory, store.operation, wanted, first)?;
        let mut failures: Vec<Failure> = Vec::new();
        let mut restored: Vec<String> = Vec::new();
        let mut last = None;
        let mut waiting: VecDeque<(Accelerator, usize)> = rungs.try_these.into_iter().map(|it| (it, 1)).collect();
        while let Some((accelerator, attempt)) = waiting.pop_front() {
            let is_template = attempt == 1 && self.from == From::Template;
            let key = is_template.then(|| template::Key::of(self, accelerator, record)).flatten();
            let begun = match &key {
                Some(key) => template::restored(self, accelerator, record, key),
                None if self.from == From::Saved && attempt == 1 => copy::restored(self, accelerator, record),
                None => Ok(None),
            };
            let copied = begun.unwrap_or_else(|why| {
                restored.push(why);
                None
            });
            let is_copy = copied.is_some();
            let tried = match copied {
                Some(ready) => Ok(Ok(ready)),
                None => {
                    if fresh && let Some(top) = record.layers.first() {
                        disk::make(store, self.architecture, &record.id, top, record.disk_gib)?;
                    }
                    self.attempt(accelerator, record, Start::Cold, &mut self.beat(record))
                }
            };
            match tried {
                Ok(Ok(ready)) => {
                    let left_out = rungs.left_out.iter().chain(&failures).map(Failure::line);
                    record.tried = left_out.chain(restored).collect();
                    record.accelerator = Some(accelerator.name().to_owned());
                    record.host_key = Some(ready.host_key);
                    record.ssh_port = Some(ready.ssh_port);
                    record.restored = is_copy;
                    record.wish = Wish::Run;
                    store.write(record)?;
                    if let Some(key) = key.filter(|_| !is_copy) {
                        template::booted(store, &key);
                    }
                    // What takes an image of somebody else's too long says nothing of others. To forget it costs another
                    // try, and this boot has worked.
                    if !self.image.is_set_up_by_cloud_init() {
                        drop(memory.learn(store, &self.facts, accelerator, &failures));
                    }
                    return Ok(());
                }
                Ok(Err(fell)) => {
                    store.end(&record.id, Duration::ZERO)?;
                    // Another try has to fit into the call.
                    let passed = store.host.clock().monotonic().saturating_sub(started);
                    let soon = !self.image.is_set_up_by_cloud_init() || passed + OTHERS_SOFTWARE < CALL;
                    if fell.crashed && soon && accelerator.is_software() && attempt < SOFTWARE_TRIES {
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

    /// Says that the instance is being booted.
    pub(crate) fn beat(&self, record: &Record) -> impl FnMut() -> Result<()> + use<'_> {
        let (store, mut record) = (self.store, record.clone());
        move || {
            record.seen_ms = store.host.clock().now_ms();
            store.write(&record)
        }
    }

    pub(crate) fn write_seed(&self, record: &Record) -> Result<()> {
        let host = self.store.host;
        let credential = host.secrets().get(KEY)?;
        let key = host.ssh().public_key(&credential)?;
        let environment: Vec<Setting> =
            record.environment.iter().map(|(name, value)| Setting::new(name, value)).collect();
        let seed = Seed {
            instance: &record.id,
            host_name: record.host_name(),
            key: &key,
            environment: &environment,
            idle_stop: record.idle_stop,
            cloud_init: self.image.is_set_up_by_cloud_init(),
        };
        let path = format!("{}/seed.img", folder(&record.id));
        host.files().write_atomic(ROOT, &path, &seed.disk(self.store.operation)?, WriteOptions::plain())
    }

    /// One try. What is an error of the whole boot is one here, and what only this accelerator did is not.
    pub(crate) fn attempt(
        &self,
        accelerator: Accelerator,
        record: &Record,
        start: Start<'_>,
        beat: &mut Beat<'_>,
    ) -> Result<Result<Ready, Fell>> {
        let store = self.store;
        store.end(&record.id, Duration::ZERO)?;
        // What is in it is another boot's.
        drop(store.host.files().remove(ROOT, &console::path(&record.id), false));
        let args = start.arguments(self.arguments(accelerator, record), &record.id, record.memory_mib);
        let spec = ServiceSpec { program: self.architecture.program.to_owned(), args, folder: ".".to_owned() };
        disk::start(store, &record.id, &spec)?;
        let why = match self.watch(accelerator, record, start, beat) {
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

    /// The arguments of a machine that boots.
    pub(crate) fn arguments(&self, accelerator: Accelerator, record: &Record) -> Vec<String> {
        let program = machine::Program {
            architecture: self.architecture,
            version: self.facts.version(),
            sandbox: self.facts.os == "linux",
        };
        machine::arguments(program, accelerator, &self.image, record)
    }

    /// How QEMU ended, where it did. Its output ends a moment before that is known.
    pub(crate) fn exit(&self, id: &str) -> Result<Option<ExitStatus>> {
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
    fn watch(
        &self,
        accelerator: Accelerator,
        record: &Record,
        start: Start<'_>,
        beat: &mut Beat<'_>,
    ) -> Result<Result<Ready, String>> {
        let (host, clock) = (self.store.host, self.store.host.clock());
        let deadline = match (self.image.is_set_up_by_cloud_init(), accelerator.is_software()) {
            (false, _) => start.deadline(accelerator),
            (true, false) => OTHERS_HARDWARE,
            (true, true) => OTHERS_SOFTWARE,
        };
        let started = clock.monotonic();
        let mut qmp = Qmp::open(host, self.store.operation, &record.id, deadline)?;
        qmp.negotiate()?;
        if let Some(state) = start.state(&record.id) {
            migrate::restore(&mut qmp, clock, &state, deadline)?;
        }
        let look = if start.is_restored() { LOOK_AT_RESTORED } else { LOOK };
        let mut guest = Guest::default();
        let (mut said, mut status) = (started, started);
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
                console::bound(&mut qmp)?;
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
            // What goes on may have nothing to say, and one whose console is elsewhere says nothing here.
            let serial = |word: &str| ["console=ttyS", "console=ttyAMA"].iter().any(|it| word.starts_with(it));
            let is_heard = self.image.cmdline.split_whitespace().any(serial);
            let speaks = || !is_heard || guest.is_there || start.is_restored() || console::has_spoken(host, &record.id);
            if !accelerator.is_software() && passed >= SILENCE && !speaks() {
                return Ok(Err(format!("the guest was silent for {} s", SILENCE.as_secs())));
            }
            if passed >= deadline {
                return Ok(Err(format!("the guest was not ready within {} s", deadline.as_secs())));
            }
            if now.saturating_sub(said) >= BEAT {
                said = now;
                beat()?;
            }
            qmp.wait(look);
        }
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
