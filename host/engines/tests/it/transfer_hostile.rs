//! Exported files that are broken or mean harm: whatever is in one, the lock decides what is installed.

use std::path::Path;
use std::sync::Arc;

use pcoder_engines::{Error, ImportOptions, InstalledEngine};
use tar::EntryType;
use tokio_util::sync::CancellationToken;

use crate::toy::{Entry, Log, PROGRAM, World, file, gzip, tar, toy};

const BALLAST: usize = 20_000;

fn world() -> World {
    World::new(&[toy("1.0.0", BALLAST)])
}

async fn import(world: &World, from: &Path) -> Result<Vec<InstalledEngine>, Error> {
    let (log, cancel) = (Arc::new(Log::default()), CancellationToken::new());
    world.store().import(from, &ImportOptions::default(), log, cancel).await
}

async fn exported() -> Vec<u8> {
    let world = world();
    world.install().await.unwrap();
    let to = world.folder.path().join("exports");
    let (log, cancel) = (Arc::new(Log::default()), CancellationToken::new());
    let exported = world.store().export(&[("toy", None)], &to, log, cancel).await.unwrap();
    std::fs::read(&exported[0].file).unwrap()
}

fn record(text: &str) -> Vec<u8> {
    let rest = format!(" comment={text}\n");
    format!("{}{rest}", rest.len() + 2).into_bytes()
}

/// As the real one begins, and then whatever is in it.
fn with_head(words: &str, entries: &[Entry<'_>]) -> Vec<u8> {
    let record = record(&format!("pcoder-engine 1 {words}"));
    let head = Entry { kind: EntryType::XGlobalHeader, ..file("pax_global_header", &record) };
    let mut bytes = tar(&[head]);
    bytes.truncate(1024);
    bytes.extend(tar(entries));
    bytes
}

fn program() -> Entry<'static> {
    Entry { mode: 0o755, ..file("package/bin/toy", PROGRAM) }
}

/// Refused with this code and reason, and nothing written but where the file itself lies.
async fn assert_refused(bytes: &[u8], code: &str, reason: &str) {
    let world = world();
    let path = world.folder.path().join("x.pcoder-engine");
    std::fs::write(&path, bytes).unwrap();
    let error = import(&world, &path).await.unwrap_err();
    assert_eq!(error.code(), code, "{error} / {reason}");
    assert!(error.to_string().contains(reason), "{error} / {reason}");
    world.assert_absent();
    let mut beside: Vec<_> = std::fs::read_dir(world.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    beside.retain(|name| name != "store");
    assert_eq!(beside, ["x.pcoder-engine"]);
    assert!(!Path::new("/tmp/pcoder-escaped").exists());
}

async fn assert_archive_refused(entries: &[Entry<'_>], reason: &str) {
    let platform = world().store().platform();
    assert_refused(&gzip(&with_head(&format!("toy 1.0.0 {platform}"), entries)), "integrity", reason).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_changes_nothing_that_is_installed() {
    let whole = exported().await;
    let mut refused = 0;
    let positions = (0..whole.len()).step_by(211).chain(whole.len() - 20..whole.len());
    let all = positions.clone().count();
    for position in positions {
        let world = world();
        let path = world.folder.path().join("x.pcoder-engine");
        let mut bytes = whole.clone();
        bytes[position] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        match import(&world, &path).await {
            Err(error) => {
                assert!(["integrity", "invalid"].contains(&error.code()), "{position}: {error}");
                world.assert_absent();
                refused += 1;
            }
            // It was in what is no part of the tree: the end of the archive, the checksum of the compression.
            Ok(_) => world.assert_whole(),
        }
    }
    assert!(refused > all / 2, "{refused} of {all}");
    // In the middle of a file that does not compress, it can only be its contents.
    let mut bytes = whole.clone();
    bytes[whole.len() / 2] ^= 1;
    assert_refused(&bytes, "integrity", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn right_archives_of_wrong_files_are_told_by_the_tree() {
    let ballast = crate::toy::noise(BALLAST);
    let mut changed = ballast.clone();
    changed[100] ^= 1;
    let entry = |noise| [program(), file("package/package.json", b"{}"), file("package/data/noise", noise)];
    assert_archive_refused(&entry(&changed), "its unpacked files are blake3-").await;
    let plain = Entry { mode: 0o644, ..program() };
    let quiet = [plain, file("package/package.json", b"{}"), file("package/data/noise", &ballast)];
    assert_archive_refused(&quiet, "its unpacked files are blake3-").await;
    let renamed = [program(), file("package/package.jsom", b"{}"), file("package/data/noise", &ballast)];
    assert_archive_refused(&renamed, "its unpacked files are blake3-").await;
    assert_archive_refused(&entry(&ballast[1..]), "the lock says").await;
    assert_archive_refused(&[program()], "the lock says").await;
    // The same files in another order, by another tar: they are what counts.
    let (world, path) = (world(), tempfile::NamedTempFile::new().unwrap());
    let words = format!("toy 1.0.0 {}", world.store().platform());
    std::fs::write(path.path(), gzip(&with_head(&words, &entry(&ballast)))).unwrap();
    import(&world, path.path()).await.unwrap();
    world.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_ends_early_says_so() {
    let whole = exported().await;
    for length in [0, 1, 10, 17] {
        assert_refused(&whole[..length], "invalid", "is not an exported engine").await;
    }
    for length in [200, 1000, whole.len() / 2, whole.len() - 600] {
        assert_refused(&whole[..length], "integrity", "the file ends early").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_exported_engine() {
    let tarball = toy("1.0.0", BALLAST).bytes;
    for bytes in [&b"not even gzip"[..], &gzip(b"no archive"), &tarball, &gzip(&tar(&[]))] {
        assert_refused(bytes, "invalid", "does not begin as one").await;
    }
    let world = world();
    assert_eq!(import(&world, &world.folder.path().join("none")).await.unwrap_err().code(), "io");
    let empty = world.folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(empty.join(".toy.pcoder-engine.x.part"), "x").unwrap();
    let error = import(&world, &empty).await.unwrap_err();
    assert_eq!(error.code(), "invalid");
    assert!(error.to_string().contains("whose name ends in `.pcoder-engine`"), "{error}");
    assert!(!world.root().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_engines_and_versions_say_which_are_known() {
    let world = world();
    let platform = world.store().platform();
    for (words, hint) in [
        (format!("top 1.0.0 {platform}"), "engines are `toy`"),
        (format!("toy 9.0.0 {platform}"), "versions of `toy` are `1.0.0`"),
    ] {
        let path = world.folder.path().join("x.pcoder-engine");
        std::fs::write(&path, gzip(&with_head(&words, &[program()]))).unwrap();
        let error = import(&world, &path).await.unwrap_err();
        assert_eq!(error.code(), "invalid");
        assert!(error.hint().unwrap().starts_with(hint), "{error}");
    }
    for words in ["toy 1.0.0 any", "toy 1.0.0 plan9-x64", "toy 1.0.0 win32-x64"] {
        assert_refused(&gzip(&with_head(words, &[program()])), "unsupported-platform", "not for").await;
    }
    assert_refused(&gzip(&with_head("../toy 1.0.0 any", &[program()])), "invalid", "no engine called").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_links_in_an_exported_file() {
    for (name, reason) in [
        ("package/../../../../escaped", "`.` or `..`"),
        ("/tmp/pcoder-escaped", "is absolute"),
        ("package/a\\b", "control character or one of"),
        ("package/nul.txt", "Windows device"),
        ("other/x", "is not below `package/`"),
        ("package/bin/TOY", "is there twice"),
    ] {
        assert_archive_refused(&[program(), file(name, b"x")], reason).await;
    }
    for (kind, reason) in [
        (EntryType::Symlink, "a symbolic link"),
        (EntryType::Link, "a hard link"),
        (EntryType::Char, "a device"),
        (EntryType::Fifo, "a fifo"),
        (EntryType::GNUSparse, "a sparse file"),
    ] {
        let entry = Entry { kind, link: b"/etc/passwd", ..file("package/x", b"") };
        assert_archive_refused(&[program(), entry], reason).await;
    }
    let link = Entry { kind: EntryType::Symlink, link: b"/tmp", ..file("package/l", b"") };
    assert_archive_refused(&[program(), link, file("package/l/pcoder-escaped", b"x")], "a symbolic link").await;
}

/// The first header of this name says another size.
fn declare(bytes: &mut [u8], name: &str, size: u64) {
    let at = (0..bytes.len()).step_by(512).find(|at| bytes[*at..].starts_with(name.as_bytes())).unwrap();
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(&bytes[at..at + 512]);
    header.set_size(size);
    header.set_cksum();
    bytes[at..at + 512].copy_from_slice(header.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_lock_allows() {
    let words = format!("toy 1.0.0 {}", world().store().platform());
    for (size, reason) in [
        (BALLAST as u64 + 1000, "more than the"),
        (1 << 32, "more than the"),
        (1 << 62, "more than the"),
        (u64::MAX, "it is damaged"),
    ] {
        let mut bytes = with_head(&words, &[program(), file("package/data/noise", b"x")]);
        declare(&mut bytes, "package/data/noise", size);
        assert_refused(&gzip(&bytes), "integrity", reason).await;
        let mut bytes = with_head(&words, &[program()]);
        declare(&mut bytes, "pax_global_header", size);
        assert_refused(&gzip(&bytes), "invalid", "does not begin as one").await;
    }
    let zeros = vec![0; 200_000_000];
    assert_archive_refused(&[program(), file("package/data/noise", &zeros)], "more than the").await;
    let hidden = Entry { kind: EntryType::XGlobalHeader, ..file("x", &zeros) };
    assert_archive_refused(&[program(), hidden], "too large").await;
    let mut many: Vec<Entry<'_>> =
        (0..5_000).map(|_| Entry { kind: EntryType::Directory, ..file("package/a", b"") }).collect();
    many.push(program());
    assert_archive_refused(&many, "more than the lock allows").await;
    let names: Vec<String> = (0..4).map(|number| format!("package/{number}")).collect();
    let more: Vec<_> = names.iter().map(|name| file(name, b"")).collect();
    assert_archive_refused(&more, "more than the 3 files").await;
}
