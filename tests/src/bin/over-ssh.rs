//! Runs one command over SSH with this program's own streams, and then reads one line itself.
//!
//! It is a program of its own because a terminal belongs to a whole process. `over-ssh URL HOST PORT USER CREDENTIAL
//! HOST-KEY SCRIPT` prints `ended STATUS` when the command has, and `then LINE` for what it read afterwards.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a test's helper: what it prints is its result")]

use pcoder_runtime::call::CallContext;
use pcoder_runtime::contract::{Command, CommandSpec};
use pcoder_runtime::host::stdio::Stdio;
use pcoder_tests::{Grant, House, SEPARATOR, argv};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, endpoint @ .., script] = args.as_slice() else { panic_usage() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let house = House::provider(&format!("[[net]]\nurl = \"{url}\"\naddresses = [\"loopback\"]\n"), Grant::All);
    let spec = CommandSpec { command: Command::Shell(script.clone()), ..argv("sh", &[]) };
    let id = format!("ssh{SEPARATOR}{}", endpoint.join(SEPARATOR));
    let status = runtime.block_on(async {
        let provider = house.plugin.provider().expect("a provider");
        provider
            .exec(CallContext { deadline: Some(None), ..CallContext::default() }, &id, &spec, Stdio::inherit())
            .await
    });
    println!("ended {status:?}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("a line");
    println!("then {line}");
}

#[allow(clippy::panic, reason = "a test's helper")]
fn panic_usage() -> ! {
    panic!("over-ssh URL HOST PORT USER CREDENTIAL HOST-KEY SCRIPT")
}
