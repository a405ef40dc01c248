//! How many runs and bytes a sync is.

use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::machine::{Pair, Shell, notice, shells, write};

/// Bytes that cannot be packed, the same each time.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}

#[test]
fn five_thousand_files_are_two_runs_and_one_when_nothing_changed() {
    for shell in shells() {
        let pair = Pair::new(shell);
        for it in 0..5000_u64 {
            let path = pair.host().join(format!("src/module-{}/component-{it}.ts", it % 250));
            write(path, noise(it, 10_486));
        }
        let started = Instant::now();
        let pushed = pair.push();
        let first = started.elapsed();
        assert_eq!((pushed.files, pushed.bytes), (5000, 5000 * 10_486));
        assert_eq!(pair.machine.counted(), 2);
        let sent = pair.machine.sent.load(Ordering::SeqCst);
        assert_eq!(sent, pushed.sent);
        assert!(sent < 60_000_000, "{sent} bytes were sent");

        pair.machine.received.store(0, Ordering::SeqCst);
        let started = Instant::now();
        let pushed = pair.push();
        let again = started.elapsed();
        assert_eq!((pushed.files, pair.machine.counted()), (0, 1));
        let described = pair.machine.received.load(Ordering::SeqCst);
        assert!(described < 5250 * 100, "the description is {described} bytes");

        write(pair.host().join("src/module-7/component-7.ts"), "changed");
        let started = Instant::now();
        assert_eq!(pair.push().files, 1);
        let one = started.elapsed();
        assert_eq!(pair.machine.counted(), 2);
        notice(&format!(
            "{shell:?}: first push {first:?}, {sent} bytes; nothing changed {again:?}, {described} bytes; one file {one:?}"
        ));
        pair.assert_same();
    }
}

#[test]
fn a_pull_comes_in_as_many_runs_as_the_output_allows() {
    for shell in shells() {
        let mut pair = Pair::new(shell);
        write(pair.host().join("a"), "x");
        pair.push();
        let instance = pair.instance();
        for it in 0..40 {
            write(instance.join(format!("{it}")), noise(it, 50_000));
        }
        write(instance.join("very large\n"), noise(99, 1_300_000));
        write(instance.join("empty"), "");
        pair.machine.limit = 500_000;
        pair.machine.counted();
        let largest = std::sync::Arc::new(std::sync::Mutex::new(0));
        let seen = std::sync::Arc::clone(&largest);
        pair.machine.after(move |_, ran| {
            let mut seen = seen.lock().unwrap();
            *seen = ran.as_ref().unwrap().stdout.len().max(*seen);
        });
        let pulled = pair.pull();
        pair.machine.quiet();
        assert!(pulled.skipped.is_empty(), "{shell:?}: {pulled:?}");
        assert_eq!(pulled.created.len(), 42);
        let runs = pair.machine.counted();
        assert!((8..=12).contains(&runs), "{shell:?}: {runs} runs");
        assert!(*largest.lock().unwrap() < 500_000);
        pair.assert_same();
        pair.assert_settled();
    }
}

#[test]
fn a_description_that_is_longer_than_the_output_may_be_is_an_error() {
    let mut pair = Pair::new(Shell::System);
    for it in 0..200 {
        write(pair.host().join(format!("{it}")), format!("{it}"));
    }
    pair.push();
    pair.machine.limit = 1000;
    assert!(matches!(pair.try_push(), Err(pcoder_sync::Error::OutputLimit { limit: 1000 })));
}
