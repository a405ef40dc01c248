//! A process manager that does one thing with the call's instance or with files: the name of the process says what,
//! arguments behind U+001F. It exists because its world imports both.
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

use pcoder_sdk::host::ProcessManagerHost;
use pcoder_sdk::{
    CommandSpec, Error, ManagerInfo, ProcessInfo, ProcessLogs, ProcessManager, ProcessSpec, Result, WriteOptions,
};

/// The manager.
#[derive(Default)]
pub struct Hostile;

impl ProcessManager for Hostile {
    fn info(&self) -> ManagerInfo {
        ManagerInfo {
            name: "hostile".to_owned(),
            description: "Does one thing with the call's instance".to_owned(),
            features: Vec::new(),
        }
    }

    fn start(&self, host: ProcessManagerHost<'_>, spec: ProcessSpec) -> Result<ProcessInfo> {
        let script = spec.command.name.clone().unwrap_or_default();
        let args: Vec<&str> = script.split('\u{1f}').collect();
        let arg = |index: usize| args.get(index).copied().unwrap_or_default();
        let (target, files, options) = (host.target(), host.files(), WriteOptions::plain);
        match arg(0) {
            "target.home-dir" => target.home_dir().map(drop),
            "target.run" => target.run(&CommandSpec::shell(arg(1)), &[]).map(drop),
            "target.read-file" => target.read_file(arg(1)).map(drop),
            "target.write-file" => target.write_file(arg(1), arg(2).as_bytes(), options()),
            "target.write-file-atomic" => target.write_file_atomic(arg(1), arg(2).as_bytes(), options()),
            "target.file-exists" => target.file_exists(arg(1)).map(drop),
            "target.create-directory" => target.create_directory(arg(1), None),
            "target.delete-file" => target.delete_file(arg(1)),
            "target.delete-directory" => target.delete_directory(arg(1)),
            "files.read" => files.read(arg(1), arg(2)).map(drop),
            "files.write" => files.write(arg(1), arg(2), arg(3).as_bytes(), options()),
            "files.write-atomic" => files.write_atomic(arg(1), arg(2), arg(3).as_bytes(), options()),
            "files.list" => files.list(arg(1), arg(2)).map(drop),
            "files.stat" => files.stat(arg(1), arg(2)).map(drop),
            "files.rename" => files.rename(arg(1), arg(2), arg(3)),
            "files.remove" => files.remove(arg(1), arg(2), false),
            "files.create-directory" => files.create_directory(arg(1), arg(2), None),
            other => Err(Error::invalid("hostile", format!("no such step: {other}"))),
        }?;
        Ok(ProcessInfo {
            name: spec.command.name.unwrap_or_default(),
            status: "finished".to_owned(),
            pid: None,
            exit_code: Some(0),
            restarts: None,
            started_ms: None,
            details: Vec::new(),
        })
    }

    fn logs(&self, _: ProcessManagerHost<'_>, _: &str, _: u32) -> Result<ProcessLogs> {
        Ok(ProcessLogs { out: String::new(), err: String::new() })
    }
}

pcoder_sdk::export!(process_manager: Hostile);
