//! Engines as a disk: what is on it, that it is made once, and what is left when it is not.

use std::fs::{self, File};
use std::io::{BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use backhand::{FilesystemReader, InnerNode};
use pcoder_engines::{Disks, EnginesDisk, EnginesLock, Error, Phase, Platform, Progress, Store};
use tokio_util::sync::CancellationToken;

use crate::toy::{Log, PROGRAM, World, toy};

const TOLD: &str = "PCODER_ENGINES_TEST_DISK";
const BIG: usize = 6_000_000;

fn disks(world: &World) -> Disks {
    Disks::new(world.folder.path().join("disks"), world.root().join("locks"))
}

async fn make(world: &World) -> Result<EnginesDisk, Error> {
    make_with(world, Arc::new(Log::default()), CancellationToken::new()).await
}

async fn make_with(
    world: &World,
    progress: Arc<dyn Progress>,
    cancel: CancellationToken,
) -> Result<EnginesDisk, Error> {
    disks(world).make(&world.store(), &[("toy", None)], progress, cancel).await
}

/// A world with an engine that is installed. Its entry point has folders that go first on its PATH, or not.
async fn installed(ballast: usize, path: bool) -> World {
    let mut world = World::new(&[toy("1.0.0", ballast)]);
    if !path {
        let changed = world.lock.replace(r#""path":["data"]"#, r#""path":[]"#);
        assert_ne!(changed, world.lock);
        world.lock = changed;
    }
    world.install().await.unwrap();
    world
}

/// What is in the folder of disks.
fn names(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.folder.path().join("disks")).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Everything on a disk, a line each, and the files' contents are written below `to`.
fn unpack(disk: &Path, to: &Path) -> String {
    let disk = FilesystemReader::from_reader(BufReader::new(File::open(disk).unwrap())).unwrap();
    let mut lines = Vec::new();
    for node in disk.files() {
        let at = to.join(node.fullpath.strip_prefix("/").unwrap());
        let (header, shown) = (node.header, node.fullpath.display());
        assert!(node.fullpath == Path::new("/") || header.mtime == 499_162_500, "{shown}");
        let what = match &node.inner {
            InnerNode::Dir(_) => {
                fs::create_dir_all(&at).unwrap();
                "folder".to_owned()
            }
            InnerNode::Symlink(link) => {
                std::os::unix::fs::symlink(&link.link, &at).unwrap();
                format!("-> {}", link.link.display())
            }
            InnerNode::File(file) => {
                let mut bytes = Vec::new();
                disk.file(file).reader().read_to_end(&mut bytes).unwrap();
                fs::write(&at, &bytes).unwrap();
                fs::set_permissions(&at, fs::Permissions::from_mode(header.permissions.into())).unwrap();
                format!("{} bytes", bytes.len())
            }
            _ => panic!("{shown} is something else"),
        };
        lines.push(format!("{:o} {}:{} {shown} {what}", header.permissions, header.uid, header.gid));
    }
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_holds_engines_and_a_command_for_each() {
    let world = installed(300_000, false).await;
    let log = Arc::new(Log::default());
    let disk = make_with(&world, log.clone(), CancellationToken::new()).await.unwrap();
    assert_eq!(disk.engines[0].name, "toy");
    assert_eq!(fs::metadata(&disk.file).unwrap().len(), disk.bytes);
    assert_eq!(disk.bytes % 4096, 0, "a disk has whole sectors");
    let out = world.folder.path().join("out");
    insta::assert_snapshot!(unpack(&disk.file, &out));
    for file in ["bin/toy", "data/noise", "package.json"] {
        let there = fs::read(world.store().require("toy", None).unwrap().root.join(file)).unwrap();
        assert!(fs::read(out.join("toy-1.0.0").join(file)).unwrap() == there, "{file}");
    }
    assert_eq!(said(&out.join("bin/toy")), "toy 1.0.0\n");
    let log = log.0.lock().unwrap().clone();
    let phases: Vec<_> = log.iter().filter(|line| !line.contains('/')).map(String::as_str).collect();
    assert_eq!(phases, ["writing", "finishing"]);
    let total = 300_000 + 2 + PROGRAM.len();
    assert!(log.contains(&format!("{total}/{total}")), "{log:?}");
    assert_eq!(world.litter(), Vec::<String>::new());
}

/// What a script prints. It is read by a shell: what was just written cannot be started while a process that another test
/// starts has it open.
fn said(script: &Path) -> String {
    let output = Command::new("sh").arg(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_with_folders_for_its_path_is_started_by_a_script() {
    let world = installed(10, true).await;
    let disk = make(&world).await.unwrap();
    let out = world.folder.path().join("it's out");
    insta::assert_snapshot!(unpack(&disk.file, &out));
    insta::assert_snapshot!("script", fs::read_to_string(out.join("bin/toy")).unwrap());
    let echo = out.join("toy-1.0.0/bin/toy");
    fs::remove_file(&echo).unwrap();
    std::os::unix::fs::symlink("/bin/sh", &echo).unwrap();
    let print = ["-c", "echo \"${PATH%%:*}\" \"$@\"", "sh", "a b", "c"];
    let output = Command::new("sh").arg(out.join("bin/toy")).args(print).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (path, arguments) = said.split_once("data ").unwrap();
    assert_eq!(arguments, "a b c\n");
    assert!(Path::new(path).join("data/noise").is_file(), "{said}");
}

/// The kernel reads what squashfs' own tools read, and they are strict.
#[tokio::test(flavor = "multi_thread")]
async fn what_reads_squashfs_reads_a_disk() {
    let world = installed(1_000_000, false).await;
    let disk = make(&world).await.unwrap();
    let out = world.folder.path().join("out");
    let Ok(output) =
        Command::new("unsquashfs").args(["-quiet", "-no-progress", "-d"]).arg(&out).arg(&disk.file).output()
    else {
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let noise = fs::read(world.store().require("toy", None).unwrap().root.join("data/noise")).unwrap();
    assert!(fs::read(out.join("toy-1.0.0/data/noise")).unwrap() == noise);
    assert_eq!(said(&out.join("bin/toy")), "toy 1.0.0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_engines_are_the_same_bytes_and_others_another_disk() {
    let (one, other, third) =
        (installed(5000, false).await, installed(5000, false).await, installed(5001, false).await);
    let (one, other, third) = (make(&one).await.unwrap(), make(&other).await.unwrap(), make(&third).await.unwrap());
    assert_eq!(one.name, other.name);
    assert!(fs::read(&one.file).unwrap() == fs::read(&other.file).unwrap());
    assert_ne!(one.name, third.name);
    let plain = |it: char| it.is_ascii_alphanumeric() || "-._".contains(it);
    assert!(one.name.starts_with("linux-") && one.name.chars().all(plain), "{}", one.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_there_is_taken_and_needs_no_engine() {
    let world = installed(5000, false).await;
    assert!(disks(&world).find(&world.store(), &[("toy", None)]).unwrap().is_none());
    assert_eq!(names(&world), [""; 0], "looking makes nothing");
    let made = make(&world).await.unwrap();
    let inode = fs::metadata(&made.file).unwrap().ino();
    world.store().remove("toy", None).unwrap();
    let log = Arc::new(Log::default());
    let again = make_with(&world, log.clone(), CancellationToken::new()).await.unwrap();
    assert_eq!((again.name.clone(), fs::metadata(&again.file).unwrap().ino()), (made.name.clone(), inode));
    assert_eq!(log.0.lock().unwrap().clone(), Vec::<String>::new());
    assert!(disks(&world).find(&world.store(), &[("toy", None)]).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_time_is_looked_into_and_other_bytes_are_written_again() {
    let world = installed(5000, false).await;
    let disk = make(&world).await.unwrap();
    let (file, whole) = (disk.file.clone(), fs::read(&disk.file).unwrap());
    let stamp = file.with_extension("json");
    drop(disk);
    let inode = || fs::metadata(&file).unwrap().ino();
    let first = inode();
    // A copy of the folder, on a machine that does not have the engine any more.
    fs::write(&file, &whole).unwrap();
    make(&world).await.unwrap();
    assert_eq!(inode(), first);
    let log = Arc::new(Log::default());
    make_with(&world, log.clone(), CancellationToken::new()).await.unwrap();
    assert_eq!(log.0.lock().unwrap().clone(), Vec::<String>::new(), "it was looked into once");

    let damage: [&dyn Fn(); 5] = [
        &|| {
            let mut other = whole.clone();
            other[5000] ^= 1;
            fs::write(&file, other).unwrap();
        },
        &|| fs::write(&file, &whole[..8192]).unwrap(),
        &|| fs::write(&stamp, "{}").unwrap(),
        &|| fs::remove_file(&stamp).unwrap(),
        &|| fs::remove_file(&file).unwrap(),
    ];
    for (index, damage) in damage.iter().enumerate() {
        damage();
        drop(make(&world).await.unwrap());
        assert!(fs::read(&file).unwrap() == whole, "{index}");
        assert_eq!(names(&world).len(), 2, "{index}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_not_there_or_was_changed_becomes_no_disk() {
    let world = World::new(&[toy("1.0.0", 5000)]);
    let error = make(&world).await.unwrap_err();
    assert_eq!((error.code(), names(&world).len()), ("not-installed", 0));
    let engine = world.install().await.unwrap();
    let noise = engine.root.join("data/noise");
    let mut bytes = fs::read(&noise).unwrap();
    bytes[7] ^= 1;
    fs::write(&noise, bytes).unwrap();
    let error = make(&world).await.unwrap_err();
    assert_eq!((error.code(), names(&world)), ("integrity", Vec::new()), "{error}");
    assert!(error.to_string().contains("`data/noise` was changed"), "{error}");
    assert!(world.store().find("toy", None).unwrap().is_none(), "and everybody sees it");
    world.install().await.unwrap();
    make(&world).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_engine_in_two_versions_is_refused_and_the_same_one_twice_is_one() {
    let world = World::with_versions(&[("1.0.0", &[toy("1.0.0", 10)]), ("1.1.0", &[toy("1.1.0", 20)])]);
    world.install().await.unwrap();
    let (disks, store) = (disks(&world), world.store());
    let both = [("toy", None), ("toy", Some("1.1.0"))];
    assert_eq!(disks.find(&store, &both).unwrap_err().code(), "invalid");
    let twice = [("toy", None), ("toy", Some("1.0.0"))];
    let made = disks.make(&store, &twice, Arc::new(Log::default()), CancellationToken::new()).await.unwrap();
    assert_eq!(made.engines.len(), 1);
}

/// Cancels once something is written.
struct Cancels(CancellationToken, Mutex<Vec<Phase>>);

impl Progress for Cancels {
    fn phase(&self, phase: Phase) {
        self.1.lock().unwrap().push(phase);
    }
    fn bytes(&self, _: u64, _: u64) {
        self.0.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_it_leaves_nothing() {
    let world = installed(BIG, false).await;
    let cancel = CancellationToken::new();
    let error = make_with(&world, Arc::new(Cancels(cancel.clone(), Mutex::default())), cancel).await.unwrap_err();
    assert_eq!((error.code(), names(&world)), ("cancelled", Vec::new()));
    assert_eq!(error.to_string(), "making the disk with `toy 1.0.0` was cancelled");
    assert_eq!(world.litter(), Vec::<String>::new());
}

/// Starts another process that makes the disk, by a shell that says something first.
fn maker(world: &World, before: &str) -> std::process::Child {
    let lock = world.folder.path().join("engines.lock");
    // Another one may be reading it.
    if !lock.exists() {
        fs::write(&lock, &world.lock).unwrap();
    }
    let told =
        [world.root().to_str().unwrap(), lock.to_str().unwrap(), world.folder.path().to_str().unwrap()].join("\n");
    Command::new("sh")
        .args(["-c", &format!("{before}; exec \"$@\""), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "disk::makes_a_disk_when_told", "--nocapture"])
        .env(TOLD, told)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn makes_a_disk_when_told() {
    let Ok(told) = std::env::var(TOLD) else {
        return;
    };
    let told: Vec<_> = told.lines().map(PathBuf::from).collect();
    let lock = EnginesLock::parse(&fs::read_to_string(&told[1]).unwrap()).unwrap();
    let store = Store::new(told[0].clone(), lock, Platform::detect(Path::new("/")).unwrap());
    let disks = Disks::new(told[2].join("disks"), told[0].join("locks"));
    let log = Arc::new(Log::default());
    let made = disks.make(&store, &[("toy", None)], log.clone(), CancellationToken::new()).await;
    let wrote = log.0.lock().unwrap().iter().any(|it| it == "writing");
    println!("outcome: {} {wrote}", made.as_ref().map_or_else(|error| error.code(), |_| "made"));
}

fn outcome(child: std::process::Child) -> Option<String> {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.lines().find_map(|line| Some(line.split_once("outcome: ")?.1.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_make_it_once() {
    let world = installed(BIG, false).await;
    let all: Vec<_> = (0..4).map(|_| maker(&world, ":")).collect();
    let mut outcomes: Vec<_> = all.into_iter().map(|it| outcome(it).unwrap()).collect();
    outcomes.sort();
    assert_eq!(outcomes, ["made false", "made false", "made false", "made true"]);
    assert_eq!(names(&world).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_leaves_nothing_and_one_that_is_killed_nothing_for_long() {
    let world = installed(BIG, false).await;
    // Blocks of 512 bytes: the disk is larger than a file may be.
    assert_eq!(outcome(maker(&world, "trap '' XFSZ; ulimit -f 4000")).as_deref(), Some("io true"));
    assert_eq!(names(&world), [""; 0]);
    // The same limit, and its signal kills.
    assert_eq!(outcome(maker(&world, "ulimit -f 4000")), None);
    let left = names(&world);
    assert!(left.len() == 1 && left[0].ends_with(".part"), "{left:?}");
    assert!(disks(&world).find(&world.store(), &[("toy", None)]).unwrap().is_none());
    make(&world).await.unwrap();
    assert_eq!(names(&world).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_disk_that_nobody_uses_is_pruned() {
    let world = World::with_versions(&[("1.0.0", &[toy("1.0.0", 10)]), ("1.1.0", &[toy("1.1.0", 20)])]);
    let (disks, store) = (disks(&world), world.store());
    let lock = store.lock().clone();
    assert_eq!(disks.prune(&lock, &[]).unwrap().removed, [""; 0]);
    let (log, cancel) = (Arc::new(Log::default()), CancellationToken::new());
    let mut made = Vec::new();
    for version in ["1.0.0", "1.1.0"] {
        store.install("toy", Some(version), &world.options(), log.clone(), cancel.clone()).await.unwrap();
        made.push(disks.make(&store, &[("toy", Some(version))], log.clone(), cancel.clone()).await.unwrap());
    }
    fs::write(world.folder.path().join("disks/notes.txt"), "mine").unwrap();
    let old = made.pop().unwrap();
    let (name, bytes) = (old.name.clone(), old.bytes);
    // Somebody boots with it.
    let pruned = disks.prune(&lock, &[]).unwrap();
    assert_eq!((pruned.removed, pruned.in_use), (Vec::new(), vec![name.clone()]));
    drop(old);
    // A machine has it.
    let pruned = disks.prune(&lock, std::slice::from_ref(&name)).unwrap();
    assert_eq!((pruned.removed, pruned.in_use), (Vec::new(), Vec::new()));
    fs::write(world.folder.path().join(format!("disks/.{}.abc.part", name.strip_suffix(".squashfs").unwrap())), "x")
        .unwrap();
    let pruned = disks.prune(&lock, &[]).unwrap();
    assert_eq!((pruned.removed, pruned.in_use, pruned.freed_bytes), (vec![name], Vec::new(), bytes + 1));
    assert_eq!(names(&world).len(), 3, "the default one, its stamp, and what is not ours");
}
