//! Progress of long work: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pcoder_core::engine_store::{Phase, Progress};

use crate::output::{note, size};

/// How often a log gets a line.
const EVERY: Duration = Duration::from_secs(5);

/// Turns while something is waited for that has no measure.
pub(crate) struct Spinner(ProgressBar);

impl Spinner {
    pub(crate) fn start(what: &str, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && std::env::var_os("PCODER_NO_PROGRESS").is_none();
        if !terminal || quiet {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        bar.set_style(ProgressStyle::default_spinner());
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Shows one installation.
pub(crate) struct Bar {
    name: String,
    bar: ProgressBar,
    /// Where there is no terminal: when the last line was written.
    lines: Option<Mutex<Instant>>,
}

impl Bar {
    pub(crate) fn new(name: &str, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && std::env::var_os("PCODER_NO_PROGRESS").is_none();
        let bar = ProgressBar::with_draw_target(
            Some(0),
            if terminal && !quiet { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() },
        );
        let style =
            ProgressStyle::with_template("{prefix} {msg} [{bar:28}] {bytes}/{total_bytes} {bytes_per_sec} {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_prefix(name.to_owned());
        Self { name: name.to_owned(), bar, lines: (!terminal && !quiet).then(|| Mutex::new(Instant::now())) }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn phase(&self, phase: Phase) {
        self.bar.set_message(phase.word());
        if self.lines.is_some() {
            note(&format!("{}: {}", self.name, phase.word()));
        }
    }

    fn bytes(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        let Some(Ok(mut last)) = self.lines.as_ref().map(Mutex::lock) else { return };
        if last.elapsed() >= EVERY {
            *last = Instant::now();
            note(&format!("{}: {} of {}", self.name, size(done), size(total)));
        }
    }

    fn message(&self, message: &str) {
        if self.lines.is_some() {
            note(&format!("{}: {message}", self.name));
        } else {
            self.bar.println(format!("{}: {message}", self.name));
        }
    }
}
