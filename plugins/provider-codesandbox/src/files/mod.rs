//! Files of a sandbox: contents over the agent, modes by a command; with Pint all of it by commands. Everything here may
//! be done twice without harm.

pub(crate) mod transfer;

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::{Error, Result, WriteOptions, code, path, shell};

use crate::agent::{Agent as Either, Kind};
use crate::config::{HOME, home};
use crate::pitcher::Agent;
use crate::session::with_agent;

/// One path of one sandbox, for one operation of the contract.
pub(crate) struct Files<'a> {
    host: ProviderHost<'a>,
    id: &'a str,
    operation: &'static str,
    home: String,
    /// Absolute.
    path: String,
    /// Where the parts of a large content are meanwhile.
    parts: String,
    /// Where a new content is before it is in its place. The same at every attempt, so that none leaves something.
    beside: String,
}

impl<'a> Files<'a> {
    /// A path that is absolute or begins with `~/`.
    pub(crate) fn new(host: ProviderHost<'a>, id: &'a str, operation: &'static str, path: &str) -> Result<Self> {
        let home = home(host, operation)?;
        let path = path::absolute(path, &home).map_err(|error| error.during(operation))?;
        let parts = format!("/tmp/pcoder-{:016x}", host.random().bits());
        let folder = path::parent(&path).trim_end_matches('/');
        let beside = format!("{folder}/.pcoder-{:016x}", host.random().bits());
        Ok(Self { host, id, operation, home, path, parts, beside })
    }

    fn with<T>(&self, work: impl FnMut(&mut Either<'a>) -> Result<T>) -> Result<T> {
        // An error is about the path; where it is about more, it says so.
        with_agent(self.host, self.operation, self.id, work).map_err(|error| match error.subject.as_deref() {
            Some(subject) if subject != self.id || error.code == code::UNAVAILABLE => error,
            _ => error.subject(&self.path),
        })
    }

    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        self.with(|agent| match agent {
            Either::Pint(agent) => agent.files(|files| files.read(&self.path)),
            Either::Pitcher(agent) => {
                let size = agent.size(&self.path)?;
                let mut content = Vec::new();
                transfer::download(agent, &self.parts, &self.path, 0, size, |part| {
                    content.extend_from_slice(part);
                    Ok(())
                })?;
                Ok(content)
            }
        })
    }

    /// Writes in place. Nobody else reads a file that gets a mode of its own before it has it.
    pub(crate) fn write(&self, content: &[u8], options: &WriteOptions) -> Result<()> {
        self.with(|agent| match agent {
            Either::Pint(agent) => agent.files(|files| files.write(&self.path, content, options.clone())),
            Either::Pitcher(agent) => {
                self.refuse_folder(agent)?;
                self.parents(agent, options)?;
                if options.mode.is_some() {
                    self.create_private(agent, &self.path)?;
                }
                self.fill(agent, &self.path, content, options)
            }
        })
    }

    /// Writes a file beside, gives it its mode, looks whether it is whole, and puts it in the place of the old one.
    pub(crate) fn write_atomic(&self, content: &[u8], options: &WriteOptions) -> Result<()> {
        self.with(|agent| match agent {
            Either::Pint(agent) => agent.files(|files| files.write_atomic(&self.path, content, options.clone())),
            Either::Pitcher(agent) => self.replace(agent, content, options),
        })
    }

    fn replace(&self, agent: &mut Agent<'_>, content: &[u8], options: &WriteOptions) -> Result<()> {
        let beside = &self.beside;
        self.refuse_folder(agent)?;
        self.parents(agent, options)?;
        let written = (|| {
            if options.mode.is_some() {
                self.create_private(agent, beside)?;
            }
            self.fill(agent, beside, content, options)?;
            agent.rename(beside, &self.path)
        })();
        if written.is_err() && !agent.is_cut() {
            // What failed is what counts, not whether this worked too.
            drop(agent.remove(beside, false));
        }
        written
    }

    fn refuse_folder(&self, agent: &mut Agent<'_>) -> Result<()> {
        match agent.stat(&self.path)? {
            Some((Kind::Folder, _)) => {
                Err(Error::invalid(self.operation, "this is a folder, not a file").subject(&self.path))
            }
            _ => Ok(()),
        }
    }

    fn parents(&self, agent: &mut Agent<'_>, options: &WriteOptions) -> Result<()> {
        let folder = path::parent(&self.path);
        if options.create_parents && folder != "/" { make_folders(agent, folder) } else { Ok(()) }
    }

    fn create_private(&self, agent: &mut Agent<'_>, file: &str) -> Result<()> {
        let word = shell::quote(file);
        transfer::done(agent, &self.path, &format!("umask 077 && : >{word} && chmod u=rw,go= {word}"))
    }

    /// Writes the content, then owner and mode, and looks whether all of it has arrived.
    fn fill(&self, agent: &mut Agent<'_>, file: &str, content: &[u8], options: &WriteOptions) -> Result<()> {
        let owner = options.chown_operand(self.operation)?;
        transfer::upload(agent, &self.parts, file, content)?;
        let word = shell::quote(file);
        // A file that changes hands loses its setuid bits.
        let steps = [
            owner.map(|owner| format!("chown {} {word}", shell::quote(owner))),
            options.mode.map(|mode| format!("chmod {:o} {word}", mode & 0o7777)),
        ];
        let steps = steps.into_iter().flatten().collect::<Vec<_>>().join(" && ");
        if !steps.is_empty() {
            transfer::done(agent, &self.path, &steps)?;
        }
        let size = self.host.secrets().filled_size(content);
        if agent.size(file)? == size {
            return Ok(());
        }
        Err(Error::new(code::INTEGRITY, self.operation, "the file did not arrive whole").subject(&self.path))
    }

    pub(crate) fn exists(&self) -> Result<bool> {
        self.with(|agent| agent.stat(&self.path).map(|found| found.is_some()))
    }

    pub(crate) fn create_directory(&self, mode: Option<u32>) -> Result<()> {
        self.with(|agent| match agent {
            Either::Pint(agent) => agent.files(|files| files.create_directory(&self.path, mode)),
            Either::Pitcher(agent) => {
                if self.path != "/" {
                    make_folders(agent, &self.path)?;
                }
                match mode {
                    Some(mode) => {
                        let command = format!("chmod {:o} {}", mode & 0o7777, shell::quote(&self.path));
                        transfer::done(agent, &self.path, &command)
                    }
                    None => Ok(()),
                }
            }
        })
    }

    pub(crate) fn delete_file(&self) -> Result<()> {
        self.with(|agent| match agent.stat(&self.path)? {
            Some((Kind::Folder, false)) => {
                Err(Error::invalid(self.operation, "this is a folder, not a file").subject(&self.path))
            }
            // A link to nothing is not found, and is removed.
            _ => match agent {
                Either::Pint(agent) => agent.files(|files| files.delete_file(&self.path)),
                Either::Pitcher(agent) => agent.remove(&self.path, false),
            },
        })
    }

    /// Removes a folder with all that it holds. The root, the home and the workspace are refused.
    pub(crate) fn delete_directory(&self) -> Result<()> {
        if self.path == "/" || self.path == self.home || self.path == HOME {
            return Err(Error::invalid(self.operation, "this folder is not removed").subject(&self.path));
        }
        self.with(|agent| agent.remove_folder(&self.path))
    }
}

/// Makes a folder and the missing ones above it; one that is there is no error.
fn make_folders(agent: &mut Agent<'_>, folder: &str) -> Result<()> {
    match agent.make_folders(folder) {
        Err(error) if error.code == code::ALREADY_EXISTS => match agent.stat(folder)? {
            Some((Kind::Folder, _)) => Ok(()),
            _ => Err(error),
        },
        result => result,
    }
}
