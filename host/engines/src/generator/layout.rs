//! Where things are in a package, read from the package.

use serde::Deserialize;

use super::survey::Survey;
use crate::safe_path::SafePath;

/// Entry point and folders for `PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) entrypoint: SafePath,
    pub(super) path: Vec<SafePath>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CodexPackage {
    entrypoint: String,
    path_dir: Option<String>,
}

impl Layout {
    pub(super) fn read(survey: &Survey) -> Result<Self, String> {
        let layout = match Self::codex(survey)? {
            Some(layout) => layout,
            None => match Self::old_codex(survey).or_else(|| Self::bin(survey)) {
                Some(layout) => layout,
                None => Self::claude(survey).ok_or("no known layout, and no program in it")?,
            },
        };
        if !survey.files.contains_key(&layout.entrypoint) {
            return Err(format!("its entry point `{}` is not in it", layout.entrypoint));
        }
        Ok(layout)
    }

    /// `vendor/TRIPLE/codex-package.json` says it.
    fn codex(survey: &Survey) -> Result<Option<Self>, String> {
        let Some((path, bytes)) = survey.texts.iter().find(|(path, _)| path.as_str().ends_with("/codex-package.json"))
        else {
            return Ok(None);
        };
        let package: CodexPackage = serde_json::from_slice(bytes).map_err(|error| format!("`{path}`: {error}"))?;
        let folder = path.parents().next().unwrap_or_default();
        let below = |part: &str| {
            SafePath::parse(format!("{folder}/{part}").as_bytes()).map_err(|error| format!("`{path}`: {error}"))
        };
        let entrypoint = below(&find_exe(survey, folder, &package.entrypoint))?;
        let path = package.path_dir.as_deref().map(below).transpose()?;
        Ok(Some(Self { entrypoint, path: path.into_iter().collect() }))
    }

    /// Before 0.142: `vendor/TRIPLE/codex/codex` and `vendor/TRIPLE/path/rg`.
    fn old_codex(survey: &Survey) -> Option<Self> {
        let entrypoint = survey.files.keys().find(|path| {
            let parts: Vec<_> = path.as_str().split('/').collect();
            matches!(parts.as_slice(), ["vendor", _, "codex", "codex" | "codex.exe"])
        })?;
        let triple = entrypoint.parents().nth(1)?;
        let folder = format!("{triple}/path");
        let has = survey.files.keys().any(|path| path.parents().any(|parent| parent == folder));
        let path = has.then(|| SafePath::parse(folder.as_bytes()).ok()).flatten();
        Some(Self { entrypoint: entrypoint.clone(), path: path.into_iter().collect() })
    }

    /// npm's own `bin`, when it names one file.
    fn bin(survey: &Survey) -> Option<Self> {
        #[derive(Deserialize)]
        struct Description {
            bin: serde_json::Value,
        }
        let (_, bytes) = survey.texts.iter().find(|(path, _)| path.as_str() == "package.json")?;
        let description: Description = serde_json::from_slice(bytes).ok()?;
        let bin = match &description.bin {
            serde_json::Value::String(bin) => bin,
            serde_json::Value::Object(bins) if bins.len() == 1 => bins.values().next()?.as_str()?,
            _ => return None,
        };
        let entrypoint = SafePath::parse(bin.trim_start_matches("./").as_bytes()).ok()?;
        Some(Self { entrypoint, path: Vec::new() })
    }

    /// One program beside its licence.
    fn claude(survey: &Survey) -> Option<Self> {
        let entrypoint = survey.files.keys().find(|path| matches!(path.as_str(), "claude" | "claude.exe"))?;
        Some(Self { entrypoint: entrypoint.clone(), path: Vec::new() })
    }
}

/// On Windows the file has `.exe`, whether the description says so or not.
fn find_exe(survey: &Survey, folder: &str, entrypoint: &str) -> String {
    let with = format!("{folder}/{entrypoint}.exe");
    if survey.files.keys().any(|path| path.as_str() == with) {
        format!("{entrypoint}.exe")
    } else {
        entrypoint.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::FileRecord;

    fn path(name: &str) -> SafePath {
        SafePath::parse(name.as_bytes()).unwrap()
    }

    fn record(name: &str) -> FileRecord {
        FileRecord { path: path(name), size: 0, blake3: String::new(), executable: false }
    }

    fn survey(files: &[(&str, &str)]) -> Survey {
        Survey {
            size: 0,
            files: files.iter().map(|(name, _)| (path(name), record(name))).collect(),
            texts: files.iter().map(|(name, text)| (path(name), text.as_bytes().to_vec())).collect(),
            ..Survey::default()
        }
    }

    fn read(files: &[(&str, &str)]) -> (String, Vec<String>) {
        let layout = Layout::read(&survey(files)).unwrap();
        (layout.entrypoint.to_string(), layout.path.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn both_codex_layouts_and_the_others() {
        let description = r#"{"layoutVersion":1,"entrypoint":"bin/codex","pathDir":"codex-path"}"#;
        let new =
            [("vendor/t/codex-package.json", description), ("vendor/t/bin/codex", ""), ("vendor/t/codex-path/rg", "")];
        assert_eq!(read(&new), ("vendor/t/bin/codex".into(), vec!["vendor/t/codex-path".into()]));
        let windows = [("vendor/t/codex-package.json", description), ("vendor/t/bin/codex.exe", "")];
        assert_eq!(read(&windows).0, "vendor/t/bin/codex.exe");
        let old = [("package.json", "{}"), ("vendor/t/codex/codex", ""), ("vendor/t/path/rg", "")];
        assert_eq!(read(&old), ("vendor/t/codex/codex".into(), vec!["vendor/t/path".into()]));
        let node = [("package.json", r#"{"bin":{"node":"bin/node"}}"#), ("bin/node", "")];
        assert_eq!(read(&node).0, "bin/node");
        let claude = [("package.json", "{}"), ("claude.exe", ""), ("README.md", "")];
        assert_eq!(read(&claude).0, "claude.exe");
    }

    #[test]
    fn a_package_without_its_program_is_refused() {
        assert!(Layout::read(&survey(&[("package.json", r#"{"bin":"x.js"}"#)])).is_err());
        let escape = [("vendor/t/codex-package.json", r#"{"entrypoint":"../../x"}"#)];
        assert!(Layout::read(&survey(&escape)).is_err());
    }
}
