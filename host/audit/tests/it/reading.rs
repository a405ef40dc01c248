//! Reading records.

use std::fs;
use std::io::Write as _;

use pcoder_audit::{Filter, Rotation, read};

use crate::world::World;

fn world() -> World {
    World::with(60, Rotation { max_bytes: 6_000, keep: 100 })
}

fn seqs(world: &World, filter: &Filter) -> Vec<u64> {
    read(&world.file(), filter).unwrap().map(|it| it.unwrap()["seq"].as_u64().unwrap()).collect()
}

#[test]
fn all_records_come_in_their_order_over_all_files() {
    let world = world();
    assert!(world.names().len() > 4);
    assert_eq!(seqs(&world, &Filter::default()), Vec::from_iter(1..=60));
}

#[test]
fn a_filter_takes_what_fits_all_of_it() {
    let world = world();
    let filter = |change: fn(&mut Filter)| {
        let mut filter = Filter::default();
        change(&mut filter);
        seqs(&world, &filter)
    };
    assert_eq!(filter(|it| it.plugin = Some("agent-claude".into())), Vec::from_iter((1..60).step_by(2)));
    assert_eq!(filter(|it| it.call = Some("77-1790000000000-4".into())), [13, 14, 15]);
    assert_eq!(filter(|it| it.since_ms = Some(1_790_000_000_057)), [58, 59, 60]);
    assert_eq!(filter(|it| it.outcome = Some("not-found".into())), Vec::from_iter((3..=60).step_by(3)));
    assert_eq!(filter(|it| it.denied = true), [1, 13, 25, 37, 49]);
    assert_eq!(
        filter(|it| {
            it.denied = true;
            it.last = Some(2);
        }),
        [37, 49]
    );
}

#[test]
fn the_newest_are_the_same_as_the_end_of_all() {
    let world = world();
    for last in [0, 1, 13, 59, 60, 61, 1_000_u64] {
        let expected = Vec::from_iter(61 - last.min(60)..=60);
        assert_eq!(seqs(&world, &Filter { last: usize::try_from(last).ok(), ..Filter::default() }), expected);
    }
}

#[test]
fn for_the_newest_the_oldest_files_are_not_opened() {
    let world = world();
    let oldest = world.path().join(&world.verify().files[0]);
    // To read a folder as a file is an error.
    fs::remove_file(&oldest).unwrap();
    fs::create_dir(&oldest).unwrap();
    assert_eq!(seqs(&world, &Filter { last: Some(3), ..Filter::default() }), [58, 59, 60]);
    let mut all = read(&world.file(), &Filter::default()).unwrap();
    assert!(all.next().unwrap().is_err());
    assert!(all.next().is_none(), "an error is said once");
}

#[test]
fn what_is_torn_or_no_record_is_left_out() {
    let world = world();
    let mut file = fs::OpenOptions::new().append(true).open(world.file()).unwrap();
    file.write_all(b"no json\n[1]\n\xff\xfe\n\n{\"schema_version\":1,\"seq\":61,\"pr").unwrap();
    assert_eq!(seqs(&world, &Filter::default()).len(), 60);
    assert_eq!(seqs(&world, &Filter { last: Some(2), ..Filter::default() }), [59, 60]);
    assert_eq!(read(&world.path().join("none").join("audit.jsonl"), &Filter::default()).unwrap().count(), 0);
}
