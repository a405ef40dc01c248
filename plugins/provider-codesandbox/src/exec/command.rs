//! A command without a terminal: its output comes while it runs, byte for byte.
//!
//! The files in the sandbox are what counts. Their followers only bring them earlier, and what they did not bring is read
//! in the end.

use std::io::{self, ErrorKind};
use std::time::Duration;

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::{CommandSpec, Error, ExitStatus, Result, code};

use super::feeder::Feeder;
use super::follower::Follower;
use super::place::Place;
use super::scripts::{BEGUN, Stdin};
use super::{Feeding, OPERATION, failed};
use crate::agent::{Beside, Event, Kind};
use crate::config;
use crate::pitcher::FRAME;

/// How often it is looked whether the command has ended, where nobody tells.
const LOOK: Duration = Duration::from_secs(2);
/// How long a follower may bring nothing of what there is.
const STALLED: Duration = Duration::from_secs(5);
/// How long a command that is ended may take.
const ENDING: Duration = Duration::from_secs(60);
/// How often a connection that broke off is made anew.
const RECONNECTS: u32 = 3;

/// One stream of output.
struct Output {
    name: &'static str,
    shell: Option<String>,
    follower: Follower,
    /// How many of its bytes were handed on.
    passed: u64,
    /// Nobody takes it any more.
    closed: bool,
}

impl Output {
    fn new(name: &'static str) -> Self {
        Self { name, shell: None, follower: Follower::default(), passed: 0, closed: false }
    }

    fn pass(&mut self, bytes: &[u8], to: &mut dyn io::Write) -> Result<()> {
        self.passed += bytes.len() as u64;
        if self.closed || bytes.is_empty() {
            return Ok(());
        }
        match to.write_all(bytes).and_then(|()| to.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            result => result.map_err(|error| failed(&error)),
        }
    }
}

/// Where the output goes.
pub(super) struct Streams<'a> {
    pub(super) out: &'a mut dyn io::Write,
    pub(super) err: &'a mut dyn io::Write,
}

/// A command that runs.
pub(super) struct Running<'a> {
    place: Place<'a>,
    /// Its shell; nothing while nobody has said which.
    main: Option<String>,
    out: Output,
    err: Output,
    feeder: Option<Feeder<'a>>,
    /// Its code, once it has ended.
    ended: Option<i32>,
    /// Nobody tells that it has ended: it is to be looked for.
    unwatched: bool,
    looked: Duration,
    stopped: Option<Duration>,
}

impl<'a> Running<'a> {
    /// Starts a command.
    pub(super) fn begin(
        host: ProviderHost<'a>,
        id: &str,
        spec: &CommandSpec,
        feeding: Feeding<'a>,
        follow: bool,
    ) -> Result<Self> {
        let home = config::home(host, OPERATION)?;
        let (stdin, whole, stream) = match feeding {
            Feeding::Whole(input) if input.is_empty() => (Stdin::None, None, None),
            Feeding::Whole(input) => (Stdin::File, Some(input), None),
            Feeding::Stream(input) => (Stdin::Pipe, None, Some(input)),
        };
        // What cannot be a command is refused before anything is done; the folder's name changes nothing.
        super::scripts::Scripts { dir: "/tmp", home: &home, lease: 0 }.script(spec, Some(stdin))?;
        let (place, (out, err, feeder)) = Place::make(host, id, &home, |place| {
            let script = place.scripts().script(spec, Some(stdin))?;
            let run = place.scripts().run(None);
            place.prepare(stdin)?;
            place.write(&script, &run, whole.as_deref())?;
            place.renew()?;
            let (mut out, mut err) = (Output::new("out"), Output::new("err"));
            if follow {
                out.shell = Some(place.follow("out", 0)?);
                err.shell = Some(place.follow("err", 0)?);
            }
            let feeder = match stdin {
                Stdin::Pipe => Some(place.feed()?),
                _ => None,
            };
            Ok((out, err, feeder))
        })?;
        let feeder = stream.zip(feeder).map(|(input, shell)| Feeder::new(input, shell));
        let (ended, looked) = (None, host.clock().monotonic());
        let mut running = Self { place, main: None, out, err, feeder, ended, unwatched: false, looked, stopped: None };
        match running.start() {
            Err(_) if running.place.agent.is_cut() => {
                running.reconnect()?;
                // It may have begun, and then it does not begin again.
                running.unwatched = true;
                let begun = running.place.path("started");
                if running.place.agent.stat(&begun)?.is_none() {
                    running.start().map_err(|error| running.place.abandon(error, false))?;
                }
                Ok(running)
            }
            Err(error) => Err(running.place.abandon(error, false)),
            Ok(()) => Ok(running),
        }
    }

    fn start(&mut self) -> Result<()> {
        let command = format!("exec sh {}", self.place.path("run"));
        let started = self.place.agent.start_shell(&command, None)?;
        self.main = Some(started.id);
        if let Some(code) = started.ended {
            self.end(code)?;
        }
        Ok(())
    }

    /// It has ended. A code that nobody knows is in its file.
    fn end(&mut self, code: Option<i32>) -> Result<()> {
        if self.unwatched && code == Some(BEGUN) {
            // Another shell began it, of which nothing was heard. Its code tells when it has ended.
            self.main = None;
            return Ok(());
        }
        let code = match code {
            Some(code) => code,
            None => self.code()?.ok_or_else(|| {
                Error::new(code::SERVER, OPERATION, "the command ended, and nobody knows how")
                    .subject(self.place.agent.sandbox())
            })?,
        };
        self.ended = Some(code);
        Ok(())
    }

    /// What the command left as its code, where it has ended.
    fn code(&mut self) -> Result<Option<i32>> {
        match self.place.agent.read_file(&self.place.path("rc")) {
            Ok(text) => {
                let code = String::from_utf8_lossy(&text).trim().parse();
                code.map(Some).map_err(|_| {
                    Error::new(code::INTEGRITY, OPERATION, "the command's code cannot be read")
                        .subject(self.place.path("rc"))
                })
            }
            Err(error) if error.code == code::NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for the command and hands its output on.
    pub(super) fn finish(mut self, mut streams: Streams<'_>) -> Result<ExitStatus> {
        let streams = &mut streams;
        let mut reconnects = 0;
        let result = loop {
            match self.attend(streams) {
                Err(_) if self.place.agent.is_cut() && reconnects < RECONNECTS => {
                    reconnects += 1;
                    if let Err(error) = self.reconnect() {
                        break Err(error);
                    }
                }
                result => break result,
            }
        };
        let has_ended = self.ended.is_some();
        let code = result.map_err(|error| self.place.abandon(error, has_ended))?;
        self.place.close();
        Ok(ExitStatus::Exited(code))
    }

    fn reconnect(&mut self) -> Result<()> {
        self.place.reconnect()?;
        self.unwatched = true;
        for output in [&mut self.out, &mut self.err] {
            if let Some(shell) = output.shell.take() {
                self.place.terminate(&shell);
                output.shell = Some(self.place.follow(output.name, output.passed)?);
                output.follower = Follower::default();
            }
        }
        match &mut self.feeder {
            Some(feeder) => feeder.reconnected(&mut self.place),
            None => Ok(()),
        }
    }

    fn attend(&mut self, streams: &mut Streams<'_>) -> Result<i32> {
        let clock = self.place.agent.host().clock();
        let code = loop {
            self.events(streams)?;
            let now = clock.monotonic();
            if (self.out.closed || self.err.closed) && self.stopped.is_none() {
                // As a pipe that nobody reads: who writes into it ends.
                self.stopped = Some(now);
                self.place.stop()?;
            }
            if self.unwatched && self.ended.is_none() && now.saturating_sub(self.looked) >= LOOK {
                self.looked = now;
                self.ended = self.code()?;
            }
            if let Some(code) = self.ended {
                break code;
            }
            if self.stopped.is_some_and(|at| now.saturating_sub(at) > ENDING) {
                let message = "the command was ended, because nobody takes its output, and goes on";
                return Err(Error::new(code::TIMEOUT, OPERATION, message).subject(self.place.agent.sandbox()));
            }
            if self.stopped.is_none() {
                self.place.renew()?;
            }
            if let Some(feeder) = &mut self.feeder {
                feeder.pump(&mut self.place)?;
            }
            let input = self.feeder.as_mut().filter(|feeder| feeder.is_hungry()).map(|feeder| &mut feeder.input);
            self.place.agent.turn(LOOK, Beside { input, terminal: None })?;
        };
        self.rest(true, streams)?;
        self.rest(false, streams)?;
        Ok(code)
    }

    /// Hands on what the followers bring, and notes what else is told.
    fn events(&mut self, streams: &mut Streams<'_>) -> Result<()> {
        while let Some(event) = self.place.agent.event() {
            let (Event::Output { shell, .. } | Event::Exit { shell, .. } | Event::Terminated { shell }) = &event;
            let shell = Some(shell.as_str());
            if shell == self.main.as_deref() {
                match event {
                    Event::Output { .. } => {}
                    Event::Exit { code, .. } => self.end(code)?,
                    Event::Terminated { .. } => {
                        return Err(Error::new(code::PROCESS, OPERATION, "somebody ended the command's shell")
                            .subject(self.place.agent.sandbox()));
                    }
                }
            } else if shell == self.out.shell.as_deref() {
                followed(&mut self.out, event, streams.out)?;
            } else if shell == self.err.shell.as_deref() {
                followed(&mut self.err, event, streams.err)?;
            } else if let Some(feeder) = self.feeder.as_mut().filter(|feeder| shell == Some(&feeder.shell)) {
                match event {
                    Event::Output { text, .. } => feeder.printed(&text),
                    Event::Exit { .. } | Event::Terminated { .. } => feeder.gone(),
                }
            }
        }
        Ok(())
    }

    /// Waits until a follower has brought all, or brings nothing more. A large output is not read from its beginning if
    /// its end is on the way.
    fn await_follower(&mut self, of_out: bool, size: u64, streams: &mut Streams<'_>) -> Result<()> {
        let clock = self.place.agent.host().clock();
        let mut moved = (clock.monotonic(), 0);
        loop {
            self.events(streams)?;
            let output = if of_out { &self.out } else { &self.err };
            if output.passed != moved.1 {
                moved = (clock.monotonic(), output.passed);
            }
            let stalled = clock.monotonic().saturating_sub(moved.0) > STALLED;
            if output.passed >= size || output.shell.is_none() || output.follower.is_broken() || stalled {
                return Ok(());
            }
            self.place.agent.turn(STALLED, Beside::default())?;
        }
    }

    /// Hands on what is left of an output that has ended.
    fn rest(&mut self, of_out: bool, streams: &mut Streams<'_>) -> Result<()> {
        let path = self.place.path(if of_out { "out" } else { "err" });
        let size = match self.place.agent.stat(&path)? {
            Some((Kind::File(size), _)) => size,
            _ => return Err(Error::new(code::INTEGRITY, OPERATION, "the command's output is gone").subject(path)),
        };
        if size > FRAME as u64 {
            self.await_follower(of_out, size, streams)?;
        }
        let parts = self.place.path("parts");
        let (output, to) = match of_out {
            true => (&mut self.out, &mut *streams.out),
            false => (&mut self.err, &mut *streams.err),
        };
        if output.passed < size && !output.closed {
            self.place.agent.download(&parts, &path, output.passed, size, |bytes| output.pass(bytes, to))?;
        }
        Ok(())
    }
}

fn followed(output: &mut Output, event: Event, to: &mut dyn io::Write) -> Result<()> {
    match event {
        Event::Output { text, .. } => {
            let bytes = output.follower.push(&text);
            output.pass(&bytes, to)
        }
        // What it did not bring is read in the end.
        Event::Exit { .. } | Event::Terminated { .. } => {
            output.shell = None;
            Ok(())
        }
    }
}
