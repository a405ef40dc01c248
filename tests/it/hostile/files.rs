//! Files outside of what was granted.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use pcoder_runtime::call::{CallContext, Called};
use pcoder_tests::{Grant, House};

use super::code;

const SECRET: &str = "content that nobody granted";

/// A folder with a root in it, and a file beside the root.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("root")).expect("a folder");
        std::fs::write(folder.path().join("root/inside"), "inside").expect("a file");
        std::fs::write(folder.path().join("outside"), SECRET).expect("a file");
        Self { folder }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn context(&self) -> CallContext {
        CallContext { roots: [("box".to_owned(), self.path("root"))].into(), ..CallContext::default() }
    }
}

fn granted() -> House {
    House::provider("[[files]]\nroot = \"box\"\naccess = \"read-write\"\n", Grant::All)
}

#[tokio::test]
async fn a_path_that_leads_out_is_denied_whatever_is_there() {
    let (place, house) = (Place::new(), granted());
    let absolute = place.path("outside").display().to_string();
    for path in [
        "../outside",
        "x/../../outside",
        &absolute,
        "/etc/passwd",
        "./../outside",
        "inside/../../outside",
        "..",
        "a\\..\\..\\outside",
        "\0",
        "inside\0",
    ] {
        for step in [
            &["files.read", "box", path][..],
            &["files.write", "box", path, "x"],
            &["files.write-atomic", "box", path, "x"],
            &["files.list", "box", path],
            &["files.stat", "box", path],
            &["files.remove", "box", path, "true"],
            &["files.create-directory", "box", path],
            &["files.rename", "box", path, "mine"],
            &["files.rename", "box", "inside", path],
        ] {
            let answer = house.step(place.context(), step).await;
            assert_eq!(code(&answer), "denied", "{step:?}: {answer}");
            assert!(!answer.contains(SECRET));
        }
    }
    // The answer is the same whether there is something or not.
    let there = house.step(place.context(), &["files.stat", "box", "../outside"]).await;
    let not_there = house.step(place.context(), &["files.stat", "box", "../nothing"]).await;
    assert_eq!(there, not_there.replace("nothing", "outside"));
    assert_eq!(std::fs::read_to_string(place.path("outside")).expect("untouched"), SECRET);
    assert!(house.decisions().iter().any(|(_, _, allowed)| !allowed));
    house.goes_on().await;
}

#[tokio::test]
async fn a_link_that_leads_out_is_not_followed() {
    let (place, house) = (Place::new(), granted());
    symlink("../outside", place.path("root/relative")).expect("a link");
    symlink(place.path("outside"), place.path("root/absolute")).expect("a link");
    symlink("..", place.path("root/up")).expect("a link");
    symlink("/", place.path("root/top")).expect("a link");
    symlink("../new", place.path("root/dangling")).expect("a link");
    for step in [
        &["files.read", "box", "relative"][..],
        &["files.read", "box", "absolute"],
        &["files.read", "box", "up/outside"],
        &["files.read", "box", "top/etc/passwd"],
        &["files.list", "box", "up"],
        &["files.list", "box", "top"],
        &["files.stat", "box", "up/outside"],
        &["files.write", "box", "relative", "x"],
        &["files.write", "box", "dangling", "x"],
        &["files.write", "box", "up/new", "x"],
        &["files.write-atomic", "box", "up/new", "x"],
        &["files.create-directory", "box", "up/new"],
        &["files.remove", "box", "up/outside", "false"],
        &["files.rename", "box", "inside", "up/new"],
        &["files.rename", "box", "up/outside", "mine"],
    ] {
        let answer = house.step(place.context(), step).await;
        assert_eq!(code(&answer), "denied", "{step:?}: {answer}");
    }
    // A link is described and removed as a link; what it points to stays.
    assert!(house.step(place.context(), &["files.stat", "box", "relative"]).await.starts_with("ok link"));
    assert_eq!(house.step(place.context(), &["files.remove", "box", "up", "true"]).await, "ok ");
    assert_eq!(std::fs::read_to_string(place.path("outside")).expect("untouched"), SECRET);
    assert!(!place.path("new").exists());
    house.goes_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_swapped_in_between_check_and_use_leads_nowhere() {
    let (place, house) = (Place::new(), granted());
    std::fs::create_dir(place.path("root/dir")).expect("a folder");
    std::fs::write(place.path("root/dir/outside"), "inside").expect("a file");
    symlink("..", place.path("root/link")).expect("a link");
    let done = AtomicBool::new(false);
    let root = place.path("root");
    std::thread::scope(|scope| {
        // Swaps the folder and the link as fast as it can.
        let swaps = scope.spawn(|| {
            let mut swaps = 0_u32;
            while !done.load(Ordering::Relaxed) {
                exchange(&root.join("dir"), &root.join("link"));
                swaps += 1;
            }
            swaps
        });
        let tries = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let mut answers = Vec::new();
                for _ in 0..40 {
                    let read = ["repeat", "50", "files.read", "box", "dir/outside"];
                    let write = ["repeat", "50", "files.write", "box", "dir/outside", "inside"];
                    answers.extend(house.script(place.context(), &[&read, &write]).await.expect("the call"));
                }
                answers
            })
        });
        done.store(true, Ordering::Relaxed);
        assert!(swaps.join().expect("a thread") > 100, "nothing was swapped");
        for answer in tries {
            assert!(!answer.contains(SECRET), "{answer}");
            assert!(["ok", "denied", "not-found"].contains(&code(&answer)), "{answer}");
        }
    });
    assert_eq!(std::fs::read_to_string(place.path("outside")).expect("untouched"), SECRET);
    house.goes_on().await;
}

/// Swaps two names in one step.
fn exchange(one: &Path, other: &Path) {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("swapped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_plain_file_is_not_opened_and_nobody_waits() {
    let (place, house) = (Place::new(), granted());
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, place.path("root/pipe"), rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
    for step in [
        &["files.read", "box", "pipe"][..],
        &["files.write", "box", "pipe", "x"],
        &["files.read", "box", "."],
        &["files.write", "box", ".", "x"],
    ] {
        let answer = tokio::time::timeout(std::time::Duration::from_secs(20), house.step(place.context(), step)).await;
        let answer = answer.expect("it waits for the other end of the pipe");
        assert_eq!(code(&answer), "io", "{step:?}: {answer}");
    }
    // And when it becomes a pipe between the check and the use.
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                exchange(&place.path("root/pipe"), &place.path("root/inside"));
            }
        });
        let answer = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let read = ["repeat", "2000", "files.read", "box", "inside"];
                let write = ["repeat", "2000", "files.write", "box", "inside", "x"];
                let script: [&[&str]; 2] = [&read, &write];
                let call = house.script(place.context(), &script);
                tokio::time::timeout(std::time::Duration::from_secs(60), call).await
            })
        });
        done.store(true, Ordering::Relaxed);
        let answers = answer.expect("it waits for the other end of the pipe").expect("the call");
        assert!(answers.iter().all(|it| ["ok", "io"].contains(&code(it))), "{answers:?}");
    });
    house.goes_on().await;
}

#[tokio::test]
async fn another_root_and_more_than_reading_are_denied() {
    let place = Place::new();
    let house = House::provider("[[files]]\nroot = \"box\"\naccess = \"read\"\n", Grant::All);
    let mut context = place.context();
    context.roots.insert("project".to_owned(), place.path("."));
    assert_eq!(code(&house.step(context, &["files.read", "project", "outside"]).await), "denied");
    assert_eq!(house.step(place.context(), &["files.read", "box", "inside"]).await, "ok inside");
    for step in [
        &["files.write", "box", "inside", "x"][..],
        &["files.remove", "box", "inside"],
        &["files.rename", "box", "inside", "x"],
    ] {
        assert_eq!(code(&house.step(place.context(), step).await), "denied", "{step:?}");
    }
    assert_eq!(std::fs::read_to_string(place.path("root/inside")).expect("untouched"), "inside");
}

#[tokio::test]
async fn the_path_of_the_call_is_that_path_and_no_other() {
    let place = Place::new();
    let house = House::provider("[[files]]\nroot = \"called\"\naccess = \"read-write\"\n", Grant::All);
    let path = place.path("root/inside").display().to_string();
    let context =
        || CallContext { called: Called { path: Some(path.clone()), ..Called::default() }, ..CallContext::default() };
    std::fs::write(place.path("root/victim"), "victim").expect("a file");
    assert_eq!(house.step(context(), &["files.read", "called", &path]).await, "ok inside");
    let outside = place.path("outside").display().to_string();
    let victim = place.path("root/victim").display().to_string();
    for step in [
        &["files.read", "called", &outside][..],
        &["files.read", "called", &victim],
        &["files.read", "called", "victim"],
        &["files.read", "called", &format!("{path}/../victim")],
        &["files.rename", "called", &path, "victim"],
        &["files.rename", "called", &path, "../outside"],
        &["files.rename", "called", &path, &victim],
        &["files.rename", "called", &victim, &path],
        &["files.remove", "called", &victim, "false"],
    ] {
        let answer = house.step(context(), step).await;
        assert_eq!(code(&answer), "denied", "{step:?}: {answer}");
    }
    assert_eq!(std::fs::read_to_string(place.path("root/inside")).expect("untouched"), "inside");
    assert_eq!(std::fs::read_to_string(place.path("root/victim")).expect("untouched"), "victim");
    assert_eq!(std::fs::read_to_string(place.path("outside")).expect("untouched"), SECRET);
}

const CALLED: &str = "[[files]]\nroot = \"called\"\naccess = \"read-write\"\n";

/// A home whose dotfiles are links to another folder, as stow and chezmoi make them, and a call about one of them.
struct Dotfiles {
    place: Place,
    house: House,
    called: String,
}

impl Dotfiles {
    fn new(target: &str) -> Self {
        let place = Place::new();
        std::fs::create_dir(place.path("dotfiles")).expect("a folder");
        std::fs::write(place.path("dotfiles/claude.json"), "kept elsewhere").expect("a file");
        symlink(target, place.path("root/.claude.json")).expect("a link");
        let called = place.path("root/.claude.json").display().to_string();
        Self { place, house: House::provider(CALLED, Grant::All), called }
    }

    async fn step(&self, verb: &str, more: &str) -> String {
        let called = Called { path: Some(self.called.clone()), ..Called::default() };
        let context = CallContext { called, ..CallContext::default() };
        self.house.step(context, &[verb, "called", &self.called, more]).await
    }

    fn content(&self, name: &str) -> String {
        std::fs::read_to_string(self.place.path(name)).expect("a file")
    }

    fn is_link(&self) -> bool {
        std::fs::symlink_metadata(&self.called).is_ok_and(|it| it.is_symlink())
    }
}

#[tokio::test]
async fn the_path_of_the_call_may_be_a_link_out_of_its_folder() {
    let dotfiles = Dotfiles::new("../dotfiles/claude.json");
    assert_eq!(dotfiles.step("files.read", "").await, "ok kept elsewhere");
    assert_eq!(dotfiles.step("files.stat", "").await, "ok file 14");
    assert_eq!(code(&dotfiles.step("files.write-atomic", "replaced").await), "ok");
    assert_eq!((dotfiles.content("dotfiles/claude.json").as_str(), dotfiles.is_link()), ("replaced", true));
    assert_eq!(code(&dotfiles.step("files.write", "in place").await), "ok");
    assert_eq!((dotfiles.content("dotfiles/claude.json").as_str(), dotfiles.is_link()), ("in place", true));
    let left: Vec<_> = std::fs::read_dir(dotfiles.place.path("dotfiles")).expect("a folder").collect();
    assert_eq!(left.len(), 1, "nothing temporary: {left:?}");
    // What is removed is the link.
    assert_eq!(code(&dotfiles.step("files.remove", "false").await), "ok");
    assert_eq!((dotfiles.content("dotfiles/claude.json").as_str(), dotfiles.is_link()), ("in place", false));
}

#[tokio::test]
async fn writing_through_a_link_to_nothing_makes_its_target() {
    for verb in ["files.write", "files.write-atomic"] {
        // By way of another link, each relative to its own folder.
        let dotfiles = Dotfiles::new("../dotfiles/link");
        symlink("new.json", dotfiles.place.path("dotfiles/link")).expect("a link");
        assert_eq!(code(&dotfiles.step("files.read", "").await), "not-found");
        assert_eq!(code(&dotfiles.step("files.stat", "").await), "not-found");
        assert_eq!(code(&dotfiles.step(verb, "made").await), "ok", "{verb}");
        assert_eq!((dotfiles.content("dotfiles/new.json").as_str(), dotfiles.is_link()), ("made", true), "{verb}");
    }
    // Its folder is made only where that was asked for.
    let dotfiles = Dotfiles::new("../not-mounted/claude.json");
    assert_eq!(code(&dotfiles.step("files.write-atomic", "x").await), "not-found");
    assert!(dotfiles.is_link() && !dotfiles.place.path("not-mounted").exists());
}

#[tokio::test]
async fn links_in_a_circle_are_an_error_and_nothing_is_written() {
    let dotfiles = Dotfiles::new("../dotfiles/back");
    symlink("../root/.claude.json", dotfiles.place.path("dotfiles/back")).expect("a link");
    for verb in ["files.read", "files.write", "files.write-atomic", "files.stat"] {
        let answer = dotfiles.step(verb, "x").await;
        assert!(code(&answer) == "io" && answer.contains(".claude.json"), "{verb}: {answer}");
    }
    assert!(dotfiles.is_link());
    dotfiles.house.goes_on().await;
}

#[tokio::test]
async fn files_larger_than_the_limit_are_refused_and_not_read() {
    let place = Place::new();
    let house =
        House::provider("[[files]]\nroot = \"box\"\naccess = \"read-write\"\n[limits]\noutput-mib = 1\n", Grant::All);
    let file = std::fs::File::create(place.path("root/huge")).expect("a file");
    file.set_len(1 << 40).expect("a file with a hole");
    assert_eq!(code(&house.step(place.context(), &["files.read", "box", "huge"]).await), "limit");
    let many = house.step(place.context(), &["until", "limit", "files.read", "box", "medium"]);
    std::fs::write(place.path("root/medium"), vec![b'x'; 300 << 10]).expect("a file");
    assert_eq!(many.await, "ok 4");
    house.goes_on().await;
}
