//! One large file, from a server that misbehaves.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pcoder_engines::{Error, NetworkConfig, Patience, RemoteFile, Silent, download};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::registry::{Fault, Registry};

/// With a query, which may be a secret.
const NAME: &str = "root.img?token=x";

struct World {
    server: Registry,
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
    sha256: String,
}

impl World {
    /// Data, a hole of 4 MiB, data.
    fn new() -> Self {
        let noise = |seed: u32| (0..1_000_000_u32).map(move |it| (it.wrapping_mul(seed) >> 13) as u8);
        let mut bytes: Vec<u8> = noise(2_654_435_761).collect();
        bytes.resize(5 << 20, 0);
        bytes.extend(noise(2_246_822_519));
        let server = Registry::start();
        server.put(NAME, bytes.clone());
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { server, folder: tempfile::tempdir().unwrap(), bytes, sha256 }
    }

    fn part(&self) -> PathBuf {
        self.folder.path().join("root.img.part")
    }

    async fn fetch_with(&self, sha256: &str, cancel: CancellationToken) -> Result<(), Error> {
        let url = format!("{}{NAME}", self.server.url());
        let part = self.part();
        let file = RemoteFile { url: &url, size: self.bytes.len() as u64, sha256, part: &part };
        let network = Arc::new(NetworkConfig::plain(&self.server.url()).unwrap());
        let pause = Duration::from_millis(1);
        let stall = Duration::from_secs(2);
        let patience = Patience { retries: 3, first_pause: pause, longest_pause: pause, stall, ..Patience::default() };
        download(network, &file, patience, "test", &Silent, cancel).await
    }

    async fn fetch(&self) -> Result<(), Error> {
        self.fetch_with(&self.sha256, CancellationToken::new()).await
    }

    fn assert_whole(&self) {
        assert!(fs::read(self.part()).unwrap() == self.bytes, "other bytes");
    }

    fn ranges(&self) -> Vec<Option<String>> {
        self.server.requests().iter().map(|request| request.header("range").map(str::to_owned)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_line_is_taken_up_where_it_broke_also_in_the_middle_of_a_hole() {
    let world = World::new();
    world.server.etag("\"one\"");
    world.server.faults([Fault::Truncate(3 << 20), Fault::Stall(100_000)]);
    world.fetch().await.unwrap();
    world.assert_whole();
    let again = (3 << 20) + 100_000;
    let expected = [None, Some(format!("bytes={}-", 3 << 20)), Some(format!("bytes={again}-"))];
    assert_eq!(world.ranges(), expected);
    assert_eq!(world.server.requests()[1].header("if-range"), Some("\"one\""));
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt as _;
        let taken = world.part().metadata().unwrap().blocks() * 512;
        assert!(taken < 3 << 20, "{taken} bytes are taken");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_time_goes_on_where_the_last_one_was_cancelled() {
    let world = Arc::new(World::new());
    world.server.faults([Fault::Stall(600_000)]);
    let cancel = CancellationToken::new();
    let (other, token) = (Arc::clone(&world), cancel.clone());
    let fetching = tokio::spawn(async move { other.fetch_with(&other.sha256, token).await });
    tokio::task::block_in_place(|| world.server.wait_for_waiting(1));
    while fs::metadata(world.part()).map_or(0, |it| it.len()) < 600_000 {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    let fetched = fetching.await.unwrap();
    assert_eq!(fetched.unwrap_err().code(), "cancelled");
    world.server.open();
    world.fetch().await.unwrap();
    world.assert_whole();
    assert_eq!(world.ranges(), [None, Some("bytes=600000-".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_file_instead_of_a_part_begins_anew() {
    let world = World::new();
    world.server.faults([Fault::Truncate(200_000), Fault::IgnoreRange]);
    world.fetch().await.unwrap();
    world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_of_another_file_is_thrown_away_once() {
    let world = World::new();
    fs::write(world.part(), [7; 300_000]).unwrap();
    world.fetch().await.unwrap();
    world.assert_whole();
    assert_eq!(world.ranges(), [Some("bytes=300000-".to_owned()), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_whole_already_is_not_asked_for() {
    let world = World::new();
    fs::write(world.part(), &world.bytes).unwrap();
    world.fetch().await.unwrap();
    world.assert_whole();
    assert!(world.ranges().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_and_a_wrong_length_leave_nothing() {
    let world = World::new();
    for fault in [Fault::WrongByte(2_000_000), Fault::OtherBody(vec![1; 50]), Fault::Longer(9)] {
        world.server.faults([fault.clone()]);
        let error = world.fetch().await.unwrap_err();
        assert_eq!(error.code(), "integrity", "{fault:?}: {error}");
        assert!(error.subject().ends_with("/npm/root.img"), "no query is shown: {error}");
        assert!(!world.part().exists(), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_it_and_one_that_is_down_are_errors_of_the_network() {
    let world = World::new();
    for (fault, requests) in [(Fault::Status(404, String::new()), 1), (Fault::Status(503, String::new()), 4)] {
        let before = world.ranges().len();
        world.server.always(Some(fault));
        let error = world.fetch().await.unwrap_err();
        assert_eq!(error.code(), "offline", "{error}");
        assert_eq!(world.ranges().len() - before, requests);
    }
}
