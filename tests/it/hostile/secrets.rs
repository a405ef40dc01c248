//! A secret's value must appear nowhere: not in answers, logs, output, errors or the audit.

use std::sync::Arc;

use pcoder_runtime::call::CallContext;
use pcoder_tests::{Grant, House, called};
use secrecy::SecretString;

use super::{assert_nowhere, code};
use crate::double::{Instance, secrets};
use crate::http::{Server, ok};
use crate::logs;

fn context(value: &str) -> CallContext {
    CallContext {
        secrets: secrets(&[("KEY", value), ("OTHER", "another-value")]),
        path: Some("/usr/bin:/bin".into()),
        ..CallContext::default()
    }
}

#[tokio::test]
async fn a_plugin_gets_a_placeholder_and_can_print_nothing_else() {
    logs::capture();
    let value = "s3cret-that-is-printed-0001";
    let house = House::provider("[[secrets]]\nname = \"KEY\"\nto = [\"exec\"]\n", Grant::All);
    let steps: [&[&str]; 4] =
        [&["secrets.get", "KEY"], &["log", "mark-0001 {0}"], &["fail", "conflict", "{0}"], &["secrets.get", "OTHER"]];
    let answers = house.script(context(value), &steps).await.expect("the call");
    assert!(answers[0].starts_with("ok pcoder-secret-"), "{answers:?}");
    assert_eq!(code(&answers[3]), "denied");
    assert_eq!(logs::with("mark-0001").len(), 1);
    assert_nowhere(value, &house, &answers);
    // A plugin that knows the value from elsewhere and says it in an error or in its log.
    let steps: [&[&str]; 3] = [&["secrets.get", "KEY"], &["log", &format!("mark-0001b {value}")], &["panic", value]];
    let error = house.script(context(value), &steps).await.expect_err("a panic");
    assert_eq!(logs::with("mark-0001b").len(), 1);
    assert_nowhere(value, &house, &[format!("{error:?}")]);
    house.goes_on().await;
}

#[tokio::test]
async fn a_program_that_prints_its_environment_gives_a_placeholder_back() {
    logs::capture();
    let value = "s3cret-in-an-environment-0002";
    let grants = |to: &str| {
        format!(
            "[[exec]]\nprogram = \"/usr/bin/env\"\nargs = [\"\"]\nenv = [\"TOKEN\"]\n[[secrets]]\nname = \"KEY\"\nto = [{to}]\n"
        )
    };
    let steps: [&[&str]; 2] = [&["secrets.get", "KEY"], &["process.capture-env", "TOKEN=a {0} b", "/usr/bin/env"]];
    let house = House::provider(&grants("\"exec\""), Grant::All);
    let answers = house.script(context(value), &steps).await.expect("the call");
    let placeholder = answers[0].trim_start_matches("ok ");
    assert!(answers[1].contains(&format!("TOKEN=a {placeholder} b")), "{answers:?}");
    assert_nowhere(value, &house, &answers);
    // Without the destination, the program does not run at all.
    let house = House::provider(&grants("\"target\""), Grant::All);
    let answers = house.script(context(value), &steps).await.expect("the call");
    assert_eq!(code(&answers[1]), "denied", "{answers:?}");
    assert_nowhere(value, &house, &answers);
}

#[tokio::test]
async fn a_secret_of_the_users_own_command_stays_hidden_from_the_plugin() {
    logs::capture();
    let value = "s3cret-of-the-user-0003";
    let house = House::provider("[[exec]]\nprogram = \"as called\"\n", Grant::All);
    let broker = secrets(&[]);
    let placeholder = broker.issue_for_command("TOKEN", SecretString::from(value)).expect("a placeholder");
    let mut command = pcoder_tests::argv("/usr/bin/env", &[]);
    command.env = vec![pcoder_runtime::contract::Setting { name: "TOKEN".into(), value: placeholder.clone() }];
    let mut context = called(&command);
    context.secrets = broker;
    let (stdio, reader) = crate::streams::piped();
    let provider = house.plugin.provider().expect("a provider");
    provider.exec(context, "as it is", &command, stdio).await.expect("it runs");
    assert!(
        crate::streams::read_to_end(reader).await.contains(&format!("TOKEN={value}")),
        "the user's command gets it"
    );
    assert_nowhere(value, &house, &[]);
}

#[tokio::test]
async fn a_value_goes_into_headers_only_where_its_grant_says() {
    logs::capture();
    let value = "s3cret-in-a-header-0004";
    // The server sends back what it got, as some do.
    let server = Server::start(|head| {
        let answer = ok(head);
        let authorization = head.lines().find(|it| it.starts_with("authorization")).unwrap_or("x: y").to_owned();
        answer.replacen("\r\n", &format!("\r\nx-echo: {authorization}\r\n"), 1)
    });
    let grants = |to: &str| {
        format!(
            "[[net]]\nurl = \"{}\"\nmethods = [\"GET\"]\naddresses = [\"loopback\"]\n[[secrets]]\nname = \"KEY\"\nto = [\"{to}\"]\n",
            server.url("/")
        )
    };
    let url = server.url("/api/x");
    let steps: [&[&str]; 2] = [&["secrets.get", "KEY"], &["http", "GET", &url, "authorization: Bearer {0}"]];
    for elsewhere in ["https://api.example.test/", "target", "exec", &server.url("/other/")] {
        let house = House::provider(&grants(elsewhere), Grant::All);
        let answers = house.script(context(value), &steps).await.expect("the call");
        assert_eq!(code(&answers[1]), "denied", "{answers:?}");
        assert_nowhere(value, &house, &answers);
    }
    assert_eq!(server.requests().len(), 0);
    let house = House::provider(&grants(&server.url("/api/")), Grant::All);
    let answers = house.script(context(value), &steps).await.expect("the call");
    assert!(server.requests()[0].contains(&format!("authorization: Bearer {value}\r\n")));
    assert!(answers[1].starts_with("ok 200 "), "{answers:?}");
    assert_nowhere(value, &house, &answers);
    // In the address it stays a placeholder: addresses are written down.
    let in_query = format!("{url}?key={{0}}");
    let steps: [&[&str]; 2] = [&["secrets.get", "KEY"], &["http", "GET", &in_query]];
    let answers = house.script(context(value), &steps).await.expect("the call");
    assert_eq!(code(&answers[1]), "ok", "{answers:?}");
    assert!(!server.requests()[1].contains(value));
    assert_nowhere(value, &house, &answers);
}

#[tokio::test]
async fn a_value_goes_onto_the_instance_and_does_not_come_back() {
    logs::capture();
    let value = "s3cret-on-the-instance-0005";
    let grants = |to: &str| format!("[target]\n[[secrets]]\nname = \"KEY\"\nto = [\"{to}\"]\n");
    for (to, code) in [("target", "conflict"), ("exec", "denied")] {
        let house = House::load("hostile-credentials", &grants(to), Grant::All);
        let instance = Arc::new(Instance::default());
        let mut context = context(value);
        context.target = Some(Arc::clone(&instance) as _);
        let script = ["leak back", "KEY", "/file"].join(pcoder_tests::SEPARATOR);
        let installer = house.plugin.credentials().expect("an installer");
        let error = installer.install(context, &script).await.expect_err("it says what it read");
        assert!(error.is(code), "{error:?}");
        let written = instance.file("/file").map(|it| String::from_utf8_lossy(&it).into_owned());
        assert_eq!(written.as_deref(), (to == "target").then_some(value));
        assert_nowhere(value, &house, &[format!("{error:?} {error}")]);
    }
}

#[tokio::test]
async fn another_calls_placeholder_is_just_text() {
    logs::capture();
    let value = "s3cret-of-another-call-0006";
    let house = House::provider(
        "[[exec]]\nprogram = \"/usr/bin/env\"\nargs = [\"\"]\nenv = [\"TOKEN\"]\n[[secrets]]\nname = \"KEY\"\nto = [\"exec\"]\n",
        Grant::All,
    );
    let first = house.step(context(value), &["secrets.get", "KEY"]).await;
    let placeholder = first.trim_start_matches("ok ");
    let token = format!("TOKEN={placeholder}");
    let answer = house.step(context(value), &["process.capture-env", &token, "/usr/bin/env"]).await;
    assert!(answer.contains(&token), "{answer}");
    assert_nowhere(value, &house, &[answer]);
}

#[tokio::test]
async fn what_the_command_reads_back_from_files_is_hidden_too() {
    logs::capture();
    let value = "s3cret-in-a-file-0007";
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("file"), format!("key = {value}\n")).expect("a file");
    let house = House::provider(
        "[[files]]\nroot = \"box\"\naccess = \"read\"\n[[secrets]]\nname = \"KEY\"\nto = [\"exec\"]\n",
        Grant::All,
    );
    let mut context = context(value);
    context.roots.insert("box".into(), folder.path().to_path_buf());
    let steps: [&[&str]; 2] = [&["secrets.get", "KEY"], &["files.read", "box", "file"]];
    let answers = house.script(context, &steps).await.expect("the call");
    assert!(answers[1].starts_with("ok key = pcoder-secret-"), "{answers:?}");
    assert_nowhere(value, &house, &answers);
}
