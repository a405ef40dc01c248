use super::*;
use crate::life;
use crate::peer::{Guest, boot_options, world, world_where};
use pcoder_sdk::testing::FakeHost;

fn booted(host: &FakeHost) -> String {
    life::boot(host.provider(), boot_options()).unwrap().id
}

fn record(host: &FakeHost, id: &str) -> Record {
    Store::new(host.provider(), "o").read(id).unwrap()
}

/// What QEMU writes to.
fn top(host: &FakeHost, id: &str) -> String {
    let mut qmp = Qmp::open(host.provider(), "o", id, PATIENCE).unwrap();
    qmp.run("query-block").unwrap()[0]["inserted"]["node-name"].as_str().unwrap().to_owned()
}

fn layers(host: &FakeHost) -> usize {
    host.provider().files().list(ROOT, disk::FOLDER).unwrap().len()
}

#[test]
fn a_copy_shares_what_was_written_before() {
    let host = world();
    let id = booted(&host);
    let before = record(&host, &id).layers;
    let copy = fork(host.provider(), &id).unwrap();
    assert_eq!(copy.status, "ready");
    let (source, copied) = (record(&host, &id), record(&host, &copy.id));
    assert_eq!((&source.layers[1..], &copied.layers[1..]), (&before[..], &before[..]));
    assert_ne!(source.layers[0], copied.layers[0]);
    assert_eq!((top(&host, &id), top(&host, &copy.id)), (source.layers[0].clone(), copied.layers[0].clone()));
    assert_eq!((source.next, copied.next, layers(&host)), (None, None, 3));
    let synced = host.log_of_calls().iter().position(|it| it == "ssh.capture sync").unwrap();
    let cut = host.calls().iter().rposition(|it| it.operation == "service.talk").unwrap();
    assert!(synced < cut);
    // Whoever goes first leaves the other what it needs.
    life::terminate(host.provider(), &id).unwrap();
    assert_eq!(layers(&host), 2);
    life::stop(host.provider(), &copy.id).unwrap();
    assert_eq!(life::resume(host.provider(), &copy.id).unwrap().status, "ready");
    life::terminate(host.provider(), &copy.id).unwrap();
    assert_eq!(layers(&host), 0);
}

/// Whether the machine goes on.
fn runs(host: &FakeHost, id: &str) -> bool {
    let mut qmp = Qmp::open(host.provider(), "o", id, PATIENCE).unwrap();
    qmp.run("query-status").unwrap()["running"] == true
}

/// How a copy began, and what is told of it.
fn began(copy: &Instance) -> (&str, Option<&str>) {
    let detail = |name| pcoder_sdk::setting(&copy.details, name);
    (detail("start").unwrap(), detail("tried"))
}

fn is_saved(host: &FakeHost, id: &str) -> bool {
    host.host_file(ROOT, &crate::start::state(id)).is_some()
}

#[test]
fn a_copy_goes_on_with_the_memory_and_the_instance_too() {
    let host = world();
    let id = booted(&host);
    let copy = fork(host.provider(), &id).unwrap();
    assert_eq!(began(&copy), ("restored", None));
    assert!(runs(&host, &id) && runs(&host, &copy.id) && !is_saved(&host, &copy.id));
    let again = fork(host.provider(), &copy.id).unwrap();
    assert_eq!(began(&again), ("restored", None));
    // Later it boots as any other.
    life::stop(host.provider(), &copy.id).unwrap();
    assert_eq!(began(&life::resume(host.provider(), &copy.id).unwrap()).0, "cold");
}

#[test]
fn a_memory_that_is_of_no_use_costs_time_and_no_copy() {
    for (guest, tried) in [
        (Guest::Refused, "memory: QEMU ended (load of migration failed: Invalid argument)"),
        (Guest::Slow, "memory: the guest was not ready within 30 s"),
        (Guest::Crashes, "memory: QEMU ended (Assertion failed)"),
    ] {
        let host = world_where(move |it| if it == "kvm saved" { guest } else { Guest::Ready(2) });
        let id = booted(&host);
        let copy = fork(host.provider(), &id).unwrap();
        assert_eq!(began(&copy), ("cold", Some(tried)));
        assert!(runs(&host, &id) && !is_saved(&host, &copy.id));
    }
    for guest in [Guest::Unsavable, Guest::Large] {
        let host = world_where(move |_| guest);
        let id = booted(&host);
        let copy = fork(host.provider(), &id).unwrap();
        assert_eq!(began(&copy), ("cold", None), "{guest:?}");
        assert!(runs(&host, &id) && !is_saved(&host, &copy.id));
    }
}

#[test]
fn who_wants_no_memory_saved_gets_copies_of_disks() {
    let host = world();
    let id = booted(&host);
    host.set("template", "off");
    assert_eq!(began(&fork(host.provider(), &id).unwrap()), ("cold", None));
    let told = host.calls().iter().filter(|it| it.subject.contains("-incoming")).count();
    assert_eq!(told, 0);
}

#[test]
fn an_instance_that_a_killed_copy_left_standing_goes_on_when_it_is_used() {
    let uses: [fn(&FakeHost, &str); 3] = [
        |host, id| {
            let asked = host.provider().clock().monotonic();
            life::stop(host.provider(), id).unwrap();
            assert!(host.provider().clock().monotonic() - asked < Duration::from_secs(5), "it hears its power button");
            life::resume(host.provider(), id).unwrap();
        },
        |host, id| drop(life::resume(host.provider(), id).unwrap()),
        |host, id| {
            exec::capture(host.provider(), id, &CommandSpec::argv("true", [""; 0]), b"").map(drop).unwrap();
        },
    ];
    for use_it in uses {
        let (mut points, mut stood) = (0, 0);
        loop {
            let host = world();
            let id = booted(&host);
            host.die_after(points);
            let copied = fork(host.provider(), &id);
            host.revive();
            if copied.is_ok() {
                break;
            }
            stood += usize::from(!runs(&host, &id));
            use_it(&host, &id);
            assert!(runs(&host, &id) && !record(&host, &id).paused, "killed after {points}");
            points += 1;
        }
        assert!(stood > 3, "{stood}");
    }
}

#[test]
fn an_instance_that_is_being_copied_is_used_meanwhile() {
    let host = world();
    let id = booted(&host);
    let mut busy = record(&host, &id);
    busy.paused = true;
    Store::new(host.provider(), "o").write(&busy).unwrap();
    let talk = host.provider().services().talk(&id, Duration::ZERO).unwrap();
    exec::capture(host.provider(), &id, &CommandSpec::argv("true", [""; 0]), b"").map(drop).unwrap();
    drop(talk);
    assert!(record(&host, &id).paused);
}

#[test]
fn a_stopped_one_is_copied_and_copies_are() {
    let host = world();
    let id = booted(&host);
    life::stop(host.provider(), &id).unwrap();
    let copy = fork(host.provider(), &id).unwrap().id;
    assert_eq!(life::get(host.provider(), &id).unwrap().status, "stopped");
    let third = fork(host.provider(), &copy).unwrap().id;
    assert_eq!((record(&host, &id).layers.len(), record(&host, &third).layers.len()), (2, 3));
    assert_eq!(life::resume(host.provider(), &id).unwrap().status, "ready");
    assert_eq!(life::list(host.provider()).unwrap().len(), 3);
}

/// A copy of a running instance that is killed anywhere: the instance goes on, what QEMU writes to is in its chain, it
/// boots again, it is copied again, and nothing is left at the end.
#[test]
fn a_copy_that_is_killed_anywhere_leaves_chains_that_boot() {
    for (stopped, template) in [(false, "auto"), (false, "off"), (true, "auto")] {
        let mut points = 0;
        loop {
            let host = world();
            host.set("template", template);
            let id = booted(&host);
            if stopped {
                life::stop(host.provider(), &id).unwrap();
            }
            let before = record(&host, &id).layers;
            host.die_after(points);
            let copied = fork(host.provider(), &id);
            host.revive();
            if copied.is_ok() {
                break;
            }
            let now = record(&host, &id);
            assert!(now.layers.ends_with(&before), "killed after {points}");
            if !stopped {
                let top = top(&host, &id);
                assert!(now.needs().any(|it| it == top), "killed after {points}");
            }
            // Somebody else's clean-up takes nothing that is needed.
            Store::new(host.provider(), "o").remove_unneeded_layers().unwrap();
            // Once by copying it again, once by starting it again.
            if points % 2 == 0 {
                let copy = fork(host.provider(), &id).unwrap();
                assert!(record(&host, &copy.id).layers.ends_with(&before));
                if !stopped {
                    assert_eq!(record(&host, &id).layers[0], top(&host, &id));
                }
            }
            let written = if stopped { before[0].clone() } else { top(&host, &id) };
            life::stop(host.provider(), &id).unwrap();
            life::resume(host.provider(), &id).unwrap();
            let chain = record(&host, &id);
            assert!(chain.layers.contains(&written) && chain.layers.ends_with(&before), "killed after {points}");
            assert_eq!((chain.layers[0].clone(), chain.next.clone()), (top(&host, &id), None));
            for instance in life::list(host.provider()).unwrap() {
                life::terminate(host.provider(), &instance.id).unwrap();
            }
            assert_eq!(layers(&host), 0, "killed after {points}");
            points += 1;
        }
        assert!(points > 15, "{points}");
    }
}

#[test]
fn a_template_can_be_copied_for_ever() {
    let host = world();
    let id = booted(&host);
    life::stop(host.provider(), &id).unwrap();
    let written = record(&host, &id).layers;
    for _ in 0..DEEPEST {
        let copy = fork(host.provider(), &id).unwrap().id;
        assert_eq!(record(&host, &copy).layers[1..], written[..]);
        life::terminate(host.provider(), &copy).unwrap();
    }
    assert_eq!(record(&host, &id).layers.len(), 2);
    // It ran, and what it wrote belongs to the next copy.
    host.put_on_host(ROOT, &disk::path(&record(&host, &id).layers[0]), &[1; 100]);
    let copy = fork(host.provider(), &id).unwrap().id;
    assert_eq!((record(&host, &id).layers.len(), record(&host, &copy).layers.len()), (3, 3));
}

#[test]
fn what_cannot_be_copied_is_refused_before_anything_is_changed() {
    let host = world();
    let id = booted(&host);
    let mut deep = record(&host, &id);
    deep.layers = (0..DEEPEST).map(|at| format!("l{at:016x}")).collect();
    Store::new(host.provider(), "o").write(&deep).unwrap();
    assert_eq!(fork(host.provider(), &id).map_err(|it| it.code), Err(code::LIMIT.to_owned()));
    deep.layers.truncate(1);
    deep.wish = Wish::New;
    Store::new(host.provider(), "o").write(&deep).unwrap();
    assert_eq!(fork(host.provider(), &id).map_err(|it| it.code), Err(code::CONFLICT.to_owned()));
    assert_eq!(fork(host.provider(), "../x").map_err(|it| it.code), Err(code::NOT_FOUND.to_owned()));
    assert_eq!(record(&host, &id), deep);
}

#[test]
fn only_a_disk_that_is_inserted_is_written_to() {
    let blocks = json!([{ "device": "" }, { "inserted": { "node-name": "a" } }, 7]);
    assert!(writes_to(&blocks, "a"));
    assert!(!writes_to(&blocks, "b"));
    assert!(!writes_to(&json!({}), "a"));
}
