use pcoder_sdk::RestartLimits;

use super::*;

fn command() -> CommandSpec {
    CommandSpec::argv("my tool", ["--flag", "it's", "$(x)\n", ""])
        .in_dir("~/my project")
        .with_env("KEY", "two\nlines'")
        .with_env("EMPTY", "")
        .with_path_entry("~/bin")
        .with_path_entry("/p q")
        .named("fix tests")
}

fn shown(spec: &ProcessSpec) -> String {
    let plan = Plan::new(spec).unwrap();
    let arguments = plan.arguments("/home/user/.pm2/pcoder/run/fix-tests.0123456789abcdef");
    let scripts = [code_of(SUPERVISE), code_of(ENTER)];
    let words = arguments.iter().map(|word| match scripts.iter().position(|script| script == word) {
        Some(0) => "SUPERVISE".to_owned(),
        Some(_) => "ENTER".to_owned(),
        None => word.clone(),
    });
    format!("{}\n---\n{}", words.collect::<Vec<_>>().join("\n"), plan.environment("TOKEN"))
}

#[test]
fn what_is_run_can_be_read() {
    insta::assert_snapshot!("argv", shown(&ProcessSpec::once(command())));
    insta::assert_snapshot!("script", shown(&ProcessSpec::once(CommandSpec::shell("a 'b' | c"))));
    let limits = RestartLimits { max_restarts: Some(3), min_uptime_ms: Some(5000) };
    let spec = ProcessSpec {
        restart: Restart::OnExit(limits),
        instances: Some(2),
        max_memory: Some(1 << 30),
        ..ProcessSpec::once(CommandSpec::argv("serve", [""; 0]))
    };
    insta::assert_snapshot!("everything", shown(&spec));
}

#[test]
fn the_scripts_travel_without_their_comments() {
    insta::assert_snapshot!("supervise", code_of(SUPERVISE));
    insta::assert_snapshot!("enter", code_of(ENTER));
}

#[test]
fn restarts_are_counted_as_the_contract_counts_them() {
    let flags = |max_restarts, min_uptime_ms| {
        let (flags, min_uptime) = restart(&Restart::OnExit(RestartLimits { max_restarts, min_uptime_ms }));
        (flags.join(" "), min_uptime)
    };
    assert_eq!(restart(&Restart::Never), (vec!["--no-autorestart".to_owned()], None));
    assert_eq!(flags(None, None), ("--max-restarts 4294967295".to_owned(), None));
    assert_eq!(flags(None, Some(9)), ("--max-restarts 4294967295".to_owned(), None));
    assert_eq!(flags(Some(0), Some(9)), ("--max-restarts 1".to_owned(), Some(9)));
    assert_eq!(flags(Some(3), None), ("--max-restarts 4".to_owned(), Some(NEVER_LONG_ENOUGH)));
    assert_eq!(flags(Some(u32::MAX), Some(1)), ("--max-restarts 4294967295".to_owned(), Some(1)));
}

#[test]
fn what_cannot_be_right_is_refused() {
    let once = |command| ProcessSpec::once(command);
    let tool = || CommandSpec::argv("x", [""; 0]);
    let errors: Vec<String> = [
        ProcessSpec { options: vec![Setting::new("watch", "true")], ..once(tool()) },
        ProcessSpec { instances: Some(0), ..once(tool()) },
        ProcessSpec { max_memory: Some(0), ..once(tool()) },
        once(CommandSpec::argv("", [""; 0])),
        once(CommandSpec::argv("-c", ["x"])),
        once(CommandSpec::argv("x", ["a\0b"])),
        once(tool().in_dir("relative")),
        once(tool().in_dir("~root")),
        once(tool().in_dir("/a\0b")),
        once(tool().with_path_entry("/a:/b")),
        once(tool().with_env("A-B", "c")),
        once(tool().with_env("A\nB", "c")),
        once(tool().with_env("A", "c\0")),
        once(CommandSpec::argv("x", ["y".repeat(LONGEST_LINE)])),
    ]
    .iter()
    .map(|spec| {
        let error = Plan::new(spec).unwrap_err();
        assert!(error.operation == OPERATION);
        format!("{} {}", error.code, error.line())
    })
    .collect();
    insta::assert_snapshot!("refused", errors.join("\n"));
}
