//! Files of an instance by running commands on it, for backends that have nothing better.
//!
//! It needs a POSIX shell with `mkdir`, `rm`, `mv`, `chmod`, `chown`, `wc`, `tail`, `head`, `mktemp` and `base64` there, and
//! a function that runs a command with its input and output in memory. Content is read as base64, so that a backend which
//! treats output as text does no harm, and written through standard input, or as base64 arguments where there is none.
//! Where a backend takes files by itself ([`ExecFiles::with_put`]), commands do only what is around that.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, Result, code};
use crate::shell::{print, printed_size, quote, quote_path};
use crate::types::{CommandSpec, Output, WriteOptions};
use crate::{path, placeholder, text};

/// How much content one command carries, unless [`ExecFiles::with_chunk`] says otherwise: 10 MiB.
pub const CHUNK: usize = 10 * 1024 * 1024;

/// How much content one command carries in its arguments. Linux takes 128 KiB an argument; base64 makes 124 of 93, which
/// leaves room for the script around it and for what a provider wraps it in.
pub const ARGUMENT_CHUNK: usize = 93 * 1024;

const ABSENT: i32 = 44;
const NOT_A_FILE: i32 = 45;
const WRONG_SIZE: i32 = 46;

/// A script that fails takes its temporary file along.
const DROP_IF_FAILED: &str = r#"trap 'r=$?; [ $r -eq 0 ] || rm -f "$t"; exit $r' EXIT"#;

/// Says the name of the temporary file to those who go on with it.
const SAY_NAME: &str = r#"printf '%s\n' "$t""#;

/// How a content gets into a file.
struct Way {
    /// What comes before it; ends the script when it fails.
    prepare: String,
    /// The file, as a word.
    file: String,
    /// What comes behind it.
    finish: String,
    /// The file is `"$t"`, a temporary one.
    keeps_name: bool,
}

/// Puts a content into a file that is there, without changing anything else of it.
type Put = fn(&str, &[u8]) -> Result<()>;

/// File operations over a function that runs commands.
pub struct ExecFiles<E, P = Put> {
    exec: E,
    chunk: usize,
    stdin: bool,
    put: Option<P>,
}

impl<E: Fn(&CommandSpec, &[u8]) -> Result<Output>> ExecFiles<E> {
    /// `exec` runs a command, feeds it the bytes, and returns what it wrote. An exit code is no error to it.
    pub fn new(exec: E) -> Self {
        Self { exec, chunk: CHUNK, stdin: true, put: None }
    }
}

#[expect(clippy::missing_errors_doc, reason = "every method gives the contract's error, documented in types.wit")]
impl<E: Fn(&CommandSpec, &[u8]) -> Result<Output>, P: Fn(&str, &[u8]) -> Result<()>> ExecFiles<E, P> {
    /// For backends that take files by themselves: `put` puts a content into a file that is there, the whole of it or it
    /// fails. Permissions, owners and names stay with the commands.
    #[must_use]
    pub fn with_put<Q: Fn(&str, &[u8]) -> Result<()>>(self, put: Q) -> ExecFiles<E, Q> {
        ExecFiles { exec: self.exec, chunk: self.chunk, stdin: self.stdin, put: Some(put) }
    }

    /// Sets how many bytes of content one command carries, at least one.
    #[must_use]
    pub fn with_chunk(mut self, bytes: usize) -> Self {
        self.chunk = bytes.max(1);
        self
    }

    /// For backends that cannot feed a command: content goes into the arguments, in small pieces.
    #[must_use]
    pub fn without_stdin(mut self) -> Self {
        self.stdin = false;
        self
    }

    /// Reads a whole file.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        const OPERATION: &str = "files.read";
        let file = operand(OPERATION, path)?;
        let mut content = Vec::new();
        let mut size = None;
        loop {
            // `tail` and not `dd skip=`: a piece may begin at any byte.
            let script = format!(
                "[ -e {file} ] || exit {ABSENT}; [ -f {file} ] || exit {NOT_A_FILE}; wc -c < {file} && \
                 tail -c +{} {file} | head -c {} | base64",
                content.len() + 1,
                self.chunk
            );
            let answer = self.run(OPERATION, path, &script, &[])?;
            let (first, encoded) = answer.split_once('\n').unwrap_or((&answer, ""));
            let told: usize = first.trim().parse().map_err(|_| garbled(OPERATION, path))?;
            let encoded: String = encoded.chars().filter(|character| !character.is_whitespace()).collect();
            let piece = STANDARD.decode(encoded).map_err(|_| garbled(OPERATION, path))?;
            let ended = piece.is_empty();
            content.extend(piece);
            if *size.get_or_insert(told) != told || content.len() > told || (ended && content.len() < told) {
                return Err(Error::new(code::CONFLICT, OPERATION, "the file changed while it was read").subject(path));
            }
            if content.len() == told {
                return Ok(content);
            }
        }
    }

    /// Writes a whole file in place and checks its size.
    pub fn write(&self, path: &str, content: &[u8], options: WriteOptions) -> Result<()> {
        const OPERATION: &str = "files.write";
        let file = operand(OPERATION, path)?;
        // Nobody else reads a file that gets a mode of its own before it has it, not even one that was there.
        let create = match options.mode {
            Some(_) => format!("umask 077 && : > {file} && chmod u=rw,go= {file}"),
            None => format!(": > {file}"),
        };
        let prepare = format!("{}[ ! -d {file} ] || exit {NOT_A_FILE}; {create} || exit", parents(path, &options)?);
        let give = chown(OPERATION, &options, "", &file)?;
        let finish = format!("{give}{}{}", chmod(options.mode, &file, ""), self.check_size(&file, content));
        self.pour(OPERATION, path, content, &Way { prepare, file, finish, keeps_name: false })
    }

    /// Writes a whole file so that readers see the old one or the new one: a temporary file beside it gets the mode, is
    /// checked for its size and renamed, all in one command where the content fits into one. When anything fails the
    /// temporary file goes.
    pub fn write_atomic(&self, path: &str, content: &[u8], options: WriteOptions) -> Result<()> {
        const OPERATION: &str = "files.write-atomic";
        let file = operand(OPERATION, path)?;
        let pattern = quote_path(&format!("{}/.{}.XXXXXX", path::parent(path), path::name(path)));
        let prepare = format!(
            "{}[ ! -d {file} ] || exit {NOT_A_FILE}; t=$(mktemp {pattern}) || exit; {DROP_IF_FAILED}",
            parents(path, &options)?
        );
        // `mktemp` makes private files; without a mode it gets what a new file has.
        let give = chown(OPERATION, &options, "-h", "\"$t\"")?;
        let modes = chmod(options.mode, "\"$t\"", "=rw");
        let finish = format!("{give}{modes}{}; mv -f \"$t\" {file}", self.check_size("\"$t\"", content));
        self.pour(OPERATION, path, content, &Way { prepare, file: "\"$t\"".to_owned(), finish, keeps_name: true })
    }

    /// Whether there is a file or a folder.
    pub fn exists(&self, path: &str) -> Result<bool> {
        const OPERATION: &str = "files.exists";
        let file = operand(OPERATION, path)?;
        match self.run(OPERATION, path, &format!("if [ -e {file} ]; then echo yes; else echo no; fi"), &[])?.trim() {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(garbled(OPERATION, path)),
        }
    }

    /// Creates a folder and the missing ones above it.
    pub fn create_directory(&self, path: &str, mode: Option<u32>) -> Result<()> {
        const OPERATION: &str = "files.create-directory";
        let folder = operand(OPERATION, path)?;
        let chmod = chmod(mode, &folder, "");
        self.run(OPERATION, path, &format!("mkdir -p {folder} || exit; {chmod}:"), &[]).map(|_| ())
    }

    /// Removes a file. One that is not there is no error.
    pub fn delete_file(&self, path: &str) -> Result<()> {
        const OPERATION: &str = "files.delete-file";
        let file = operand(OPERATION, path)?;
        self.run(OPERATION, path, &format!("rm -f {file}"), &[]).map(|_| ())
    }

    /// Removes a folder with all that it holds. One that is not there is no error; `/` and the home folder are refused.
    pub fn delete_directory(&self, path: &str) -> Result<()> {
        const OPERATION: &str = "files.delete-directory";
        let folder = operand(OPERATION, path)?;
        // With any folder as home: what matters is what is left.
        let plain = path::absolute(path, "/h")?;
        if plain == "/" || plain == "/h" {
            return Err(Error::invalid(OPERATION, "this folder is not removed").subject(path));
        }
        self.run(OPERATION, path, &format!("rm -rf {folder}"), &[]).map(|_| ())
    }

    /// Runs `prepare`, appends the content to the file in as many commands as it takes, and runs `finish` in the last
    /// one.
    fn pour(&self, operation: &str, path: &str, content: &[u8], way: &Way) -> Result<()> {
        if let Some(put) = &self.put {
            return self.put_between(put, operation, path, content, way);
        }
        let chunk = if self.stdin { self.chunk } else { self.chunk.min(ARGUMENT_CHUNK) };
        let pieces = placeholder::pieces(content, chunk);
        let file = &way.file;
        // The first command prints the temporary file's name for the others.
        let mut begin = format!("{}; ", way.prepare);
        let mut temporary = None;
        for (index, piece) in pieces.iter().enumerate() {
            let last = index + 1 == pieces.len();
            let pour = if self.stdin { "cat".to_owned() } else { print(piece) };
            let end = match (last, index) {
                (true, _) => format!("; {}", way.finish),
                (false, 0) if way.keeps_name => format!("; {SAY_NAME}"),
                (false, _) => String::new(),
            };
            let script = format!("{begin}{pour} >> {file} || exit{end}");
            let result = self.run(operation, path, &script, if self.stdin { piece } else { &[] });
            let result = result.and_then(|answer| {
                if index == 0 && way.keeps_name && !last {
                    temporary = Some(quote_path(said_name(&answer).ok_or_else(|| garbled(operation, path))?));
                }
                Ok(())
            });
            self.or_drop(result, temporary.as_deref(), operation, path)?;
            begin = temporary.as_ref().map(|name| format!("t={name}; ")).unwrap_or_default();
        }
        Ok(())
    }

    /// The same with a content that goes another way, between `prepare` and `finish`.
    fn put_between(&self, put: &P, operation: &str, path: &str, content: &[u8], way: &Way) -> Result<()> {
        if !way.keeps_name {
            self.run(operation, path, &way.prepare, &[])?;
            put(path, content)?;
            return self.run(operation, path, &way.finish, &[]).map(|_| ());
        }
        let answer = self.run(operation, path, &format!("{}; {SAY_NAME}", way.prepare), &[])?;
        let name = said_name(&answer).ok_or_else(|| garbled(operation, path))?;
        let temporary = quote_path(name);
        let result = put(name, content)
            .and_then(|()| self.run(operation, path, &format!("t={temporary}; {}", way.finish), &[]).map(|_| ()));
        self.or_drop(result, Some(&temporary), operation, path)
    }

    /// Removes the temporary file of what failed. What failed is what counts, not whether this worked too.
    fn or_drop(&self, result: Result<()>, temporary: Option<&str>, operation: &str, path: &str) -> Result<()> {
        if let (Err(_), Some(name)) = (&result, temporary) {
            drop(self.run(operation, path, &format!("rm -f {name}"), &[]));
        }
        result
    }

    /// What is put says itself whether it arrived.
    fn check_size(&self, file: &str, content: &[u8]) -> String {
        match self.put {
            Some(_) => ":".to_owned(),
            None => format!("[ \"$(wc -c < {file})\" -eq {} ] || exit {WRONG_SIZE}", printed_size(content)),
        }
    }

    fn run(&self, operation: &str, path: &str, script: &str, input: &[u8]) -> Result<String> {
        let output = (self.exec)(&CommandSpec::shell(script), input).map_err(|error| error.subject(path))?;
        let error = |code: &str, message: String| Err(Error::new(code, operation, message).subject(path));
        match output.status.code() {
            0 => Ok(output.text()),
            ABSENT => error(code::NOT_FOUND, "there is no such file or folder".to_owned()),
            NOT_A_FILE => error(code::INVALID, "this is not a file".to_owned()),
            WRONG_SIZE => error(code::INTEGRITY, "the file did not arrive whole".to_owned()),
            _ => {
                let said = text::tail(&output.stderr, 1, 200);
                error(code::IO, format!("{}: {said}", output.status.describe()))
            }
        }
    }
}

/// A path as a word of a script; those that cannot be one are refused.
fn operand(operation: &str, path: &str) -> Result<String> {
    if path.is_empty() || path.contains('\0') || (path.starts_with('~') && path != "~" && !path.starts_with("~/")) {
        return Err(
            Error::invalid(operation, "this is not a path on the instance").subject(path.escape_debug().to_string())
        );
    }
    Ok(quote_path(path))
}

fn parents(path: &str, options: &WriteOptions) -> Result<String> {
    let folder = operand("files.create-directory", path::parent(path))?;
    Ok(match options.create_parents {
        true => format!("mkdir -p {folder} || exit; "),
        false => format!("[ -d {folder} ] || exit {ABSENT}; "),
    })
}

/// The temporary file's name in what a command answered that says it.
fn said_name(answer: &str) -> Option<&str> {
    let name = answer.strip_suffix('\n')?;
    Some(name.strip_suffix('\r').unwrap_or(name)).filter(|name| !name.is_empty())
}

/// Before the mode: a file that changes hands loses its setuid bits. With `-h` it is never a link's target that does.
fn chown(operation: &str, options: &WriteOptions, how: &str, file: &str) -> Result<String> {
    let owner = options.chown_operand(operation)?;
    Ok(owner.map(|owner| format!("chown {how} {} {file} || exit; ", quote(owner))).unwrap_or_default())
}

fn chmod(mode: Option<u32>, file: &str, without: &str) -> String {
    match (mode, without) {
        (Some(mode), _) => format!("chmod {:o} {file} || exit; ", mode & 0o7777),
        (None, "") => String::new(),
        (None, mode) => format!("chmod {mode} {file} || exit; "),
    }
}

fn garbled(operation: &str, path: &str) -> Error {
    Error::new(code::INTEGRITY, operation, "the instance's answer cannot be read").subject(path)
}

#[cfg(test)]
mod tests;
