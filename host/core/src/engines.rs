//! Engines for a run: what a tool needs, and what is installed.

use std::sync::Arc;

use pcoder_engines::{
    Condition, Environment, Exported, Hold, ImportOptions, InstallOptions, InstalledEngine, NetworkConfig, NpmPlaces,
    Platform, Progress, Source, Store,
};
use pcoder_runtime::contract::agent::Engine;
use pcoder_runtime::error::code;
use pcoder_runtime::{Error, text};
use tokio_util::sync::CancellationToken;

use crate::Pcoder;
use crate::errors::from_engines;

/// How engines are installed.
#[derive(Clone)]
pub struct Installing {
    /// Another registry than npm's configuration says.
    pub registry: Option<String>,
    /// Use the network.
    pub online: bool,
    /// A tarball that is here already.
    pub from: Option<std::path::PathBuf>,
    /// Another platform than this machine's: for what a virtual machine runs.
    pub platform: Option<Platform>,
    /// Install it again, also when it is there and whole.
    pub force: bool,
    /// Who is told.
    pub progress: Arc<dyn Progress>,
    /// Ends it.
    pub cancel: CancellationToken,
}

impl Pcoder {
    /// How the network is reached from here: proxies, certificates and registries of npm's configuration and of the
    /// environment.
    ///
    /// # Errors
    /// What cannot be used of it.
    pub(crate) fn network(&self, registry: Option<&str>) -> Result<NetworkConfig, Error> {
        let home = self.surroundings.home();
        let places = NpmPlaces { home: home.as_deref(), project: None, prefix: None };
        NetworkConfig::from_npm(&self.environment(), places, registry).map_err(|error| from_engines(&error))
    }

    /// The environment, as the engine store takes it.
    fn environment(&self) -> Environment {
        self.surroundings.environment.iter().cloned().collect()
    }

    /// Installs one engine, or finds it installed.
    ///
    /// # Errors
    /// The store's.
    pub async fn install(&self, name: &str, version: Option<&str>, how: &Installing) -> Result<InstalledEngine, Error> {
        let store = self.store_for(how.platform)?;
        let source = match (&how.from, how.online) {
            (Some(file), _) => Source::File(file.clone()),
            (None, false) => Source::Offline,
            (None, true) => Source::Registry(Arc::new(self.network(how.registry.as_deref())?)),
        };
        let mut options = InstallOptions::new(source);
        options.force = how.force;
        options.environment = self.environment();
        options.pcoder_version = env!("CARGO_PKG_VERSION").to_owned();
        store
            .install(name, version, &options, Arc::clone(&how.progress), how.cancel.clone())
            .await
            .map_err(|error| from_engines(&error))
    }
}

impl Pcoder {
    /// Writes installed engines to files in a folder, one each. Without names, every default one that is installed.
    ///
    /// # Errors
    /// The store's.
    pub async fn export_engines(
        &self,
        names: &[String],
        version: Option<&str>,
        to: &std::path::Path,
        progress: Arc<dyn Progress>,
        cancel: CancellationToken,
    ) -> Result<Vec<Exported>, Error> {
        let store = self.store()?;
        let names = if names.is_empty() {
            let listed = store.list().map_err(|error| from_engines(&error))?;
            let installed = |it: &pcoder_engines::EngineStatus| matches!(it.condition, Condition::Installed(_));
            listed.into_iter().filter(|it| it.default && installed(it)).map(|it| it.name).collect()
        } else {
            names.to_vec()
        };
        if names.is_empty() {
            return Err(Error::new(code::NOT_FOUND, "engine.export", "no engine is installed")
                .hint("`pcoder engine install` installs the default ones"));
        }
        let named: Vec<(&str, Option<&str>)> = names.iter().map(|name| (name.as_str(), version)).collect();
        let to = crate::layout::absolute(&self.surroundings.cwd, to);
        store.export(&named, &to, progress, cancel).await.map_err(|error| from_engines(&error))
    }

    /// Installs engines from files that [`Pcoder::export_engines`] wrote: one, or a folder of them.
    ///
    /// # Errors
    /// The store's; `integrity` for other bytes than `engines.lock` says, whatever the file says of itself.
    pub async fn import_engines(
        &self,
        from: &std::path::Path,
        progress: Arc<dyn Progress>,
        cancel: CancellationToken,
    ) -> Result<Vec<InstalledEngine>, Error> {
        let options = ImportOptions {
            environment: self.environment(),
            pcoder_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ImportOptions::default()
        };
        let from = crate::layout::absolute(&self.surroundings.cwd, from);
        self.store()?.import(&from, &options, progress, cancel).await.map_err(|error| from_engines(&error))
    }
}

/// Engines that a run uses. While this lives, nobody removes them.
pub(crate) struct Held {
    pub(crate) engines: Vec<Engine>,
    _holds: Vec<Hold>,
}

/// Finds the engines that a tool needs, `version` being that of the first one.
pub(crate) fn hold(store: &Store, names: &[String], version: Option<&str>) -> Result<Held, Error> {
    let (mut engines, mut holds) = (Vec::new(), Vec::new());
    for (index, name) in names.iter().enumerate() {
        let version = if index == 0 { version } else { None };
        let (engine, hold) = store.hold(name, version).map_err(|error| from_engines(&error))?;
        engines.push(described(&engine)?);
        holds.push(hold);
    }
    Ok(Held { engines, _holds: holds })
}

/// The engines of these that are not installed, with their versions.
pub(crate) fn missing(
    store: &Store,
    names: &[String],
    version: Option<&str>,
) -> Result<Vec<(String, Option<String>)>, Error> {
    let mut missing = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let version = if index == 0 { version } else { None };
        if store.find(name, version).map_err(|error| from_engines(&error))?.is_none() {
            missing.push((name.clone(), version.map(str::to_owned)));
        }
    }
    Ok(missing)
}

fn described(engine: &InstalledEngine) -> Result<Engine, Error> {
    Ok(Engine {
        name: engine.name.clone(),
        version: engine.version.clone(),
        root: utf8(&engine.root)?,
        entrypoint: utf8(&engine.entrypoint)?,
        path_entries: engine.path_entries.iter().map(|it| utf8(it)).collect::<Result<_, _>>()?,
    })
}

/// A path as plugins see it.
pub(crate) fn utf8(path: &std::path::Path) -> Result<String, Error> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::new(code::INVALID, "run", "the path is not Unicode, and agents cannot work there")
            .subject(text::for_people(&path.to_string_lossy(), 400))
            .hint("rename the folder, or make a link to it with a plain name")
    })
}
