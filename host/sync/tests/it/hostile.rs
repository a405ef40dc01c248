//! An instance that sends what nobody asked for.

use std::os::unix::fs::symlink;
use std::path::Path;

use flate2::write::GzEncoder;
use pcoder_sync::{Error, Reason};

use crate::machine::{Pair, Shell, read, tree, write};

/// An entry of an archive, with whatever name and link.
fn entry(name: &[u8], kind: tar::EntryType, link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..name.len()].copy_from_slice(name);
    gnu.linkname[..link.len()].copy_from_slice(link);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn packed(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &entries.concat()).unwrap();
    std::io::Write::write_all(&mut gzip, &[0; 1024]).unwrap();
    gzip.finish().unwrap()
}

/// A pull for which the instance sends that instead of the files `a` and `b`.
fn pull(sent: Vec<u8>) -> (Pair, pcoder_sync::Result<pcoder_sync::Pulled>) {
    let pair = Pair::new(Shell::System);
    write(pair.host().join("mine"), "x");
    pair.push();
    write(pair.instance().join("a"), "from there");
    write(pair.instance().join("b"), "from there");
    pair.machine.after(move |number, ran| {
        if number == 1 {
            ran.as_mut().unwrap().stdout.clone_from(&sent);
        }
    });
    let pulled = pair.try_pull();
    pair.machine.quiet();
    (pair, pulled)
}

#[test]
fn an_archive_with_anything_that_was_not_asked_for_is_refused_as_a_whole() {
    use tar::EntryType as Kind;
    let good = || entry(b"./a", Kind::Regular, b"", b"from there");
    let mut bad: Vec<Vec<Vec<u8>>> = [
        &b"../escaped"[..],
        b"./../escaped",
        b"/tmp/escaped",
        b"./a/../../escaped",
        b"./mine",
        b"./other",
        b".",
        b"",
        b"./.pcoder-sync/x",
    ]
    .into_iter()
    .map(|name| vec![good(), entry(name, Kind::Regular, b"", b"evil")])
    .collect();
    bad.push(vec![good(), good()]);
    bad.push(vec![entry(b"./a", Kind::Link, b"/etc/passwd", b"")]);
    bad.push(vec![entry(b"./a", Kind::Link, b"./mine", b"")]);
    bad.push(vec![entry(b"./a", Kind::Link, b"./a", b"")]);
    bad.push(vec![entry(b"./a", Kind::Link, b"./b", b""), entry(b"./b", Kind::Link, b"./a", b"")]);
    bad.push(vec![entry(b"./a", Kind::Char, b"", b"")]);
    bad.push(vec![entry(b"./a", Kind::Fifo, b"", b"")]);
    bad.push(vec![good(), entry(b"evil", Kind::Symlink, b"/etc", b""), entry(b"evil/x", Kind::Regular, b"", b"x")]);
    for entries in bad {
        let names: Vec<String> = entries.iter().map(|it| String::from_utf8_lossy(&it[..20]).into_owned()).collect();
        let (pair, pulled) = pull(packed(&entries));
        assert!(matches!(pulled, Err(Error::Garbled { .. })), "{names:?}: {pulled:?}");
        let now: Vec<_> = tree(&pair.host()).into_keys().collect();
        assert_eq!(now, [Path::new("mine")], "{names:?}: nothing was taken");
        assert_eq!(read(pair.host().join("mine")), "x");
        assert!(!pair.folder.path().join("escaped").exists() && !Path::new("/tmp/escaped").exists());
        // An honest one then does.
        pair.pull();
        pair.assert_same();
    }
}

#[test]
fn an_archive_that_is_none_is_refused() {
    let whole = packed(&[entry(b"./a", tar::EntryType::Regular, b"", b"from there")]);
    for sent in [b"hello".to_vec(), vec![0x1f, 0x8b, 8, 0], whole[..whole.len() / 2].to_vec(), vec![7; 5000]] {
        let (_, pulled) = pull(sent);
        assert!(matches!(pulled, Err(Error::Garbled { .. })), "{pulled:?}");
    }
}

#[test]
fn a_few_bytes_that_unpack_to_very_many_are_refused() {
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 300 << 20), &mut gzip).unwrap();
    let (_, pulled) = pull(gzip.finish().unwrap());
    assert!(matches!(pulled, Err(Error::Garbled { .. })), "{pulled:?}");
}

#[test]
fn content_that_is_not_what_was_described_is_not_taken() {
    let sent = [
        entry(b"./a", tar::EntryType::Regular, b"", b"FROM THERE"),
        entry(b"./b", tar::EntryType::Symlink, b"/etc/passwd", b""),
    ];
    let (pair, pulled) = pull(packed(&sent));
    let pulled = pulled.unwrap();
    assert_eq!(pulled.skipped.len(), 2);
    assert!(pulled.skipped.iter().all(|it| it.reason == Reason::Changed) && pulled.created.is_empty());
    assert!(!pair.host().join("a").exists() && !pair.host().join("b").exists());
}

#[test]
fn nothing_is_written_through_a_link() {
    let pair = Pair::new(Shell::System);
    let (host, instance) = (pair.host(), pair.instance());
    let outside = pair.folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    write(outside.join("file"), "outside");
    write(host.join("d/file"), "before");
    write(host.join("f"), "before");
    pair.push();
    // The instance makes a folder and a file links that lead out, which a pull makes as they are.
    std::fs::remove_dir_all(instance.join("d")).unwrap();
    symlink(&outside, instance.join("d")).unwrap();
    std::fs::remove_file(instance.join("f")).unwrap();
    symlink(outside.join("file"), instance.join("f")).unwrap();
    pair.pull();
    assert_eq!(std::fs::read_link(host.join("d")).unwrap(), outside);
    // Then it makes them a folder and a file again.
    std::fs::remove_file(instance.join("d")).unwrap();
    write(instance.join("d/file"), "evil");
    write(instance.join("d/more"), "evil");
    std::fs::remove_file(instance.join("f")).unwrap();
    write(instance.join("f"), "evil");
    pair.pull();
    assert_eq!(tree(&outside).len(), 1);
    assert_eq!(read(outside.join("file")), "outside");
    pair.assert_same();
    // A link that appears on the host just before it is written there.
    write(instance.join("d/file"), "evil again");
    write(instance.join("d/new"), "evil again");
    write(instance.join("f"), "evil again");
    let (folder, away) = (host.clone(), outside.clone());
    pair.machine.after(move |number, _| {
        if number == 1 {
            std::fs::rename(folder.join("d"), folder.join("moved")).unwrap();
            symlink(&away, folder.join("d")).unwrap();
            std::fs::remove_file(folder.join("f")).unwrap();
            symlink(away.join("file"), folder.join("f")).unwrap();
        }
    });
    let pulled = pair.pull();
    pair.machine.quiet();
    assert!(!pulled.skipped.is_empty(), "{pulled:?}");
    assert_eq!(tree(&outside).len(), 1);
    assert_eq!(read(outside.join("file")), "outside");
    assert_eq!(read(host.join("f.from-vm")), "evil again");
}

#[test]
fn a_link_in_the_place_of_the_staging_folder_is_not_followed() {
    let pair = Pair::new(Shell::System);
    let outside = pair.folder.path().join("outside");
    write(outside.join("file"), "outside");
    write(pair.host().join("a"), "x");
    pair.push();
    symlink(&outside, pair.host().join(".pcoder-sync")).unwrap();
    symlink(&outside, pair.instance().join(".pcoder-sync")).unwrap();
    write(pair.instance().join("b"), "x");
    pair.pull();
    write(pair.host().join("c"), "x");
    pair.push();
    assert_eq!(read(outside.join("file")), "outside");
    assert_eq!(tree(&outside).len(), 1);
    pair.assert_same();
}
