//! The subcommands that would replace the engine with another one.
//!
//! What Claude Code takes for a subcommand was tried with 0.3.156 and 0.3.316: the first operand, also behind options and
//! also behind `--`. With `-p` there are no subcommands, and the same word is a prompt.

use pcoder_sdk::words::{Values, Word, words};
use pcoder_sdk::{Launch, Result};

const SELF_UPDATES: [&str; 3] = ["update", "upgrade", "install"];

/// Options of Claude Code that take values, those that its help does not show among them. The word behind one that is
/// missing here may be refused where it was harmless, and never the other way round.
const VALUES: Values<'_> = Values {
    one: &[
        "--ablation",
        "--advisor",
        "--agent",
        "--agent-color",
        "--agent-id",
        "--agent-name",
        "--agent-type",
        "--agents",
        "--append-subagent-system-prompt",
        "--append-subagent-system-prompt-file",
        "--append-system-prompt",
        "--append-system-prompt-file",
        "--autocompact",
        "--debug-file",
        "--deep-link-last-fetch",
        "--deep-link-repo",
        "--effort",
        "--fallback-model",
        "--inherit-permission-mode",
        "--input-format",
        "--json-schema",
        "--managed-settings",
        "--max-budget-usd",
        "--max-thinking-tokens",
        "--max-turns",
        "--messaging-socket-path",
        "--model",
        "--name",
        "--output-format",
        "--parent-session-id",
        "--permission-mode",
        "--permission-prompt-tool",
        "--permission-prompts",
        "--plan-mode-instructions",
        "--plugin-dir",
        "--plugin-dir-no-mcp",
        "--plugin-url",
        "--prefill",
        "--proactivity",
        "--project-config-root",
        "--remote",
        "--remote-control-session-name-prefix",
        "--rewind-files",
        "--sdk-url",
        "--session-id",
        "--setting-sources",
        "--settings",
        "--system-prompt",
        "--system-prompt-file",
        "--system-prompt-snapshot",
        "--task-budget",
        "--team-name",
        "--teammate-mode",
        "--thinking",
        "--thinking-display",
        "--workload",
        "-n",
    ],
    optional: &[
        "--debug",
        "--from-pr",
        "--prompt-suggestions",
        "--rc",
        "--remote-control",
        "--resume",
        "--teleport",
        "--worktree",
        "-d",
        "-r",
        "-w",
    ],
    many: &[
        "--add-dir",
        "--allowed-tools",
        "--allowedTools",
        "--betas",
        "--channels",
        "--dangerously-load-development-channels",
        "--disallowed-tools",
        "--disallowedTools",
        "--file",
        "--mcp-config",
        "--tools",
    ],
};

/// Refuses a command line that would replace the engine, unless that is allowed.
pub(crate) fn refuse(launch: &Launch) -> Result<()> {
    launch.refuse_self_update("claude", found(&launch.args))
}

fn found(args: &[String]) -> Option<&str> {
    let words = words(args, &VALUES);
    let prints = |word: &Word<'_>| matches!(word, Word::Option("-p" | "--print"));
    if words.iter().take_while(|word| **word != Word::End).any(prints) {
        return None;
    }
    for word in words {
        match word {
            Word::Operand(word) => return SELF_UPDATES.contains(&word).then_some(word),
            Word::ValueOrOperand(word) if SELF_UPDATES.contains(&word) => return Some(word),
            _ => {}
        }
    }
    None
}
