//! Who talks with a service, and when.

use std::time::Duration;

use pcoder_service::{Error, Exit, State};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::house::{Conversation, House, LONG, until};

#[tokio::test]
async fn one_talks_at_a_time_and_the_next_one_when_that_one_is_through() {
    let house = House::new();
    house.start("a", &["echo"]).await.unwrap();
    let mut first = house.talk("a").await;
    first.say("one").await;
    assert_eq!(first.hear().await, "one");
    let busy = house.services.talk("a", Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(busy, Error::Busy { .. }), "{busy}");
    // The one that gave up is no longer in the way.
    let (mut second, ()) = tokio::join!(house.talk("a"), async {
        first.say("two").await;
        assert_eq!(first.hear().await, "two");
        drop(first);
    });
    second.say("three").await;
    assert_eq!(second.hear().await, "three");
    house.services.stop("a", LONG).await.unwrap();
    assert_eq!(second.hear().await, "", "the end");
    assert!(matches!(house.services.talk("a", LONG).await, Err(Error::NotRunning { .. })));
    assert!(matches!(house.services.talk("b", LONG).await, Err(Error::NotRunning { .. })));
}

#[tokio::test]
async fn output_waits_for_somebody_who_takes_it() {
    let house = House::new();
    house.start("a", &["count"]).await.unwrap();
    // Nobody has talked yet, and the first line is there.
    let mut talk = house.talk("a").await;
    for number in 0..200_000 {
        assert_eq!(talk.hear().await, number.to_string());
    }
    drop(talk);
    // What the one before had not taken may be told again, and nothing is left out.
    let mut talk = house.talk("a").await;
    let mut whole = talk.hear().await;
    if whole.parse::<u64>().is_err() || whole.is_empty() {
        whole = talk.hear().await;
    }
    let first: u64 = talk.hear().await.parse().unwrap();
    assert_eq!(talk.hear().await, (first + 1).to_string());
    drop(whole);
    assert_eq!(house.state("a"), Some(State::Running));
    house.services.stop("a", LONG).await.unwrap();
}

#[tokio::test]
async fn much_goes_both_ways_at_once() {
    let house = House::new();
    house.start("a", &["echo"]).await.unwrap();
    let talk = house.services.talk("a", LONG).await.unwrap();
    let (mut input, mut output) = (talk.input, talk.output);
    let line = format!("{}\n", "x".repeat(1000));
    let said = async {
        for _ in 0..5_000 {
            input.write_all(line.as_bytes()).await.unwrap();
        }
        input.flush().await.unwrap();
    };
    let heard = async {
        let mut all = vec![0; 5_000 * line.len()];
        tokio::time::timeout(LONG, output.read_exact(&mut all)).await.unwrap().unwrap();
        all
    };
    let ((), all) = tokio::join!(said, heard);
    assert!(all.chunks(line.len()).all(|it| it == line.as_bytes()));
    house.services.stop("a", LONG).await.unwrap();
}

#[tokio::test]
async fn who_cannot_read_the_record_is_not_listened_to() {
    let house = House::new();
    house.start("a", &["echo"]).await.unwrap();
    let socket = std::fs::read_dir(house.sockets.path()).unwrap().next().unwrap().unwrap().path();
    for line in [
        r#"{"token":"guessed","want":"talk"}"#,
        r#"{"token":"","want":{"stop":{"grace":{"secs":0,"nanos":0}}}}"#,
        "GET / HTTP/1.1",
        "",
    ] {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        stream.write_all(format!("{line}\nexit 9\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A connection that is closed on somebody who is still writing is reset.
        drop(tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await.unwrap());
        assert_eq!(answer, b"", "{line}");
    }
    let mut talk = house.talk("a").await;
    talk.say("nobody was listened to").await;
    assert_eq!(talk.hear().await, "nobody was listened to");
    house.services.stop("a", LONG).await.unwrap();
}

#[tokio::test]
async fn stopping_does_not_wait_for_who_talks() {
    let house = House::new();
    house.start("a", &["echo"]).await.unwrap();
    let mut talk = Conversation::new(house.services.talk("a", LONG).await.unwrap());
    house.services.stop("a", LONG).await.unwrap();
    assert_eq!(talk.hear().await, "");
}

#[tokio::test]
async fn what_one_left_half_said_is_nothing_that_another_one_says() {
    let house = House::new();
    house.start("a", &["echo"]).await.unwrap();
    let mut talk = house.services.talk("a", LONG).await.unwrap();
    talk.input.write_all(b"whole\nexit").await.unwrap();
    talk.input.flush().await.unwrap();
    drop(talk);
    let mut talk = house.talk("a").await;
    talk.say(" 3").await;
    // The first one may have been on its way to the one who went away.
    let heard = talk.hear().await;
    assert!(heard == " 3" || heard == "whole" && talk.hear().await == " 3", "{heard}");
    assert_eq!(house.state("a"), Some(State::Running));
    house.services.stop("a", LONG).await.unwrap();
}

#[tokio::test]
async fn what_was_said_is_heard_although_nobody_stays_for_the_answer() {
    for _ in 0..20 {
        let house = House::new();
        house.start("a", &["echo"]).await.unwrap();
        let mut talk = house.services.talk("a", LONG).await.unwrap();
        talk.input.write_all("hello\n".repeat(100).as_bytes()).await.unwrap();
        talk.input.write_all(b"exit 7\n").await.unwrap();
        talk.input.flush().await.unwrap();
        drop(talk);
        house.until("a", |state| state == Some(State::Ended(Exit::Exited(7)))).await;
    }
}

#[tokio::test]
async fn a_program_that_does_not_listen_keeps_nobody_waiting_for_ever() {
    let house = House::new();
    let spec = pcoder_service::Spec {
        program: "/bin/sleep".into(),
        args: vec!["1000".into()],
        cwd: "/".into(),
        env: Vec::new(),
    };
    house.services.start("a", "a test", spec, |command| command.spawn()).await.unwrap();
    let mut talk = house.services.talk("a", LONG).await.unwrap();
    // More than all that is between us holds.
    let much = format!("{}\n", "x".repeat(1000)).repeat(1000);
    drop(tokio::time::timeout(Duration::from_secs(1), talk.input.write_all(much.as_bytes())).await);
    drop(talk);
    house.services.talk("a", LONG).await.unwrap();
    house.services.stop("a", LONG).await.unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn those_who_gave_up_waiting_are_forgotten() {
    let house = House::new();
    house.start("a", &["echo"]).await.unwrap();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", house.supervisor("a"))).unwrap().count();
    let talk = house.talk("a").await;
    let before = open();
    let waiting = (0..50).map(|_| async {
        let waited = tokio::time::timeout(Duration::from_millis(50), house.services.talk("a", LONG)).await;
        assert!(waited.is_err());
    });
    for one in waiting {
        one.await;
    }
    until(|| open() <= before).await;
    drop(talk);
    house.services.stop("a", LONG).await.unwrap();
}
