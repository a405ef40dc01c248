use super::*;
use crate::exec;
use crate::peer::{Guest, boot_options, world, world_where};
use pcoder_sdk::testing::FakeHost;
use pcoder_sdk::{CommandSpec, setting};

fn booted(host: &FakeHost) -> String {
    boot(host.provider(), boot_options()).unwrap().id
}

fn status(host: &FakeHost, id: &str) -> String {
    get(host.provider(), id).unwrap().status
}

#[test]
fn an_instance_is_stopped_and_resumed() {
    let host = world();
    let id = booted(&host);
    expose(host.provider(), &id, 8123).unwrap();
    stop(host.provider(), &id).unwrap();
    assert_eq!(status(&host, &id), "stopped");
    stop(host.provider(), &id).unwrap();
    let before = host.calls().len();
    let resumed = resume(host.provider(), &id).unwrap();
    assert_eq!((resumed.id.as_str(), resumed.status.as_str()), (id.as_str(), "ready"));
    assert_eq!(setting(&resumed.details, "port-8123"), None);
    // The same layers, and no disk is made anew.
    let wrote = host.calls().split_off(before);
    assert!(!wrote.iter().any(|it| it.subject.starts_with("state:layers/")));
    // To resume what runs is no error.
    assert_eq!(resume(host.provider(), &id).unwrap(), resumed);
}

#[test]
fn one_that_stands_still_for_want_of_room_goes_on_when_there_is_some() {
    let host = world();
    let id = booted(&host);
    host.put_on_host("state", "full", b"");
    assert_eq!(status(&host, &id), "error");
    let listed = list(host.provider()).unwrap();
    assert!(setting(&listed[0].details, "problem").is_some_and(|it| it.contains("disk is full")));
    let error = resume(host.provider(), &id).unwrap_err();
    assert_eq!(error.code, code::IO);
    assert!(error.message.contains("disk is full"), "{}", error.message);
    host.provider().files().remove("state", "full", false).unwrap();
    assert_eq!(resume(host.provider(), &id).unwrap().status, "ready");
    assert_eq!(status(&host, &id), "ready");
}

#[test]
fn a_guest_that_does_not_halt_is_made_to() {
    let host = world_where(|_| Guest::Deaf);
    let id = booted(&host);
    let started = host.provider().clock().monotonic();
    stop(host.provider(), &id).unwrap();
    assert!(host.provider().clock().monotonic() - started >= HALT);
    let logged = host.logged();
    assert!(logged.iter().any(|(level, line)| *level == Level::Warn && line.contains("has not halted in 20 s")));
    assert_eq!(status(&host, &id), "stopped");
    assert_eq!(resume(host.provider(), &id).unwrap().status, "ready");
}

#[test]
fn a_machine_that_somebody_talks_with_is_stopped_too() {
    let host = world();
    let id = booted(&host);
    let talk = host.provider().services().talk(&id, Duration::ZERO).unwrap();
    stop(host.provider(), &id).unwrap();
    drop(talk);
    assert_eq!(status(&host, &id), "stopped");
}

#[test]
fn a_stop_that_was_killed_is_gone_through_with_before_anything_runs_again() {
    let mut stopping = 0;
    for points in 0.. {
        let host = world_where(|_| Guest::Deaf);
        let id = booted(&host);
        host.die_after(points);
        let stopped = stop(host.provider(), &id);
        host.revive();
        if stopped.is_ok() {
            break;
        }
        let starts = || host.log_of_calls().iter().filter(|it| it.starts_with("service.start")).count();
        let (before, was) = (starts(), status(&host, &id));
        if was == "stopping" {
            stopping += 1;
            for refused in [
                crate::copy::fork(host.provider(), &id).map(drop),
                exec::capture(host.provider(), &id, &CommandSpec::argv("true", [""; 0]), b"").map(drop),
            ] {
                let error = refused.unwrap_err();
                assert_eq!((error.code.as_str(), error.message.contains("told to stop")), (code::CONFLICT, true));
            }
        }
        assert_eq!(resume(host.provider(), &id).unwrap().status, "ready");
        assert_eq!(starts() - before, usize::from(was != "ready"), "{points}: {was}");
        assert_eq!(status(&host, &id), "ready");
        assert!(exec::capture(host.provider(), &id, &CommandSpec::argv("true", [""; 0]), b"").is_ok());
    }
    assert!(stopping > 3, "{stopping}");
}

#[test]
fn what_went_by_itself_is_stopped_and_comes_back() {
    let host = world();
    let id = booted(&host);
    host.lose(&id);
    assert_eq!(status(&host, &id), "stopped");
    assert_eq!(expose(host.provider(), &id, 80).map_err(|it| it.code), Err(code::CONFLICT.to_owned()));
    assert_eq!(resume(host.provider(), &id).unwrap().status, "ready");
}

#[test]
fn a_resume_that_fails_keeps_the_disk() {
    let host = world();
    let id = booted(&host);
    stop(host.provider(), &id).unwrap();
    let mut points = 0;
    loop {
        host.die_after(points);
        let resumed = resume(host.provider(), &id);
        host.revive();
        if resumed.is_ok() {
            break;
        }
        let record = Store::new(host.provider(), "o").read(&id).unwrap();
        assert!(record.layers.iter().all(|it| disk::is_there(host.provider(), it)));
        assert!(!record.is_abandoned(u64::MAX));
        // Whoever booted it is not there any more.
        host.provider().clock().sleep(Duration::from_secs(60));
        assert!(["stopped", "error", "ready"].contains(&status(&host, &id).as_str()));
        if status(&host, &id) == "ready" {
            stop(host.provider(), &id).unwrap();
        }
        points += 1;
    }
    assert!(points > 10, "{points}");
}

#[test]
fn another_image_is_not_put_below_a_disk() {
    let host = world();
    let id = booted(&host);
    stop(host.provider(), &id).unwrap();
    let other = crate::peer::image().replace("sum-of-root.img", "other");
    host.put_on_host("images", "debian-13-amd64/guest.json", other.as_bytes());
    let error = resume(host.provider(), &id).unwrap_err();
    assert_eq!(error.code, code::CONFLICT);
    assert_eq!(status(&host, &id), "stopped");
}

#[test]
fn a_port_has_one_address() {
    let host = world();
    let id = booted(&host);
    let url = expose(host.provider(), &id, 8123).unwrap();
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    assert_eq!(expose(host.provider(), &id, 8123).unwrap(), url);
    assert_ne!(expose(host.provider(), &id, 8124).unwrap(), url);
    let details = get(host.provider(), &id).unwrap().details;
    assert_eq!(setting(&details, "port-8123"), Some(url.as_str()));
    assert_eq!(expose(host.provider(), &id, 0).map_err(|it| it.code), Err(code::INVALID.to_owned()));
}

#[test]
fn what_is_not_there_is_not_found_and_ends_well() {
    let host = world();
    for id in ["", "../x", "vm-0000000a", "morphvm_nothing", "nothing"] {
        assert_eq!(get(host.provider(), id).map_err(|it| it.code), Err(code::NOT_FOUND.to_owned()), "{id}");
        assert_eq!(stop(host.provider(), id).map_err(|it| it.code), Err(code::NOT_FOUND.to_owned()), "{id}");
        assert_eq!(resume(host.provider(), id).map_err(|it| it.code), Err(code::NOT_FOUND.to_owned()), "{id}");
        terminate(host.provider(), id).unwrap();
    }
}

#[test]
fn an_ended_instance_is_gone() {
    let host = world();
    let (id, other) = (booted(&host), booted(&host));
    terminate(host.provider(), &id).unwrap();
    terminate(host.provider(), &id).unwrap();
    assert_eq!(get(host.provider(), &id).map_err(|it| it.code), Err(code::NOT_FOUND.to_owned()));
    assert_eq!(list(host.provider()).unwrap().len(), 1);
    assert_eq!(resume(host.provider(), &other).unwrap().status, "ready");
}

#[test]
fn what_cannot_be_read_is_listed_and_can_be_ended() {
    let host = world();
    let id = booted(&host);
    host.put_on_host("state", &format!("instances/{id}/instance.json"), b"{");
    let listed = list(host.provider()).unwrap();
    assert_eq!((listed[0].id.as_str(), listed[0].status.as_str()), (id.as_str(), "error"));
    assert!(get(host.provider(), &id).is_err());
    // A machine without a folder is one too.
    host.provider().files().remove("state", &format!("instances/{id}"), true).unwrap();
    assert_eq!(list(host.provider()).unwrap().len(), 1);
    terminate(host.provider(), &id).unwrap();
    assert!(list(host.provider()).unwrap().is_empty());
}

#[test]
fn a_machine_keeps_the_engines_that_it_was_booted_with() {
    const DISK: &str = "linux-x64-0a.squashfs";
    let host = world();
    let with_engines = || {
        let mut options = boot_options();
        options.options.push(Setting::new("engines", DISK));
        boot(host.provider(), options)
    };
    let gone = with_engines().unwrap_err();
    assert_eq!((gone.code.as_str(), gone.subject.as_deref()), (code::NOT_FOUND, Some(DISK)));
    assert_eq!(list(host.provider()).unwrap(), [], "and it leaves nothing");
    host.put_on_host("engines", DISK, b"12345");
    let booted = with_engines().unwrap();
    assert_eq!(setting(&booted.details, "engines"), Some(DISK));
    let copy = crate::copy::fork(host.provider(), &booted.id).unwrap();
    assert_eq!(setting(&copy.details, "engines"), Some(DISK));
    stop(host.provider(), &booted.id).unwrap();
    let resumed = resume(host.provider(), &booted.id).unwrap();
    assert_eq!(setting(&resumed.details, "engines"), Some(DISK));
    // One that is halted is one that uses it.
    stop(host.provider(), &booted.id).unwrap();
    assert_eq!(setting(&get(host.provider(), &booted.id).unwrap().details, "engines"), Some(DISK));
}
