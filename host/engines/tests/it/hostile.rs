//! Archives with the right hash that mean harm: the lock was made from one, or its maker was.

use tar::EntryType;

use crate::toy::{Entry, PROGRAM, Tarball, World, file, gzip, package, tar};

fn program() -> Entry<'static> {
    Entry { mode: 0o755, ..file("package/bin/toy", PROGRAM) }
}

/// Refused, with a reason, and nothing written anywhere: neither in the store nor beside it.
async fn assert_refused(tarball: Tarball, reason: &str) {
    let world = World::new(&[tarball]);
    let error = world.install().await.unwrap_err();
    assert_eq!(error.code(), "integrity");
    assert!(error.to_string().contains(reason), "{error} / {reason}");
    world.assert_absent();
    let beside: Vec<_> = std::fs::read_dir(world.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(beside, ["store"]);
    assert!(!std::path::Path::new("/tmp/pcoder-escaped").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_leave_the_folder() {
    for (name, reason) in [
        ("package/../../../../escaped", "`.` or `..`"),
        ("../escaped", "`.` or `..`"),
        ("package/./x", "`.` or `..`"),
        ("/tmp/pcoder-escaped", "is absolute"),
        ("package//x", "empty component"),
        ("package/a\\b", "control character or one of"),
        ("C:/x/y", "control character or one of"),
        ("package/C:x", "control character or one of"),
        ("package/nul.txt", "Windows device"),
        ("package/x.", "ends in a dot"),
        ("package/a\nb", "control character"),
        ("other/x", "is not below `package/`"),
        ("lonely", "is not below `package/`"),
        ("package", "is not below the package's folder"),
    ] {
        assert_refused(package("toy", "1.0.0", &[program(), file(name, b"x")]), reason).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_hidden_in_an_extension() {
    for (name, reason) in [("package/../../x", "`.` or `..`"), ("/tmp/pcoder-escaped", "is absolute")] {
        let record = format!(" path={name}\n");
        let pax = format!("{}{record}", record.len() + 2);
        let kind = |kind, data| Entry { kind, ..file("package/x", data) };
        let by_pax = [program(), kind(EntryType::XHeader, pax.as_bytes()), file("package/x", b"x")];
        assert_refused(package("toy", "1.0.0", &by_pax), reason).await;
        let by_gnu = [program(), kind(EntryType::GNULongName, name.as_bytes()), file("package/x", b"x")];
        assert_refused(package("toy", "1.0.0", &by_gnu), reason).await;
        let global = [program(), kind(EntryType::XGlobalHeader, pax.as_bytes()), file("package/x", b"x")];
        assert_refused(package("toy", "1.0.0", &global), "a global header names a path").await;
    }
    let size = Entry { kind: EntryType::XHeader, ..file("x", b"9 size=1\n") };
    assert_refused(package("toy", "1.0.0", &[size, program()]), "changes a size").await;
    let endless = vec![b'a'; 70_000];
    let long = Entry { kind: EntryType::GNULongName, ..file("x", &endless) };
    assert_refused(package("toy", "1.0.0", &[long, program()]), "too large").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file() {
    for (kind, reason) in [
        (EntryType::Symlink, "a symbolic link"),
        (EntryType::Link, "a hard link"),
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a fifo"),
        (EntryType::GNUSparse, "a sparse file"),
        (EntryType::Continuous, "neither a file nor a folder"),
        (EntryType::new(b'Z'), "neither a file nor a folder"),
    ] {
        let entry = Entry { kind, link: b"/etc/passwd", ..file("package/x", b"") };
        assert_refused(package("toy", "1.0.0", &[program(), entry]), reason).await;
    }
    // A link to a folder, and then a file through it.
    let link = Entry { kind: EntryType::Symlink, link: b"/tmp", ..file("package/l", b"") };
    let through = file("package/l/pcoder-escaped", b"x");
    assert_refused(package("toy", "1.0.0", &[program(), link, through]), "a symbolic link").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_files_in_one_place() {
    let twice = |a: &'static str, b: &'static str| package("toy", "1.0.0", &[program(), file(a, b"1"), file(b, b"2")]);
    assert_refused(twice("package/x", "package/x"), "is there twice").await;
    assert_refused(twice("package/readme", "package/README"), "is there twice").await;
    assert_refused(twice("package/x", "package/x/y"), "a file and a folder").await;
    assert_refused(twice("package/x/y", "package/x"), "a file and a folder").await;
    assert_refused(twice("package/X", "package/x/y"), "a file and a folder").await;
    let folder = Entry { kind: EntryType::Directory, ..file("package/bin/toy/", b"") };
    assert_refused(package("toy", "1.0.0", &[program(), folder]), "a file and a folder").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_lock_allows() {
    let entries = [program(), file("package/a", &[0; 5000]), file("package/b", b"")];
    let honest = package("toy", "1.0.0", &entries);
    let bytes = honest.unpacked;
    assert_refused(Tarball { unpacked: bytes - 1, ..honest.clone() }, "more than the").await;
    assert_refused(Tarball { files: 2, ..honest.clone() }, "more than the 2 files").await;
    assert_refused(Tarball { unpacked: bytes + 1, ..honest.clone() }, "the lock says").await;
    assert_refused(Tarball { files: 4, ..honest }, "the lock says").await;

    // 200 MB of nothing, in what is not counted as a file.
    let zeros = vec![0; 200_000_000];
    let hidden = [program(), Entry { kind: EntryType::XGlobalHeader, ..file("package/x", &zeros) }];
    assert_refused(package("toy", "1.0.0", &hidden), "too large").await;
    let mut many: Vec<Entry<'_>> = vec![program()];
    let folder = |name| Entry { kind: EntryType::Directory, ..file(name, b"") };
    many.extend((0..20_000).map(|_| folder("package/a")));
    assert_refused(package("toy", "1.0.0", &many), "more than the lock allows").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_that_are_none() {
    let whole = tar(&[program(), file("package/a", &[7; 5000])]);
    let with =
        |bytes: Vec<u8>| Tarball { bytes, ..package("toy", "1.0.0", &[program(), file("package/a", &[7; 5000])]) };
    assert_refused(with(gzip(&whole[..2000])), "refused").await;
    assert_refused(with(gzip(b"no archive at all")), "refused").await;
    assert_refused(with(b"not even gzip".to_vec()), "it is damaged").await;
    assert_refused(with(Vec::from(&gzip(&whole)[..60])), "refused").await;
    let mut checksum = whole;
    checksum[0] ^= 1;
    assert_refused(with(gzip(&checksum)), "it is damaged").await;
}
