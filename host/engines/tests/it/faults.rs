//! A registry, or something before it, that misbehaves.

use std::time::{Duration, Instant};

use pcoder_engines::{Environment, NetworkConfig, NpmPlaces};

use crate::registry::{Fault, Registry};
use crate::toy::{World, options, toy};

/// Large enough for a part file.
const BIG: usize = 6_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_line_is_taken_up_where_it_broke() {
    for size in [BIG, 300_000] {
        let world = World::new(&[toy("1.0.0", size)]);
        world.registry.etag("\"one\"");
        world.registry.faults([Fault::Truncate(200_000), Fault::Truncate(50_000)]);
        world.install().await.unwrap();
        world.assert_whole();
        let requests = world.registry.requests();
        let ranges: Vec<_> = requests.iter().map(|request| request.header("range")).collect();
        assert_eq!(ranges, [None, Some("bytes=200000-"), Some("bytes=250000-")]);
        assert_eq!(requests[1].header("if-range"), Some("\"one\""));
        assert!(requests.iter().all(|request| request.header("accept-encoding") == Some("identity")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_file_instead_of_a_part_begins_anew() {
    for size in [BIG, 300_000] {
        let world = World::new(&[toy("1.0.0", size)]);
        world.registry.faults([Fault::Truncate(200_000), Fault::IgnoreRange]);
        world.install().await.unwrap();
        world.assert_whole();
        assert_eq!(world.registry.requests().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_validator_begins_anew() {
    let world = World::new(&[toy("1.0.0", BIG)]);
    world.registry.etag("\"one\"");
    // The first bytes are of another file: only a new start can end well.
    world.registry.faults([Fault::Stall(200_000)]);
    let mut options = world.options();
    options.patience.stall = Duration::from_millis(100);
    let install = world.install_with(&options);
    let change = async {
        let registry = &world.registry;
        tokio::task::block_in_place(|| registry.wait_for_waiting(1));
        registry.etag("\"two\"");
    };
    let (installed, ()) = tokio::join!(install, change);
    installed.unwrap();
    world.assert_whole();
    let requests = world.registry.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].header("if-range"), Some("\"one\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_part_or_416_begins_anew() {
    for fault in [Fault::WrongRange, Fault::Status(416, String::new())] {
        let world = World::new(&[toy("1.0.0", BIG)]);
        world.registry.faults([Fault::Truncate(200_000), fault]);
        world.install().await.unwrap();
        world.assert_whole();
        assert_eq!(world.registry.requests()[2].header("range"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_fatal_and_not_kept() {
    for size in [BIG, 300_000] {
        let world = World::new(&[toy("1.0.0", size)]);
        let length = toy("1.0.0", size).bytes.len();
        // In the gzip header, in the middle, in the checksum at the very end, which tar never reads.
        for at in [5, length / 2, length - 1] {
            world.registry.faults([Fault::WrongByte(at)]);
            let before = world.registry.requests().len();
            let error = world.install().await.unwrap_err();
            assert_eq!(error.code(), "integrity", "{error}");
            assert!(error.to_string().contains("its sha512 is"), "{error}");
            assert_eq!(world.registry.requests().len(), before + 1, "not tried again in silence");
            world.assert_absent();
            assert_eq!(world.parts(), Vec::<String>::new());
        }
        world.install().await.unwrap();
        world.assert_whole();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_length_is_seen_at_once() {
    let world = World::new(&[toy("1.0.0", BIG)]);
    world.registry.faults([Fault::OtherBody(b"<html>log in</html>".to_vec()), Fault::Longer(5)]);
    let error = world.install().await.unwrap_err();
    assert!(error.to_string().contains("sends 19 bytes"), "{error}");
    let error = world.install().await.unwrap_err();
    assert!(error.to_string().contains("sends more bytes"), "{error}");
    world.assert_absent();
    world.install().await.unwrap();
    world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_registry_is_waited_for_as_it_asks() {
    let world = World::new(&[toy("1.0.0", 1000)]);
    world.registry.faults([Fault::Status(429, "retry-after: 1".into()), Fault::Status(503, String::new())]);
    let start = Instant::now();
    world.install().await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(world.registry.requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_stays_broken_is_given_up() {
    let world = World::new(&[toy("1.0.0", 1000)]);
    world.registry.always(Some(Fault::Status(500, String::new())));
    let error = world.install().await.unwrap_err();
    assert_eq!((error.code(), world.registry.requests().len()), ("registry", 4));
    world.assert_absent();
    for (status, hint) in [(401, "_authToken"), (404, "npm_config_registry")] {
        world.registry.always(Some(Fault::Status(status, String::new())));
        let before = world.registry.requests().len();
        let error = world.install().await.unwrap_err();
        assert!(error.code() == "registry" && error.hint().unwrap().contains(hint), "{error}");
        assert_eq!(world.registry.requests().len(), before + 1, "such an answer is not asked for again");
    }
    world.registry.always(Some(Fault::Status(429, "retry-after: 86400".into())));
    assert!(world.install().await.unwrap_err().to_string().contains("86400 s"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_offline() {
    let world = World::new(&[toy("1.0.0", 1000)]);
    // A port that was just free.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let options = options(NetworkConfig::plain(&format!("http://user:s3cret@127.0.0.1:{port}")).unwrap());
    let error = world.install_with(&options).await.unwrap_err();
    assert_eq!(error.code(), "offline");
    assert!(!format!("{error} {error:?} {:?}", error.hint()).contains("s3cret"));
    world.assert_absent();
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_not_waited_for_without_end() {
    let world = World::new(&[toy("1.0.0", BIG)]);
    world.registry.faults([Fault::Stall(100_000), Fault::Stall(100_000)]);
    let mut options = world.options();
    // Long enough for the first bytes to be there on a machine that has other things to do.
    options.patience.stall = Duration::from_secs(2);
    world.install_with(&options).await.unwrap();
    world.assert_whole();
    let requests = world.registry.requests();
    assert_eq!(requests[2].header("range"), Some("bytes=200000-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_line_is_no_error() {
    let world = World::new(&[toy("1.0.0", 300_000)]);
    world.registry.faults([Fault::Slow(1000)]);
    let mut options = world.options();
    options.patience.stall = Duration::from_millis(200);
    let start = Instant::now();
    world.install_with(&options).await.unwrap();
    assert!(start.elapsed() > Duration::from_millis(200));
    assert_eq!(world.registry.requests().len(), 1);
}

/// A network with a token for both registries.
fn with_tokens(world: &World, other: &Registry) -> NetworkConfig {
    let nerf = |url: &str| url.strip_prefix("http:").unwrap().to_owned();
    let npmrc = format!(
        "registry={}\n{}:_authToken=first\n{}:_authToken=second\n",
        world.registry.url(),
        nerf(&world.registry.url()),
        nerf(&other.url())
    );
    let home = world.folder.path();
    std::fs::write(home.join(".npmrc"), npmrc).unwrap();
    let places = NpmPlaces { home: Some(home), prefix: Some(home), project: None };
    NetworkConfig::from_npm(&Environment::default(), places, None).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_stays_with_its_host() {
    let tarball = toy("1.0.0", 1000);
    let world = World::new(std::slice::from_ref(&tarball));
    let other = Registry::start();
    other.put("elsewhere.tgz", tarball.bytes.clone());
    let options = options(with_tokens(&world, &other));
    world.registry.faults([Fault::Status(302, format!("location: {}elsewhere.tgz", other.url()))]);
    world.install_with(&options).await.unwrap();
    world.assert_whole();
    let token = |registry: &Registry| registry.requests()[0].header("authorization").map(str::to_owned);
    assert_eq!(token(&world.registry).as_deref(), Some("Bearer first"));
    assert_eq!(token(&other), None, "not even its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_on_the_same_host_keep_it_where_it_belongs() {
    let tarball = toy("1.0.0", 1000);
    let world = World::new(std::slice::from_ref(&tarball));
    world.registry.put("there.tgz", tarball.bytes.clone());
    world.registry.put("../outside.tgz", tarball.bytes.clone());
    let options = options(with_tokens(&world, &Registry::start()));
    world.registry.faults([
        Fault::Status(307, "location: /npm/there.tgz".into()),
        Fault::Status(301, "location: /outside.tgz".into()),
    ]);
    let error = world.install_with(&options).await.unwrap_err();
    assert_eq!(error.code(), "registry");
    let requests = world.registry.requests();
    let tokens: Vec<_> = requests.iter().map(|request| request.header("authorization")).collect();
    assert_eq!(tokens, [Some("Bearer first"), Some("Bearer first"), None]);
    world.registry.always(Some(Fault::Status(302, "location: /npm/round".into())));
    assert!(world.install().await.unwrap_err().to_string().contains("too often"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_used_and_can_be_excepted() {
    let world = World::new(&[toy("1.0.0", 1000)]);
    let proxy = Registry::start();
    let through = |npmrc: &str| {
        let home = world.folder.path();
        std::fs::write(home.join(".npmrc"), npmrc).unwrap();
        let places = NpmPlaces { home: Some(home), prefix: Some(home), project: None };
        options(NetworkConfig::from_npm(&Environment::default(), places, Some(&world.registry.url())).unwrap())
    };
    let address = proxy.url().replace("http://", "http://user:pass@").replace("/npm/", "");
    let error = world.install_with(&through(&format!("proxy={address}"))).await.unwrap_err();
    assert_eq!(error.code(), "registry");
    let seen = proxy.requests();
    assert!(seen[0].path.starts_with("http://127.0.0.1"), "{seen:?}");
    assert_eq!(seen[0].header("proxy-authorization"), Some("Basic dXNlcjpwYXNz"));
    assert_eq!(world.registry.requests().len(), 0);
    world.install_with(&through(&format!("proxy={address}\nnoproxy=127.0.0.1"))).await.unwrap();
    world.assert_whole();
}
