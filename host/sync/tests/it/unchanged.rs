//! Files that look as they did are not read again on the instance; and what looks so but is not, is found out.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::machine::{Machine, Pair, Shell, block_on, notice, read, set_mode, write};

/// Whether the tests' folder is on a file system whose files show that they changed. Else all of them are read each time.
fn shows_changes(pair: &Pair) -> bool {
    let said = std::process::Command::new("stat").args(["-f", "-c", "%T"]).arg(pair.folder.path()).output().unwrap();
    let kind = String::from_utf8(said.stdout).unwrap();
    let shows = ["ext", "xfs", "btrfs", "overlayfs"].iter().any(|it| kind.starts_with(it));
    if !shows {
        notice(&format!("files are not told apart by their status on {}", kind.trim()));
    }
    shows
}

/// Puts a file's time back to an hour ago.
fn age(path: impl AsRef<Path>) {
    let hour_ago = SystemTime::now() - Duration::from_hours(1);
    File::options().write(true).open(path).unwrap().set_modified(hour_ago).unwrap();
}

/// An instance that notes each file whose sum it makes, and whose clock may be wrong by some seconds.
fn pair(shell: Shell, clock: i64) -> Pair {
    let pair = Pair::new(shell);
    let tools = pair.folder.path().join("tools");
    let tool = |name: &str, script: String| {
        write(tools.join(name), format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{script}"));
        set_mode(tools.join(name), 0o755);
    };
    let log = pair.folder.path().join("read");
    tool("sha256sum", format!("for f do echo \"$f\" >>'{}'; done\nexec sha256sum \"$@\"\n", log.display()));
    tool("date", format!("exec date -d '{clock} seconds' \"$@\"\n"));
    Pair { machine: Machine { tools: Some(tools), ..Machine::new(shell) }, ..pair }
}

/// The files that were read since this was asked last.
fn reads(pair: &Pair) -> Vec<String> {
    let log = pair.folder.path().join("read");
    let mut lines: Vec<String> = std::fs::read_to_string(&log).unwrap_or_default().lines().map(str::to_owned).collect();
    write(&log, "");
    lines.sort();
    lines
}

/// Two files in a folder, on both sides.
fn synced(shell: Shell, clock: i64) -> Pair {
    let pair = pair(shell, clock);
    for it in ["d/one", "d/two"] {
        write(pair.host().join(it), "content");
        age(pair.host().join(it));
    }
    pair.push();
    pair
}

#[test]
fn a_sync_without_changes_reads_no_file() {
    for shell in [Shell::System, Shell::Bash] {
        let pair = synced(shell, 0);
        pair.assert_settled();
        if !shows_changes(&pair) {
            return;
        }
        assert_eq!(reads(&pair), [""; 0], "{shell:?}: what was sent is known");

        // What counts is the time that a file's status has by the file system's clock, which nobody can set.
        let pass = || std::thread::sleep(Duration::from_millis(200));
        write(pair.host().join("d/three"), "new");
        age(pair.host().join("d/three"));
        pair.push();
        pass();
        write(pair.instance().join("d/four"), "new there");
        pair.pull();
        pass();
        reads(&pair);
        write(pair.instance().join("d/one"), "changed there");
        pair.pull();
        pair.assert_same();
        assert_eq!(read(pair.host().join("d/one")), "changed there");
        // The fourth is so new that a change might leave its time as it is.
        assert_eq!(reads(&pair), ["./d/four", "./d/one"], "{shell:?}");
    }
}

#[test]
fn a_change_that_leaves_size_and_time_is_seen() {
    for clock in [0, 3600, -3600] {
        let pair = synced(Shell::System, clock);
        let changed = pair.instance().join("d/one");
        let time = std::fs::metadata(&changed).unwrap().modified().unwrap();
        write(&changed, "CONTENT");
        File::options().write(true).open(&changed).unwrap().set_modified(time).unwrap();
        pair.pull();
        assert_eq!(read(pair.host().join("d/one")), "CONTENT", "with a clock that is wrong by {clock} seconds");
        pair.assert_same();
    }
}

#[test]
fn a_file_that_comes_from_elsewhere_with_an_old_time_is_read() {
    // By this clock, nothing was changed since the last sync.
    let pair = synced(Shell::System, 3600);
    std::fs::rename(pair.instance().join("d"), pair.instance().join("e")).unwrap();
    pair.machine.counted();
    let pulled = pair.pull();
    assert_eq!((pulled.created.len(), pulled.deleted.len()), (3, 3), "{pulled:?}");
    let looks = if shows_changes(&pair) { 2 } else { 1 };
    assert_eq!(pair.machine.counted(), looks + 1, "looked at quickly, looked at, fetched");
    pair.assert_same();
    pair.assert_settled();
}

#[test]
fn what_is_changed_when_it_was_just_listed_is_seen() {
    // Each run may be in the same moment as the change before it, as far as a coarse clock can tell.
    let pair = synced(Shell::System, 0);
    for round in 0..5 {
        for file in ["d/one", "d/two"] {
            let content = format!("round {round}");
            write(pair.instance().join(file), &content);
            pair.pull();
            assert_eq!(read(pair.host().join(file)), content);
        }
    }
}

#[test]
fn permissions_that_change_alone_are_synced() {
    let pair = synced(Shell::System, 0);
    set_mode(pair.host().join("d/one"), 0o600);
    pair.push();
    set_mode(pair.instance().join("d/two"), 0o640);
    pair.pull();
    pair.assert_same();
    pair.assert_settled();
}

#[test]
fn an_instance_that_was_put_back_is_looked_at_anew() {
    let pair = synced(Shell::System, 0);
    let saved = pair.folder.path().join("saved");
    let copy = |from: &Path, to: &Path| {
        let status = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
        assert!(status.success());
    };
    copy(&pair.instance(), &saved);
    write(pair.host().join("d/one"), "second");
    pair.push();
    std::fs::remove_dir_all(pair.instance()).unwrap();
    copy(&saved, &pair.instance());
    // The instance has what the sync before the last one brought: to the record that is a change made there.
    let pushed = block_on(pair.sync().push(&pair.machine)).unwrap();
    assert_eq!((pushed.files, pushed.conflicts.len()), (0, 0), "{pushed:?}");
    pair.pull();
    assert_eq!(read(pair.host().join("d/one")), "content");
    pair.assert_same();
}

/// A program that has a file in its memory, and writes to it there.
const WRITES_IN_MEMORY: &str = r#"
import mmap, sys
file = open(sys.argv[1], "r+b")
memory = mmap.mmap(file.fileno(), 0)
for line in sys.stdin:
    memory[0] = ord(line[0])
    print("written", flush=True)
"#;

#[test]
fn what_is_written_in_memory_is_seen() {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Command, Stdio};
    let pair = synced(Shell::System, 0);
    let mut program = Command::new("python3")
        .args(["-c", WRITES_IN_MEMORY])
        .arg(pair.instance().join("d/one"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (program.stdin.take().unwrap(), BufReader::new(program.stdout.take().unwrap()));
    for letter in ["1", "2"] {
        writeln!(stdin, "{letter}").unwrap();
        stdout.read_line(&mut String::new()).unwrap();
        // So long that what was changed before counts as known.
        std::thread::sleep(Duration::from_secs(4));
        pair.pull();
        assert_eq!(read(pair.host().join("d/one")), format!("{letter}ontent"));
        pair.pull();
    }
    drop(stdin);
    program.wait().unwrap();
}

#[test]
fn an_older_record_of_the_last_sync_loses_nothing() {
    let pair = synced(Shell::System, 0);
    let (one, state) = (pair.instance().join("d/one"), pair.state());
    let before = std::fs::read(&state).unwrap();
    write(&one, "CONTENT");
    pair.pull();
    write(pair.host().join("d/one"), "from the host");
    // The state of before: its base is older than what both sides have by now.
    std::fs::write(&state, before).unwrap();
    let pushed = pair.push();
    assert_eq!((pushed.files, pushed.conflicts.len()), (0, 1), "both changed it since: {pushed:?}");
    assert_eq!(read(&one), "CONTENT");
}
