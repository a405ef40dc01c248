//! A command with a terminal, which is the agent's as it is.

use std::time::Duration;

use pcoder_sdk::host::{Piece, ProviderHost, Stdio};
use pcoder_sdk::{CommandSpec, Error, ExitStatus, Result, TerminalSize, code};

use super::place::Place;
use super::scripts::{Scripts, Stdin};
use super::{OPERATION, failed};
use crate::agent::{Beside, Event};
use crate::config;

/// How much of the input goes at once.
const PIECE: usize = 4096;
/// How long the last output may take to come once the command has ended.
const LAST: Duration = Duration::from_secs(2);
const TURN: Duration = Duration::from_secs(2);

/// Runs a command with this terminal.
pub(super) fn run(
    host: ProviderHost<'_>,
    id: &str,
    spec: &CommandSpec,
    stdio: Stdio<'_>,
    size: TerminalSize,
) -> Result<ExitStatus> {
    let home = config::home(host, OPERATION)?;
    Scripts { dir: "/tmp", home: &home, lease: 0 }.script(spec, None)?;
    // A string that terminals do not show (APC, ECMA-48 8.3.2).
    let mark = format!("\x1b_pcoder-{:016x}\x1b\\", host.random().bits());
    let (mut place, ()) = Place::make(host, id, &home, |place| {
        let script = place.scripts().script(spec, None)?;
        let run = place.scripts().run(Some(&mark));
        place.prepare(Stdin::None)?;
        place.write(&script, &run, None)?;
        place.renew()
    })?;
    let mut session = match Session::start(&mut place, stdio, size, &mark) {
        Ok(session) => session,
        Err(error) => return Err(place.abandon(error, false)),
    };
    let mut again = true;
    let result = loop {
        match session.attend(&mut place) {
            Err(_) if place.agent.is_cut() && again => {
                again = false;
                if let Err(error) = session.reconnect(&mut place) {
                    break Err(error);
                }
            }
            result => break result,
        }
    };
    let has_ended = session.ended.is_some();
    let code = result.map_err(|error| place.abandon(error, has_ended))?;
    place.close();
    Ok(ExitStatus::Exited(code))
}

struct Session<'a> {
    stdio: Stdio<'a>,
    input: Option<pcoder_sdk::host::Input<'a>>,
    output: Box<dyn std::io::Write + 'a>,
    shell: String,
    size: TerminalSize,
    /// The beginning of a character that was typed.
    typed: Vec<u8>,
    screen: Screen,
    ended: Option<(i32, Duration)>,
}

impl<'a> Session<'a> {
    fn start(place: &mut Place<'_>, stdio: Stdio<'a>, size: TerminalSize, mark: &str) -> Result<Self> {
        let (input, output) = (stdio.input()?, stdio.stdout()?);
        let command = format!("exec sh {}", place.path("run"));
        let started = place.agent.start_shell(&command, Some(size))?;
        let screen = Screen::new(mark);
        let mut session =
            Self { stdio, input: Some(input), output, shell: started.id, size, typed: Vec::new(), screen, ended: None };
        if let Some(code) = started.ended {
            session.end(place, code)?;
        }
        Ok(session)
    }

    fn end(&mut self, place: &mut Place<'_>, code: Option<i32>) -> Result<()> {
        let unknown = || {
            Error::new(code::SERVER, OPERATION, "the command ended, and nobody knows how")
                .subject(place.agent.sandbox())
        };
        let code = code.ok_or_else(unknown)?;
        self.ended = Some((code, place.agent.host().clock().monotonic()));
        Ok(())
    }

    fn reconnect(&mut self, place: &mut Place<'_>) -> Result<()> {
        place.reconnect()?;
        let started = place.agent.open_shell(&self.shell)?;
        place.agent.resize(&self.shell, self.size)?;
        match started.ended {
            Some(code) => self.end(place, code),
            None => Ok(()),
        }
    }

    fn attend(&mut self, place: &mut Place<'_>) -> Result<i32> {
        let clock = place.agent.host().clock();
        loop {
            while let Some(event) = place.agent.event() {
                match event {
                    Event::Output { shell, text } if shell == self.shell => {
                        let shown = self.screen.push(&text);
                        let written = self.output.write_all(shown.as_bytes()).and_then(|()| self.output.flush());
                        written.map_err(|error| failed(&error))?;
                    }
                    Event::Exit { shell, code } if shell == self.shell => self.end(place, code)?,
                    Event::Terminated { shell } if shell == self.shell => {
                        return Err(Error::new(code::PROCESS, OPERATION, "somebody ended the command's shell")
                            .subject(place.agent.sandbox()));
                    }
                    _ => {}
                }
            }
            if let Some((code, at)) = self.ended
                && (self.screen.ended || clock.monotonic().saturating_sub(at) >= LAST)
            {
                let shown = self.screen.rest();
                let written = self.output.write_all(shown.as_bytes()).and_then(|()| self.output.flush());
                return written.map(|()| code).map_err(|error| failed(&error));
            }
            place.renew()?;
            self.resize(place)?;
            self.type_in(place)?;
            let input = self.input.as_mut().filter(|_| self.ended.is_none());
            place.agent.turn(TURN, Beside { input, terminal: Some(self.stdio) })?;
        }
    }

    fn resize(&mut self, place: &mut Place<'_>) -> Result<()> {
        let size = self.stdio.terminal().unwrap_or(self.size);
        if (size.columns, size.rows) == (self.size.columns, self.size.rows) || self.ended.is_some() {
            return Ok(());
        }
        self.size = size;
        place.agent.resize(&self.shell, size)
    }

    fn type_in(&mut self, place: &mut Place<'_>) -> Result<()> {
        let Some(input) = self.input.as_mut().filter(|_| self.ended.is_none()) else { return Ok(()) };
        match input.take(PIECE).map_err(|error| failed(&error))? {
            Piece::Nothing => {}
            // The terminal's user is gone; the command is not, and knows by itself what to do.
            Piece::End => self.input = None,
            Piece::Bytes(bytes) => {
                self.typed.extend(bytes);
                let text = whole(&mut self.typed);
                if !text.is_empty() {
                    place.agent.type_in(&self.shell, &text, Some(self.size))?;
                }
            }
        }
        Ok(())
    }
}

/// The characters that are whole; the beginning of one waits for its end. Bytes that are no characters are replaced,
/// because the protocol carries text.
fn whole(typed: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut rest = Vec::new();
    let mut chunks = typed.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        let begun = chunks.peek().is_none()
            && std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
        if begun {
            rest = chunk.invalid().to_vec();
        } else if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    *typed = rest;
    text
}

/// What is shown: everything but the mark, behind which nothing comes.
struct Screen {
    mark: String,
    /// What may be the beginning of the mark.
    held: String,
    ended: bool,
}

impl Screen {
    fn new(mark: &str) -> Self {
        Self { mark: mark.to_owned(), held: String::new(), ended: false }
    }

    fn push(&mut self, text: &str) -> String {
        let mut text = std::mem::take(&mut self.held) + text;
        if let Some(at) = text.find(&self.mark) {
            self.ended = true;
            text.replace_range(at..at + self.mark.len(), "");
            return text;
        }
        let longest = self.mark.len().min(text.len() + 1);
        let held = (1..longest).rev().find(|length| text.ends_with(&self.mark[..*length])).unwrap_or(0);
        self.held = text.split_off(text.len() - held);
        text
    }

    fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_not_shown_however_it_is_cut() {
        let text = "é\x1b[1mx\x1b_pcoder-12\x1b\\";
        for size in 1..text.len() {
            let mut screen = Screen::new("\x1b_pcoder-12\x1b\\");
            let chars: Vec<char> = text.chars().collect();
            let shown: String =
                chars.chunks(size).map(|chunk| screen.push(&chunk.iter().collect::<String>())).collect();
            assert_eq!((shown.as_str(), screen.ended, screen.rest().as_str()), ("é\x1b[1mx", true, ""), "{size}");
        }
        let mut screen = Screen::new("\x1b_pcoder-12\x1b\\");
        assert_eq!(screen.push("a\x1b_pc"), "a");
        assert_eq!((screen.push("b").as_str(), screen.ended), ("\x1b_pcb", false));
        assert_eq!((screen.push("\x1b").as_str(), screen.rest().as_str()), ("", "\x1b"));
    }

    #[test]
    fn characters_are_typed_whole() {
        let mut typed = "a€".as_bytes()[..3].to_vec();
        assert_eq!((whole(&mut typed).as_str(), typed.len()), ("a", 2));
        typed.extend(&"€".as_bytes()[2..]);
        assert_eq!((whole(&mut typed).as_str(), typed.len()), ("€", 0));
        let mut typed = b"\xffb\x03".to_vec();
        assert_eq!(whole(&mut typed), "\u{fffd}b\x03");
    }
}
