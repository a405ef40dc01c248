//! A plugin that might be added: what its user is shown, and what their answer does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use pcoder_engines::Progress;
use pcoder_runtime::capability::exec;
use pcoder_runtime::error::code;
use pcoder_runtime::inspect::Inspection;
use pcoder_runtime::manifest::{AS_CALLED, Capabilities};
use pcoder_runtime::{Error, text};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::lock::{BUILT_IN, Entry};
use super::{beyond, compile, within};
use crate::Pcoder;
use crate::errors::from_state;
use crate::layout::absolute;

const OPERATION: &str = "plugin.add";

/// Roots that need no folder of the user's choice.
const OWN_ROOTS: [&str; 6] = ["state", "project", "called", "images", "engines", "host"];

/// What somebody is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    /// All that it asks for: it is new here.
    Everything,
    /// What it asks for beyond what was granted to other bytes of its name.
    Widened,
    /// Whether these other bytes may have what was granted. They ask for nothing more.
    OtherBytes,
    /// Nothing: these very bytes are there, with all that they ask for.
    Nothing,
}

/// A plugin that was read, checked and compiled, and not yet added.
pub struct Candidate<'a> {
    pcoder: &'a Pcoder,
    wasm: Vec<u8>,
    source: String,
    inspection: Inspection,
    previous: Option<Entry>,
    kept: Capabilities,
    wanted: Capabilities,
}

/// What the user agreed to.
#[derive(Clone, Debug, Default)]
pub struct Consent {
    /// What is granted of what was shown.
    pub granted: Capabilities,
    /// Folders for the names of file roots.
    pub roots: BTreeMap<String, PathBuf>,
    /// Pin granted programs to the bytes that they have now.
    pub pin: bool,
}

impl Pcoder {
    /// Reads, checks and compiles a plugin, and says what adding it would grant. Nothing is added.
    ///
    /// # Errors
    /// `invalid`, `unsupported` for what is no plugin for this pcoder; `integrity` when it has not the digest that was
    /// named; `already-exists` for the name of a plugin that is built in; `denied` where the policy does not let it run;
    /// `limit` when it cannot be compiled within limits; those of the network.
    pub async fn candidate(
        &self,
        source: &str,
        sha256: Option<&str>,
        progress: &dyn Progress,
        cancel: CancellationToken,
    ) -> Result<Candidate<'_>, Error> {
        let fetched = self.fetch_component(source, progress, cancel).await?;
        let inspection = self.inspect(&fetched.wasm).map_err(|error| error.subject(text::for_people(source, 400)))?;
        if let Some(expected) = sha256.filter(|it| !it.eq_ignore_ascii_case(&inspection.digest)) {
            return Err(Error::new(
                code::INTEGRITY,
                OPERATION,
                format!("its sha256 is {}, and not the one that was named", inspection.digest),
            )
            .subject(text::for_people(source, 400))
            .hint(format!("if `{}` is what its author published, name that", text::for_people(expected, 80))));
        }
        inspection.check_imports()?;
        let name = &inspection.manifest.name;
        let kind = inspection.manifest.kind;
        if name.strip_prefix(kind.prefix()).is_none_or(str::is_empty) {
            let message = format!("the name of a {kind} begins with `{}`", kind.prefix());
            return Err(Error::new(code::INVALID, OPERATION, message)
                .subject(name)
                .hint("its author names it so in `plugin.toml`"));
        }
        if self.bundled_names().any(|built_in| built_in == name) {
            return Err(Error::new(code::ALREADY_EXISTS, OPERATION, "a plugin of that name is built in")
                .subject(name)
                .hint("a plugin that was added cannot take its place; its author can give it another name"));
        }
        let previous = self.plugins_lock()?.find(name).cloned();
        let asked = &inspection.manifest.capabilities;
        let granted: Capabilities = previous.as_ref().map(|it| it.granted.clone().into()).unwrap_or_default();
        let (kept, wanted) = (within(&granted, asked), beyond(asked, &granted));
        self.policies()?.allow(name, &inspection.digest, asked)?;
        match self.compile_command() {
            Some(command) => drop(compile(self.runtime()?, &command, &fetched.wasm).await?),
            None => {
                return Err(Error::new(code::UNSUPPORTED, OPERATION, "nobody said how plugins are compiled here"));
            }
        }
        Ok(Candidate { pcoder: self, wasm: fetched.wasm, source: fetched.source, inspection, previous, kept, wanted })
    }
}

impl Candidate<'_> {
    /// What it says of itself, and what it imports.
    pub fn inspection(&self) -> &Inspection {
        &self.inspection
    }

    /// What was added under its name before.
    pub fn previous(&self) -> Option<&Entry> {
        self.previous.as_ref()
    }

    /// What it asks for that it has not been granted.
    pub fn wanted(&self) -> &Capabilities {
        &self.wanted
    }

    /// What was granted already and would stay so.
    pub fn kept(&self) -> &Capabilities {
        &self.kept
    }

    /// What the user has to be asked.
    pub fn asked(&self) -> Asked {
        let nothing = self.wanted == Capabilities::default();
        match &self.previous {
            None => Asked::Everything,
            Some(previous) if previous.sha256 == self.inspection.digest && nothing => Asked::Nothing,
            Some(_) if nothing => Asked::OtherBytes,
            Some(_) => Asked::Widened,
        }
    }

    /// The roots that it asks for and that no folder was named for.
    pub fn roots_without_folder(&self, named: &BTreeMap<String, PathBuf>) -> Vec<String> {
        let known = |root: &str| {
            OWN_ROOTS.contains(&root)
                || named.contains_key(root)
                || self.previous.as_ref().is_some_and(|it| it.roots.contains_key(root))
        };
        let asked = self.inspection.manifest.capabilities.files.iter().map(|it| it.root.clone());
        asked.filter(|root| !known(root)).collect()
    }

    /// Adds it, with what was agreed to on top of what stays granted. Programs become the paths that their names lead to
    /// now.
    ///
    /// # Errors
    /// `conflict` when another process changed the plugin meanwhile; `not-found` for a program or a folder that is not
    /// there; `io`. Then nothing was added.
    pub fn accept(self, consent: &Consent) -> Result<Entry, Error> {
        let manifest = &self.inspection.manifest;
        let mut granted = self.kept.clone();
        let more = self.pcoder.resolve_programs(within(&consent.granted, &manifest.capabilities), consent.pin)?;
        granted.exec.extend(more.exec);
        super::extent::add_services(&mut granted.service, more.service);
        granted.files.retain(|it| !more.files.iter().any(|new| new.root == it.root));
        granted.files.extend(more.files);
        granted.net.extend(more.net);
        granted.secrets.extend(more.secrets);
        granted.target = granted.target.or(more.target);
        let mut roots = self.previous.as_ref().map(|it| it.roots.clone()).unwrap_or_default();
        for (name, folder) in &consent.roots {
            roots.insert(name.clone(), self.pcoder.existing_folder(folder)?);
        }
        roots.retain(|name, _| manifest.capabilities.files.iter().any(|it| it.root == *name));
        let entry = Entry {
            name: manifest.name.clone(),
            kind: manifest.kind,
            version: text::for_people(&manifest.version, 80),
            sha256: self.inspection.digest.clone(),
            source: self.source.clone(),
            added_unix_ms: now_ms(),
            roots,
            granted: granted.into(),
        };
        let path = self.pcoder.layout().component(&entry.sha256);
        self.pcoder.update_plugins(|lock| {
            if lock.find(&entry.name) != self.previous.as_ref() {
                return Err(Error::new(code::CONFLICT, OPERATION, "another pcoder changed this plugin meanwhile")
                    .subject(&entry.name)
                    .hint("look at it with `pcoder plugin list`, and add it again"));
            }
            // Before its entry, and alone: an entry without bytes would be a plugin that does not load, and bytes
            // without an entry are swept.
            pcoder_state::write_atomic(&path, &self.wasm).map_err(|error| from_state(OPERATION, &error))?;
            lock.put(entry.clone());
            Ok(())
        })?;
        self.pcoder.sweep_components()?;
        Ok(entry)
    }
}

impl Pcoder {
    /// Programs by name become the absolute paths that they have now, pinned to their bytes if that is wanted.
    pub(super) fn resolve_programs(&self, mut granted: Capabilities, pin: bool) -> Result<Capabilities, Error> {
        let programs = granted.exec.iter_mut().map(|it| ("exec", &mut it.program, &mut it.sha256));
        let services = granted.service.iter_mut().map(|it| ("service", &mut it.program, &mut it.sha256));
        for (class, program, sha256) in programs.chain(services).filter(|(_, program, _)| *program != AS_CALLED) {
            let path = exec::resolve(program, self.surroundings().variable("PATH")).map_err(|error| {
                error.hint(format!("install it first, or leave `{class}` out of what is granted: `--only CLASS,…`"))
            })?;
            if pin && sha256.is_none() {
                *sha256 = Some(exec::digest(&path)?);
            }
            *program = path.display().to_string();
        }
        Ok(granted)
    }

    /// A folder of the user's choice, absolute.
    fn existing_folder(&self, folder: &Path) -> Result<String, Error> {
        let path = absolute(&self.surroundings().cwd, folder);
        let shown = path.display().to_string();
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => Ok(shown),
            Ok(_) => Err(Error::new(code::INVALID, OPERATION, "it is not a folder")
                .subject(shown)
                .hint("give a folder for the root: `--root NAME=FOLDER`")),
            Err(error) => Err(Error::io(OPERATION, shown, &error).hint("create the folder first")),
        }
    }

    /// Removes components that no entry names any more. What cannot be removed is left for the next time.
    pub(super) fn sweep_components(&self) -> Result<(), Error> {
        self.update_plugins(|lock| {
            let Ok(entries) = std::fs::read_dir(self.layout().components()) else { return Ok(()) };
            for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                if !lock.plugins.iter().any(|entry| entry.sha256 == stem) {
                    drop(std::fs::remove_file(&path));
                }
            }
            Ok(())
        })
    }

    /// An entry for a plugin that is built in, which so far had all that it asks for.
    pub(super) fn entry_of_built_in(&self, inspection: &Inspection) -> Entry {
        let manifest = &inspection.manifest;
        Entry {
            name: manifest.name.clone(),
            kind: manifest.kind,
            version: manifest.version.clone(),
            sha256: inspection.digest.clone(),
            source: BUILT_IN.to_owned(),
            added_unix_ms: now_ms(),
            roots: BTreeMap::new(),
            granted: manifest.capabilities.clone().into(),
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
