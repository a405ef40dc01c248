//! Any command arrives byte for byte, through real shells. `PROPTEST_CASES` says how many commands.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use pcoder_sdk::{CommandSpec, ProcessSpec, shell};
use process_pm2::{Plan, enter_argv};
use proptest::prelude::*;
use tempfile::TempDir;

/// How many commands go through one bash.
const BATCH: usize = 32;

/// Prints where it is, its two variables and its arguments.
const REPORT: &str = r#"printf '%s\0' "$PWD" "$FIRST" "$SECOND" "$@""#;

#[derive(Clone, Debug)]
struct Case {
    args: Vec<String>,
    first: String,
    second: String,
    folder: String,
    script: bool,
}

/// Text that means something to shells, and any other.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[-$`'\"\\\\!*?~#&|;<>(){}\\[\\]= \t\n\r\u{1}a-b^%/]{0,12}", "[^\0]{0,20}"]
}

fn case() -> impl Strategy<Value = Case> {
    let folder = "[-$`'\"\\\\!*?~#&|;<>(){}\\[\\]= \t\n\ra-b^%é日]{1,12}";
    let folder = folder.prop_filter("a name", |name| name != "." && name != "..");
    (prop::collection::vec(text(), 0..4), text(), text(), folder, any::<bool>())
        .prop_map(|(args, first, second, folder, script)| Case { args, first, second, folder, script })
}

/// What each case printed, when one bash runs them all with `sh` as the shell under test.
fn run(root: &TempDir, sh: &str, cases: &[Case]) -> Vec<Vec<String>> {
    let mut list = Vec::new();
    let mut enter = String::new();
    for (index, case) in cases.iter().enumerate() {
        let run = root.path().join(index.to_string());
        let cwd = run.join(&case.folder);
        fs::create_dir_all(&cwd).unwrap();
        let spec = if case.script {
            CommandSpec::shell(format!("set -- {}\n{REPORT}", shell::join(&case.args)))
        } else {
            CommandSpec::argv("sh", ["-c", REPORT, "sh"].into_iter().chain(case.args.iter().map(String::as_str)))
        };
        let spec = spec.in_dir(cwd.to_str().unwrap()).with_env("FIRST", &case.first).with_env("SECOND", &case.second);
        let plan = Plan::new(&ProcessSpec::once(spec)).unwrap();
        fs::write(run.join("base"), "export BASE=1\n").unwrap();
        fs::write(run.join("environment"), plan.environment("0123456789abcdef")).unwrap();
        let [_, script, _, folder, line] =
            <[String; 5]>::try_from(enter_argv(run.to_str().unwrap(), &plan.line)).unwrap();
        enter = script;
        list.extend([folder, line]);
    }
    let driver = r#"while IFS= read -r -d '' folder && IFS= read -r -d '' line; do
        env -i "PATH=$PATH" "$1" -c "$2" sh "$folder" "$line" </dev/null
        printf '\xff\0'
    done"#;
    let mut bash = Command::new("bash")
        .args(["-c", driver, "bash", sh, &enter])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = bash.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        for word in list {
            input.write_all(word.as_bytes()).unwrap();
            input.write_all(b"\0").unwrap();
        }
    });
    let output = bash.wait_with_output().unwrap().stdout;
    feeder.join().unwrap();
    let words = output.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let mut cases: Vec<Vec<String>> = vec![Vec::new()];
    for word in words {
        // No text has this byte.
        if word == b"\xff" {
            cases.push(Vec::new());
        } else {
            cases.last_mut().unwrap().push(String::from_utf8(word).unwrap());
        }
    }
    cases.pop();
    cases
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.div_ceil(u32::try_from(BATCH).unwrap()),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_command_arrives_byte_for_byte(cases in prop::collection::vec(case(), BATCH), bash in any::<bool>()) {
        let sh = if bash { "bash" } else { "sh" };
        let root = tempfile::tempdir().unwrap();
        let printed = run(&root, sh, &cases);
        prop_assert_eq!(printed.len(), cases.len());
        for (index, (case, words)) in cases.iter().zip(printed).enumerate() {
            let cwd = root.path().join(index.to_string()).join(&case.folder);
            let mut expected = vec![cwd.to_str().unwrap().to_owned(), case.first.clone(), case.second.clone()];
            expected.extend(case.args.iter().cloned());
            prop_assert_eq!(words, expected, "{}: {:?}", sh, case);
        }
    }
}
