//! How services end that are not simply stopped.

use std::time::{Duration, Instant};

use pcoder_service::{Exit, State};

use crate::house::{House, LONG, kill, lives, until};

#[tokio::test]
async fn a_program_that_ends_by_itself_is_said_to_have_ended_and_its_last_words_are_heard() {
    let house = House::new();
    house.start("a", &["echo"]).await.unwrap();
    let mut talk = house.talk("a").await;
    talk.say("exit 3").await;
    assert_eq!(talk.hear().await, "good-bye");
    assert_eq!(talk.hear().await, "", "the end");
    house.until("a", |state| state == Some(State::Ended(Exit::Exited(3)))).await;
    assert_eq!(house.services.stop("a", LONG).await.unwrap(), Some(Exit::Exited(3)));
}

#[tokio::test]
async fn a_program_that_does_not_listen_is_made_to_end() {
    let house = House::new();
    let spec = pcoder_service::Spec {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), "trap '' TERM; echo ready; while :; do sleep 1000; done".into()],
        cwd: "/".into(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
    };
    house.services.start("a", "a test", spec, |command| command.spawn()).await.unwrap();
    assert_eq!(house.talk("a").await.hear().await, "ready");
    let began = Instant::now();
    assert_eq!(house.services.stop("a", Duration::from_millis(300)).await.unwrap(), Some(Exit::Signaled(9)));
    assert!(began.elapsed() >= Duration::from_millis(300), "it had its time");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_program_does_not_outlive_its_supervisor() {
    let house = House::new();
    let pid = house.start("a", &["count"]).await.unwrap().pid.unwrap();
    kill(house.supervisor("a"));
    until(|| !lives(pid)).await;
    house.until("a", |state| state == Some(State::Lost)).await;
    assert_eq!(house.services.stop("a", LONG).await.unwrap(), None);
    // What it left does not keep another one from starting.
    house.start("a", &["echo"]).await.unwrap();
    assert_eq!(house.state("a"), Some(State::Running));
    house.services.stop("a", LONG).await.unwrap();
}

#[tokio::test]
async fn one_whose_socket_was_removed_can_still_be_ended() {
    let house = House::new();
    let pid = house.start("a", &["echo"]).await.unwrap().pid.unwrap();
    for socket in std::fs::read_dir(house.sockets.path()).unwrap() {
        std::fs::remove_file(socket.unwrap().path()).unwrap();
    }
    house.services.stop("a", LONG).await.unwrap();
    assert!(!lives(pid));
    assert_eq!(house.state("a"), Some(State::Ended(Exit::Signaled(15))));
}

#[tokio::test]
async fn one_whose_socket_was_removed_makes_another_one() {
    let house = House::new();
    house.start("a", &["echo"]).await.unwrap();
    for socket in std::fs::read_dir(house.sockets.path()).unwrap() {
        std::fs::remove_file(socket.unwrap().path()).unwrap();
    }
    std::fs::remove_dir(house.sockets.path()).unwrap();
    let mut talk = house.talk("a").await;
    talk.say("here").await;
    assert_eq!(talk.hear().await, "here");
    drop(talk);
    house.services.stop("a", LONG).await.unwrap();
    assert_eq!(std::fs::read_dir(house.sockets.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_system_may_end_a_supervisor_and_it_ends_its_program() {
    let house = House::new();
    let pid = house.start("a", &["echo"]).await.unwrap().pid.unwrap();
    let supervisor = rustix::process::Pid::from_raw(house.supervisor("a")).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::TERM).unwrap();
    house.until("a", |state| state == Some(State::Ended(Exit::Signaled(15)))).await;
    assert!(!lives(pid));
}

#[tokio::test]
async fn what_a_program_started_in_its_group_ends_with_it() {
    let house = House::new();
    let spec = pcoder_service::Spec {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), "sleep 1000 & echo $! >child; exit 0".into()],
        cwd: house.folder.path().into(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
    };
    house.services.start("a", "a test", spec, |command| command.spawn()).await.unwrap();
    house.until("a", |state| state == Some(State::Ended(Exit::Exited(0)))).await;
    let child: u32 = std::fs::read_to_string(house.folder.path().join("child")).unwrap().trim().parse().unwrap();
    until(|| !lives(child)).await;
}
