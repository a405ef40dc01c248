//! Grants, changed afterwards: more, fewer, none.

use pcoder_runtime::capability::Class;
use pcoder_runtime::error::code;
use pcoder_runtime::inspect::Inspection;
use pcoder_runtime::manifest::Capabilities;
use pcoder_runtime::{Error, text};

use super::extent::add_services;
use super::lock::{Entry, PluginsLock};
use super::{beyond, within};
use crate::Pcoder;
use crate::errors::from_state;

/// Every class, in the order in which they are shown.
pub const CLASSES: [Class; 6] = [Class::Exec, Class::Service, Class::Files, Class::Net, Class::Secrets, Class::Target];

/// The classes by their names.
///
/// # Errors
/// `invalid`, with the names that there are.
pub fn classes(names: &[String]) -> Result<Vec<Class>, Error> {
    let class = |name: &String| {
        CLASSES.into_iter().find(|class| class.as_str() == name).ok_or_else(|| {
            Error::new(code::INVALID, "plugin.grant", "there is no such class of capability")
                .subject(text::for_people(name, 80))
                .hint("the classes are exec, service, files, net, secrets and target")
        })
    };
    names.iter().map(class).collect()
}

/// What a plugin asks for and has not been granted, of the bytes that were looked at: whoever agrees agrees to this.
#[derive(Clone, Debug)]
pub struct NotGranted {
    name: String,
    inspection: Inspection,
    added: bool,
    /// What would be granted. There may be nothing.
    pub capabilities: Capabilities,
}

/// The part of these capabilities that is of these classes.
pub fn of_classes(all: &Capabilities, classes: &[Class]) -> Capabilities {
    let has = |class| classes.contains(&class);
    Capabilities {
        exec: if has(Class::Exec) { all.exec.clone() } else { Vec::new() },
        service: if has(Class::Service) { all.service.clone() } else { Vec::new() },
        files: if has(Class::Files) { all.files.clone() } else { Vec::new() },
        net: if has(Class::Net) { all.net.clone() } else { Vec::new() },
        secrets: if has(Class::Secrets) { all.secrets.clone() } else { Vec::new() },
        target: if has(Class::Target) { all.target.clone() } else { None },
    }
}

impl Pcoder {
    /// A plugin that was added, or is built in, with what it asks for.
    ///
    /// # Errors
    /// `not-found`; `integrity` when the bytes that were added are not there any more.
    pub fn known_plugin(&self, name: &str) -> Result<(Inspection, Option<Entry>), Error> {
        let entry = self.plugins_lock()?.find(name).cloned();
        if let Some(built_in) = self.inspect_built_in(name) {
            return Ok((built_in?, entry));
        }
        match entry {
            Some(entry) => Ok((self.inspect(&self.component_of(&entry)?)?, Some(entry))),
            None => Err(Error::new(code::NOT_FOUND, "plugin", "there is no plugin of that name")
                .subject(text::for_people(name, 80))
                .hint("`pcoder plugin list` shows the plugins; `pcoder plugin add FILE` adds one")),
        }
    }

    /// What a plugin asks for in these classes and has not been granted.
    ///
    /// # Errors
    /// As [`Pcoder::known_plugin`].
    pub fn not_granted(&self, name: &str, classes: &[Class]) -> Result<NotGranted, Error> {
        let (inspection, entry) = self.known_plugin(name)?;
        let asked = of_classes(&inspection.manifest.capabilities, classes);
        let added = entry.as_ref().is_some_and(|entry| !entry.is_built_in());
        let capabilities = match entry {
            Some(entry) => beyond(&asked, &entry.granted.into()),
            None => Capabilities::default(),
        };
        Ok(NotGranted { name: name.to_owned(), inspection, added, capabilities })
    }

    /// Grants what was shown to somebody who agreed to it. Programs become the paths that their names lead to now.
    ///
    /// # Errors
    /// `not-found` for a program that is not there; `conflict` when the plugin is another one now, or gone.
    pub fn grant(&self, agreed: NotGranted, pin: bool) -> Result<Capabilities, Error> {
        let NotGranted { name, inspection, added, capabilities } = agreed;
        let changed = || {
            Error::new(code::CONFLICT, "plugin.grant", "another pcoder changed this plugin meanwhile")
                .subject(&name)
                .hint("look at it with `pcoder plugin list`, and grant it again")
        };
        let more = self.resolve_programs(capabilities, pin)?;
        self.update_plugins(|lock| {
            // A plugin that is built in has all of it until something is taken away.
            let Some(mut entry) = lock.take(&name) else { return if added { Err(changed()) } else { Ok(()) } };
            let digest = &inspection.digest;
            if entry.sha256 != *digest && !entry.is_built_in() {
                return Err(changed());
            }
            entry.sha256.clone_from(digest);
            let mut granted: Capabilities = entry.granted.clone().into();
            let new = beyond(&more, &granted);
            granted.exec.extend(new.exec);
            add_services(&mut granted.service, new.service);
            granted.files.retain(|it| !new.files.iter().any(|wider| wider.root == it.root));
            granted.files.extend(new.files);
            granted.net.extend(new.net);
            granted.secrets.extend(new.secrets);
            granted.target = granted.target.or(new.target);
            // A built-in plugin that has everything again needs no entry.
            let whole = beyond(&inspection.manifest.capabilities, &granted) == Capabilities::default();
            if !(entry.is_built_in() && whole) {
                entry.granted = granted.into();
                lock.put(entry);
            }
            Ok(())
        })?;
        Ok(more)
    }

    /// Takes everything in these classes away from a plugin, and says what that was.
    ///
    /// # Errors
    /// As [`Pcoder::known_plugin`], and `io`.
    pub async fn revoke(&self, name: &str, classes: &[Class]) -> Result<Capabilities, Error> {
        let (inspection, _) = self.known_plugin(name)?;
        let mut taken = Capabilities::default();
        self.update_plugins(|lock| {
            let mut entry = match lock.take(name) {
                Some(entry) => entry,
                None => self.entry_of_built_in(&inspection),
            };
            let granted: Capabilities = entry.granted.clone().into();
            taken = of_classes(&granted, classes);
            let rest: Vec<Class> = CLASSES.into_iter().filter(|class| !classes.contains(class)).collect();
            entry.granted = of_classes(&granted, &rest).into();
            lock.put(entry);
            Ok(())
        })?;
        // A plugin that may keep nothing running can end nothing either.
        if classes.contains(&Class::Service) {
            self.end_services(name).await?;
        }
        Ok(taken)
    }

    /// Takes a plugin away, with what was granted to it. Its state stays unless `purge` says otherwise.
    ///
    /// # Errors
    /// `not-found`; `unsupported` for one that is built in; `io`.
    pub async fn remove_plugin(&self, name: &str, purge: bool) -> Result<Entry, Error> {
        if self.bundled_names().any(|it| it == name) {
            return Err(Error::new(code::UNSUPPORTED, "plugin.remove", "it is built in, and stays")
                .subject(name)
                .hint(format!("`pcoder plugin revoke {name}` takes away what it may do")));
        }
        let entry = self.update_plugins(|lock| {
            lock.take(name).ok_or_else(|| {
                Error::new(code::NOT_FOUND, "plugin.remove", "there is no plugin of that name")
                    .subject(text::for_people(name, 80))
                    .hint("`pcoder plugin list` shows the plugins")
            })
        })?;
        self.sweep_components()?;
        // Nobody else would end them, and they may have files open in what is removed next.
        self.end_services(name).await?;
        // What they open is gone, or nobody's any more.
        crate::made_keys::MadeKeys::of(self.layout(), self.surroundings(), name).remove()?;
        if purge {
            let state = self.layout().plugin_state(name);
            match std::fs::remove_dir_all(&state) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("plugin.remove", state.display().to_string(), &error));
                }
                _ => {}
            }
        }
        Ok(entry)
    }

    /// What a plugin may do: what it asks for, narrowed to what was granted.
    ///
    /// # Errors
    /// As [`Pcoder::known_plugin`].
    pub fn granted_to(&self, name: &str) -> Result<Capabilities, Error> {
        let (inspection, entry) = self.known_plugin(name)?;
        let asked = inspection.manifest.capabilities;
        Ok(match entry {
            Some(entry) => within(&entry.granted.into(), &asked),
            None => asked,
        })
    }

    /// Changes `plugins.lock`, alone.
    pub(super) fn update_plugins<R>(
        &self,
        change: impl FnOnce(&mut PluginsLock) -> Result<R, Error>,
    ) -> Result<R, Error> {
        struct Either(Error);
        impl From<pcoder_state::Error> for Either {
            fn from(error: pcoder_state::Error) -> Self {
                Self(from_state("plugins.lock", &error))
            }
        }
        self.plugins_file().update(|lock| change(lock).map_err(Either)).map_err(|Either(error)| error)
    }
}
