//! What a reference is, and what is none.

use pcoder_secrets::{Error, Reference, Source};
use proptest::prelude::*;

use crate::{reference, resolver, value, wrong};

const FORMS: &str = "env:NAME, file:PATH, keyring:NAME or command:LINE";

fn refused(text: &str) -> String {
    text.parse::<Reference>().expect_err(text).to_string()
}

#[test]
fn a_reference_says_its_source_and_whether_it_is_secret() {
    for (text, source) in [
        ("env:KEY", Source::Env),
        ("file:~/key", Source::File),
        ("keyring:box/one", Source::Keyring),
        ("command:op read 'op://a/b c'", Source::Command),
    ] {
        assert_eq!(reference(text).source(), source);
        assert!(reference(text).is_secret());
    }
    assert_eq!(reference("value:https://box.example").source(), Source::Value);
    assert!(!reference("value:x").is_secret());
}

#[test]
fn an_unknown_source_is_named_with_the_known_ones() {
    assert_eq!(refused("vault:a/b"), format!("unknown secret source `vault`, expected {FORMS}"));
    assert_eq!(refused("Env:KEY"), format!("unknown secret source `Env`, expected {FORMS}"));
}

#[test]
fn what_may_be_a_key_is_refused_without_being_shown() {
    let none = format!("this is no reference to a secret, expected {FORMS}; secrets are only taken by reference");
    for key in ["", ":", "sk-ant-1234", "sk-1:2", "KEY", "abcdefghijklmnopq:x", " env:KEY", "é:x", "a\nb:c"] {
        assert_eq!(refused(key), none, "{key}");
    }
    assert!("sk-ant".parse::<Reference>().expect_err("a key").hint().contains("`env:NAME`"));
}

#[test]
fn what_follows_the_source_must_fit_it() {
    let name = "is no name of an environment variable: letters, digits and `_`";
    for (text, problem) in [
        ("env:", "`env:` is missing".to_owned()),
        ("env:sk-ant-1234", format!("`env:` {name}")),
        ("env:1A", format!("`env:` {name}")),
        ("env:A=b", format!("`env:` {name}")),
        ("file:", "`file:` is missing".to_owned()),
        ("file:a\0b", "`file:` holds a NUL byte".to_owned()),
        ("keyring:", "`keyring:` is missing".to_owned()),
        ("keyring:a\nb", "`keyring:` is no name of an entry: it holds a control character".to_owned()),
        ("command:", "`command:` is missing".to_owned()),
        ("command:  ", "`command:` names no program".to_owned()),
        ("command:'' a", "`command:` names no program".to_owned()),
        ("command:pass 'a", "`command:` has a quote that is not closed".to_owned()),
        ("command:KEY=x pass", "`command:` sets a variable before the program, which only a shell would do".to_owned()),
        ("value:", "`value:` is missing".to_owned()),
    ] {
        assert_eq!(refused(text), format!("what follows {problem}"));
    }
}

#[test]
fn what_is_shown_of_a_reference_leaves_out_what_may_be_secret() {
    assert_eq!(reference("command:op read op://a/b").subject(), "command:op …");
    assert_eq!(reference("command:get-key").subject(), "command:get-key");
    assert_eq!(reference("env:KEY").subject(), "env:KEY");
    assert_eq!(format!("{:?}", reference("command:op hunter2")), "Reference(\"command:op …\")");
    assert_eq!(format!("{:?}", reference("value:hunter2")), "Reference(\"value:…\")");
}

#[test]
fn a_file_of_settings_says_where_a_reference_is_wrong() {
    #[derive(Debug, serde::Deserialize, serde::Serialize)]
    struct Settings {
        key: Reference,
    }
    let read: Settings = toml::from_str("key = \"env:KEY\"").unwrap();
    assert_eq!(read.key, reference("env:KEY"));
    assert_eq!(toml::to_string(&read).unwrap(), "key = \"env:KEY\"\n");
    for (text, begins) in [
        ("# x\nkey = \"vault:a\"\n", "unknown secret source `vault`, expected env:NAME"),
        ("# x\nkey = \"sk-ant-1234\"\n", "this is no reference to a secret"),
        ("# x\nkey = 1234\n", "this is no reference to a secret"),
        ("# x\nkey = 12.34\n", "this is no reference to a secret"),
        ("# x\nkey = [1]\n", "invalid type: sequence, expected a reference to a secret, such as \"env:NAME\""),
    ] {
        let error = toml::from_str::<Settings>(text).expect_err(text);
        assert!(error.message().starts_with(begins), "{}", error.message());
        assert!(!error.message().contains("34"), "{}", error.message());
        assert_eq!(error.span().expect("a place").start, 10);
    }
}

#[tokio::test]
async fn an_environment_is_the_one_that_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let resolver = resolver(folder.path(), &[("KEY", "first"), ("KEY", "a b\n"), ("NONE", "")]);
    assert_eq!(value(&resolver, "env:KEY").await, "a b\n");
    assert_eq!(wrong(&resolver, "env:NONE").await, "env:NONE: it is empty");
    // Every process has this one.
    assert_eq!(wrong(&resolver, "env:HOME").await, "env:HOME: this environment variable is not set");
    let error = crate::error(&resolver, "env:HOME").await;
    assert!(matches!(error, Error::NotSet { .. }));
    assert_eq!(error.hint(), "set the environment variable `HOME`");
}

#[tokio::test]
async fn a_plain_text_is_itself() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(value(&resolver(folder.path(), &[]), "value: a:b\n").await, " a:b\n");
}

fn any_reference() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z_][A-Za-z0-9_]{0,20}".prop_map(|it| format!("env:{it}")),
        "[^\0]{1,40}".prop_map(|it| format!("file:{it}")),
        "\\PC{1,40}".prop_map(|it| format!("keyring:{it}")),
        "[a-z/~. -]{0,5}[a-z]( '[^\0']{0,9}'| \\\\?[a-z:$]{1,9}){0,4}".prop_map(|it| format!("command:{it}")),
        "[^\0]{1,40}".prop_map(|it| format!("value:{it}")),
    ]
}

proptest! {
    #[test]
    fn a_reference_is_read_back_as_it_is_written(text in any_reference()) {
        let read: Reference = text.parse().map_err(|error| TestCaseError::fail(format!("{text:?}: {error}")))?;
        prop_assert_eq!(read.to_string(), text);
        prop_assert_eq!(&read.to_string().parse::<Reference>().unwrap(), &read);
        let json = serde_json::to_string(&read).unwrap();
        prop_assert_eq!(serde_json::from_str::<Reference>(&json).unwrap(), read);
    }

    #[test]
    fn any_text_is_a_reference_exactly_as_written_or_none(text in "\\PC{0,30}|(env|file|keyring|command|value):.{0,30}") {
        if let Ok(read) = text.parse::<Reference>() {
            prop_assert_eq!(read.to_string(), text);
        }
    }
}
