//! Unattended sessions: a script that gives a program its prompt.
//!
//! The prompt goes through a pipe, where one that begins with a dash is no option and one that is a subcommand's name
//! is no subcommand; and the pipe ends, so that the program does not wait for more. It travels as base64, which no
//! shell, process manager or API on the way can misread.

use crate::error::{Error, Result};
use crate::types::SessionInput;
use crate::{name, shell};

/// The longest script: it is one argument of `sh -c`, and Linux takes 128 KiB.
pub const LONGEST_SCRIPT: usize = 120 * 1024;

const OPERATION: &str = "agent.to-process-spec";

impl SessionInput {
    /// A name for the process that every process manager takes: `prefix`, a dash, and what is left of the name that was
    /// asked for, or `session`.
    pub fn process_name(&self, prefix: &str) -> String {
        name::sanitize(&format!("{prefix}-{}", self.name.as_deref().unwrap_or("session")))
    }

    /// What is added to the system prompt, when it is anything.
    pub fn added_system_prompt(&self) -> Option<&str> {
        self.system_prompt.as_deref().filter(|system| !system.is_empty())
    }

    /// A script that runs `command`, a shell's command line, with the prompt on its standard input. [`shell::join`]
    /// makes a command line of words.
    ///
    /// # Errors
    /// `invalid` when the prompt is empty, and when the script would be longer than [`LONGEST_SCRIPT`].
    pub fn script(&self, command: &str) -> Result<String> {
        self.script_of(&self.prompt, command)
    }

    /// The same with what is added to the system prompt in front of the prompt: for programs without an option for it.
    ///
    /// # Errors
    /// As for [`SessionInput::script`].
    pub fn script_with_system_prompt(&self, command: &str) -> Result<String> {
        match self.added_system_prompt() {
            Some(system) => self.script_of(&format!("{system}\n\n{}", self.prompt), command),
            None => self.script(command),
        }
    }

    fn script_of(&self, text: &str, command: &str) -> Result<String> {
        if self.prompt.trim().is_empty() {
            return Err(Error::invalid(OPERATION, "the prompt is empty"));
        }
        let script = format!("{} | {command}", shell::print(text));
        if script.len() > LONGEST_SCRIPT {
            return Err(Error::invalid(OPERATION, "the prompt is too long for a command line")
                .hint("put the long part into a file of the project and name it in the prompt"));
        }
        Ok(script)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const AWKWARD: &str = "it's \"$(x)\" `y` \\ \n\t! é 日本\n";

    fn session(prompt: &str) -> SessionInput {
        testing::session(prompt, testing::launch(&["claw"], &[]))
    }

    fn run(shell: &str, script: &str) -> String {
        let output = std::process::Command::new(shell).args(["-c", script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_process_is_named_after_its_session() {
        let mut input = session("x");
        assert_eq!(input.process_name("cw"), "cw-session");
        input.name = Some("fix the tests!".to_owned());
        assert_eq!(input.process_name("cw"), "cw-fix-the-tests");
    }

    #[test]
    fn the_prompt_arrives_byte_for_byte_and_the_input_ends() {
        for prompt in [AWKWARD, "--help", "-"] {
            let mut input = session(prompt);
            input.system_prompt = Some("be brief".to_owned());
            for shell in ["sh", "bash"] {
                assert_eq!(run(shell, &input.script("cat").unwrap()), prompt);
                let whole = input.script_with_system_prompt("cat").unwrap();
                assert_eq!(run(shell, &whole), format!("be brief\n\n{prompt}"));
            }
        }
    }

    #[test]
    fn an_empty_addition_to_the_system_prompt_is_none() {
        let mut input = session("x");
        for system in [None, Some(String::new())] {
            input.system_prompt = system;
            assert_eq!(input.added_system_prompt(), None);
            assert_eq!(input.script_with_system_prompt("cat"), input.script("cat"));
        }
    }

    #[test]
    fn prompts_that_cannot_be_are_refused() {
        let mut empty = session(" \n");
        empty.system_prompt = Some("be brief".to_owned());
        for refused in [empty.script("cat"), empty.script_with_system_prompt("cat")] {
            assert_eq!(refused.unwrap_err().message, "the prompt is empty");
        }
        let rest = session("x").script("cat").unwrap().len() - "eA==".len();
        let longest = (LONGEST_SCRIPT - rest) / 4 * 3;
        let script = session(&"x".repeat(longest)).script("cat").unwrap();
        assert_eq!(run("sh", &script).len(), longest);
        let error = session(&"x".repeat(longest + 1)).script("cat").unwrap_err();
        assert_eq!(error.code, "invalid");
        assert!(error.hint.is_some());
    }
}
