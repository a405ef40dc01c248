//! Values in files.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use pcoder_secrets::{MAX_LENGTH, Warning};

use crate::{reference, resolver, value, wrong};

#[tokio::test]
async fn a_file_is_found_by_its_path_at_the_home_and_at_the_base() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("home/keys")).unwrap();
    fs::write(at("home/keys/one"), "of the home\n").unwrap();
    fs::write(at("two"), "of the base\r\n").unwrap();
    std::os::unix::fs::symlink(at("two"), at("link")).unwrap();
    let mut resolver = resolver(folder.path(), &[]);
    assert_eq!(value(&resolver, "file:~/keys/one").await, "of the home");
    assert_eq!(value(&resolver, "file:two").await, "of the base");
    assert_eq!(value(&resolver, "file:home/../link").await, "of the base");
    assert_eq!(value(&resolver, &format!("file:{}", at("two").display())).await, "of the base");
    resolver.home = None;
    assert_eq!(
        wrong(&resolver, "file:~/one").await,
        "file:~/one: the path is in the home folder, and it is not known which that is"
    );
}

#[tokio::test]
async fn what_is_no_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("folder")).unwrap();
    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let _socket = UnixListener::bind(at("socket")).unwrap();
    let resolver = resolver(folder.path(), &[]);
    let all = async {
        assert_eq!(wrong(&resolver, "file:folder").await, "file:folder: it is a folder and no file");
        // Nobody ever writes into it.
        assert_eq!(wrong(&resolver, "file:pipe").await, "file:pipe: it is a pipe and no file");
        assert_eq!(wrong(&resolver, "file:socket").await, "file:socket: it is a socket and no file");
        assert_eq!(wrong(&resolver, "file:/dev/zero").await, "file:/dev/zero: it is a device and no file");
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("it does not wait");
    let missing = wrong(&resolver, "file:missing").await;
    assert!(missing.starts_with("file:missing: cannot find it: "), "{missing}");
}

#[tokio::test]
async fn what_is_no_value_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let resolver = resolver(folder.path(), &[]);
    for (content, problem) in [
        (Vec::new(), "it is empty"),
        (b"\n".to_vec(), "it is empty"),
        (b"a\0b".to_vec(), "it holds a NUL byte"),
        (b"\xff\xfe".to_vec(), "it is not UTF-8 text"),
        (vec![b'a'; 70 * 1024], "it is longer than 64 KiB"),
    ] {
        fs::write(folder.path().join("key"), content).unwrap();
        assert_eq!(wrong(&resolver, "file:key").await, format!("file:key: {problem}"));
    }
    fs::write(folder.path().join("key"), vec![b'a'; MAX_LENGTH]).unwrap();
    assert_eq!(value(&resolver, "file:key").await.len(), MAX_LENGTH);
}

#[tokio::test]
async fn a_file_that_others_can_read_is_taken_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a key");
    fs::write(&path, "secret").unwrap();
    let resolver = resolver(folder.path(), &[]);
    let key = reference("file:a key");
    for (mode, warned) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let warning = resolver.warning(&key);
        assert_eq!(warning, warned.then(|| Warning::ReadableByOthers { path: path.clone(), mode }));
        assert_eq!(value(&resolver, "file:a key").await, "secret");
    }
    let warning = resolver.warning(&key).expect("a warning");
    assert_eq!(warning.to_string(), format!("other users can read the secret in {} (mode 0604)", path.display()));
    assert_eq!(warning.hint(), format!("run `chmod 600 '{}'`", path.display()));
    assert_eq!(resolver.warning(&reference("file:missing")), None);
    assert_eq!(resolver.warning(&reference("env:KEY")), None);
}
