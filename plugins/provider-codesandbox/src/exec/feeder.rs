//! A stream of input, piece by piece into the command's pipe.

use pcoder_sdk::Result;
use pcoder_sdk::host::{Input, Piece};

use super::failed;
use super::place::Place;

/// The stream, and the shell that takes it in the sandbox.
pub(super) struct Feeder<'a> {
    pub(super) input: Input<'a>,
    pub(super) shell: String,
    /// The number of the piece that goes next, or is on its way.
    number: u64,
    /// What is on its way.
    sent: Option<Vec<u8>>,
    ended: bool,
    /// What was printed and ends no line.
    line: String,
}

impl<'a> Feeder<'a> {
    pub(super) fn new(input: Input<'a>, shell: String) -> Self {
        Self { input, shell, number: 0, sent: None, ended: false, line: String::new() }
    }

    /// Whether there is use for more.
    pub(super) fn is_hungry(&self) -> bool {
        !self.ended && self.sent.is_none()
    }

    /// Sends what is there.
    pub(super) fn pump(&mut self, place: &mut Place<'_>) -> Result<()> {
        if !self.is_hungry() {
            return Ok(());
        }
        // A message costs a round trip, so it is as large as one may be.
        match self.input.take(place.agent.piece()).map_err(|error| failed(&error))? {
            Piece::Nothing => Ok(()),
            Piece::Bytes(bytes) => {
                self.sent = Some(bytes);
                self.send(place)
            }
            Piece::End => {
                self.ended = true;
                self.type_in(place, "end\n")
            }
        }
    }

    fn send(&mut self, place: &mut Place<'_>) -> Result<()> {
        let Some(bytes) = &self.sent else { return Ok(()) };
        place.agent.write_file(&place.path(&format!("in.{}", self.number)), bytes)?;
        self.type_in(place, &format!("{}\n", self.number))
    }

    fn type_in(&self, place: &mut Place<'_>, line: &str) -> Result<()> {
        place.agent.type_in(&self.shell, line, None)
    }

    /// Takes what the shell printed.
    pub(super) fn printed(&mut self, text: &str) {
        for character in text.chars() {
            if character != '\n' {
                self.line.push(character);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            if self.sent.is_some() && line.trim_end() == format!("+{}", self.number) {
                self.sent = None;
                self.number += 1;
            }
        }
    }

    /// The command does not read any more.
    pub(super) fn gone(&mut self) {
        self.ended = true;
        self.sent = None;
    }

    /// Goes on over another connection.
    pub(super) fn reconnected(&mut self, place: &mut Place<'_>) -> Result<()> {
        if place.agent.open_shell(&self.shell)?.ended.is_some() {
            self.gone();
            return Ok(());
        }
        self.line.clear();
        // Perhaps it arrived, and perhaps not. It goes into the pipe once.
        self.send(place)?;
        if self.ended { self.type_in(place, "end\n") } else { Ok(()) }
    }
}
