use std::cell::{Cell, RefCell};
use std::io;
use std::marker::PhantomData;
use std::sync::mpsc::{Receiver, TryRecvError};

use crate::error::{Error, Result, code};
use crate::host::{Piece, Stdio};
use crate::types::TerminalSize;

/// Standard streams in memory, for tests.
#[derive(Default)]
pub struct FakeStdio {
    size: Cell<Option<TerminalSize>>,
    streamed: bool,
    most: Option<usize>,
    fed: RefCell<Option<Receiver<Vec<u8>>>>,
    input: RefCell<Option<Vec<u8>>>,
    output: RefCell<Vec<u8>>,
    error: RefCell<Vec<u8>>,
    output_taken: Cell<bool>,
    error_taken: Cell<bool>,
}

impl FakeStdio {
    /// Streams that are no terminal, with this on the input.
    pub fn new(input: impl Into<Vec<u8>>) -> Self {
        Self { input: RefCell::new(Some(input.into())), ..Self::default() }
    }

    /// Makes them a terminal of this size.
    #[must_use]
    pub fn with_terminal(mut self, columns: u16, rows: u16) -> Self {
        self.size = Cell::new(Some(TerminalSize { columns, rows }));
        self
    }

    /// Resizes the terminal.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.size.set(Some(TerminalSize { columns, rows }));
    }

    /// Makes the input a stream, whose size nobody knows beforehand.
    #[must_use]
    pub fn streamed(mut self) -> Self {
        self.streamed = true;
        self
    }

    /// Makes the input a stream that somebody feeds while the command runs, and that ends with the sender.
    #[must_use]
    pub fn fed_by(mut self, pieces: Receiver<Vec<u8>>) -> Self {
        self.streamed = true;
        self.fed = RefCell::new(Some(pieces));
        self
    }

    /// Nobody takes the output any more: writing it is a broken pipe once this many bytes were taken.
    #[must_use]
    pub fn closed_after(mut self, bytes: usize) -> Self {
        self.most = Some(bytes);
        self
    }

    /// What a plugin's `exec` takes.
    pub fn handle(&self) -> Stdio<'_> {
        Stdio::from_fake(self)
    }

    /// What was written to standard output.
    pub fn written(&self) -> Vec<u8> {
        self.output.borrow().clone()
    }

    /// What was written to standard error.
    pub fn written_to_error(&self) -> Vec<u8> {
        self.error.borrow().clone()
    }

    pub(crate) fn terminal(&self) -> Option<TerminalSize> {
        self.size.get()
    }

    pub(crate) fn input_size(&self) -> Option<u64> {
        if self.streamed {
            return None;
        }
        self.input.borrow().as_ref().map(|input| input.len() as u64)
    }

    pub(crate) fn take_input(&self) -> Result<Vec<u8>> {
        let mut input = self.input.borrow_mut().take().ok_or_else(|| taken("stdio.stdin"))?;
        if let Some(pieces) = self.fed.take() {
            input.extend(pieces.into_iter().flatten());
        }
        Ok(input)
    }

    pub(crate) fn feed(&self) -> Result<Feed<'_>> {
        let there = self.input.borrow_mut().take().ok_or_else(|| taken("stdio.stdin"))?;
        Ok(Feed { there, more: self.fed.take(), stdio: PhantomData })
    }

    pub(crate) fn output(&self) -> Result<Sink<'_>> {
        take(&self.output_taken, "stdio.stdout").map(|()| Sink(&self.output, self.most))
    }

    pub(crate) fn error(&self) -> Result<Sink<'_>> {
        take(&self.error_taken, "stdio.stderr").map(|()| Sink(&self.error, None))
    }
}

/// An input that is taken without waiting.
pub(crate) struct Feed<'a> {
    there: Vec<u8>,
    more: Option<Receiver<Vec<u8>>>,
    stdio: PhantomData<&'a FakeStdio>,
}

impl Feed<'_> {
    pub(crate) fn take(&mut self, most: usize) -> Piece {
        if !self.is_ready() {
            return Piece::Nothing;
        }
        if self.there.is_empty() {
            return Piece::End;
        }
        let rest = self.there.split_off(most.min(self.there.len()));
        Piece::Bytes(std::mem::replace(&mut self.there, rest))
    }

    pub(crate) fn is_ready(&mut self) -> bool {
        while self.there.is_empty()
            && let Some(more) = &self.more
        {
            match more.try_recv() {
                Ok(piece) => self.there = piece,
                Err(TryRecvError::Disconnected) => self.more = None,
                Err(TryRecvError::Empty) => return false,
            }
        }
        true
    }
}

fn take(flag: &Cell<bool>, operation: &str) -> Result<()> {
    if flag.replace(true) { Err(taken(operation)) } else { Ok(()) }
}

fn taken(operation: &str) -> Error {
    Error::new(code::CONFLICT, operation, "the stream was taken before")
}

pub(crate) struct Sink<'a>(&'a RefCell<Vec<u8>>, Option<usize>);

impl io::Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1.is_some_and(|most| self.0.borrow().len() + bytes.len() > most) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn an_input_that_is_fed_says_when_there_is_nothing_yet() {
        let (sender, pieces) = mpsc::channel();
        let stdio = FakeStdio::new("ab").fed_by(pieces);
        assert_eq!(stdio.handle().input_size(), None);
        let mut input = stdio.handle().input().unwrap();
        assert!(input.is_ready());
        assert_eq!(input.take(1).unwrap(), Piece::Bytes(b"a".to_vec()));
        assert_eq!(input.take(9).unwrap(), Piece::Bytes(b"b".to_vec()));
        assert!(!input.is_ready());
        assert_eq!(input.take(9).unwrap(), Piece::Nothing);
        sender.send(b"c".to_vec()).unwrap();
        assert_eq!(input.take(9).unwrap(), Piece::Bytes(b"c".to_vec()));
        drop(sender);
        assert_eq!(input.take(9).unwrap(), Piece::End);
        assert!(stdio.handle().stdin().is_err(), "it was taken");
    }

    #[test]
    fn an_output_that_nobody_takes_is_a_broken_pipe() {
        let stdio = FakeStdio::new("").closed_after(3);
        let mut output = stdio.handle().stdout().unwrap();
        output.write_all(b"abc").unwrap();
        assert_eq!(output.write_all(b"d").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(stdio.written(), b"abc");
    }
}
