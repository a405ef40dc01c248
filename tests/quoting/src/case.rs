//! Random commands.

use pcoder_sdk::{CommandSpec, shell};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// What means something to a shell in the middle of nothing else, or to what a transport does with text.
const SNIPPETS: [&str; 25] = [
    "",
    "-",
    "--",
    "-n",
    "-e",
    "-lc",
    "~",
    "~root",
    "~/",
    ".",
    "..",
    "!!",
    "*",
    "{a,b}",
    "$(id)",
    "`id`",
    "${IFS}",
    "$'\\x41'",
    "'\\''",
    "\\\n",
    "\n\n",
    "\r\n",
    "%s\\n",
    "日本 é🎉",
    "\u{1b}[31m",
];

/// The longest that a long text becomes, quoted twice: a provider quotes once more than what it is given, and the
/// shortest limit of a whole command is 96 KiB.
const LONG: usize = 60_000;

/// A command that prints where it is, its variables and its arguments.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    arguments: Vec<String>,
    values: Vec<String>,
    /// Whose folder is the home, below the root of this case.
    pub(crate) home: String,
    /// Where it runs, below the home.
    pub(crate) folder: String,
    below_home: bool,
    script: bool,
}

impl Case {
    /// As a plugin gets it.
    pub(crate) fn spec(&self, home: &str) -> CommandSpec {
        let variables = (0..self.values.len()).map(|index| format!(" \"$VALUE_{index}\"")).collect::<String>();
        let report = format!("printf '%s\\0' \"$PWD\"{variables} \"$@\"");
        let spec = if self.script {
            CommandSpec::shell(format!("set -- {}\n{report}", shell::join(&self.arguments)))
        } else {
            let arguments = self.arguments.iter().map(String::as_str);
            CommandSpec::argv("sh", ["-c", &report, "sh"].into_iter().chain(arguments))
        };
        let above = if self.below_home { "~" } else { home };
        let spec = spec.in_dir(format!("{above}/{}", self.folder));
        let named = self.values.iter().enumerate();
        named.fold(spec, |spec, (index, value)| spec.with_env(format!("VALUE_{index}"), value))
    }

    /// What it prints.
    pub(crate) fn expected(&self, cwd: &str) -> Vec<u8> {
        let words = [cwd].into_iter().chain(self.values.iter().chain(&self.arguments).map(String::as_str));
        words.flat_map(|word| word.bytes().chain([0])).collect()
    }
}

pub(crate) fn command() -> impl Strategy<Value = Case> {
    let texts = || prop::collection::vec(text(), 0..5);
    let case = (texts(), texts(), name(), folder(), any::<bool>(), any::<bool>()).prop_map(
        |(arguments, values, home, folder, below_home, script)| Case {
            arguments,
            values,
            home,
            folder,
            below_home,
            script,
        },
    );
    let long = prop::option::weighted(0.02, (text(), 0..LONG, any::<Index>()));
    (case, long).prop_map(|(mut case, long)| {
        if let Some((unit, length, index)) = long {
            let mut texts: Vec<_> = case.values.iter_mut().chain(&mut case.arguments).collect();
            if !texts.is_empty() {
                let quoted = shell::quote(&shell::quote(&unit)).len();
                *texts.swap_remove(index.index(texts.len())) = unit.repeat(length / quoted);
            }
        }
        case
    })
}

/// Text that shells find special, control characters, and any other.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[-$`'\"\\\\!*?~#&|;<>(){}\\[\\]= \t\n\r\u{1}a-b^%/]{0,12}",
        4 => "[^\0]{0,20}",
        1 => "[\u{1}-\u{1f}\u{7f}-\u{9f}'\"\\\\a]{1,8}",
        1 => select(&SNIPPETS[..]).prop_map(str::to_owned),
    ]
}

/// One or two folders.
fn folder() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 1..3).prop_map(|names| names.join("/"))
}

fn name() -> impl Strategy<Value = String> {
    let any = prop_oneof![
        2 => "[-$`'\"\\\\!*?~#&|;<>(){}\\[\\]= \t\n\r\u{1}\u{7f}a-b^%:é日]{1,12}",
        // Of characters that Unicode has: some file systems take no others.
        1 => "[\\PC--/]{1,12}",
        1 => select(&SNIPPETS[..]).prop_map(|it| it.replace('/', "")),
    ];
    any.prop_filter("a name", |name| !["", ".", ".."].contains(&name.as_str()))
}
