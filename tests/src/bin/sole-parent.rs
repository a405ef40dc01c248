//! Runs calls of the hostile provider as the sole parent of its processes, and says what is left of them.
//!
//! It is a program of its own because adopting orphans is a matter of the whole process. `sole-parent MODE SCRIPT…`
//! captures each script of `sh` in a call of its own, all at once; MODE is `sole`, `guarded` for one that has a guard
//! too, or `by-name` for a host that starts other processes. It prints a JSON object: `answers`, and `children`, the
//! process ids that are its children in the end. `sole-parent guard` is the guard.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a test's helper: what it prints is its result")]

use std::sync::Arc;

use pcoder_runtime::process::{GuardCommand, Processes, guard};
use pcoder_tests::{Grant, House, argv, called};

fn main() {
    let mut args = std::env::args().skip(1);
    let mode = args.next().unwrap_or_default();
    if mode == "guard" {
        return guard(std::io::stdin().lock());
    }
    let scripts: Vec<String> = args.collect();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let processes = Processes::new(mode != "by-name");
    if mode == "guarded" {
        let program = std::env::current_exe().expect("this program");
        processes.guard_with(GuardCommand { program, name: "sole-parent".into(), args: vec!["guard".into()] });
    }
    let request = "[[exec]]\nprogram = \"as called\"\n[limits]\nwall-seconds = 60\n";
    let house = Arc::new(House::with_processes("hostile", request, Grant::All, processes));
    let answers = runtime.block_on(async {
        let calls: Vec<_> = scripts
            .into_iter()
            .map(|script| {
                let house = Arc::clone(&house);
                tokio::spawn(async move {
                    let command = argv("/bin/sh", &["-c", &script]);
                    house.step(called(&command), &["process.capture", "/bin/sh", "-c", &script]).await
                })
            })
            .collect();
        let mut answers = Vec::new();
        for call in calls {
            answers.push(call.await.expect("the call's task"));
        }
        answers
    });
    // The guard ends with the last of what holds the processes.
    drop((house, runtime));
    println!("{}", serde_json::json!({ "answers": answers, "children": children() }));
}

/// Zombies too: nobody else will reap them.
fn children() -> Vec<u32> {
    let mut children = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").expect("/proc").flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(text.split_whitespace().filter_map(|it| it.parse::<u32>().ok()));
    }
    children
}
