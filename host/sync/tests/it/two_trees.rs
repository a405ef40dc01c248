//! Two trees that change at random, with syncs in between: whatever happens, nothing that either side made is lost, and
//! both become the same.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use crate::machine::{Node, Pair, set_mode, shells, tree, write};

#[derive(Debug, Clone)]
enum Change {
    /// The number makes the content.
    Write(Vec<usize>, u8),
    Link(Vec<usize>, Vec<u8>),
    Folder(Vec<usize>),
    Remove(Vec<usize>),
    Mode(Vec<usize>, bool),
}

#[derive(Debug, Clone)]
enum Step {
    OnHost(Change),
    OnInstance(Change),
    /// With the state written afterwards, or killed before that.
    Push(bool),
    Pull(bool),
}

/// Names that have something to be got wrong, and that meet.
fn any_names() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let any = proptest::collection::vec(any::<u8>().prop_filter("no name", |it| !matches!(it, 0 | b'/')), 1..20);
    let chosen = proptest::sample::select(vec![
        b"a".to_vec(),
        b"a b".to_vec(),
        b"-n".to_vec(),
        b"a\nb".to_vec(),
        b"*".to_vec(),
        b"a-b".to_vec(),
        b"\\n".to_vec(),
        b"\xff".to_vec(),
        b"a.from-vm".to_vec(),
        vec![b'l'; 250],
    ]);
    let name = prop_oneof![2 => chosen, 1 => any];
    let good = |it: &Vec<u8>| !matches!(it.as_slice(), b"." | b".." | b".git" | b".pcoder-sync");
    proptest::collection::vec(name.prop_filter("a name", good), 4)
}

fn any_change() -> impl Strategy<Value = Change> {
    let path = || proptest::collection::vec(0..4usize, 1..4);
    prop_oneof![
        6 => (path(), 0..4u8).prop_map(|(path, content)| Change::Write(path, content)),
        1 => (path(), proptest::collection::vec(1..=255u8, 1..10)).prop_map(|(path, to)| Change::Link(path, to)),
        1 => path().prop_map(Change::Folder),
        3 => path().prop_map(Change::Remove),
        1 => (path(), any::<bool>()).prop_map(|(path, executable)| Change::Mode(path, executable)),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any_change().prop_map(Step::OnHost),
        4 => any_change().prop_map(Step::OnInstance),
        1 => proptest::bool::weighted(0.8).prop_map(Step::Push),
        1 => proptest::bool::weighted(0.8).prop_map(Step::Pull),
    ]
}

fn remove(path: &Path) {
    match std::fs::symlink_metadata(path) {
        Ok(it) if it.is_dir() => std::fs::remove_dir_all(path).unwrap(),
        Ok(_) => std::fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// Makes a change, and says which contents are gone by its maker's own will.
fn make(root: &Path, names: &[Vec<u8>], change: &Change, number: usize) {
    let path =
        |parts: &[usize]| parts.iter().fold(PathBuf::new(), |it, part| it.join(OsStr::from_bytes(&names[*part])));
    let clear = |path: &Path| {
        for parent in path.ancestors().skip(1) {
            let is_folder = std::fs::symlink_metadata(root.join(parent)).is_ok_and(|it| it.is_dir());
            if !is_folder && parent != Path::new("") {
                remove(&root.join(parent));
            }
        }
        remove(&root.join(path));
        std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
    };
    match change {
        Change::Write(parts, content) => {
            clear(&path(parts));
            // Now and then both sides make the same.
            let text = if *content == 0 { "same".to_owned() } else { format!("{number} {}", root.display()) };
            write(root.join(path(parts)), text);
        }
        Change::Link(parts, target) => {
            clear(&path(parts));
            std::os::unix::fs::symlink(OsStr::from_bytes(target), root.join(path(parts))).unwrap();
        }
        Change::Folder(parts) => {
            clear(&path(parts));
            std::fs::create_dir_all(root.join(path(parts))).unwrap();
        }
        Change::Remove(parts) => {
            // Never through a link.
            let parents = path(parts);
            let through = parents
                .ancestors()
                .skip(1)
                .any(|it| it != Path::new("") && !std::fs::symlink_metadata(root.join(it)).is_ok_and(|it| it.is_dir()));
            if !through {
                remove(&root.join(parents));
            }
        }
        Change::Mode(parts, executable) => {
            let path = root.join(path(parts));
            if std::fs::symlink_metadata(&path).is_ok_and(|it| it.is_file())
                && path.canonicalize().is_ok_and(|it| it == path)
            {
                set_mode(path, if *executable { 0o755 } else { 0o644 });
            }
        }
    }
}

fn contents(root: &Path) -> BTreeSet<Vec<u8>> {
    let content = |it| if let Node::File { content, .. } = it { Some(content) } else { None };
    tree(root).into_values().filter_map(content).collect()
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|it| it.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_lost_and_both_become_the_same(
        names in any_names(), steps in proptest::collection::vec(any_step(), 1..25), shell in any::<proptest::sample::Index>(),
    ) {
        let shells = shells();
        let pair = Pair::new(shells[shell.index(shells.len())]);
        std::fs::create_dir(pair.instance()).unwrap();
        for (number, step) in steps.iter().enumerate() {
            // A sync may replace what its maker gave up, never what is only on one side and new there.
            let both = |pair: &Pair| contents(&pair.host()).union(&contents(&pair.instance())).cloned().collect::<BTreeSet<_>>();
            let state = std::fs::read(pair.state()).ok();
            let kill = |written: bool| match (&state, written) {
                (_, true) => {}
                (Some(state), false) => std::fs::write(pair.state(), state).unwrap(),
                (None, false) => std::fs::remove_file(pair.state()).unwrap(),
            };
            match step {
                Step::OnHost(change) => make(&pair.host(), &names, change, number),
                Step::OnInstance(change) => make(&pair.instance(), &names, change, number),
                Step::Push(written) => {
                    let before = contents(&pair.host());
                    let pushed = pair.push();
                    kill(*written);
                    prop_assert!(pushed.skipped.is_empty(), "{:?}", pushed);
                    prop_assert!(both(&pair).is_superset(&before));
                }
                Step::Pull(written) => {
                    let before = contents(&pair.instance());
                    let pulled = pair.pull();
                    kill(*written);
                    prop_assert!(pulled.skipped.is_empty(), "{:?}", pulled);
                    prop_assert!(both(&pair).is_superset(&before));
                }
            }
        }
        // Made by one side since both were the same, and so never to be lost: what a lost base would keep.
        let pulled = pair.pull();
        prop_assert!(pulled.skipped.is_empty(), "{:?}", pulled);
        let host = contents(&pair.host());
        let pushed = pair.push();
        prop_assert!(pushed.skipped.is_empty(), "{:?}", pushed);
        prop_assert_eq!(&contents(&pair.host()), &host, "a push changes nothing on the host");
        pair.assert_same();
        pair.assert_settled();
    }

    #[test]
    fn without_a_base_every_content_of_either_side_survives(
        names in any_names(),
        here in proptest::collection::vec(any_change(), 1..12),
        there in proptest::collection::vec(any_change(), 1..12),
        shell in any::<proptest::sample::Index>(),
    ) {
        let shells = shells();
        let pair = Pair::new(shells[shell.index(shells.len())]);
        std::fs::create_dir(pair.instance()).unwrap();
        for (number, change) in here.iter().enumerate() {
            make(&pair.host(), &names, change, number);
        }
        for (number, change) in there.iter().enumerate() {
            make(&pair.instance(), &names, change, 100 + number);
        }
        let made: BTreeSet<_> = contents(&pair.host()).union(&contents(&pair.instance())).cloned().collect();
        pair.push();
        pair.pull();
        pair.push();
        prop_assert_eq!(contents(&pair.host()), made.clone());
        prop_assert_eq!(contents(&pair.instance()), made);
        pair.assert_same();
        pair.assert_settled();
    }
}
