//! The plan, in a table of every case, and against the promises that it makes for any three trees.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::tree::{Kind, Sum};

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("a path")
}

fn file(content: &str) -> Entry {
    let size = u64::try_from(content.len()).expect("small");
    Entry { kind: Kind::File { size, sum: Sum::of(content.as_bytes()) }, mode: 0o644, mtime: 0 }
}

fn folder() -> Entry {
    Entry { kind: Kind::Folder, mode: 0o755, mtime: 0 }
}

/// A tree in a line: `a=1 d/ d/x=2 e=3* l>target`; `*` is another mode, `?` after a path is unknown, `!` is ignored.
fn tree(text: &str) -> Tree {
    let mut tree = Tree::default();
    for word in text.split_whitespace() {
        let (word, mode) = word.strip_suffix('*').map_or((word, false), |it| (it, true));
        let (name, mut entry) = if let Some(name) = word.strip_suffix('/') {
            (name, folder())
        } else if let Some((name, content)) = word.split_once('=') {
            (name, file(content))
        } else if let Some((name, target)) = word.split_once('>') {
            (name, Entry { kind: Kind::Link { target: target.into() }, mode: 0o777, mtime: 0 })
        } else if let Some(name) = word.strip_suffix('?') {
            tree.unknown.insert(path(name), crate::report::Reason::Special);
            continue;
        } else {
            tree.ignored.insert(path(word.strip_suffix('!').expect("an entry")));
            continue;
        };
        if mode {
            entry.mode ^= 0o111;
        }
        tree.entries.insert(path(name), entry);
    }
    tree
}

fn shown(plan: &Plan) -> String {
    let text = |it: &TreePath| String::from_utf8_lossy(it.as_bytes()).into_owned();
    let mut words: Vec<String> = Vec::new();
    for (path, step) in &plan.steps {
        words.push(match step {
            Step::Write(_) => format!("+{}", text(path)),
            Step::Delete => format!("-{}", text(path)),
        });
    }
    words.extend(plan.conflicts.iter().map(|(path, root)| {
        if path == root { format!("!{}", text(path)) } else { format!("!{}<{}", text(path), text(root)) }
    }));
    words.extend(plan.kept.iter().map(|it| format!("kept:{}", text(it))));
    words.extend(
        plan.agreed
            .iter()
            .map(|(it, entry)| format!("{}:{}", if entry.is_some() { "agreed" } else { "gone" }, text(it))),
    );
    words.join(" ")
}

#[test]
fn every_case_of_one_or_two_paths_is_decided() {
    // base | host | instance | a push does | a pull does
    let table = [
        ("", "", "", "", ""),
        ("a=1", "a=1", "a=1", "", ""),
        ("", "a=1", "a=1", "agreed:a", "agreed:a"),
        ("a=1", "a=2", "a=2", "agreed:a", "agreed:a"),
        ("a=1", "", "", "gone:a", "gone:a"),
        // One side alone.
        ("", "a=1", "", "+a", ""),
        ("", "", "a=1", "", "+a"),
        ("a=1", "a=2", "a=1", "+a", ""),
        ("a=1", "a=1", "a=2", "", "+a"),
        ("a=1", "", "a=1", "-a", ""),
        ("a=1", "a=1", "", "", "-a"),
        // Both, differently.
        ("a=1", "a=2", "a=3", "!a", "!a"),
        ("", "a=2", "a=3", "!a", "!a"),
        ("a=1", "", "a=3", "kept:a", "+a kept:a"),
        ("a=1", "a=3", "", "+a kept:a", "kept:a"),
        // Permissions.
        ("a=1", "a=1*", "a=1", "+a", ""),
        ("a=1", "a=1", "a=1*", "", "+a"),
        ("", "a=1", "a=1*", "+a", ""),
        ("a=1", "a=1*", "a=2", "!a", "!a"),
        ("d/", "d/*", "d/", "+d", ""),
        ("", "d/", "d/*", "+d", ""),
        // Links.
        ("l>a", "l>b", "l>a", "+l", ""),
        ("l>a", "l>b", "l>c", "!l", "!l"),
        ("l>a", "l>a", "l=1", "", "+l"),
        // Folders come, go, and stay for what is in them.
        ("", "d/ d/a=1", "", "+d +d/a", ""),
        ("d/ d/a=1", "", "d/ d/a=1", "-d -d/a", ""),
        ("d/ d/a=1", "", "d/ d/a=1 d/b=2", "-d/a", "+d +d/b"),
        ("d/ d/a=1", "", "d/ d/a=2", "kept:d/a", "+d +d/a kept:d/a"),
        ("d/ d/a=1", "d/ d/a=1", "", "", "-d -d/a"),
        ("d/ d/a=1", "", "d/ d/a=1 d/i!", "-d/a", ""),
        ("d/ d/a=1", "", "d/ d/a=1 d/u?", "-d/a", ""),
        ("d/ d/a=1", "d/ d/a=1 d/i!", "", "", "-d/a"),
        // One kind becomes another.
        ("a=1", "a/ a/b=2", "a=1", "+a +a/b", ""),
        ("a/ a/b=2", "a=1", "a/ a/b=2", "+a -a/b", ""),
        ("a/ a/b=2", "a/ a/b=2", "a=1", "", "+a -a/b"),
        ("a/ a/b=2", "a/ a/b=3", "a=1", "!a/b<a", "!a kept:a/b"),
        ("a/ a/b=2", "a=1", "a/ a/b=3", "!a kept:a/b", "!a/b<a"),
        ("a=1", "a=2", "a/ a/b=3 a/c/ a/c/d=4", "!a", "!a !a/b<a !a/c<a !a/c/d<a"),
        ("a=1", "a/ a/b=3", "a=2", "!a !a/b<a", "!a"),
        ("a=1", "a=1", "a/ a/i!", "", "+a"),
        ("a/", "a=1", "a/ a/i!", "!a", ""),
        // What is not known is left alone, with everything in it.
        ("a=1", "a?", "a=1", "", ""),
        ("a=1", "a=2", "a?", "", ""),
        ("d/ d/a=1", "d?", "d/ d/a=2", "", ""),
        ("d/ d/a=1", "d/ d/a=2", "d?", "", ""),
        // What is ignored is only changed on the host.
        ("d/ d/.pcoderignore=1", "d/ d/.pcoderignore=1", "d/ d/.pcoderignore=2", "", "!d/.pcoderignore"),
        (".pcoderignore=1", ".pcoderignore=1", ".pcoderignore=1*", "", ""),
        ("a/", "a/", "a/ .PcoderIgnore=2", "", "!.PcoderIgnore"),
        ("", "", "d/ d/.pcoderignore=2", "", "+d !d/.pcoderignore"),
        ("d/ d/.pcoderignore=1", "d/ d/.pcoderignore=1", "", "", "kept:d/.pcoderignore gone:d/.pcoderignore"),
        ("d/", "d/ d/.pcoderignore=1", "", "+d +d/.pcoderignore", ""),
        (".pcoderignore=1", ".pcoderignore=2", ".pcoderignore=1", "+.pcoderignore", ""),
        // What is ignored on one side is so on the other, and forgotten.
        ("a=1", "a!", "a=2", "gone:a", "gone:a"),
        ("d/ d/a=1", "d/ d/a=1", "d!", "gone:d gone:d/a", "gone:d gone:d/a"),
    ];
    for (base, host, instance, push, pull) in table {
        let (base_tree, host_tree, instance_tree) = (tree(base).entries, tree(host), tree(instance));
        for (direction, expected) in [(Direction::Push, push), (Direction::Pull, pull)] {
            let plan = shown(&plan(&base_tree, &host_tree, &instance_tree, direction));
            assert_eq!(plan, expected, "{direction:?}: base {base:?}, host {host:?}, instance {instance:?}");
        }
    }
}

#[test]
fn a_listing_that_failed_deletes_nothing() {
    let base = tree("a=1 b=1").entries;
    let (host, mut instance) = (tree("a=1 b=2 c=3"), tree(""));
    instance.incomplete = true;
    assert_eq!(shown(&plan(&base, &host, &instance, Direction::Pull)), "");
    assert_eq!(shown(&plan(&base, &host, &instance, Direction::Push)), "+c");
}

/// Any tree of a few names, so that the same paths are often met.
fn any_tree() -> impl Strategy<Value = Tree> {
    let node = (0..6u8, 0..4u8);
    proptest::collection::vec((proptest::collection::vec(0..3u8, 1..4), node), 0..10).prop_map(|nodes| {
        let mut tree = Tree::default();
        for (parts, (kind, content)) in nodes {
            let text = parts.iter().map(|it| ["a", "b", "a-b"][usize::from(*it)]).collect::<Vec<_>>().join("/");
            let path = path(&text);
            for parent in path.ancestors() {
                if !tree.entries.get(&parent).is_some_and(Entry::is_folder) {
                    tree.entries.insert(parent, folder());
                }
            }
            crate::tree::remove(&mut tree.entries, &path);
            let mut entry = if kind == 0 { folder() } else { file(&content.to_string()) };
            if kind == 1 {
                entry.mode ^= 0o111;
            }
            tree.entries.insert(path, entry);
        }
        tree
    })
}

/// Carries a plan out as the real ones do.
fn carry_out(plan: &Plan, base: &mut Base, host: &mut Tree, instance: &mut Tree, direction: Direction) {
    let (source, target) = match direction {
        Direction::Push => (host.clone(), instance),
        Direction::Pull => (instance.clone(), host),
    };
    for (path, step) in plan.steps.iter().rev() {
        if *step == Step::Delete {
            target.entries.remove(path);
            base.remove(path);
        }
    }
    for (path, step) in &plan.steps {
        if let Step::Write(entry) = step {
            let inside = path.inside();
            let empty = target.entries.range(inside.0..inside.1).next().is_none();
            assert!(entry.is_folder() || empty, "{path:?} replaces a folder that is not empty");
            target.entries.insert(path.clone(), entry.clone());
            base.insert(path.clone(), entry.clone());
        }
    }
    if direction == Direction::Pull {
        for (path, root) in &plan.conflicts {
            let entry = source.entries[path].clone();
            let aside = TreePath::new(&[root.as_bytes(), b".from"].concat()).expect("a path");
            let aside = path.moved(root, &aside);
            for parent in aside.ancestors() {
                target.entries.entry(parent).or_insert_with(folder);
            }
            target.entries.insert(aside, entry.clone());
            base.insert(path.clone(), entry);
        }
    }
    for (path, entry) in &plan.agreed {
        match entry {
            Some(entry) => base.insert(path.clone(), entry.clone()),
            None => base.remove(path),
        };
    }
    for path in target.entries.keys() {
        for parent in path.ancestors() {
            assert!(target.entries.get(&parent).is_some_and(Entry::is_folder), "{path:?} is in no folder");
        }
    }
}

fn contents(tree: &Tree) -> BTreeSet<Sum> {
    let sum = |it: &Entry| if let Kind::File { sum, .. } = it.kind { Some(sum) } else { None };
    tree.entries.values().filter_map(sum).collect()
}

/// The contents that one side has and that are not the base's: what must not be lost.
fn made_since(base: &Base, tree: &Tree) -> BTreeSet<Sum> {
    let changed = tree.entries.iter().filter(|(path, entry)| base.get(*path).is_none_or(|it| it.kind != entry.kind));
    contents(&Tree { entries: changed.map(|(path, entry)| (path.clone(), entry.clone())).collect(), ..Tree::default() })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn nothing_made_is_lost_and_both_sides_become_one(
        base in any_tree(), host in any_tree(), instance in any_tree(), push_first in any::<bool>(),
    ) {
        let (mut base, mut host, mut instance) = (base.entries, host, instance);
        let made: BTreeSet<Sum> = made_since(&base, &host).union(&made_since(&base, &instance)).copied().collect();
        let order: &[Direction] = if push_first {
            &[Direction::Push, Direction::Pull, Direction::Push]
        } else {
            &[Direction::Pull, Direction::Push]
        };
        for direction in order {
            let plan = plan(&base, &host, &instance, *direction);
            carry_out(&plan, &mut base, &mut host, &mut instance, *direction);
            let now: BTreeSet<Sum> = contents(&host).union(&contents(&instance)).copied().collect();
            prop_assert!(made.is_subset(&now), "lost by a {direction:?}");
        }
        prop_assert!(contents(&instance).is_superset(&made));
        for direction in [Direction::Pull, Direction::Push] {
            let plan = plan(&base, &host, &instance, direction);
            prop_assert_eq!(&plan, &Plan::default(), "after {:?}", direction);
        }
        let text = |tree: &Tree| tree.entries.clone();
        prop_assert_eq!(text(&host), text(&instance));
        prop_assert_eq!(&base, &host.entries);
    }
}
