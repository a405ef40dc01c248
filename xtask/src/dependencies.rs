//! Licences and known vulnerabilities of everything in Cargo.lock.

use semver::Version;
use serde::Deserialize;

use crate::Failure;
use crate::workspace::{at, root};

/// Licences that a program under MIT or Apache-2.0 can be shipped with.
const LICENCES: [&str; 12] = [
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "Unicode-3.0",
    "Zlib",
    "0BSD",
    "CDLA-Permissive-2.0",
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: Version,
    license: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advisories {
    advisory: Vec<Advisory>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advisory {
    id: String,
    #[serde(rename = "crate")]
    name: String,
    patched: Version,
}

/// Fails on a licence that is not in the list, and on a version that is known to be vulnerable.
pub(crate) fn check() -> Result<(), Failure> {
    let output = crate::build::plain_cargo()
        .current_dir(root())
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let path = root().join("advisories.toml");
    let text = std::fs::read_to_string(&path).map_err(at(&path))?;
    let advisories: Advisories = toml::from_str(&text).map_err(|error| format!("advisories.toml: {error}"))?;
    let problems: Vec<String> = metadata
        .packages
        .iter()
        .flat_map(|package| licence_problem(package).into_iter().chain(vulnerabilities(package, &advisories.advisory)))
        .collect();
    if problems.is_empty() {
        println!("{} packages: licences and known vulnerabilities are in order", metadata.packages.len());
        Ok(())
    } else {
        Err(problems.join("\n"))
    }
}

fn licence_problem(package: &Package) -> Option<String> {
    let named = format!("{} {}", package.name, package.version);
    let Some(licence) = &package.license else { return Some(format!("{named} names no licence")) };
    // Old manifests separate alternatives with a slash, which SPDX does not know.
    let expression = match spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => return Some(format!("{named}: `{licence}` is no SPDX expression: {error}")),
    };
    let fine = expression.evaluate(|requirement| LICENCES.contains(&requirement.to_string().as_str()));
    (!fine).then(|| format!("{named} is under `{licence}`, which is not in the list of xtask/src/dependencies.rs"))
}

fn vulnerabilities(package: &Package, advisories: &[Advisory]) -> Vec<String> {
    advisories
        .iter()
        .filter(|advisory| advisory.name == package.name && package.version < advisory.patched)
        .map(|advisory| {
            format!(
                "{} {} is vulnerable ({}): `cargo update -p {}` to {} or newer",
                package.name, package.version, advisory.id, package.name, advisory.patched
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, license: Option<&str>) -> Package {
        Package {
            name: name.to_owned(),
            version: version.parse().expect("a version"),
            license: license.map(str::to_owned),
        }
    }

    #[test]
    fn a_licence_must_be_in_the_list_or_have_an_alternative_that_is() {
        let fine = |licence| licence_problem(&package("x", "1.0.0", licence)).is_none();
        assert!(fine(Some("MIT OR Apache-2.0")));
        assert!(fine(Some("MIT/Apache-2.0")));
        assert!(fine(Some("GPL-3.0-only OR MIT")));
        assert!(fine(Some("Apache-2.0 WITH LLVM-exception")));
        assert!(!fine(Some("MIT AND GPL-3.0-only")));
        assert!(!fine(Some("AGPL-3.0-only")));
        assert!(!fine(Some("whatever")));
        assert!(!fine(None));
    }

    #[test]
    fn a_version_before_the_patch_is_found() {
        let advisories =
            [Advisory { id: "X-1".into(), name: "x".into(), patched: "1.2.0".parse().expect("a version") }];
        assert_eq!(vulnerabilities(&package("x", "1.1.9", None), &advisories).len(), 1);
        assert!(vulnerabilities(&package("x", "1.2.0", None), &advisories).is_empty());
        assert!(vulnerabilities(&package("y", "1.0.0", None), &advisories).is_empty());
    }
}
