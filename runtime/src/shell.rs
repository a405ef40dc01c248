//! Command lines for a POSIX shell, where a command must be one line: over SSH.
//!
//! The same rules as the SDK's (`sdk/rust/src/shell.rs`), for the other side of the boundary: a plugin depends on the
//! SDK alone, and the host on neither.

use crate::bindings::host::pcoder::plugin::types::{Command, CommandSpec};
use crate::error::{Error, code};

const OPERATION: &str = "ssh.exec";

/// Quotes one word: in single quotes nothing is special but the single quote itself.
pub fn quote(word: &str) -> String {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(harmless) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Quotes a path, leaving a leading `~/` to the shell.
pub fn quote_path(path: &str) -> String {
    match path.strip_prefix('~') {
        Some("") => r#""$HOME""#.to_owned(),
        Some(rest) if rest.starts_with('/') => match rest.trim_start_matches('/') {
            "" => r#""$HOME""#.to_owned(),
            rest => format!(r#""$HOME"/{}"#, quote(rest)),
        },
        _ if path.starts_with('-') => quote(&format!("./{path}")),
        _ => quote(path),
    }
}

/// A whole command as one line: changes folder, sets the variables and the path, and becomes the command.
///
/// # Errors
/// `invalid` when a name cannot be a variable's, or when anything holds a NUL, which no command line can carry.
pub(crate) fn line(spec: &CommandSpec) -> Result<String, Error> {
    let invalid = |message: &str| Error::new(code::INVALID, OPERATION, message);
    let mut steps = Vec::new();
    if let Some(cwd) = &spec.cwd {
        steps.push(format!("cd {}", quote_path(cwd)));
    }
    for setting in &spec.env {
        if !is_name(&setting.name) {
            return Err(invalid("this cannot be the name of an environment variable")
                .subject(crate::text::for_people(&setting.name, 128)));
        }
        steps.push(format!("export {}={}", setting.name, quote(&setting.value)));
    }
    if !spec.path_entries.is_empty() {
        if let Some(entry) = spec.path_entries.iter().find(|entry| entry.contains(':')) {
            return Err(invalid("a folder on PATH cannot have a colon in its name")
                .subject(crate::text::for_people(entry, 400)));
        }
        let entries: Vec<_> = spec.path_entries.iter().map(|entry| quote_path(entry)).collect();
        steps.push(format!("export PATH={}${{PATH:+\":$PATH\"}}", entries.join(":")));
    }
    steps.push(match &spec.command {
        Command::Argv(argv) => {
            let words: Vec<_> = std::iter::once(&argv.program).chain(&argv.args).map(|word| quote(word)).collect();
            format!("exec {}", words.join(" "))
        }
        Command::Shell(script) => format!("exec sh -c {}", quote(script)),
    });
    let line = steps.join(" && ");
    if line.contains('\0') {
        return Err(invalid("a command line cannot hold a NUL character"));
    }
    Ok(line)
}

/// Whether a text can be the name of a variable in a POSIX shell.
fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::host::pcoder::plugin::types::{Argv, Setting};

    fn spec(args: &[&str]) -> CommandSpec {
        let args = args.iter().map(|&it| it.to_owned()).collect();
        CommandSpec {
            command: Command::Argv(Argv { program: "printf".into(), args }),
            cwd: None,
            env: Vec::new(),
            path_entries: Vec::new(),
            name: None,
        }
    }

    #[cfg(unix)]
    fn run(spec: &CommandSpec) -> String {
        let line = line(spec).expect("a line");
        let output = std::process::Command::new("sh").args(["-c", &line]).output().expect("a shell");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[cfg(unix)]
    #[test]
    fn every_word_arrives_byte_for_byte() {
        let words = ["", "a b", "it's", "$(id)", "`id`", "\"", "\\", "a\nb", "*", "~", "-x", "é", "'; exit 3; '", "#"];
        let expected: String = words.iter().map(|word| format!("[{word}]")).collect();
        assert_eq!(run(&spec(&[&["[%s]"][..], &words[..]].concat())), expected);
        let mut in_env = spec(&["%s", "x"]);
        for word in words {
            in_env.env = vec![Setting { name: "VALUE".into(), value: word.into() }];
            in_env.command = Command::Shell("printf '[%s]' \"$VALUE\"".into());
            assert_eq!(run(&in_env), format!("[{word}]"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_folder_and_the_path_are_set() {
        let mut it = spec(&[]);
        it.cwd = Some("/".into());
        it.path_entries = vec!["/first place".into(), "/second".into()];
        it.command = Command::Shell("pwd; printf %s \"$PATH\"".into());
        assert!(run(&it).starts_with("/\n/first place:/second:"), "{}", run(&it));
    }

    #[test]
    fn what_no_line_can_carry_is_refused() {
        for name in ["", "a b", "1a", "a=b", "a;id"] {
            let mut it = spec(&[]);
            it.env = vec![Setting { name: name.into(), value: String::new() }];
            assert!(line(&it).is_err(), "{name}");
        }
        assert!(line(&spec(&["a\0b"])).is_err());
    }
}
