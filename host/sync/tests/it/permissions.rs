//! What one may not read or write.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use pcoder_sync::{Reason, Side};

use crate::machine::{Pair, block_on, notice, read, set_mode, shells, write};

const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0)
}

/// Root may read everything. So it runs this test again as nobody; whoever is not root runs it as it is.
fn as_somebody(test: &str) -> bool {
    if !is_root() {
        return true;
    }
    // A copy, where anybody can reach it.
    let folder = tempfile::tempdir().unwrap();
    set_mode(folder.path(), 0o777);
    let program = folder.path().join("tests");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    set_mode(&program, 0o755);
    let nobody = NOBODY.to_string();
    let status = Command::new("setpriv")
        .args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"])
        .arg(&program)
        .args(["--exact", test, "--nocapture"])
        .env("TMPDIR", folder.path())
        .env("HOME", folder.path())
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert!(status.success(), "as nobody");
    false
}

#[test]
fn what_cannot_be_read_is_told_and_is_not_taken_as_deleted() {
    if !as_somebody("permissions::what_cannot_be_read_is_told_and_is_not_taken_as_deleted") {
        return;
    }
    for shell in shells() {
        let pair = Pair::new(shell);
        let (host, instance) = (pair.host(), pair.instance());
        for it in ["file", "folder/inside", "there", "folder there/inside", "good", "not listed/x"] {
            write(host.join(it), "before");
        }
        pair.push();
        write(host.join("good"), "after");
        write(host.join("file"), "changed");
        set_mode(host.join("file"), 0o000);
        set_mode(host.join("folder"), 0o000);
        set_mode(instance.join("there"), 0o000);
        set_mode(instance.join("folder there"), 0o000);
        set_mode(instance.join("not listed"), 0o300);
        let pushed = pair.push();
        let told = |side, path: &str| {
            let found = pushed.skipped.iter().find(|it| it.side == side && it.path == std::path::Path::new(path));
            matches!(found.map(|it| &it.reason), Some(Reason::Unreadable(_)))
        };
        assert!(told(Side::Host, "file") && told(Side::Host, "folder"), "{shell:?}: {pushed:?}");
        assert!(told(Side::Instance, "there") && told(Side::Instance, "folder there"), "{shell:?}: {pushed:?}");
        assert!(told(Side::Instance, "not listed"));
        assert_eq!((pushed.files, pushed.deleted), (1, 0));
        let pulled = pair.pull();
        assert!(pulled.deleted.is_empty(), "{pulled:?}");
        for it in ["file", "folder"] {
            set_mode(host.join(it), if it == "file" { 0o644 } else { 0o755 });
        }
        set_mode(instance.join("there"), 0o644);
        set_mode(instance.join("folder there"), 0o755);
        set_mode(instance.join("not listed"), 0o755);
        assert_eq!(read(instance.join("folder/inside")), "before");
        assert_eq!(read(host.join("folder there/inside")), "before");
        pair.push();
        pair.assert_same();
        pair.assert_settled();
    }
}

#[test]
fn folders_that_nobody_may_write_are_written_and_stay_as_they_are() {
    if !as_somebody("permissions::folders_that_nobody_may_write_are_written_and_stay_as_they_are") {
        return;
    }
    for shell in shells() {
        let pair = Pair::new(shell);
        let (host, instance) = (pair.host(), pair.instance());
        for it in ["d/change", "d/gone", "d/e/change", "d/f/gone"] {
            write(host.join(it), "before");
        }
        let close = |open: bool| {
            for it in ["d/e", "d/f", "d"] {
                set_mode(host.join(it), if open { 0o755 } else { 0o555 });
            }
        };
        let open = |it: &str, mode| set_mode(instance.join(it), mode);
        close(false);
        pair.push();
        set_mode(host.join("d"), 0o755);
        close(true);
        write(host.join("d/change"), "after");
        write(host.join("d/e/change"), "after");
        write(host.join("d/new/x"), "after");
        std::fs::remove_file(host.join("d/gone")).unwrap();
        std::fs::remove_dir_all(host.join("d/f")).unwrap();
        set_mode(host.join("d/e"), 0o555);
        set_mode(host.join("d"), 0o555);
        let pushed = pair.push();
        assert!(pushed.skipped.is_empty() && pushed.conflicts.is_empty(), "{shell:?}: {pushed:?}");
        pair.assert_same();
        pair.assert_settled();
        open("d", 0o755);
        open("d/e", 0o755);
        write(instance.join("d/change"), "there");
        write(instance.join("d/e/new"), "there");
        std::fs::remove_file(instance.join("d/e/change")).unwrap();
        open("d/e", 0o555);
        open("d", 0o555);
        let pulled = pair.pull();
        assert!(pulled.skipped.is_empty() && pulled.conflicts.is_empty(), "{shell:?}: {pulled:?}");
        pair.assert_same();
        pair.assert_settled();
        for root in [&host, &instance] {
            for it in ["d", "d/e"] {
                set_mode(root.join(it), 0o755);
            }
        }
    }
}

#[test]
fn a_folder_of_somebody_else_on_the_instance_is_told_and_the_rest_goes_on() {
    if !is_root() {
        notice("only root can give a folder to another user; this is not tried");
        return;
    }
    for shell in shells() {
        let mut pair = Pair::new(shell);
        write(pair.host().join("mine/a"), "before");
        write(pair.host().join("theirs/a"), "before");
        pair.push();
        std::os::unix::fs::chown(pair.instance(), Some(NOBODY), Some(NOBODY)).unwrap();
        std::os::unix::fs::chown(pair.instance().join("mine"), Some(NOBODY), Some(NOBODY)).unwrap();
        for it in ["mine/a", "theirs/a", "theirs/new/x"] {
            write(pair.host().join(it), "after");
        }
        std::fs::create_dir(pair.host().join("new")).unwrap();
        pair.machine.user = Some(NOBODY);
        let pushed = block_on(pair.sync().push(&pair.machine)).unwrap();
        assert_eq!(pushed.files, 1, "{shell:?}: {pushed:?}");
        let refused: Vec<_> = pushed.skipped.iter().filter(|it| matches!(it.reason, Reason::Refused(_))).collect();
        assert_eq!(refused.len(), 3, "{shell:?}: {pushed:?}");
        assert_eq!(read(pair.instance().join("mine/a")), "after");
        assert_eq!(read(pair.instance().join("theirs/a")), "before");
        pair.machine.user = None;
        pair.push();
        pair.assert_same();
        pair.assert_settled();
    }
}
