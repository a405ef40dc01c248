//! pcoder's folders, the audit, and who may read them.

use std::io::ErrorKind;
use std::path::Path;

use pcoder_runtime::Error;

use super::Job;
use super::record::{Finding, said};
use crate::Pcoder;

const CATEGORY: &str = "folders";

pub(super) fn jobs(pcoder: &Pcoder) -> Vec<Job> {
    let mut jobs = vec![
        Job::look(CATEGORY, "folder.data", |pcoder| folder(&pcoder.layout().data)),
        Job::look(CATEGORY, "folder.cache", |pcoder| folder(&pcoder.layout().cache)),
        Job::look(CATEGORY, "folder.code-cache", code_cache),
        Job::look(CATEGORY, "folder.leftovers", leftovers),
        Job::look(CATEGORY, "folder.permissions", permissions),
    ];
    if pcoder.layout().portable_folder().is_some() {
        jobs.push(Job::look(CATEGORY, "folder.portable", portable));
    }
    jobs
}

/// Of a portable folder: what of it is on this machine.
fn portable(pcoder: &Pcoder) -> Finding {
    let folder = pcoder.layout().portable_folder().unwrap_or(&pcoder.layout().data).display().to_string();
    if !pcoder.layout().locks_elsewhere() {
        return Finding::ok(format!("everything is in {folder}"));
    }
    Finding::warning(
        format!("locks are in {}, because the file system of {folder} has none", pcoder.layout().locks.display()),
        "everything in the portable folder",
        "two machines that use it at once could damage its files",
        "use it on one machine at a time, or move the folder to a disk of this machine",
    )
}

pub(super) fn audit_jobs(_pcoder: &Pcoder) -> Vec<Job> {
    vec![Job::look("audit", "audit.file", |pcoder| audit(&pcoder.layout().audit()))]
}

/// The nearest thing above a path that is there: what would be written to, were the path made now.
pub(super) fn nearest(path: &Path) -> Option<&Path> {
    path.ancestors().find(|it| it.symlink_metadata().is_ok())
}

/// Looked at without creating anything: the nearest thing that exists must be a folder that can be written to.
fn folder(path: &Path) -> Finding {
    let shown = path.display().to_string();
    let expected = "a folder for pcoder's files that can be written to";
    let meaning = "nothing can be installed or kept";
    let remedy = format!("make {shown} a folder of yours that can be written to, or set `PCODER_HOME` to another one");
    match nearest(path).map(tempfile::tempfile_in) {
        // The same words before it is made and after: the calls of other checks make it, sooner or later than this look.
        Some(Ok(_)) => Finding::ok(format!("{shown} can be written to")),
        // Its own hint is about permissions in general; which folder to look at is known here.
        Some(Err(error)) => Finding::fail(format!("{shown}: {error}"), expected, meaning, remedy),
        None => Finding::fail(format!("{shown} has no disk"), expected, meaning, remedy),
    }
}

fn audit(path: &Path) -> Finding {
    let shown = path.display().to_string();
    let failed = |measured: String| {
        Finding::fail(
            measured,
            "a file that lines can be added to",
            "what plugins do leaves no record",
            format!("make {shown} a file that can be written, or move it away: a new one is made"),
        )
    };
    // Opening a pipe would wait for its reader.
    match std::fs::metadata(path) {
        Ok(data) if !data.is_file() => return failed(format!("{shown} is no file")),
        Err(error) if error.kind() != ErrorKind::NotFound => return failed(format!("{shown}: {error}")),
        // The same words before the first call and after it.
        Err(_) => return Finding::ok(format!("what plugins do is added to {shown}")),
        Ok(_) => {}
    }
    match std::fs::OpenOptions::new().append(true).open(path) {
        Ok(_) => Finding::ok(format!("what plugins do is added to {shown}")),
        Err(error) => failed(format!("{shown}: {error}")),
    }
}

fn code_cache(pcoder: &Pcoder) -> Finding {
    let path = pcoder.layout().code_cache();
    let shown = path.display().to_string();
    // The runtime makes it when it starts, and takes others' permissions away; whether that was before or after this
    // look should not be seen.
    drop(pcoder.runtime());
    let failed = |error: &Error| {
        Finding::warning(
            said(error),
            "a folder for compiled code that is its owner's alone",
            "plugins that are not built in are compiled at every start, which is slow",
            error.hint.clone().unwrap_or_else(|| format!("make {shown} a folder of yours that can be written to")),
        )
    };
    match pcoder_runtime::artifact::Cache::open(&path) {
        Ok(_) => Finding::ok(format!("{shown} is its owner's alone")),
        Err(error) => failed(&error),
    }
}

fn leftovers(pcoder: &Pcoder) -> Finding {
    match super::fix::leftovers(pcoder.layout()).len() {
        0 => Finding::ok("none of a pcoder that was killed"),
        count => Finding::warning(
            format!("{count} in {}", pcoder.layout().data.display()),
            "none",
            "a pcoder that was killed while it wrote left them; they only take room",
            "`pcoder doctor --fix` removes them",
        )
        .fixable(),
    }
}

fn permissions(pcoder: &Pcoder) -> Finding {
    let loose = super::fix::loose(pcoder.layout());
    if loose.is_empty() {
        return Finding::ok(if cfg!(unix) {
            "pcoder's own files are their owner's alone"
        } else {
            "they are those of the user's folder"
        });
    }
    if super::host::lacks_permissions(&pcoder.layout().data) {
        return Finding::ok("their file system has no permissions");
    }
    let list: Vec<String> = loose.iter().map(|it| format!("{} ({:04o})", it.path.display(), it.mode)).collect();
    Finding::warning(
        list.join(", "),
        "files that are their owner's alone",
        "other users of this machine can read or change how you log in, what plugins may do and what they did",
        "`pcoder doctor --fix`",
    )
    .fixable()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    fn status(finding: Finding) -> (Status, String) {
        let check = finding.into_check("t".into(), "t", std::time::Duration::ZERO);
        (check.status, check.measured)
    }

    #[test]
    fn a_file_in_the_way_of_a_folder_is_a_failure() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("file/below");
        std::fs::write(place.path().join("file"), "").expect("a file");
        assert_eq!(status(folder(&path)).0, Status::Fail);
        assert_eq!(status(folder(&place.path().join("a/b/c"))).0, Status::Ok);
        assert!(!place.path().join("a").exists(), "looking creates nothing");
    }

    #[test]
    fn an_audit_that_is_no_file_is_a_failure_and_one_that_is_not_there_none() {
        let place = tempfile::tempdir().expect("a folder");
        assert_eq!(status(audit(place.path())).0, Status::Fail);
        assert_eq!(status(audit(&place.path().join("audit.jsonl"))).0, Status::Ok);
    }
}
