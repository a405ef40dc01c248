//! `secret …`.

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;

use pcoder_core::Pcoder;
use pcoder_core::runtime::Error;
use pcoder_core::runtime::error::code;
use pcoder_core::secret_store::{self as store, Reference};
use secrecy::SecretString;
use serde_json::json;

use crate::args::Secret;
use crate::output::{note, print_json};

const OPERATION: &str = "secret";
/// As much as any reference may lead to.
const LONGEST: u64 = 64 << 10;

pub(crate) async fn secret(pcoder: &Pcoder, command: Secret) -> Result<ExitCode, Error> {
    match command {
        Secret::Set(it) => {
            let reference = keyring_reference(&it.name)?;
            store::keyring_set(&it.name, typed(&it.name)?).await.map_err(|error| failed(&error))?;
            done(it.json.json, "stored", &reference)?;
        }
        Secret::Remove(it) => {
            let reference = keyring_reference(&it.name)?;
            let removed = store::keyring_remove(&it.name).await.map_err(|error| failed(&error))?;
            if !removed {
                return Err(Error::new(code::NOT_FOUND, OPERATION, "the keyring has no such secret")
                    .subject(reference)
                    .hint("`pcoder secret set NAME` puts one there"));
            }
            done(it.json.json, "removed", &reference)?;
        }
        Secret::Check(it) => {
            let reference: Reference = it.reference.parse().map_err(|error| failed(&error))?;
            pcoder.resolve(&reference).await?;
            let shown = reference.subject();
            let warning = pcoder.secrets().warning(&reference);
            if it.json.json {
                let warning = warning.as_ref().map(ToString::to_string);
                print_json(&json!({ "reference": shown, "has_value": true, "warning": warning }))?;
            } else {
                note(&format!("{shown} leads to a value"));
                if let Some(warning) = warning {
                    note(&format!("warning: {warning}\nhint: {}", warning.hint()));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn done(as_json: bool, what: &str, reference: &str) -> Result<(), Error> {
    if as_json {
        return print_json(&json!({ what: reference }));
    }
    note(&format!("{what} {reference}"));
    Ok(())
}

fn keyring_reference(name: &str) -> Result<String, Error> {
    let reference: Reference = format!("keyring:{name}").parse().map_err(|error| failed(&error))?;
    Ok(reference.to_string())
}

fn failed(error: &store::Error) -> Error {
    let code = match error {
        store::Error::NoReference | store::Error::UnknownSource { .. } | store::Error::Malformed { .. } => {
            code::INVALID
        }
        _ => code::UNAUTHENTICATED,
    };
    let plain = Error::new(code, OPERATION, error.to_string()).hint(error.hint());
    match error.subject() {
        Some(subject) => plain.subject(subject),
        None => plain,
    }
}

/// From a person, who does not see it, or from standard input, without its last line end.
fn typed(name: &str) -> Result<SecretString, Error> {
    let unreadable = |error: std::io::Error| Error::io(OPERATION, "standard input", &error);
    let text = if std::io::stdin().is_terminal() {
        let prompt = format!("The value of {name}");
        dialoguer::Password::new().with_prompt(prompt).interact().map_err(|error| match error {
            dialoguer::Error::IO(error) => unreadable(error),
        })?
    } else {
        let mut text = String::new();
        std::io::stdin().lock().take(LONGEST + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > LONGEST {
            return Err(Error::new(code::INVALID, OPERATION, "a secret is at most 64 KiB")
                .subject(name)
                .hint("check that it is the secret: none is that long"));
        }
        let line = text.strip_suffix('\n').unwrap_or(&text);
        line.strip_suffix('\r').unwrap_or(line).to_owned()
    };
    if text.is_empty() {
        return Err(Error::new(code::INVALID, OPERATION, "there is no value on standard input")
            .subject(name)
            .hint("`printf %s \"$VALUE\" | pcoder secret set NAME`, or type it in a terminal"));
    }
    Ok(SecretString::from(text))
}
