//! What hints tell people to type must exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Command, CommandFactory as _, Parser as _};

use crate::args::Arguments;

/// The sources of everything that speaks to people, without comments: those speak to us. What clap shows of a comment
/// is for people again.
fn sources() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for folder in ["runtime", "host", "sdk", "plugins"] {
        rust_files(&root.join(folder), &mut files);
    }
    let mut all = String::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let shown = file.ends_with("cli/src/args.rs") || file.parent().is_some_and(|it| it.ends_with("cli/src/args"));
        let lines = text.lines().map(str::trim_start).filter(|line| !line.starts_with("//") || shown);
        // A text goes on in the next line behind a backslash.
        lines.for_each(|line| match line.strip_suffix('\\') {
            Some(line) => all.push_str(line),
            None => all.extend([line, "\n"]),
        });
    }
    all
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !["tests", "target"].contains(&name) {
                rust_files(&path, found);
            }
        } else if name.ends_with(".rs") && !["tests.rs", "hints.rs"].contains(&name) {
            found.push(path);
        }
    }
}

/// What stands in backticks and begins like this, with a word for everything that is filled in when it is said.
fn in_backticks(sources: &str, begin: &str) -> BTreeSet<String> {
    let begin = format!("`{begin}");
    let found = sources.match_indices(&begin).filter_map(|(at, _)| {
        let text = sources.get(at + 1..)?.split_once(['`', '\n'])?.0.replace('…', "x");
        let mut plain = String::new();
        let mut depth = 0;
        for character in text.chars() {
            match character {
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    plain.push('x');
                }
                _ if depth == 0 => plain.push(character),
                _ => {}
            }
        }
        Some(plain)
    });
    found.collect()
}

#[test]
fn every_command_that_a_hint_names_exists() {
    let commands = in_backticks(&sources(), "pcoder ");
    assert!(commands.len() > 10, "hints are found: {commands:?}");
    for command in commands {
        match Arguments::try_parse_from(command.split_whitespace()) {
            Ok(_) => {}
            Err(error) if shows_help(error.kind()) => {}
            Err(error) => panic!("`{command}`: {error}"),
        }
    }
}

/// A command that only others stand below, named by itself, shows them.
fn shows_help(kind: ErrorKind) -> bool {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    matches!(kind, DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand | DisplayVersion)
}

#[test]
fn every_option_that_a_hint_names_exists() {
    fn options(command: &Command, found: &mut BTreeSet<String>) {
        found
            .extend(command.get_arguments().filter_map(|argument| argument.get_long()).map(|name| format!("--{name}")));
        command.get_subcommands().for_each(|it| options(it, found));
    }
    let mut known = BTreeSet::from(["--help".to_owned(), "--version".to_owned()]);
    options(&Arguments::command(), &mut known);
    let named = in_backticks(&sources(), "--");
    assert!(named.len() > 3, "hints are found: {named:?}");
    // `--` alone is where the agent's own arguments begin.
    for text in named.iter().filter(|text| text[2..].starts_with(|it: char| it.is_ascii_alphabetic())) {
        let option = text.split([' ', '=']).next().unwrap_or_default();
        assert!(known.contains(option), "`{text}`");
    }
}

/// The help lists the commands in groups, by hand. It must list them all, with what each says of itself.
#[test]
fn the_help_lists_every_command_with_its_own_words() {
    let mut command = Arguments::command();
    let help = command.render_help().to_string();
    for inner in command.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help") {
        let about = inner.get_about().map(ToString::to_string).unwrap_or_default();
        let line = format!("  {:<12} {about}", inner.get_name());
        assert!(help.lines().any(|it| it.trim_end() == line.trim_end()), "`{line}` is not in the help:\n{help}");
    }
}
