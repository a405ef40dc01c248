//! Where secrets come from.

use std::sync::Arc;

use pcoder_runtime::Error;
use pcoder_runtime::error::code;
use pcoder_runtime::secrets::SecretSource;
use pcoder_secrets::{Reference, Resolver};
use secrecy::SecretString;

use crate::Pcoder;

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
        Arc::new(ByName { references: self.secret_references(), resolver: self.secrets() })
    }
}

/// Secrets by name, as plugins ask for them.
struct ByName {
    references: Result<std::collections::BTreeMap<String, Reference>, Error>,
    resolver: Resolver,
}

impl SecretSource for ByName {
    fn lookup(&self, name: &str) -> Result<SecretString, Error> {
        const OPERATION: &str = "secrets.get";
        let references = self.references.as_ref().map_err(Clone::clone)?;
        let reference = match references.get(name) {
            Some(reference) => reference.clone(),
            None => format!("env:{name}").parse().map_err(|error| from_secrets(OPERATION, &error))?,
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
