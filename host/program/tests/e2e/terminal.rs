//! Agents in a real pseudo-terminal: they have it to themselves, and it is as it was afterwards.

use std::collections::VecDeque;
use std::io::{Read as _, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pcoder_model_server::environment::{CODEX_MODEL, OFFLINE_KEY};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use crate::support::{DEADLINE, World, until, wait};

pub(crate) const ROWS: u16 = 40;
pub(crate) const COLUMNS: u16 = 90;

/// What Claude Code says to a first Ctrl-C.
const ONCE_MORE: &str = "Press Ctrl-C again to exit";

/// What a terminal answers by itself when a program asks: Codex does not start without.
#[derive(Default)]
struct Answers(VecDeque<String>);

impl vt100::Callbacks for Answers {
    fn unhandled_csi(
        &mut self,
        screen: &mut vt100::Screen,
        first: Option<u8>,
        _: Option<u8>,
        params: &[&[u16]],
        kind: char,
    ) {
        match (first, kind, params.first().and_then(|it| it.first())) {
            (None, 'n', Some(6)) => {
                let (row, column) = screen.cursor_position();
                self.0.push_back(format!("\x1b[{};{}R", row + 1, column + 1));
            }
            (None, 'n', Some(5)) => self.0.push_back("\x1b[0n".to_owned()),
            (None, 'c', _) => self.0.push_back("\x1b[?62;22c".to_owned()),
            _ => {}
        }
    }

    fn unhandled_osc(&mut self, _: &mut vt100::Screen, params: &[&[u8]]) {
        match params {
            [b"10", b"?"] => self.0.push_back("\x1b]10;rgb:ffff/ffff/ffff\x1b\\".to_owned()),
            [b"11", b"?"] => self.0.push_back("\x1b]11;rgb:0000/0000/0000\x1b\\".to_owned()),
            _ => {}
        }
    }
}

type Screen = Arc<(Mutex<vt100::Parser<Answers>>, Condvar)>;
type Writer = Arc<Mutex<Box<dyn Write + Send>>>;

/// A terminal with one program in it.
pub(crate) struct Terminal {
    master: Option<Box<dyn MasterPty + Send>>,
    child: Option<Box<dyn Child + Send + Sync>>,
    screen: Screen,
    writer: Option<Writer>,
    reader: Option<JoinHandle<()>>,
    closing: Arc<AtomicBool>,
    /// The settings before the program started.
    pub(crate) before: String,
}

impl Terminal {
    pub(crate) fn start(world: &World, args: &[&str]) -> Self {
        let size = PtySize { rows: ROWS, cols: COLUMNS, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).expect("a pseudo-terminal");
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_pcoder"));
        command.args(args);
        command.env_clear();
        for (name, value) in world.environment() {
            command.env(name, value);
        }
        command.cwd(world.path("project"));
        let before = settings(&*pair.master);
        let child = Some(pair.slave.spawn_command(command).expect("pcoder starts"));
        drop(pair.slave);
        let writer: Writer = Arc::new(Mutex::new(pair.master.take_writer().expect("a writer")));
        let parser = vt100::Parser::new_with_callbacks(ROWS, COLUMNS, 0, Answers::default());
        let screen: Screen = Arc::new((Mutex::new(parser), Condvar::new()));
        let mut output = pair.master.try_clone_reader().expect("a reader");
        let (theirs, answers) = (Arc::clone(&screen), Arc::clone(&writer));
        let closing = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&closing);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0_u8; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let mut parser = lock(&theirs.0);
                parser.process(&bytes[..count]);
                let answered: Vec<String> = parser.callbacks_mut().0.drain(..).collect();
                drop(parser);
                theirs.1.notify_all();
                for answer in answered {
                    drop(lock(&answers).write_all(answer.as_bytes()));
                }
            }
        });
        Self { master: Some(pair.master), child, screen, writer: Some(writer), reader: Some(reader), closing, before }
    }

    pub(crate) fn press(&self, keys: &str) {
        let mut writer = lock(self.writer.as_ref().expect("it is open"));
        writer.write_all(keys.as_bytes()).and_then(|()| writer.flush()).expect("keys");
    }

    /// Waits until the screen fulfils this.
    fn wait_for(&self, what: &str, condition: impl Fn(&vt100::Screen) -> bool) {
        let parser = lock(&self.screen.0);
        let (parser, waited) = self
            .screen
            .1
            .wait_timeout_while(parser, DEADLINE, |parser| !condition(parser.screen()))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "waited in vain for {what}; the screen:\n{}", parser.screen().contents());
    }

    pub(crate) fn wait_for_text(&self, text: &str) {
        self.wait_for(&format!("`{text}`"), |screen| screen.contents().contains(text));
    }

    /// Waits until Claude Code takes keys: it has drawn its prompt.
    pub(crate) fn wait_for_claude(&self) {
        self.wait_for_text("Claude Code v");
        self.wait_for("its prompt", |screen| has_rule(screen, COLUMNS));
    }

    /// Talks with Claude Code, which takes keys, to its end. It leaves the terminal as it was.
    pub(crate) fn talks_with_claude(&mut self) {
        self.press("@say typed and answered");
        self.wait_for_text("@say typed and answered");
        self.press("\r");
        self.wait_for("the reply", |screen| has_row(screen, '●', "typed and answered"));
        assert!(self.runs());
        self.press("\x03");
        self.wait_for_text(ONCE_MORE);
        assert!(self.runs(), "Ctrl-C is the agent's: the first one only asks");
        self.press("\x03");
        // It asks for 0.8 s, which is over before it reads the second one where software emulates a busy processor. Then
        // that one was a first one, too. Its prompt goes when it ends; what is on the screen for a moment says nothing.
        let (mut has_asked, mut asks_no_more) = (true, None);
        until("Claude Code has ended", || {
            let (asks, has_prompt) = {
                let parser = lock(&self.screen.0);
                let screen = parser.screen();
                (screen.contents().contains(ONCE_MORE), has_rule(screen, screen.size().1))
            };
            has_asked |= asks;
            let since = (!asks && has_prompt).then(|| asks_no_more.unwrap_or_else(Instant::now));
            asks_no_more = since;
            if has_asked && since.is_some_and(|it| it.elapsed() > Duration::from_secs(2)) {
                has_asked = false;
                self.press("\x03\x03");
            }
            (!self.runs()).then_some(())
        });
        assert_eq!(self.finish(), 0, "the agent's exit code");
        assert_eq!(self.settings(), self.before);
    }

    /// Talks with Codex from its start to its end. It leaves the terminal as it was.
    pub(crate) fn talks_with_codex(&mut self) {
        self.wait_for_text("OpenAI Codex (v");
        // It takes keys before it has started and asks the model only then, which is long on a disk that is cold. Its
        // last lines name the model as soon as it has.
        self.wait_for("its start", |screen| {
            screen.rows(0, COLUMNS).any(|row| row.trim_start().to_lowercase().starts_with(CODEX_MODEL))
        });
        self.press("@say typed and answered");
        self.wait_for_text("@say typed and answered");
        self.press("\r");
        self.wait_for("the reply", |screen| has_row(screen, '•', "typed and answered"));
        self.press("/quit");
        self.wait_for("the command", |screen| has_row(screen, '›', "/quit"));
        self.press("\r");
        assert_eq!(self.finish(), 0, "the agent's exit code");
        assert_eq!(self.settings(), self.before);
    }

    /// Makes the window wider, and waits until Claude Code has drawn itself anew.
    pub(crate) fn claude_fills_a_wider_window(&self) {
        self.resize(ROWS, COLUMNS + 37);
        self.wait_for("a line of the new width", |screen| has_rule(screen, COLUMNS + 37));
    }

    /// What is on the screen.
    pub(crate) fn text(&self) -> String {
        lock(&self.screen.0).screen().contents()
    }

    fn resize(&self, rows: u16, columns: u16) {
        lock(&self.screen.0).screen_mut().set_size(rows, columns);
        let size = PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 };
        self.master.as_ref().expect("it is open").resize(size).expect("a size");
    }

    fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("a child").is_none())
    }

    /// Waits for pcoder's end; its exit code.
    pub(crate) fn finish(&mut self) -> u32 {
        let mut child = self.child.take().expect("it ends once");
        wait("pcoder has ended", move || child.wait().expect("a child")).exit_code()
    }

    pub(crate) fn settings(&self) -> String {
        settings(&**self.master.as_ref().expect("it is open"))
    }

    /// As when a window is closed: nobody has the terminal's other side any more.
    fn close(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // The reader waits for output, which a new size makes.
        self.resize(ROWS - 1, COLUMNS - 1);
        let reader = self.reader.take().expect("it is open");
        wait("the reader has ended", || reader.join().expect("no panic"));
        self.writer = None;
        self.master = None;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let running = self.runs();
        if let Some(child) = &mut self.child {
            if running {
                drop(child.kill());
            }
            drop(child.wait());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything that `stty` shows.
fn settings(master: &dyn MasterPty) -> String {
    format!("{:?}", master.get_termios().expect("a terminal's settings"))
}

/// What Claude Code would ask at its first start, answered: the text of its `.claude.json`.
pub(crate) fn claudes_answers(project: &str) -> String {
    let key = &OFFLINE_KEY[OFFLINE_KEY.len() - 20..];
    let answers = serde_json::json!({
        "hasCompletedOnboarding": true,
        "theme": "dark",
        "customApiKeyResponses": { "approved": [key], "rejected": [] },
        "projects": { project: { "hasTrustDialogAccepted": true } },
    });
    answers.to_string()
}

/// The same for Codex, which would ask whether to trust the project and to take a newer model: lines of its `config.toml`.
pub(crate) fn codexs_answers(project: &str) -> String {
    format!(
        "\n[projects.{project:?}]\ntrust_level = \"trusted\"\n\n[notice.model_migrations]\n\"gpt-5.5\" = \"gpt-6-sol\"\n"
    )
}

fn claude_knows(world: &World, project: &Path) {
    let answers = claudes_answers(project.to_str().expect("Unicode"));
    std::fs::write(world.path("claude/.claude.json"), answers).expect("its configuration");
}

/// Claude Code, started in a terminal and ready.
fn claude(world: &World) -> Terminal {
    let project = world.project("a b/it's");
    claude_knows(world, &project);
    let terminal = Terminal::start(world, &["run", "claude", "--project", "a b/it's"]);
    terminal.wait_for_claude();
    terminal
}

/// Whether there is a line from edge to edge, as Claude Code draws around its prompt.
fn has_rule(screen: &vt100::Screen, columns: u16) -> bool {
    screen.rows(0, columns).any(|row| row.chars().filter(|&it| it == '─').count() == usize::from(columns))
}

/// Whether a line begins with this mark and goes on with this text.
fn has_row(screen: &vt100::Screen, mark: char, text: &str) -> bool {
    let (_, columns) = screen.size();
    // Some of the spaces are not plain ones.
    screen.rows(0, columns).any(|row| row.trim_start().strip_prefix(mark).is_some_and(|rest| rest.trim() == text))
}

#[test]
fn claude_talks_in_the_users_terminal_and_leaves_it_as_it_was() {
    let world = World::new();
    let mut terminal = claude(&world);
    assert_ne!(terminal.settings(), terminal.before, "it reads keys, not lines");
    terminal.wait_for_text("it's");

    terminal.talks_with_claude();
    world.wait_until_all_is_gone();
}

/// Made wider: what is left of the old picture could not fill the new line.
#[test]
fn a_resize_reaches_the_agent() {
    let world = World::new();
    let terminal = claude(&world);
    terminal.claude_fills_a_wider_window();
}

/// Not even when the agent lets the terminal make a signal of it, which reaches pcoder too.
#[test]
fn ctrl_c_is_the_agents_when_it_only_prints() {
    let world = World::new();
    let project = world.project("p");
    let project = project.to_str().expect("Unicode");
    let args = ["run", "codex", "--project", project, "--", "exec", "--skip-git-repo-check", "@sleep 600"];
    let mut terminal = Terminal::start(&world, &args);
    world.wait_for_prompt("@sleep 600");
    terminal.press("\x03");
    assert_eq!(terminal.finish(), 1, "Codex' own exit code for it, and not 130");
    assert_eq!(terminal.settings(), terminal.before);
    world.wait_until_all_is_gone();
}

#[test]
fn a_window_that_is_closed_ends_everything_in_it() {
    let world = World::new();
    let mut terminal = claude(&world);
    assert!(world.processes().iter().any(|it| it.of_a_call));
    terminal.close();
    terminal.finish();
    world.wait_until_all_is_gone();
}

/// A person is there to see it, so what is missing is downloaded; the registry of a test is one where nobody listens.
#[test]
fn a_missing_engine_is_downloaded_where_somebody_watches() {
    let world = World::without_engines();
    let mut terminal = Terminal::start(&world, &["run", "codex"]);
    terminal.wait_for_text("Downloading codex (");
    assert_eq!(terminal.finish(), 4);
    terminal.wait_for_text("error: ");
    assert_eq!(terminal.settings(), terminal.before);
}

#[test]
fn codex_shows_its_interface_and_answers() {
    let world = World::new();
    let project = world.project("p");
    let path = world.path("codex/config.toml");
    let config = std::fs::read_to_string(&path).expect("a configuration");
    let answers = codexs_answers(project.to_str().expect("Unicode"));
    std::fs::write(path, config + &answers).expect("a configuration");
    let mut terminal = Terminal::start(&world, &["run", "codex", "--project", "p"]);
    terminal.talks_with_codex();
    world.wait_until_all_is_gone();
}
