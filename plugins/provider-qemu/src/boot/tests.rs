use super::*;
use crate::life;
use crate::peer::{Guest, boot_options, world, world_where};
use pcoder_sdk::testing::FakeHost;
use pcoder_sdk::{Instance, setting};

fn boot(host: &FakeHost) -> Result<Instance> {
    life::boot(host.provider(), boot_options())
}

/// What there is of instances after a boot that failed.
fn left(host: &FakeHost) -> (usize, usize, usize) {
    let files = host.provider().files();
    let count = |folder: &str| files.list("state", folder).unwrap().len();
    (host.provider().services().list().unwrap().len(), count("instances"), count("layers"))
}

fn accelerators(host: &FakeHost) -> Vec<String> {
    let starts = host.calls().into_iter().filter(|it| it.operation == "service.start");
    starts
        .filter(|it| !it.subject.contains("-machine none"))
        .filter_map(|it| Some(it.subject.split("-accel ").nth(1)?.split(' ').next()?.to_owned()))
        .collect()
}

#[test]
fn a_guest_that_is_ready_is_booted() {
    let host = world();
    let instance = boot(&host).unwrap();
    assert_eq!((instance.status.as_str(), instance.home_dir.as_deref()), ("ready", Some("/home/pcoder")));
    let record = Store::new(host.provider(), "o").read(&instance.id).unwrap();
    assert_eq!(record.host_key.as_deref(), Some("ssh-ed25519 AAAAkey+/="));
    assert_eq!((record.ssh_port, record.accelerator.as_deref(), record.wish), (Some(40022), Some("kvm"), Wish::Run));
    assert_eq!(life::get(host.provider(), &instance.id).unwrap(), instance);
    assert_eq!(life::list(host.provider()).unwrap(), std::slice::from_ref(&instance));
    // The second one needs no disk to be made.
    let other = boot(&host).unwrap();
    assert_ne!(other.id, instance.id);
    let made = host.log_of_calls().iter().filter(|it| it.starts_with("service.start") && it.contains("none")).count();
    assert_eq!(made, 1);
    assert_eq!(left(&host), (2, 2, 2));
}

#[test]
fn what_fails_on_one_accelerator_is_tried_on_the_next_and_not_again() {
    for (guest, why) in [
        (Guest::Fails(1), "kvm: the accelerator failed (`internal-error`) (KVM internal error. Suberror: 1)"),
        (Guest::Silent, "kvm: the guest was silent for 5 s"),
        (Guest::Slow, "kvm: the guest was not ready within 20 s"),
        (Guest::Ends("Could not access KVM kernel module"), "kvm: QEMU ended (Could not access KVM kernel module)"),
        (Guest::ShutsDown, "kvm: the guest shut down"),
    ] {
        let host = world_where(move |accelerator| if accelerator == "kvm" { guest } else { Guest::Ready(60) });
        let instance = boot(&host).unwrap();
        assert_eq!(setting(&instance.details, "accelerator"), Some("tcg"));
        assert_eq!(setting(&instance.details, "tried"), Some(why));
        assert_eq!(accelerators(&host), ["kvm", "tcg"]);
        let again = boot(&host).unwrap();
        assert_eq!(accelerators(&host), ["kvm", "tcg", "tcg"]);
        assert!(setting(&again.details, "tried").unwrap().ends_with("(before; not tried again)"));
    }
}

#[test]
fn what_works_nowhere_leaves_nothing_and_is_explained() {
    for guest in [Guest::Fails(1), Guest::Silent, Guest::Slow, Guest::Ends("no such option"), Guest::ShutsDown] {
        let host = world_where(move |_| guest);
        let error = boot(&host).unwrap_err();
        assert_eq!(error.code, code::PROCESS);
        assert!(error.message.contains("kvm: ") && error.message.contains("tcg: "), "{}", error.message);
        if matches!(guest, Guest::Slow | Guest::ShutsDown) {
            assert!(error.message.contains("Linux version 6.12 / [31mKernel panic"), "{}", error.message);
        }
        assert_eq!(left(&host), (0, 0, 0), "{guest:?}");
        // It may be the machine's fault, so that nothing was learnt of an accelerator.
        assert_eq!(host.host_file("state", "accelerators.json"), None);
    }
}

#[test]
fn software_that_dies_is_tried_once_more() {
    for (crashes, expected) in [(1, Ok("tcg: QEMU ended (Assertion failed)")), (2, Err(code::PROCESS))] {
        let left = std::cell::Cell::new(crashes);
        let host = world_where(move |_| match left.get() {
            0 => Guest::Ready(2),
            more => {
                left.set(more - 1);
                Guest::Crashes
            }
        });
        host.put_on_host("host", "facts.json", b"{}");
        let booted = boot(&host);
        let tried = booted.as_ref().map(|it| setting(&it.details, "tried").unwrap()).map_err(|it| it.code.as_str());
        assert_eq!(tried, expected);
        assert_eq!(accelerators(&host), ["tcg", "tcg"]);
    }
}

#[test]
fn another_instances_word_is_not_taken() {
    let host = world_where(|_| Guest::Other(7));
    let started = host.provider().clock().monotonic();
    let instance = boot(&host).unwrap();
    assert!(host.provider().clock().monotonic() - started >= Duration::from_secs(7));
    let record = Store::new(host.provider(), "o").read(&instance.id).unwrap();
    assert_eq!(record.host_key.as_deref(), Some("ssh-ed25519 AAAAkey+/="));
}

#[test]
fn whoever_boots_says_so() {
    let host = world_where(|_| Guest::Ready(60));
    host.put_on_host("host", "facts.json", br#"{"os":"linux"}"#);
    let instance = boot(&host).unwrap();
    let written =
        |it: &pcoder_sdk::testing::Call| it.operation == "files.write-atomic" && it.subject.ends_with("instance.json");
    assert!(host.calls().iter().filter(|it| written(it)).count() > 10);
    assert_eq!(setting(&instance.details, "accelerator"), Some("tcg"));
}

#[test]
fn what_is_missing_is_said_before_anything_is_made() {
    let host = world();
    let mut options = boot_options();
    options.image = Some("none".to_owned());
    let error = life::boot(host.provider(), options).unwrap_err();
    assert_eq!(error.code, code::NOT_FOUND);
    assert!(error.hint.unwrap().contains("pcoder runtime bootstrap"));
    let absent = || Error::new(code::NOT_FOUND, "service.start", "no such program");
    host.fail("service.start", absent());
    let error = boot(&host).unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        (code::NOT_FOUND, "`qemu-system-x86_64` is not on this machine")
    );
    assert_eq!(left(&host), (0, 0, 0));
    host.fail("secrets.get", Error::new(code::DENIED, "secrets.get", "no grant"));
    assert_eq!(boot(&host).map_err(|it| it.code), Err(code::DENIED.to_owned()));
    assert_eq!(left(&host), (0, 0, 0));
}

#[test]
fn a_boot_that_is_killed_anywhere_can_be_ended() {
    let mut points = 0;
    loop {
        let host = world();
        host.die_after(points);
        let booted = boot(&host);
        host.revive();
        if booted.is_ok() {
            break;
        }
        let there = life::list(host.provider()).unwrap();
        assert!(there.len() <= 1);
        for instance in &there {
            assert!(["booting", "ready", "error"].contains(&instance.status.as_str()));
            life::terminate(host.provider(), &instance.id).unwrap();
            life::terminate(host.provider(), &instance.id).unwrap();
        }
        assert_eq!(left(&host), (0, 0, 0), "killed after {points} calls");
        points += 1;
    }
    assert!(points > 20, "{points}");
}

#[test]
fn only_a_line_of_this_form_says_that_a_guest_is_ready() {
    assert_eq!(ready("ready ssh-ed25519 AAAA+/= vm-1\r\n", "vm-1"), Some("ssh-ed25519 AAAA+/=".to_owned()));
    for wrong in [
        "",
        "ready",
        "ready ssh-ed25519 AAAA vm-2",
        "ready ssh-ed25519 A,A vm-1",
        "ready ssh-ed25519 AAAA vm-1 x",
        "unready ssh-ed25519 AAAA vm-1",
        "ready ssh-rsa AAAA vm-1",
    ] {
        assert_eq!(ready(wrong, "vm-1"), None, "{wrong}");
    }
    assert_eq!(ready(&format!("ready ssh-ed25519 {} vm-1", "A".repeat(201)), "vm-1"), None);
}
