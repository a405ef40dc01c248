//! Agents in virtual machines, in a real terminal of this host.

use std::path::Path;

use super::Machines;
use crate::terminal::{COLUMNS, ROWS, Terminal, claudes_answers, codexs_answers};

const PROJECT: &str = "/home/pcoder/projects/p";

impl Machines {
    /// A machine on which this agent has been, and what it would ask at its first start is answered in a file.
    fn prepared(&self, tool: &str, file: &str, answers: &str) -> String {
        let profile = if tool == "claude" { "offline" } else { tool };
        let args = ["run", tool, "--mode", "linux-portable", "--profile", profile, "--project", "p", "--keep", "--"];
        self.run(&[&args[..], &["--version"]].concat()).printed();
        let id = self.statuses().into_keys().next().expect("it was kept");
        std::fs::write(self.world.path("project/answers"), answers).expect("a file");
        let folder = Path::new(file).parent().expect("a folder").display().to_string();
        self.run(&["instance", "exec", &id, "--", "mkdir", "-p", &folder]).printed();
        self.run(&["instance", "cp", "answers", &format!("{id}:{file}")]).printed();
        id
    }

    fn terminal(&self, tool: &str, profile: &str, id: &str) -> Terminal {
        let args = ["run", tool, "--mode", "linux-portable", "--profile", profile, "--project", "p", "--instance", id];
        Terminal::start(&self.world, &args)
    }
}

#[test]
fn claude_talks_in_the_users_terminal_from_a_virtual_machine_and_leaves_it_as_it_was() {
    let machines = Machines::with_profiles();
    machines.world.project("p");
    let id = machines.prepared("claude", "/home/pcoder/.claude.json", &claudes_answers(PROJECT));
    let mut terminal = machines.terminal("claude", "offline", &id);
    terminal.wait_for_claude();
    terminal.claude_fills_a_wider_window();
    terminal.talks_with_claude();
    machines.terminate_all();
}

#[test]
fn codex_talks_in_the_users_terminal_from_a_virtual_machine_and_leaves_it_as_it_was() {
    let machines = Machines::with_profiles();
    machines.world.project("p");
    let id = machines.prepared("codex", "/home/pcoder/.codex/config.toml", &codexs_answers(PROJECT));
    machines.terminal("codex", "codex", &id).talks_with_codex();
    machines.terminate_all();
}

#[test]
fn a_shell_on_a_machine_is_one_in_the_users_terminal() {
    let machines = Machines::new();
    let id = machines.boot();
    // The second one goes over the connection that the first one has left.
    for _ in 0..2 {
        let mut terminal = Terminal::start(&machines.world, &["instance", "ssh", &id]);
        terminal.press("tty; stty size\r");
        terminal.wait_for_text("/dev/pts/");
        terminal.wait_for_text(&format!("{ROWS} {COLUMNS}"));
        // It ends what runs there, which says when it is what the terminal belongs to; and nothing here.
        terminal
            .press("sh -c 'trap \"exit 7\" INT; printf \"star%s\\n\" ted; while :; do sleep 1; done'; echo ended $?\r");
        terminal.wait_for_text("started");
        terminal.press("\x03");
        terminal.wait_for_text("ended 7");
        terminal.press("exit 3\r");
        assert_eq!(terminal.finish(), 3, "the shell's exit code");
        assert_eq!(terminal.settings(), terminal.before);
    }
    machines.terminate_all();
}
