//! The words of a command line of Codex, and where settings of ours go in it.
//!
//! Each subcommand takes `-c` anew. Newer engines add them all up. 0.128.0 keeps those of the innermost subcommand that
//! has any, and forgets the others: `codex -c a=1 exec -c b=2` runs without `a`. So ours stand in front of the user's in
//! each of them.

use pcoder_sdk::words::Values;

/// Options of Codex itself that take values.
pub(crate) const VALUES: Values<'_> = Values {
    one: &[
        "--add-dir",
        "--ask-for-approval",
        "--cd",
        "--config",
        "--disable",
        "--enable",
        "--local-provider",
        "--model",
        "--profile",
        "--remote",
        "--remote-auth-token-env",
        "--sandbox",
        "-C",
        "-a",
        "-c",
        "-m",
        "-p",
        "-s",
    ],
    optional: &[],
    many: &["--image", "-i"],
};

/// The subcommands whose own arguments are none of Codex'.
pub(crate) const SUBCOMMANDS: [&str; 33] = [
    "a",
    "agents",
    "app",
    "app-server",
    "apply",
    "archive",
    "cloud",
    "completion",
    "debug",
    "delete",
    "doctor",
    "e",
    "exec",
    "exec-server",
    "execpolicy",
    "features",
    "fork",
    "help",
    "login",
    "logout",
    "mcp",
    "mcp-server",
    "migrate-nfs-db",
    "migrate-rollouts",
    "plugin",
    "queue",
    "remote-control",
    "responses-api-proxy",
    "resume",
    "review",
    "sandbox",
    "stdio-to-uds",
    "unarchive",
];

/// Those of them that talk to a model. None takes another program's command line.
const WITH_MODEL: [&str; 7] = ["app-server", "e", "exec", "fork", "mcp-server", "resume", "review"];
/// Subcommands of `exec`.
const OF_EXEC: [&str; 2] = ["resume", "review"];

/// The user's arguments, with `ours` in front of them, and again in front of the first `-c` of each subcommand.
pub(crate) fn in_front(ours: &[String], args: &[String]) -> Vec<String> {
    if ours.is_empty() {
        return args.to_vec();
    }
    let mut line = ours.to_vec();
    let mut have_ours = true;
    let mut subcommand = None;
    let mut rest = args;
    while let [word, after @ ..] = rest {
        if word == "--" {
            break;
        }
        if !word.starts_with('-') {
            let begins = match subcommand {
                None if WITH_MODEL.contains(&word.as_str()) => true,
                None if SUBCOMMANDS.contains(&word.as_str()) => break,
                Some("exec" | "e") => OF_EXEC.contains(&word.as_str()),
                _ => false,
            };
            if begins {
                subcommand = Some(word.as_str());
                have_ours = false;
            }
        } else if is_setting(word) && !have_ours {
            line.extend_from_slice(ours);
            have_ours = true;
        }
        // The word with its value, if that is a word of its own.
        let taken = if VALUES.one.contains(&word.as_str()) { after.get(..1).unwrap_or_default() } else { &[] };
        line.push(word.clone());
        line.extend_from_slice(taken);
        rest = after.get(taken.len()..).unwrap_or_default();
    }
    line.extend_from_slice(rest);
    line
}

fn is_setting(word: &str) -> bool {
    word == "--config" || word.starts_with("--config=") || (word.starts_with("-c") && !word.starts_with("--"))
}
