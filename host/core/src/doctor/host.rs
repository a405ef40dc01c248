//! What pcoder needs of the machine itself: disk, clock, terminal. What else the machine has is in `probe.rs`.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pcoder_runtime::text::for_people;

use super::Job;
use super::folders::nearest;
use super::record::Finding;
use crate::Pcoder;

const MIB: u64 = 1 << 20;
/// The engines of both tools take about 1.5 GiB while they are installed.
const ROOM: u64 = 2048 * MIB;
/// Below this, not even an adapter can be unpacked.
const LEAST: u64 = 200 * MIB;

pub(super) fn disk_jobs(_pcoder: &Pcoder) -> Vec<Job> {
    vec![
        Job::look("disk", "disk.free", free),
        Job::look("disk", "disk.locks", |pcoder| locks(&pcoder.layout().locks)),
        Job::look("disk", "disk.permissions", |pcoder| permissions(&pcoder.layout().data)),
    ]
}

pub(super) fn clock_jobs(_pcoder: &Pcoder) -> Vec<Job> {
    vec![Job::new("clock", "clock.sane", |_| clock())]
}

pub(super) fn terminal_jobs(_pcoder: &Pcoder) -> Vec<Job> {
    vec![Job::look("terminal", "terminal.type", terminal)]
}

/// The folder for temporary files, as the environment says.
fn temporary(pcoder: &Pcoder) -> PathBuf {
    if pcoder.layout().portable {
        return pcoder.layout().temporary();
    }
    let names: &[&str] = if cfg!(windows) { &["TMP", "TEMP"] } else { &["TMPDIR"] };
    let named = names.iter().find_map(|name| pcoder.surroundings().variable(name)).map(PathBuf::from);
    named.unwrap_or_else(|| PathBuf::from(if cfg!(windows) { r"C:\Windows\Temp" } else { "/tmp" }))
}

fn free(pcoder: &Pcoder) -> Finding {
    let layout = pcoder.layout();
    let folders = BTreeSet::from([layout.data.clone(), layout.store.clone(), temporary(pcoder)]);
    let room = folders.into_iter().map(|folder| {
        let free = nearest(&folder).and_then(|it| fs4::available_space(it).ok());
        (folder, free)
    });
    of_room(room.collect())
}

fn of_room(room: Vec<(PathBuf, Option<u64>)>) -> Finding {
    let mib = |bytes: u64| format!("{} MiB", bytes / MIB);
    let list = |(folder, free): &(PathBuf, Option<u64>)| {
        format!("{} free in {}", free.map_or_else(|| "not known how much is".to_owned(), mib), folder.display())
    };
    let measured = room.iter().map(list).collect::<Vec<_>>().join(", ");
    let least = room.iter().filter_map(|(_, free)| *free).min().unwrap_or(u64::MAX);
    let remedy = "free some room: `pcoder engine prune` removes engines that are not used any more";
    if least < LEAST {
        let meaning = "engines cannot be installed, and a tool may lose what it writes";
        Finding::fail(measured, format!("at least {}", mib(LEAST)), meaning, remedy)
    } else if least < ROOM {
        let meaning = "installing or updating engines may fill the disk";
        Finding::warning(measured, format!("at least {}", mib(ROOM)), meaning, remedy)
    } else {
        Finding::ok(measured)
    }
}

/// Takes a lock where locks are taken. It leaves no file and no folder.
fn locks(folder: &Path) -> Finding {
    let shown = folder.display().to_string();
    let meaning = "two pcoders at once could damage what they keep, so nothing is installed or changed";
    let expected = "a folder in which files can be locked";
    let failed = |why: String| {
        let remedy =
            format!("make {shown} a folder of yours that can be written to, or set `PCODER_HOME` to another one");
        Finding::fail(format!("{shown}: {why}"), expected, meaning, remedy)
    };
    let Some(place) = nearest(folder) else { return failed("it has no disk".to_owned()) };
    let file: File = match tempfile::tempfile_in(place) {
        Ok(file) => file,
        Err(error) => return failed(error.to_string()),
    };
    match file.try_lock() {
        Ok(()) => Finding::ok(format!("files can be locked in {shown}")),
        Err(TryLockError::WouldBlock) => failed("a file that nobody else has is locked".to_owned()),
        Err(TryLockError::Error(error)) => Finding::fail(
            format!("{shown}: its file system has no locks ({error})"),
            expected,
            meaning,
            "set `PCODER_HOME` to a folder on another file system",
        ),
    }
}

/// Whether a file can be its owner's alone.
fn permissions(folder: &Path) -> Finding {
    let shown = folder.display().to_string();
    let Some(tried) = tried(folder) else { return Finding::ok(format!("not known of {shown}")) };
    match tried {
        Ok(true) if cfg!(unix) => Finding::ok(format!("files in {shown} can be their owner's alone")),
        Ok(true) => Finding::ok(format!("files in {shown} have the access list of their folder")),
        Ok(false) => Finding::warning(
            format!("the file system of {shown} has no permissions"),
            "a file system on which a file can be its owner's alone",
            "whoever can read that disk can read the logins that tools keep there",
            "set `PCODER_HOME` to a folder on another file system, or name keys by `keyring:NAME` instead of logging in",
        ),
        // That it cannot be written to is said of the folder itself.
        Err(_) => Finding::ok(format!("not known of {shown}, which cannot be written to")),
    }
}

/// Whether the file system of a folder has none: a finding of its own, and not one of every file in it.
pub(super) fn lacks_permissions(folder: &Path) -> bool {
    matches!(tried(folder), Some(Ok(false)))
}

/// Whether a file in a folder, or where the folder would be, can be its owner's alone; nothing where there is no disk.
fn tried(folder: &Path) -> Option<io::Result<bool>> {
    nearest(folder).map(|place| tempfile::tempfile_in(place).and_then(|file| has_permissions(&file)))
}

#[cfg(unix)]
fn has_permissions(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    for mode in [0o640, 0o600] {
        // exFAT either refuses or does nothing.
        if file.set_permissions(std::fs::Permissions::from_mode(mode)).is_err() {
            return Ok(false);
        }
        if file.metadata()?.permissions().mode() & 0o777 != mode {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(not(unix))]
fn has_permissions(_file: &File) -> io::Result<bool> {
    Ok(true)
}

/// 2026-07-01, before which this was not written.
const NOT_BEFORE: Duration = Duration::from_secs(1_782_864_000);
/// 2056-07-01.
const NOT_AFTER: Duration = Duration::from_secs(2_729_548_800);
/// How long the two clocks are compared for.
const WATCHED: Duration = Duration::from_millis(100);
/// How far apart they may be after that.
const DRIFT: Duration = Duration::from_millis(100);

/// One look at both clocks: the steady one before and after the one on the wall.
struct Look {
    before: Instant,
    wall: Duration,
    after: Instant,
}

fn look() -> Look {
    let before = Instant::now();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Look { before, wall, after: Instant::now() }
}

async fn clock() -> Finding {
    let first = look();
    tokio::time::sleep(WATCHED).await;
    of_clocks(&first, &look())
}

fn of_clocks(first: &Look, second: &Look) -> Finding {
    let expected = "a clock that is right and even";
    let remedy = "set the clock, or turn on its synchronisation";
    // How much the steady clock may have gone on between the two looks at the other; a busy machine only widens it.
    let least = second.before.saturating_duration_since(first.after).saturating_sub(DRIFT);
    let most = second.after.saturating_duration_since(first.before) + DRIFT;
    let went = second.wall.checked_sub(first.wall);
    if second.wall < NOT_BEFORE || second.wall > NOT_AFTER {
        let when = if second.wall < NOT_BEFORE { "before this pcoder was made" } else { "decades ahead" };
        let meaning = "certificates are refused, logins seem expired, and the audit has wrong times";
        Finding::fail(format!("{} s since 1970, {when}", second.wall.as_secs()), expected, meaning, remedy)
    } else if went.is_none_or(|went| went < least || went > most) {
        Finding::warning(
            "it jumped while it was looked at",
            expected,
            "the audit's times are out of order, and a login may be renewed too late",
            remedy,
        )
    } else {
        Finding::ok("it is right by years, and even")
    }
}

fn terminal(pcoder: &Pcoder) -> Finding {
    match pcoder.surroundings().variable("TERM").and_then(|it| it.to_str()) {
        Some("dumb") => Finding::warning(
            "TERM is `dumb`",
            "a terminal that agents can draw in",
            "agents that are used interactively show nothing of use",
            "set TERM, as `TERM=xterm-256color`",
        ),
        Some(term) => Finding::ok(format!("TERM is `{}`", for_people(term, 60))),
        None if cfg!(windows) => Finding::ok("Windows console"),
        None => Finding::warning(
            "TERM is not set",
            "a terminal, to use agents interactively",
            "agents run with `pcoder run … --json`, and cannot be used interactively",
            "run it in a terminal, or set TERM, as `TERM=xterm-256color`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Check, Status};

    fn check(finding: Finding) -> Check {
        finding.into_check("t".into(), "t", Duration::ZERO)
    }

    #[test]
    fn the_fullest_disk_counts() {
        let room = |data: u64, temporary: u64| {
            check(of_room(vec![("/data".into(), Some(data * MIB)), ("/tmp".into(), Some(temporary * MIB))]))
        };
        assert_eq!(room(4000, 3000).status, Status::Ok);
        assert_eq!(room(4000, 3000).measured, "4000 MiB free in /data, 3000 MiB free in /tmp");
        assert_eq!(room(4000, 2047).status, Status::Warning);
        assert_eq!(room(199, 4000).status, Status::Fail);
        assert_eq!(check(of_room(vec![("/x".into(), None)])).measured, "not known how much is free in /x");
    }

    #[test]
    fn locks_are_tried_without_leaving_anything() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = place.path().join("a/locks");
        assert_eq!(check(locks(&folder)).status, Status::Ok);
        std::fs::create_dir_all(&folder).expect("a folder");
        assert_eq!(check(locks(&folder)).status, Status::Ok);
        assert_eq!(std::fs::read_dir(&folder).expect("a folder").count(), 0);
        let file = place.path().join("file");
        std::fs::write(&file, "").expect("a file");
        let found = check(locks(&file));
        assert!(found.status == Status::Fail && found.remedy.is_some_and(|it| it.contains("file")));
    }

    #[test]
    fn a_clock_of_another_time_and_one_that_jumps_are_seen() {
        let now = Instant::now();
        let at = |steady_ms: u64, wall: Duration| {
            let instant = now + Duration::from_millis(steady_ms);
            Look { before: instant, wall, after: instant }
        };
        let day = NOT_BEFORE + Duration::from_secs(86_400);
        let status = |went: Duration| check(of_clocks(&at(0, day), &at(100, day + went))).status;
        assert_eq!(status(Duration::from_millis(100)), Status::Ok);
        assert_eq!(status(Duration::from_secs(3600)), Status::Warning);
        assert_eq!(check(of_clocks(&at(0, day), &at(100, day - Duration::from_secs(60)))).status, Status::Warning);
        for wall in [Duration::ZERO, NOT_AFTER * 2] {
            assert_eq!(check(of_clocks(&at(0, wall), &at(100, wall))).status, Status::Fail);
        }
        // A machine that was busy between looking at the one clock and the other.
        let busy = Look { after: now + Duration::from_secs(5), ..at(0, day) };
        let second = at(5100, day + Duration::from_secs(5));
        assert_eq!(check(of_clocks(&busy, &second)).status, Status::Ok);
    }
}
