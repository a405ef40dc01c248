//! What is ignored is never sent, overwritten or deleted.

use std::path::Path;

use crate::machine::{Pair, Shell, block_on, read, shells, write};

#[test]
fn what_is_ignored_stays_where_it_is() {
    for shell in shells() {
        let pair = Pair::new(shell);
        let (host, instance) = (pair.host(), pair.instance());
        write(host.join(".pcoderignore"), "*.log\n/target/\n!keep.log\n");
        write(host.join("sub/.pcoderignore"), "local.txt\n");
        for it in [".git/config", "node_modules/a/b", "x.log", "target/big", "sub/local.txt", "sub/node_modules/x"] {
            write(host.join(it), "host's");
        }
        for it in ["a", "keep.log", "sub/b", "sub/target/c", "gone/d"] {
            write(host.join(it), "x");
        }
        pair.push();
        let there = |it: &str| instance.join(it).exists();
        assert!(there("a") && there("keep.log") && there("sub/b") && there("sub/target/c") && there(".pcoderignore"));
        for it in [".git", "node_modules", "x.log", "target", "sub/local.txt", "sub/node_modules"] {
            assert!(!there(it), "{shell:?}: {it} was sent");
        }
        for it in [".git/config", "node_modules/a/c", "x.log", "target/big", "sub/local.txt", "gone/node_modules/x"] {
            write(instance.join(it), "instance's");
        }
        pair.pull();
        assert_eq!(read(host.join(".git/config")), "host's");
        assert!(!host.join("node_modules/a/c").exists());
        // A folder that goes here stays there for what is ignored in it, and once that was tried it is not tried again.
        std::fs::remove_dir_all(host.join("gone")).unwrap();
        pair.push();
        assert!(!there("gone/d") && there("gone/node_modules/x"), "{shell:?}");
        pair.assert_settled();
        assert!(!host.join("gone").exists());
        // The other way round.
        std::fs::remove_dir_all(instance.join("sub")).unwrap();
        pair.pull();
        assert!(!host.join("sub/b").exists());
        assert_eq!(read(host.join("sub/local.txt")), "host's");
        assert_eq!(read(host.join("sub/node_modules/x")), "host's");
        pair.push();
        assert!(there("sub/.pcoderignore") && !there("sub/local.txt"));
        pair.assert_settled();
    }
}

#[test]
fn the_instance_does_not_read_what_is_ignored() {
    let pair = Pair::new(Shell::System);
    write(pair.host().join("a"), "x");
    pair.push();
    for it in 0..50 {
        write(pair.instance().join(format!("node_modules/{it}/x")), "x");
    }
    // Of what is ignored only the topmost name counts.
    let sync = pair.sync().max_files(5);
    block_on(sync.push(&pair.machine)).unwrap();
    block_on(sync.pull(&pair.machine)).unwrap();
}

#[cfg(unix)]
#[test]
fn lists_that_are_links_or_ignore_themselves_cost_no_second_question() {
    let pair = Pair::new(Shell::System);
    let host = pair.host();
    write(host.join(".pcoderignore"), ".pcoderignore\ntarget/\n");
    write(host.join("lists/common"), "*.log\n");
    std::fs::create_dir(host.join("sub")).unwrap();
    std::os::unix::fs::symlink("../lists/common", host.join("sub/.pcoderignore")).unwrap();
    for it in ["a", "target/b", "sub/c", "sub/d.log"] {
        write(host.join(it), "x");
    }
    pair.push();
    let there = |it: &str| pair.instance().join(it).exists();
    assert!(there("a") && there("sub/c") && !there("target") && !there("sub/d.log") && !there(".pcoderignore"));
    pair.machine.counted();
    pair.push();
    assert_eq!(pair.machine.counted(), 1);
}

#[test]
fn patterns_can_be_added_and_the_defaults_turned_off() {
    let pair = Pair::new(Shell::System);
    for it in ["node_modules/a", "b.tmp", "c"] {
        write(pair.host().join(it), "x");
    }
    let sync = pair.sync().ignore(["*.tmp"]).ignore_defaults(false);
    block_on(sync.push(&pair.machine)).unwrap();
    let there = |it: &str| Path::exists(&pair.instance().join(it));
    assert!(there("node_modules/a") && there("c") && !there("b.tmp"));
}

#[test]
fn the_instance_cannot_have_itself_sent_what_is_ignored() {
    let pair = Pair::new(Shell::System);
    let (host, instance) = (pair.host(), pair.instance());
    write(host.join(".pcoderignore"), "secret\n");
    write(host.join("secret"), "host's");
    write(host.join("folder/secret"), "host's");
    write(host.join("folder/a"), "x");
    pair.push();
    write(instance.join(".pcoderignore"), "!secret\n");
    write(instance.join("folder/.pcoderignore"), "!secret\n");
    for _ in 0..2 {
        pair.pull();
        pair.push();
    }
    assert_eq!(read(host.join(".pcoderignore")), "secret\n");
    assert_eq!(read(host.join(".pcoderignore.from-vm")), "!secret\n");
    assert!(!instance.join("secret").exists() && !instance.join("folder/secret").exists());
    std::fs::remove_file(instance.join(".pcoderignore")).unwrap();
    pair.pull();
    pair.push();
    assert!(!instance.join("secret").exists());
    assert_eq!(read(instance.join(".pcoderignore")), "secret\n");
    pair.assert_settled();
}
