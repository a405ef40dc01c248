//! Any command arrives byte for byte, through what PM2 is given and real shells.

use std::fs;

use pcoder_quoting_tests::{Command, Shell, Transport, assert_commands_arrive};
use pcoder_sdk::{ProcessSpec, shell};
use process_pm2::{Plan, enter_argv};

/// What runs below the supervisor: the line, and the file with the variables.
struct Payload;

impl Transport for Payload {
    fn run(&self, shell: &Shell, commands: &[Command]) -> Vec<u8> {
        let printed = commands.iter().map(|Command { spec, home, folder }| {
            let plan = Plan::new(&ProcessSpec::once(spec.clone())).unwrap();
            fs::write(folder.join("base"), format!("export HOME={}\n", shell::quote(home))).unwrap();
            fs::write(folder.join("environment"), plan.environment("0123456789abcdef")).unwrap();
            shell.run(home, &enter_argv(folder.to_str().unwrap(), &plan.line))
        });
        printed.flatten().collect()
    }
}

#[test]
fn any_command_arrives_byte_for_byte() {
    assert_commands_arrive(&Payload);
}
