//! The agent in a sandbox, whichever it has: pitcher, which speaks over a WebSocket, or Pint, which speaks over HTTP.

use std::time::Duration;

use pcoder_sdk::host::{Input, ProviderHost, Stdio};
use pcoder_sdk::{Result, TerminalSize};

use crate::files::transfer;
use crate::{pint, pitcher};

/// Something happened to a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Output {
        shell: String,
        text: String,
    },
    /// Its command has ended; the code is missing where nobody knows it.
    Exit {
        shell: String,
        code: Option<i32>,
    },
    /// Somebody ended it.
    Terminated {
        shell: String,
    },
}

/// A shell that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Started {
    pub(crate) id: String,
    /// It has ended already; with its code, where that is known.
    pub(crate) ended: Option<Option<i32>>,
}

/// What is waited for beside the agent.
#[derive(Default)]
pub(crate) struct Beside<'a, 'b> {
    pub(crate) input: Option<&'a mut Input<'b>>,
    pub(crate) terminal: Option<Stdio<'b>>,
}

/// What there is at a path. Links are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file of this many bytes.
    File(u64),
    Folder,
}

/// What goes into a file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content<'c> {
    /// A script: a secret in it must not be able to end the quotes that it stands in, which the host looks after.
    Script(&'c str),
    Bytes(&'c [u8]),
}

/// The agent of one sandbox.
pub(crate) enum Agent<'a> {
    Pitcher(pitcher::Agent<'a>),
    Pint(pint::Agent<'a>),
}

macro_rules! either {
    ($self:expr, $agent:ident => $do:expr) => {
        match $self {
            Agent::Pitcher($agent) => $do,
            Agent::Pint($agent) => $do,
        }
    };
}

impl<'a> Agent<'a> {
    pub(crate) fn host(&self) -> ProviderHost<'a> {
        either!(self, agent => agent.host)
    }

    pub(crate) fn sandbox(&self) -> &str {
        either!(self, agent => &agent.sandbox)
    }

    /// Whether the connection ended for no reason of the sandbox's, so that another one may do.
    pub(crate) fn is_cut(&self) -> bool {
        either!(self, agent => agent.is_cut())
    }

    /// Takes over from a connection that broke off.
    pub(crate) fn go_on_from(&mut self, before: &Self) {
        if let (Self::Pint(agent), Self::Pint(before)) = (self, before) {
            agent.go_on_from(before);
        }
    }

    /// The next thing that happened to a shell.
    pub(crate) fn event(&mut self) -> Option<Event> {
        either!(self, agent => agent.event())
    }

    /// Takes what has come; or waits for something, for what is beside it, or until the time is over.
    pub(crate) fn turn(&mut self, longest: Duration, beside: Beside<'_, '_>) -> Result<()> {
        either!(self, agent => agent.turn(longest, beside))
    }

    /// Starts a shell that runs this command; with a terminal of this size, if one is looked at.
    pub(crate) fn start_shell(&mut self, command: &str, size: Option<TerminalSize>) -> Result<Started> {
        either!(self, agent => agent.start_shell(command, size))
    }

    /// Gets what a shell of another connection prints from now on.
    pub(crate) fn open_shell(&mut self, shell: &str) -> Result<Started> {
        either!(self, agent => agent.open_shell(shell))
    }

    /// Types into a shell. Where it is gone, that is told apart.
    pub(crate) fn type_in(&mut self, shell: &str, text: &str, size: Option<TerminalSize>) -> Result<()> {
        match self {
            Self::Pitcher(agent) => {
                let id = agent.type_in(shell, text, size)?;
                agent.forget(id);
                Ok(())
            }
            Self::Pint(agent) => agent.type_in(shell, text),
        }
    }

    /// Resizes a shell's terminal.
    pub(crate) fn resize(&mut self, shell: &str, size: TerminalSize) -> Result<()> {
        match self {
            Self::Pitcher(agent) => {
                let id = agent.resize(shell, size)?;
                agent.forget(id);
                Ok(())
            }
            Self::Pint(agent) => agent.resize(shell, size),
        }
    }

    /// Ends a shell, whatever runs in it. One that is gone is no error.
    pub(crate) fn terminate(&mut self, shell: &str) -> Result<()> {
        either!(self, agent => agent.terminate(shell))
    }

    /// Runs a helper's command to its end: its code, and what it wrote.
    pub(crate) fn helper(&mut self, command: &str) -> Result<(i32, String)> {
        either!(self, agent => agent.helper(command))
    }

    /// What there is at a path; nothing where nothing is. And whether it is a link.
    pub(crate) fn stat(&mut self, path: &str) -> Result<Option<(Kind, bool)>> {
        either!(self, agent => agent.stat(path))
    }

    /// Reads a small file.
    pub(crate) fn read_file(&mut self, path: &str) -> Result<Vec<u8>> {
        either!(self, agent => agent.read_file(path))
    }

    /// The most content that goes to the agent at once.
    pub(crate) fn piece(&self) -> usize {
        match self {
            Self::Pitcher(_) => pitcher::FRAME,
            Self::Pint(_) => pint::PIECE,
        }
    }

    /// Writes a file of at most [`Agent::piece`] bytes in place.
    pub(crate) fn write_file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        either!(self, agent => agent.write_file(path, content))
    }

    /// Writes several of them.
    pub(crate) fn write_files(&mut self, files: &[(String, Content<'_>)]) -> Result<()> {
        either!(self, agent => agent.write_files(files))
    }

    /// Writes a few harmless characters into a file, without waiting for it where that is possible.
    pub(crate) fn put(&mut self, path: &str, content: &str) -> Result<()> {
        match self {
            Self::Pitcher(agent) => {
                let id = agent.send_file(path, content.as_bytes())?;
                agent.forget(id);
                Ok(())
            }
            // One that is late would take back what came after it.
            Self::Pint(agent) => agent.put(path, content),
        }
    }

    /// Makes a folder; whether it was not there before.
    pub(crate) fn claim(&mut self, path: &str) -> Result<bool> {
        either!(self, agent => agent.claim(path))
    }

    /// Removes a folder with all that it holds; one that is not there is no error.
    pub(crate) fn remove_folder(&mut self, path: &str) -> Result<()> {
        match self {
            Self::Pitcher(agent) => agent.remove(path, true),
            Self::Pint(agent) => agent.remove_folder(path),
        }
    }

    /// Reads a file from a byte on to its end, which is at `size`. `folder` is where its parts may be meanwhile; its name
    /// needs no quoting.
    pub(crate) fn download(
        &mut self,
        folder: &str,
        path: &str,
        from: u64,
        size: u64,
        take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Pitcher(agent) => transfer::download(agent, folder, path, from, size, take),
            Self::Pint(agent) => agent.download(path, from, size, take),
        }
    }
}
