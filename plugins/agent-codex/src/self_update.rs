//! The subcommand that would replace the engine with another one.
//!
//! What Codex takes for a subcommand was tried with 0.128.0 and 0.166.0: any operand before `--` that is the name of one,
//! also behind options and also behind a prompt. All that follows is that subcommand's.

use pcoder_sdk::words::{Word, words};
use pcoder_sdk::{Launch, Result};

use crate::options::{SUBCOMMANDS, VALUES};

const SELF_UPDATE: &str = "update";

/// Refuses a command line that would replace the engine, unless that is allowed.
pub(crate) fn refuse(launch: &Launch) -> Result<()> {
    launch.refuse_self_update("codex", found(&launch.args).then_some(SELF_UPDATE))
}

fn found(args: &[String]) -> bool {
    let words = words(args, &VALUES);
    let operands = words.into_iter().take_while(|word| *word != Word::End).filter_map(|word| match word {
        Word::Operand(word) | Word::ValueOrOperand(word) => Some(word),
        _ => None,
    });
    operands.into_iter().find(|word| *word == SELF_UPDATE || SUBCOMMANDS.contains(word)) == Some(SELF_UPDATE)
}
