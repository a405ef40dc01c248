//! An agent that does what no agent should: its world has no imports but the log, so all it can harm is itself.
#![allow(clippy::panic, reason = "crashing is what it is for")]
#![allow(clippy::result_large_err, reason = "the contract's error is a record with room for what went wrong")]

use std::hint::black_box;

use pcoder_sdk::host::AgentHost;
use pcoder_sdk::{Agent, AgentInfo, CommandSpec, Launch, Result};

/// The agent.
#[derive(Default)]
pub struct Hostile;

impl Agent for Hostile {
    fn info(&self) -> AgentInfo {
        AgentInfo {
            name: "hostile".to_owned(),
            title: "Hostile".to_owned(),
            description: "Does what no agent should".to_owned(),
            engines: Vec::new(),
            acp_engines: Vec::new(),
            environment: Vec::new(),
            account_environment: Vec::new(),
            api_key_variable: None,
            features: Vec::new(),
        }
    }

    /// The first argument is the attack.
    fn command(&self, _: AgentHost<'_>, launch: Launch) -> Result<CommandSpec> {
        match launch.args.first().map_or("", String::as_str) {
            "loop" => loop {
                black_box(());
            },
            "allocate" => {
                let mut held: Vec<Vec<u8>> = Vec::new();
                loop {
                    held.push(black_box(vec![1; 1 << 20]));
                }
            }
            "panic" => panic!("on purpose"),
            _ => Ok(CommandSpec::shell("x".repeat(64 << 20))),
        }
    }
}

pcoder_sdk::export!(agent: Hostile);
