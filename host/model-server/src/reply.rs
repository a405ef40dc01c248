//! What the model answers, from the state of the conversation alone.
//!
//! A script is cut at its tool calls: the first reply has the steps up to and including the first call, the agent runs
//! the tool and asks again with the output, the second reply has the steps up to and including the second call, and so
//! on. So the number of tool outputs since the newest prompt says where the script stands, and nothing needs to be kept.

use std::time::Duration;

use crate::script::{Call, Prompt, Step};

/// Where a conversation stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conversation {
    /// The newest text that a person wrote.
    pub prompt: String,
    /// The outputs of the tools that were called since.
    pub results: Vec<String>,
}

/// One answer of the model.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// An HTTP error instead of an answer.
    Refuse {
        /// The HTTP status.
        status: u16,
        /// The error's type.
        kind: String,
    },
    /// An answer.
    Parts(Vec<Part>),
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// A text for the person.
    Text(String),
    /// A thought.
    Thought(String),
    /// A tool call. It is the last part.
    Call(Call),
    /// Time that passes.
    Pause(Duration),
    /// A failure after the stream began. It is the last part.
    Fail(String),
    /// The connection is cut here. It is the last part.
    Cut,
}

impl Conversation {
    /// The model's next answer.
    #[must_use]
    pub fn reply(&self) -> Reply {
        match Prompt::parse(&self.prompt) {
            Prompt::Plain(text) => say(format!("offline model: {text}")),
            Prompt::Broken { line, message } => say(format!("offline model: line {line} of the script: {message}")),
            Prompt::Script(steps) => self.perform(steps),
        }
    }

    fn perform(&self, steps: Vec<Step>) -> Reply {
        let mut calls_before = 0;
        let mut parts = Vec::new();
        for step in steps {
            if calls_before < self.results.len() {
                calls_before += usize::from(matches!(step, Step::Call(_)));
                continue;
            }
            let last = match step {
                Step::Say(text) => {
                    self.add_text(&mut parts, &text);
                    false
                }
                Step::Think(text) => {
                    parts.push(Part::Thought(text));
                    false
                }
                Step::Pause(pause) => {
                    parts.push(Part::Pause(pause));
                    false
                }
                // Before anything was sent it is an HTTP status; later only the stream can carry it.
                Step::Refuse { status, kind } if parts.is_empty() => {
                    return Reply::Refuse { status, kind };
                }
                Step::Refuse { kind: code, .. } | Step::Fail(code) => {
                    parts.push(Part::Fail(code));
                    true
                }
                Step::Call(call) => {
                    parts.push(Part::Call(call));
                    true
                }
                Step::Cut => {
                    parts.push(Part::Cut);
                    true
                }
            };
            if last {
                return Reply::Parts(parts);
            }
        }
        // An answer without a text would leave the person who asked with nothing to read.
        if !parts.iter().any(|part| matches!(part, Part::Text(_))) {
            parts.push(Part::Text(format!("done: {}", self.result())));
        }
        Reply::Parts(parts)
    }

    fn add_text(&self, parts: &mut Vec<Part>, text: &str) {
        let text = text.replace("$RESULT", self.result());
        // Both agents print only the last text of an answer when they run without a terminal.
        if let Some(Part::Text(before)) = parts.last_mut() {
            before.push('\n');
            before.push_str(&text);
        } else {
            parts.push(Part::Text(text));
        }
    }

    fn result(&self) -> &str {
        self.results.last().map_or("", |result| result.trim())
    }
}

fn say(text: String) -> Reply {
    Reply::Parts(vec![Part::Text(text)])
}

/// Whether a text in the user's role was written by the agent, not by the person: agents put their reminders and the
/// description of the machine there, each in one pair of tags.
pub(crate) fn is_context(text: &str) -> bool {
    let text = text.trim();
    if text.starts_with("# AGENTS.md instructions") || text.starts_with("[Request interrupted by user") {
        return true;
    }
    let Some(rest) = text.strip_prefix('<') else {
        return false;
    };
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))).unwrap_or(rest.len());
    let tag = &rest[..end];
    !tag.is_empty() && text.ends_with(&format!("</{tag}>"))
}

/// Cuts a text into pieces of at most `size` characters. An empty text gives none.
pub(crate) fn pieces(text: &str, size: usize) -> Vec<&str> {
    let size = size.max(1);
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let cut = rest.char_indices().nth(size).map_or(rest.len(), |(index, _)| index);
        let (piece, after) = rest.split_at(cut);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reply(prompt: &str, results: &[&str]) -> Reply {
        Conversation { prompt: prompt.into(), results: results.iter().map(|&result| result.into()).collect() }.reply()
    }

    fn shell(command: &str) -> Part {
        Part::Call(Call::Shell { command: command.into(), outside: false })
    }

    #[test]
    fn a_plain_prompt_is_echoed() {
        assert_eq!(reply("say hi\n", &[]), say("offline model: say hi".into()));
    }

    #[test]
    fn a_script_goes_from_call_to_call() {
        let script = "@think hm\n@say first\n@sh a\n@say got $RESULT\n@say and\n@sleep 1\n@sh b\n";
        assert_eq!(
            reply(script, &[]),
            Reply::Parts(vec![Part::Thought("hm".into()), Part::Text("first".into()), shell("a")])
        );
        assert_eq!(
            reply(script, &["one\n"]),
            Reply::Parts(vec![Part::Text("got one\nand".into()), Part::Pause(Duration::from_secs(1)), shell("b")])
        );
        assert_eq!(reply(script, &["one", " two "]), say("done: two".into()));
        assert_eq!(reply(script, &["one", "two", "three"]), say("done: three".into()));
    }

    #[test]
    fn an_error_is_a_status_only_while_nothing_was_sent() {
        let refused = Reply::Refuse { status: 429, kind: "rate_limit_error".into() };
        assert_eq!(reply("@error 429 rate_limit_error", &[]), refused);
        assert_eq!(reply("@sh a\n@error 429 rate_limit_error", &["x"]), refused);
        assert_eq!(
            reply("@say a\n@error 429 rate_limit_error\n@say never", &[]),
            Reply::Parts(vec![Part::Text("a".into()), Part::Fail("rate_limit_error".into())])
        );
    }

    #[test]
    fn a_broken_script_says_so() {
        let Reply::Parts(parts) = reply("@say a\nb", &[]) else { panic!("refused") };
        assert_eq!(
            parts,
            [Part::Text("offline model: line 2 of the script: `b` is no directive; a script has one a line".into())]
        );
    }

    #[test]
    fn what_the_agent_wrote_is_context() {
        for text in [
            "<system-reminder>\nx\n</system-reminder>",
            " <environment_context>a</environment_context>\n",
            "# AGENTS.md instructions for /x",
            "[Request interrupted by user for tool use]",
            "<permissions instructions>x</permissions>",
        ] {
            assert!(is_context(text), "{text}");
        }
        for text in ["hi", "<", "< b", "<b>bold</b> text", "a <b>bold</b>"] {
            assert!(!is_context(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_the_text(text in "\\PC*", size in 0usize..9) {
            let pieces = pieces(&text, size);
            prop_assert_eq!(pieces.concat(), text.as_str());
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.chars().count() <= size.max(1)));
        }
    }
}
