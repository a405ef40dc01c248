//! `engines.lock`: which engines exist, and exactly which bytes they are.
//!
//! It is the root of trust: a registry is asked for bytes, never for what the bytes should be. It names packages and
//! versions, and no registry. Made by the `engines-lock` generator; an unknown field or format is an error, because a
//! field that is not understood may be the one that matters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::safe_path::SafePath;
use crate::sri::Sri;
use crate::tree::TreeDigest;

/// The format that this program reads and writes. Format 1 did not say what the unpacked trees are.
pub const FORMAT: u32 = 2;

/// The whole lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnginesLock {
    /// [`FORMAT`].
    pub format: u32,
    /// By name.
    pub engines: BTreeMap<String, Engine>,
}

/// One engine or adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// The version that is meant when none is named.
    pub default: String,
    /// Short name of its licence.
    pub licence: String,
    /// By version.
    pub versions: BTreeMap<String, EngineVersion>,
}

/// One version of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineVersion {
    /// How it is asked whether it runs. None for JavaScript, which cannot run by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoke: Option<Smoke>,
    /// Engines that this version was built against, by name: an adapter's agent and Node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub built_for: BTreeMap<String, String>,
    /// The builds: by platform, or one for `any`.
    pub builds: Builds,
    /// Platforms without a build, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unsupported: BTreeMap<Platform, String>,
}

/// The builds of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Builds {
    /// The same files everywhere.
    Any(Build),
    /// One a platform.
    Platforms(BTreeMap<Platform, Build>),
}

/// The files of one version on one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// What is started, below the engine's root.
    pub entrypoint: SafePath,
    /// Folders that go first on the agent's `PATH`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<SafePath>,
    /// What its packages are when they are unpacked, all together.
    pub tree: TreeDigest,
    /// The packages that make up the tree.
    pub packages: Vec<Package>,
}

/// One npm package at one place of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Where in the tree it is unpacked; none is the root itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<SafePath>,
    /// Name, with its scope.
    pub name: String,
    /// Version.
    pub version: String,
    /// sha512 of the tarball.
    pub integrity: Sri,
    /// Bytes of the tarball.
    pub size: u64,
    /// Bytes of its files.
    pub unpacked: u64,
    /// Number of its files.
    pub files: u64,
}

/// A question to a fresh engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smoke {
    /// Arguments.
    pub args: Vec<String>,
    /// What the answer must contain.
    pub expect: String,
}

impl Package {
    /// `name@version`.
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// The name without its scope.
    pub fn base_name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    /// Where a registry keeps it, below the registry's own address.
    pub fn tarball(&self) -> String {
        format!("{}/-/{}-{}.tgz", self.name, self.base_name(), self.version)
    }
}

impl Build {
    /// Bytes of all its tarballs.
    pub fn download_size(&self) -> u64 {
        self.packages.iter().map(|package| package.size).sum()
    }

    /// Bytes of all its files.
    pub fn unpacked_size(&self) -> u64 {
        self.packages.iter().map(|package| package.unpacked).sum()
    }

    /// Number of all its files.
    pub fn file_count(&self) -> u64 {
        self.packages.iter().map(|package| package.files).sum()
    }
}

/// One engine, one version, one platform, looked up.
#[derive(Debug, Clone, Copy)]
pub struct Locked<'a> {
    /// The engine's name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// It is the version that is meant when none is named.
    pub default: bool,
    /// The platform that it is for, or `any`.
    pub platform: &'static str,
    /// Its platform, where that is not the machine's own.
    pub foreign: Option<Platform>,
    /// The version's entry.
    pub entry: &'a EngineVersion,
    /// The build's entry.
    pub build: &'a Build,
}

impl Locked<'_> {
    /// `name@version@platform`: names of locks and temporary files. `@` is in no engine's name or version.
    pub(crate) fn key(&self) -> String {
        format!("{}@{}@{}", self.name, self.version, self.platform)
    }

    /// The folder below `engines/NAME/`.
    pub(crate) fn folder(&self) -> String {
        format!("{}-{}", self.version, self.platform)
    }

    /// For messages.
    pub(crate) fn subject(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    /// The command that installs it, as short as it can be, in backticks as every hint has it.
    pub fn install_hint(&self) -> String {
        let version = if self.default { String::new() } else { format!(" --version {}", self.version) };
        let foreign = self.foreign.filter(|_| self.platform != "any");
        let platform = foreign.map(|it| format!(" --platform {it}")).unwrap_or_default();
        format!("`pcoder engine install {}{version}{platform}`", self.name)
    }

    /// Whether the entry point is a program of its own, and not a script for another engine.
    pub(crate) fn runs(&self) -> bool {
        self.entry.smoke.is_some()
    }

    pub(crate) fn not_installed(&self) -> Error {
        let (name, version) = (self.name.to_owned(), self.version.to_owned());
        Error::NotInstalled { name, version, install: self.install_hint() }
    }

    pub(crate) fn damaged(&self, detail: String) -> Error {
        let (name, version) = (self.name.to_owned(), self.version.to_owned());
        Error::Damaged { name, version, detail, install: self.install_hint() }
    }
}

impl EnginesLock {
    /// The lock file that this program was built with.
    ///
    /// # Errors
    /// It does not parse, which a test of this crate excludes.
    pub fn embedded() -> Result<Self> {
        Self::parse(include_str!("../../../engines.lock"))
    }

    /// Reads and checks a lock file.
    ///
    /// # Errors
    /// It is of another format, has unknown fields, or contradicts itself.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |detail: String| Error::Invalid {
            subject: "engines.lock".to_owned(),
            detail,
            hint: "make it anew: `cargo xtask engines-lock`".to_owned(),
        };
        // The format first, alone: a newer format would otherwise be reported as an unknown field.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
        if head.format != FORMAT {
            return Err(invalid(format!("it has format {}, this pcoder reads {FORMAT}", head.format)));
        }
        let lock: Self = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
        lock.check().map_err(invalid)?;
        Ok(lock)
    }

    /// As it is written to the disk: stable, one field a line.
    ///
    /// # Errors
    /// Never, for a lock that was parsed.
    pub fn to_text(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map(|text| text + "\n")
            .map_err(|error| Error::internal(format!("engines.lock cannot be written: {error}")))
    }

    /// Looks an engine up. No version means the default one.
    ///
    /// # Errors
    /// The engine or the version does not exist, or not for this platform.
    pub fn lookup(&self, name: &str, version: Option<&str>, platform: Platform) -> Result<Locked<'_>> {
        let Some((name, engine)) = self.engines.get_key_value(name) else {
            return Err(Error::UnknownEngine { name: name.to_owned(), known: self.engines.keys().cloned().collect() });
        };
        let version = version.unwrap_or(&engine.default);
        let Some((version, entry)) = engine.versions.get_key_value(version) else {
            return Err(Error::UnknownVersion {
                name: name.clone(),
                version: version.to_owned(),
                known: engine.versions.keys().cloned().collect(),
            });
        };
        let (platform, build) = match &entry.builds {
            Builds::Any(build) => ("any", build),
            Builds::Platforms(builds) => match builds.get(&platform) {
                Some(build) => (platform.name(), build),
                None => {
                    return Err(Error::UnsupportedPlatform {
                        name: name.clone(),
                        version: version.clone(),
                        platform: platform.to_string(),
                        reason: entry
                            .unsupported
                            .get(&platform)
                            .cloned()
                            .unwrap_or_else(|| "its makers do not publish it".to_owned()),
                    });
                }
            },
        };
        Ok(Locked { name, version, default: *version == engine.default, platform, foreign: None, entry, build })
    }

    /// What serde cannot say: names that are safe as folder names, defaults that exist, entry points with a package.
    fn check(&self) -> Result<(), String> {
        for (name, engine) in &self.engines {
            plain(name)?;
            if !engine.versions.contains_key(&engine.default) {
                return Err(format!("`{name}` has no version {}, its default", engine.default));
            }
            for (version, entry) in &engine.versions {
                plain(version)?;
                let builds: Vec<&Build> = match &entry.builds {
                    Builds::Any(build) => vec![build],
                    Builds::Platforms(builds) => builds.values().collect(),
                };
                if builds.is_empty() {
                    return Err(format!("`{name}` {version} has no builds"));
                }
                for build in builds {
                    if build.packages.is_empty() {
                        return Err(format!("`{name}` {version} has a build without packages"));
                    }
                    build.packages.iter().try_for_each(check_package)?;
                }
            }
        }
        Ok(())
    }
}

/// A name that becomes a part of a folder's name.
fn plain(name: &str) -> Result<(), String> {
    let ok = !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
        && name.bytes().all(|byte| !byte.is_ascii_uppercase())
        && SafePath::parse(name.as_bytes()).is_ok();
    if ok { Ok(()) } else { Err(format!("`{name}` cannot be a name or version of an engine")) }
}

/// A package's name and version become a path on the registry, and nothing else.
fn check_package(package: &Package) -> Result<(), String> {
    let word = |text: &str| {
        !text.is_empty()
            && !text.starts_with('.')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
    };
    let name = match package.name.strip_prefix('@').map(|name| name.split_once('/')) {
        Some(Some((scope, name))) => word(scope) && word(name),
        Some(None) => false,
        None => word(&package.name),
    };
    if name && word(&package.version) {
        Ok(())
    } else {
        Err(format!("`{}` is not a package and its version", package.id()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{"format":2,"engines":{"x":{"default":"1.0.0","licence":"MIT","versions":{"1.0.0":{"builds":{
        "any":{"entrypoint":"x.js","tree":"blake3-af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        "packages":[{"name":"@s/x","version":"1.0.0","size":1,"unpacked":1,"files":1,
        "integrity":"sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg=="}]}}}}}}}"#;

    #[test]
    fn a_lock_goes_round() {
        let lock = EnginesLock::parse(SMALL).unwrap();
        assert_eq!(EnginesLock::parse(&lock.to_text().unwrap()).unwrap(), lock);
        let found = lock.lookup("x", None, Platform::LinuxX64).unwrap();
        assert_eq!(found.build.packages[0].tarball(), "@s/x/-/x-1.0.0.tgz");
        assert_eq!((found.key().as_str(), found.folder().as_str()), ("x@1.0.0@any", "1.0.0-any"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (from, to) in [
            ("\"format\":2", "\"format\":1"),
            ("\"format\":2", "\"format\":3"),
            ("\"tree\":", "\"wood\":"),
            ("blake3-", "blake2-"),
            ("\"licence\"", "\"mirror\":\"x\",\"licence\""),
            ("\"default\":\"1.0.0\"", "\"default\":\"2.0.0\""),
            ("\"x\":{", "\"../x\":{"),
            ("\"x.js\"", "\"../x.js\""),
            ("@s/x", "@s/../x"),
            ("sha512-", "sha1-"),
            ("\"files\":1", "\"files\":-1"),
        ] {
            let text = SMALL.replace(from, to);
            assert_ne!(text, SMALL);
            assert_eq!(EnginesLock::parse(&text).unwrap_err().code(), "invalid", "{to}");
        }
    }

    #[test]
    fn unknown_names_say_which_are_known() {
        let lock = EnginesLock::parse(SMALL).unwrap();
        let error = lock.lookup("y", None, Platform::LinuxX64).unwrap_err();
        assert_eq!(error.hint().unwrap(), "engines are `x`");
        let error = lock.lookup("x", Some("9"), Platform::LinuxX64).unwrap_err();
        assert!(error.hint().unwrap().contains("`1.0.0`"));
    }
}
