//! This process's terminal while a command on another machine has it: every key goes there as it is pressed, Ctrl-C among
//! them, and what a line is, is for the terminal there to say.

use std::sync::{Mutex, PoisonError};

use self::system::Settings;

/// What the terminal was like before, for as long as anybody needs it otherwise.
static BEFORE: Mutex<Option<(Settings, usize)>> = Mutex::new(None);

/// A terminal that interprets nothing. It is as it was once the last of these is dropped.
#[derive(Debug)]
pub(crate) struct RawTerminal(());

impl RawTerminal {
    /// Nothing where this process's input is no terminal, or one that cannot be changed: then keys arrive line by line,
    /// which is better than no command.
    pub(crate) fn enter() -> Option<Self> {
        let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *before {
            Some((_, users)) => *users += 1,
            None => *before = Some((Settings::make_raw()?, 1)),
        }
        Some(Self(()))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *before {
            Some((_, users @ 2..)) => *users -= 1,
            Some((settings, _)) => {
                settings.restore();
                *before = None;
            }
            None => {}
        }
    }
}

/// Gives the terminal back as it was, for a process that ends without dropping what it has.
pub fn restore_terminal() {
    if let Some((settings, _)) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        settings.restore();
    }
}

#[cfg(unix)]
mod system {
    use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

    #[derive(Debug)]
    pub(super) struct Settings(Termios);

    impl Settings {
        /// Makes the terminal raw (`termios(3)`), after what was written to it so far. Returns what it was like.
        pub(super) fn make_raw() -> Option<Self> {
            let before = tcgetattr(std::io::stdin()).ok()?;
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(std::io::stdin(), OptionalActions::Drain, &raw).ok()?;
            Some(Self(before))
        }

        pub(super) fn restore(&self) {
            // A terminal that was closed needs nothing any more.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.0);
        }
    }
}

#[cfg(windows)]
mod system {
    use crossterm_winapi::{ConsoleMode, Handle};

    /// Of the input: `ENABLE_PROCESSED_INPUT`, `ENABLE_LINE_INPUT`, `ENABLE_ECHO_INPUT`, and keys as the sequences that
    /// programs on other systems read (`ENABLE_VIRTUAL_TERMINAL_INPUT`).
    /// <https://learn.microsoft.com/en-us/windows/console/setconsolemode>
    const INTERPRETED: u32 = 0x0001 | 0x0002 | 0x0004;
    const SEQUENCES_IN: u32 = 0x0200;
    /// Of the output: `ENABLE_PROCESSED_OUTPUT`, `ENABLE_VIRTUAL_TERMINAL_PROCESSING`, `DISABLE_NEWLINE_AUTO_RETURN`.
    const SEQUENCES_OUT: u32 = 0x0001 | 0x0004 | 0x0008;

    #[derive(Debug)]
    pub(super) struct Settings {
        input: u32,
        output: u32,
    }

    fn modes() -> Option<(ConsoleMode, ConsoleMode)> {
        Some((
            ConsoleMode::from(Handle::current_in_handle().ok()?),
            ConsoleMode::from(Handle::current_out_handle().ok()?),
        ))
    }

    impl Settings {
        /// Makes the console raw. Returns what it was like.
        pub(super) fn make_raw() -> Option<Self> {
            let (input, output) = modes()?;
            let before = Self { input: input.mode().ok()?, output: output.mode().ok()? };
            input.set_mode(before.input & !INTERPRETED | SEQUENCES_IN).ok()?;
            if output.set_mode(before.output | SEQUENCES_OUT).is_err() {
                before.restore();
                return None;
            }
            Some(before)
        }

        pub(super) fn restore(&self) {
            // A console that was closed needs nothing any more.
            if let Some((input, output)) = modes() {
                let _ = (input.set_mode(self.input), output.set_mode(self.output));
            }
        }
    }
}
