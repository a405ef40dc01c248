//! What the last run found out.

use serde_json::Value;

use crate::lock_file::{Build, Builds, EnginesLock, FORMAT, Package};
use crate::sri::Sri;
use crate::tree::TreeDigest;

/// A lock file that was made before.
#[derive(Debug)]
pub struct Previous {
    lock: EnginesLock,
    /// It says what the trees are. Format 1 did not: its pins stay, and its packages are measured again.
    trees: bool,
}

impl Previous {
    /// Reads one, of this format or an older one. None for what is not a lock file.
    pub fn read(text: &str) -> Option<Self> {
        if let Ok(lock) = EnginesLock::parse(text) {
            return Some(Self { lock, trees: true });
        }
        let mut old: Value = serde_json::from_str(text).ok()?;
        if old.get("format")? != 1 {
            return None;
        }
        *old.get_mut("format")? = FORMAT.into();
        for engine in old.get_mut("engines")?.as_object_mut()?.values_mut() {
            for version in engine.get_mut("versions")?.as_object_mut()?.values_mut() {
                let builds = version.get_mut("builds")?;
                match builds.get_mut("any") {
                    Some(build) => without_tree(build)?,
                    None => {
                        for build in builds.get_mut("platforms")?.as_object_mut()?.values_mut() {
                            without_tree(build)?;
                        }
                    }
                }
            }
        }
        let lock = EnginesLock::parse(&old.to_string()).ok()?;
        Some(Self { lock, trees: false })
    }

    /// The build with exactly this package in it, and the package.
    pub(super) fn find(&self, name: &str, version: &str, integrity: Sri) -> Option<(&Build, &Package)> {
        let versions = self.lock.engines.values().flat_map(|engine| engine.versions.values());
        let builds = versions.flat_map(|version| -> Vec<&Build> {
            match &version.builds {
                Builds::Any(build) => vec![build],
                Builds::Platforms(builds) => builds.values().collect(),
            }
        });
        builds
            .flat_map(|build| build.packages.iter().map(move |package| (build, package)))
            .find(|(_, package)| package.name == name && package.version == version && package.integrity == integrity)
    }

    pub(super) fn has_trees(&self) -> bool {
        self.trees
    }
}

/// A digest that stands for none, so that the rest can be parsed.
fn without_tree(build: &mut Value) -> Option<()> {
    build.as_object_mut()?.insert("tree".to_owned(), TreeDigest::of(&[]).to_string().into());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pins_of_an_older_format_are_known_and_its_trees_are_not() {
        let text = include_str!("../../../../engines.lock");
        let now = Previous::read(text).unwrap();
        assert!(now.has_trees());
        let mut old: Value = serde_json::from_str(text).unwrap();
        let node = old.pointer_mut("/engines/node/versions").unwrap().as_object_mut().unwrap();
        let node = node.values_mut().next().unwrap().pointer_mut("/builds/platforms").unwrap().as_object_mut().unwrap();
        node.values_mut().for_each(|build| drop(build.as_object_mut().unwrap().remove("tree")));
        *old.get_mut("format").unwrap() = 1.into();
        let old = Previous::read(&old.to_string()).unwrap();
        assert!(!old.has_trees());
        let Builds::Platforms(builds) = &now.lock.engines["node"].versions.values().next().unwrap().builds else {
            panic!("node has platforms");
        };
        let package = &builds.values().next().unwrap().packages[0];
        let (_, found) = old.find(&package.name, &package.version, package.integrity).unwrap();
        assert_eq!(found, package);
        for text in ["", "{}", r#"{"format":3}"#, r#"{"format":1,"engines":{"x":{}}}"#] {
            assert!(Previous::read(text).is_none(), "{text}");
        }
    }
}
