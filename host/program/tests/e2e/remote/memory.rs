//! What is in the memory of plugins while they work: never a secret's value.
//!
//! The program under test is looked at from outside, through the system's view of its memory, whenever something of it
//! passes on its way to the service and back (a plugin waits for it then) and as often as possible in between.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use pcoder_fake_codesandbox::FakeCodeSandbox;
use pcoder_fake_morph::Options;
use pcoder_model_server::environment::OFFLINE_KEY;

use super::smoke::{TOKEN, profile};
use super::{KEY, Morph, pm2, programs, runtime};
use crate::support::{World, finish};

/// What stands for a secret in a plugin's memory.
const PLACEHOLDER: &str = "pcoder-secret-";

/// How the system names the memory that a guest begins with.
const IMAGE: &str = "/memfd:wasm-memory-image";

/// A piece of a process's address space that can be read.
struct Mapping {
    from: u64,
    to: u64,
    of_guest: bool,
}

/// What can be read of a process, in order; nothing once it has ended.
fn mappings(pid: u32) -> Vec<Mapping> {
    let Ok(maps) = std::fs::read_to_string(format!("/proc/{pid}/maps")) else { return Vec::new() };
    let mut found: Vec<Mapping> = Vec::new();
    // Where the mappings begin that follow on each other without a gap and without one that cannot be read. A guest's
    // memory is between two of those.
    let mut beginning = 0;
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').expect("a mapping");
        let (from, to) = range.split_once('-').expect("a range");
        let address = |text| u64::from_str_radix(text, 16).expect("an address");
        let (from, to) = (address(from), address(to));
        // What the kernel keeps for itself cannot be read.
        if !rest.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
            beginning = found.len();
            continue;
        }
        if found.last().is_some_and(|last| last.to != from) {
            beginning = found.len();
        }
        let of_guest = rest.contains(IMAGE) || found[beginning..].iter().any(|it| it.of_guest);
        found.push(Mapping { from, to, of_guest });
        if of_guest {
            found[beginning..].iter_mut().for_each(|it| it.of_guest = true);
        }
    }
    found
}

fn contains(content: &[u8], word: &[u8]) -> bool {
    let mut rest = content;
    while let Some(at) = rest.iter().position(|byte| Some(byte) == word.first()) {
        if rest[at..].starts_with(word) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// What was found in all looks.
#[derive(Default)]
struct Found {
    looks: usize,
    in_guests: HashSet<String>,
    in_host: HashSet<String>,
}

/// Looks for words in the memory of a process.
struct Watch {
    words: Vec<String>,
    pid: AtomicU32,
    found: Mutex<Found>,
}

impl Watch {
    fn new(words: &[&str]) -> Arc<Self> {
        let words = words.iter().map(|it| (*it).to_owned()).collect();
        Arc::new(Self { words, pid: AtomicU32::new(0), found: Mutex::default() })
    }

    fn look(&self) {
        let pid = self.pid.load(Ordering::SeqCst);
        let Some(memory) = (pid != 0).then(|| File::open(format!("/proc/{pid}/mem")).ok()).flatten() else { return };
        let mut found = self.found.lock().expect("a lock");
        found.looks += 1;
        let mut content = Vec::new();
        for Mapping { from, to, of_guest } in mappings(pid) {
            content.resize(usize::try_from(to - from).expect("a size"), 0);
            // It may be gone by now.
            let mut read = 0;
            while let Ok(more @ 1..) = memory.read_at(&mut content[read..], from + read as u64) {
                read += more;
            }
            let into = if of_guest { &mut found.in_guests } else { &mut found.in_host };
            for word in &self.words {
                if !into.contains(word) && contains(&content[..read], word.as_bytes()) {
                    into.insert(word.clone());
                }
            }
        }
    }

    /// An address that leads to another one, where a look is taken at whatever passes, before it does.
    fn gate(self: &Arc<Self>, to: &str) -> String {
        let to = to.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let watch = Arc::clone(self);
        // It ends with the test's process: a connection that nobody makes any more is waited for.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(&to).expect("the fake");
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                    let watch = Arc::clone(&watch);
                    std::thread::spawn(move || pass(from, to, &watch));
                }
            }
        });
        address.to_string()
    }

    /// Runs the program to its end and looks at it meanwhile.
    fn run(&self, mut command: Command) -> String {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child: Child = child.expect("the program");
        self.pid.store(child.id(), Ordering::SeqCst);
        let mut out = child.stdout.take().expect("a pipe");
        let mut err = child.stderr.take().expect("a pipe");
        let (status, out, err) = std::thread::scope(|scope| {
            let read = |from: &mut dyn std::io::Read| {
                let mut text = String::new();
                from.read_to_string(&mut text).expect("text");
                text
            };
            let out = scope.spawn(move || read(&mut out));
            let err = scope.spawn(move || read(&mut err));
            let status = loop {
                match child.try_wait().expect("a child") {
                    Some(status) => break status,
                    None => self.look(),
                }
            };
            (status, out.join().expect("output"), err.join().expect("output"))
        });
        self.pid.store(0, Ordering::SeqCst);
        assert!(status.success(), "{status}: {out} {err}");
        out
    }

    /// No plugin had any of the secrets, though the looks did see plugins' memory and the host's.
    fn passed(&self, secrets: &[&str]) {
        let found = self.found.lock().expect("a lock");
        for secret in secrets {
            assert!(!found.in_guests.contains(*secret), "a plugin had `{secret}` in {} looks", found.looks);
            assert!(found.in_host.contains(*secret), "nobody had `{secret}` in {} looks", found.looks);
        }
        assert!(found.in_guests.contains(PLACEHOLDER), "no plugin was seen in {} looks", found.looks);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, watch: &Watch) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(size @ 1..) = from.read(&mut piece) {
        watch.look();
        if to.write_all(&piece[..size]).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Write));
}

#[test]
fn a_plugin_never_has_the_key_of_its_service() {
    let morph = Morph::new(World::without_engines(), Options::default());
    let watch = Watch::new(&[KEY, PLACEHOLDER]);
    let gate = watch.gate(morph.fake.base_url().trim_start_matches("http://").trim_end_matches("/api"));
    morph.set("plugins.provider-morph.endpoint", &format!("http://{gate}/api"));
    let id = watch.run(morph.pcoder(&["instance", "boot"])).trim().to_owned();
    watch.run(morph.pcoder(&["instance", "exec", &id, "--shell", "echo it works"]));
    watch.run(morph.pcoder(&["instance", "cp", &format!("{id}:/etc/hostname"), "copy"]));
    watch.run(morph.pcoder(&["instance", "list"]));
    watch.run(morph.pcoder(&["instance", "terminate", &id]));
    watch.passed(&[KEY]);
}

#[test]
fn no_plugin_has_a_secret_while_an_agent_works_on_morph() {
    let Some(pm2) = pm2() else { return };
    let world = World::new();
    let (shared, environment) = programs(&world, Some(&pm2));
    let morph = Morph::new(world, Options { shared, environment, ..Options::default() });
    profile(&morph.world);
    let watch = Watch::new(&[KEY, TOKEN, OFFLINE_KEY, PLACEHOLDER]);
    let gate = watch.gate(morph.fake.base_url().trim_start_matches("http://").trim_end_matches("/api"));
    morph.set("plugins.provider-morph.endpoint", &format!("http://{gate}/api"));
    let mut command = morph.pcoder(&SMOKE);
    command.args(["--provider", "morph"]).env("CLAUDE_ACCESS_TOKEN", TOKEN).env("OFFLINE_KEY", OFFLINE_KEY);
    watch.run(command);
    watch.passed(&[KEY, TOKEN, OFFLINE_KEY]);
}

#[test]
fn no_plugin_has_a_secret_while_an_agent_works_on_codesandbox() {
    let Some(pm2) = pm2() else { return };
    let world = World::new();
    let (shared, environment) = programs(&world, Some(&pm2));
    let options = pcoder_fake_codesandbox::Options {
        shared,
        environment,
        key: KEY.to_owned(),
        ..pcoder_fake_codesandbox::Options::default()
    };
    let fake = runtime().block_on(FakeCodeSandbox::start(options)).expect("a fake");
    let watch = Watch::new(&[KEY, TOKEN, OFFLINE_KEY, PLACEHOLDER]);
    let gate = watch.gate(fake.base_url().trim_start_matches("http://"));
    for (name, value) in [
        ("plugins.provider-codesandbox.endpoint", format!("http://{gate}")),
        ("plugins.provider-codesandbox.agent", format!("ws://{}", fake.agents_address())),
    ] {
        finish(world.pcoder(&["config", "set", name, &value]), "").printed();
    }
    profile(&world);
    let mut command = world.pcoder(&SMOKE);
    command.args(["--provider", "codesandbox"]).env("CSB_API_KEY", KEY);
    command.env("CLAUDE_ACCESS_TOKEN", TOKEN).env("OFFLINE_KEY", OFFLINE_KEY);
    watch.run(command);
    watch.passed(&[KEY, TOKEN, OFFLINE_KEY]);
    runtime().block_on(fake.stop());
}

const SMOKE: [&str; 6] = ["smoke", "--credentials", "claude/oauth-token", "--profile", "offline", "--json"];
