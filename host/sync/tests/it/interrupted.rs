//! Syncs that end in the middle: the instance goes down at every step, answers get lost, and the next sync repairs.

use std::path::{Path, PathBuf};
use std::process::Command;

use pcoder_sync::{Error, RemoteError};

use crate::large::noise;
use crate::machine::{Pair, Shell, notice, read, set_mode, shells, tree, write};
use crate::parts::many;

/// Tools that count how often one was called, and end everything at one call, before it does its work. What comes after
/// the work of one is before that of the next.
fn killing_tools(folder: &Path, real: &str, at: usize) -> PathBuf {
    let tools = folder.join("tools");
    let count = folder.join("count");
    std::fs::write(&count, "").unwrap();
    for tool in ["mv", "rm", "rmdir", "chmod", "head", "tar", "mkdir", "xargs", "find"] {
        let count = count.display();
        let kill = format!("[ \"$(($(wc -c <{count})))\" -lt {at} ] || kill -9 0");
        let script = format!(
            "#!/bin/sh\nprintf x >>{count}\n{kill}\n\
             t=$(PATH={real}; command -v {tool})\nexec \"$t\" \"$@\"\n"
        );
        write(tools.join(tool), script);
        set_mode(tools.join(tool), 0o755);
    }
    tools
}

fn scene(shell: Shell) -> Pair {
    let pair = Pair::new(shell);
    let host = pair.host();
    for it in
        ["keep", "change", "gone", "folder/gone", "folder/keep", "file to folder", "folder to file/x", "dir/gone/x"]
    {
        write(host.join(it), "before");
    }
    pair.push();
    write(host.join("change"), "after");
    write(host.join("folder/new"), "after");
    write(host.join("new/deep/er"), "after");
    for it in ["gone", "folder/gone", "file to folder"] {
        std::fs::remove_file(host.join(it)).unwrap();
    }
    std::fs::remove_dir_all(host.join("dir/gone")).unwrap();
    write(host.join("file to folder/x"), "after");
    std::fs::remove_dir_all(host.join("folder to file")).unwrap();
    write(host.join("folder to file"), "after");
    set_mode(host.join("keep"), 0o700);
    set_mode(host.join("new/deep"), 0o500);
    pair
}

#[test]
fn a_push_that_is_killed_at_any_step_is_repaired_by_the_next() {
    let shells = shells().into_iter().filter(|it| *it != Shell::Bash).map(|it| (it, false));
    // Once also with what comes in parts.
    for (shell, in_parts) in shells.chain([(Shell::System, true)]) {
        let mut killed = 0;
        for at in 1.. {
            let mut pair = scene(shell);
            if in_parts {
                many(&pair.host().join("many"), b"");
            }
            // In busybox's shell tools are looked for where the others are, without the folder of these.
            let real = if shell == Shell::Busybox { "${PATH#*:}" } else { "/usr/bin:/bin" };
            pair.machine.tools = Some(killing_tools(pair.folder.path(), real, at));
            let host = tree(&pair.host());
            match pair.try_push() {
                Ok(_) => break,
                Err(Error::Unreachable(_)) => killed += 1,
                Err(error) => panic!("{shell:?}, {at}: {error}"),
            }
            pair.machine.tools = None;
            // Whatever a file is by then, it is whole.
            for (path, content) in [("change", ["before", "after"]), ("keep", ["before", "before"])] {
                let now = read(pair.instance().join(path));
                assert!(content.contains(&now.as_str()), "{path}: {now}");
            }
            let pushed = pair.push();
            // What was gone before its successor came looks deleted there; of the two the change stays.
            let kinds = ["file to folder", "folder to file"].map(PathBuf::from);
            let only_kinds = pushed.conflicts.iter().all(|it| kinds.contains(&it.path));
            assert!(only_kinds, "{shell:?}, {at}: {pushed:?}");
            assert_eq!(tree(&pair.host()), host, "a push changes nothing here");
            pair.assert_same();
            pair.assert_settled();
        }
        assert!(killed > 20, "{shell:?}: only {killed} steps");
    }
}

#[test]
fn a_push_whose_answer_is_lost_was_done() {
    let pair = scene(Shell::System);
    pair.machine.after(|number, ran| {
        if number == 1 {
            *ran = Err(RemoteError::new("the connection was closed"));
        }
    });
    assert!(matches!(pair.try_push(), Err(Error::Unreachable(_))));
    pair.machine.quiet();
    pair.assert_same();
    pair.assert_settled();
}

#[test]
fn a_pull_that_breaks_off_anywhere_is_repaired_by_the_next() {
    for fail_at in 0..3 {
        let mut pair = scene(Shell::System);
        pair.push();
        let instance = pair.instance();
        write(instance.join("change"), "there");
        write(instance.join("more"), "x".repeat(200_000));
        write(instance.join("most"), "y".repeat(200_000));
        std::fs::remove_file(instance.join("new/deep/er")).unwrap();
        // Small enough that it comes in several runs.
        pair.machine.limit = 150_000;
        pair.machine.after(move |number, ran| {
            if number == fail_at {
                *ran = Err(RemoteError::new("the connection was closed"));
            }
        });
        let before = tree(&pair.host());
        assert!(matches!(pair.try_pull(), Err(Error::Unreachable(_))), "{fail_at}");
        assert_eq!(tree(&pair.host()), before, "nothing is done before everything is there");
        pair.machine.quiet();
        let pulled = pair.pull();
        assert!(pulled.conflicts.is_empty() && pulled.skipped.is_empty(), "{pulled:?}");
        pair.assert_same();
        pair.assert_settled();
    }
}

#[test]
fn what_a_killed_sync_left_on_this_host_is_removed_and_never_sent() {
    let pair = Pair::new(Shell::System);
    write(pair.host().join("a"), "x");
    write(pair.host().join(".pcoder-sync/0"), "half a file");
    pair.push();
    assert!(!pair.instance().join(".pcoder-sync").exists());
    write(pair.instance().join("b"), "x");
    pair.pull();
    assert!(!pair.host().join(".pcoder-sync").exists());
    pair.assert_same();
}

#[test]
fn a_conflict_that_was_kept_before_the_state_was_written_is_kept_once() {
    let pair = Pair::new(Shell::System);
    write(pair.host().join("a"), "before");
    pair.push();
    let state = std::fs::read(pair.state()).unwrap();
    write(pair.host().join("a"), "host's");
    write(pair.instance().join("a"), "instance's");
    pair.pull();
    // As if it had been killed just before.
    std::fs::write(pair.state(), state).unwrap();
    pair.pull();
    assert_eq!(read(pair.host().join("a.from-vm")), "instance's");
    assert!(!pair.host().join("a.from-vm-2").exists());
    pair.push();
    pair.assert_same();
    pair.assert_settled();
}

#[test]
fn a_script_that_fails_is_told_with_its_last_words() {
    let pair = Pair::new(Shell::System);
    write(pair.host().join("a"), "x");
    write(pair.instance(), "a file in the way");
    let Err(Error::Failed { code, message, .. }) = pair.try_push() else { panic!("a file is in the way") };
    assert!(code != 0 && message.contains("can't cd"), "{code}: {message}");
}

#[test]
fn an_instance_whose_disk_is_full_keeps_what_it_had_and_says_so() {
    let pair = Pair::new(Shell::System);
    std::fs::create_dir(pair.instance()).unwrap();
    let disk = |options: &str| {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(pair.instance()).output();
        mounted.is_ok_and(|it| it.status.success())
    };
    if !disk("size=1m") {
        notice("a small disk cannot be mounted here; this is not tried");
        return;
    }
    let unmount = Unmount(pair.instance());
    write(pair.host().join("small"), "before");
    pair.push();
    write(pair.host().join("small"), "after");
    std::fs::write(pair.host().join("large"), vec![b'x'; 3 << 20]).unwrap();
    for in_parts in [false, true] {
        if in_parts {
            std::fs::remove_file(pair.host().join("large")).unwrap();
            many(&pair.host().join("many"), &noise(1, 4096));
        }
        let Err(Error::Failed { message, .. }) = pair.try_push() else { panic!("there is no room") };
        assert!(message.contains("No space left on device"), "{message}");
        assert_eq!(tree(&pair.instance()).into_keys().collect::<Vec<_>>(), [PathBuf::from("small")]);
        assert_eq!(read(pair.instance().join("small")), "before");
    }
    // What the instance has changed meanwhile comes back all the same.
    write(pair.instance().join("found"), "there");
    pair.pull();
    assert_eq!(read(pair.host().join("found")), "there");
    assert!(disk("remount,size=16m"));
    pair.push();
    pair.assert_same();
    drop(unmount);
}

/// What is mounted here until this is dropped.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).output());
    }
}
