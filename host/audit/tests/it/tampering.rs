//! What was changed, and on which line it is found.

use std::fs;

use pcoder_audit::{Error, Kind, Rotation, verify_against};
use proptest::prelude::*;

use crate::world::{World, problems, record};

fn ten() -> (World, Vec<String>) {
    let world = World::with(10, Rotation::default());
    let lines = world.lines();
    (world, lines)
}

fn found(world: &World, lines: &[String]) -> Vec<String> {
    world.write_lines(lines);
    problems(&world.verify())
}

#[test]
fn a_changed_line_is_found() {
    let (world, mut lines) = ten();
    lines[3] = lines[3].replace("git in PATH", "git in HOME");
    lines[5] = lines[5].replace("not-found", "ok");
    assert_eq!(
        found(&world, &lines),
        ["audit.jsonl, line 4, record 4: the line was changed", "audit.jsonl, line 6, record 6: the line was changed",]
    );
}

#[test]
fn a_line_that_is_no_json_is_found() {
    let (world, mut lines) = ten();
    lines[6] = "nonsense\n".to_owned();
    assert_eq!(found(&world, &lines), ["audit.jsonl, line 7, record 7: the line is no JSON"]);
}

#[test]
fn a_missing_line_is_found() {
    let (world, mut lines) = ten();
    lines.remove(3);
    lines.remove(3);
    assert_eq!(found(&world, &lines), ["audit.jsonl, line 4, record 4: before it, records 4 to 5 are missing"]);
}

#[test]
fn lines_that_were_swapped_or_moved_are_found() {
    let (world, mut lines) = ten();
    lines.swap(3, 4);
    assert_eq!(found(&world, &lines), ["audit.jsonl, line 5, record 4: the line was moved"]);
    let (world, mut lines) = ten();
    let moved = lines.remove(2);
    lines.insert(7, moved);
    assert_eq!(found(&world, &lines), ["audit.jsonl, line 8, record 3: the line was moved"]);
    let moved = lines.remove(7);
    lines.push(moved);
    assert_eq!(found(&world, &lines), ["audit.jsonl, line 10, record 3: the line was moved"]);
}

#[test]
fn an_inserted_line_is_found() {
    let (world, lines) = ten();
    let forged = World::with(30, Rotation::default()).lines()[20].clone();
    let copied = lines[1].clone();
    for (inserted, at, expected) in [
        (copied.clone(), 5, "audit.jsonl, line 6, record 2: the line was inserted"),
        // Whole in itself, of another chain.
        (forged.clone(), 9, "audit.jsonl, line 10, record 21: the line was inserted"),
        (forged, 5, "audit.jsonl, line 6, record 21: the line was inserted"),
        (copied.replace("ok", "no"), 5, "audit.jsonl, line 6, record 2: the line was inserted"),
        ("\n".to_owned(), 5, "audit.jsonl, line 6: the line is no JSON"),
        ("{}\n".to_owned(), 10, "audit.jsonl, line 11: the line was inserted"),
    ] {
        let mut lines = lines.clone();
        lines.insert(at, inserted);
        assert_eq!(found(&world, &lines), [expected]);
    }
}

#[test]
fn a_record_that_was_written_anew_with_its_hash_is_found() {
    let (world, mut lines) = ten();
    let other = World::new();
    let log = other.log();
    for number in 0..6 {
        // The same but for the sixth.
        log.append(&record(if number == 5 { 50 } else { number })).unwrap();
    }
    lines[5] = other.lines()[5].clone();
    assert_eq!(found(&world, &lines), ["audit.jsonl, line 7, record 7: it does not continue the record before it"]);
    // Beside the true one, the false one is the one that does not belong.
    let (world, mut lines) = ten();
    lines.insert(5, other.lines()[5].clone());
    assert_eq!(found(&world, &lines), ["audit.jsonl, line 6, record 6: the line was inserted"]);
}

#[test]
fn records_that_were_cut_off_are_found_at_once_and_also_later() {
    let (world, lines) = ten();
    assert_eq!(found(&world, &lines[..7]), ["audit.jsonl, line 7, record 8: after it, records 8 to 10 were cut off"]);
    // Appending does not cover it up.
    let head = world.log().append(&record(10)).unwrap();
    assert_eq!(head.seq, 11);
    assert_eq!(problems(&world.verify()), ["audit.jsonl, line 8, record 8: before it, records 8 to 10 are missing"]);

    let (world, lines) = ten();
    let half = [&lines[..9], &[lines[9][..50].to_owned()]].concat();
    assert_eq!(found(&world, &half), ["audit.jsonl, line 10, record 10: the line is no JSON"]);
    fs::remove_file(world.file()).unwrap();
    assert_eq!(problems(&world.verify()), ["audit.head, line 0, record 1: after it, records 1 to 10 were cut off"]);
}

#[test]
fn records_that_were_cut_off_under_a_log_that_is_open_are_found() {
    let world = World::new();
    let log = world.log();
    for number in 0..5 {
        log.append(&record(number)).unwrap();
    }
    world.write_lines(&world.lines()[..2]);
    fs::remove_file(world.head()).unwrap();
    assert_eq!(log.append(&record(5)).unwrap().seq, 6);
    assert_eq!(problems(&world.verify()), ["audit.jsonl, line 3, record 3: before it, records 3 to 5 are missing"]);
}

#[test]
fn a_head_that_was_deleted_or_changed_is_found() {
    let (world, _) = ten();
    let head = fs::read_to_string(world.head()).unwrap();
    let kinds = |world: &World| world.verify().problems.iter().map(|it| it.kind).collect::<Vec<_>>();
    for (text, kind) in [
        (head.replace("\"seq\"", "\"req\""), Kind::HeadUnreadable),
        (head.replace("10}", " 9}"), Kind::HeadDiffers),
        (String::new(), Kind::HeadMissing),
    ] {
        fs::write(world.head(), text).unwrap();
        assert_eq!(kinds(&world), [kind]);
    }
    fs::remove_file(world.head()).unwrap();
    assert_eq!(kinds(&world), [Kind::HeadMissing]);
}

#[test]
fn against_a_head_that_was_noted_a_chain_that_was_written_anew_is_found() {
    let (world, _) = ten();
    let noted = world.verify().head.unwrap().hash;
    world.log().append(&record(10)).unwrap();
    assert!(verify_against(&world.file(), &noted).unwrap().is_intact());
    assert!(verify_against(&world.file(), &format!(" {}\n", noted.to_uppercase())).unwrap().is_intact());

    let anew = World::new();
    for number in 0..10 {
        anew.log().append(&record(number + 1)).unwrap();
    }
    assert!(anew.verify().is_intact());
    let report = verify_against(&anew.file(), &noted).unwrap();
    assert_eq!(problems(&report), ["audit.jsonl, line 10: the head that was noted is not among the records"]);
    assert!(matches!(verify_against(&anew.file(), "abc"), Err(Error::Head)));
}

#[test]
fn a_break_between_files_is_found() {
    let rotation = Rotation { max_bytes: 2_000, keep: 100 };
    let world = World::with(20, rotation);
    let files = world.verify().files;
    assert!(files.len() > 4, "{files:?}");
    fs::remove_file(world.path().join(&files[2])).unwrap();
    let report = world.verify();
    let [problem] = &report.problems[..] else { panic!("{report:?}") };
    assert_eq!((&problem.file, problem.line), (&files[3], 1));
    assert!(matches!(problem.kind, Kind::Missing { .. }));
    // The oldest may go: rotation does so itself. What is first is in the report.
    let world = World::with(20, rotation);
    fs::remove_file(world.path().join(&files[0])).unwrap();
    let report = world.verify();
    assert!(report.is_intact() && report.first_seq > Some(1));
}

#[test]
fn a_thousand_problems_are_listed_and_the_rest_is_counted() {
    let world = World::with(1, Rotation::default());
    let mut lines = world.lines();
    lines.extend(std::iter::repeat_n("x\n".to_owned(), 30_000));
    world.write_lines(&lines);
    let report = world.verify();
    assert_eq!((report.problems.len(), report.more_problems), (1_000, 29_000));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The newline belongs to its record.
    #[test]
    fn every_change_of_a_byte_is_found_on_its_line(at: prop::sample::Index, byte: u8, more in 0u64..3) {
        let world = World::with(5, Rotation { max_bytes: 1_200, keep: 100 });
        let files = world.verify().files;
        let file = world.path().join(&files[at.index(files.len())]);
        let mut content = fs::read(&file).unwrap();
        let at = at.index(content.len());
        prop_assume!(content[at] != byte);
        let line = content[..at].iter().filter(|it| **it == b'\n').count() as u64 + 1;
        content[at] = byte;
        fs::write(&file, content).unwrap();
        let check = || {
            let report = world.verify();
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            report.problems.iter().any(|it| it.file == name && it.line == line)
        };
        prop_assert!(check(), "line {line}");
        // Nor is it covered up by what is appended.
        let log = world.log();
        for number in 0..more {
            if log.append(&record(number)).is_err() {
                // It says that it is of a newer format, and is not touched.
                break;
            }
        }
        prop_assert!(check(), "line {line} after {more} more");
    }
}
