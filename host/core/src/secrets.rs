//! Where secrets come from.

use pcoder_runtime::Error;
use pcoder_runtime::error::code;
use pcoder_runtime::secrets::SecretSource;
use secrecy::SecretString;

use crate::Surroundings;

/// Secrets by the name of an environment variable.
pub(crate) struct FromEnvironment(pub(crate) Surroundings);

impl SecretSource for FromEnvironment {
    fn lookup(&self, name: &str) -> Result<SecretString, Error> {
        self.0.variable(name).and_then(|value| value.to_str()).map(SecretString::from).ok_or_else(|| {
            Error::new(code::UNAUTHENTICATED, "secrets.get", "this secret is not set")
                .subject(name)
                .hint(format!("set the environment variable `{name}`"))
        })
    }
}
