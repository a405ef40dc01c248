//! Profiles: how one tool is used for one purpose. A file each, which its user writes and pcoder never rewrites.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::PathBuf;

use pcoder_runtime::error::code;
use pcoder_runtime::{Error, text};
use pcoder_secrets::Reference;
use pcoder_state::{Document, File, Wrong};
use serde::{Deserialize, Serialize};

use crate::Pcoder;
use crate::egress::Hosts;
use crate::errors::from_state;
use crate::names::{Endpoint, Name, Variable};

/// How a tool says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// A key, which is named by reference.
    Api,
    /// A login, which the tool keeps in a folder of its own.
    Oauth,
}

impl AuthMode {
    /// As the contract's option `auth` says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Oauth => "oauth",
        }
    }
}

/// What a run may use up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RunLimits {
    /// How long it may take, in seconds. Then it is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_seconds: Option<NonZeroU64>,
    /// What `--json` keeps of each stream, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_mib: Option<NonZeroU64>,
}

impl RunLimits {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One profile.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Profile {
    /// The tool that it is for.
    pub tool: Name,
    /// One line for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How it logs in. Without it, as `pcoder auth` was told for the tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthMode>,
    /// Where the key comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Reference>,
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The model's service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Name>,
    /// What it reaches on a restricted network, besides what the settings say.
    #[serde(default, skip_serializing_if = "Hosts::is_empty")]
    pub network_allow: Hosts,
    /// Variables, by reference.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<Variable, Reference>,
    /// What a run may use up.
    #[serde(default, skip_serializing_if = "RunLimits::is_empty")]
    pub limits: RunLimits,
}

impl Default for Profile {
    /// Only what a file that is not there is read as; nobody sees it.
    fn default() -> Self {
        Self {
            tool: Name::default(),
            description: None,
            auth: None,
            key: None,
            model: None,
            endpoint: None,
            provider: None,
            network_allow: Hosts::default(),
            env: BTreeMap::new(),
            limits: RunLimits::default(),
        }
    }
}

impl Document for Profile {
    const VERSION: i64 = 1;
    const HEADER: &'static str =
        "# A profile of pcoder. docs/profiles.md has the fields. Secrets stand here by reference only.";

    fn check(&self) -> Result<(), Wrong> {
        let too_long = |it: &Option<String>| it.as_ref().is_some_and(|it| it.len() > 400 || it.contains(['\n', '\0']));
        for (name, value) in [("description", &self.description), ("model", &self.model)] {
            if too_long(value) {
                return Err(Wrong::field(&[name], "`description` and `model` are one line of at most 400 bytes"));
            }
        }
        if self.model.as_ref().is_some_and(|it| it.is_empty() || it.starts_with('-')) {
            return Err(Wrong::field(&["model"], "`model` is a model's name"));
        }
        let key = |message: &str| Err(Wrong::field(&["key"], message));
        match (self.auth, &self.key) {
            (Some(AuthMode::Oauth), Some(_)) => key("`key` is for `auth = \"api\"`: a login has none"),
            (None, Some(_)) => key("`key` needs `auth = \"api\"`"),
            (_, Some(it)) if !it.is_secret() => {
                key("`key` names where a key comes from: env:, file:, keyring: or command:")
            }
            _ if self.endpoint.is_some() && self.auth != Some(AuthMode::Api) => {
                Err(Wrong::field(&["endpoint"], "`endpoint` needs `auth = \"api\"`: a login would be sent there"))
            }
            _ => Ok(()),
        }
    }
}

/// A profile, or why it cannot be used.
#[derive(Debug)]
pub struct ProfileStatus {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub profile: Result<Profile, Error>,
}

const OPERATION: &str = "profile";

impl Pcoder {
    fn profile_file(&self, name: &Name) -> File<Profile> {
        File::new(self.layout().profiles().join(format!("{name}.toml")), &self.layout().locks.join("profiles"))
    }

    /// Where a profile is, or would be.
    ///
    /// # Errors
    /// `invalid` for what is no name.
    pub fn profile_path(&self, name: &str) -> Result<PathBuf, Error> {
        Ok(self.profile_file(&profile_name(name)?).path().to_path_buf())
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// `not-found`, with the names that there are; `invalid` with line and column; `unsupported` for a newer one; `io`.
    pub fn profile(&self, name: &str) -> Result<Profile, Error> {
        let file = self.profile_file(&profile_name(name)?);
        if file.path().symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            return Err(self.unknown_profile(name));
        }
        file.read().map_err(|error| from_state(OPERATION, &error))
    }

    fn unknown_profile(&self, name: &str) -> Error {
        let names: Vec<String> =
            self.profile_names().unwrap_or_default().iter().map(|name| format!("`{name}`")).collect();
        let hint = if names.is_empty() {
            "there are none yet; `pcoder profile create NAME --tool claude` makes one".to_owned()
        } else {
            format!("choose one of {}; `pcoder profile create NAME --tool claude` makes another", names.join(", "))
        };
        Error::new(code::NOT_FOUND, OPERATION, "there is no profile of that name")
            .subject(text::for_people(name, 80))
            .hint(hint)
    }

    /// The names of all profiles, sorted.
    ///
    /// # Errors
    /// `io`.
    pub fn profile_names(&self) -> Result<Vec<String>, Error> {
        let folder = self.layout().profiles();
        let failed = |error: std::io::Error| Error::io(OPERATION, folder.display().to_string(), &error);
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| Name::new(stem).is_ok());
            if let Some(stem) = stem.filter(|_| path.extension().is_some_and(|it| it == "toml")) {
                names.push(stem.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Every profile, also those that cannot be used.
    ///
    /// # Errors
    /// `io` when the folder cannot be read.
    pub fn profiles(&self) -> Result<Vec<ProfileStatus>, Error> {
        let names = self.profile_names()?;
        Ok(names.into_iter().map(|name| ProfileStatus { profile: self.profile(&name), name }).collect())
    }

    /// Makes a profile. One that is there is never overwritten.
    ///
    /// # Errors
    /// `already-exists`; `invalid` for fields that exclude each other; `io`.
    pub fn create_profile(&self, name: &str, profile: Profile) -> Result<PathBuf, Error> {
        const OPERATION: &str = "profile.create";
        let file = self.profile_file(&profile_name(name)?);
        profile.check().map_err(|wrong| {
            Error::new(code::INVALID, OPERATION, wrong.message()).subject(name).hint("nothing was written")
        })?;
        // The name is taken by whoever makes the file, also where two do so at once.
        let taken = std::cell::Cell::new(false);
        let result = file.update(|it| {
            taken.set(file.path().symlink_metadata().is_ok());
            if !taken.get() {
                *it = profile;
            }
            Ok::<_, pcoder_state::Error>(())
        });
        if taken.get() {
            return Err(Error::new(code::ALREADY_EXISTS, OPERATION, "there is a profile of that name")
                .subject(file.path().display().to_string())
                .hint("edit that file, or choose another name"));
        }
        result.map_err(|error| from_state(OPERATION, &error))?;
        Ok(file.path().to_path_buf())
    }

    /// Removes a profile's file.
    ///
    /// # Errors
    /// `not-found`, `io`.
    pub fn remove_profile(&self, name: &str) -> Result<(), Error> {
        let path = self.profile_path(name)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(self.unknown_profile(name)),
            result => result.map_err(|error| Error::io("profile.remove", path.display().to_string(), &error)),
        }
    }
}

fn profile_name(name: &str) -> Result<Name, Error> {
    Name::new(name).map_err(|message| {
        Error::new(code::INVALID, OPERATION, message).hint("`pcoder profile list` shows the profiles")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Surroundings;

    fn pcoder(folder: &std::path::Path) -> Pcoder {
        let environment = vec![("PCODER_HOME".into(), folder.into())];
        Pcoder::new(Surroundings { environment, ..Surroundings::default() }, &[], false).expect("a pcoder")
    }

    fn written(text: &str) -> (tempfile::TempDir, Pcoder) {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("profiles")).expect("a folder");
        std::fs::write(folder.path().join("profiles/work.toml"), text).expect("a file");
        let pcoder = pcoder(folder.path());
        (folder, pcoder)
    }

    #[test]
    fn a_bad_profile_is_told_twice_the_same_and_stays_as_it_is() {
        for (text, expected) in [
            ("tool = \"claude\"\nmodle = \"x\"\n", "line 2, column 1: unknown field `modle`, expected one of"),
            ("tool = \"claude\"\n\nmodel = 3\n", "line 3, column 9: invalid type: integer `3`, expected a string"),
            ("model = \"x\"\n", "line 1, column 1: missing field `tool`"),
            (
                "tool = \"claude\"\nauth = \"apy\"\n",
                "line 2, column 8: unknown variant `apy`, expected `api` or `oauth`",
            ),
            ("tool = \"Claude Code\"\n", "line 1, column 8: `Claude Code` is no name"),
            ("tool = \"claude\"\nkey = \"env:K\"\n", "line 2, column 1: `key` needs `auth = \"api\"`"),
            ("tool = \"claude\"\nendpoint = \"https://x\"\n", "`endpoint` needs `auth = \"api\"`"),
            (
                "tool = \"claude\"\nendpoint = \"http://x\"\nauth = \"api\"\n",
                "line 2, column 12: what is sent there would travel",
            ),
            ("tool = \"claude\"\n[limits]\nwall-seconds = 0\n", "line 3, column 16: invalid value: integer `0`"),
            ("tool = \"claude\"\n[limits]\nmemory-mib = 5\n", "line 3, column 1: unknown field `memory-mib`"),
            ("tool = \"claude\"\n[env]\n\"A-B\" = \"env:K\"\n", "line 3, column 1: `A-B` is no variable"),
            ("tool = \"claude\"\n[env]\nA = \"vault:K\"\n", "line 3, column 5: unknown secret source"),
            ("tool = \"claude\"\n[[env]\n", "line 2, column 7: unclosed array table"),
            ("\u{0}", "line 1, column 2: key with no value, expected `=`"),
        ] {
            let (folder, pcoder) = written(text);
            let first = pcoder.profile("work").expect_err(text);
            assert!(first.message.contains(expected), "{text:?}: {first}");
            assert_eq!(pcoder.profile("work").expect_err(text), first);
            assert!(pcoder.profiles().expect("a list")[0].profile.is_err());
            assert_eq!(std::fs::read_to_string(folder.path().join("profiles/work.toml")).expect("a file"), text);
        }
    }

    #[test]
    fn a_key_that_was_pasted_is_not_repeated() {
        let (_folder, pcoder) = written("tool = \"claude\"\nauth = \"api\"\nkey = \"sk-ant-canary-0123456789\"\n");
        let error = pcoder.profile("work").expect_err("no reference");
        assert!(error.message.starts_with("line 3, column 7: "), "{error}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }

    #[test]
    fn what_was_made_is_read_back_and_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let pcoder = pcoder(folder.path());
        let profile = Profile {
            tool: Name::new("claude").expect("a name"),
            auth: Some(AuthMode::Api),
            key: Some("env:WORK_KEY".parse().expect("a reference")),
            ..Profile::default()
        };
        let path = pcoder.create_profile("work", profile.clone()).expect("made");
        let text = std::fs::read_to_string(&path).expect("a file");
        assert!(text.contains("version = 1\n") && text.contains("key = \"env:WORK_KEY\"\n"), "{text}");
        assert_eq!(pcoder.profile("work").expect("read").auth, Some(AuthMode::Api));
        let error = pcoder.create_profile("work", profile).expect_err("it is there");
        assert!(error.is(code::ALREADY_EXISTS));
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), text);
        pcoder.remove_profile("work").expect("removed");
        assert!(pcoder.profile("work").expect_err("gone").is(code::NOT_FOUND));
        assert!(pcoder.remove_profile("work").expect_err("gone").is(code::NOT_FOUND));
    }

    #[test]
    fn names_that_are_paths_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["../x", "a/b", "", "CON", "con"] {
            assert!(pcoder(folder.path()).profile(name).expect_err(name).is(code::INVALID), "{name}");
        }
    }
}
