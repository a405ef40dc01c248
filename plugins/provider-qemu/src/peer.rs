//! A QEMU that a test plays: it reads its arguments, keeps its disks, and speaks QMP as 10.0.2 does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pcoder_sdk::testing::{FakeHost, Folder, Program};
use pcoder_sdk::{BootOptions, ExitStatus, ServiceSpec, Setting};
use serde_json::{Value, json};

use crate::grants::Service;
use crate::record::{FORMAT, Network, Record, Wish};

/// What a guest does on an accelerator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Guest {
    /// Is ready after these seconds.
    Ready(u64),
    /// The accelerator fails after these.
    Fails(u64),
    /// Says nothing at all.
    Silent,
    /// Speaks, and is never ready.
    Slow,
    /// QEMU ends at once, with these words.
    Ends(&'static str),
    /// QEMU dies after a second.
    Crashes,
    /// The kernel gives up.
    ShutsDown,
    /// Says that another instance is ready, and rubbish, for these seconds.
    Other(u64),
    /// Is ready, and does not hear its power button.
    Deaf,
    /// Is ready, and its state cannot be written.
    Unsavable,
    /// Is ready, and has more in its memory than can be written in time.
    Large,
    /// Is another version's: the state that it is to go on with is refused.
    Refused,
}

/// A host with a guest's image on which every guest is ready after two seconds.
pub(crate) fn world() -> FakeHost {
    world_where(|_| Guest::Ready(2))
}

/// A host on which guests do what this says for an accelerator; `kvm template` is the guest of a template there, `kvm copy`
/// one that begins with it, and `kvm saved` one that begins with what another one was.
pub(crate) fn world_where(guest: impl Fn(&str) -> Guest + 'static) -> FakeHost {
    let host = FakeHost::new().running(move |name, spec| Ok(Box::new(Qemu::new(name, spec, &guest))));
    host.put_on_host("images", "debian-13-amd64/guest.json", image().as_bytes());
    for file in ["vmlinux", "initrd", "root.img"] {
        host.put_on_host("images", &format!("debian-13-amd64/{file}"), b"12345");
    }
    let facts = r#"{"format":1,"os":"linux","arch":"x86_64","boot":"b1","cpus":2,"memory-mib":16000,
        "qemu":{"program":"q","version":"10.0.2"},
        "accelerators":[{"name":"kvm","usable":true},{"name":"tcg","usable":true}]}"#;
    host.put_on_host("host", "facts.json", facts.as_bytes());
    host.secret("MACHINE_KEY", "placeholder");
    host
}

/// `guest.json`.
pub(crate) fn image() -> String {
    let part = |file: &str| json!({ "file": file, "size": 5, "sha256": format!("sum-of-{file}") });
    json!({
        "format": 1, "arch": "amd64", "suite": "trixie", "kernel_version": "6.12", "inputs": "i", "packages": {},
        "kernel": part("vmlinux"), "initrd": part("initrd"), "root": part("root.img"),
        "cmdline": "console=ttyS0 quiet panic=-1 reboot=t", "cmdline_emulated": "mitigations=off tsc=reliable",
    })
    .to_string()
}

/// What boots a machine from its kernel on.
pub(crate) fn boot_options() -> BootOptions {
    let options = vec![Setting::new("template", "off")];
    BootOptions { image: None, name: None, ttl_seconds: None, ttl_action: None, project: None, options }
}

pub(crate) fn record(id: &str) -> Record {
    Record {
        format: FORMAT,
        id: id.to_owned(),
        name: None,
        created_ms: 1,
        seen_ms: 1,
        wish: Wish::New,
        image: "debian-13-amd64".to_owned(),
        image_sha256: "sum-of-root.img".to_owned(),
        layers: vec!["l000000000000000a".to_owned()],
        next: None,
        paused: false,
        halting: false,
        disk_gib: 1,
        memory_mib: 2048,
        cpus: 2,
        network: Network::Full,
        environment: BTreeMap::new(),
        idle_stop: None,
        engines: None,
        wanted: None,
        accelerator: None,
        tried: Vec::new(),
        restored: false,
        host_key: Some("ssh-ed25519 AAAA".to_owned()),
        ssh_port: Some(40022),
        exposed: BTreeMap::new(),
    }
}

/// One QEMU.
pub(crate) struct Qemu {
    guest: Guest,
    arguments: Vec<String>,
    granted: Service,
    /// What its disks are made of: by name, and which file that is.
    nodes: BTreeMap<String, String>,
    read_only: BTreeSet<String>,
    top: String,
    forwards: Vec<(u16, u16)>,
    greeted: bool,
    negotiated: bool,
    opened: bool,
    said: String,
    log: String,
    ended: Option<ExitStatus>,
    instance: String,
    jobs: Value,
    /// The folder of the template that its memory is in.
    memory: Option<String>,
    /// It waits for the state that it is to go on with.
    incoming: bool,
    stopped: bool,
    migration: Value,
    capable: bool,
    /// It is saved while it runs; and where to, as long as the rest is not.
    live: bool,
    saving: Option<String>,
}

impl Qemu {
    fn new(name: &str, spec: &ServiceSpec, guest: &dyn Fn(&str) -> Guest) -> Self {
        let after = |option: &str| {
            let at = spec.args.iter().position(|it| it == option);
            at.and_then(|at| spec.args.get(at + 1)).cloned().unwrap_or_default()
        };
        assert_eq!(Service::of(&spec.program).refuses(&spec.args), None, "plugin.toml has it");
        let is_maker = after("-machine") == "none";
        let accelerator = after("-accel").split(',').next().unwrap_or_default().to_owned();
        let object = after("-object");
        let memory = object.split_once("mem-path=").and_then(|(_, it)| it.split_once("/ram.img"));
        let memory = memory.map(|(folder, _)| folder.to_owned());
        assert_eq!(memory.is_some(), after("-machine").ends_with(",memory-backend=pc.ram"));
        assert!(memory.is_none() || object.contains(&format!("size={}M", after("-m"))));
        let incoming = spec.args.iter().any(|it| it == "-incoming");
        let kind = match (&memory, object.contains("share=on")) {
            (None, _) if incoming => format!("{accelerator} saved"),
            (None, _) => accelerator,
            (Some(_), true) => format!("{accelerator} template"),
            (Some(_), false) => format!("{accelerator} copy"),
        };
        let guest = if is_maker { Guest::Silent } else { guest(&kind) };
        assert_eq!(incoming, kind.ends_with("copy") || kind.ends_with("saved"));
        let top = spec.args.iter().find_map(|it| it.strip_prefix("virtio-blk-pci,id=root,drive=")).unwrap_or_default();
        Self {
            guest,
            arguments: spec.args.clone(),
            granted: Service::of(&spec.program),
            nodes: BTreeMap::new(),
            read_only: BTreeSet::new(),
            top: top.split(',').next().unwrap_or_default().to_owned(),
            forwards: if is_maker { Vec::new() } else { vec![(22, 40022)] },
            greeted: false,
            negotiated: false,
            opened: false,
            said: String::new(),
            log: String::new(),
            ended: None,
            instance: name.to_owned(),
            jobs: json!([]),
            memory,
            incoming,
            stopped: false,
            migration: Value::Null,
            capable: false,
            live: false,
            saving: None,
        }
    }

    fn fail(&mut self, log: &str) {
        self.log = log.to_owned();
        self.ended = Some(ExitStatus::Exited(1));
    }

    /// Opens its disks, as it does before it greets.
    fn open(&mut self, folder: &Folder) {
        if self.arguments.is_empty() {
            return;
        }
        if let Some(memory) = self.memory.as_ref().map(|it| format!("{it}/ram.img")) {
            match (self.incoming, folder.file(&memory)) {
                (true, None) => return self.fail("can't open backing store"),
                (true, Some(_)) => {}
                (false, _) => folder.put(&memory, self.instance.as_bytes()),
            }
        }
        let disks: Vec<Value> = self
            .arguments
            .iter()
            .filter(|it| it.starts_with('{'))
            .map(|it| serde_json::from_str(it).unwrap())
            .collect();
        let mut above = BTreeSet::from([self.top.clone()]);
        for disk in disks {
            let name = disk["node-name"].as_str().unwrap().to_owned();
            let file = disk["file"]["filename"].as_str().or(disk["filename"].as_str()).unwrap().to_owned();
            if name != "base" && name != "engines" && folder.file(&file).is_none() {
                return self.fail(&format!("Could not open '{file}'"));
            }
            if disk["read-only"] == true {
                assert!(disk["driver"] == "file" || disk["file"]["read-only"] == true);
                self.read_only.insert(name.clone());
            }
            if let Some(backing) = disk["backing"].as_str() {
                assert!(self.nodes.contains_key(backing), "`{backing}` comes first");
                above.insert(backing.to_owned());
            }
            self.nodes.insert(name, file);
        }
        assert!(!self.read_only.contains(&self.top), "the first layer is written");
        let written = self.nodes.keys().filter(|it| !self.read_only.contains(*it)).count();
        assert_eq!(written, 1, "and no other");
    }

    fn answer(&mut self, command: &str, arguments: &Value, folder: &Folder) -> Result<Value, (&'static str, String)> {
        let refused = |words: &str| Err(("GenericError", words.to_owned()));
        match command {
            // Where the test says that the host's disk is.
            "query-status" if folder.file("full").is_some() => Ok(json!({ "status": "io-error", "running": false })),
            "query-status" if self.stopped => Ok(json!({ "status": "paused", "running": false })),
            "query-status" if self.incoming => Ok(json!({ "status": "inmigrate", "running": false })),
            "migrate-set-capabilities" => {
                self.capable = true;
                self.saving = None;
                self.live = arguments["capabilities"].as_array().is_some_and(|it| it.len() > 1);
                Ok(json!({}))
            }
            "stop" | "cont" => {
                self.stopped = command == "stop";
                Ok(json!({}))
            }
            "migrate-set-parameters" => Ok(json!({})),
            "migrate_cancel" => {
                // One that stood still for it goes on.
                if self.saving.take().is_some() {
                    self.stopped = false;
                    self.migration = json!({ "status": "cancelled" });
                }
                Ok(json!({}))
            }
            "migrate" => {
                assert!(self.capable && self.stopped != self.live);
                let path = arguments["uri"].as_str().unwrap().strip_prefix("file:").unwrap().to_owned();
                self.migration = match self.guest {
                    Guest::Unsavable => json!({ "status": "failed", "error-desc": "No space left on device" }),
                    Guest::Large => json!({ "status": "active" }),
                    _ if self.live => json!({ "status": "pre-switchover" }),
                    _ => json!({ "status": "completed" }),
                };
                self.stopped |= self.migration["status"] == "pre-switchover";
                match self.live {
                    true => self.saving = Some(path),
                    false => self.save(&path, folder),
                }
                Ok(json!({}))
            }
            "migrate-continue" => {
                assert_eq!(self.migration["status"], "pre-switchover");
                let path = self.saving.take().unwrap();
                self.save(&path, folder);
                self.migration = json!({ "status": "completed" });
                Ok(json!({}))
            }
            "query-migrate" => Ok(self.migration.clone()),
            "migrate-incoming" => {
                assert!(self.incoming && self.capable);
                let path = arguments["uri"].as_str().unwrap().strip_prefix("file:").unwrap();
                let state: Value = serde_json::from_slice(&folder.file(path).unwrap_or_default()).unwrap_or_default();
                let memory = folder.file(&path.replace("/state", "/ram.img"));
                let is_its = memory.is_none_or(|it| state[0] == String::from_utf8(it).unwrap());
                let layers = state[1].as_array().cloned().unwrap_or_default();
                let are_below = layers.iter().all(|it| self.read_only.contains(it.as_str().unwrap()));
                if self.guest == Guest::Refused || layers.is_empty() || !is_its || !are_below {
                    self.fail("load of migration failed: Invalid argument");
                } else {
                    self.incoming = false;
                    self.stopped = true;
                    self.migration = json!({ "status": "completed" });
                }
                Ok(json!({}))
            }
            "query-status" => {
                let status = if self.log.contains("internal error") { "internal-error" } else { "running" };
                Ok(json!({ "status": status, "running": status == "running" }))
            }
            // What the test says that it wrote since it was ready.
            "ringbuf-read" if arguments["device"] == "serial0" => {
                Ok(STANDARD.encode(folder.file("console").unwrap_or_default()).into())
            }
            "ringbuf-read" => Ok(STANDARD.encode(std::mem::take(&mut self.said)).into()),
            "human-monitor-command" => Ok(self.monitor(arguments["command-line"].as_str().unwrap()).into()),
            "blockdev-create" => {
                let mut disk = b"QFI\xfb".to_vec();
                disk.resize(24, 0);
                disk.extend(arguments["options"]["size"].as_u64().unwrap().to_be_bytes());
                folder.put(self.nodes.get("blank").unwrap(), &disk);
                self.jobs = json!([{ "id": "blank", "status": "concluded", "type": "create" }]);
                Ok(json!({}))
            }
            "chardev-change" => Ok(json!({})),
            "query-jobs" => Ok(self.jobs.clone()),
            "blockdev-add" => {
                let (name, file) = (&arguments["node-name"], &arguments["file"]["filename"]);
                let (name, file) = (name.as_str().unwrap().to_owned(), file.as_str().unwrap().to_owned());
                assert!(arguments["backing"].is_null());
                if folder.file(&file).is_none() {
                    return refused("Could not open");
                }
                match self.nodes.insert(name, file) {
                    Some(_) => refused("Duplicate nodes"),
                    None => Ok(json!({})),
                }
            }
            "blockdev-snapshot" if arguments["node"] == self.top.as_str() => {
                self.read_only.insert(self.top.clone());
                self.top = arguments["overlay"].as_str().unwrap().to_owned();
                Ok(json!({}))
            }
            "blockdev-snapshot" => refused("Node is busy"),
            "query-block" => {
                let disk = |node: &str| json!({ "device": "", "inserted": { "node-name": node } });
                Ok(json!([disk(&self.top), disk("seed"), { "device": "empty" }]))
            }
            "system_powerdown" => {
                if self.guest != Guest::Deaf && !self.stopped {
                    self.ended = Some(ExitStatus::Exited(0));
                }
                Ok(json!({}))
            }
            "quit" => {
                self.ended = Some(ExitStatus::Exited(0));
                Ok(json!({}))
            }
            _ => Err(("CommandNotFound", format!("The command {command} has not been found"))),
        }
    }

    /// Writes which memory it was, and what of its disks may be below those of a copy.
    fn save(&self, path: &str, folder: &Folder) {
        let below: Vec<&String> = match self.instance.starts_with("tp-") {
            true => vec![&self.top],
            false => self.read_only.iter().filter(|it| *it != "seed").collect(),
        };
        folder.put(path, json!([self.instance, below]).to_string().as_bytes());
    }

    fn monitor(&mut self, line: &str) -> String {
        if let Some(port) = line.strip_prefix("hostfwd_add net tcp:127.0.0.1:0-:") {
            let port = port.parse().unwrap();
            self.forwards.insert(0, (port, 40000 + u16::try_from(self.forwards.len()).unwrap()));
            return String::new();
        }
        assert_eq!(line, "info usernet");
        let lines = self.forwards.iter().map(|(guest, host)| {
            format!("  TCP[HOST_FORWARD]  9       127.0.0.1 {host}       10.0.2.15  {guest}     0     0\r\n")
        });
        format!("Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port\r\n{}", lines.collect::<String>())
    }
}

impl Program for Qemu {
    fn goes_on(&mut self, since: Duration, folder: &Folder) -> Vec<String> {
        let mut said = Vec::new();
        if !self.greeted {
            self.greeted = true;
            match self.guest {
                Guest::Ends(log) => self.fail(log),
                _ => self.open(folder),
            }
            if self.ended.is_some() {
                return said;
            }
            said.push(
                r#"{"QMP":{"version":{"qemu":{"micro":2,"minor":0,"major":10}},"capabilities":["oob"]}}"#.to_owned(),
            );
        }
        // What stands still does nothing.
        if self.incoming || self.stopped {
            return said;
        }
        let console = crate::console::path(&self.instance);
        // A copy's kernel has said it before.
        let speaks = !matches!(self.guest, Guest::Silent | Guest::Fails(_)) && self.migration.is_null();
        if speaks && since >= Duration::from_millis(300) && folder.file(&console).is_none() {
            folder.put(&console, b"Linux version 6.12\r\n\x1b[31mKernel panic\r\n");
        }
        let mut open = |after: u64, line: String, opened: &mut bool, all: &mut String| {
            if since >= Duration::from_secs(after) && !std::mem::replace(opened, true) {
                all.push_str(&line);
                said.push(r#"{"event":"VSERPORT_CHANGE","data":{"open":true,"id":"agent"}}"#.to_owned());
                said.push(r#"{"event":"VSERPORT_CHANGE","data":{"open":true,"id":"control"}}"#.to_owned());
            }
        };
        let ready = |instance: &str| format!("ready ssh-ed25519 AAAAkey+/= {instance}\n");
        match self.guest {
            Guest::Ready(after) => open(after, ready(&self.instance), &mut self.opened, &mut self.said),
            Guest::Deaf | Guest::Unsavable | Guest::Large => {
                open(1, ready(&self.instance), &mut self.opened, &mut self.said)
            }
            Guest::Other(after) => {
                let rubbish = format!(
                    "\u{0}\u{fffd}ready\nready ssh-rsa x y\n{}ready ssh-ed25519 A\u{1b} {}\n",
                    ready("vm-ffffffff"),
                    self.instance
                );
                open(1, rubbish, &mut self.opened, &mut self.said);
                if since >= Duration::from_secs(after) && !self.said.contains(&self.instance) {
                    self.said.push_str(&ready(&self.instance));
                }
            }
            Guest::Fails(after) if since >= Duration::from_secs(after) && self.log.is_empty() => {
                self.log = "KVM internal error. Suberror: 1\n".to_owned();
                said.push(r#"{"event":"STOP","timestamp":{}}"#.to_owned());
            }
            Guest::Crashes if since >= Duration::from_secs(1) => {
                "Assertion failed\n".clone_into(&mut self.log);
                self.ended = Some(ExitStatus::Signaled(6));
            }
            Guest::ShutsDown if since >= Duration::from_secs(1) && self.ended.is_none() => {
                said.push(r#"{"event":"SHUTDOWN","data":{"guest":true}}"#.to_owned());
                self.ended = Some(ExitStatus::Exited(0));
            }
            _ => {}
        }
        said
    }

    fn told(&mut self, line: &str, folder: &Folder) -> Vec<String> {
        let message: Value = serde_json::from_str(line).unwrap();
        assert!(self.granted.allows(&message), "plugin.toml has `{line}`");
        let (id, command) = (&message["id"], message["execute"].as_str().unwrap());
        let answer = match (command, self.negotiated) {
            ("qmp_capabilities", false) => {
                self.negotiated = true;
                Ok(json!({}))
            }
            ("qmp_capabilities", true) => {
                Err(("CommandNotFound", "Capabilities negotiation is already complete".to_owned()))
            }
            (_, false) => Err(("CommandNotFound", "Expecting capabilities negotiation".to_owned())),
            (command, true) => self.answer(command, &message["arguments"], folder),
        };
        let answer = match answer {
            Ok(value) => json!({ "return": value, "id": id }),
            Err((class, desc)) => json!({ "id": id, "error": { "class": class, "desc": desc } }),
        };
        vec![r#"{"event":"RTC_CHANGE","data":{"offset":0}}"#.to_owned(), answer.to_string()]
    }

    fn log(&self) -> Vec<u8> {
        self.log.clone().into_bytes()
    }

    fn ended(&self) -> Option<ExitStatus> {
        self.ended
    }
}
