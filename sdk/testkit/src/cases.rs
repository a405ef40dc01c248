//! The cases.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pcoder_core::Feed;
use pcoder_core::instances::exit_code as code;
use pcoder_core::runtime::Error;
use pcoder_core::runtime::contract::{CommandSpec, Setting, WriteOptions};
use pcoder_core::runtime::error::code as codes;

use crate::report::{Outcome, Report};
use crate::subject::{Machine, Subject, argv, script};

/// What a case finds wrong.
type Case = Result<(), String>;

/// No case may take longer: one that hangs has failed.
const LONGEST: Duration = Duration::from_secs(300);

fn said(error: Error) -> String {
    format!("{error} [{}]", error.code)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Case {
    if found == expected {
        return Ok(());
    }
    let brief = |value: &T| {
        let text = format!("{value:?}");
        if text.chars().count() > 400 { text.chars().take(400).chain("…".chars()).collect() } else { text }
    };
    Err(format!("{what}: {} and not {}", brief(&found), brief(&expected)))
}

fn fails<T>(what: &str, result: Result<T, Error>, expected: &str) -> Case {
    match result {
        Ok(_) => Err(format!("{what} worked")),
        Err(error) => same(what, error.code.to_string(), expected.to_owned()),
    }
}

/// What a command answers: its code, its outputs.
async fn answers(machine: &Machine<'_>, spec: &CommandSpec, input: &[u8], expected: (i32, &[u8], &[u8])) -> Case {
    let kept = machine.run(spec, input).await.map_err(said)?;
    let found = (code(kept.status), kept.stdout.bytes, kept.stderr.bytes);
    let text = |(code, out, err): (i32, &[u8], &[u8])| {
        (
            code,
            String::from_utf8_lossy(out).into_owned(),
            String::from_utf8_lossy(err).into_owned(),
            out.len(),
            err.len(),
        )
    };
    same("the answer", text((found.0, &found.1, &found.2)), text(expected))
}

macro_rules! cases {
    ($($name:ident $(needs $feature:literal)?;)+) => {
        /// Runs every case.
        pub(crate) async fn all(subject: &Subject<'_>) -> Report {
            let mut report = Report::default();
            let machine = match Machine::boot(subject).await {
                Ok(machine) => machine,
                Err(error) => {
                    report.cases.push(("boot", Outcome::Failed(said(error))));
                    return report;
                }
            };
            report.cases.push(("boot", Outcome::Passed));
            $(
                let needed: Option<&str> = None $(.or(Some($feature)))?;
                let outcome = match needed.filter(|it| !machine.has(it)) {
                    Some(feature) => Outcome::LeftOut(format!("it does not have the feature `{feature}`")),
                    None => match tokio::time::timeout(LONGEST, $name(&machine, subject)).await {
                        Ok(Ok(())) => Outcome::Passed,
                        Ok(Err(why)) => Outcome::Failed(why),
                        Err(_) => Outcome::Failed(format!("it did not end within {} s", LONGEST.as_secs())),
                    },
                };
                report.cases.push((stringify!($name), outcome));
            )+
            report.cases.push(("terminate", match terminated(&machine).await {
                Ok(()) => Outcome::Passed,
                Err(why) => Outcome::Failed(why),
            }));
            report
        }
    };
}

cases! {
    described;
    words_arrive_as_they_are;
    a_script_is_the_shells;
    the_working_folder;
    variables_arrive_as_they_are;
    input_arrives_whole;
    exit_codes_come_back;
    signals_are_told;
    outputs_stay_apart;
    bytes_come_back_as_they_are;
    a_large_output_comes_back;
    a_large_input_arrives;
    a_long_command_line_arrives;
    what_no_command_can_be_is_refused;
    files_are_bytes;
    a_large_file_comes_back;
    modes_hold;
    an_owner_holds_or_is_refused;
    home_is_home;
    files_that_are_not_there;
    a_folder_is_no_file;
    a_write_is_whole_or_not_there;
    commands_at_once;
    a_cancelled_command_ends;
    an_unknown_instance_is_not_there;
    stopped_and_resumed needs "pause";
    forked needs "fork";
    a_port_has_an_address needs "ports";
}

async fn described(machine: &Machine<'_>, subject: &Subject<'_>) -> Case {
    let info = machine.provider.info().await.map_err(said)?;
    same("the name", info.name.as_str(), subject.name.as_str())?;
    let instance = machine.provider.get(&machine.id).await.map_err(said)?;
    same("the identity", instance.id.as_str(), machine.id.as_str())?;
    same("the status", instance.status.as_str(), "ready")?;
    let list = machine.provider.list().await.map_err(said)?;
    same("whether the list has it", list.iter().any(|it| it.id == machine.id), true)
}

async fn words_arrive_as_they_are(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    let words =
        ["", " ", "it's", "\"$(x)\"", "`y`", "a\nb", "\\", "*", "~", "-n", "é 日本", "$HOME", "!!", "\t", "%s", "{{}}"];
    let mut args = vec!["%s\\0"];
    args.extend(words);
    let expected: Vec<u8> = words.iter().flat_map(|word| word.bytes().chain([0])).collect();
    answers(machine, &argv("printf", &args), b"", (0, &expected, b"")).await
}

async fn a_script_is_the_shells(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    let text = "x='a b'; echo \"$x\" | tr a-b c-d; if false; then echo no; fi\necho \"it's\"";
    answers(machine, &script(text), b"", (0, b"c d\nit's\n", b"")).await
}

async fn the_working_folder(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    let folder = machine.at("it's a folder");
    machine.write(&format!("{folder}/x"), b"", None).await.map_err(said)?;
    let mut spec = argv("ls", &[]);
    spec.cwd = Some(folder.clone());
    answers(machine, &spec, b"", (0, b"x\n", b"")).await?;
    spec.cwd = Some("~/.pcoder-testkit/it's a folder".to_owned());
    answers(machine, &spec, b"", (0, b"x\n", b"")).await?;
    let home = format!("{}\n", machine.home.trim_end_matches('/'));
    answers(machine, &script("cd && pwd"), b"", (0, home.as_bytes(), b"")).await?;
    // A folder that is not there runs nothing, however that is told.
    let mut spec = argv("echo", &["ran"]);
    spec.cwd = Some(machine.at("nowhere"));
    match machine.run(&spec, b"").await {
        Ok(kept) if code(kept.status) == 0 || !kept.stdout.bytes.is_empty() => {
            Err("it ran in another folder".to_owned())
        }
        _ => Ok(()),
    }
}

async fn variables_arrive_as_they_are(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    let value = "it's \"$(x)\" `y` \\ \n\té 日本 ";
    let mut spec = script("printf '%s|%s' \"$A_B\" \"$EMPTY\"");
    for (name, value) in [("A_B", value), ("EMPTY", "")] {
        spec.env.push(Setting { name: name.to_owned(), value: value.to_owned() });
    }
    answers(machine, &spec, b"", (0, format!("{value}|").as_bytes(), b"")).await
}

async fn input_arrives_whole(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    let input: Vec<u8> = (0..=255).cycle().take(5000).collect();
    answers(machine, &argv("cat", &[]), &input, (0, &input, b"")).await?;
    // Input that ends at once, and input that nobody reads.
    answers(machine, &argv("cat", &[]), b"", (0, b"", b"")).await?;
    answers(machine, &argv("true", &[]), &input, (0, b"", b"")).await
}

async fn exit_codes_come_back(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    for expected in [0, 1, 2, 42, 127, 255] {
        answers(machine, &script(&format!("exit {expected}")), b"", (expected, b"", b"")).await?;
    }
    match machine.run(&argv("pcoder-no-such-program", &[]), b"").await {
        // A shell says so, and a host that starts programs by itself does.
        Ok(kept) => same("a program that is not there", code(kept.status), 127),
        Err(error) if error.is(codes::NOT_FOUND) || error.is(codes::PROCESS) => Ok(()),
        Err(error) => Err(said(error)),
    }
}

async fn signals_are_told(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    for (name, number) in [("KILL", 9), ("TERM", 15)] {
        let kept = machine.run(&script(&format!("kill -{name} $$")), b"").await.map_err(said)?;
        same(name, code(kept.status), 128 + number)?;
    }
    Ok(())
}

async fn outputs_stay_apart(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    answers(machine, &script("echo out; echo err >&2; exit 3"), b"", (3, b"out\n", b"err\n")).await
}

async fn bytes_come_back_as_they_are(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    let text = r"printf 'a\0\377\r\nb'; printf '\376\0\r\n' >&2";
    answers(machine, &script(text), b"", (0, b"a\0\xff\r\nb", b"\xfe\0\r\n")).await
}

async fn a_large_output_comes_back(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    let large = machine.large;
    let text = format!("head -c {large} /dev/zero | tr '\\0' o; head -c {large} /dev/zero | tr '\\0' e >&2");
    let kept = machine.run(&script(&text), b"").await.map_err(said)?;
    same("the code", code(kept.status), 0)?;
    same("both lengths", (kept.stdout.bytes.len(), kept.stderr.bytes.len()), (large, large))?;
    let whole = kept.stdout.bytes.iter().all(|&it| it == b'o') && kept.stderr.bytes.iter().all(|&it| it == b'e');
    same("whether it is what was written", whole, true)
}

async fn a_large_input_arrives(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    let input: Vec<u8> = (0..machine.large).map(|at| u8::try_from(at % 251).unwrap_or_default()).collect();
    let expected = format!("{}\n", input.len());
    let keep = script("cat > \"$HOME\"/.pcoder-testkit/in && wc -c < \"$HOME\"/.pcoder-testkit/in");
    let kept = machine.run(&keep, &input).await.map_err(said)?;
    same("the size", String::from_utf8_lossy(&kept.stdout.bytes).trim().to_owned(), expected.trim().to_owned())?;
    let back = machine.read("~/.pcoder-testkit/in").await.map_err(said)?;
    same("whether it is the same", back == input, true)
}

async fn a_long_command_line_arrives(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    // Many words, none of them longer than a system takes; together more than a line of some services.
    let word = "w".repeat(1000);
    let mut args = vec!["-c", "echo $#", "sh"];
    args.extend(std::iter::repeat_n(word.as_str(), 1000));
    answers(machine, &argv("sh", &args), b"", (0, b"1000\n", b"")).await
}

async fn what_no_command_can_be_is_refused(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    let mut named = argv("true", &[]);
    named.env.push(Setting { name: "A=B".to_owned(), value: String::new() });
    for spec in [argv("echo", &["a\0b"]), script("echo a\0b"), named] {
        match machine.run(&spec, b"").await {
            Err(error) if error.is(codes::INVALID) || error.is(codes::IO) || error.is(codes::PROCESS) => {}
            Err(error) => return Err(said(error)),
            Ok(_) => return Err("it ran".to_owned()),
        }
    }
    Ok(())
}

async fn files_are_bytes(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    let every: Vec<u8> = (0..=255).cycle().take(100_003).collect();
    for (name, content) in [("empty", &b""[..]), ("a b\n'c", b"\0\xff\r\n"), ("every", &every)] {
        let path = machine.at(&format!("deep/er/{name}"));
        machine.write(&path, content, None).await.map_err(said)?;
        same(name, machine.read(&path).await.map_err(said)?, content.to_vec())?;
        // Again, shorter: nothing of before is left.
        machine.write(&path, b"x", None).await.map_err(said)?;
        same(name, machine.read(&path).await.map_err(said)?, b"x".to_vec())?;
    }
    Ok(())
}

async fn a_large_file_comes_back(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    let content: Vec<u8> = (0..machine.large).map(|at| u8::try_from(at % 253).unwrap_or_default()).collect();
    let path = machine.at("large");
    machine.write(&path, &content, Some(0o600)).await.map_err(said)?;
    same("whether it is the same", machine.read(&path).await.map_err(said)? == content, true)
}

async fn modes_hold(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    for mode in [0o600, 0o640, 0o755] {
        let path = machine.at("mode");
        machine.write(&path, b"x", Some(mode)).await.map_err(said)?;
        let kept = machine.run(&argv("stat", &["-c", "%a", &path]), b"").await.map_err(said)?;
        same("the mode", String::from_utf8_lossy(&kept.stdout.bytes).trim().to_owned(), format!("{mode:o}"))?;
    }
    Ok(())
}

async fn an_owner_holds_or_is_refused(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    let path = machine.at("owned");
    let options = |owner: &str| WriteOptions { create_parents: true, mode: Some(0o640), owner: Some(owner.to_owned()) };
    let me = machine.run(&script("printf '%s:%s' \"$(id -u)\" \"$(id -g)\""), b"").await.map_err(said)?;
    let me = String::from_utf8_lossy(&me.stdout.bytes).into_owned();
    match machine.write_with(&path, b"mine", options(&me)).await {
        Ok(()) => {
            let kept = machine.run(&argv("stat", &["-c", "%u:%g %a", &path]), b"").await.map_err(said)?;
            same("whose it is", String::from_utf8_lossy(&kept.stdout.bytes).trim().to_owned(), format!("{me} 640"))?;
            let nobody = machine.write_with(&path, b"theirs", options("pcoder-no-such-user")).await;
            let error = nobody.err().ok_or("somebody who does not exist was given a file")?;
            same("whether that was foreseen", error.is(codes::INTERNAL), false)?;
            let option = machine.write_with(&path, b"theirs", options("--reference=/")).await;
            fails("an owner that is an option", option, codes::INVALID)?;
            same("what is there then", machine.read(&path).await.map_err(said)?, b"mine".to_vec())
        }
        Err(error) if error.is(codes::UNSUPPORTED) => {
            fails("what was refused", machine.read(&path).await, codes::NOT_FOUND)
        }
        Err(error) => Err(said(error)),
    }
}

async fn home_is_home(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    machine.write("~/.pcoder-testkit/at-home", b"here", None).await.map_err(said)?;
    same("by its whole path", machine.read(&machine.at("at-home")).await.map_err(said)?, b"here".to_vec())
}

async fn files_that_are_not_there(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    fails("reading", machine.read(&machine.at("nothing/here")).await, codes::NOT_FOUND)
}

async fn a_folder_is_no_file(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    let folder = machine.at("deep");
    for result in [machine.read(&folder).await.map(drop), machine.write(&folder, b"x", None).await] {
        match result {
            Ok(()) => return Err("a folder was taken for a file".to_owned()),
            Err(error) if error.is(codes::INTERNAL) => return Err(said(error)),
            Err(_) => {}
        }
    }
    Ok(())
}

async fn a_write_is_whole_or_not_there(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    let path = machine.at("atomic");
    let (old, new) = (vec![b'o'; 300_000], vec![b'n'; 300_000]);
    machine.write(&path, &old, None).await.map_err(said)?;
    let writes = async {
        for content in [&new, &old, &new] {
            machine.write(&path, content, None).await.map_err(said)?;
        }
        Ok::<_, String>(())
    };
    let reads = async {
        for _ in 0..4 {
            let found = machine.read(&path).await;
            // A reader that is slower than the writers may see that it changed meanwhile, and says so.
            match found {
                Ok(found) if found == old || found == new => {}
                Ok(found) => return Err(format!("{} bytes of both", found.len())),
                Err(error) if error.is(codes::CONFLICT) => {}
                Err(error) => return Err(said(error)),
            }
        }
        Ok(())
    };
    let (writes, reads) = tokio::join!(writes, reads);
    writes.and(reads)?;
    let list = machine.run(&script("ls -A \"$HOME\"/.pcoder-testkit | grep -c atomic"), b"").await.map_err(said)?;
    same("what is left", String::from_utf8_lossy(&list.stdout.bytes).trim().to_owned(), "1".to_owned())
}

async fn commands_at_once(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    let one = |number: usize| async move {
        let text = format!("echo {number}; cat; exit {number}");
        let input = format!("input {number}");
        let expected = format!("{number}\ninput {number}");
        let code = i32::try_from(number).unwrap_or_default();
        answers(machine, &script(&text), input.as_bytes(), (code, expected.as_bytes(), b"")).await
    };
    join_all((0..8).map(one)).await.into_iter().collect()
}

async fn a_cancelled_command_ends(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    let control = machine.provider.control();
    let started = Instant::now();
    let spec = argv("sleep", &["100"]);
    let run = machine.provider.capture(&machine.id, &spec, Feed::Nothing, 4096, &control);
    let cancel = async {
        // The command is seen to run before it is cancelled, where that can be seen; else a cancelled start is one too.
        let seen = script(
            "i=0; while [ $i -lt 50 ] && ! ps -e -o args 2>/dev/null | grep -q '^sleep 100'; do i=$((i+1)); sleep 0.1; done",
        );
        drop(machine.run(&seen, b"").await);
        control.cancel();
    };
    let (result, ()) = tokio::join!(run, cancel);
    fails("the command", result, codes::CANCELLED)?;
    same("whether it took less than its 100 s", started.elapsed() < Duration::from_secs(60), true)?;
    // The instance goes on.
    answers(machine, &argv("echo", &["on"]), b"", (0, b"on\n", b"")).await
}

async fn an_unknown_instance_is_not_there(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    for id in ["morphvm_nothing", "nothing", "../x", ""] {
        fails(id, machine.provider.get(id).await, codes::NOT_FOUND)?;
        match machine.provider.shell(id, "echo ran", Feed::Nothing, 4096).await {
            Ok(_) => return Err(format!("a command ran on `{id}`")),
            Err(error) if error.is(codes::INTERNAL) => return Err(said(error)),
            Err(_) => {}
        }
    }
    Ok(())
}

async fn stopped_and_resumed(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    machine.write(&machine.at("kept"), b"kept", None).await.map_err(said)?;
    machine.provider.stop(&machine.id).await.map_err(said)?;
    let status = machine.provider.get(&machine.id).await.map_err(said)?.status;
    if status != "stopped" && status != "stopping" {
        return Err(format!("its status is {status}"));
    }
    // Stopping what is stopped is no error.
    machine.provider.stop(&machine.id).await.map_err(said)?;
    let resumed = machine.provider.resume(&machine.id).await.map_err(said)?;
    same("the status", resumed.status.as_str(), "ready")?;
    same("what was kept", machine.read(&machine.at("kept")).await.map_err(said)?, b"kept".to_vec())
}

async fn forked(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    machine.write(&machine.at("before"), b"before", None).await.map_err(said)?;
    let copy = machine.provider.fork(&machine.id).await.map_err(said)?;
    let tried = async {
        same("whether it is another one", copy.id == machine.id, false)?;
        let there = machine.provider.read_file(&copy.id, &machine.at("before")).await.map_err(said)?;
        same("what it was copied with", there, b"before".to_vec())?;
        machine.write(&machine.at("after"), b"after", None).await.map_err(said)?;
        fails("what came after", machine.provider.read_file(&copy.id, &machine.at("after")).await, codes::NOT_FOUND)
    };
    let tried = tried.await;
    let ended = machine.provider.terminate(&copy.id).await.map_err(said);
    tried.and(ended)
}

async fn a_port_has_an_address(machine: &Machine<'_>, _: &Subject<'_>) -> Case {
    let url = machine.provider.expose(&machine.id, 8123).await.map_err(said)?;
    same("whether it is an address", url.starts_with("http://") || url.starts_with("https://"), true)?;
    same("the address", machine.provider.expose(&machine.id, 8123).await.map_err(said)?, url)
}

/// The suite's own files go first: some machines stay.
async fn terminated(machine: &Machine<'_>) -> Case {
    machine.run(&script("rm -rf \"$HOME\"/.pcoder-testkit"), b"").await.map_err(said)?;
    machine.provider.terminate(&machine.id).await.map_err(said)?;
    machine.provider.terminate(&machine.id).await.map_err(said)?;
    if machine.has("host-paths") {
        return Ok(());
    }
    fails("the instance that was ended", machine.provider.get(&machine.id).await, codes::NOT_FOUND)
}
