//! A file that several use.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pcoder_oauth::{Clock, CredentialsFile, Error, Freshness, Http, REFRESH_EARLY, Tokens, ensure_fresh};
use pcoder_state::Lock;
use secrecy::ExposeSecret as _;
use tokio::sync::Notify;

use crate::server::{Mood, NOW, SECRET, Server, clock, http, shown};

/// A file with a login that ends in five minutes.
pub(crate) struct Home {
    folder: tempfile::TempDir,
    pub(crate) file: CredentialsFile,
    pub(crate) lock: PathBuf,
}

impl Home {
    pub(crate) fn new(tokens: &Tokens) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = CredentialsFile::new(folder.path().join("claude").join(".credentials.json"));
        file.write(tokens).expect("written");
        let lock = folder.path().join("locks").join("claude.lock");
        Self { folder, file, lock }
    }

    pub(crate) fn due(server: &Server) -> Self {
        Self::new(&server.login(NOW + 5 * 60_000))
    }

    async fn ensure(&self, server: &Server, clock: &Clock, http: &Http) -> Result<Freshness, Error> {
        ensure_fresh(&self.file, &self.lock, &server.service(), clock, http).await
    }

    pub(crate) fn tokens(&self) -> Tokens {
        self.file.read().expect("read").expect("a login")
    }
}

fn refresh_of(tokens: &Tokens) -> &str {
    tokens.refresh.as_ref().expect("one").expose_secret()
}

#[tokio::test]
async fn ten_minutes_before_the_end_it_is_refreshed_and_not_before() {
    let server = Server::start();
    let early = i64::try_from(REFRESH_EARLY.as_millis()).expect("small");
    let home = Home::new(&server.login(NOW + early + 1));
    assert_eq!(home.ensure(&server, &clock(), &http()).await.expect("looked"), Freshness::Fresh);
    assert!(server.requests().is_empty() && !home.lock.exists());
    let later = Clock::new(|| NOW + 1);
    assert_eq!(home.ensure(&server, &later, &http()).await.expect("refreshed"), Freshness::Refreshed);
    let tokens = home.tokens();
    assert_eq!((refresh_of(&tokens), tokens.expires_at_ms), ("refresh-hunter2-2", Some(NOW + 1 + 28_800_000)));
    assert_eq!(tokens.subscription_type.as_deref(), Some("max"));
    assert_eq!(home.ensure(&server, &later, &http()).await.expect("looked"), Freshness::Fresh);
    assert_eq!(server.requests().len(), 1);
    assert_eq!(std::fs::read_dir(home.folder.path().join("claude")).expect("a folder").count(), 1);
}

#[tokio::test]
async fn nothing_to_refresh() {
    let server = Server::start();
    let home = Home::due(&server);
    home.file.write(&Tokens { refresh: None, ..home.tokens() }).expect("written");
    assert_eq!(home.ensure(&server, &clock(), &http()).await.expect("looked"), Freshness::NoRefreshToken);
    std::fs::remove_file(home.file.path()).expect("removed");
    assert_eq!(home.ensure(&server, &clock(), &http()).await.expect("looked"), Freshness::Absent);
    assert!(server.requests().is_empty());
}

#[test]
fn eight_threads_make_one_request() {
    let server = Server::start();
    let home = Home::due(&server);
    let barrier = std::sync::Barrier::new(8);
    let barrier: &'static std::sync::Barrier = Box::leak(Box::new(barrier));
    let results: Vec<_> = std::thread::scope(|scope| {
        let one = || {
            // Nobody goes on before everybody has read the file that is due.
            let first = AtomicBool::new(true);
            let clock = Clock::new(move || {
                if first.swap(false, Ordering::Relaxed) {
                    barrier.wait();
                }
                NOW
            });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(home.ensure(&server, &clock, &http())).expect("fresh")
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().expect("ended")).collect()
    });
    assert_eq!(results.iter().filter(|it| **it == Freshness::Refreshed).count(), 1);
    assert_eq!(results.iter().filter(|it| **it == Freshness::Fresh).count(), 7);
    assert_eq!((server.requests().len(), server.complaints().len()), (1, 0));
}

#[tokio::test]
async fn a_refresh_that_was_begun_ends_although_nobody_waits_for_it_any_more() {
    let server = Server::start();
    let home = Home::due(&server);
    let go = Arc::new(Notify::new());
    server.mood(Mood::Waits(go.clone()));
    let (service, clock, http) = (server.service(), clock(), http());
    let (file, lock) = (home.file.clone(), home.lock.clone());
    let task = tokio::spawn(async move { ensure_fresh(&file, &lock, &service, &clock, &http).await });
    let server = Arc::new(server);
    let other = server.clone();
    tokio::task::spawn_blocking(move || other.request_arrived()).await.expect("ended");
    task.abort();
    assert!(task.await.expect_err("aborted").is_cancelled());
    go.notify_one();
    let lock = home.lock.clone();
    let held = tokio::task::spawn_blocking(move || Lock::take(&lock, Duration::from_secs(60))).await.expect("ended");
    drop(held.expect("the refresher has ended"));
    assert_eq!(refresh_of(&home.tokens()), "refresh-hunter2-2");
}

#[tokio::test]
async fn a_refresh_token_that_another_program_used_is_looked_for_in_the_file_once_more() {
    let server = Arc::new(Server::start());
    let home = Home::due(&server);
    let go = Arc::new(Notify::new());
    server.mood(Mood::Waits(go.clone()));
    // While the request is on its way, Claude Code refreshes by itself.
    let (file, other) = (home.file.clone(), server.clone());
    let claude = tokio::task::spawn_blocking(move || {
        other.request_arrived();
        let old = file.read().expect("read").expect("a login");
        other.use_up(&old);
        file.write(&Tokens { access: "new".into(), ..other.login(NOW + 28_800_000) }).expect("written");
        go.notify_one();
    });
    assert_eq!(home.ensure(&server, &clock(), &http()).await.expect("fresh"), Freshness::Fresh);
    claude.await.expect("ended");
    assert_eq!((home.tokens().access.expose_secret(), server.requests().len()), ("new", 1));
}

#[tokio::test]
async fn another_token_in_the_file_that_is_due_too_is_tried_once() {
    let server = Arc::new(Server::start());
    let home = Home::due(&server);
    let go = Arc::new(Notify::new());
    server.mood(Mood::Waits(go.clone()));
    let (file, other) = (home.file.clone(), server.clone());
    let claude = tokio::task::spawn_blocking(move || {
        other.request_arrived();
        other.use_up(&file.read().expect("read").expect("a login"));
        file.write(&other.login(NOW)).expect("written");
        other.mood(Mood::Good);
        go.notify_one();
    });
    assert_eq!(home.ensure(&server, &clock(), &http()).await.expect("refreshed"), Freshness::Refreshed);
    claude.await.expect("ended");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_login_that_is_over_is_told_after_one_request_and_the_file_stays() {
    let server = Server::start();
    let home = Home::due(&server);
    server.use_up(&home.tokens());
    let before = std::fs::read(home.file.path()).expect("a file");
    let error = home.ensure(&server, &clock(), &http()).await.expect_err("over");
    assert!(matches!(error, Error::LoginExpired { .. }) && shown(&error).contains("log in again"));
    assert_eq!(std::fs::read(home.file.path()).expect("a file"), before);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_logout_meanwhile_stays_a_logout() {
    let server = Arc::new(Server::start());
    let home = Home::due(&server);
    let go = Arc::new(Notify::new());
    server.mood(Mood::Waits(go.clone()));
    let (path, other) = (home.file.path().to_owned(), server.clone());
    let user = tokio::task::spawn_blocking(move || {
        other.request_arrived();
        std::fs::remove_file(path).expect("removed");
        go.notify_one();
    });
    assert_eq!(home.ensure(&server, &clock(), &http()).await.expect("ended"), Freshness::Absent);
    user.await.expect("ended");
    assert!(!home.file.path().exists());
}

#[tokio::test]
async fn a_file_that_cannot_be_understood_costs_no_refresh_token() {
    let server = Server::start();
    let home = Home::due(&server);
    std::fs::write(home.file.path(), SECRET).expect("written");
    let error = home.ensure(&server, &clock(), &http()).await.expect_err("garbage");
    assert!(matches!(error, Error::Credentials { .. }), "{}", shown(&error));
    assert_eq!(std::fs::read_to_string(home.file.path()).expect("a file"), SECRET);
    assert!(server.requests().is_empty());
}
