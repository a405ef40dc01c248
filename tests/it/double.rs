//! Doubles of what stands behind the host: an instance, and a source of secrets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use pcoder_runtime::Error;
use pcoder_runtime::contract::{CommandSpec, ExitStatus, Output, WriteOptions};
use pcoder_runtime::error::code;
use pcoder_runtime::host::stdio::Stdio;
use pcoder_runtime::secrets::{Broker, Carried, SecretSource};
use pcoder_runtime::target::Target;
use secrecy::SecretString;

/// An instance that remembers what was asked of it, and the files that were written.
#[derive(Default)]
pub struct Instance {
    calls: Mutex<Vec<String>>,
    files: Mutex<HashMap<String, Vec<u8>>>,
}

impl Instance {
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().expect("calls").clone()
    }

    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        self.files.lock().expect("files").get(path).cloned()
    }

    fn note<T>(&self, verb: &str, result: T) -> Result<T, Error> {
        self.calls.lock().expect("calls").push(verb.to_owned());
        Ok(result)
    }
}

#[async_trait::async_trait]
impl Target for Instance {
    async fn home_dir(&self) -> Result<String, Error> {
        self.note("home-dir", "/home".to_owned())
    }
    async fn run(&self, _: CommandSpec, _: Vec<u8>, _: u64, _: Carried) -> Result<Output, Error> {
        self.note("run", Output { status: ExitStatus::Exited(0), stdout: Vec::new(), stderr: Vec::new() })
    }
    async fn exec(&self, _: CommandSpec, _: Stdio, _: Carried) -> Result<ExitStatus, Error> {
        self.note("exec", ExitStatus::Exited(0))
    }
    async fn read_file(&self, path: String) -> Result<Vec<u8>, Error> {
        let content = self.file(&path).unwrap_or_default();
        self.note("read-file", content)
    }
    async fn write_file(
        &self,
        path: String,
        content: Vec<u8>,
        _: WriteOptions,
        atomic: bool,
        carried: Carried,
    ) -> Result<(), Error> {
        let content = carried.filled(&content)?;
        self.files.lock().expect("files").insert(path, content);
        self.note(if atomic { "write-file-atomic" } else { "write-file" }, ())
    }
    async fn file_exists(&self, _: String) -> Result<bool, Error> {
        self.note("file-exists", false)
    }
    async fn create_directory(&self, _: String, _: Option<u32>) -> Result<(), Error> {
        self.note("create-directory", ())
    }
    async fn delete_file(&self, _: String) -> Result<(), Error> {
        self.note("delete-file", ())
    }
    async fn delete_directory(&self, _: String) -> Result<(), Error> {
        self.note("delete-directory", ())
    }
}

struct Known(HashMap<String, String>);

impl SecretSource for Known {
    fn lookup(&self, name: &str) -> Result<SecretString, Error> {
        self.0
            .get(name)
            .map(|value| SecretString::from(value.clone()))
            .ok_or_else(|| Error::new(code::NOT_FOUND, "secrets.get", "it is not set").subject(name))
    }
}

/// A broker for one call that knows these secrets.
pub fn secrets(known: &[(&str, &str)]) -> Arc<Broker> {
    let known = known.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    Arc::new(Broker::new(Arc::new(Known(known))))
}
