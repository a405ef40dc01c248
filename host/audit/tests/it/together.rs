//! Many at once.

use std::io::{BufRead as _, BufReader, Read as _};

use pcoder_audit::{Filter, Rotation, read};

use crate::child::{Work, start};
use crate::world::{World, problems, record};

const SMALL: Rotation = Rotation { max_bytes: 20_000, keep: 1_000 };

#[test]
fn two_processes_with_eight_threads_each_keep_one_chain() {
    let world = World::new();
    let work = Work { threads: 8, records: 100, rotation: Rotation::default() };
    let children = [start(world.path(), &work), start(world.path(), &work)];
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    let report = world.verify();
    assert_eq!((report.records, report.first_seq, problems(&report)), (1_600, Some(1), vec![]));
    assert_eq!(report.head.unwrap().seq, 1_600);
    assert_eq!(report.torn, []);
}

#[test]
fn rotation_by_several_processes_loses_nothing_and_breaks_nothing() {
    let world = World::new();
    let work = Work { threads: 2, records: 150, rotation: SMALL };
    let mut children = vec![start(world.path(), &work), start(world.path(), &work)];
    let log = world.log_with(SMALL);
    for number in 0..150 {
        log.append(&record(number)).unwrap();
    }
    for child in &mut children {
        // What it prints must be read, or it waits.
        child.stdout.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
        assert!(child.wait().unwrap().success());
    }
    let report = world.verify();
    assert_eq!((report.records, problems(&report)), (750, vec![]));
    assert!(report.files.len() > 10, "{:?}", report.files);
    for name in &report.files {
        assert!(world.path().join(name).metadata().unwrap().len() <= SMALL.max_bytes);
    }
    assert_eq!(read(&world.file(), &Filter::default()).unwrap().count(), 750);
}

#[test]
fn a_log_that_is_read_and_verified_while_it_is_written_and_rotated_is_intact() {
    let world = World::new();
    let work = Work { threads: 4, records: 200, rotation: SMALL };
    let mut child = start(world.path(), &work);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    let mut number = 0;
    while lines.read_line(&mut text).unwrap() > 0 {
        number += 1;
        if number % 20 == 0 {
            assert_eq!(problems(&world.verify()), Vec::<String>::new());
            assert!(read(&world.file(), &Filter::default()).unwrap().all(|it| it.is_ok()));
        }
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(world.verify().records, 800);
}

#[test]
fn killing_a_writer_twenty_times_leaves_an_intact_chain() {
    let world = World::new();
    let work = Work { threads: 3, records: u64::MAX, rotation: SMALL };
    let mut at_least = 0;
    for round in 0..20 {
        let mut child = start(world.path(), &work);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let appended = lines.map(|it| it.unwrap()).filter(|it| it.contains("appended")).take(10 + round * 7).count();
        child.kill().unwrap();
        child.wait().unwrap();
        at_least += appended as u64;
        let report = world.verify();
        assert_eq!(problems(&report), Vec::<String>::new(), "round {round}");
        assert!(report.records >= at_least, "what was said to be appended is there");
    }
    let head = world.log_with(SMALL).append(&record(1)).unwrap();
    assert_eq!(world.verify().head.unwrap(), head);
}

#[test]
fn only_so_many_rotated_files_are_kept_and_the_rest_is_intact() {
    let world = World::with(400, Rotation { max_bytes: 5_000, keep: 3 });
    let report = world.verify();
    assert_eq!((report.files.len(), problems(&report)), (4, vec![]));
    let first = report.first_seq.unwrap();
    assert!(first > 300, "{first}");
    assert_eq!(report.files[0], format!("audit-{first:012}.jsonl"));
    assert_eq!(report.records, 400 - first + 1);
    let none = World::with(100, Rotation { max_bytes: 5_000, keep: 0 });
    assert_eq!(none.names(), ["audit.head", "audit.jsonl"]);
    assert!(none.verify().is_intact());
}

#[test]
fn nothing_is_created_before_the_first_record() {
    let world = World::new();
    drop(world.log());
    assert_eq!(std::fs::read_dir(world.path()).unwrap().count(), 0);
    let report = world.verify();
    assert_eq!((report.records, report.head.clone(), report.is_intact()), (0, None, true));
}

#[cfg(unix)]
#[test]
fn only_its_user_can_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::with(60, Rotation { max_bytes: 10_000, keep: 5 });
    for name in world.names() {
        assert_eq!(world.path().join(name).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
