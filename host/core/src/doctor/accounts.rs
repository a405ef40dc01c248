//! Who tools log in as: what `pcoder auth` was told, profiles, and where secrets come from.
//!
//! Of a secret only whether it has a value is looked at. A keyring and a command may ask their user for a password, so
//! those are named and not asked. Of a login the engine is asked, as `pcoder auth status` does, but never where that
//! would renew it over the network.

use std::path::Path;

use pcoder_oauth::CredentialsFile;
use pcoder_runtime::Error;
use pcoder_runtime::contract::agent::AgentInfo;
use pcoder_runtime::manifest::Kind;
use pcoder_secrets::{Reference, Source};

use super::Job;
use super::record::{Check, Finding, Status, said};
use crate::Pcoder;
use crate::auth::ToolAuth;
use crate::errors::from_engines;
use crate::profiles::{AuthMode, Profile};

const AUTH: &str = "auth";
const EXPECTED: &str = "a login or a key";

pub(super) fn auth_jobs(pcoder: &Pcoder) -> Vec<Job> {
    let job = |tool: String| {
        let id = format!("auth.{tool}");
        Job::new(AUTH, id, |pcoder| async move { auth(&pcoder, &tool).await })
    };
    pcoder.tool_names().into_iter().map(job).collect()
}

pub(super) fn profile_jobs(pcoder: &Pcoder) -> Vec<Job> {
    const CATEGORY: &str = "profiles";
    match pcoder.profile_names() {
        Ok(names) => {
            let job = |name: String| {
                let id = format!("profile.{name}");
                Job::new(CATEGORY, id, |pcoder| async move { profile(&pcoder, &name).await })
            };
            names.into_iter().map(job).collect()
        }
        Err(error) => vec![Job::look(CATEGORY, "profile.any", move |pcoder| {
            let folder = pcoder.layout().profiles().display().to_string();
            let remedy = format!("make {folder} a folder that can be read");
            Finding::error(&error, "a folder with profiles, or none", "no profile can be used", remedy)
        })],
    }
}

pub(super) fn secret_jobs(pcoder: &Pcoder) -> Vec<Job> {
    // Settings that cannot be read are a finding of their own.
    let references = pcoder.secret_references().unwrap_or_default();
    let job = |(name, reference): (String, Reference)| {
        let id = format!("secret.{name}");
        Job::new("secrets", id, |pcoder| async move { secret(&pcoder, &name, &reference).await })
    };
    references.into_iter().map(job).collect()
}

/// A tool that is not logged in is no finding as long as another one is: whoever uses only that one needs no more. Nor is
/// it one where its own configuration may name another service, which nobody but the tool knows. When no tool at all is
/// logged in, the first run will not get far, and that is a warning for each.
pub(super) fn together(checks: &mut [Check]) {
    let tools = || checks.iter().filter(|check| check.category == AUTH);
    if tools().count() == 0 || tools().any(|check| check.logged_in != Some(false)) {
        return;
    }
    for check in checks.iter_mut().filter(|check| check.category == AUTH && check.status == Status::Ok) {
        let tool = check.id.trim_start_matches("auth.").to_owned();
        check.status = Status::Warning;
        check.expected = Some(EXPECTED.into());
        check.meaning = Some("no tool is logged in: a run asks for a login, or fails where nobody can answer".into());
        check.remedy = Some(format!("`pcoder auth login {tool}`"));
    }
}

async fn auth(pcoder: &Pcoder, tool: &str) -> Finding {
    let Ok(said) = pcoder.auth_of(tool) else {
        return Finding::ok("not looked at as long as auth.toml cannot be read");
    };
    match said {
        Some(ToolAuth { key: Some(key), .. }) => match looked_up(pcoder, &key).await {
            Ok(found) => found.into_finding(&format!("a key: {}", key.subject())).logged_in(true),
            Err(error) => Finding::error(
                &error,
                "a key that has a value",
                format!("`pcoder run {tool}` does not start"),
                format!("`pcoder auth login {tool} --api-key env:NAME`"),
            )
            .logged_in(false),
        },
        said => login(pcoder, tool, said.map(|it| it.mode)).await,
    }
}

async fn login(pcoder: &Pcoder, tool: &str, mode: Option<AuthMode>) -> Finding {
    let unknown = |error: &Error, remedy: String| {
        let meaning = format!("whether `{tool}` is logged in is seen when it is run");
        Finding::warning(format!("not known: {}", said(error)), "an answer", meaning, remedy)
    };
    let info = match info(pcoder, tool).await {
        Ok(info) => info,
        Err(error) => return unknown(&error, format!("see `plugin.agent-{tool}`")),
    };
    match installed(pcoder, &info) {
        Ok(true) => {}
        Ok(false) => return Finding::ok("not known before its engine is installed"),
        Err(error) => return unknown(&error, format!("`pcoder engine verify {tool}`")),
    }
    let logged_out = || {
        let expected = "a login";
        let meaning = format!("`pcoder run {tool}` asks for a login, or fails where nobody can answer");
        Finding::warning("not logged in", expected, meaning, format!("`pcoder auth login {tool}`")).logged_in(false)
    };
    if mode == Some(AuthMode::Oauth) {
        let config = pcoder.layout().tool_folder(tool).join("config");
        if !config.is_dir() {
            return logged_out();
        }
        // Asking its engine would first renew a login that is about to expire.
        if tool == "claude" {
            return match CredentialsFile::new(config.join(".credentials.json")).read() {
                Ok(Some(_)) => Finding::ok("logged in, in a folder of its own").logged_in(true),
                Ok(None) => logged_out(),
                Err(error) => Finding::fail(
                    error.to_string(),
                    "a login that can be read",
                    format!("`pcoder run {tool}` is not logged in"),
                    error.hint(),
                )
                .logged_in(false),
            };
        }
    }
    let status = pcoder.auth_status(tool).await;
    match (status.logged_in, mode) {
        (Some(true), _) => {
            let method = status.method.unwrap_or_else(|| "by itself".to_owned());
            Finding::ok(format!("logged in: {method}")).logged_in(true)
        }
        (Some(false), None) => match &info.api_key_variable {
            Some(name) if pcoder.surroundings().variable(name).is_some() => {
                Finding::ok(format!("not logged in; `{name}` holds a key")).logged_in(true)
            }
            _ => Finding::ok("not logged in")
                .meaning("it asks for a login when it is run, unless its own configuration names another service")
                .logged_in(false),
        },
        (Some(false), Some(_)) => logged_out(),
        (None, _) => Finding::warning(
            format!("not known: {}", status.problem.unwrap_or_else(|| "it does not say".to_owned())),
            "an answer",
            format!("whether `{tool}` is logged in is seen when it is run"),
            status.remedy.unwrap_or_else(|| format!("`pcoder engine verify {tool}`")),
        ),
    }
}

async fn info(pcoder: &Pcoder, tool: &str) -> Result<AgentInfo, Error> {
    let plugin = pcoder.plugin(Kind::Agent, tool).await?;
    let context = pcoder.context(&plugin);
    plugin.agent()?.info(context).await
}

/// Whether every engine of a tool is there and whole.
fn installed(pcoder: &Pcoder, info: &AgentInfo) -> Result<bool, Error> {
    let store = pcoder.store()?;
    for engine in &info.engines {
        if store.find(engine, None).map_err(|error| from_engines(&error))?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a look at a reference found, when nothing is wrong.
struct Found {
    asked: bool,
    /// Something that its owner should know, and what to do about it.
    warning: Option<(String, String)>,
}

impl Found {
    fn into_finding(self, measured: &str) -> Finding {
        match self.warning {
            Some((warning, remedy)) => {
                let meaning = "whoever can read it can use the account";
                Finding::warning(format!("{measured}: {warning}"), "a secret that only you can read", meaning, remedy)
            }
            None if self.asked => Finding::ok(format!("{measured} has a value")),
            None => Finding::ok(format!("{measured}, which is not asked here: it may ask for a password")),
        }
    }
}

/// Whether a reference has a value.
async fn looked_up(pcoder: &Pcoder, reference: &Reference) -> Result<Found, Error> {
    let asked = matches!(reference.source(), Source::Env | Source::File | Source::Value);
    if asked {
        drop(pcoder.resolve(reference).await?);
    }
    let warning = pcoder.secrets().warning(reference).map(|it| (it.to_string(), it.hint()));
    Ok(Found { asked, warning })
}

async fn secret(pcoder: &Pcoder, name: &str, reference: &Reference) -> Finding {
    match looked_up(pcoder, reference).await {
        Ok(found) => found.into_finding(&reference.subject()),
        Err(error) => Finding::error(
            &error,
            "a secret that has a value",
            "plugins that ask for it get none",
            format!("`pcoder config set secrets.{name} REFERENCE`"),
        ),
    }
}

async fn profile(pcoder: &Pcoder, name: &str) -> Finding {
    let path = pcoder.layout().profiles().join(format!("{name}.toml"));
    let shown = path.display();
    let meaning = format!("a run with the profile `{name}` does not start");
    let profile = match pcoder.profile(name) {
        Ok(profile) => profile,
        Err(error) => {
            let hint = error.hint.as_deref().unwrap_or("correct it");
            return Finding::fail(said(&error), "a profile that can be read", meaning, format!("{shown}: {hint}"));
        }
    };
    let mut problems = unknown_names(pcoder, &profile);
    let mut warnings = writable_by_others(&path).into_iter().collect::<Vec<_>>();
    for (field, reference) in references(&profile) {
        match looked_up(pcoder, reference).await {
            Ok(found) => warnings.extend(found.warning),
            Err(error) => {
                let hint = error.hint.clone().unwrap_or_else(|| "name another source".to_owned());
                problems.push((format!("`{field}`: {}", said(&error)), hint));
            }
        }
    }
    let joined = |all: Vec<(String, String)>| {
        let (measured, mut remedies): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        remedies.dedup();
        (measured.join("; "), format!("{}; the profile is {shown}", remedies.join("; ")))
    };
    if !problems.is_empty() {
        let (measured, remedy) = joined(problems);
        Finding::fail(measured, "a profile whose parts are all there", meaning, remedy)
    } else if !warnings.is_empty() {
        let (measured, remedy) = joined(warnings);
        let meaning = "other users of this machine can read a key, or send your runs somewhere else";
        Finding::warning(measured, "files that only you can change or read", meaning, remedy)
    } else {
        Finding::ok(format!("for `{}`", profile.tool))
    }
}

fn references(profile: &Profile) -> impl Iterator<Item = (String, &Reference)> {
    let key = profile.key.iter().map(|key| ("key".to_owned(), key));
    key.chain(profile.env.iter().map(|(name, reference)| (format!("env.{}", name.as_str()), reference)))
}

/// The tool and the provider that a profile names and that are not there.
fn unknown_names(pcoder: &Pcoder, profile: &Profile) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    let mut check = |kind: Kind, what: &str, name: &str| {
        let names = pcoder.names(kind);
        if !names.iter().any(|it| it == name) {
            let choice = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let remedy = if choice.is_empty() { "there is none".to_owned() } else { format!("choose one of {choice}") };
            problems.push((format!("there is no {what} `{name}`"), remedy));
        }
    };
    check(Kind::Agent, "tool", profile.tool.as_str());
    if let Some(provider) = &profile.provider {
        check(Kind::Provider, "provider", provider.as_str());
    }
    problems
}

/// A profile says where a key goes, so nobody else may change it. It is its user's file: this says so and does nothing.
fn writable_by_others(path: &Path) -> Option<(String, String)> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = path.metadata().ok()?.permissions().mode() & 0o7777;
        let shown = path.display();
        // What a file system cannot do is said once, of the disk.
        (mode & 0o022 != 0 && !super::host::lacks_permissions(path.parent()?))
            .then(|| (format!("others can change {shown} (mode {mode:04o})"), format!("`chmod go-w {shown}`")))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Surroundings;

    fn pcoder(folder: &Path, variables: &[(&str, &str)]) -> Pcoder {
        let mut environment = vec![("PCODER_HOME".into(), folder.into())];
        environment.extend(variables.iter().map(|&(name, value)| (name.into(), value.into())));
        Pcoder::new(Surroundings { environment, ..Surroundings::default() }, &[], false).expect("a pcoder")
    }

    fn check(finding: Finding) -> Check {
        finding.into_check("auth.x".into(), AUTH, std::time::Duration::ZERO)
    }

    #[tokio::test]
    async fn of_a_secret_only_whether_it_has_a_value_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let pcoder = pcoder(folder.path(), &[("SET", "CANARY-value")]);
        let of = async |text: &str| check(secret(&pcoder, "NAME", &text.parse().expect("a reference")).await);
        let set = of("env:SET").await;
        assert_eq!((set.status, set.measured.as_str()), (Status::Ok, "env:SET has a value"));
        assert!(!format!("{set:?}").contains("CANARY"));
        let unset = of("env:UNSET").await;
        assert!(unset.status == Status::Fail && unset.measured.contains("UNSET"), "{unset:?}");
        // Would this run, there were a file.
        let marker = folder.path().join("ran");
        let command = of(&format!("command:touch {}", marker.display())).await;
        assert!(command.status == Status::Ok && command.measured.contains("not asked"), "{command:?}");
        assert!(!marker.exists());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_key_file_that_others_can_read_is_a_warning_with_the_command() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("key");
        std::fs::write(&file, "CANARY").expect("a file");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        let pcoder = pcoder(folder.path(), &[]);
        let reference = format!("file:{}", file.display()).parse().expect("a reference");
        let found = check(secret(&pcoder, "NAME", &reference).await);
        assert_eq!(found.status, Status::Warning);
        assert!(
            found.remedy.as_deref().is_some_and(|it| it.contains("chmod 600"))
                && !format!("{found:?}").contains("CANARY")
        );
    }

    #[test]
    fn one_tool_that_is_logged_in_is_enough_and_none_is_a_warning_for_each() {
        let tool = |logged_in: Option<bool>| {
            let mut check = check(Finding::ok("as it is"));
            check.logged_in = logged_in;
            check
        };
        let after = |states: &[Option<bool>]| {
            let mut checks: Vec<Check> = states.iter().map(|it| tool(*it)).collect();
            together(&mut checks);
            checks.iter().map(|check| check.status).collect::<Vec<_>>()
        };
        assert_eq!(after(&[Some(true), Some(false)]), [Status::Ok; 2]);
        assert_eq!(after(&[None, Some(false)]), [Status::Ok; 2], "one that could not be asked may be logged in");
        assert_eq!(after(&[Some(false), Some(false)]), [Status::Warning; 2]);
    }
}
