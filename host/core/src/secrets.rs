//! Where secrets come from.

use std::collections::HashMap;
use std::sync::Arc;

use pcoder_runtime::error::code;
use pcoder_runtime::manifest::Made;
use pcoder_runtime::secrets::SecretSource;
use pcoder_runtime::{Error, Plugin};
use pcoder_secrets::{Reference, Resolver};
use secrecy::SecretString;

use crate::Pcoder;
use crate::made_keys::MadeKeys;

/// An error of a secret's source, in the one shape. It holds no value.
pub(crate) fn from_secrets(operation: &'static str, error: &pcoder_secrets::Error) -> Error {
    use pcoder_secrets::Error as Secret;
    let code = match error {
        Secret::NoReference | Secret::UnknownSource { .. } | Secret::Malformed { .. } => code::INVALID,
        _ => code::UNAUTHENTICATED,
    };
    let plain = Error::new(code, operation, error.to_string()).hint(error.hint());
    match error.subject() {
        Some(subject) => plain.subject(subject),
        None => plain,
    }
}

impl Pcoder {
    /// What references are read with: the user's environment and home. Relative paths begin at pcoder's own folder, so
    /// that a file in a portable folder can be named.
    pub fn secrets(&self) -> Resolver {
        let surroundings = self.surroundings();
        // On a fresh machine pcoder's folder is not there yet, and a command must run somewhere.
        let data = &self.layout().data;
        let base = data.ancestors().find(|it| it.is_dir()).unwrap_or(data).to_path_buf();
        Resolver::new(surroundings.environment.clone(), surroundings.home(), base)
    }

    /// The value of a reference.
    ///
    /// # Errors
    /// `unauthenticated` where there is none, with what to do about it.
    pub async fn resolve(&self, reference: &Reference) -> Result<SecretString, Error> {
        self.secrets().resolve(reference).await.map_err(|error| from_secrets("secrets", &error))
    }

    /// Where plugins' secrets come from: as the user's settings say, else the environment.
    pub(crate) fn secret_source(&self) -> Arc<dyn SecretSource> {
        Arc::new(ByName { references: self.secret_references(), resolver: self.secrets(), made: HashMap::new() })
    }

    /// The same with the keys that are made for one plugin.
    pub(crate) fn secret_source_of(&self, plugin: &Plugin) -> Arc<dyn SecretSource> {
        let manifest = plugin.manifest();
        let keys = MadeKeys::of(self.layout(), self.surroundings(), &manifest.name);
        let made = manifest.capabilities.secrets.iter().filter(|it| it.made == Some(Made::SshKey));
        let made = made.map(|it| (it.name.clone(), keys.clone())).collect();
        Arc::new(ByName { references: self.secret_references(), resolver: self.secrets(), made })
    }
}

/// Secrets by name, as plugins ask for them.
struct ByName {
    references: Result<std::collections::BTreeMap<String, Reference>, Error>,
    resolver: Resolver,
    /// Those that are made where their user set none. A variable of that name in the environment is not meant.
    made: HashMap<String, MadeKeys>,
}

impl SecretSource for ByName {
    fn lookup(&self, name: &str) -> Result<SecretString, Error> {
        const OPERATION: &str = "secrets.get";
        let references = self.references.as_ref().map_err(Clone::clone)?;
        let reference = match (references.get(name), self.made.get(name)) {
            (Some(reference), _) => reference.clone(),
            (None, Some(keys)) => return keys.get(name),
            (None, None) => format!("env:{name}").parse().map_err(|error| from_secrets(OPERATION, &error))?,
        };
        let resolver = self.resolver.clone();
        // A plugin waits for it, inside of an async call: another thread, with its own deadlines, does the asking.
        let resolve = move || {
            let thread = std::thread::Builder::new().name("pcoder-secret".into()).spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let failed = |error: std::io::Error| Error::io(OPERATION, "the async runtime", &error);
                let result = runtime.map_err(failed)?.block_on(resolver.resolve(&reference));
                result.map_err(|error| from_secrets(OPERATION, &error))
            });
            let thread = thread.map_err(|error| Error::io(OPERATION, "a thread", &error))?;
            thread.join().unwrap_or_else(|_| Err(Error::new(code::INTERNAL, OPERATION, "the lookup crashed")))
        };
        let threads = tokio::runtime::Handle::try_current().map(|it| it.runtime_flavor());
        let value = match threads {
            Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(resolve),
            _ => resolve(),
        };
        value.map_err(|error| {
            let hint = error.hint.clone().unwrap_or_default();
            Error::new(error.code.clone(), OPERATION, format!("the secret has no value: {}", error.message))
                .subject(name)
                .hint(format!("{hint}; `pcoder config set secrets.{name} REFERENCE` says where it comes from"))
        })
    }
}
