//! PM2's list, and what our runs left beside it.
//!
//! An element of `pm2 jlist` holds the process's whole environment, so that only the fields that are named here are
//! taken out of it, and nothing of it is in an error or the log.

use std::collections::BTreeMap;

use pcoder_sdk::{ProcessInfo, Setting, name};
use serde_json::Value;

/// The variable that names a process's run. PM2 lists it as a field.
const RUN: &str = "PCODER_PM2_RUN";

/// How many hexadecimal digits a run's name ends with.
pub(crate) const RUN_DIGITS: usize = 16;

/// One copy of a process in PM2's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) name: String,
    /// The folder's name of the run, where it is one of ours.
    pub(crate) run: Option<String>,
    pub(crate) out_log: Option<String>,
    pub(crate) err_log: Option<String>,
    pub(crate) pid_file: Option<String>,
    pid: Option<u32>,
    status: String,
    autorestart: bool,
    exit_code: Option<i32>,
    restarts: Option<u32>,
    started_ms: Option<u64>,
    record: Record,
}

/// What a copy's supervisor wrote down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    exit: Option<i32>,
    last: Option<i32>,
    stopped: bool,
}

/// Reads what the driver printed. Nothing when there is no list in it.
///
/// PM2 prints banners in front of the list, some of which begin with `[PM2]`, and no newline behind it.
pub(crate) fn parse(text: &str) -> Option<Vec<Entry>> {
    let mut records: BTreeMap<(&str, u64), Record> = BTreeMap::new();
    let mut list = None;
    for line in text.lines() {
        if let Some((run, id, file, content)) = left_behind(line) {
            let record = records.entry((run, id)).or_default();
            match file {
                "exit" => record.exit = content.parse().ok(),
                "last" => record.last = content.parse().ok(),
                _ => record.stopped = true,
            }
        } else if let Ok(Value::Array(elements)) = serde_json::from_str(line) {
            list = Some(elements);
        }
    }
    let mut entries: Vec<Entry> = list?.iter().filter_map(entry).collect();
    for entry in &mut entries {
        if let Some(run) = &entry.run {
            entry.record = records.get(&(run.as_str(), entry.id)).copied().unwrap_or_default();
        }
    }
    Some(entries)
}

/// `pcoder RUN/FILE.ID CONTENT`
fn left_behind(line: &str) -> Option<(&str, u64, &str, &str)> {
    let (path, content) = line.strip_prefix("pcoder ")?.split_once(' ')?;
    let (run, file) = path.split_once('/')?;
    let (file, id) = file.split_once('.')?;
    Some((run, id.parse().ok()?, file, content.trim()))
}

fn entry(element: &Value) -> Option<Entry> {
    let env = element.get("pm2_env")?;
    let text = |key: &str| env.get(key).and_then(Value::as_str).map(str::to_owned);
    let number = |key: &str| env.get(key).and_then(Value::as_u64);
    let name = element.get("name").and_then(Value::as_str)?.to_owned();
    Some(Entry {
        id: element.get("pm_id").and_then(Value::as_u64)?,
        run: text(RUN).filter(|run| is_run_of(run, &name)),
        name,
        out_log: text("pm_out_log_path"),
        err_log: text("pm_err_log_path"),
        pid_file: text("pm_pid_path"),
        pid: element.get("pid").and_then(Value::as_u64).and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
        status: text("status").unwrap_or_default(),
        // PM2 takes both for "no".
        autorestart: !matches!(env.get("autorestart"), Some(Value::Bool(false)))
            && text("autorestart").as_deref() != Some("false"),
        exit_code: env.get("exit_code").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok()),
        restarts: number("restart_time").and_then(|restarts| u32::try_from(restarts).ok()),
        started_ms: number("pm_uptime"),
        record: Record::default(),
    })
}

/// Whether a text can be the folder of a run of that process. Anybody may set the variable, and a folder is removed.
fn is_run_of(run: &str, process: &str) -> bool {
    let digits = run.strip_prefix(process).and_then(|rest| rest.strip_prefix('.'));
    name::sanitize(process) == process
        && digits
            .is_some_and(|digits| digits.len() == RUN_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl Entry {
    /// Whether there is nothing to end: PM2 gave it up, or it ended and is not started again. What is to be started again
    /// is `stopped` to PM2 too, for the moment between.
    pub(crate) fn is_over(&self) -> bool {
        let stays = self.record.stopped || !self.autorestart;
        self.pid.is_none() && (self.status == "errored" || (self.status == "stopped" && stays))
    }

    /// Whether PM2 starts it again when it ends.
    pub(crate) fn is_started_again(&self) -> bool {
        self.autorestart
    }

    /// Whether it runs, or is about to.
    pub(crate) fn runs(&self) -> bool {
        self.pid.is_some() || matches!(self.status(), "online" | "launching")
    }

    /// The contract's view of it.
    pub(crate) fn info(&self) -> ProcessInfo {
        let mut details = vec![Setting::new("pm-id", self.id.to_string()), Setting::new("pm2-status", &self.status)];
        for (name, path) in [("out-log", &self.out_log), ("err-log", &self.err_log)] {
            details.extend(path.as_ref().map(|path| Setting::new(name, path)));
        }
        ProcessInfo {
            name: self.name.clone(),
            status: self.status().to_owned(),
            pid: self.pid,
            exit_code: self.exit_code(),
            restarts: self.restarts,
            started_ms: self.started_ms.filter(|_| self.pid.is_some()),
            details,
        }
    }

    /// To PM2 all that does not run is `stopped`, whether it was told to, has done its work, or failed.
    fn status(&self) -> &'static str {
        match self.status.as_str() {
            "online" | "stopping" | "one-launch-status" => "online",
            "launching" | "waiting restart" => "launching",
            _ if self.pid.is_some() => "online",
            _ if self.record.stopped => "stopped",
            "errored" => "errored",
            // Somebody stopped it by hand, or it is about to be started again.
            _ if self.autorestart => "stopped",
            _ => match self.exit_code() {
                Some(0) => "finished",
                Some(_) => "errored",
                None => "stopped",
            },
        }
    }

    /// What the supervisor wrote down, and otherwise what PM2 says. PM2's 0 means nothing: it says so after a signal too.
    fn exit_code(&self) -> Option<i32> {
        let ended = if self.is_over() { self.record.exit } else { self.record.exit.or(self.record.last) };
        ended.or(self.exit_code.filter(|code| *code != 0))
    }
}

#[cfg(test)]
mod tests;
