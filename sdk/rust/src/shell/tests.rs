use std::process::Command as Process;

use proptest::prelude::*;

use super::*;

fn run(shell: &str, script: &str) -> std::process::Output {
    Process::new(shell).args(["-c", script]).env("HOME", "/tmp").output().unwrap()
}

/// What a program prints that gets these words, each one followed by a byte that no word holds.
fn words(shell: &str, line: &str) -> Vec<String> {
    let output = run(shell, line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_terminator('\u{1}').map(str::to_owned).collect()
}

const ECHO: [&str; 2] = ["printf", "%s\u{1}"];

#[test]
fn harmless_words_stay_readable() {
    assert_eq!(join(["/usr/bin/x", "--a=b", "c d", "", "it's"]), r"/usr/bin/x '--a=b' 'c d' '' 'it'\''s'");
    assert_eq!(quote_path("~/a b"), r#""$HOME"/'a b'"#);
    assert_eq!(quote_path("~"), r#""$HOME""#);
    assert_eq!(quote_path("~root"), "'~root'");
    assert_eq!(quote_path("-"), "./-");
}

#[test]
fn a_command_becomes_one_line() {
    let spec = CommandSpec::argv("pro gram", ["$(x)"])
        .in_dir("/a b")
        .with_env("KEY", "it's")
        .with_path_entry("/p q")
        .with_path_entry("~/bin");
    assert_eq!(
        line(&spec).unwrap(),
        r#"cd '/a b' && export KEY='it'\''s' && export PATH='/p q':"$HOME"/bin${PATH:+":$PATH"} && exec 'pro gram' '$(x)'"#
    );
    assert_eq!(line(&CommandSpec::shell("a | b")).unwrap(), "exec sh -c 'a | b'");
}

#[test]
fn what_no_line_can_say_is_refused() {
    for wrong in [
        CommandSpec::argv("x", ["a\0b"]),
        CommandSpec::argv("x", [""; 0]).with_env("A-B", "c"),
        CommandSpec::argv("x", [""; 0]).with_env("", "c"),
        CommandSpec::argv("x", [""; 0]).with_env("A;rm -rf /;B", "c"),
        CommandSpec::argv("x", [""; 0]).with_path_entry("/a:/b"),
    ] {
        assert_eq!(line(&wrong).map_err(|error| error.code), Err("invalid".to_owned()));
    }
}

#[test]
fn a_failed_folder_change_runs_nothing() {
    let output = run("sh", &line(&CommandSpec::shell("echo ran").in_dir("/nonexistent")).unwrap());
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
}

#[test]
fn path_entries_come_first() {
    let spec = CommandSpec::shell("printf %s \"$PATH\"").with_env("PATH", "/usr/bin:/bin").with_path_entry("/first");
    assert_eq!(run("sh", &line(&spec).unwrap()).stdout, b"/first:/usr/bin:/bin");
    let empty =
        CommandSpec::argv("/bin/sh", ["-c", "printf %s \"$PATH\""]).with_env("PATH", "").with_path_entry("/only");
    assert_eq!(run("sh", &line(&empty).unwrap()).stdout, b"/only");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_word_arrives_as_it_was(args in prop::collection::vec("[^\0\u{1}]{0,30}", 0..5)) {
        let mut all: Vec<String> = ECHO.map(str::to_owned).to_vec();
        all.extend(args.iter().cloned());
        // Without arguments printf prints its format once, with an empty word.
        let expected = if args.is_empty() { vec![String::new()] } else { args };
        for shell in ["bash", "sh"] {
            prop_assert_eq!(&words(shell, &join(&all)), &expected);
        }
    }

    #[test]
    fn every_dangerous_word_arrives_as_it_was(args in prop::collection::vec("[-$`'\"\\\\!*?~#&|;<>(){}\\[\\]= \t\n\ra-b^%]{1,12}", 1..4)) {
        let mut all: Vec<String> = ECHO.map(str::to_owned).to_vec();
        all.extend(args.iter().cloned());
        for shell in ["bash", "sh"] {
            prop_assert_eq!(&words(shell, &join(&all)), &args);
        }
    }

    #[test]
    fn every_value_and_word_of_a_line_arrives(value in "[^\0\u{1}]{0,30}", arg in "[^\0\u{1}]{0,30}") {
        let script = "printf '%s\u{1}' \"$VALUE\" \"$1\"";
        let spec = CommandSpec::argv("sh", ["-c", script, "sh", &arg]).with_env("VALUE", &value).in_dir("~");
        let line = line(&spec).unwrap();
        for shell in ["bash", "sh"] {
            prop_assert_eq!(words(shell, &line), vec![value.clone(), arg.clone()]);
        }
    }
}
