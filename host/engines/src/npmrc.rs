//! npm's settings: files in npm's dialect of ini, `npm_config_*` in the environment, and the order among them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The process's environment, passed in: this crate never reads the real one.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl Environment {
    /// A variable by its exact name.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// A variable that is text and not empty, in either case; small letters win, as in curl.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        [name.to_ascii_lowercase(), name.to_ascii_uppercase()]
            .iter()
            .filter_map(|name| self.get(name)?.to_str())
            .find(|value| !value.is_empty())
    }

    fn iter_text(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(key, value)| Some((key.to_str()?, value.to_str()?)))
    }
}

/// All settings of one source. A value is a list because `ca[]` is one; others use the last.
type Settings = BTreeMap<String, Vec<String>>;

/// npm's configuration, layered.
#[derive(Clone, Default)]
pub(crate) struct NpmConfig {
    /// Strongest first, each with a name for messages.
    layers: Vec<(String, Settings)>,
}

/// Where npm's configuration is looked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct NpmPlaces<'a> {
    /// The user's home folder: `.npmrc` is in it.
    pub home: Option<&'a Path>,
    /// The project's folder: `.npmrc` is in it.
    pub project: Option<&'a Path>,
    /// npm's prefix, as in `/usr/local`: `etc/npmrc` is below it. Without it the usual ones are tried.
    pub prefix: Option<&'a Path>,
}

impl NpmConfig {
    /// Reads the layers: environment, project, user, global.
    ///
    /// # Errors
    /// A file that is there cannot be read.
    pub(crate) fn load(environment: &Environment, places: NpmPlaces<'_>) -> Result<Self> {
        let mut config = Self { layers: vec![("the environment".to_owned(), from_environment(environment))] };
        if let Some(project) = places.project {
            config.add(&project.join(".npmrc"), environment)?;
        }
        let user = match config.get("userconfig") {
            Some(path) => Some(PathBuf::from(path)),
            None => places.home.map(|home| home.join(".npmrc")),
        };
        if let Some(user) = user {
            config.add(&user, environment)?;
        }
        let mut global: Vec<PathBuf> = match (config.get("globalconfig"), config.get("prefix")) {
            (Some(path), _) => vec![PathBuf::from(path)],
            (None, Some(prefix)) => vec![Path::new(prefix).join("etc/npmrc")],
            (None, None) => Vec::new(),
        };
        if global.is_empty() {
            match places.prefix {
                Some(prefix) => global.push(prefix.join("etc/npmrc")),
                None if cfg!(unix) => global.extend(["/usr/local/etc/npmrc", "/usr/etc/npmrc"].map(PathBuf::from)),
                None => global.extend(
                    environment.text("APPDATA").map(|data| Path::new(data).join("npm").join("etc").join("npmrc")),
                ),
            }
        }
        for path in global {
            config.add(&path, environment)?;
        }
        Ok(config)
    }

    fn add(&mut self, path: &Path, environment: &Environment) -> Result<()> {
        match fs::read(path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                self.layers.push((format!("`{}`", path.display()), parse(&text, environment)));
                Ok(())
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(Error::io("read", path, error)),
        }
    }

    /// The strongest value. An empty one counts as none, so that a weaker layer speaks.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.get_from(key).map(|(value, _)| value)
    }

    /// The strongest value, and the layer that it comes from.
    pub(crate) fn get_from(&self, key: &str) -> Option<(&str, &str)> {
        self.layers
            .iter()
            .filter_map(|(layer, settings)| Some((settings.get(key)?.last()?.as_str(), layer.as_str())))
            .find(|(value, _)| !value.is_empty())
    }

    /// All values of the strongest layer that has any.
    pub(crate) fn list(&self, key: &str) -> &[String] {
        self.layers.iter().find_map(|(_, settings)| settings.get(key)).map_or(&[], Vec::as_slice)
    }

    /// Every key of every layer, the strongest value of each.
    pub(crate) fn all(&self) -> BTreeMap<&str, &str> {
        self.layers
            .iter()
            .rev()
            .flat_map(|(_, settings)| settings.iter())
            .filter_map(|(key, values)| Some((key.as_str(), values.last()?.as_str())))
            .collect()
    }
}

/// `npm_config_strict_ssl` is `strict-ssl`; `npm_config_//host/:_authToken` and `npm_config_@scope:registry` keep
/// their spelling.
fn from_environment(environment: &Environment) -> Settings {
    let mut settings = Settings::new();
    for (name, value) in environment.iter_text() {
        const PREFIX: &str = "npm_config_";
        let Some((prefix, key)) = name.split_at_checked(PREFIX.len()) else {
            continue;
        };
        if !prefix.eq_ignore_ascii_case(PREFIX) || key.is_empty() || value.is_empty() {
            continue;
        }
        let key = if key.starts_with("//") || key.starts_with('@') {
            key.to_owned()
        } else {
            key.to_ascii_lowercase().replace('_', "-")
        };
        settings.insert(key, vec![value.to_owned()]);
    }
    settings
}

/// npm's ini: `key = value`, `key[] = value`, comments with `;` or `#`, values in quotes as JSON. Sections mean nothing.
fn parse(text: &str, environment: &Environment) -> Settings {
    let mut settings = Settings::new();
    for line in text.lines() {
        let line = line.trim().trim_start_matches('\u{feff}');
        if line.is_empty() || line.starts_with([';', '#', '[']) {
            continue;
        }
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (unquote(key), unquote(value)),
            None => (unquote(line), "true".to_owned()),
        };
        let key = expand(&key, environment);
        let value = expand(&value, environment);
        match key.strip_suffix("[]") {
            Some(list) => settings.entry(list.to_owned()).or_default().push(value),
            None => {
                settings.insert(key, vec![value]);
            }
        }
    }
    settings
}

/// Takes quotes away, and a comment behind the value.
fn unquote(text: &str) -> String {
    let text = text.trim();
    if text.len() >= 2 && text.starts_with('"') && text.ends_with('"') {
        return serde_json::from_str(text).unwrap_or_else(|_| text.to_owned());
    }
    if let Some(inner) = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
        return inner.to_owned();
    }
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ';' | '#' => break,
            '\\' if matches!(chars.peek(), Some(';' | '#' | '\\')) => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out.trim().to_owned()
}

/// `${NAME}` becomes the variable, or stays when there is none; `${NAME?}` becomes nothing when there is none; a
/// backslash before it keeps it as it is.
fn expand(text: &str, environment: &Environment) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        let inner = &from[2..];
        let name_end = inner.find(['}', '{', '$']);
        let Some(end) = name_end.filter(|&end| inner[end..].starts_with('}') && end > 0) else {
            out.push_str(before);
            out.push_str("${");
            rest = inner;
            continue;
        };
        let spelled = &from[..end + 3];
        rest = &inner[end + 1..];
        let kept = before.trim_end_matches('\\');
        let slashes = before.len() - kept.len();
        out.push_str(kept);
        out.extend(std::iter::repeat_n('\\', slashes / 2));
        if slashes % 2 == 1 {
            out.push_str(spelled);
            continue;
        }
        let name = &inner[..end];
        let (name, optional) = name.strip_suffix('?').map_or((name, false), |name| (name, true));
        match environment.get(name).and_then(OsStr::to_str) {
            Some(value) => out.push_str(value),
            None if optional => {}
            None => out.push_str(spelled),
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().copied().collect()
    }

    #[test]
    fn the_dialect() {
        let settings = parse(
            "; a comment\n# another\n[section]\nregistry = https://r.example/ ; behind\n@s:registry=https://s.example\n\
             //r.example/:_authToken=${TOKEN}\nca[]=\"one\\ntwo\"\nca[]='three'\nflag\nempty=\nx=a\\;b\n",
            &environment(&[("TOKEN", "t0k")]),
        );
        let get = |key: &str| settings[key].join("|");
        assert_eq!(get("registry"), "https://r.example/");
        assert_eq!(get("@s:registry"), "https://s.example");
        assert_eq!(get("//r.example/:_authToken"), "t0k");
        assert_eq!(get("ca"), "one\ntwo|three");
        assert_eq!(get("flag"), "true");
        assert_eq!((get("empty").as_str(), get("x").as_str()), ("", "a;b"));
    }

    #[test]
    fn variables_expand_as_npm_expands_them() {
        let env = environment(&[("A", "1"), ("B_C", "2")]);
        for (from, to) in [
            ("${A}${B_C}", "12"),
            ("x${A}y", "x1y"),
            ("${NONE}", "${NONE}"),
            ("${NONE?}", ""),
            ("${A?}", "1"),
            ("\\${A}", "${A}"),
            ("\\\\${A}", "\\1"),
            ("${}", "${}"),
            ("${A", "${A"),
            ("${${A}}", "${1}"),
            ("$A", "$A"),
        ] {
            assert_eq!(expand(from, &env), to, "{from}");
        }
    }

    #[test]
    fn the_environment_in_any_case() {
        let env = environment(&[
            ("NPM_CONFIG_STRICT_SSL", "false"),
            ("npm_config_//r.example/:_authToken", "x"),
            ("Npm_Config_HTTPS_Proxy", "http://p"),
            ("npm_config_empty", ""),
            ("npm_configurable", "x"),
        ]);
        let settings = from_environment(&env);
        let keys: Vec<_> = settings.keys().map(String::as_str).collect();
        assert_eq!(keys, ["//r.example/:_authToken", "https-proxy", "strict-ssl"]);
    }

    #[test]
    fn layers_in_npms_order() {
        let folder = tempfile::tempdir().unwrap();
        let (home, project, prefix) =
            (folder.path().join("home"), folder.path().join("project"), folder.path().join("prefix"));
        for (path, text) in [
            (home.join(".npmrc"), "a=user\nb=user\nc=user\n"),
            (project.join(".npmrc"), "a=project\nb=project\nempty=\n"),
            (prefix.join("etc/npmrc"), "a=global\nd=global\nempty=global"),
        ] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let places = NpmPlaces { home: Some(&home), project: Some(&project), prefix: Some(&prefix) };
        let config = NpmConfig::load(&environment(&[("npm_config_a", "env")]), places).unwrap();
        let got = ["a", "b", "c", "d", "empty", "none"].map(|key| config.get(key));
        assert_eq!(got, [Some("env"), Some("project"), Some("user"), Some("global"), Some("global"), None]);
        assert!(config.get_from("c").unwrap().1.contains("home"));
        let other = folder.path().join("other");
        fs::write(&other, "c=other").unwrap();
        let env = environment(&[("NPM_CONFIG_USERCONFIG", other.to_str().unwrap())]);
        assert_eq!(NpmConfig::load(&env, places).unwrap().get("c"), Some("other"));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_plain_text_stays(text in "([${}?\\\\A-C=;#\"'\\[\\]\n é]|\\$\\{A\\})*") {
            let env = environment(&[("A", "${A}")]);
            let _ = parse(&text, &env);
            if !text.contains("${") {
                prop_assert_eq!(expand(&text, &env), text);
            }
        }

        /// Against a slow model of npm's regular expression for names without backslashes around.
        #[test]
        fn expansion_against_a_model(parts in proptest::collection::vec(("[a-z/:]{0,3}", any::<bool>()), 0..6)) {
            let env = environment(&[("X", "value")]);
            let text: String = parts.iter().map(|(t, v)| format!("{t}{}", if *v { "${X}" } else { "${Y}" })).collect();
            prop_assert_eq!(expand(&text, &env), text.replace("${X}", "value"));
        }
    }
}
