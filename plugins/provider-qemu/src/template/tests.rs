use super::*;
use crate::boot::From;
use crate::life;
use crate::peer::{Guest, boot_options, world, world_where};
use crate::record::Wish;
use pcoder_sdk::testing::FakeHost;
use pcoder_sdk::{Instance, Output, Setting, setting};

fn boot_with(host: &FakeHost, options: &[(&str, &str)]) -> Result<Instance> {
    let mut wanted = boot_options();
    wanted.options = options.iter().map(|(name, value)| Setting::new(*name, *value)).collect();
    life::boot(host.provider(), wanted)
}

fn boot(host: &FakeHost) -> Instance {
    boot_with(host, &[]).unwrap()
}

/// How an instance began.
fn start(instance: &Instance) -> &str {
    setting(&instance.details, "start").unwrap()
}

fn store(host: &FakeHost) -> Store<'_> {
    Store::new(host.provider(), "o")
}

/// The templates that can be used.
fn templates(host: &FakeHost) -> Vec<Template> {
    let all = ids(store(host)).unwrap();
    all.iter().filter_map(|id| read(store(host), id)).filter(|it| it.saved.is_some()).collect()
}

/// Instances, templates, layers and services.
fn left(host: &FakeHost) -> [usize; 4] {
    let count = |folder: &str| host.provider().files().list(ROOT, folder).unwrap().len();
    let notes = usize::from(host.host_file(ROOT, "templates/notes.json").is_some());
    let services = host.provider().services().list().unwrap().len();
    [count("instances"), count(FOLDER) - notes, count("layers"), services]
}

fn starts(host: &FakeHost) -> usize {
    let is = |it: &pcoder_sdk::testing::Call| it.operation == "service.start" && !it.subject.contains("-machine none");
    host.calls().iter().filter(|it| is(it)).count()
}

fn later(host: &FakeHost, ms: u64) {
    host.provider().clock().sleep(Duration::from_millis(ms));
}

#[test]
fn the_second_boot_of_a_kind_makes_a_template_and_later_ones_begin_with_it() {
    let host = world();
    let first = boot(&host);
    assert_eq!((start(&first), templates(&host).len(), starts(&host)), ("cold", 0, 1));
    let second = boot(&host);
    assert_eq!((start(&second), templates(&host).len(), starts(&host)), ("restored", 1, 3));
    let third = boot_with(&host, &[("env.TOKEN", "x")]).unwrap();
    assert_eq!((start(&third), templates(&host).len(), starts(&host)), ("restored", 1, 4));
    assert_eq!(setting(&third.details, "tried"), None);
    // Each has a disk of its own above the template's, and only machines run that somebody asked for.
    let layer = &templates(&host)[0].layer;
    for id in [&second.id, &third.id] {
        let record = store(&host).read(id).unwrap();
        assert_eq!((record.layers.len(), &record.layers[1], record.wish), (2, layer, Wish::Run));
    }
    assert_eq!(left(&host), [3, 1, 4, 3]);
    // Nothing of an instance's is in the template.
    let seed = host.host_file(ROOT, &format!("templates/{}/seed.img", templates(&host)[0].id)).unwrap();
    assert!(!seed.windows(5).any(|it| it == b"TOKEN"));
}

#[test]
fn what_differs_in_anything_is_another_kind() {
    let host = world();
    let facts = String::from_utf8(host.host_file("host", "facts.json").unwrap()).unwrap();
    let image = crate::peer::image();
    boot(&host);
    boot(&host);
    for option in
        [("memory-mib", "1024"), ("cpus", "1"), ("disk-gib", "20"), ("network", "none"), ("accelerator", "tcg")]
    {
        assert_eq!(start(&boot_with(&host, &[option]).unwrap()), "cold", "{option:?}");
    }
    for (file, from, to) in [
        ("vmlinux", "sum-of-vmlinux", "other"),
        ("initrd", "sum-of-initrd", "other"),
        ("root.img", "sum-of-root.img", "other"),
        ("guest.json", "quiet", "debug"),
    ] {
        host.put_on_host("images", "debian-13-amd64/guest.json", image.replace(from, to).as_bytes());
        assert_eq!(start(&boot(&host)), "cold", "{file}");
    }
    host.put_on_host("images", "debian-13-amd64/guest.json", image.as_bytes());
    assert_eq!((start(&boot(&host)), templates(&host).len()), ("restored", 1));
    // One that another QEMU made is of no use any more.
    host.put_on_host("host", "facts.json", facts.replace("10.0.2", "10.0.3").as_bytes());
    assert_eq!((start(&boot(&host)), templates(&host).len()), ("cold", 0));
}

#[test]
fn a_name_and_an_environment_make_no_other_kind() {
    let host = world();
    boot_with(&host, &[("env.A", "1")]).unwrap();
    boot_with(&host, &[("env.A", "2")]).unwrap();
    let mut options = boot_options();
    options.options.clear();
    options.name = Some("box".to_owned());
    assert_eq!(start(&life::boot(host.provider(), options).unwrap()), "restored");
}

#[test]
fn an_instance_outlives_its_template() {
    let host = world();
    boot(&host);
    let id = boot(&host).id;
    let template = templates(&host).remove(0);
    discard(store(&host), &template.id);
    assert!(disk::is_there(host.provider(), &template.layer));
    life::stop(host.provider(), &id).unwrap();
    let resumed = life::resume(host.provider(), &id).unwrap();
    assert_eq!((resumed.status.as_str(), start(&resumed)), ("ready", "cold"));
    let copy = life::list(host.provider()).unwrap().len();
    assert_eq!(copy, 2);
    life::terminate(host.provider(), &id).unwrap();
    assert!(!disk::is_there(host.provider(), &template.layer));
}

#[test]
fn a_template_outlives_its_instances() {
    let host = world();
    let ids = [boot(&host).id, boot(&host).id];
    for id in ids {
        life::terminate(host.provider(), &id).unwrap();
    }
    assert_eq!(left(&host), [0, 1, 1, 0]);
    assert_eq!(start(&boot(&host)), "restored");
}

#[test]
fn a_template_that_cannot_be_made_only_costs_time() {
    for guest in [
        Guest::Fails(1),
        Guest::Silent,
        Guest::Slow,
        Guest::Ends("no such option"),
        Guest::Crashes,
        Guest::ShutsDown,
        Guest::Unsavable,
    ] {
        let host = world_where(move |it| if it == "kvm template" { guest } else { Guest::Ready(2) });
        boot(&host);
        let second = boot(&host);
        assert_eq!((start(&second), setting(&second.details, "accelerator")), ("cold", Some("kvm")), "{guest:?}");
        let tried = setting(&second.details, "tried").unwrap();
        assert!(tried.starts_with("template: it could not be made: "), "{tried}");
        assert_eq!(left(&host), [2, 0, 2, 2]);
        // It is not tried again at once, and then it is.
        let before = starts(&host);
        boot(&host);
        assert_eq!(starts(&host), before + 1);
        later(&host, 700_000);
        boot(&host);
        assert_eq!(starts(&host), before + 3);
        // For longer each time.
        later(&host, 700_000);
        boot(&host);
        assert_eq!(starts(&host), before + 4);
    }
}

#[test]
fn a_guest_that_does_not_end_its_boot_is_no_template() {
    let host = world();
    boot(&host);
    host.answer("ssh.capture", Ok(Output::new(1, "", "")));
    assert_eq!(start(&boot(&host)), "cold");
    assert_eq!(left(&host), [2, 0, 2, 2]);
}

#[test]
fn a_memory_that_does_not_go_on_is_discarded_and_the_instance_boots() {
    for (guest, why) in [
        (Guest::Refused, "QEMU ended (load of migration failed: Invalid argument)"),
        (Guest::Slow, "the guest was not ready within 5 s"),
        (Guest::Crashes, "QEMU ended (Assertion failed)"),
        (Guest::Fails(1), "the accelerator failed (`internal-error`) (KVM internal error. Suberror: 1)"),
        (Guest::Other(60), "the guest was not ready within 5 s"),
    ] {
        let host = world_where(move |it| if it == "kvm copy" { guest } else { Guest::Ready(2) });
        boot(&host);
        let second = boot(&host);
        assert_eq!((start(&second), setting(&second.details, "accelerator")), ("cold", Some("kvm")));
        assert_eq!(setting(&second.details, "tried"), Some(format!("template: {why}").as_str()));
        assert_eq!(store(&host).read(&second.id).unwrap().layers.len(), 1);
        assert_eq!(left(&host), [2, 0, 2, 2]);
        assert_eq!(start(&boot(&host)), "cold");
    }
}

#[test]
fn a_template_whose_files_changed_is_discarded() {
    type Change = fn(&FakeHost, &Template);
    let changes: [Change; 5] = [
        |host, it| host.put_on_host(ROOT, &start::memory(&it.id), b"short"),
        |host, it| host.put_on_host(ROOT, &start::state(&it.id), br#"["tp-ffffffff",[]]"#),
        |host, it| host.put_on_host(ROOT, &disk::path(&it.layer), b"short"),
        |host, it| host.provider().files().remove(ROOT, &start::state(&it.id), false).unwrap(),
        |host, it| host.put_on_host(ROOT, &file(&it.id), b"{"),
    ];
    for change in changes {
        let host = world();
        boot(&host);
        let second = boot(&host);
        let template = templates(&host).remove(0);
        change(&host, &template);
        // As it is no fault of the kind's, there is another one at once.
        assert_eq!(start(&boot(&host)), "restored");
        let now = templates(&host);
        assert!(now.len() == 1 && now[0].id != template.id);
        life::terminate(host.provider(), &second.id).unwrap();
        assert!(!disk::is_there(host.provider(), &template.layer));
    }
}

#[test]
fn what_may_not_have_been_on_the_disk_when_the_host_went_down_is_not_believed() {
    for (used_after, expected) in [(60_000, false), (200_000, true)] {
        let host = world_where(|_| Guest::Ready(2));
        let facts = String::from_utf8(host.host_file("host", "facts.json").unwrap()).unwrap();
        let tcg = [("accelerator", "tcg")];
        boot_with(&host, &tcg).unwrap();
        boot_with(&host, &tcg).unwrap();
        let template = templates(&host).remove(0);
        later(&host, used_after);
        boot_with(&host, &tcg).unwrap();
        host.put_on_host("host", "facts.json", facts.replace("b1", "b2").as_bytes());
        boot_with(&host, &tcg).unwrap();
        assert_eq!(templates(&host)[0].id == template.id, expected);
    }
}

#[test]
fn a_processor_of_the_hosts_own_may_be_another_one_after_a_restart() {
    let host = world();
    let facts = String::from_utf8(host.host_file("host", "facts.json").unwrap()).unwrap();
    boot(&host);
    boot(&host);
    host.put_on_host("host", "facts.json", facts.replace("b1", "b2").as_bytes());
    assert_eq!((start(&boot(&host)), templates(&host).len()), ("cold", 0));
}

#[test]
fn it_can_be_turned_off_for_one_boot_and_for_all() {
    let host = world();
    boot(&host);
    boot(&host);
    assert_eq!(start(&boot_with(&host, &[("template", "off")]).unwrap()), "cold");
    assert_eq!(templates(&host).len(), 1);
    host.set("template", "off");
    assert_eq!(start(&boot_with(&host, &[("template", "auto")]).unwrap()), "cold");
    assert_eq!(left(&host)[1], 0);
    assert_eq!(host.host_file(ROOT, "templates/notes.json"), None);
}

#[test]
fn there_are_templates_where_a_guest_learns_that_it_is_a_copy() {
    for (from, to) in [
        ("x86_64", "aarch64"),
        ("linux", "windows"),
        ("{\"name\":\"kvm\"", "{\"name\":\"hvf\""),
        ("\"10.0.2\"", "null"),
    ] {
        let host = world();
        let facts = String::from_utf8(host.host_file("host", "facts.json").unwrap()).unwrap();
        host.put_on_host("host", "facts.json", facts.replace(from, to).as_bytes());
        let image = "debian-13-arm64";
        for file in ["vmlinux", "initrd", "root.img"] {
            host.put_on_host("images", &format!("{image}/{file}"), b"12345");
        }
        let guest = crate::peer::image().replace("amd64", "arm64");
        host.put_on_host("images", &format!("{image}/guest.json"), guest.as_bytes());
        for _ in 0..3 {
            assert_eq!(start(&boot(&host)), "cold", "{to}");
        }
        assert_eq!(starts(&host), 3);
    }
}

#[test]
fn only_so_many_are_kept_and_the_longest_unused_goes() {
    let host = world();
    let memory = ["512", "1024", "1536", "2048"];
    for memory in memory {
        for _ in 0..2 {
            let id = boot_with(&host, &[("memory-mib", memory)]).unwrap().id;
            life::terminate(host.provider(), &id).unwrap();
        }
        later(&host, 2 * USED_MS);
        // The first one is in use again and again.
        boot_with(&host, &[("memory-mib", "512")]).unwrap();
    }
    let kept: Vec<bool> = memory
        .iter()
        .map(|it| templates(&host).iter().any(|has| has.key.arguments.contains(&(*it).to_owned())))
        .collect();
    assert_eq!(kept, [true, false, true, true]);
    later(&host, 2 * UNUSED_MS);
    boot_with(&host, &[("template", "off")]).unwrap();
    assert_eq!(templates(&host).len(), 0);
}

/// What is being made: its record, its layer, and its QEMU.
fn another_makes(host: &FakeHost, key: Key, made_for: &str) -> Template {
    let template = Template {
        made_for: made_for.to_owned(),
        format: FORMAT,
        id: "tp-0000000f".to_owned(),
        key,
        layer: "l000000000000000f".to_owned(),
        seen_ms: host.provider().clock().now_ms(),
        saved: None,
    };
    host.provider().files().create_directory(ROOT, &folder(&template.id), None).unwrap();
    write(store(host), &template).unwrap();
    host.put_on_host(ROOT, &disk::path(&template.layer), b"x");
    let spec =
        pcoder_sdk::ServiceSpec { program: "qemu-system-x86_64".to_owned(), args: Vec::new(), folder: ".".to_owned() };
    host.provider().services().start(&template.id, &spec).unwrap();
    template
}

#[test]
fn nobody_waits_for_a_template_that_somebody_else_makes_and_what_is_not_finished_goes() {
    let host = world();
    let waits = boot(&host).id;
    boot(&host);
    let key = templates(&host).remove(0).key;
    discard(store(&host), &templates(&host)[0].id);
    let theirs = another_makes(&host, key, &waits);
    assert_eq!((start(&boot(&host)), templates(&host).len()), ("cold", 0));
    assert!(disk::is_there(host.provider(), &theirs.layer));
    later(&host, STALE_MS + 1);
    assert_eq!((start(&boot(&host)), templates(&host).len()), ("restored", 1));
    assert!(!disk::is_there(host.provider(), &theirs.layer));
    assert_eq!(host.provider().services().status(&theirs.id), Ok(None));
}

#[test]
fn of_two_that_were_made_at_once_one_stays() {
    let host = world();
    boot(&host);
    boot(&host);
    let template = templates(&host).remove(0);
    let twin = Template { id: "tp-00000000".to_owned(), layer: "l0000000000000000".to_owned(), ..template };
    host.provider().files().create_directory(ROOT, &folder(&twin.id), None).unwrap();
    write(store(&host), &twin).unwrap();
    host.put_on_host(ROOT, &disk::path(&twin.layer), b"x");
    boot_with(&host, &[("template", "off")]).unwrap();
    assert_eq!(templates(&host).len(), 1);
}

/// A template that goes while an instance is about to begin with it: whoever removes it is not seen before.
#[test]
fn a_template_that_somebody_removes_is_not_begun_with() {
    let host = world();
    boot(&host);
    boot(&host);
    let template = templates(&host).remove(0);
    let facts = Facts::read(host.provider(), "o").unwrap();
    let architecture = life::architecture(&facts, "o").unwrap();
    let image = crate::image::Image::read(host.provider(), "o", "debian-13-amd64").unwrap();
    let boot = Boot { store: store(&host), facts, architecture, image, from: From::Template };
    let mut record = crate::peer::record("vm-0000000a");
    store(&host).create(&record).unwrap();
    record.layers.push(template.layer.clone());
    remove(store(&host), &template.id).unwrap();
    assert!(matches!(begin(&boot, Accelerator::Kvm, &record, &template), Ok(Begun::Gone)));
    assert!(!host.log_of_calls().iter().any(|it| it.starts_with("service.start vm-0000000a")));
}

#[test]
fn a_boot_that_is_killed_anywhere_leaves_nothing_for_long() {
    for templated in [false, true] {
        let mut points = 0;
        loop {
            let host = world();
            boot(&host);
            if templated {
                boot(&host);
            }
            host.die_after(points);
            let booted = boot_with(&host, &[]);
            host.revive();
            if booted.is_ok() {
                break;
            }
            // Whoever boots next gets a machine, whatever is there.
            assert_eq!(boot(&host).status, "ready", "killed after {points}");
            later(&host, STALE_MS + 1);
            assert_eq!(start(&boot(&host)), "restored", "killed after {points}");
            for template in templates(&host) {
                assert!(disk::is_there(host.provider(), &template.layer));
            }
            assert!(ids(store(&host)).unwrap().len() == 1, "killed after {points}");
            for instance in life::list(host.provider()).unwrap() {
                life::terminate(host.provider(), &instance.id).unwrap();
            }
            assert_eq!(left(&host), [0, 1, 1, 0], "killed after {points}");
            points += 1;
        }
        assert!(points > 30, "{points}");
    }
}

#[test]
fn who_ends_an_instance_whose_boot_was_killed_ends_the_template_that_it_made() {
    let mut points = 0;
    loop {
        let host = world();
        boot(&host);
        host.die_after(points);
        let booted = boot_with(&host, &[]);
        host.revive();
        if booted.is_ok() {
            break;
        }
        for instance in life::list(host.provider()).unwrap() {
            life::terminate(host.provider(), &instance.id).unwrap();
        }
        let whole = templates(&host).len();
        let [instances, _, layers, services] = left(&host);
        assert_eq!((instances, layers, services), (0, whole, 0), "killed after {points}");
        let known = ids(store(&host)).unwrap().iter().filter(|it| read(store(&host), it).is_some()).count();
        assert_eq!(known, whole, "killed after {points}");
        points += 1;
    }
    assert!(points > 30, "{points}");
}

#[test]
fn only_an_identity_is_one() {
    assert!(is_id("tp-0123abcd"));
    for wrong in ["", "tp-", "vm-0123abcd", "tp-../../x", "tp-0123ABCD", "notes.json"] {
        assert!(!is_id(wrong), "{wrong}");
    }
}
