//! From its start to its end.

use std::process::Command;
use std::time::Duration;

use pcoder_service::{Error, Exit, Spec, State};

use crate::house::{House, LONG, PROGRAM, lives, spec, until};

#[tokio::test]
async fn a_service_runs_until_it_is_stopped_and_then_nothing_of_it_is_left() {
    let house = House::new();
    let status = house.start("a", &["echo"]).await.unwrap();
    assert_eq!((status.name.as_str(), status.about.as_deref(), status.state), ("a", Some("a test"), State::Running));
    let pid = status.pid.unwrap();
    assert!(lives(pid));
    assert_eq!(house.services.list().unwrap(), [house.services.status("a").unwrap().unwrap()]);
    assert!(matches!(house.services.remove("a"), Err(Error::Running { .. })));

    assert_eq!(house.services.stop("a", LONG).await.unwrap(), Some(Exit::Signaled(15)));
    assert!(!lives(pid));
    let ended = house.services.status("a").unwrap().unwrap();
    assert_eq!((ended.state, ended.pid), (State::Ended(Exit::Signaled(15)), None));
    assert!(ended.ended_ms >= ended.started_ms);
    // Again is no error.
    assert_eq!(house.services.stop("a", LONG).await.unwrap(), Some(Exit::Signaled(15)));
    house.services.remove("a").unwrap();
    assert_eq!(house.services.status("a").unwrap(), None);
    assert_eq!(std::fs::read_dir(house.files()).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(house.sockets.path()).unwrap().count(), 0);
    assert_eq!(house.services.stop("a", LONG).await.unwrap(), None);
}

#[tokio::test]
async fn it_outlives_the_process_that_started_it_and_its_group() {
    let house = House::new();
    let mut starter = Command::new(PROGRAM);
    starter.arg("start").arg(house.files()).arg(house.sockets.path()).args(["a", "echo"]);
    assert!(starter.status().unwrap().success());
    assert_eq!(house.state("a"), Some(State::Running));
    let mut talk = house.talk("a").await;
    talk.say("still there").await;
    assert_eq!(talk.hear().await, "still there");
    // A session of its own: what ends a terminal or a group does not end it.
    let session = |pid| rustix::process::getsid(rustix::process::Pid::from_raw(pid)).unwrap();
    assert_ne!(session(house.supervisor("a")), rustix::process::getsid(None).unwrap());
    house.services.stop("a", LONG).await.unwrap();
}

#[tokio::test]
async fn a_program_gets_what_its_spec_says_and_nothing_of_its_starters() {
    let house = House::new();
    let cwd = house.folder.path().canonicalize().unwrap();
    let spec = Spec { cwd: cwd.clone(), env: vec![("COLOUR".into(), "blue".into())], ..spec(&["tell"]) };
    house.services.start("a", "a test", spec, |command| command.env("SECRET", "of the starter").spawn()).await.unwrap();
    let mut talk = house.talk("a").await;
    assert_eq!(talk.hear().await, format!("COLOUR=blue in {}", cwd.display()));
    until(|| house.services.log_tail("a", 1000).unwrap() == b"this is for the log\n").await;
    assert_eq!(house.services.log_tail("a", 8).unwrap(), b"the log\n");
    house.services.stop("a", LONG).await.unwrap();
}

#[tokio::test]
async fn of_two_that_start_it_at_once_one_does() {
    let house = House::new();
    let (one, other) = tokio::join!(house.start("a", &["echo"]), house.start("a", &["echo"]));
    let refused = [&one, &other].into_iter().filter(|it| matches!(it, Err(Error::Running { .. }))).count();
    assert_eq!((refused, one.is_ok() || other.is_ok()), (1, true), "{one:?} {other:?}");
    assert!(matches!(house.start("a", &["echo"]).await, Err(Error::Running { .. })));
    house.services.stop("a", LONG).await.unwrap();
    // Another one of the same name, at once.
    house.start("a", &["echo"]).await.unwrap();
    assert_eq!(house.state("a"), Some(State::Running));
    house.services.stop("a", LONG).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_started_is_said_and_leaves_nothing_running() {
    let house = House::new();
    let file = house.folder.path().join("a text");
    std::fs::write(&file, "text").unwrap();
    let cases = [
        (Spec { program: "/nowhere/at/all".into(), ..spec(&[]) }, "No such file"),
        (Spec { program: file, ..spec(&[]) }, "may not be executed"),
        (Spec { program: house.folder.path().into(), ..spec(&[]) }, "is no program"),
        (Spec { cwd: "/proc/self/cwd".into(), ..spec(&["echo"]) }, "`/proc/self/cwd` is behind a link"),
        (Spec { cwd: "/nowhere".into(), ..spec(&["echo"]) }, "working folder `/nowhere` is not there"),
    ];
    for (spec, says) in cases {
        let error = house.services.start("a", "a test", spec, |command| command.spawn()).await.unwrap_err();
        assert!(matches!(error, Error::NotStarted { .. }) && error.to_string().contains(says), "{error}");
        assert_eq!(house.services.status("a").unwrap(), None);
    }
    assert_eq!(house.services.list().unwrap(), []);
    assert!(matches!(house.start("../a", &["echo"]).await, Err(Error::Name { .. })));
    house.services.remove("a").unwrap();
    assert_eq!(std::fs::read_dir(house.files()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_only_the_kernel_refuses_is_in_the_log() {
    use std::os::unix::fs::PermissionsExt;
    let house = House::new();
    let file = house.folder.path().join("no program");
    std::fs::write(&file, [0x7f, b'E', b'L', b'F', 9, 9]).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    house.services.start("a", "a test", Spec { program: file, ..spec(&[]) }, |command| command.spawn()).await.unwrap();
    house.until("a", |state| state == Some(State::Ended(Exit::Exited(127)))).await;
    assert_ne!(house.services.log_tail("a", 1000).unwrap(), b"");
}

/// Whenever its starter is killed, what is said of the service is true, and it can be ended.
#[tokio::test]
async fn its_starter_may_be_killed_at_any_moment() {
    let house = House::new();
    let mut running = 0;
    for round in 0..40_u64 {
        let mut starter = Command::new(PROGRAM);
        starter.arg("start").arg(house.files()).arg(house.sockets.path()).args(["a", "echo"]);
        let mut starter = starter.spawn().unwrap();
        // Spread over the whole start, in no order: the moment of death, not a wait for something.
        std::thread::sleep(Duration::from_micros((round * 3700) % 25_000));
        starter.kill().unwrap();
        starter.wait().unwrap();
        // A supervisor that was being told, or was telling, is through in a moment.
        house.until("a", |state| state != Some(State::Starting)).await;
        if house.state("a") == Some(State::Running) {
            running += 1;
            let mut talk = house.talk("a").await;
            talk.say("hello").await;
            assert_eq!(talk.hear().await, "hello");
        }
        // One that only comes now is ended as well.
        while house.services.stop("a", LONG).await.is_err() || house.services.remove("a").is_err() {}
    }
    assert!(running < 40, "none was killed in time");
}

#[tokio::test]
async fn a_record_that_a_newer_one_wrote_is_left_alone() {
    let house = House::new();
    let folder = house.files().join("a");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("service.json"), r#"{"format":2}"#).unwrap();
    assert!(matches!(house.services.status("a"), Err(Error::Newer { found: 2, known: 1, .. })));
}
