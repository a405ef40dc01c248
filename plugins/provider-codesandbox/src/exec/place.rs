//! A command's folder in the sandbox, from its making to its end.

use std::time::Duration;

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::{Error, Level, Result, code, text};
use serde_json::json;

use super::OPERATION;
use super::scripts::{ABORT, STOP, Script, Scripts, Stdin};
use crate::agent::{Agent, Content};
use crate::session;

/// After how long without a word from here the command ends, in seconds. It may wait that long for who takes its output.
const LEASE: u32 = 90;
/// How often a word is sent.
const RENEW: Duration = Duration::from_secs(10);

/// The folder, and the connection to the agent of its sandbox.
pub(super) struct Place<'a> {
    pub(super) agent: Agent<'a>,
    pub(super) dir: String,
    home: String,
    renewed: Duration,
    leases: u64,
    /// The helpers' shells.
    shells: Vec<String>,
    /// The connection broke off: there may be helpers of which nothing was heard.
    broken: bool,
    /// The folder of an attempt before, which something that was late may have made again.
    left: Option<String>,
}

impl<'a> Place<'a> {
    /// Makes one with what `fill` puts there; in a new one if the connection breaks off meanwhile, because nothing has
    /// run yet.
    pub(super) fn make<T>(
        host: ProviderHost<'a>,
        id: &str,
        home: &str,
        mut fill: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<(Self, T)> {
        let mut left: Option<String> = None;
        loop {
            let (agent, _) = session::open(host, OPERATION, id, &json!({}))?;
            let dir = format!("/tmp/pcoder-{:016x}", host.random().bits());
            let (home, renewed, shells) = (home.to_owned(), Duration::ZERO, Vec::new());
            let mut place = Self { agent, dir, home, renewed, leases: 0, shells, broken: false, left: left.clone() };
            if let Some(left) = &left {
                place.agent.helper(&Scripts::sweep(left))?;
            }
            match fill(&mut place) {
                Ok(filled) => return Ok((place, filled)),
                Err(_) if place.agent.is_cut() && left.is_none() => left = Some(place.dir),
                Err(error) => {
                    place.close();
                    return Err(error);
                }
            }
        }
    }

    pub(super) fn scripts(&self) -> Scripts<'_> {
        Scripts { dir: &self.dir, home: &self.home, lease: LEASE }
    }

    pub(super) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }

    /// Makes the folder.
    pub(super) fn prepare(&mut self, stdin: Stdin) -> Result<()> {
        let command = self.scripts().prepare(stdin);
        match self.agent.helper(&command)? {
            (0, _) => Ok(()),
            (_, said) => {
                let said = text::tail(said.as_bytes(), 1, 200);
                let message = format!("no folder for the command could be made in the sandbox: {said}");
                Err(Error::new(code::PROCESS, OPERATION, message).subject(&self.dir))
            }
        }
    }

    /// Writes the command's files.
    pub(super) fn write(&mut self, script: &Script, run: &str, input: Option<&[u8]>) -> Result<()> {
        let mut files =
            vec![(self.path("script"), Content::Script(&script.script)), (self.path("run"), Content::Script(run))];
        files.extend(script.user.as_deref().map(|user| (self.path("user"), Content::Script(user))));
        files.extend(input.map(|input| (self.path("input"), Content::Bytes(input))));
        self.agent.write_files(&files)
    }

    /// Says that somebody waits for the command, where it is time to.
    pub(super) fn renew(&mut self) -> Result<()> {
        let now = self.agent.host().clock().monotonic();
        if self.leases > 0 && now.saturating_sub(self.renewed) < RENEW {
            return Ok(());
        }
        self.renewed = now;
        self.leases += 1;
        let lease = self.leases.to_string();
        self.lease(&lease)
    }

    fn lease(&mut self, lease: &str) -> Result<()> {
        self.agent.put(&self.path("lease"), lease)
    }

    /// Ends the command. How it ended is told as if it had ended by itself.
    pub(super) fn stop(&mut self) -> Result<()> {
        // No later word takes it back.
        self.renewed = Duration::MAX;
        self.lease(STOP)
    }

    /// Connects anew.
    pub(super) fn reconnect(&mut self) -> Result<()> {
        self.broken = true;
        let id = self.agent.sandbox().to_owned();
        let agent = session::reopen(OPERATION, &self.agent)?;
        self.agent = agent;
        self.agent.host().log().log(Level::Warn, &format!("{id}: the connection broke off, and was made anew"));
        Ok(())
    }

    /// Leaves the command, which is ended where it was begun.
    pub(super) fn abandon(&mut self, error: Error, has_ended: bool) -> Error {
        if self.agent.is_cut() {
            // Its guard ends it.
            return error;
        }
        // Who makes this folder runs the command: if that is this here, nobody does.
        let begun = self.path("started");
        let left = self.agent.write_file(&self.path("lease"), ABORT.as_bytes()).and_then(|()| self.agent.claim(&begun));
        match left {
            // The guard is gone, or never comes.
            Ok(claimed) if has_ended || claimed => self.close(),
            Ok(_) => {}
            Err(left) => self.note(&left),
        }
        error
    }

    /// Ends what helped the command and removes the folder. Whether that works decides nothing.
    pub(super) fn close(&mut self) {
        for shell in std::mem::take(&mut self.shells) {
            self.terminate(&shell);
        }
        let mut swept = match self.broken {
            true => self.sweep(),
            false => self.agent.remove_folder(&self.dir),
        };
        if self.agent.is_cut() {
            swept = self.reconnect().and_then(|()| self.sweep());
        }
        let left = self.left.take().map(|left| self.agent.helper(&Scripts::sweep(&left)).map(drop));
        for error in [swept.err(), left.and_then(Result::err)].into_iter().flatten() {
            self.note(&error);
        }
    }

    fn sweep(&mut self) -> Result<()> {
        self.agent.helper(&Scripts::sweep(&self.dir)).map(drop)
    }

    /// Ends a helper's shell. Whether that works decides nothing.
    pub(super) fn terminate(&mut self, shell: &str) {
        if let Err(error) = self.agent.terminate(shell) {
            self.note(&error);
        }
    }

    fn note(&self, error: &Error) {
        self.agent.host().log().log(Level::Debug, &error.line());
    }

    /// Starts a follower of one of the files.
    pub(super) fn follow(&mut self, name: &str, from: u64) -> Result<String> {
        let command = self.scripts().follow(name, from);
        self.assist(&command)
    }

    /// Starts the shell that feeds the command's pipe.
    pub(super) fn feed(&mut self) -> Result<String> {
        let command = self.scripts().feed();
        self.assist(&command)
    }

    fn assist(&mut self, command: &str) -> Result<String> {
        let shell = self.agent.start_shell(command, None)?.id;
        self.shells.push(shell.clone());
        Ok(shell)
    }
}
