//! The folder of images.

use std::fs;
use std::sync::Arc;

use pcoder_engines::Silent;
use pcoder_vm::Error;
use tokio_util::sync::CancellationToken;

use crate::world::{World, arch};

fn token() -> CancellationToken {
    CancellationToken::new()
}

#[tokio::test]
async fn a_built_folder_becomes_an_image_once_and_is_found_listed_verified_and_removed() {
    let world = World::new();
    let built = world.built("built", 7);
    let images = world.images();
    assert!(images.list().unwrap().is_empty() && !world.path("images").exists(), "looking makes nothing");
    let done = images.import(&built, None, false, Arc::new(Silent), token()).await.unwrap();
    assert_eq!((done.name.as_str(), done.present), (arch().default_image().as_str(), false));
    world.assert_image(&built);
    assert!(images.import(&built, None, false, Arc::new(Silent), token()).await.unwrap().present);
    assert!(!images.import(&built, None, true, Arc::new(Silent), token()).await.unwrap().present);
    let other = images.import(&world.built("other", 9), Some("mine.2"), false, Arc::new(Silent), token()).await;
    assert_eq!(other.unwrap().name, "mine.2");
    let listed: Vec<_> = images.list().unwrap().into_iter().map(|it| (it.name, it.image.is_ok())).collect();
    assert_eq!(listed, [(arch().default_image(), true), ("mine.2".to_owned(), true)]);
    let image = images.verify("mine.2", Arc::new(Silent), token()).await.unwrap();
    assert!(image.kernel().is_file() && image.initrd().is_file() && image.root().is_file());
    assert_eq!(image.size(), 300_000 + 5000 + (8 << 20));
    images.remove("mine.2", token()).await.unwrap();
    let error = images.remove("mine.2", token()).await.unwrap_err();
    assert!(matches!(error, Error::ImageMissing { .. }) && error.hint().contains(&arch().default_image()), "{error}");
    assert!(world.leftovers().is_empty());
}

#[tokio::test]
async fn what_was_shortened_is_found_at_once_and_what_was_changed_by_the_deep_look() {
    let world = World::new();
    let images = world.images();
    images.import(&world.built("built", 7), Some("a"), false, Arc::new(Silent), token()).await.unwrap();
    let disk = world.path("images/a/root.img");
    let mut bytes = fs::read(&disk).unwrap();
    bytes[1 << 20] = 1;
    fs::write(&disk, &bytes).unwrap();
    assert!(images.find("a").is_ok());
    let error = images.verify("a", Arc::new(Silent), token()).await.unwrap_err();
    assert!(matches!(error, Error::ImageDamaged { .. }) && error.to_string().contains("root.img"), "{error}");
    fs::write(&disk, b"short").unwrap();
    assert!(images.find("a").unwrap_err().to_string().contains("5 bytes"));
    fs::remove_file(world.path("images/a/guest.json")).unwrap();
    let listed = images.list().unwrap();
    assert!(matches!(listed[0].image, Err(Error::ImageDamaged { .. })), "{listed:?}");
}

#[tokio::test]
async fn a_folder_that_is_not_what_it_says_leaves_the_image_that_was_there() {
    let world = World::new();
    let images = world.images();
    let built = world.built("built", 7);
    images.import(&built, None, false, Arc::new(Silent), token()).await.unwrap();
    let bad = world.built("bad", 9);
    let mut kernel = fs::read(bad.join("vmlinux")).unwrap();
    kernel[5] ^= 1;
    fs::write(bad.join("vmlinux"), kernel).unwrap();
    let error = images.import(&bad, None, false, Arc::new(Silent), token()).await.unwrap_err();
    assert!(matches!(error, Error::Wrong { .. }) && error.subject() == "vmlinux", "{error}");
    fs::remove_file(bad.join("initrd")).unwrap();
    let error = images.import(&bad, None, false, Arc::new(Silent), token()).await.unwrap_err();
    assert!(matches!(error, Error::NotAnImage { .. }) && error.to_string().contains("`initrd` is missing"), "{error}");
    let error = images.import(&world.path("nowhere"), None, false, Arc::new(Silent), token()).await.unwrap_err();
    assert!(error.to_string().contains("there is no such folder"), "{error}");
    world.assert_image(&built);
    assert!(world.leftovers().is_empty());
}

/// The header of a disk in qcow2 of 1 GiB, which names a file of somebody's where that is wanted.
fn qcow2(names_a_file: bool) -> Vec<u8> {
    let mut header = b"QFI\xfb\0\0\0\x03".to_vec();
    header.resize(104, 0);
    header[24..32].copy_from_slice(&(1_u64 << 30).to_be_bytes());
    header[79] = u8::from(names_a_file) << 2;
    header
}

#[tokio::test]
async fn a_clouds_image_is_taken_and_one_that_names_other_files_is_not_whatever_describes_it() {
    let world = World::new();
    let images = world.images();
    let folder = world.path("noble");
    fs::create_dir_all(&folder).unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    put("noble-amd64.img", &qcow2(false));
    put("noble-amd64-vmlinuz-generic", b"kernel");
    put("noble-amd64-initrd-generic", b"initrd");
    let done = images.import(&folder, None, false, Arc::new(Silent), token()).await.unwrap();
    assert_eq!((done.name.as_str(), done.present), ("noble-amd64", false));
    assert!(images.import(&folder, None, false, Arc::new(Silent), token()).await.unwrap().present);
    images.verify("noble-amd64", Arc::new(Silent), token()).await.unwrap();
    // As somebody would who describes such a disk himself.
    let described = fs::read_to_string(done.folder.join("guest.json")).unwrap();
    let sum = |bytes: &[u8]| crate::world::sha256(bytes);
    put("noble-amd64.img", &qcow2(true));
    put("guest.json", described.replace(&sum(&qcow2(false)), &sum(&qcow2(true))).as_bytes());
    let error = images.import(&folder, Some("other"), false, Arc::new(Silent), token()).await.unwrap_err();
    assert!(error.to_string().contains("part of another file"), "{error}");
    assert!(images.find("other").is_err() && world.leftovers().is_empty());
}

#[tokio::test]
async fn a_name_is_no_path() {
    let world = World::new();
    let images = world.images();
    for name in ["", ".", "..", "../x", "a/b", ".hidden", "Upper", "nul", "-x", &"a".repeat(65)] {
        assert!(matches!(images.find(name), Err(Error::Name { .. })), "{name}");
        assert!(matches!(images.remove(name, token()).await, Err(Error::Name { .. } | Error::State(_))), "{name}");
        let built = world.built("built", 1);
        assert!(images.import(&built, Some(name), false, Arc::new(Silent), token()).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn whoever_is_second_waits_until_it_is_cancelled() {
    let world = World::new();
    let images = world.images();
    let built = world.built("built", 7);
    fs::create_dir_all(world.path("locks")).unwrap();
    let lock = pcoder_state::Lock::try_take(&world.path("locks/image-a.lock")).unwrap().unwrap();
    let cancel = token();
    let (import, ()) = tokio::join!(images.import(&built, Some("a"), false, Arc::new(Silent), cancel.clone()), async {
        cancel.cancel()
    });
    assert!(matches!(import, Err(Error::Cancelled { .. })));
    drop(lock);
    images.import(&built, Some("a"), false, Arc::new(Silent), token()).await.unwrap();
}
