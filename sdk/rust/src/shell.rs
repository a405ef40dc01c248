//! Words and command lines for a POSIX shell.
//!
//! A word that is quoted here reaches the program byte for byte, in `sh`, `dash`, `bash` and every other POSIX shell: in
//! single quotes nothing is special but the single quote itself. (JSON's quoting is not a shell's: `"$(x)"` still runs
//! `x`.)

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, Result};
use crate::placeholder;
use crate::types::{Command, CommandSpec};

/// Quotes one word. Words of harmless characters stay as they are, for readability.
pub fn quote(word: &str) -> String {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(harmless) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Quotes words and joins them with spaces.
pub fn join<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    words.into_iter().map(|word| quote(word.as_ref())).collect::<Vec<_>>().join(" ")
}

/// A command that prints `content` byte for byte, whatever it holds: it travels as base64. Inside `"$(…)"` a shell drops
/// the newlines at its end. The shell's side needs `base64`. Placeholders of secrets are printed as their values.
pub fn print(content: impl AsRef<[u8]>) -> String {
    let content = content.as_ref();
    let decoded = |text: &str| format!("printf %s {text} | base64 -d");
    let spans = placeholder::spans(content);
    if spans.is_empty() {
        return decoded(&STANDARD.encode(content));
    }
    let mut steps = Vec::new();
    let mut done = 0;
    for span in spans {
        if done < span.start {
            steps.push(decoded(&STANDARD.encode(&content[done..span.start])));
        }
        done = span.end;
        steps.push(decoded(&placeholder::as_base64(&content[span])));
    }
    if done < content.len() {
        steps.push(decoded(&STANDARD.encode(&content[done..])));
    }
    format!("{{ {}; }}", steps.join(" && "))
}

/// The number of bytes that [`print()`] prints, as a word of a script.
pub fn printed_size(content: impl AsRef<[u8]>) -> String {
    let content = content.as_ref();
    let spans = placeholder::spans(content);
    let plain = content.len() - spans.iter().map(ExactSizeIterator::len).sum::<usize>();
    if spans.is_empty() {
        return plain.to_string();
    }
    let of = |span: std::ops::Range<usize>| {
        format!(" + $(printf %s {} | base64 -d | wc -c)", placeholder::as_base64(&content[span]))
    };
    format!("\"$(({plain}{}))\"", spans.into_iter().map(of).collect::<String>())
}

/// Quotes a path, leaving a leading `~/` to the shell: `~/a b` becomes `"$HOME"/'a b'`.
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

/// A whole command as one line for `sh -c`: changes folder, sets the variables and the path, and becomes the command.
///
/// The shell that reads the line needs nothing but POSIX. A failure to change folder ends it before the command.
///
/// # Errors
/// `invalid` when a name cannot be a variable's, or when anything holds a NUL, which no command line can carry.
pub fn line(spec: &CommandSpec) -> Result<String> {
    let mut steps = Vec::new();
    if let Some(cwd) = &spec.cwd {
        steps.push(format!("cd {}", quote_path(cwd)));
    }
    for setting in &spec.env {
        if !is_name(&setting.name) {
            return Err(Error::invalid("shell.line", "this cannot be the name of an environment variable")
                .subject(setting.name.escape_debug().to_string()));
        }
        steps.push(format!("export {}={}", setting.name, quote(&setting.value)));
    }
    if !spec.path_entries.is_empty() {
        if let Some(entry) = spec.path_entries.iter().find(|entry| entry.contains(':')) {
            return Err(Error::invalid("shell.line", "a folder on PATH cannot have a colon in its name").subject(entry));
        }
        let entries: Vec<_> = spec.path_entries.iter().map(|entry| quote_path(entry)).collect();
        steps.push(format!("export PATH={}${{PATH:+\":$PATH\"}}", entries.join(":")));
    }
    steps.push(match &spec.command {
        Command::Argv(argv) => {
            format!("exec {}", join(std::iter::once(&argv.program).chain(&argv.args)))
        }
        Command::Shell(script) => format!("exec sh -c {}", quote(script)),
    });
    let line = steps.join(" && ");
    if line.contains('\0') {
        return Err(Error::invalid("shell.line", "a command line cannot hold a NUL character"));
    }
    Ok(line)
}

/// Whether a text can be the name of a variable in a POSIX shell.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests;
