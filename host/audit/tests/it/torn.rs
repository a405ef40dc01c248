//! Lines that are cut short.

use std::fs;

use pcoder_audit::{Rotation, Torn};

use crate::world::{World, problems, record};

#[test]
fn wherever_a_line_is_torn_the_chain_goes_on_behind_it() {
    let world = World::with(3, Rotation::default());
    // As a crash leaves it: the head is written after the line.
    let head = fs::read(world.head()).unwrap();
    world.log().append(&record(3)).unwrap();
    let whole = fs::read(world.file()).unwrap();
    let begin = world.lines()[..3].concat().len();
    for end in begin..whole.len() {
        fs::write(world.file(), &whole[..end]).unwrap();
        fs::write(world.head(), &head).unwrap();
        let is_whole = end == whole.len() - 1;
        assert_eq!(problems(&world.verify()), Vec::<String>::new(), "at {end}");

        let head = world.log().append(&record(4)).unwrap();
        let report = world.verify();
        assert_eq!(problems(&report), Vec::<String>::new(), "at {end}");
        assert_eq!(head.seq, if is_whole { 5 } else { 4 });
        let torn = (end > begin && !is_whole).then(|| Torn { file: "audit.jsonl".to_owned(), line: 4 });
        assert_eq!(report.torn, Vec::from_iter(torn), "at {end}");
        let now = fs::read(world.file()).unwrap();
        assert!(now.starts_with(&whole[..end]), "nothing is rewritten");
        let marked = world.lines().last().unwrap().contains("\"after_torn\":true");
        assert_eq!(marked, end > begin && !is_whole);
    }
}

#[test]
fn torn_twice_and_with_the_zeros_of_a_lost_power_it_still_goes_on() {
    let world = World::with(2, Rotation::default());
    let mut content = fs::read(world.file()).unwrap();
    let next = {
        let other = World::with(3, Rotation::default());
        other.lines()[2].clone()
    };
    content.extend_from_slice(&next.as_bytes()[..40]);
    content.push(b'\n');
    content.extend_from_slice(&next.as_bytes()[..90]);
    content.extend_from_slice(&[0; 50]);
    fs::write(world.file(), content).unwrap();
    world.log().append(&record(2)).unwrap();
    let report = world.verify();
    assert_eq!((report.records, problems(&report)), (3, vec![]));
    assert_eq!(report.torn.iter().map(|it| it.line).collect::<Vec<_>>(), [3, 4]);
}

#[test]
fn a_torn_end_is_carried_over_a_rotation() {
    let rotation = Rotation { max_bytes: 1_500, keep: 10 };
    let world = World::with(3, rotation);
    let mut content = fs::read(world.file()).unwrap();
    let head = fs::read(world.head()).unwrap();
    let next = {
        let other = World::with(4, Rotation::default());
        other.lines()[3].clone()
    };
    content.extend_from_slice(&next.as_bytes()[..100]);
    fs::write(world.file(), content).unwrap();
    fs::write(world.head(), head).unwrap();
    let log = world.log_with(rotation);
    log.append(&record(3)).unwrap();
    log.append(&record(4)).unwrap();
    let report = world.verify();
    assert_eq!((report.records, problems(&report)), (5, vec![]));
    assert_eq!(report.files, ["audit-000000000001.jsonl", "audit.jsonl"]);
    assert_eq!(report.torn, [Torn { file: "audit-000000000001.jsonl".to_owned(), line: 4 }]);
}

/// A limit on the file's size cuts a write short as a full disk does, and needs no disk.
#[cfg(unix)]
#[test]
fn where_there_is_no_more_space_it_is_an_error_and_goes_on_once_there_is() {
    use std::process::Command;

    use crate::child::{Work, start_by};

    let world = World::new();
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "sh"]).arg(std::env::current_exe().unwrap());
    let work = Work { threads: 1, records: 30, rotation: Rotation::default() };
    let output = start_by(world.path(), &work, limited).wait_with_output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let (appended, failed) = (output.matches("appended").count(), output.matches("failed: cannot append to").count());
    assert!(appended > 3 && appended + failed == 30 && failed > 3, "{output}");
    let report = world.verify();
    assert_eq!((report.records, problems(&report), report.torn.len()), (appended as u64, vec![], 1));

    let head = world.log().append(&record(99)).unwrap();
    let report = world.verify();
    assert_eq!((head.seq, problems(&report), report.torn.len()), (appended as u64 + 1, vec![], 1));
}
