//! The contract's functions. What they do on the instance is in `scripts/driver.sh`.

use pcoder_sdk::host::ProcessManagerHost;
use pcoder_sdk::types::Level;
use pcoder_sdk::{
    CommandSpec, Error, ManagerInfo, ProcessInfo, ProcessLogs, ProcessManager, ProcessSpec, Result, WriteOptions, code,
    name,
};

use crate::driver::Driver;
use crate::listing::{self, Entry, RUN_DIGITS};
use crate::plan::{OPERATION as START, Plan};

const STOP: &str = "process-manager.stop";
const DELETE: &str = "process-manager.delete";
const LIST: &str = "process-manager.list";
const LOGS: &str = "process-manager.logs";

/// How often a process is stopped: PM2 starts one again that ended just when it was told to stop.
const STOPS: usize = 5;

/// Prints a file's last lines: FILE LINES. At most a mebibyte is read, whatever the file's length is. A process that has
/// not written yet has no file.
const TAIL: &str = r#"[ -f "$1" ] || exit 0; tail -c 1048576 "$1" | tail -n "$2""#;

/// PM2 on the instance.
#[derive(Default)]
pub struct Pm2;

impl ProcessManager for Pm2 {
    fn info(&self) -> ManagerInfo {
        ManagerInfo {
            name: "pm2".to_owned(),
            description: "Keeps processes running with PM2: list, logs, restarts".to_owned(),
            features: ["daemon", "restart", "logs"].map(str::to_owned).to_vec(),
        }
    }

    /// Starts the process and returns as soon as PM2 runs it. The command gets what the instance gives every command and
    /// its own variables; no profile is read. Its name is made safe, and one that is in the list is `already-exists`.
    /// Several copies share the name and the logs.
    fn start(&self, host: ProcessManagerHost<'_>, spec: ProcessSpec) -> Result<ProcessInfo> {
        let plan = Plan::new(&spec)?;
        let driver = Driver { host, operation: START };
        let run = format!("{}.{:0RUN_DIGITS$x}", plan.name, host.random().bits());
        let of_process = |error: Error| match error.subject {
            Some(_) => error.during(START),
            None => error.during(START).subject(&plan.name),
        };
        let prepared = driver.run("prepare", [run.clone()]).map_err(of_process)?.text();
        // A shell may have something to say before the script has.
        let folder = prepared.lines().next_back().unwrap_or_default();
        if !folder.starts_with('/') || !folder.ends_with(&format!("/pcoder/run/{run}")) {
            return Err(of_process(Error::new(code::INTEGRITY, START, "the instance's answer cannot be read")));
        }
        let result = launch(driver, &plan, folder);
        if result.as_ref().is_err_and(|error| error.code != code::TIMEOUT && error.code != code::INTEGRITY) {
            // It does not run: with these two it may. What failed is what counts, not whether this worked too.
            drop(host.target().delete_directory(folder));
        }
        result.map_err(of_process)
    }

    fn stop(&self, host: ProcessManagerHost<'_>, name: &str) -> Result<()> {
        let driver = Driver { host, operation: STOP };
        let entries = entries_of(driver, name)?;
        if entries.is_empty() {
            return Err(unknown(STOP, name));
        }
        let mut running: Vec<Entry> = entries.into_iter().filter(|entry| !entry.is_over()).collect();
        for _ in 0..STOPS {
            if running.is_empty() {
                return Ok(());
            }
            driver.run("stop", ends(&running)).map_err(|error| error.subject(name))?;
            if running.iter().all(|entry| !entry.is_started_again()) {
                return Ok(());
            }
            // Nothing that was stopped waits to be started again: what does not run now will not.
            running = entries_of(driver, name)?.into_iter().filter(Entry::runs).collect();
        }
        if running.is_empty() {
            return Ok(());
        }
        let message = "PM2 starts the process again each time that it is stopped";
        Err(Error::new(code::CONFLICT, STOP, message)
            .subject(name)
            .hint("`pcoder process delete NAME --on INSTANCE` ends it for good"))
    }

    /// Takes the process off the list, ending it first, and removes what it left: environment, exit codes and logs. The
    /// logs of a process that somebody else started with PM2 stay where they are.
    fn delete(&self, host: ProcessManagerHost<'_>, name: &str) -> Result<()> {
        let driver = Driver { host, operation: DELETE };
        let entries = entries_of(driver, name)?;
        // The folders of a safe name are ours; somebody else's process may have any name, and has none.
        let safe = name::sanitize(name);
        let ours = entries.first().is_none_or(|entry| entry.name == safe);
        let mut arguments = vec![if ours { safe } else { String::new() }];
        arguments.extend(ends(&entries));
        driver.run("delete", arguments).map(|_| ()).map_err(|error| error.subject(name))
    }

    /// Lists what PM2 has, processes that somebody else started included. A list that cannot be read is empty, and the
    /// log says so.
    fn list(&self, host: ProcessManagerHost<'_>) -> Result<Vec<ProcessInfo>> {
        let output = Driver { host, operation: LIST }.run("list", [])?;
        let entries = listing::parse(&output.text()).unwrap_or_else(|| {
            let message = format!("PM2's list cannot be read: {} bytes without a list in them", output.stdout.len());
            host.log().log(Level::Warn, &message);
            Vec::new()
        });
        Ok(entries.iter().map(Entry::info).collect())
    }

    /// The last lines of each stream, of at most the last mebibyte. Of several copies that keep logs of their own, one
    /// after the other.
    fn logs(&self, host: ProcessManagerHost<'_>, name: &str, lines: u32) -> Result<ProcessLogs> {
        let entries = entries_of(Driver { host, operation: LOGS }, name)?;
        if entries.is_empty() {
            return Err(unknown(LOGS, name));
        }
        let read = |file: fn(&Entry) -> Option<&String>| {
            let mut files: Vec<&String> = entries.iter().filter_map(file).collect();
            files.dedup();
            files.into_iter().map(|file| tail(host, file, lines)).collect::<Result<String>>()
        };
        Ok(ProcessLogs { out: read(|entry| entry.out_log.as_ref())?, err: read(|entry| entry.err_log.as_ref())? })
    }
}

fn launch(driver: Driver<'_>, plan: &Plan, folder: &str) -> Result<ProcessInfo> {
    let random = driver.host.random();
    let token = format!("{:016x}{:016x}", random.bits(), random.bits());
    let private = WriteOptions::plain().with_mode(0o600);
    let file = format!("{folder}/environment");
    driver.host.target().write_file_atomic(&file, plan.environment(&token).as_bytes(), private)?;
    let output = driver.run("start", plan.arguments(folder))?;
    let entries = listing::parse(&output.text()).ok_or_else(|| unreadable(START))?;
    match entries.iter().find(|entry| entry.name == plan.name) {
        Some(entry) => Ok(entry.info()),
        None => Err(Error::new(code::PROCESS, START, "PM2 said that it started the process and does not list it")),
    }
}

/// The copies of a process. A name is looked for as it is, and then as it would have been made safe.
fn entries_of(driver: Driver<'_>, name: &str) -> Result<Vec<Entry>> {
    let output = driver.run("list", []).map_err(|error| match error.subject {
        Some(_) => error,
        None => error.subject(name),
    })?;
    let entries = listing::parse(&output.text()).ok_or_else(|| unreadable(driver.operation).subject(name))?;
    let named = |name: &str| entries.iter().filter(|entry| entry.name == name).cloned().collect::<Vec<_>>();
    let exact = named(name);
    Ok(if exact.is_empty() { named(&name::sanitize(name)) } else { exact })
}

/// The driver's arguments for ending these.
fn ends(entries: &[Entry]) -> Vec<String> {
    let words = |entry: &Entry| {
        [entry.id.to_string(), entry.pid_file.clone().unwrap_or_default(), entry.run.clone().unwrap_or_default()]
    };
    entries.iter().flat_map(words).collect()
}

fn tail(host: ProcessManagerHost<'_>, file: &str, lines: u32) -> Result<String> {
    let spec = CommandSpec::argv("sh", ["-c", TAIL, "sh", file, &lines.to_string()]).named("pm2 logs");
    let output = host.target().run(&spec, &[]).map_err(|error| error.during(LOGS).subject(file))?;
    if !output.status.success() {
        return Err(Error { code: code::IO.to_owned(), ..output.failure(LOGS, "tail") }.subject(file));
    }
    Ok(output.text())
}

fn unknown(operation: &str, name: &str) -> Error {
    Error::new(code::NOT_FOUND, operation, "PM2 has no process of this name").subject(name)
}

fn unreadable(operation: &str) -> Error {
    Error::new(code::INTEGRITY, operation, "PM2's list cannot be read")
}

#[cfg(test)]
mod tests;
