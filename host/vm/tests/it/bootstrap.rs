//! From a manifest to an image.

use std::fs;
use std::path::Path;

use pcoder_vm::{Error, Origin, Outcome, bootstrap};
use serde_json::{Value, json};

use crate::registry::Fault;
use crate::world::{Host, World, arch};

fn file<'a>(manifest: &'a mut Value, name: &str) -> &'a mut Value {
    let files = manifest["images"][arch().default_image()]["files"].as_array_mut().unwrap();
    files.iter_mut().find(|it| it["file"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_brought_whatever_it_is_compressed_with_and_only_once() {
    for compression in [None, Some("gzip"), Some("zstd")] {
        let world = World::new();
        let built = world.built("built", 7);
        let origin = world.serve_manifest(&world.served(&built, compression));
        let done = world.bootstrap(Some(origin.clone())).await.unwrap();
        assert_eq!((done.image.name.clone(), done.image.outcome), (arch().default_image(), Outcome::Installed));
        assert!(matches!(done.qemu, Err(Error::QemuMissing { .. })), "the manifest has none, and it is said");
        world.assert_image(&built);
        assert!(world.leftovers().is_empty());
        let requests = world.server.requests().len();
        let again = world.bootstrap(Some(origin)).await.unwrap();
        assert_eq!(again.image.outcome, Outcome::Present);
        // The manifest alone is read again.
        assert_eq!(world.server.requests().len(), requests + 1);
        let told = world.told.lock().unwrap().clone();
        assert!(told.contains(&"root.img".to_owned()), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_manifest_what_is_there_will_do_and_what_is_not_is_an_error() {
    let world = World::new();
    let error = world.bootstrap(None).await.unwrap_err();
    assert!(matches!(error, Error::NoManifest { .. }) && error.hint().contains("--manifest"), "{error}");
    let mut wanted = world.wanted(None);
    wanted.image = Some(world.built("built", 7));
    assert_eq!(bootstrap(&Host, &wanted).await.unwrap().image.outcome, Outcome::Installed);
    assert_eq!(world.bootstrap(None).await.unwrap().image.outcome, Outcome::Present);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_broke_off_is_gone_on_with_by_the_next_run() {
    let world = World::new();
    let built = world.built("built", 7);
    let origin = world.serve_manifest(&world.served(&built, None));
    world.server.always(Some(Fault::Truncate(100_000)));
    // The manifest and guest.json are smaller; the kernel gets 100,000 bytes further each time.
    let error = world.bootstrap(Some(origin.clone())).await;
    if let Err(error) = error {
        assert_eq!(error.code(), "offline", "{error}");
        assert!(error.to_string().contains('`'), "it says which file: {error}");
    }
    world.server.always(None);
    let before = world.server.requests().len();
    world.bootstrap(Some(origin)).await.unwrap();
    world.assert_image(&built);
    let requests = world.server.requests().split_off(before);
    assert!(requests.iter().any(|it| it.header("range").is_some()), "something was gone on with");
    assert!(!requests.iter().any(|it| it.path.ends_with("guest.json")), "what was whole was not asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_named_and_leave_the_image_that_was_there() {
    let world = World::new();
    let old = world.built("old", 7);
    world.bootstrap(Some(world.serve_manifest(&world.served(&old, Some("gzip"))))).await.unwrap();
    let new = world.built("new", 9);
    // On the wire, and behind a compression that is itself right.
    for (compression, change) in [(None, "sha256"), (Some("gzip"), "sha256"), (Some("zstd"), "compressed-sha256")] {
        let mut manifest = world.served(&new, compression);
        file(&mut manifest, "root.img")[change] = "0".repeat(64).into();
        let error = world.bootstrap(Some(world.serve_manifest(&manifest))).await.unwrap_err();
        assert!(matches!(error, Error::Wrong { .. }) && error.subject() == "root.img", "{error}");
        world.assert_image(&old);
        let staged = world.leftovers();
        let files = staged.iter().flat_map(|it| fs::read_dir(it).unwrap().flatten());
        assert!(!files.into_iter().any(|it| it.file_name().to_string_lossy().starts_with("root.img")));
    }
    // A bomb, and one that ends too early.
    for size in [5, 9 << 20] {
        let mut manifest = world.served(&new, Some("gzip"));
        file(&mut manifest, "root.img")["size"] = size.into();
        let error = world.bootstrap(Some(world.serve_manifest(&manifest))).await.unwrap_err();
        assert!(error.to_string().contains("it unpacks to"), "{error}");
    }
    let done = world.bootstrap(Some(world.serve_manifest(&world.served(&new, Some("zstd"))))).await.unwrap();
    assert_eq!(done.image.outcome, Outcome::Installed, "another image takes its place");
    world.assert_image(&new);
    assert!(world.leftovers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_says_other_than_its_guest_json_is_refused() {
    let world = World::new();
    let built = world.built("built", 7);
    let mut manifest = world.served(&built, None);
    let other = world.built("other", 9);
    let kernel = fs::read(other.join("vmlinux")).unwrap();
    world.server.put("vmlinux", kernel.clone());
    file(&mut manifest, "vmlinux")["sha256"] = crate::world::sha256(&kernel).into();
    let error = world.bootstrap(Some(world.serve_manifest(&manifest))).await.unwrap_err();
    assert!(error.to_string().contains("differ in `vmlinux`"), "{error}");
    assert!(world.images().list().unwrap().is_empty() && world.leftovers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn force_brings_it_again_and_offline_asks_nobody() {
    let world = World::new();
    let built = world.built("built", 7);
    let origin = world.serve_manifest(&world.served(&built, None));
    let mut wanted = world.wanted(Some(origin.clone()));
    wanted.network = None;
    let error = bootstrap(&Host, &wanted).await.unwrap_err();
    assert!(matches!(error, Error::Offline { .. }) && error.code() == "offline", "{error}");
    assert!(world.server.requests().is_empty());
    world.bootstrap(Some(origin.clone())).await.unwrap();
    let asked = world.server.requests().len();
    assert_eq!(bootstrap(&Host, &wanted).await.unwrap().image.outcome, Outcome::Present, "nothing is missing");
    assert_eq!(world.server.requests().len(), asked);
    let disk = world.path("images").join(arch().default_image()).join("root.img");
    fs::write(&disk, vec![1; 8 << 20]).unwrap();
    assert_eq!(world.bootstrap(Some(origin.clone())).await.unwrap().image.outcome, Outcome::Present);
    wanted = world.wanted(Some(origin));
    wanted.force = true;
    assert_eq!(bootstrap(&Host, &wanted).await.unwrap().image.outcome, Outcome::Installed);
    world.assert_image(&built);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_a_manifest_needs_no_network() {
    let world = World::new();
    let built = world.built("built", 7);
    let manifest = world.served(&built, None);
    let path = built.join("vm-manifest.json");
    fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    let origin = Origin::choose(None, None, Path::new("/"), &[world.path("nowhere"), built.clone()]).unwrap();
    assert_eq!(origin, Some(Origin::File(path)));
    let mut wanted = world.wanted(origin);
    wanted.network = None;
    bootstrap(&Host, &wanted).await.unwrap();
    world.assert_image(&built);
    assert!(world.server.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_cannot_be_used_say_what_is_wrong() {
    let world = World::new();
    let good = world.served(&world.built("built", 7), Some("gzip"));
    let name = arch().default_image();
    let mut cases: Vec<(Value, &str)> = vec![
        (json!({ "format": 2 }), "has format 2"),
        (json!({ "images": {} }), "format"),
        (json!({ "format": 1 }), "no image"),
    ];
    for (field, value, says) in [
        ("file", json!("../x"), "no file's name"),
        ("url", json!("http://example.com/root.img"), "only https"),
        ("url", json!("https://u:p@example.com/x"), "must not hold a login"),
        ("url", json!("../root.img"), "neither an address nor a path"),
        ("sha256", json!("abc"), "sha256 is none"),
        ("size", json!(1_u64 << 50), "size is none"),
        ("compression", Value::Null, "no compression"),
        ("compressed-size", Value::Null, "no compressed-sha256"),
        ("compression", json!("rar"), "rar"),
    ] {
        let mut manifest = good.clone();
        file(&mut manifest, "root.img")[field] = value;
        cases.push((manifest, says));
    }
    let mut manifest = good.clone();
    manifest["images"][&name]["files"].as_array_mut().unwrap().remove(0);
    cases.push((manifest, "has no guest.json"));
    for (manifest, says) in cases {
        let error = world.bootstrap(Some(world.serve_manifest(&manifest))).await.unwrap_err();
        assert_eq!(error.code(), "invalid", "{error}");
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
    for (text, good) in [("https://h/m?token=x", true), ("http://127.0.0.1/m", true), ("http://h/m", false)] {
        let origin = Origin::parse(text.as_ref(), Path::new("/"));
        assert_eq!(origin.is_ok(), good, "{text}");
        assert!(origin.map_or(true, |it| !it.shown().contains("token")), "a query is not shown");
    }
    assert_eq!(Origin::parse("m.json".as_ref(), Path::new("/w")).unwrap(), Origin::File("/w/m.json".into()));
}
