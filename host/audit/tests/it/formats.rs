//! Files of other formats.

use std::fs;

use pcoder_audit::{Error, Filter, Rotation, read};

use crate::world::{World, problems, record};

fn legacy(records: std::ops::Range<u64>) -> String {
    records.map(|it| serde_json::to_string(&record(it)).unwrap() + "\n").collect()
}

#[test]
fn a_log_without_a_chain_is_kept_beside_and_a_chain_begins() {
    let world = World::new();
    fs::write(world.file(), legacy(0..5)).unwrap();
    let report = world.verify();
    assert_eq!((report.records, problems(&report), &*report.legacy), (0, vec![], &["audit.jsonl".to_owned()][..]));
    assert_eq!(read(&world.file(), &Filter::default()).unwrap().count(), 5);
    assert_eq!(world.names(), ["audit.jsonl"], "looking changes nothing");

    assert_eq!(world.log().append(&record(5)).unwrap().seq, 1);
    let names = world.names();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names[0].starts_with("audit-legacy-"), "{names:?}");
    assert_eq!(fs::read_to_string(world.path().join(&names[0])).unwrap(), legacy(0..5));
    let report = world.verify();
    assert_eq!((report.records, problems(&report)), (1, vec![]));
    assert_eq!(report.legacy, names[..1]);
    let calls: Vec<_> =
        read(&world.file(), &Filter::default()).unwrap().map(|it| it.unwrap()["time_ms"].clone()).collect();
    assert_eq!(calls.len(), 6);
    assert_eq!(calls[5], 1_790_000_000_005_u64);
}

#[test]
fn a_log_of_a_newer_pcoder_is_refused_and_left_alone() {
    let world = World::with(3, Rotation::default());
    let lines: Vec<_> =
        world.lines().iter().map(|it| it.replace("\"schema_version\":1", "\"schema_version\":2")).collect();
    for newer in [lines.concat(), [&world.lines()[..2], &lines[2..]].concat().concat()] {
        fs::write(world.file(), &newer).unwrap();
        let error = world.log().append(&record(3)).unwrap_err();
        assert!(matches!(error, Error::Newer { found: 2, known: 1, .. }), "{error}");
        assert!(error.hint().contains("newer"));
        assert_eq!(fs::read_to_string(world.file()).unwrap(), newer);
        assert!(!world.verify().is_intact());
    }
    assert_eq!(world.names(), ["audit.head", "audit.jsonl"]);
}

#[test]
fn what_cannot_be_written_is_an_error_with_the_path() {
    let world = World::new();
    fs::create_dir_all(world.file()).unwrap();
    let error = world.log().append(&record(0)).unwrap_err();
    assert_eq!(error.path(), Some(&*world.file()));
    // Once it can, the same log goes on.
    let world = World::new();
    fs::create_dir_all(world.file()).unwrap();
    let log = world.log();
    assert!(log.append(&record(0)).is_err());
    fs::remove_dir(world.file()).unwrap();
    assert_eq!(log.append(&record(0)).unwrap().seq, 1);
    assert!(world.verify().is_intact());
}
