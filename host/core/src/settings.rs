//! Settings: what holds when nothing is said on the command line.
//!
//! The strongest first: a flag, a variable of the environment, the project's `pcoder.toml`, the user's `settings.toml`, the
//! default. [`KEYS`] is all there is, so that help, documents and checks come from one place.
//!
//! A project's file was written by whoever wrote the project. It chooses the tool and one of the user's own profiles, and
//! nothing that could send a key or a run somewhere else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pcoder_runtime::Error;
use pcoder_runtime::error::code;
use pcoder_secrets::Reference;
use pcoder_state::toml_edit::{self, DocumentMut};
use pcoder_state::{Diagnostic, Document, File, Wrong, parse};
use serde::{Deserialize, Serialize};

use crate::Pcoder;
use crate::egress::Hosts;
use crate::errors::from_state;
use crate::names::{Endpoint, Name, Variable};

const OPERATION: &str = "config";

/// The project's file.
pub const PROJECT_FILE: &str = "pcoder.toml";

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name in files, and in `pcoder config`.
    pub name: &'static str,
    /// The variable that sets it.
    pub variable: &'static str,
    /// What holds without any.
    pub default: Option<&'static str>,
    /// Whether a project may say it.
    pub in_project: bool,
    /// What it is, for people.
    pub about: &'static str,
}

/// Every setting, but for `profile.TOOL`, which there is one of for each tool, and `secrets.NAME`, which there is one of for
/// each secret that plugins name, and `plugins.NAME.SETTING`, which there is one of for each setting in a plugin's manifest.
pub const KEYS: [Key; 6] = [
    Key {
        name: "tool",
        variable: "PCODER_TOOL",
        default: Some("claude"),
        in_project: true,
        about: "the agent that `pcoder run` starts when none is named",
    },
    Key {
        name: "provider",
        variable: "PCODER_PROVIDER",
        default: Some("local"),
        in_project: false,
        about: "the machine that it runs on",
    },
    Key {
        name: "profile",
        variable: "PCODER_PROFILE",
        default: None,
        in_project: true,
        about: "the profile for every tool; `profile.TOOL` is the one for one tool",
    },
    Key {
        name: "install",
        variable: "PCODER_INSTALL",
        default: Some("ask"),
        in_project: false,
        about: "a missing engine when a tool is run in a terminal: `ask` downloads it where you see it, `never` is an error",
    },
    Key {
        name: "otlp-endpoint",
        variable: "PCODER_OTLP_ENDPOINT",
        default: None,
        in_project: false,
        about: "where the audit is sent too, as OpenTelemetry over HTTP",
    },
    Key {
        name: "network-allow",
        variable: "PCODER_NETWORK_ALLOW",
        default: None,
        in_project: false,
        about: "what a machine with a restricted network reaches besides its model and the npm registry: `HOST`, `*.HOST` \
                or `HOST:PORT`, with commas",
    },
];

/// What the settings of plugins begin with: `plugins.NAME.SETTING`.
const PLUGINS: &str = "plugins.";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Origin {
    /// A flag on the command line.
    Flag,
    /// A variable of the environment.
    Environment {
        /// Its name.
        variable: &'static str,
    },
    /// The project's file.
    Project {
        /// The file.
        path: PathBuf,
    },
    /// The user's file.
    User {
        /// The file.
        path: PathBuf,
    },
    /// Nobody said anything.
    Default,
}

/// One setting's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The setting's name.
    pub name: String,
    /// Its value; nothing where there is no default.
    pub value: Option<String>,
    /// Where that came from.
    #[serde(flatten)]
    pub origin: Origin,
}

/// What happens to a missing engine when a tool is run in a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Install {
    Ask,
    Never,
}

/// `profile = "x"` for every tool, or `[profile] claude = "x"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a profile's name, or a table with one for each tool")]
enum Profiles {
    All(Name),
    Each(BTreeMap<Name, Name>),
}

/// The user's file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct UserSettings {
    tool: Option<Name>,
    provider: Option<Name>,
    profile: Option<Profiles>,
    install: Option<Install>,
    otlp_endpoint: Option<Endpoint>,
    network_allow: Option<Hosts>,
    /// Where the secrets come from that plugins name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    secrets: BTreeMap<Variable, Reference>,
    /// What plugins are to know, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    plugins: BTreeMap<Name, BTreeMap<Name, String>>,
}

impl Document for UserSettings {
    const VERSION: i64 = 1;
    const HEADER: &'static str =
        "# pcoder's settings. `pcoder config` shows them all, and where each value comes from.";

    fn check(&self) -> Result<(), Wrong> {
        let Some((name, _)) = self.secrets.iter().find(|(_, reference)| !reference.is_secret()) else { return Ok(()) };
        let message = format!(
            "`secrets.{}` is written out, and has to be named by where it comes from: env:, file:, keyring: or command:",
            name.as_str()
        );
        Err(Wrong::field(&["secrets", name.as_str()], message))
    }
}

/// The project's file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProjectSettings {
    #[serde(default)]
    version: Option<i64>,
    tool: Option<Name>,
    profile: Option<Profiles>,
}

impl UserSettings {
    fn get(&self, name: &str) -> Option<String> {
        let text = |it: &Name| it.as_str().to_owned();
        match name {
            "tool" => self.tool.as_ref().map(text),
            "provider" => self.provider.as_ref().map(text),
            "install" => self.install.map(|it| if it == Install::Ask { "ask" } else { "never" }.to_owned()),
            "otlp-endpoint" => self.otlp_endpoint.as_ref().map(|it| it.as_str().to_owned()),
            "network-allow" => self.network_allow.as_ref().map(ToString::to_string),
            _ if name.starts_with(PLUGINS) => {
                let (plugin, setting) = name.strip_prefix(PLUGINS)?.split_once('.')?;
                let (_, settings) = self.plugins.iter().find(|(it, _)| it.as_str() == plugin)?;
                settings.iter().find(|(it, _)| it.as_str() == setting).map(|(_, value)| value.clone())
            }
            _ => match name.strip_prefix("secrets.") {
                Some(secret) => {
                    let found = self.secrets.iter().find(|(it, _)| it.as_str() == secret);
                    found.map(|(_, reference)| reference.to_string())
                }
                None => profile_of(self.profile.as_ref(), name),
            },
        }
    }
}

fn profile_of(profiles: Option<&Profiles>, name: &str) -> Option<String> {
    match (profiles?, name.strip_prefix("profile.")) {
        (Profiles::All(profile), None) if name == "profile" => Some(profile.as_str().to_owned()),
        (Profiles::Each(each), Some(tool)) => {
            each.iter().find(|(it, _)| it.as_str() == tool).map(|(_, profile)| profile.as_str().to_owned())
        }
        _ => None,
    }
}

/// Every layer, read.
pub struct Settings<'a> {
    pcoder: &'a Pcoder,
    project: Option<(PathBuf, ProjectSettings)>,
    user: (PathBuf, UserSettings),
}

impl Pcoder {
    /// The settings that hold in a project's folder, or where no project is known.
    ///
    /// # Errors
    /// `invalid` with line and column for a file that is wrong; `unsupported` for a newer one; `io`.
    pub fn settings(&self, project: Option<&Path>) -> Result<Settings<'_>, Error> {
        let file = self.settings_file();
        let user = file.read().map_err(|error| from_state(OPERATION, &error))?;
        let project = match project.map(|folder| folder.join(PROJECT_FILE)) {
            Some(path) => read_project(&path)?.map(|settings| (path, settings)),
            None => None,
        };
        Ok(Settings { pcoder: self, project, user: (file.path().to_path_buf(), user) })
    }

    /// Where the secrets come from that plugins name.
    pub(crate) fn secret_references(&self) -> Result<BTreeMap<String, Reference>, Error> {
        let user = self.settings_file().read().map_err(|error| from_state(OPERATION, &error))?;
        Ok(user.secrets.into_iter().map(|(name, reference)| (name.as_str().to_owned(), reference)).collect())
    }

    /// What the user set for a plugin.
    pub(crate) fn plugin_settings(&self, plugin: &str) -> Result<BTreeMap<String, String>, Error> {
        let user = self.settings_file().read().map_err(|error| from_state(OPERATION, &error))?;
        let found = user.plugins.into_iter().find(|(name, _)| name.as_str() == plugin);
        let settings = found.map(|(_, settings)| settings).unwrap_or_default();
        Ok(settings.into_iter().map(|(name, value)| (name.as_str().to_owned(), value)).collect())
    }

    pub(crate) fn settings_file(&self) -> File<UserSettings> {
        File::new(self.layout().settings(), &self.layout().locks)
    }

    /// Sets one setting in the user's file, or takes it out.
    ///
    /// # Errors
    /// `invalid` for a setting that there is none of, and for a value that cannot be; those of [`Pcoder::settings`].
    pub fn set(&self, name: &str, value: Option<&str>) -> Result<(), Error> {
        check_name(name)?;
        let change = |text: &mut DocumentMut| {
            let words: Vec<&str> = name.split('.').collect();
            put(text.as_table_mut(), &words, value);
            Ok(())
        };
        let result = self.settings_file().edit::<pcoder_state::Error>(change);
        result.map(drop).map_err(|error| match &error {
            // The file was right before: it is the new value that is wrong.
            pcoder_state::Error::Invalid(it) if self.settings_file().read().is_ok() => {
                Error::new(code::INVALID, "config.set", it.message.clone())
                    .subject(name)
                    .hint("nothing was changed; `pcoder config` shows the settings")
            }
            _ => from_state("config.set", &error),
        })
    }
}

/// Sets a value where these words lead to, or takes it out, with the tables that are empty then.
fn put(table: &mut dyn toml_edit::TableLike, words: &[&str], value: Option<&str>) {
    match (words, value) {
        ([key], Some(value)) => drop(table.insert(key, toml_edit::value(value))),
        ([key], None) => drop(table.remove(key)),
        ([first, rest @ ..], _) => {
            if value.is_none() && !table.contains_key(first) {
                return;
            }
            let item = table.entry(first).or_insert(toml_edit::table());
            if !item.is_table_like() {
                *item = toml_edit::table();
            }
            if let Some(inner) = item.as_table_mut() {
                // A table that only holds others needs no line of its own.
                inner.set_implicit(true);
            }
            let Some(inner) = item.as_table_like_mut() else { return };
            put(inner, rest, value);
            if inner.is_empty() {
                table.remove(first);
            }
        }
        ([], _) => {}
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let of_tool = name.strip_prefix("profile.").is_some_and(|tool| Name::new(tool).is_ok());
    let of_secret = name.strip_prefix("secrets.").is_some_and(|secret| Variable::new(secret).is_ok());
    let is_name = |word: &str| Name::new(word).is_ok();
    let of_plugin = name
        .strip_prefix(PLUGINS)
        .and_then(|rest| rest.split_once('.'))
        .is_some_and(|(plugin, setting)| is_name(plugin) && is_name(setting));
    if of_tool || of_secret || of_plugin || KEYS.iter().any(|key| key.name == name) {
        return Ok(());
    }
    let names = KEYS.map(|key| format!("`{}`", key.name)).join(", ");
    Err(Error::new(code::INVALID, OPERATION, "there is no such setting")
        .subject(pcoder_runtime::text::for_people(name, 80))
        .hint(format!("the settings are {names}, `profile.TOOL`, `secrets.NAME` and `plugins.NAME.SETTING`")))
}

/// A project's file is small; a larger one is something else.
const LARGEST: u64 = 64 << 10;

fn read_project(path: &Path) -> Result<Option<ProjectSettings>, Error> {
    use std::io::Read as _;
    // A pipe or a device in its place would wait for ever.
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if !metadata.is_file() => return Ok(None),
        _ => {}
    }
    let failed = |error: std::io::Error| Error::io(OPERATION, path.display().to_string(), &error);
    let mut text = String::new();
    std::fs::File::open(path).and_then(|file| file.take(LARGEST).read_to_string(&mut text)).map_err(failed)?;
    let wrong = |it: Diagnostic| {
        from_state(OPERATION, &pcoder_state::Error::Invalid(it)).hint(
            "a project may set `tool` and `profile`; everything else is yours to set: `pcoder config set NAME VALUE`",
        )
    };
    let settings: ProjectSettings = parse(path, &text).map_err(wrong)?;
    match settings.version {
        None | Some(1) => Ok(Some(settings)),
        Some(found) => Err(from_state(OPERATION, &pcoder_state::Error::Newer { path: path.into(), found, known: 1 })),
    }
}

impl Settings<'_> {
    /// One setting, with `flag` as what the command line says.
    ///
    /// # Errors
    /// `invalid` for a variable of the environment that cannot be.
    pub fn get(&self, name: &str, flag: Option<&str>) -> Result<Setting, Error> {
        check_name(name)?;
        let found = |value: String, origin| Setting { name: name.to_owned(), value: Some(value), origin };
        if let Some(flag) = flag {
            return Ok(found(flag.to_owned(), Origin::Flag));
        }
        let key = KEYS.iter().find(|key| key.name == name);
        if let Some(key) = key
            && let Some(value) = self.pcoder.surroundings().variable(key.variable)
        {
            let value = value.to_string_lossy().into_owned();
            check_value(key, &value)?;
            return Ok(found(value, Origin::Environment { variable: key.variable }));
        }
        if let Some((path, project)) = &self.project {
            let value = match name {
                "tool" => project.tool.as_ref().map(|it| it.as_str().to_owned()),
                _ => profile_of(project.profile.as_ref(), name),
            };
            if let Some(value) = value {
                return Ok(found(value, Origin::Project { path: path.clone() }));
            }
        }
        let (path, user) = &self.user;
        if let Some(value) = user.get(name) {
            return Ok(found(value, Origin::User { path: path.clone() }));
        }
        let default = key.and_then(|key| key.default).map(str::to_owned);
        Ok(Setting { name: name.to_owned(), value: default, origin: Origin::Default })
    }

    /// The profile of a tool: what was said of this tool before what was said of all, layer by layer.
    ///
    /// # Errors
    /// As [`Settings::get`].
    pub fn profile(&self, tool: &str, flag: Option<&str>) -> Result<Setting, Error> {
        let all = self.get("profile", flag)?;
        let of_tool = self.get(&format!("profile.{tool}"), None)?;
        let rank = |origin: &Origin| match origin {
            Origin::Flag => 0,
            Origin::Environment { .. } => 1,
            Origin::Project { .. } => 2,
            Origin::User { .. } => 3,
            Origin::Default => 4,
        };
        Ok(if rank(&of_tool.origin) <= rank(&all.origin) { of_tool } else { all })
    }

    /// Every setting, with those of `profile.TOOL` that are set anywhere.
    ///
    /// # Errors
    /// As [`Settings::get`].
    pub fn all(&self) -> Result<Vec<Setting>, Error> {
        let mut all = KEYS.iter().map(|key| self.get(key.name, None)).collect::<Result<Vec<_>, _>>()?;
        let project = self.project.as_ref().and_then(|(_, it)| it.profile.as_ref());
        let mut tools: Vec<&Name> = [project, self.user.1.profile.as_ref()]
            .into_iter()
            .flatten()
            .flat_map(|it| if let Profiles::Each(each) = it { each.keys().collect() } else { Vec::new() })
            .collect();
        tools.sort();
        tools.dedup();
        for tool in tools {
            all.push(self.get(&format!("profile.{tool}"), None)?);
        }
        for secret in self.user.1.secrets.keys() {
            all.push(self.get(&format!("secrets.{}", secret.as_str()), None)?);
        }
        for (plugin, settings) in &self.user.1.plugins {
            for setting in settings.keys() {
                all.push(self.get(&format!("{PLUGINS}{}.{}", plugin.as_str(), setting.as_str()), None)?);
            }
        }
        Ok(all)
    }
}

fn check_value(key: &Key, value: &str) -> Result<(), Error> {
    let checked = match key.name {
        "install" if !["ask", "never"].contains(&value) => Err("expected `ask` or `never`".to_owned()),
        "install" => Ok(()),
        "otlp-endpoint" => Endpoint::new(value).map(drop),
        "network-allow" => Hosts::new(value).map(drop),
        _ => Name::new(value).map(drop),
    };
    checked.map_err(|message| {
        Error::new(code::INVALID, OPERATION, message)
            .subject(key.variable)
            .hint(format!("correct or unset the variable `{}`", key.variable))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Surroundings;

    struct Place {
        folder: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().expect("a folder") }
        }

        fn pcoder(&self, variables: &[(&str, &str)]) -> Pcoder {
            let mut environment = vec![("PCODER_HOME".into(), self.folder.path().join("home").into())];
            environment.extend(variables.iter().map(|&(name, value)| (name.into(), value.into())));
            let surroundings =
                Surroundings { environment, cwd: self.folder.path().to_path_buf(), ..Surroundings::default() };
            Pcoder::new(surroundings, &[], false).expect("a pcoder")
        }

        fn project(&self, text: &str) -> PathBuf {
            let project = self.folder.path().join("project");
            std::fs::create_dir_all(&project).expect("a folder");
            std::fs::write(project.join(PROJECT_FILE), text).expect("a file");
            project
        }
    }

    fn value(setting: &Setting) -> (&str, &'static str) {
        let origin = match setting.origin {
            Origin::Flag => "flag",
            Origin::Environment { .. } => "environment",
            Origin::Project { .. } => "project",
            Origin::User { .. } => "user",
            Origin::Default => "default",
        };
        (setting.value.as_deref().unwrap_or(""), origin)
    }

    #[test]
    fn a_flag_comes_before_a_variable_before_the_project_before_the_user_before_the_default() {
        let place = Place::new();
        let pcoder = place.pcoder(&[]);
        let get = |pcoder: &Pcoder, project: Option<&Path>, flag| {
            let settings = pcoder.settings(project).expect("settings");
            let setting = settings.get("tool", flag).expect("a setting");
            let (value, origin) = value(&setting);
            format!("{value} {origin}")
        };
        assert_eq!(get(&pcoder, None, None), "claude default");
        pcoder.set("tool", Some("codex")).expect("set");
        assert_eq!(get(&pcoder, None, None), "codex user");
        let project = place.project("tool = \"gemini\"\n");
        assert_eq!(get(&pcoder, Some(&project), None), "gemini project");
        let with = place.pcoder(&[("PCODER_TOOL", "amp")]);
        assert_eq!(get(&with, Some(&project), None), "amp environment");
        assert_eq!(get(&with, Some(&project), Some("goose")), "goose flag");
    }

    #[test]
    fn the_profile_of_a_tool_comes_before_that_of_all_in_the_same_layer_only() {
        let place = Place::new();
        let pcoder = place.pcoder(&[]);
        pcoder.set("profile.claude", Some("work")).expect("set");
        let profile = |pcoder: &Pcoder, project: Option<&Path>, tool: &str| {
            pcoder.settings(project).expect("settings").profile(tool, None).expect("a setting").value
        };
        assert_eq!(profile(&pcoder, None, "claude").as_deref(), Some("work"));
        assert_eq!(profile(&pcoder, None, "codex"), None);
        let project = place.project("profile = \"theirs\"\n");
        assert_eq!(profile(&pcoder, Some(&project), "claude").as_deref(), Some("theirs"));
        let with = place.pcoder(&[("PCODER_PROFILE", "mine")]);
        assert_eq!(profile(&with, Some(&project), "claude").as_deref(), Some("mine"));
        pcoder.set("profile.claude", None).expect("unset");
        assert_eq!(profile(&pcoder, None, "claude"), None);
    }

    #[test]
    fn a_project_cannot_choose_where_it_runs_or_where_the_audit_goes() {
        let place = Place::new();
        let pcoder = place.pcoder(&[]);
        for text in [
            "provider = \"local\"\n",
            "otlp-endpoint = \"https://evil.test\"\n",
            "network-allow = \"evil.test\"\n",
            "install = \"ask\"\n",
        ] {
            let Err(error) = pcoder.settings(Some(&place.project(text))) else { panic!("{text} was taken") };
            assert!(error.is(code::INVALID) && error.message.starts_with("line 1, column 1: unknown field"), "{error}");
            assert!(error.hint.as_deref().is_some_and(|it| it.contains("a project may set")));
        }
    }

    #[test]
    fn a_value_that_cannot_be_is_refused_and_nothing_is_changed() {
        let place = Place::new();
        let pcoder = place.pcoder(&[]);
        pcoder.set("tool", Some("codex")).expect("set");
        let before = std::fs::read(pcoder.settings_file().path()).expect("a file");
        for (name, value) in [
            ("tool", "A B"),
            ("install", "maybe"),
            ("otlp-endpoint", "http://far.away"),
            ("network-allow", "https://far.away"),
            ("colour", "red"),
            ("secrets.KEY", "sk-1"),
            ("secrets.KEY", "value:sk-1"),
        ] {
            let error = pcoder.set(name, Some(value)).expect_err(name);
            assert!(error.is(code::INVALID), "{error}");
        }
        assert_eq!(std::fs::read(pcoder.settings_file().path()).expect("a file"), before);
        let with = place.pcoder(&[("PCODER_TOOL", "A B")]);
        let error = with.settings(None).expect("settings").get("tool", None).expect_err("no name");
        assert_eq!(error.subject.as_deref(), Some("PCODER_TOOL"));
    }
}
