//! What is ignored: patterns with the syntax of `.gitignore`, and those that the instance can leave out by itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::{Error, Result};
use crate::path::{RESERVED, TreePath, os_name};
use crate::remote::quoted;

/// The name of the files with patterns.
pub(crate) const IGNORE_FILE: &str = ".pcoderignore";

/// What is ignored where nobody says otherwise. A file `.pcoderignore` can take one back: `!node_modules`.
pub const DEFAULTS: [&str; 2] = [".git", "node_modules"];

/// Patterns, from those of the caller to those in the deepest folder; the last one that matches counts.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    caller: Option<Gitignore>,
    /// By the folder that the file is in; the root's has no name.
    files: BTreeMap<Option<TreePath>, Gitignore>,
    prunes: Vec<Prune>,
    negations: Vec<String>,
}

/// A pattern that `find` can take.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Prune {
    /// A name, perhaps with stars, or a path from the root.
    pattern: String,
    only_folders: bool,
}

impl Rules {
    /// # Errors
    /// `Pattern`.
    pub(crate) fn new(defaults: bool, patterns: &[String]) -> Result<Self> {
        let mut rules = Self::default();
        let lines: Vec<&str> =
            DEFAULTS.into_iter().filter(|_| defaults).chain(patterns.iter().map(String::as_str)).collect();
        rules.caller = Some(rules.understand(None, &lines, None)?);
        Ok(rules)
    }

    /// Adds the patterns of a file `.pcoderignore`. Those of the folders above it come first.
    ///
    /// # Errors
    /// `Pattern`: a file that is not ignored by mistake could be a secret that is sent.
    pub(crate) fn add(&mut self, folder: Option<&TreePath>, content: &str) -> Result<()> {
        let file = folder.map(TreePath::to_path_buf).unwrap_or_default().join(IGNORE_FILE);
        let content = content.strip_prefix('\u{feff}').unwrap_or(content);
        let patterns = self.understand(folder, &content.lines().collect::<Vec<_>>(), Some(file))?;
        self.files.insert(folder.cloned(), patterns);
        Ok(())
    }

    fn understand(&mut self, folder: Option<&TreePath>, lines: &[&str], file: Option<PathBuf>) -> Result<Gitignore> {
        let wrong = |error: ignore::Error| Error::Pattern { path: file.clone(), message: error.to_string() };
        let mut builder = GitignoreBuilder::new("");
        for line in lines {
            builder.add_line(None, line).map_err(wrong)?;
            if let Some(negated) = line.strip_prefix('!') {
                self.negations.push(negated.trim_end().trim_end_matches('/').to_owned());
            } else if folder.is_none() {
                self.prunes.extend(prune(line));
            }
        }
        builder.build().map_err(wrong)
    }

    /// Whether something is ignored by itself; not because of the folder that it is in.
    pub(crate) fn ignores(&self, path: &TreePath, is_folder: bool) -> bool {
        if path.name() == RESERVED {
            return true;
        }
        let verdict = |rules: &Gitignore, folder: Option<&TreePath>| {
            let below = folder.map_or(path.as_bytes(), |it| &path.as_bytes()[it.as_bytes().len() + 1..]);
            match rules.matched(os_path(below), is_folder) {
                Match::None => None,
                Match::Ignore(_) => Some(true),
                Match::Whitelist(_) => Some(false),
            }
        };
        if !self.files.is_empty() {
            for folder in path.ancestors().map(Some).chain([None]) {
                if let Some(rules) = self.files.get(&folder)
                    && let Some(ignored) = verdict(rules, folder.as_ref())
                {
                    return ignored;
                }
            }
        }
        self.caller.as_ref().and_then(|it| verdict(it, None)).unwrap_or(false)
    }

    /// The patterns that the instance applies by itself, so that it need not read what is ignored: for `find` an
    /// expression, and for the shell a command that sets `t` to `i` where `$f`, of the type `$t`, is ignored. It may leave
    /// out less than what is ignored, never more.
    pub(crate) fn for_the_instance(&self) -> (String, String) {
        let mut find = format!("-name {}", quoted(&String::from_utf8_lossy(RESERVED)));
        let mut shell = format!("case ${{f##*/}} in {}) t=i;; esac\n", String::from_utf8_lossy(RESERVED));
        for Prune { pattern, only_folders } in self.prunes.iter().filter(|it| !self.takes_back(it)) {
            let kind = if *only_folders { "-type d " } else { "" };
            let test = if pattern.contains('/') { "-path" } else { "-name" };
            let value = if pattern.contains('/') { "$f" } else { "${f##*/}" };
            let types = if *only_folders { "[du]" } else { "?" };
            find += &format!(" -o {kind}{test} {}", quoted(pattern));
            shell += &format!("case $t in {types}) case {value} in {pattern}) t=i;; esac;; esac\n");
        }
        (find, shell)
    }

    /// Whether some pattern might take back what this one ignores.
    fn takes_back(&self, prune: &Prune) -> bool {
        let last = prune.pattern.rsplit('/').next().unwrap_or_default();
        self.negations.iter().any(|negated| {
            let negated = negated.rsplit('/').next().unwrap_or_default();
            last.contains('*') || negated.contains(['*', '?', '[', '\\']) || negated == last
        })
    }
}

/// A pattern, when it is so simple that `find` and the shell read it as git does.
fn prune(line: &str) -> Option<Prune> {
    let line = line.trim_end();
    let (pattern, only_folders) = line.strip_suffix('/').map_or((line, false), |it| (it, true));
    let simple = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'_' | b'-' | b'+');
    let (pattern, anchored) = pattern.strip_prefix('/').map_or((pattern, false), |it| (it, true));
    let anchored = anchored || pattern.contains('/');
    let proper =
        |it: &str| !matches!(it, "" | "." | "..") && it.bytes().all(|it| simple(it) || (it == b'*' && !anchored));
    if !pattern.split('/').all(proper) || pattern.contains("**") {
        return None;
    }
    let pattern = if anchored { format!("./{pattern}") } else { pattern.to_owned() };
    Some(Prune { pattern, only_folders })
}

fn os_path(bytes: &[u8]) -> PathBuf {
    bytes.split(|it| *it == b'/').map(os_name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(patterns: &[&str]) -> Rules {
        Rules::new(true, &patterns.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()).expect("patterns")
    }

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).expect("a path")
    }

    #[test]
    fn the_deepest_file_has_the_last_word() {
        let mut rules = rules(&["*.log"]);
        rules.add(None, "target/\n/only-here\n!node_modules\n# no pattern\n").expect("patterns");
        rules.add(Some(&path("a")), "!*.log\n/b\nx.tmp\n").expect("patterns");
        let ignored = |it: &str, is_folder| rules.ignores(&path(it), is_folder);
        assert!(ignored("x.log", false) && ignored("b/x.log", false) && !ignored("a/x.log", false));
        assert!(ignored("target", true) && !ignored("target", false) && ignored("z/target", true));
        assert!(ignored("only-here", false) && !ignored("a/only-here", false));
        assert!(ignored("a/b", true) && !ignored("b", true) && ignored("a/c/x.tmp", false) && !ignored("x.tmp", false));
        assert!(!ignored("node_modules", true) && ignored(".git", true) && ignored("sub/.git", false));
        assert!(ignored(".pcoder-sync", true) && ignored("a/.pcoder-sync", false));
    }

    #[test]
    fn without_the_defaults_everything_counts() {
        let rules = Rules::new(false, &[]).expect("no patterns");
        assert!(!rules.ignores(&path(".git"), true) && !rules.ignores(&path("node_modules"), true));
    }

    #[test]
    fn a_pattern_that_is_wrong_is_an_error_and_names_its_file() {
        let mut rules = rules(&[]);
        let error = rules.add(Some(&path("a")), "good\n{a,b\n").expect_err("a brace is open");
        assert_eq!(error.path(), Some(PathBuf::from("a").join(IGNORE_FILE).as_path()));
    }

    #[test]
    fn only_what_the_shell_reads_as_git_does_is_left_to_it() {
        for (line, pattern, only_folders) in
            [("target/", "target", true), ("*.o", "*.o", false), ("/build", "./build", false), ("a/b/ ", "./a/b", true)]
        {
            assert_eq!(prune(line), Some(Prune { pattern: pattern.to_owned(), only_folders }), "{line}");
        }
        for line in
            ["", "# a", "a b", "a?", "[ab]", "**/x", "a/*.o", "\\!a", "ä", "$(x)", "`x`", "a'b", "a\\ ", "..", "a//b"]
        {
            assert_eq!(prune(line), None, "{line}");
        }
    }

    #[test]
    fn what_may_be_taken_back_is_not_left_out_by_the_instance() {
        let mut rules = rules(&["*.o", "target"]);
        assert!(rules.for_the_instance().0.contains("*.o"));
        rules.add(Some(&path("deep")), "!target\n").expect("patterns");
        let (find, _) = rules.for_the_instance();
        assert!(!find.contains("target") && !find.contains("*.o") && find.contains("node_modules"), "{find}");
        rules.add(None, "!node_*\n").expect("patterns");
        assert!(!rules.for_the_instance().0.contains("node_modules"));
    }
}
