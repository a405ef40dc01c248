//! Machines of images that pcoder did not make.

use super::Machines;
use crate::support::{start, until, until_at_last};

/// The image is built by `cargo xtask test`, as clouds have them: systemd, cloud-init, OpenSSH, a disk in qcow2.
#[test]
fn a_clouds_image_is_a_machine_like_any_other() {
    let machines = Machines::with_profiles();
    let folder = std::env::var("PCODER_TEST_CLOUD_IMAGE").expect("`cargo xtask test` says where the image is");
    machines.run(&["runtime", "bootstrap", "--image", &folder, "--offline"]).printed();
    let image = "test-server-cloudimg-amd64";
    assert!(machines.run(&["runtime", "images"]).printed().contains(image));
    let project = machines.world.project("p");
    std::fs::write(project.join("a.txt"), "from here\n").expect("a file");
    let args = ["run", "claude", "--mode", "linux-portable", "--image", image, "--profile", "offline", "--keep"];
    let options = ["--option", "idle-stop=15s", "--option", "env.GREETING=hello"];
    let script = "@sh cat a.txt > b.txt; (sudo -n id -un; id -un; echo $GREETING) > who.txt\n@say done";
    let more = ["--project", "p", "--", "--dangerously-skip-permissions", "-p", script];
    let running = start(machines.world.pcoder(&[&args[..], &options, &more].concat()), "");
    // It boots with systemd, and before that a disk with engines is written: each has the time that a whole run has
    // elsewhere.
    until("it boots", || machines.statuses().into_values().next());
    let ready = || machines.statuses().into_iter().find(|(_, status)| status == "ready");
    let (id, _) = until_at_last("it has booted", ready);
    let outcome = running.finish();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "done\n"), "{}", outcome.shown());
    let read = |name: &str| std::fs::read_to_string(project.join(name)).expect("a file");
    let who = "root\npcoder\nhello\n".to_owned();
    assert_eq!((read("b.txt"), read("who.txt")), ("from here\n".to_owned(), who));

    let own = |id: &str| {
        let asks = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub; uname -n; cat projects/p/b.txt";
        machines.run(&["instance", "exec", id, "--shell", asks]).printed().to_owned()
    };
    let before = own(&id);
    // What somebody waits for keeps it, whoever it runs as; then nobody uses it. It comes back as who it was.
    machines.run(&["instance", "exec", &id, "--", "sudo", "sleep", "25"]).printed();
    until("it stops", || (machines.statuses()[&id] == "stopped").then_some(()));
    machines.run(&["instance", "resume", &id]).printed();
    assert_eq!(own(&id), before);
    // It halts by its power button. A copy has the files, and is another one.
    machines.run(&["instance", "stop", &id]).printed();
    let copy = machines.run(&["instance", "fork", &id]).printed().trim().to_owned();
    let of_copy = own(&copy);
    let (mut ours, mut theirs) = (before.lines(), of_copy.lines());
    for _ in 0..3 {
        assert_ne!(ours.next(), theirs.next(), "{before}{of_copy}");
    }
    assert_eq!((ours.next(), theirs.next()), (Some("from here"), Some("from here")));
    machines.terminate_all();
}
