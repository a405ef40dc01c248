//! No error, no hint and no debug output holds a value.

use std::error::Error as _;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use pcoder_secrets::{Error, Reference};
use proptest::prelude::*;

use crate::{error, resolver, value};

const CANARY: &str = "sk-canary-7f3a9c";

/// Everything that an error can show.
fn shown(error: &Error) -> String {
    let mut text = format!("{error}\n{error:?}\n{error:#?}\n{}\n{:?}", error.hint(), error.subject());
    let mut cause = error.source();
    while let Some(it) = cause {
        text += &format!("\n{it}\n{it:?}");
        cause = it.source();
    }
    text
}

fn silent(error: &Error) {
    let text = shown(error);
    assert!(!text.contains("canary") && !text.contains("7f3a9c"), "{text}");
}

#[tokio::test]
async fn a_value_that_is_refused_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let mut resolver = resolver(folder.path(), &[("KEY", CANARY)]);
    resolver.command_deadline = Duration::from_secs(1);
    let spoilt = [
        format!("{CANARY}\0").into_bytes(),
        [CANARY.as_bytes(), b"\xff"].concat(),
        CANARY.repeat(70 * 1024 / CANARY.len() + 1).into_bytes(),
    ];
    for content in spoilt {
        fs::write(folder.path().join("key"), &content).unwrap();
        silent(&error(&resolver, "file:key").await);
        silent(&error(&resolver, "command:cat key").await);
        if content.len() < 100 {
            resolver.environment.push(("BAD".into(), OsString::from_vec(content)));
            silent(&error(&resolver, "env:BAD").await);
        }
    }
    for line in [
        format!("command:sh -c 'echo {CANARY}; echo {CANARY} >&2; exit 1' {CANARY}"),
        "command:sh -c 'echo $KEY; echo $KEY >&2; exit 1'".to_owned(),
        "command:sh -c 'echo $KEY; echo $KEY >&2; kill -9 $$'".to_owned(),
        format!("command:sh -c 'echo {CANARY}; echo {CANARY} >&2; sleep 600'"),
        format!("command:no-such-program --key {CANARY}"),
        format!("command:./no-such-program --key={CANARY}"),
    ] {
        silent(&error(&resolver, &line).await);
    }
    let debug = format!("{resolver:?}");
    assert!(!debug.contains("canary"), "{debug}");
    // The canary is what was there to be seen.
    assert_eq!(value(&resolver, "env:KEY").await, CANARY);
    let secret = resolver.resolve(&crate::reference("env:KEY")).await.unwrap();
    assert!(!format!("{secret:?}").contains("canary"));
}

#[test]
fn a_key_that_was_pasted_is_not_shown() {
    for text in [
        CANARY.to_owned(),
        format!("{CANARY}:x"),
        format!("vault:{CANARY}"),
        format!("env:{CANARY}"),
        format!("env :{CANARY}"),
        format!("ENV:{CANARY}"),
        format!("keyring:{CANARY}\n"),
        format!("file:{CANARY}\0"),
        format!("value:{CANARY}\0"),
        format!("command:KEY={CANARY} get"),
        format!("command:get '{CANARY}"),
        format!("https://user:{CANARY}@box.example"),
    ] {
        silent(&text.parse::<Reference>().expect_err(&text));
        let json = serde_json::to_string(&text).unwrap();
        let error = serde_json::from_str::<Reference>(&json).expect_err(&text).to_string();
        assert!(!error.contains("canary"), "{error}");
    }
}

proptest! {
    #[test]
    fn no_text_around_a_key_has_it_shown(before in ".{0,12}", after in ".{0,12}") {
        if let Err(error) = format!("{before}{CANARY}{after}").parse::<Reference>() {
            silent(&error);
        }
    }
}
