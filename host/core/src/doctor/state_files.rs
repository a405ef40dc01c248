//! The files that last: whether each can be read, and is one that this version understands.

use std::path::Path;

use pcoder_runtime::Error;

use super::Job;
use super::record::{Finding, said};
use crate::Pcoder;
use crate::grants::Policy;
use crate::layout::absolute;
use crate::settings::PROJECT_FILE;

const CATEGORY: &str = "state";
const POLICY: &str = "policy";
const POLICY_VARIABLE: &str = "PCODER_POLICY";

pub(super) fn jobs(_pcoder: &Pcoder) -> Vec<Job> {
    vec![
        Job::look(CATEGORY, "state.settings", settings),
        Job::look(CATEGORY, "state.environment", environment),
        Job::look(CATEGORY, "state.project", project),
        Job::look(CATEGORY, "state.auth", auth),
        Job::look(CATEGORY, "state.plugins-lock", plugins_lock),
    ]
}

pub(super) fn policy_jobs(pcoder: &Pcoder) -> Vec<Job> {
    let mut jobs = vec![Job::look(POLICY, "policy.system", |pcoder| match &pcoder.surroundings().system_policy {
        Some(path) if path.symlink_metadata().is_ok() => policy(path),
        _ => Finding::ok("there is none: grants alone decide"),
    })];
    if pcoder.surroundings().variable(POLICY_VARIABLE).is_some() {
        jobs.push(Job::look(POLICY, format!("policy.{POLICY_VARIABLE}"), |pcoder| {
            let surroundings = pcoder.surroundings();
            let path = surroundings.variable(POLICY_VARIABLE).unwrap_or_default();
            policy(&absolute(&surroundings.cwd, Path::new(path)))
        }));
    }
    jobs
}

/// What can be read is named; what is not there is no fault.
fn of_file<T>(path: &Path, read: &Result<T, Error>, well: impl FnOnce(&T) -> String, meaning: &str) -> Finding {
    let shown = path.display();
    match read {
        Ok(_) if path.symlink_metadata().is_err() => Finding::ok(format!("{shown} is made when it is needed")),
        Ok(read) => Finding::ok(format!("{shown}: {}", well(read))),
        Err(error) => {
            let hint = error.hint.as_deref().unwrap_or("correct it, or move it away");
            Finding::fail(said(error), "a file that can be read", meaning, format!("{shown}: {hint}"))
        }
    }
}

fn settings(pcoder: &Pcoder) -> Finding {
    let read = pcoder.settings(None).map(drop);
    let meaning = "nothing runs: which tool, profile and secrets are meant is not known";
    of_file(&pcoder.layout().settings(), &read, |()| "understood".to_owned(), meaning)
}

/// Settings that come from variables. Their values are not shown: a variable may hold anything by mistake.
fn environment(pcoder: &Pcoder) -> Finding {
    let Ok(settings) = pcoder.settings(None) else {
        return Finding::ok("not looked at as long as the settings' file cannot be read");
    };
    match settings.all() {
        Ok(_) => Finding::ok("no variable holds a setting that cannot be"),
        Err(error) => Finding::fail(
            format!(
                "the variable `{}` holds no value that it can have",
                error.subject.as_deref().unwrap_or("PCODER_…")
            ),
            "a variable that is unset, or holds what the setting of its name may be",
            "nothing runs as long as it is set",
            error.hint.clone().unwrap_or_else(|| "unset that variable".to_owned()),
        ),
    }
}

fn project(pcoder: &Pcoder) -> Finding {
    let folder = &pcoder.surroundings().cwd;
    let path = folder.join(PROJECT_FILE);
    if pcoder.settings(None).is_err() {
        return Finding::ok("not looked at as long as the settings' file cannot be read");
    }
    if path.symlink_metadata().is_err() {
        return Finding::ok(format!("there is no {PROJECT_FILE} in this folder"));
    }
    let read = pcoder.settings(Some(folder)).map(drop);
    of_file(&path, &read, |()| "understood".to_owned(), "nothing runs in this folder")
}

fn auth(pcoder: &Pcoder) -> Finding {
    // Of whichever tool: all of it is read.
    let read = pcoder.auth_of("").map(drop);
    let meaning = "no tool runs: how each of them logs in is not known";
    of_file(&pcoder.layout().auth(), &read, |()| "understood".to_owned(), meaning)
}

fn plugins_lock(pcoder: &Pcoder) -> Finding {
    let well = |lock: &crate::grants::PluginsLock| match lock.plugins.len() {
        1 => "1 plugin".to_owned(),
        count => format!("{count} plugins"),
    };
    let meaning = "no plugin runs: what was granted to each is not known";
    of_file(&pcoder.layout().plugins_lock(), &pcoder.plugins_lock(), well, meaning)
}

fn policy(path: &Path) -> Finding {
    match Policy::read(path) {
        Ok(_) => Finding::ok(format!("{} is enforced", path.display())),
        Err(error) => {
            let hint = error.hint.as_deref().unwrap_or("ask the administrator of this machine to correct it");
            Finding::fail(
                said(&error),
                "a policy of which all can be enforced",
                "no plugin runs: what the policy forbids is not known",
                format!("{}: {hint}", path.display()),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Surroundings;
    use crate::doctor::{Check, Status};

    fn pcoder(folder: &Path, variables: &[(&str, &str)]) -> Pcoder {
        let mut environment = vec![("PCODER_HOME".into(), folder.into())];
        environment.extend(variables.iter().map(|&(name, value)| (name.into(), value.into())));
        Pcoder::new(Surroundings { environment, cwd: folder.into(), ..Surroundings::default() }, &[], false)
            .expect("one")
    }

    fn check(finding: Finding) -> Check {
        finding.into_check("t".into(), "t", std::time::Duration::ZERO)
    }

    #[test]
    fn a_broken_file_is_told_with_its_place_and_a_newer_one_as_such() {
        let folder = tempfile::tempdir().expect("a folder");
        let pcoder = pcoder(folder.path(), &[]);
        assert_eq!(check(settings(&pcoder)).status, Status::Ok, "none is no fault");
        std::fs::write(pcoder.layout().settings(), "tool = \"claude\"\ninstal = \"ask\"\n").expect("a file");
        std::fs::write(pcoder.layout().auth(), "version = 9\n").expect("a file");
        let broken = check(settings(&pcoder));
        assert!(broken.measured.contains("settings.toml: line 2, column 1: unknown field `instal`"), "{broken:?}");
        assert!(broken.remedy.is_some_and(|it| it.contains("settings.toml")));
        let newer = check(auth(&pcoder));
        assert!(newer.status == Status::Fail && newer.measured.contains("newer pcoder"), "{newer:?}");
        assert_eq!(check(environment(&pcoder)).status, Status::Ok);
    }

    #[test]
    fn a_variable_is_named_and_its_value_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let found = check(environment(&pcoder(folder.path(), &[("PCODER_TOOL", "sk-ant-CANARY")])));
        assert_eq!(found.status, Status::Fail);
        assert!(found.measured.contains("PCODER_TOOL") && !format!("{found:?}").contains("CANARY"), "{found:?}");
    }

    #[test]
    fn a_projects_file_is_told_apart_from_the_users() {
        let folder = tempfile::tempdir().expect("a folder");
        let pcoder = pcoder(folder.path(), &[]);
        assert_eq!(check(project(&pcoder)).measured, "there is no pcoder.toml in this folder");
        std::fs::write(folder.path().join(PROJECT_FILE), "provider = \"x\"\n").expect("a file");
        let found = check(project(&pcoder));
        assert!(found.status == Status::Fail && found.measured.contains("unknown field `provider`"), "{found:?}");
        assert_eq!(check(settings(&pcoder)).status, Status::Ok);
    }
}
