//! Makes `engines.lock` from the registry's own documents and tarballs.
//!
//! What to lock is said in `plan.rs`: the adapters, the Node that runs them, and versions that are wanted beside. The engines'
//! versions are read from the adapters' dependencies, the platforms from the engines' packages, the layout from each
//! tarball. A version is refused unless every platform of it can be downloaded and has the hash that the registry says.

mod closure;
mod layout;
mod plan;
mod previous;
mod survey;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::http::{Failure, Http, Patience};
use crate::lock_file::{Build, Builds, Engine, EngineVersion, EnginesLock, FORMAT, Package, Smoke};
use crate::network::NetworkConfig;
use crate::platform::Platform;
use crate::sri::Sri;
use crate::tree::{TreeDigest, lay_out};
use layout::Layout;
use plan::Musl;
pub use previous::Previous;
use survey::Survey;

/// Makes lock files.
pub struct Generator<'a> {
    http: Http,
    /// What is known already: a package with the same hash is not downloaded again.
    previous: Option<&'a Previous>,
    say: &'a (dyn Fn(&str) + Sync),
}

/// What a registry says about one version of a package.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    dependencies: BTreeMap<String, String>,
    #[serde(default)]
    optional_dependencies: BTreeMap<String, String>,
    claude_code_version: Option<String>,
    dist: Dist,
}

#[derive(Debug, Deserialize)]
struct Dist {
    integrity: Sri,
}

impl<'a> Generator<'a> {
    /// `previous` may be none, to download and measure everything.
    ///
    /// # Errors
    /// The network's settings cannot be used.
    pub fn new(network: NetworkConfig, previous: Option<&'a Previous>, say: &'a (dyn Fn(&str) + Sync)) -> Result<Self> {
        let http = Http::new(Arc::new(network), Patience::default(), CancellationToken::new(), "pcoder-engines-lock")?;
        Ok(Self { http, previous, say })
    }

    /// Asks the registry, and downloads what is not known.
    ///
    /// # Errors
    /// A version is not there for one of its platforms, or its bytes are not what the registry says; npm fails.
    pub async fn generate(&self) -> Result<EnginesLock> {
        let mut engines = BTreeMap::new();
        let claude_acp = self.manifest(plan::CLAUDE_ACP.0, plan::CLAUDE_ACP.1).await?;
        let codex_acp = self.manifest(plan::CODEX_ACP.0, plan::CODEX_ACP.1).await?;
        let built_for = |manifest: &Manifest, package: &str| -> Result<String> {
            let range = manifest.dependencies.get(package).ok_or_else(|| refused(package, "no adapter needs it"))?;
            Ok(range.trim_start_matches(['^', '~', '=']).to_owned())
        };
        let claude = built_for(&claude_acp, plan::CLAUDE)?;
        let codex = built_for(&codex_acp, plan::CODEX)?;

        let mut versions = BTreeMap::new();
        for version in [claude.as_str()].iter().chain(plan::CLAUDE_TOO) {
            versions.insert((*version).to_owned(), self.platforms(plan::CLAUDE, version, &Musl::Own).await?);
        }
        engines.insert(
            "claude".to_owned(),
            Engine { default: claude.clone(), licence: plan::CLAUDE_LICENCE.into(), versions },
        );

        let mut versions = BTreeMap::new();
        for version in [codex.as_str()].iter().chain(plan::CODEX_TOO) {
            versions.insert((*version).to_owned(), self.platforms(plan::CODEX, version, &Musl::AsGlibc).await?);
        }
        engines.insert("codex".to_owned(), Engine { default: codex.clone(), licence: "Apache-2.0".into(), versions });

        let node = self.node().await?;
        let versions = [(plan::NODE.to_owned(), node)].into();
        engines.insert("node".to_owned(), Engine { default: plan::NODE.into(), licence: "MIT".into(), versions });

        let (name, version) = plan::CLAUDE_ACP;
        let adapter = self.with_closure(name, version).await?;
        let needs = [("claude", claude.as_str()), ("node", plan::NODE)];
        engines.insert("claude-agent-acp".to_owned(), adapter_engine(version, adapter, &needs));

        let (name, version) = plan::CODEX_ACP;
        let adapter = self.single(name, version, false).await?;
        let needs = [("codex", codex.as_str()), ("node", plan::NODE)];
        engines.insert("codex-acp".to_owned(), adapter_engine(version, adapter, &needs));

        let lock = EnginesLock { format: FORMAT, engines };
        // Through the parser, so that nothing is written that it would refuse.
        EnginesLock::parse(&lock.to_text()?)
    }

    /// An engine whose package lists its platforms as optional dependencies.
    async fn platforms(&self, name: &str, version: &str, musl: &Musl) -> Result<EngineVersion> {
        let manifest = self.manifest(name, version).await?;
        let mut builds = BTreeMap::new();
        for (alias, target) in &manifest.optional_dependencies {
            let Some(platform) = alias.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')) else {
                continue;
            };
            let platform: Platform = platform.parse()?;
            let (package, version) = match target.strip_prefix("npm:").and_then(|target| target.rsplit_once('@')) {
                Some((package, version)) => (package, version),
                None => (alias.as_str(), target.as_str()),
            };
            builds.insert(platform, self.single(package, version, true).await?);
        }
        if matches!(musl, Musl::AsGlibc) {
            for (glibc, musl) in
                [(Platform::LinuxX64, Platform::LinuxX64Musl), (Platform::LinuxArm64, Platform::LinuxArm64Musl)]
            {
                if let Some(build) = builds.get(&glibc).cloned() {
                    builds.insert(musl, build);
                }
            }
        }
        if let Some(missing) = Platform::ALL.into_iter().find(|platform| !builds.contains_key(platform)) {
            return Err(refused(&format!("{name}@{version}"), &format!("it is not published for {missing}")));
        }
        let expect = manifest.claude_code_version.unwrap_or_else(|| version.to_owned());
        Ok(EngineVersion {
            smoke: Some(Smoke { args: vec!["--version".to_owned()], expect }),
            built_for: BTreeMap::new(),
            builds: Builds::Platforms(builds),
            unsupported: BTreeMap::new(),
        })
    }

    async fn node(&self) -> Result<EngineVersion> {
        let mut builds = BTreeMap::new();
        for (platform, package) in plan::NODE_PACKAGES {
            builds.insert(*platform, self.single(package, plan::NODE, true).await?);
        }
        let unsupported = [Platform::LinuxX64Musl, Platform::LinuxArm64Musl]
            .map(|platform| (platform, "npm's node packages are built for glibc".to_owned()));
        Ok(EngineVersion {
            smoke: Some(Smoke { args: vec!["--version".to_owned()], expect: format!("v{}", plan::NODE) }),
            built_for: BTreeMap::new(),
            builds: Builds::Platforms(builds),
            unsupported: unsupported.into(),
        })
    }

    /// A package alone, with its layout. `runs` says that its entry point is a program.
    async fn single(&self, name: &str, version: &str, runs: bool) -> Result<Build> {
        let integrity = self.manifest(name, version).await?.dist.integrity;
        if let Some((build, _)) = self.known(name, version, integrity)
            && build.packages.len() == 1
        {
            return Ok(build.clone());
        }
        let (package, survey) = self.measure(name, version, integrity).await?;
        let layout = Layout::read(&survey).map_err(|detail| refused(&package.id(), &detail))?;
        Ok(build(layout, vec![(package, survey)], runs))
    }

    /// A package and all that it needs, as npm would lay them out.
    async fn with_closure(&self, name: &str, version: &str) -> Result<Build> {
        let root = self.manifest(name, version).await?.dist.integrity;
        let previous = self.previous.and_then(|previous| previous.find(name, version, root)).map(|(build, _)| build);
        let members = match previous {
            // Resolving again would take whatever is newest today: the locked members stay until the adapter moves.
            Some(build) => build.packages.iter().map(closure::Member::of).collect(),
            None => closure::resolve(name, version).await?,
        };
        let mut known = true;
        let mut integrities = Vec::new();
        for member in &members {
            let integrity = self.manifest(&member.name, &member.version).await?.dist.integrity;
            known &= self.known(&member.name, &member.version, integrity).is_some();
            integrities.push(integrity);
        }
        // The tree is one, so it is known as a whole or measured as a whole.
        if let Some(build) = previous.filter(|_| known) {
            return Ok(build.clone());
        }
        let mut layout = None;
        let mut packages = Vec::new();
        for (member, integrity) in members.into_iter().zip(integrities) {
            let (mut package, survey) = self.measure(&member.name, &member.version, integrity).await?;
            if member.name == name {
                let mut read = Layout::read(&survey).map_err(|detail| refused(&package.id(), &detail))?;
                read.entrypoint = read.entrypoint.under(member.at.as_ref());
                layout = Some(read);
            }
            package.at = member.at;
            packages.push((package, survey));
        }
        let layout = layout.ok_or_else(|| refused(name, "npm did not install the adapter itself"))?;
        Ok(build(layout, packages, false))
    }

    /// A package of the previous lock with the same hash, and its build, if that is known to the last byte.
    fn known(&self, name: &str, version: &str, integrity: Sri) -> Option<(&'a Build, &'a Package)> {
        self.previous.filter(|previous| previous.has_trees())?.find(name, version, integrity)
    }

    async fn manifest(&self, name: &str, version: &str) -> Result<Manifest> {
        let mut last = None;
        for _ in 0..3 {
            match self.http.document(name, &format!("{name}/{version}")).await {
                Ok(bytes) => {
                    return serde_json::from_slice(&bytes)
                        .map_err(|error| refused(&format!("{name}@{version}"), &format!("its document: {error}")));
                }
                Err(Failure::Fatal(error)) => return Err(error),
                Err(Failure::Again { detail, status, .. }) => last = Some((detail, status)),
            }
        }
        let (detail, status) = last.unwrap_or_default();
        Err(Error::Registry { package: format!("{name}@{version}"), detail, status })
    }

    async fn measure(&self, name: &str, version: &str, integrity: Sri) -> Result<(Package, Survey)> {
        let mut package = Package {
            at: None,
            name: name.to_owned(),
            version: version.to_owned(),
            integrity,
            size: 0,
            unpacked: 0,
            files: 0,
        };
        let survey = survey::survey(&self.http, &package).await?;
        package.size = survey.size;
        package.unpacked = survey.files.values().map(|file| file.size).sum();
        package.files = survey.files.len() as u64;
        (self.say)(&format!("{}: {} bytes, {} files", package.id(), package.size, package.files));
        Ok((package, survey))
    }
}

/// A build of what was measured.
fn build(layout: Layout, measured: Vec<(Package, Survey)>, runs: bool) -> Build {
    let (packages, surveys): (Vec<_>, Vec<_>) = measured.into_iter().unzip();
    let tree = TreeDigest::of(&[]);
    let mut build = Build { entrypoint: layout.entrypoint, path: layout.path, tree, packages };
    let files = surveys.into_iter().map(|survey| survey.files.into_values().collect()).collect();
    build.tree = TreeDigest::of(&lay_out(&build, runs, files));
    build
}

fn adapter_engine(version: &str, build: Build, built_for: &[(&str, &str)]) -> Engine {
    let entry = EngineVersion {
        smoke: None,
        built_for: built_for.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect(),
        builds: Builds::Any(build),
        unsupported: BTreeMap::new(),
    };
    Engine {
        default: version.to_owned(),
        licence: "Apache-2.0".to_owned(),
        versions: [(version.to_owned(), entry)].into(),
    }
}

fn refused(package: &str, detail: &str) -> Error {
    Error::Registry { package: package.to_owned(), detail: detail.to_owned(), status: None }
}
