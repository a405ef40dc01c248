//! Programs that were not granted, and arguments that were not.

use pcoder_runtime::call::{CallContext, Starter};
use pcoder_runtime::contract::{CommandSpec, ExitStatus, Setting};
use pcoder_tests::{Grant, House, argv, called};

use super::code;
use crate::streams::{nothing, piped, read_to_end};

const ECHO: &str = "[[exec]]\nprogram = \"/bin/echo\"\nargs = [\"say <word>\", \"count <number>\", \"all ...\"]\n";

fn context() -> CallContext {
    CallContext { path: Some("/usr/bin:/bin".into()), ..CallContext::default() }
}

#[tokio::test]
async fn a_program_that_was_not_granted_does_not_run() {
    let house = House::provider(ECHO, Grant::All);
    let folder = tempfile::tempdir().expect("a folder");
    let proof = folder.path().join("proof").display().to_string();
    for step in [
        &["process.capture", "/bin/mkdir", &proof][..],
        &["process.capture", "mkdir", &proof],
        &["process.capture", "sh", "-c", &format!("mkdir {proof}")],
        &["process.capture-shell", &format!("mkdir {proof}")],
        &["process.capture", "/bin/../bin/echo", "say", "x"],
        &["process.capture", "/usr/bin/env", "echo", "say", "x"],
        &["process.capture", "as called"],
        &["process.capture", "", "say", "x"],
        &["process.capture", "/bin/echo\0", "say", "x"],
        &["process.capture", "../../bin/echo", "say", "x"],
    ] {
        let answer = house.step(context(), step).await;
        assert_eq!(code(&answer), "denied", "{step:?}: {answer}");
    }
    assert!(!folder.path().join("proof").exists());
    assert_eq!(house.effects(), []);
    assert_eq!(house.step(context(), &["process.capture", "/bin/echo", "say", "hi"]).await, "ok 0 say hi\n");
    house.goes_on().await;
}

#[tokio::test]
async fn arguments_that_the_grammar_does_not_have_do_not_pass() {
    let house = House::provider(ECHO, Grant::All);
    for args in [
        &["say", "-x"][..],
        &["say", "--option=value"],
        &["say", "-"],
        &["say", "--"],
        &["say", "a b"],
        &["say", "$(id)"],
        &["say", "a;b"],
        &["say", "a\nb"],
        &["say", "a\0b"],
        &["say", ""],
        &["say", "a", "b"],
        &["say"],
        &[],
        &["-n", "say", "x"],
        &["SAY", "x"],
        &["count", "-1"],
        &["count", "1e3"],
        &["count", "1 2"],
        &["all", "a", "-b"],
        &["all", "a\0"],
        &["all", "--", "x"],
    ] {
        let step = [&["process.capture", "/bin/echo"][..], args].concat();
        let answer = house.step(context(), &step).await;
        assert_eq!(code(&answer), "denied", "{args:?}: {answer}");
    }
    assert_eq!(house.effects(), []);
    assert_eq!(house.step(context(), &["process.capture", "echo", "all", "a", "b c"]).await, "ok 0 all a b c\n");
}

#[tokio::test]
async fn the_surroundings_of_a_granted_program_are_not_the_plugins_to_choose() {
    // A variable, a folder on the PATH or a working folder makes another program out of it (`LD_PRELOAD`, `GIT_DIR`).
    let house = House::provider(ECHO, Grant::All);
    for step in [
        &["process.capture-env", "LD_PRELOAD=/tmp/evil.so", "/bin/echo", "say", "x"][..],
        &["process.capture-env", "PATH=/tmp", "echo", "say", "x"],
        &["process.capture-env", "ANYTHING=1", "/bin/echo", "say", "x"],
        &["process.capture-path", "/tmp", "echo", "say", "x"],
        &["process.capture-cwd", "/tmp", "/bin/echo", "say", "x"],
    ] {
        let answer = house.step(context(), step).await;
        assert_eq!(code(&answer), "denied", "{step:?}: {answer}");
    }
    assert_eq!(house.effects(), []);
}

#[tokio::test]
async fn variables_that_a_grant_names_are_passed_on_and_no_others() {
    let house = House::provider("[[exec]]\nprogram = \"/usr/bin/env\"\nargs = [\"\"]\nenv = [\"GIVEN\"]\n", Grant::All);
    let answer = house.step(context(), &["process.capture-env", "GIVEN=yes", "/usr/bin/env"]).await;
    assert!(answer.contains("GIVEN=yes"), "{answer}");
    assert_eq!(code(&house.step(context(), &["process.capture-env", "OTHER=1", "/usr/bin/env"]).await), "denied");
    assert_eq!(code(&house.step(context(), &["process.capture-env", "LD_PRELOAD=/x", "/usr/bin/env"]).await), "denied");
}

#[tokio::test]
async fn a_name_is_the_program_that_was_granted_and_not_the_first_on_the_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let impostor = folder.path().join("echo");
    std::fs::write(&impostor, "#!/bin/sh\necho impostor\n").expect("a file");
    std::fs::set_permissions(&impostor, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    let house = House::provider("[[exec]]\nprogram = \"echo\"\nargs = [\"say <word>\"]\n", Grant::Only(ECHO));
    let path = format!("{}:/bin", folder.path().display());
    let context = CallContext { path: Some(path.into()), ..CallContext::default() };
    assert_eq!(house.step(context, &["process.capture", "echo", "say", "hi"]).await, "ok 0 say hi\n");
    // Half of a file's name is another program.
    let granted = "[[exec]]\nprogram = \"/usr/bin/x86_64.exe-like.sh\"\nargs = [\"say <word>\"]\n";
    let house =
        House::provider("[[exec]]\nprogram = \"x86_64.exe-like\"\nargs = [\"say <word>\"]\n", Grant::Only(granted));
    let answer = house.step(self::context(), &["process.capture", "x86_64.exe-like", "say", "hi"]).await;
    assert_eq!(code(&answer), "denied", "{answer}");
}

#[tokio::test]
async fn a_pinned_program_runs_only_with_the_bytes_that_were_granted() {
    let folder = tempfile::tempdir().expect("a folder");
    let tool = folder.path().join("tool");
    let script = |says: &str| {
        std::fs::write(&tool, format!("#!/bin/sh\necho {says}\n")).expect("a file");
        std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
        pcoder_runtime::digest(&std::fs::read(&tool).expect("its bytes"))
    };
    let sha256 = script("granted");
    let request = format!("[[exec]]\nprogram = \"{}\"\nargs = [\"<word>\"]\n", tool.display());
    let house = House::provider(&request, Grant::Only(&format!("{request}sha256 = \"{}\"\n", sha256.to_uppercase())));
    let step = ["process.capture", &tool.display().to_string(), "x"];
    assert_eq!(house.step(context(), &step).await, "ok 0 granted\n");
    script("swapped");
    let answer = house.step(context(), &step).await;
    assert!(code(&answer) == "denied" && answer.contains("other bytes"), "{answer}");
    assert_eq!(house.effects().last().map(|it| it.2.as_str()), Some("denied"));
    house.goes_on().await;
}

#[tokio::test]
async fn a_program_in_a_folder_that_the_plugin_writes_does_not_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let bin = folder.path().join("project").join("bin");
    std::fs::create_dir_all(&bin).expect("a folder");
    let tool = bin.join("tool");
    std::fs::write(&tool, "#!/bin/sh\necho ran\n").expect("a file");
    std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    let outside = folder.path().join("link");
    std::os::unix::fs::symlink(&tool, &outside).expect("a link");
    for program in [&tool, &outside] {
        let request = |access: &str| {
            let exec = format!("[[exec]]\nprogram = \"{}\"\nargs = [\"<word>\"]\n", program.display());
            format!("{exec}[[files]]\nroot = \"project\"\naccess = \"{access}\"\n")
        };
        let context =
            || CallContext { roots: [("project".to_owned(), folder.path().join("project"))].into(), ..context() };
        let step = ["process.capture", &program.display().to_string(), "x"];
        let house = House::provider(&request("read-write"), Grant::All);
        let answer = house.step(context(), &step).await;
        assert!(code(&answer) == "denied" && answer.contains("may write the folder"), "{answer}");
        // Reading it is no harm, and neither is a wish that was not granted.
        let house = House::provider(&request("read"), Grant::All);
        assert_eq!(house.step(context(), &step).await, "ok 0 ran\n");
        let house = House::provider(&request("read-write"), Grant::Only(&request("read")));
        assert_eq!(house.step(context(), &step).await, "ok 0 ran\n");
    }
}

fn command() -> CommandSpec {
    CommandSpec {
        cwd: Some("/tmp".to_owned()),
        env: vec![Setting { name: "GIVEN".to_owned(), value: "by the user".to_owned() }],
        name: Some("a name".to_owned()),
        ..argv("/usr/bin/env", &["sh", "-c", "echo \"$GIVEN $UNSEEN $PWD\""])
    }
}

const AS_CALLED: &str = "[[exec]]\nprogram = \"as called\"\n";

#[tokio::test]
async fn the_command_of_the_call_runs_as_it_is_and_every_forgery_is_denied() {
    let house = House::provider(AS_CALLED, Grant::All);
    let provider = house.plugin.provider().expect("a provider");
    let with_environment = || {
        let mut context = called(&command());
        context.called.environment = vec![("UNSEEN".into(), "by the plugin".into()), ("PATH".into(), "/bin".into())];
        context
    };
    for forgery in ["env", "env value", "cwd", "no cwd", "path", "name", "argument", "program", "shell"] {
        let (stdio, reader) = piped();
        let error = provider.exec(with_environment(), forgery, &command(), stdio).await.expect_err("denied");
        assert!(error.is("denied"), "{forgery}: {error:?}");
        assert_eq!(read_to_end(reader).await, "", "{forgery}");
    }
    assert_eq!(house.effects(), []);
    let (stdio, reader) = piped();
    let status = provider.exec(with_environment(), "as it is", &command(), stdio).await.expect("it runs");
    assert_eq!(status, ExitStatus::Exited(0));
    assert_eq!(read_to_end(reader).await, "by the user by the plugin /tmp\n");
    // A call without a command has none to hand on.
    let error = provider.exec(context(), "as it is", &command(), nothing()).await.expect_err("denied");
    assert!(error.is("denied"), "{error:?}");
    // Its streams are gone after the first time.
    let error = provider.exec(with_environment(), "run twice", &command(), nothing()).await.expect_err("once");
    assert!(error.is("conflict"), "{error:?}");
    house.goes_on().await;
}

/// A starter is the host's: it starts the command of the call, after that was compared, and nothing else.
#[tokio::test]
async fn a_starter_starts_the_command_of_the_call_and_no_other() {
    let starter = || {
        let mut context = called(&command());
        context.called.starter =
            Some(Starter { program: "/bin/echo".into(), args: ["started".into(), "--".into()].into() });
        context
    };
    let house = House::provider(AS_CALLED, Grant::All);
    let provider = house.plugin.provider().expect("a provider");
    let (stdio, reader) = piped();
    let error = provider.exec(starter(), "argument", &command(), stdio).await.expect_err("denied");
    assert!(error.is("denied"), "{error:?}");
    assert_eq!(read_to_end(reader).await, "");
    let (stdio, reader) = piped();
    provider.exec(starter(), "as it is", &command(), stdio).await.expect("it runs");
    let said = read_to_end(reader).await;
    assert!(said.starts_with("started -- /") && said.contains("sh -c"), "{said}");

    let house = House::provider(ECHO, Grant::All);
    let answer = house.step(starter(), &["process.capture", "/bin/echo", "say", "hi"]).await;
    assert_eq!(answer, "ok 0 say hi\n", "granted by name, it is started as it is");
}

#[tokio::test]
async fn a_guest_sees_no_environment_and_a_granted_program_gets_none() {
    let house = House::provider("[[exec]]\nprogram = \"/usr/bin/env\"\nargs = [\"\"]\n", Grant::All);
    let mut context = called(&command());
    context.called.environment = vec![("UNSEEN".into(), "by the plugin".into())];
    let steps: [&[&str]; 5] = [
        &["env", "UNSEEN", "PATH", "HOME", "PCODER_CALL"],
        &["env.args"],
        &["std.read", "/etc/passwd"],
        &["std.connect", "127.0.0.1:1"],
        &["process.capture", "/usr/bin/env"],
    ];
    let answers = house.script(context, &steps).await.expect("the call");
    assert_eq!(answers[0], "ok ");
    assert_eq!(answers[1], "ok ");
    assert_eq!([code(&answers[2]), code(&answers[3])], ["std", "std"]);
    let variables: Vec<&str> = answers[4].trim_start_matches("ok 0 ").lines().collect();
    assert!(matches!(variables[..], [one] if one.starts_with("PCODER_CALL=")), "{variables:?}");
}
