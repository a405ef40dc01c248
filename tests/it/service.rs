//! Programs that outlive the call that started them, and what a plugin may not do with them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pcoder_runtime::call::CallContext;
use pcoder_service::{Services, State};
use pcoder_tests::{Grant, House};

const REQUEST: &str = r#"
[[files]]
root = "state"
access = "read-write"

[[service]]
program = "cat"
options = ["-u", "-n <path>,end"]
messages = ['{"execute":"stop"}', '{"execute":"resize","arguments":{"columns":"<number>"}}']

[[service]]
program = "sleep"
always = ["0"]
options = ["100"]

[[exec]]
program = "true"
args = [""]
"#;

/// A plugin's folder with its services.
struct Place {
    folder: tempfile::TempDir,
    services: Arc<Services>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("state")).expect("a folder");
        let services = Arc::new(crate::services(folder.path()));
        Self { folder, services }
    }

    fn state(&self) -> std::path::PathBuf {
        self.folder.path().join("state")
    }

    fn context(&self) -> CallContext {
        CallContext {
            roots: [("state".to_owned(), self.state())].into(),
            services: Some(Arc::clone(&self.services)),
            path: std::env::var_os("PATH"),
            ..CallContext::default()
        }
    }

    async fn end(&self) {
        for service in self.services.list().expect("a list") {
            self.services.stop(&service.name, Duration::ZERO).await.expect("stopped");
        }
    }
}

fn house() -> House {
    House::provider(REQUEST, Grant::All)
}

#[tokio::test]
async fn a_service_outlives_its_call_and_another_call_talks_with_it() {
    let (house, place) = (house(), Place::new());
    let call = async |step: &[&str]| house.step(place.context(), step).await;
    assert_eq!(call(&["service.start", "vm-1", ".", "cat", "-u"]).await, "ok running -");
    assert_eq!(call(&["service.status", "vm-1"]).await, "ok running -");
    assert_eq!(call(&["service.list"]).await, "ok vm-1");
    // Two talks, one after the other, in two calls: what was sent comes back.
    for id in ["1", "2"] {
        let resize = format!(r#"{{"id":{id},"execute":"resize","arguments":{{"columns":80}}}}"#);
        let answer = call(&["service.talk", "vm-1", r#"{"execute":"stop"}"#, &resize]).await;
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        let back: Vec<_> = answer.trim_start_matches("ok ").split(' ').map(read).collect();
        assert_eq!(back, [r#"{"execute":"stop"}"#, &resize].map(read));
    }
    assert_eq!(
        house.step(place.context(), &["service.start", "vm-1", ".", "cat", "-u"]).await.split(' ').next(),
        Some("conflict")
    );
    assert_eq!(call(&["service.stop", "vm-1"]).await, "ok signal 15");
    assert_eq!(call(&["service.status", "vm-1"]).await, "ok ended signal 15");
    assert_eq!(call(&["service.remove", "vm-1"]).await, "ok ");
    assert_eq!(call(&["service.status", "vm-1"]).await, "ok none");
    assert!(call(&["service.talk", "vm-1"]).await.starts_with("not-found "));
}

#[tokio::test]
async fn only_what_was_granted_is_said_to_it() {
    let (house, place) = (house(), Place::new());
    assert_eq!(house.step(place.context(), &["service.start", "a", ".", "cat", "-u"]).await, "ok running -");
    for message in [
        r#"{"execute":"quit"}"#,
        r#"{"execute":"stop","arguments":{"uri":"exec:sh"}}"#,
        r#"{"execute":"resize","arguments":{"columns":"80\"}\n{\"execute\":\"quit"}}"#,
        r#"{"id":{"execute":"quit"},"execute":"stop"}"#,
    ] {
        let answer = house.step(place.context(), &["service.talk", "a", message]).await;
        assert!(answer.starts_with("denied "), "{message}: {answer}");
    }
    for message in ["", "stop", "{\"execute\":\"stop\"}\n{\"execute\":\"quit\"}"] {
        let answer = house.step(place.context(), &["service.talk", "a", message]).await;
        assert!(answer.starts_with("invalid "), "{message}: {answer}");
    }
    // A key that is there twice is read once, and what was read is what is sent.
    let twice = r#"{"execute":"quit","execute":"stop"}"#;
    assert_eq!(house.step(place.context(), &["service.talk", "a", twice]).await, r#"ok {"execute":"stop"}"#);
    // A text is one line, whatever is in it.
    let lines = "{\n  \"execute\": \"stop\"\n}";
    assert_eq!(house.step(place.context(), &["service.talk", "a", lines]).await, r#"ok {"execute":"stop"}"#);
    place.end().await;
    // What may be said to one program may not be said to another: `sleep` has no messages.
    assert_eq!(house.step(place.context(), &["service.start", "b", ".", "sleep", "100"]).await, "ok running -");
    let answer = house.step(place.context(), &["service.talk", "b", r#"{"execute":"stop"}"#]).await;
    assert!(answer.starts_with("denied "), "{answer}");
    place.end().await;
}

#[tokio::test]
async fn only_what_was_granted_is_started() {
    let (house, place) = (house(), Place::new());
    for step in [
        &["service.start", "a", ".", "cat"][..],
        &["service.start", "a", ".", "cat", "-u", "-u", "-n", "file,end"],
        &["service.start", "a", ".", "sleep", "100"],
    ] {
        assert!(house.step(place.context(), step).await.starts_with("ok "), "{step:?}");
        place.end().await;
    }
    for step in [
        &["service.start", "a", ".", "cat", "/etc/passwd"][..],
        &["service.start", "a", ".", "cat", "-n", "/etc/passwd,end"],
        &["service.start", "a", ".", "cat", "-n", "../x,end"],
        &["service.start", "a", ".", "sleep", "1"],
        &["service.start", "a", ".", "true"],
        &["service.start", "a", ".", "sh", "-c", "id"],
        &["service.start", "a", ".", "/tmp/cat", "-u"],
        &["service.start", "a", "..", "cat", "-u"],
        &["service.start", "a", "/etc", "cat", "-u"],
    ] {
        assert!(house.step(place.context(), step).await.starts_with("denied "), "{step:?}");
    }
    std::os::unix::fs::symlink("/etc", place.state().join("link")).expect("a link");
    assert!(house.step(place.context(), &["service.start", "a", "link", "cat", "-u"]).await.starts_with("denied "));
    assert!(house.step(place.context(), &["service.start", "a", "none", "cat", "-u"]).await.starts_with("not-found "));
    assert!(house.step(place.context(), &["service.start", "../a", ".", "cat", "-u"]).await.starts_with("invalid "));
    let none = CallContext { services: None, ..place.context() };
    assert!(house.step(none, &["service.start", "a", ".", "cat", "-u"]).await.starts_with("unsupported "));
}

/// A file of another root is named by the plugin and found by the host; it must be one that the plugin may read.
#[tokio::test]
async fn a_path_below_another_root_is_the_hosts_to_find() {
    let place = Place::new();
    let images = place.folder.path().join("ima,ges");
    std::fs::create_dir(&images).expect("a folder");
    std::fs::write(images.join("disk"), "x").expect("a file");
    std::os::unix::fs::symlink("/etc/passwd", images.join("link")).expect("a link");
    let request = |files: &str| {
        format!(
            "[[files]]\nroot = \"state\"\naccess = \"read-write\"\n{files}\n[[service]]\nprogram = \"tail\"\noptions = \
             [\"-f <images:path>\", '-f {{\"file\":\"<images:path>\",\"size\":\"<number>\"}}', \"-s <line>\"]\n"
        )
    };
    let house = House::provider(&request("[[files]]\nroot = \"images\"\naccess = \"read\""), Grant::All);
    let context = || {
        let mut context = place.context();
        context.roots.insert("images".to_owned(), images.clone());
        context
    };
    let start = async |house: &House, args: &[&str]| {
        let step: Vec<&str> = ["service.start", "a", ".", "tail"].iter().chain(args).copied().collect();
        house.step(context(), &step).await
    };
    // It runs from before it becomes the program, and its line is empty while it does.
    let becomes = async |end: &str| {
        let pid = place.services.status("a").expect("asked").expect("it is there").pid.expect("it runs");
        let begun = Instant::now();
        loop {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).expect("a command line");
            let line = String::from_utf8(line).expect("UTF-8");
            if line.ends_with(end) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{line}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let disk = images.canonicalize().expect("it is there").join("disk").display().to_string();
    assert_eq!(start(&house, &["-f", "disk"]).await, "ok running -");
    becomes(&format!("tail\0-f\0{disk}\0")).await;
    place.end().await;
    // What is JSON stays JSON, whatever is in the path.
    assert!(start(&house, &["-f", "{\"size\": 7, \"file\": \"disk\"}"]).await.starts_with("ok "));
    place.end().await;
    for (args, code) in [
        (["-f", "none"], "not-found "),
        (["-f", "link"], "denied "),
        (["-f", "../state"], "denied "),
        (["-f", disk.as_str()], "denied "),
        (["-f", "{\"size\":7,\"file\":\"../x\"}"], "denied "),
        (["-f", "{\"size\":7,\"file\":\"disk\",\"file.backing\":\"/etc/passwd\"}"], "denied "),
        (["-s", "a\nb"], "denied "),
        (["-s", "a\"b"], "denied "),
    ] {
        let answer = start(&house, &args).await;
        assert!(answer.starts_with(code), "{args:?}: {answer}");
    }
    let blind = House::provider(&request(""), Grant::All);
    assert!(start(&blind, &["-f", "disk"]).await.starts_with("denied "));
}

/// A plugin that could write its program could run any.
#[tokio::test]
async fn a_program_in_a_folder_that_the_plugin_writes_is_not_started() {
    let place = Place::new();
    let own = place.state().join("own");
    std::fs::copy("/bin/true", &own).expect("copied");
    let request = format!(
        "[[files]]\nroot = \"state\"\naccess = \"read-write\"\n[[service]]\nprogram = \"{}\"\noptions = []\n",
        own.display()
    );
    let house = House::provider(&request, Grant::All);
    let answer = house.step(place.context(), &["service.start", "a", ".", own.to_str().expect("UTF-8")]).await;
    assert!(answer.starts_with("denied ") && answer.contains("may write the folder"), "{answer}");
}

/// Whatever ends the processes of calls leaves services alone.
#[tokio::test]
async fn the_end_of_a_call_ends_what_it_ran_and_not_what_it_keeps() {
    let (house, place) = (house(), Place::new());
    let steps: &[&[&str]] = &[&["service.start", "a", ".", "sleep", "100"], &["process.capture", "true"]];
    for answer in house.script(place.context(), steps).await.expect("the call") {
        assert!(answer.starts_with("ok "), "{answer}");
    }
    drop(house);
    let status = place.services.status("a").expect("asked").expect("it is there");
    assert_eq!(status.state, State::Running);
    // What it always gets comes before what the plugin says.
    let line = std::fs::read(format!("/proc/{}/cmdline", status.pid.expect("it runs"))).expect("a command line");
    assert!(line.ends_with(b"sleep\x000\x00100\x00"), "{}", String::from_utf8_lossy(&line));
    place.end().await;
}

/// A call that is given up waits for nobody.
#[tokio::test]
async fn a_call_that_waits_for_its_turn_can_be_cancelled() {
    let (house, place) = (house(), Place::new());
    assert_eq!(house.step(place.context(), &["service.start", "a", ".", "sleep", "100"]).await, "ok running -");
    let _talk = place.services.talk("a", Duration::from_secs(60)).await.expect("a talk");
    let cancel = tokio_util::sync::CancellationToken::new();
    let context = CallContext { cancel: Some(cancel.clone()), ..place.context() };
    let waiting = house.script(context, &[&["service.talk", "a"]]);
    let began = Instant::now();
    let (outcome, ()) = tokio::join!(waiting, async {
        tokio::task::yield_now().await;
        cancel.cancel();
    });
    assert!(outcome.expect_err("cancelled").is("cancelled"));
    assert!(began.elapsed() < Duration::from_secs(15));
    place.end().await;
}
