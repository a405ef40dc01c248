use std::cell::RefCell;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::types::Command as Spec;

/// Runs scripts with the real shell, below a home of its own, and notes how long the longest one was.
struct Shell {
    home: TempDir,
    longest: RefCell<usize>,
    runs: RefCell<usize>,
}

impl Shell {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap(), longest: RefCell::new(0), runs: RefCell::new(0) }
    }

    fn files(&self) -> ExecFiles<impl Fn(&CommandSpec, &[u8]) -> Result<Output> + '_> {
        ExecFiles::new(move |spec: &CommandSpec, input: &[u8]| {
            let Spec::Shell(script) = &spec.command else { panic!("a script") };
            *self.runs.borrow_mut() += 1;
            let longest = (*self.longest.borrow()).max(script.len());
            *self.longest.borrow_mut() = longest;
            let mut child = Command::new("sh")
                .args(["-c", script])
                .env("HOME", self.home.path())
                .current_dir(self.home.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            // A command that ends before it has read its input is a failure of the command, not of the test.
            drop(child.stdin.take().unwrap().write_all(input));
            let output = child.wait_with_output().unwrap();
            Ok(Output::new(output.status.code().unwrap_or(255), output.stdout, output.stderr))
        })
    }

    fn printed(&self, script: &str) -> String {
        let output = Command::new("sh").args(["-c", script]).current_dir(self.home.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.home.path().join(name)).unwrap().permissions().mode() & 0o7777
    }

    fn entries(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.home.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn plain() -> WriteOptions {
    WriteOptions::plain()
}

#[test]
fn bytes_come_back_as_they_were() {
    let all: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    for stdin in [true, false] {
        let shell = Shell::new();
        let files = shell.files();
        let files = if stdin { files } else { files.without_stdin() };
        for content in [b"".as_slice(), b"x", b"\r\n\0\xff", &all] {
            files.write("~/a", content, plain()).unwrap();
            assert_eq!(files.read("~/a").unwrap(), content);
            files.write_atomic("~/b", content, plain()).unwrap();
            assert_eq!(files.read("~/b").unwrap(), content);
        }
        assert_eq!(shell.entries(), ["a", "b"]);
        if !stdin {
            assert!(*shell.longest.borrow() < 128 * 1024, "{}", shell.longest.borrow());
        }
    }
}

#[test]
fn large_content_takes_several_commands() {
    let shell = Shell::new();
    let content: Vec<u8> = (0..2500_u32).flat_map(u32::to_le_bytes).collect();
    let files = shell.files().with_chunk(999);
    files.write_atomic("~/f", &content, plain()).unwrap();
    assert_eq!(*shell.runs.borrow(), 11);
    assert_eq!(files.read("~/f").unwrap(), content);
    assert_eq!(*shell.runs.borrow(), 11 + 11);
}

#[test]
fn modes_and_folders() {
    let shell = Shell::new();
    let files = shell.files();
    files.write("~/.c/d/secret", b"s", plain().with_parents().with_mode(0o600)).unwrap();
    assert_eq!(shell.mode(".c/d/secret"), 0o600);
    files.write_atomic("~/.c/d/secret", b"t", plain().with_mode(0o640)).unwrap();
    assert_eq!(shell.mode(".c/d/secret"), 0o640);
    files.write("~/new", b"", plain()).unwrap();
    files.write_atomic("~/new-atomic", b"", plain()).unwrap();
    assert_eq!(shell.mode("new"), shell.mode("new-atomic"));
    let me = shell.printed("printf '%s:%s' $(id -u) $(id -g)");
    files.write("~/owned", b"o", plain().with_owner(me.as_str()).with_mode(0o640)).unwrap();
    files.write_atomic("~/owned", b"p", plain().with_owner(me.as_str()).with_mode(0o4750)).unwrap();
    assert_eq!((shell.mode("owned"), shell.printed("stat -c %u:%g owned")), (0o4750, me));
    let error = files.write_atomic("~/owned", b"q", plain().with_owner("pcoder-no-such-user")).unwrap_err();
    assert_eq!((error.code.as_str(), files.read("~/owned").unwrap()), ("io", b"p".to_vec()));
    assert!(!shell.entries().iter().any(|name| name.starts_with(".owned")), "{:?}", shell.entries());
    files.create_directory("~/p/q", Some(0o700)).unwrap();
    files.create_directory("~/p/q", Some(0o700)).unwrap();
    assert_eq!(shell.mode("p/q"), 0o700);
    let error = files.write("~/missing/f", b"", plain()).unwrap_err();
    assert_eq!((error.code.as_str(), error.subject.as_deref()), ("not-found", Some("~/missing/f")));
}

#[test]
fn what_is_not_there_and_what_is_no_file() {
    let shell = Shell::new();
    let files = shell.files();
    assert_eq!(files.read("~/no").unwrap_err().code, "not-found");
    assert_eq!(files.read("~").unwrap_err().code, "invalid");
    files.create_directory("~/d", None).unwrap();
    assert_eq!(files.write("~/d", b"x", plain()).unwrap_err().code, "invalid");
    assert_eq!(files.write_atomic("~/d", b"x", plain()).unwrap_err().code, "invalid");
    assert!(files.exists("~/d").unwrap());
    assert!(!files.exists("~/no").unwrap());
    files.delete_file("~/no").unwrap();
    files.delete_directory("~/no").unwrap();
    assert_eq!(files.delete_file("~/d").unwrap_err().code, "io");
    files.delete_directory("~/d").unwrap();
    assert!(shell.entries().is_empty(), "{:?}", shell.entries());
    for dear in ["/", "~", "~/", "/a/..", "~/x/.."] {
        assert_eq!(files.delete_directory(dear).unwrap_err().code, "invalid", "{dear}");
    }
    for wrong in ["", "~root/x", "a\0b"] {
        assert_eq!(files.read(wrong).unwrap_err().code, "invalid", "{wrong}");
    }
}

#[test]
fn a_short_write_is_found_and_leaves_the_old_file() {
    let shell = Shell::new();
    shell.files().write("~/f", b"old", plain()).unwrap();
    let inner = shell.files();
    let lossy = ExecFiles::new(|spec: &CommandSpec, input: &[u8]| (inner.exec)(spec, &input[..input.len() / 2]));
    let error = lossy.write_atomic("~/f", b"new content", plain()).unwrap_err();
    assert_eq!(error.code, "integrity");
    assert_eq!(shell.files().read("~/f").unwrap(), b"old");
    assert_eq!(shell.entries(), ["f"]);
}

#[test]
fn a_backend_that_takes_files_gets_only_the_content() {
    let shell = Shell::new();
    let put = |path: &str, content: &[u8]| {
        let path = path.strip_prefix("~/").unwrap_or(path);
        // Somebody else may read what has its permissions only afterwards.
        assert_eq!(shell.mode(path) & 0o077, 0, "{path}");
        fs::write(shell.home.path().join(path), content).unwrap();
        Ok(())
    };
    let options = || WriteOptions { create_parents: true, mode: Some(0o640), owner: None };
    let files = shell.files().with_put(put);
    let content = vec![7; 3 * CHUNK];
    files.write_atomic("~/a/it's", &content, options()).unwrap();
    files.write("~/b", &content, options()).unwrap();
    assert!(*shell.longest.borrow() < 1000);
    for name in ["a/it's", "b"] {
        assert!(fs::read(shell.home.path().join(name)).unwrap() == content, "{name}");
        assert_eq!(shell.mode(name), 0o640);
    }
    assert_eq!(files.write_atomic("~/a", b"", plain()).unwrap_err().code, "invalid");

    let full = |_: &str, _: &[u8]| Err(Error::new(code::IO, "put", "no space left"));
    let error = shell.files().with_put(full).write_atomic("~/b", b"new", plain()).unwrap_err();
    assert_eq!((error.code.as_str(), shell.entries()), ("io", vec!["a".to_owned(), "b".to_owned()]));
    assert!(fs::read(shell.home.path().join("b")).unwrap() == content);
    assert_eq!(shell.printed("ls -A a"), "it's");
}

#[test]
fn terminals_that_translate_newlines_do_no_harm() {
    let shell = Shell::new();
    let content: Vec<u8> = (0..=255).collect();
    shell.files().write("~/f", &content, plain()).unwrap();
    let inner = shell.files();
    let terminal = ExecFiles::new(|spec: &CommandSpec, input: &[u8]| {
        let mut output = (inner.exec)(spec, input)?;
        output.stdout = output.text().replace('\n', "\r\n").into_bytes();
        Ok(output)
    });
    assert_eq!(terminal.read("~/f").unwrap(), content);
    assert!(terminal.exists("~/f").unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_name_is_a_name(name in "[^/\0]{1,40}") {
        prop_assume!(name != "." && name != ".." && name.len() < 200);
        let shell = Shell::new();
        let files = shell.files();
        let path = format!("~/{name}");
        files.write_atomic(&path, b"x", plain()).unwrap();
        prop_assert_eq!(shell.entries(), vec![name]);
        prop_assert_eq!(files.read(&path).unwrap(), b"x");
        files.delete_file(&path).unwrap();
        prop_assert!(shell.entries().is_empty());
    }
}
