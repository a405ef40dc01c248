//! `__private-tmp`: becomes a command that has a `/tmp` of its own. It has one thread, and starts no other.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use pcoder_core::runtime::Error;
use pcoder_core::runtime::process::enter_private_tmp;

use crate::args::PrivateTmp;
use crate::output::{fail, note};

pub(crate) fn become_command(arguments: &PrivateTmp) -> ExitCode {
    let sockets = match enter_private_tmp() {
        Ok(sockets) => sockets,
        // One line, for whoever started this.
        Err(error) => {
            note(&error.message);
            return ExitCode::FAILURE;
        }
    };
    let (false, Some((program, args))) = (arguments.probe, arguments.command.split_first()) else {
        return ExitCode::SUCCESS;
    };
    let mut command = Command::new(program);
    command.args(args);
    if arguments.sockets {
        command.env("XDG_RUNTIME_DIR", sockets);
    }
    // It comes back only where it failed.
    let error = command.exec();
    fail(&Error::io("run", program.to_string_lossy(), &error), false)
}
