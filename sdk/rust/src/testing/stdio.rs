use std::cell::{Cell, RefCell};
use std::io;

use crate::error::{Error, Result, code};
use crate::host::Stdio;
use crate::types::TerminalSize;

/// Standard streams in memory, for tests.
#[derive(Default)]
pub struct FakeStdio {
    size: Option<TerminalSize>,
    streamed: bool,
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
        self.size = Some(TerminalSize { columns, rows });
        self
    }

    /// Makes the input a stream, whose size nobody knows beforehand.
    #[must_use]
    pub fn streamed(mut self) -> Self {
        self.streamed = true;
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
        self.size
    }

    pub(crate) fn input_size(&self) -> Option<u64> {
        if self.streamed {
            return None;
        }
        self.input.borrow().as_ref().map(|input| input.len() as u64)
    }

    pub(crate) fn take_input(&self) -> Result<Vec<u8>> {
        self.input.borrow_mut().take().ok_or_else(|| taken("stdio.stdin"))
    }

    pub(crate) fn output(&self) -> Result<Sink<'_>> {
        take(&self.output_taken, "stdio.stdout").map(|()| Sink(&self.output))
    }

    pub(crate) fn error(&self) -> Result<Sink<'_>> {
        take(&self.error_taken, "stdio.stderr").map(|()| Sink(&self.error))
    }
}

fn take(flag: &Cell<bool>, operation: &str) -> Result<()> {
    if flag.replace(true) { Err(taken(operation)) } else { Ok(()) }
}

fn taken(operation: &str) -> Error {
    Error::new(code::CONFLICT, operation, "the stream was taken before")
}

pub(crate) struct Sink<'a>(&'a RefCell<Vec<u8>>);

impl io::Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
