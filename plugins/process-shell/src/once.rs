//! Running once. There is no daemon, so there is nothing to list, to stop or to read logs from later.

use pcoder_sdk::host::ProcessManagerHost;
use pcoder_sdk::{
    Error, ExitStatus, ManagerInfo, Output, ProcessInfo, ProcessLogs, ProcessManager, ProcessSpec, Restart, Result,
    code, name, text,
};

const OPERATION: &str = "process-manager.start";

/// How many of the last lines of standard error go into a failure's message, and how many characters.
const TAIL_LINES: usize = 5;
const TAIL_LIMIT: usize = 600;

/// A plain shell.
#[derive(Default)]
pub struct Once;

impl ProcessManager for Once {
    fn info(&self) -> ManagerInfo {
        ManagerInfo {
            name: "shell".to_owned(),
            description: "Runs a process once, to its end; keeps neither list nor logs".to_owned(),
            features: Vec::new(),
        }
    }

    /// Runs the command as it is: arguments stay arguments, a script stays a script. Returns when it has ended.
    fn start(&self, host: ProcessManagerHost<'_>, spec: ProcessSpec) -> Result<ProcessInfo> {
        check(&spec)?;
        let name = name::sanitize(spec.command.name.as_deref().unwrap_or("process"));
        let output = host.target().run(&spec.command, &[]).map_err(|error| error.subject(&name).during(OPERATION))?;
        match output.status {
            ExitStatus::Exited(0) => Ok(finished(name)),
            _ => Err(failure(&name, &output)),
        }
    }

    /// Does nothing: what was started has ended.
    fn stop(&self, _host: ProcessManagerHost<'_>, _name: &str) -> Result<()> {
        Ok(())
    }

    /// Does nothing: there is no list to take it off.
    fn delete(&self, _host: ProcessManagerHost<'_>, _name: &str) -> Result<()> {
        Ok(())
    }

    /// Nothing: what was started has ended.
    fn list(&self, _host: ProcessManagerHost<'_>) -> Result<Vec<ProcessInfo>> {
        Ok(Vec::new())
    }

    /// Nothing: output is not kept.
    fn logs(&self, _host: ProcessManagerHost<'_>, _name: &str, _lines: u32) -> Result<ProcessLogs> {
        Ok(ProcessLogs { out: String::new(), err: String::new() })
    }
}

/// Refuses what running once cannot give, before anything runs.
fn check(spec: &ProcessSpec) -> Result<()> {
    let cannot = |what: &str| {
        Err(Error::unsupported(OPERATION, format!("the process manager `shell` runs a process once and cannot {what}"))
            .hint("another process manager may: `pcoder plugin list` shows them"))
    };
    if spec.restart != Restart::Never {
        return cannot("start it again");
    }
    if spec.instances.is_some_and(|instances| instances != 1) {
        return cannot("run several copies");
    }
    if spec.max_memory.is_some() {
        return cannot("bound its memory");
    }
    if let Some(option) = spec.options.first() {
        return Err(
            Error::invalid(OPERATION, "this is not an option of the process manager `shell`").subject(&option.name)
        );
    }
    Ok(())
}

fn finished(name: String) -> ProcessInfo {
    ProcessInfo {
        name,
        status: "finished".to_owned(),
        pid: None,
        exit_code: Some(0),
        restarts: Some(0),
        started_ms: None,
        details: Vec::new(),
    }
}

fn failure(name: &str, output: &Output) -> Error {
    let mut message =
        format!("it ended with {} and {} bytes on standard error", output.status.describe(), output.stderr.len());
    let tail = text::tail(&output.stderr, TAIL_LINES, TAIL_LIMIT);
    if !tail.is_empty() {
        message.push_str(": ");
        message.push_str(&tail);
    }
    Error::new(code::PROCESS, OPERATION, message).subject(name)
}

#[cfg(test)]
mod tests;
