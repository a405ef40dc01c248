//! Capability `exec`: programs on the host.
//!
//! An argument list is where a program is turned into another one (`git -c alias…`, `find -exec`, `env`), so a grant
//! names a program together with a grammar of its arguments, and nothing matches by default.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{Class, Effect};
use crate::error::{Error, code};
use crate::manifest::{AS_CALLED, Capabilities, Exec};

/// A command that would be run.
#[derive(Clone, Debug)]
pub enum Command {
    /// The command that this call was asked to run, compared field by field before this is made.
    AsCalled {
        /// The program or `sh`, for the audit.
        program: String,
    },
    /// A program by name.
    Named {
        /// What the plugin asked for: a name or an absolute path.
        program: String,
        /// Its arguments.
        args: Vec<String>,
        /// The names of the variables that the plugin sets for it.
        env: Vec<String>,
    },
}

impl Command {
    /// The grant that allows this, and the line of its grammar.
    fn grant<'a>(&self, capabilities: &'a Capabilities) -> Option<(&'a Exec, &'a str)> {
        capabilities.exec.iter().find_map(|grant| match self {
            Self::AsCalled { .. } => (grant.program == AS_CALLED).then_some((grant, "")),
            Self::Named { program, args, env } => {
                let line = grant.args.iter().find(|line| Grammar::parse(line).is_ok_and(|it| it.accepts(args)))?;
                let same = grant.program != AS_CALLED && same_program(&grant.program, program);
                (same && env.iter().all(|name| grant.env.contains(name))).then_some((grant, line.as_str()))
            }
        })
    }

    /// The program as the grant names it: what a name was resolved to when it was granted.
    pub(crate) fn granted_program(&self, capabilities: &Capabilities) -> Option<String> {
        self.grant(capabilities).map(|(grant, _)| grant.program.clone()).filter(|it| Path::new(it).is_absolute())
    }

    /// The digest that the grant pins the program to.
    pub(crate) fn pinned(&self, capabilities: &Capabilities) -> Option<String> {
        self.grant(capabilities).and_then(|(grant, _)| grant.sha256.clone())
    }
}

impl Effect for Command {
    const CLASS: Class = Class::Exec;

    fn verb(&self) -> &'static str {
        "run"
    }

    fn describe(&self) -> String {
        match self {
            Self::AsCalled { program } => format!("{program} ({AS_CALLED})"),
            // Arguments may hold what the user typed; the program and how many there are is enough to find the rule.
            Self::Named { program, args, .. } => format!("{program} with {} arguments", args.len()),
        }
    }

    fn allowed_by(&self, capabilities: &Capabilities) -> Option<String> {
        let (grant, line) = self.grant(capabilities)?;
        Some(format!("exec {} {line}", grant.program).trim_end().to_owned())
    }
}

/// A grant may hold the absolute path that a name was resolved to. A plugin that asks for a path must name that very
/// one; a plugin that asks for a name gets the granted path.
pub(super) fn same_program(granted: &str, asked: &str) -> bool {
    if granted == asked {
        return true;
    }
    let granted = Path::new(granted);
    let ending = granted.extension().is_some_and(|it| it.eq_ignore_ascii_case("exe"));
    granted.is_absolute()
        && !asked.contains(['/', '\\'])
        && (granted.file_name().is_some_and(|name| name == asked)
            || ending && granted.file_stem().is_some_and(|stem| stem == asked))
}

/// What arguments may be, word by word.
///
/// A word of the grammar is a literal, or one of `<word>` (letters, digits, `.`, `_`, `-`, `:` and `/`, not beginning
/// with `-`), `<number>`, `<any>` (one argument that does not begin with `-`), or, last, `...` (any number of
/// arguments that do not begin with `-`).
#[derive(Debug)]
pub struct Grammar(Vec<Word>);

#[derive(Debug)]
enum Word {
    Literal(String),
    Plain,
    Number,
    Any,
    Rest,
}

impl Grammar {
    /// Reads one line.
    ///
    /// # Errors
    /// `invalid` for an unknown placeholder and for `...` that is not last.
    pub fn parse(line: &str) -> Result<Self, Error> {
        let refuse = |message: String| Error::new(code::INVALID, "plugin.manifest", message).subject(line);
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut grammar = Vec::with_capacity(words.len());
        for (index, word) in words.iter().enumerate() {
            grammar.push(match *word {
                "<word>" => Word::Plain,
                "<number>" => Word::Number,
                "<any>" => Word::Any,
                "..." if index + 1 == words.len() => Word::Rest,
                "..." => return Err(refuse("`...` must come last in an argument grammar".into())),
                other if other.starts_with('<') => {
                    return Err(refuse(format!("unknown placeholder `{other}` in an argument grammar")));
                }
                literal => Word::Literal(literal.to_owned()),
            });
        }
        Ok(Self(grammar))
    }

    /// Whether these arguments fit.
    pub fn accepts(&self, args: &[String]) -> bool {
        let rest = matches!(self.0.last(), Some(Word::Rest));
        let fixed = self.0.len() - usize::from(rest);
        if args.len() < fixed || (!rest && args.len() > fixed) {
            return false;
        }
        let plain = |argument: &str| !argument.starts_with('-') && !argument.contains('\0');
        self.0.iter().zip(args).all(|(word, argument)| match word {
            Word::Literal(literal) => literal == argument,
            Word::Plain => {
                !argument.is_empty()
                    && plain(argument)
                    && argument.chars().all(|it| it.is_ascii_alphanumeric() || "._-:/".contains(it))
            }
            Word::Number => !argument.is_empty() && argument.bytes().all(|byte| byte.is_ascii_digit()),
            Word::Any | Word::Rest => plain(argument),
        }) && args.iter().skip(fixed).all(|argument| plain(argument))
    }
}

pub(super) fn check(request: &Exec) -> Result<(), Error> {
    let refuse = |message: &str| Error::new(code::INVALID, "plugin.manifest", message).subject(&request.program);
    if request.program == AS_CALLED {
        return if !request.args.is_empty() {
            Err(refuse("`as called` takes no argument grammar: the arguments are the call's"))
        } else if !request.env.is_empty() {
            Err(refuse("`as called` takes no variables: they are the call's"))
        } else if request.sha256.is_some() {
            Err(refuse("`as called` takes no digest: the program is the call's"))
        } else {
            Ok(())
        };
    }
    if request.program.is_empty() || request.program.contains('\0') {
        return Err(refuse("a program needs a name"));
    }
    if request.args.is_empty() {
        return Err(refuse("a program needs an argument grammar: without one, no arguments would be allowed"));
    }
    if request.sha256.as_deref().is_some_and(|it| it.len() != 64 || !it.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        return Err(refuse("a sha256 is 64 hexadecimal digits"));
    }
    request.args.iter().try_for_each(|line| Grammar::parse(line).map(drop))
}

/// Checks the bytes of a program against a digest, in hexadecimal of either case.
///
/// What is checked is started a moment later by its name. The plugin cannot swap it in between: one that may write the
/// program's folder may not run it.
///
/// # Errors
/// `denied` when they are other bytes, `io` when they cannot be read.
pub fn check_digest(program: &Path, sha256: &str) -> Result<(), Error> {
    if digest(program)?.eq_ignore_ascii_case(sha256) {
        return Ok(());
    }
    Err(Error::new(code::DENIED, RUN, "the program has other bytes than the ones that were granted")
        .subject(program.display().to_string())
        .hint("if it was updated, grant it again"))
}

const RUN: &str = "process.run";

/// The sha256 of a program's file, in hexadecimal: what a grant pins it to.
///
/// # Errors
/// `io` when it cannot be read.
pub fn digest(program: &Path) -> Result<String, Error> {
    let failed = |error: std::io::Error| Error::io(RUN, program.display().to_string(), &error);
    let mut hasher = Sha256::new();
    let mut file = std::io::BufReader::with_capacity(1 << 16, std::fs::File::open(program).map_err(failed)?);
    loop {
        let bytes = file.fill_buf().map_err(failed)?;
        if bytes.is_empty() {
            return Ok(crate::artifact::hex(&hasher.finalize()));
        }
        hasher.update(bytes);
        let read = bytes.len();
        file.consume(read);
    }
}

/// Finds a granted program: the absolute path in the grant, or a name looked up on the host's `PATH`.
///
/// # Errors
/// `not-found`.
pub fn resolve(program: &str, path: Option<&std::ffi::OsStr>) -> Result<PathBuf, Error> {
    let direct = Path::new(program);
    if direct.is_absolute() {
        return Ok(direct.to_path_buf());
    }
    pcoder_lookup::program(program, path).ok_or_else(|| {
        Error::new(code::NOT_FOUND, "process.run", "there is no such program on the PATH")
            .subject(crate::text::for_people(program, 200))
            .hint("install it, or give its absolute path")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(line: &str, args: &[&str]) -> bool {
        let args: Vec<String> = args.iter().map(|&it| it.to_owned()).collect();
        Grammar::parse(line).expect("a valid grammar").accepts(&args)
    }

    #[test]
    fn an_option_never_passes_for_an_argument() {
        assert!(accepts("inspect <word>", &["inspect", "web-1"]));
        assert!(!accepts("inspect <word>", &["inspect", "--format={{.Env}}"]));
        assert!(!accepts("inspect <word>", &["inspect", "a b"]));
        assert!(!accepts("inspect <any>", &["inspect", "-v"]));
        assert!(!accepts("logs ...", &["logs", "a", "--follow"]));
        assert!(accepts("logs ...", &["logs", "a", "b"]));
    }

    #[test]
    fn more_or_fewer_arguments_do_not_fit() {
        assert!(!accepts("ls", &["ls", "extra"]));
        assert!(!accepts("ls <number>", &["ls"]));
        assert!(accepts("ls <number>", &["ls", "42"]));
        assert!(!accepts("ls <number>", &["ls", "4e2"]));
        assert!(accepts("", &[]));
    }

    #[test]
    fn a_grammar_that_cannot_be_enforced_is_refused() {
        assert!(Grammar::parse("a ... b").is_err());
        assert!(Grammar::parse("<path>").is_err());
    }

    #[test]
    fn a_path_is_not_taken_for_a_granted_name() {
        assert!(same_program("/usr/bin/podman", "podman"));
        assert!(same_program("podman", "podman"));
        assert!(!same_program("podman", "/tmp/podman"));
        assert!(!same_program("/usr/bin/podman", "/tmp/podman"));
    }
}
