//! What a sync has to do: a pure function of the base and the two sides.
//!
//! A push makes the instance what the host is, a pull the other way round, but only where the side that is written has
//! not changed since the base. So a plan has a source and a target, and says nothing about how it is carried out.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::path::TreePath;
use crate::rules::IGNORE_FILE;
use crate::tree::{Base, Entry, State, Tree};

/// Which side is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The instance.
    Push,
    /// The host.
    Pull,
}

/// What happens at a path of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Write(Entry),
    Delete,
}

/// What a sync does, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: BTreeMap<TreePath, Step>,
    /// What both sides changed, with the topmost path that keeps it from its place: itself, or a file where it needs a
    /// folder. On the target it stays as it is.
    pub(crate) conflicts: BTreeMap<TreePath, TreePath>,
    /// What one side changed and the other deleted. The change stays.
    pub(crate) kept: BTreeSet<TreePath>,
    /// What the base has to be told, though nothing is done: what it is on both sides, or that it is gone.
    pub(crate) agreed: BTreeMap<TreePath, Option<Entry>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// Both sides are the same.
    Agree,
    /// The target becomes what the source is.
    Transfer,
    /// The target stays as it is.
    Leave,
    /// The target stays as it is, and the source's version has no place.
    Conflict,
}

/// Three-way comparison of one path.
fn decide(base: Option<&Entry>, source: State<'_>, target: State<'_>, direction: Direction) -> (Decision, bool) {
    let unchanged = |now: Option<&Entry>| match (base, now) {
        (None, None) => true,
        (Some(base), Some(now)) => base.same(now),
        _ => false,
    };
    let entry = |state| match state {
        State::Unknown => None,
        State::Absent => Some(None),
        State::Is(entry) => Some(Some(entry)),
    };
    let (Some(source), Some(target)) = (entry(source), entry(target)) else { return (Decision::Leave, false) };
    match (source, target) {
        (None, None) => (Decision::Agree, false),
        (Some(source), Some(target)) if source.same(target) => (Decision::Agree, false),
        // Only the permissions differ. Where both changed them the host's are taken: a copy would help nobody.
        (Some(source), Some(target)) if source.kind == target.kind => {
            let base = base.map(|it| it.mode);
            let host_wins = base != Some(target.mode) && direction == Direction::Push;
            let transfer = base != Some(source.mode) && (base == Some(target.mode) || host_wins);
            (if transfer { Decision::Transfer } else { Decision::Leave }, false)
        }
        _ if unchanged(source) => (Decision::Leave, false),
        _ if unchanged(target) => (Decision::Transfer, false),
        (None, Some(_)) => (Decision::Leave, true),
        (Some(_), None) => (Decision::Transfer, true),
        _ => (Decision::Conflict, false),
    }
}

/// What a sync has to do.
pub(crate) fn plan(base: &Base, host: &Tree, instance: &Tree, direction: Direction) -> Plan {
    let (source, target) = match direction {
        Direction::Push => (host, instance),
        Direction::Pull => (instance, host),
    };
    let mut plan = Plan::default();
    let excluded = |path: &TreePath| {
        let is = |it: &TreePath| host.ignored.contains(it) || instance.ignored.contains(it);
        is(path) || path.ancestors().any(|it| is(&it))
    };
    let mut decisions: BTreeMap<&TreePath, Decision> = BTreeMap::new();
    for path in base.keys().chain(source.entries.keys()).chain(target.entries.keys()) {
        if decisions.contains_key(path) {
            continue;
        }
        let old = base.get(path);
        if excluded(path) {
            // What is ignored now is not remembered: should it count again, both sides are looked at afresh.
            if old.is_some() {
                plan.agreed.insert(path.clone(), None);
            }
            continue;
        }
        let (decision, kept) = decide(old, source.state(path, old), target.state(path, old), direction);
        let (decision, kept) = match (decision, source.entries.get(path)) {
            // The host says what is ignored: an instance that could would have itself sent what it must not see.
            (Decision::Transfer, entry) if direction == Direction::Pull && is_ignore_file(path) => match entry {
                Some(entry) if target.entries.get(path).is_some_and(|it| it.kind == entry.kind) => {
                    (Decision::Leave, false)
                }
                Some(_) => (Decision::Conflict, false),
                None => {
                    // Forgotten, it is new on the host, and the next push brings it back.
                    plan.agreed.insert(path.clone(), None);
                    (Decision::Leave, true)
                }
            },
            _ => (decision, kept),
        };
        if kept {
            plan.kept.insert(path.clone());
        }
        decisions.insert(path, decision);
    }
    block(&mut decisions, &mut plan, source, target);
    keep_folders(&mut decisions, source, target);
    for (path, decision) in decisions {
        match (decision, source.entries.get(path)) {
            (Decision::Agree, entry) => {
                let same = match (entry, base.get(path)) {
                    (Some(entry), Some(old)) => entry.same(old),
                    (entry, old) => entry.is_none() && old.is_none(),
                };
                if !same {
                    plan.agreed.insert(path.clone(), host.entries.get(path).cloned());
                }
            }
            (Decision::Transfer, Some(entry)) => {
                plan.steps.insert(path.clone(), Step::Write(entry.clone()));
            }
            (Decision::Transfer, None) => {
                plan.steps.insert(path.clone(), Step::Delete);
            }
            (Decision::Conflict, _) => {
                plan.conflicts.entry(path.clone()).or_insert_with(|| path.clone());
            }
            (Decision::Leave, _) => {}
        }
    }
    plan
}

/// A file with patterns, also as a file system would find it that does not tell capitals.
fn is_ignore_file(path: &TreePath) -> bool {
    path.name().eq_ignore_ascii_case(IGNORE_FILE.as_bytes())
}

/// What the source has in a folder has no place where the target keeps something else at that path.
fn block(decisions: &mut BTreeMap<&TreePath, Decision>, plan: &mut Plan, source: &Tree, target: &Tree) {
    let mut blocked: BTreeSet<TreePath> = BTreeSet::new();
    for (path, decision) in &mut *decisions {
        let source = source.entries.get(*path);
        match (*decision, source) {
            (Decision::Transfer, Some(_)) if !blocked.is_empty() => {
                if let Some(root) = path.ancestors().filter(|it| blocked.contains(it)).last() {
                    *decision = Decision::Conflict;
                    plan.conflicts.insert((*path).clone(), root);
                    plan.kept.remove(*path);
                }
            }
            (Decision::Leave | Decision::Conflict, Some(source))
                if source.is_folder() && target.entries.get(*path).is_some_and(|it| !it.is_folder()) =>
            {
                blocked.insert((*path).clone());
            }
            _ => {}
        }
    }
}

/// A folder is there for as long as something is in it: what stays keeps its folders, what comes brings them.
fn keep_folders(decisions: &mut BTreeMap<&TreePath, Decision>, source: &Tree, target: &Tree) {
    let mut needed: HashSet<TreePath> =
        target.ignored.iter().chain(target.unknown.keys()).flat_map(TreePath::ancestors).collect();
    // From the last path to the first, so that what is in a folder comes before the folder.
    for (path, decision) in decisions.iter_mut().rev() {
        let (from, to) = (source.entries.get(*path), target.entries.get(*path));
        let is_needed = needed.contains(*path);
        let becomes = if *decision == Decision::Transfer { from } else { to };
        if is_needed && !becomes.is_some_and(Entry::is_folder) {
            *decision = match (from, to) {
                (None, Some(to)) if to.is_folder() => Decision::Leave,
                (Some(_), Some(to)) if to.is_folder() => Decision::Conflict,
                (Some(from), None) if from.is_folder() => Decision::Transfer,
                _ => *decision,
            };
        }
        let becomes = if *decision == Decision::Transfer { from } else { to };
        if (becomes.is_some() || is_needed)
            && let Some(parent) = path.parent()
        {
            needed.insert(parent);
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
