//! `instance …` on a fake of Morph.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use pcoder_fake_morph::{Fault, FaultKind, Match, Options, Times};

use rustix::process::Signal;

use super::{KEY, Morph, SNAPSHOT};
use crate::support::{World, finish, start};

fn morph() -> Morph {
    Morph::new(World::without_engines(), Options::default())
}

#[test]
fn an_instance_from_its_boot_to_its_end() {
    let morph = morph();
    let booted =
        morph.json(&["instance", "boot", "--name", "one", "--ttl", "30m", "--option", "metadata.team=blue", "--json"]);
    let id = booted["instances"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(booted["instances"][0]["status"], "ready");
    assert_eq!(booted["instances"][0]["details"]["ttl-action"], "stop");
    let seen = morph.fake.requests();
    let boot = seen.iter().find(|it| it.method == "POST").expect("a boot");
    let body: serde_json::Value = serde_json::from_slice(&boot.body).expect("JSON");
    assert_eq!((boot.query.as_str(), body["ttl_seconds"].as_u64()), (&*format!("snapshot_id={SNAPSHOT}"), Some(1800)));
    assert_eq!((&body["ttl_action"], &body["metadata"]["team"]), (&"pause".into(), &"blue".into()));

    assert!(morph.run(&["instance", "list"]).printed().contains(&id));
    let outcome = finish(
        morph.pcoder(&[
            "instance",
            "exec",
            &id,
            "--env",
            "A=it's",
            "--",
            "sh",
            "-c",
            "cat; echo \"$A\"; echo e >&2; exit 7",
        ]),
        "in\n",
    );
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (Some(7), "in\nit's\n", "e\n"));
    let kept = morph.run(&["instance", "exec", &id, "--json", "--shell", "echo $((6 * 7)); kill -TERM $$"]);
    assert_eq!((kept.code, kept.json()["stdout"].as_str()), (Some(143), Some("42\n")));

    let file = morph.world.path("project").join("a b");
    std::fs::write(&file, b"\0\xff\r\n").expect("a file");
    morph.run(&["instance", "cp", "./a b", &format!("{id}:~/there/"), "--mode", "600"]).printed();
    morph.run(&["instance", "cp", &format!("{id}:~/there/a b"), "back"]).printed();
    assert_eq!(std::fs::read(morph.world.path("project").join("back")).expect("a file"), b"\0\xff\r\n");

    morph.run(&["instance", "exec", &id, "--shell", "head -c 17000000 /dev/zero >large"]).printed();
    let refused = morph.run(&["instance", "cp", &format!("{id}:large"), "large"]);
    let instead = "`pcoder instance exec INSTANCE -- cat PATH`, with a file as its output";
    assert!(refused.stderr.contains(instead), "{}", refused.shown());

    let copy = morph.run(&["instance", "fork", &id]).printed().trim().to_owned();
    assert_ne!(copy, id);
    assert_eq!(morph.run(&["instance", "exec", &copy, "--", "stat", "-c", "%a", "there/a b"]).printed(), "600\n");
    let url = morph.run(&["instance", "ports", &id, "8123"]).printed().trim().to_owned();
    assert!(url.starts_with("http://"));
    assert!(morph.run(&["instance", "ports", &id]).printed().contains(&url));

    morph.run(&["instance", "stop", &id]).printed();
    assert_eq!(morph.json(&["instance", "get", &id, "--json"])["instance"]["status"], "stopped");
    let refused = morph.run(&["instance", "exec", &id, "--json", "--", "true"]);
    assert_ne!(refused.code, Some(0));
    assert_eq!(morph.json(&["instance", "resume", &id, "--json"])["instance"]["status"], "ready");
    morph.run(&["instance", "terminate", &id, &copy]).printed();
    morph.run(&["instance", "terminate", &id]).printed();
    assert_eq!(morph.run(&["instance", "get", &id]).code, Some(3));
    assert_eq!(morph.json(&["instance", "list", "--json"])["instances"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_hundred_at_once() {
    let morph = morph();
    let booted = morph.json(&["instance", "boot", "--count", "100", "--json"]);
    let ids: std::collections::BTreeSet<_> =
        booted["instances"].as_array().expect("a list").iter().map(|it| it["id"].as_str().expect("an id")).collect();
    assert_eq!(ids.len(), 100);
    assert_eq!(morph.json(&["instance", "list", "--json"])["instances"].as_array().map(Vec::len), Some(100));
}

#[test]
fn output_that_nobody_reads_ends_the_command_without_an_error() {
    let morph = morph();
    let id = morph.boot();
    for name in [id.as_str(), "local"] {
        let provider = if name == "local" { "local" } else { "morph" };
        let exec = morph.pcoder(&["instance", "exec", name, "--provider", provider, "--", "yes"]);
        // The shell's name for the code is that of the first of the two.
        let mut piped = Command::new("bash");
        piped.args(["-c", "\"$@\" | head -n 1; exit \"${PIPESTATUS[0]}\"", "bash"]);
        piped.arg(exec.get_program()).args(exec.get_args());
        piped.env_clear().current_dir(exec.get_current_dir().expect("a folder"));
        piped.envs(exec.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let outcome = finish(piped, "");
        let seen = (outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str());
        assert_eq!(seen, (Some(141), "y\n", ""), "{provider}");
    }
}

fn fault(operation: &str, what: FaultKind, times: Times) -> Fault {
    Fault { on: Match { operation: Some(operation.to_owned()), ..Match::default() }, what, times }
}

#[test]
fn what_the_service_answers_is_an_error_with_a_code_and_a_next_step() {
    let morph = morph();
    let id = morph.boot();
    for (status, exit, word) in [
        (400, 2, "refused the request"),
        (401, 6, "credentials"),
        (402, 7, "has to pay"),
        (403, 7, "may not"),
        (404, 3, "no such"),
        (409, 1, "state"),
        (412, 1, "state"),
        (422, 2, "refused the request"),
        (500, 4, "failed"),
        (502, 4, "not available"),
        (503, 4, "not available"),
    ] {
        morph.fake.faults().push(fault("instance.exec", FaultKind::status(status), Times::Always)).expect("a fault");
        morph
            .fake
            .faults()
            .push(fault("instance.exec-sse", FaultKind::status(status), Times::Always))
            .expect("a fault");
        let outcome = morph.run(&["instance", "cp", &format!("{id}:/etc/hostname"), "x"]);
        assert_eq!(outcome.code, Some(exit), "{status}: {outcome:#?}");
        assert!(outcome.stderr.contains(word) && outcome.stderr.contains(&status.to_string()), "{outcome:#?}");
        morph.fake.faults().clear();
    }
    // Asked again, politely.
    let busy =
        FaultKind::Status { status: 429, retry_after: Some(1), retry_after_date: None, body: None, after: false };
    morph.fake.faults().push(fault("instance.get", busy.clone(), Times::N(2))).expect("a fault");
    morph.run(&["instance", "get", &id]).printed();
    morph.fake.faults().push(fault("instance.exec", busy, Times::Once)).expect("a fault");
    let outcome = morph.run(&["instance", "cp", &format!("{id}:/etc/hostname"), "x", "--json"]);
    assert_eq!(outcome.code, Some(4));
    let error: serde_json::Value = serde_json::from_str(&outcome.stderr).expect("JSON");
    assert_eq!((&error["error"]["code"], &error["error"]["retry_after_ms"]), (&"rate-limited".into(), &1000.into()));
}

#[test]
fn a_boot_that_fails_leaves_nothing_running() {
    let morph = morph();
    // The answer is lost, and the instance is found again: booting is not asked for twice.
    let lost = Fault {
        on: Match { operation: Some("instance.start".to_owned()), ..Match::default() },
        what: FaultKind::DropAfter,
        times: Times::Once,
    };
    morph.fake.faults().push(lost).expect("a fault");
    let id = morph.boot();
    let boots = morph.fake.requests().iter().filter(|it| it.method == "POST" && it.path == "/api/instance").count();
    assert_eq!(boots, 1);
    morph.run(&["instance", "terminate", &id]).printed();
    // It never becomes ready.
    let odd = FaultKind::UnknownStatus { status: "dreaming".into() };
    morph.fake.faults().push(fault("instance.get", odd, Times::Always)).expect("a fault");
    let outcome = morph.run(&["instance", "boot"]);
    assert_eq!(outcome.code, Some(4), "{outcome:#?}");
    morph.fake.faults().clear();
    assert_eq!(morph.json(&["instance", "list", "--json"])["instances"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_boot_that_is_interrupted_leaves_nothing_running() {
    let morph = Morph::new(World::without_engines(), Options { boot_polls: 4, ..Options::default() });
    for args in [&["instance", "boot"][..], &["instance", "boot", "--count", "3"]] {
        let before = morph.requests();
        let booting = start(morph.pcoder(args), "");
        morph.until_booting(before);
        booting.signal(Signal::INT);
        let outcome = booting.finish();
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(130), ""), "{outcome:#?}");
        assert_eq!(morph.count(), 0);
    }
    for (operation, what, said) in [
        ("instance.get", FaultKind::status(403), "it was stopped, and failed meanwhile: "),
        ("instance.stop", FaultKind::status(403), "it was stopped, and the new instance could not be ended: "),
    ] {
        let before = morph.requests();
        morph.fake.faults().push(fault(operation, what, Times::Always)).expect("a fault");
        let booting = start(morph.pcoder(&["instance", "boot"]), "");
        morph.until_booting(before);
        booting.signal(Signal::INT);
        let outcome = booting.finish();
        morph.fake.faults().clear();
        assert_eq!(outcome.code, Some(130), "{outcome:#?}");
        assert!(outcome.stderr.contains(said), "{outcome:#?}");
        for instance in morph.json(&["instance", "list", "--json"])["instances"].as_array().expect("a list") {
            let id = instance["id"].as_str().expect("an id");
            assert!(outcome.stderr.contains(&format!("`pcoder instance terminate {id} ")), "{outcome:#?}");
            morph.run(&["instance", "terminate", id]).printed();
        }
    }
}

#[test]
fn answers_that_cannot_be_are_errors_and_nothing_worse() {
    let morph = morph();
    let id = morph.boot();
    for what in [
        FaultKind::Truncated,
        FaultKind::NotJson,
        FaultKind::OtherInstance,
        FaultKind::Missing { fields: vec!["status".into()] },
        FaultKind::Null { fields: vec!["id".into()] },
    ] {
        morph.fake.faults().push(fault("instance.get", what.clone(), Times::Always)).expect("a fault");
        let outcome = morph.run(&["instance", "get", &id]);
        assert_eq!(outcome.code, Some(4), "{what:?}: {outcome:#?}");
        assert!(outcome.stderr.contains("error:") && outcome.stderr.contains("hint:"), "{outcome:#?}");
        morph.fake.faults().clear();
    }
    let slow = Fault {
        on: Match { operation: Some("instance.get".to_owned()), ..Match::default() },
        what: FaultKind::slow(Duration::from_millis(300)),
        times: Times::Once,
    };
    morph.fake.faults().push(slow).expect("a fault");
    morph.run(&["instance", "get", &id]).printed();
}

#[test]
fn a_service_leads_its_plugin_nowhere_else() {
    let morph = morph();
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a port");
    elsewhere.set_nonblocking(true).expect("a listener");
    let away = format!("http://{}/api/instance", elsewhere.local_addr().expect("an address"));
    let service = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = service.local_addr().expect("an address");
    // It ends with the test's process: a connection that nobody makes any more is waited for.
    std::thread::spawn(move || {
        for mut client in service.incoming().map_while(Result::ok) {
            // A request without a body is whole when it has an empty line.
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match client.read(&mut byte) {
                    Ok(1) => request.push(byte[0]),
                    _ => break,
                }
            }
            let answer = format!("HTTP/1.1 307 There\r\nLocation: {away}\r\nContent-Length: 0\r\n\r\n");
            drop(client.write_all(answer.as_bytes()));
        }
    });
    morph.set("plugins.provider-morph.endpoint", &format!("http://{address}/api"));
    let outcome = morph.run(&["instance", "list"]);
    assert_ne!(outcome.code, Some(0), "{outcome:#?}");
    let reached = elsewhere.accept().map(drop).map_err(|error| error.kind());
    assert_eq!(reached, Err(ErrorKind::WouldBlock), "somebody came");
}

#[test]
fn the_key_is_nowhere_but_in_requests_to_the_service() {
    let morph = morph();
    let id = morph.boot();
    morph.fake.faults().push(fault("instance.get", FaultKind::status(500), Times::N(1))).expect("a fault");
    let outcomes = [
        morph.run(&["-vvv", "instance", "get", &id]),
        morph.run(&["-vvv", "instance", "exec", &id, "--", "env"]),
        finish(morph.pcoder(&["-vvv", "instance", "exec", &id, "--", "cat"]), "x"),
        morph.run(&["-vvv", "instance", "get", "morphvm_nothing"]),
        morph.run(&["audit", "show"]),
    ];
    for outcome in &outcomes {
        assert!(!outcome.stdout.contains(KEY) && !outcome.stderr.contains(KEY), "{outcome:#?}");
    }
    let mut folders = vec![morph.world.path("pcoder")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let content = std::fs::read(&path).expect("a file");
                assert!(!content.windows(KEY.len()).any(|it| it == KEY.as_bytes()), "{}", path.display());
            }
        }
    }
    // A key with a line end is no header's value, and nothing of it is told.
    let mut command = morph.pcoder(&["instance", "list"]);
    command.env("MORPH_API_KEY", format!("{KEY}\n"));
    let outcome = finish(command, "");
    assert_eq!(outcome.code, Some(2), "{outcome:#?}");
    assert!(!outcome.stderr.contains(KEY), "{outcome:#?}");
}
