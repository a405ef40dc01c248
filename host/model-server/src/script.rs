//! The script language: one directive a line, parsed from the newest prompt.
//!
//! | line | what the model does |
//! |---|---|
//! | `@say TEXT` | says it; `$RESULT` in it becomes the newest tool output; lines that follow each other are one message |
//! | `@think TEXT` | thinks it |
//! | `@sh COMMAND` | asks for its shell tool |
//! | `@shx COMMAND` | the same, asking to leave the agent's sandbox where the agent has that notion |
//! | `@patch FILE TEXT` | asks its editing tool to create FILE with TEXT |
//! | `@tool NAME {json}` | asks for any tool by name |
//! | `@sleep SECONDS` | pauses the stream |
//! | `@error STATUS TYPE` | refuses the request with this HTTP status |
//! | `@fail CODE` | fails inside a stream that began well |
//! | `@drop` | cuts the connection |
//!
//! A text is a script if its first line that is not blank begins with one of these words; anything else is plain text
//! (so a prompt that mentions `@src/main.rs` stays one).

use std::time::Duration;

use serde_json::{Map, Value};

/// The longest pause a script may ask for.
pub const MAX_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

/// What a prompt turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// No script: to be echoed.
    Plain(String),
    /// A script. It has at least one step.
    Script(Vec<Step>),
    /// It began as a script and then did not go on as one.
    Broken {
        /// The line that is wrong, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
}

/// One directive.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Say a text.
    Say(String),
    /// Think a text.
    Think(String),
    /// Call a tool. Ends a reply: the agent answers with the tool's output.
    Call(Call),
    /// Pause.
    Pause(Duration),
    /// Refuse the request.
    Refuse {
        /// The HTTP status, 400 to 599.
        status: u16,
        /// The error's type, such as `overloaded_error`.
        kind: String,
    },
    /// Fail in the middle of the stream.
    Fail(String),
    /// Cut the connection.
    Cut,
}

/// A tool call, before a dialect has found the tool that does it.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Run a shell command.
    Shell {
        /// The command line.
        command: String,
        /// Ask to run it outside of the agent's sandbox.
        outside: bool,
    },
    /// Create a file.
    Write {
        /// Its path, as the script has it.
        file: String,
        /// Its content. A line end is added.
        text: String,
    },
    /// Any tool.
    Named {
        /// The tool's name.
        tool: String,
        /// Its input.
        input: Map<String, Value>,
    },
}

impl Prompt {
    /// Parses the newest prompt of a conversation. Every text parses to something.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty())
            .peekable();
        let is_script = lines.peek().is_some_and(|(_, line)| is_directive(line));
        if !is_script {
            return Self::Plain(text.trim().to_owned());
        }
        let mut steps = Vec::new();
        for (number, line) in lines {
            match parse_line(line) {
                Ok(step) => steps.push(step),
                Err(message) => {
                    return Self::Broken { line: number, message };
                }
            }
        }
        Self::Script(steps)
    }
}

const WORDS: [&str; 10] = ["@say", "@think", "@sh", "@shx", "@patch", "@tool", "@sleep", "@error", "@fail", "@drop"];

fn split_word(line: &str) -> (&str, &str) {
    match line.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (line, ""),
    }
}

fn is_directive(line: &str) -> bool {
    WORDS.contains(&split_word(line).0)
}

fn parse_line(line: &str) -> Result<Step, String> {
    let (word, rest) = split_word(line);
    match word {
        "@say" => Ok(Step::Say(rest.to_owned())),
        "@think" => Ok(Step::Think(rest.to_owned())),
        "@sh" | "@shx" => {
            Ok(Step::Call(Call::Shell { command: required(rest, word, "COMMAND")?, outside: word == "@shx" }))
        }
        "@patch" => {
            let (file, text) = split_word(rest);
            Ok(Step::Call(Call::Write { file: required(file, word, "FILE TEXT")?, text: text.to_owned() }))
        }
        "@tool" => {
            let (tool, input) = split_word(rest);
            let tool = required(tool, word, "NAME {json}")?;
            let input = if input.is_empty() { "{}" } else { input };
            let input = serde_json::from_str(input)
                .map_err(|error| format!("the input of `{tool}` is not a JSON object: {error}"))?;
            Ok(Step::Call(Call::Named { tool, input }))
        }
        "@sleep" => rest
            .parse()
            .ok()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .filter(|pause| *pause <= MAX_PAUSE)
            .map(Step::Pause)
            .ok_or_else(|| format!("`@sleep` wants seconds, at most a day, not `{rest}`")),
        "@error" => {
            let (status, kind) = split_word(rest);
            let status = status
                .parse()
                .ok()
                .filter(|status| (400..600).contains(status))
                .ok_or_else(|| format!("`@error` wants an HTTP status from 400 to 599, not `{status}`"))?;
            let kind = if kind.is_empty() { "api_error" } else { kind };
            Ok(Step::Refuse { status, kind: kind.to_owned() })
        }
        "@fail" => Ok(Step::Fail(required(rest, word, "CODE")?)),
        "@drop" => Ok(Step::Cut),
        _ => Err(format!("`{word}` is no directive; a script has one a line")),
    }
}

fn required(value: &str, word: &str, what: &str) -> Result<String, String> {
    if value.is_empty() { Err(format!("`{word}` wants {what}")) } else { Ok(value.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn steps(text: &str) -> Vec<Step> {
        match Prompt::parse(text) {
            Prompt::Script(steps) => steps,
            other => panic!("not a script: {other:?}"),
        }
    }

    #[test]
    fn every_directive_parses() {
        let shell = |command: &str, outside| Step::Call(Call::Shell { command: command.into(), outside });
        let text = "\n @say hi  there\n@think hm\n@sh echo 'a  b' > f\n@shx id\n@patch a.txt one two\n\
                    @tool Read {\"file_path\":\"/x\"}\n@tool List\n@sleep 0.25\n@error 529 overloaded_error\n@error 500\n\
                    @fail server_error\n@drop\n";
        assert_eq!(
            steps(text),
            [
                Step::Say("hi  there".into()),
                Step::Think("hm".into()),
                shell("echo 'a  b' > f", false),
                shell("id", true),
                Step::Call(Call::Write { file: "a.txt".into(), text: "one two".into() }),
                Step::Call(Call::Named {
                    tool: "Read".into(),
                    input: [("file_path".to_owned(), Value::from("/x"))].into_iter().collect()
                }),
                Step::Call(Call::Named { tool: "List".into(), input: Map::new() }),
                Step::Pause(Duration::from_millis(250)),
                Step::Refuse { status: 529, kind: "overloaded_error".into() },
                Step::Refuse { status: 500, kind: "api_error".into() },
                Step::Fail("server_error".into()),
                Step::Cut,
            ]
        );
    }

    #[test]
    fn what_does_not_begin_with_a_directive_is_plain() {
        for text in ["say hi", "@src/main.rs what is it?", "@sayhi", "", "  ", "text\n@say hi"] {
            assert_eq!(Prompt::parse(text), Prompt::Plain(text.trim().into()), "{text:?}");
        }
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, wanted) in [
            ("@say a\n\nand then", 3),
            ("@say a\n@sh", 2),
            ("@sleep soon", 1),
            ("@sleep -1", 1),
            ("@sleep NaN", 1),
            ("@sleep 86401", 1),
            ("@error 200 fine", 1),
            ("@tool Read [1]", 1),
            ("@say a\n@unknown", 2),
        ] {
            match Prompt::parse(text) {
                Prompt::Broken { line, .. } => assert_eq!(line, wanted, "{text:?}"),
                other => panic!("{text:?} gave {other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_parses(text in "\\PC*") {
            prop_assert!(!matches!(Prompt::parse(&text), Prompt::Script(steps) if steps.is_empty()));
        }

        #[test]
        fn any_text_after_directives_parses(words in proptest::collection::vec(("[@a-z]{0,7}", "\\PC{0,20}"), 0..6)) {
            let text: String = words.iter().map(|(word, rest)| format!("{word} {rest}\n")).collect();
            if let Prompt::Script(steps) = Prompt::parse(&text) {
                prop_assert!(!steps.is_empty());
            }
        }

        #[test]
        fn a_command_reaches_the_step_as_it_was_written(command in "[!-~]([ -~]{0,40}[!-~])?") {
            let text = format!("@sh {command}");
            let expected = vec![Step::Call(Call::Shell { command, outside: false })];
            prop_assert_eq!(steps(&text), expected);
        }
    }
}
