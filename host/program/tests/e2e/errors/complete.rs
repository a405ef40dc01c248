//! That no error is made without being shown in a snapshot.

use std::collections::BTreeMap;
use std::path::Path;

use syn::visit::Visit;

/// Errors that nothing can make happen in a test of the whole program, each with the reason.
const NOT_SHOWN: &[(&str, &str)] = &[
    ("a `/tmp` of its own is not to be had here", "it is had on Linux, by this program"),
    ("the agent's changes are still on the instance: {}", "`remote::runs` has it"),
    ("the instance's shell does not say where its home is", "every provider that is built in says so itself"),
    ("this provider does not say that it runs commands on this machine", "the command line runs such a run elsewhere"),
    ("it was stopped", "`remote::instances` has it"),
    ("it was stopped, and failed meanwhile: {}", "`remote::instances` has it"),
    ("it was stopped, and the new instance could not be ended: {}", "`remote::instances` has it"),
    ("this provider has no terminals", "those that are built in have them"),
    ("two host keys were seen at once, and one cannot be right", "two at once; a test of known hosts has it"),
    ("the instance is still there", "it takes a service that ends nothing and says that it did"),
    ("the answer was {ended}, {:?}, {:?}", "it takes a service that loses outputs"),
    ("{} bytes came back of {}, with the mode {mode}", "it takes an instance that does not keep files"),
    ("the agent did not end within {} s", "it takes three minutes"),
    ("the agent ended with {code_shown} and without the answer: {}", "it takes a machine; a test of machines has it"),
    ("a plugin changed while it was copied", "it was looked at a moment before"),
    ("another export made that folder meanwhile", "two at once; a test of portable folders has it"),
    ("compiling it takes more than it may ({status})", "it takes a component that exhausts a compiler for minutes"),
    ("it was not compiled within {} s", "the same"),
    ("its code is larger than 1 GiB", "the same"),
    ("nobody said how plugins are compiled here", "an embedding program forgot to; this one does not"),
    ("the compiler cannot be limited: {error}", "a process may always lower its own limits"),
    ("the compiler has no pipes", "it was started with them"),
    ("the export was stopped; nothing of it is left", "between two small files; within an engine, the store says it"),
    ("the lookup crashed", "a defect"),
    ("the system does not say where this program is", "Linux does"),
    ("this program was built without its plugins", "the one that is tested has them"),
    ("the key that was kept is none", "no plugin that is built in has one made yet"),
    (
        "nothing runs virtual machines here ({})",
        "it takes a QEMU that cannot emulate, and says what else this host has",
    ),
    ("there are no engines for a machine of this processor's architecture", "this computer's has some"),
    ("no port of the instance is free for the way back to this host", "it takes a machine with three of them taken"),
    ("no randomness: {error}", "the system has it"),
    ("this tool takes no key", "every tool that is built in takes one"),
];

/// Where errors are made, and what of them is somebody else's: sessions over ACP and the demonstration have tests of
/// their own.
const SOURCES: [&str; 2] = ["../core/src", "../cli/src"];
const ELSEWHERE: [&str; 3] = ["acp.rs", "demo.rs", "target.rs"];

/// Names under which a message is put together before an error is made of it.
const NAMES: [&str; 1] = ["message"];

/// Names of functions and closures that make an error of a text that they are given.
const MAKERS: [&str; 4] = ["damaged", "exists", "refused", "unsupported"];

/// How many errors a file makes whose words come from elsewhere: another crate's error, or a text that a maker was given.
const PASSED_ON: [(&str, usize); 18] = [
    ("audit_log.rs", 1),
    ("auth.rs", 1),
    ("compile.rs", 1),
    ("errors.rs", 5),
    ("fetch.rs", 1),
    ("files.rs", 1),
    ("manifest.rs", 1),
    ("output.rs", 1),
    ("plugin.rs", 1),
    ("private_tmp.rs", 1),
    ("profile.rs", 1),
    ("profiles.rs", 1),
    ("run_surroundings.rs", 1),
    ("secret.rs", 1),
    ("secrets.rs", 1),
    ("settings.rs", 1),
    ("smoke.rs", 1),
    ("usage.rs", 1),
];

/// The texts of the errors that a file makes, as they are written there.
#[derive(Default)]
struct Made {
    texts: Vec<String>,
    /// Errors whose words are no text in this place.
    passed_on: usize,
}

impl<'ast> Visit<'ast> for Made {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.ident != "tests" {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(function) = &*call.func {
            let names: Vec<String> = function.path.segments.iter().map(|it| it.ident.to_string()).collect();
            let makes = names.iter().rev().take(2).map(String::as_str).eq(["new", "Error"]);
            if let (true, Some(message)) = (makes, call.args.iter().nth(2)) {
                let before = self.texts.len();
                Texts(&mut self.texts).visit_expr(message);
                let named = matches!(message, syn::Expr::Path(it) if NAMES.iter().any(|name| it.path.is_ident(name)));
                self.passed_on += usize::from(self.texts.len() == before && !named);
            }
            if MAKERS.iter().any(|it| function.path.is_ident(it)) {
                call.args.iter().for_each(|it| Texts(&mut self.texts).visit_expr(it));
            }
        }
        syn::visit::visit_expr_call(self, call);
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if let (syn::Pat::Ident(name), Some(init)) = (&local.pat, &local.init)
            && NAMES.iter().any(|it| name.ident == it)
        {
            Texts(&mut self.texts).visit_expr(&init.expr);
        }
        syn::visit::visit_local(self, local);
    }
}

/// Every text in an expression: of a macro, the first, which is the format.
struct Texts<'a>(&'a mut Vec<String>);

impl<'ast> Visit<'ast> for Texts<'_> {
    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.0.push(text.value());
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let first = call.tokens.clone().into_iter().next().map(|it| it.to_string());
        if let Some(text) = first.and_then(|it| syn::parse_str::<syn::LitStr>(&it).ok()) {
            self.0.push(text.value());
        }
    }
}

/// What of a format stays the same whatever is put into it.
fn fixed_parts(format: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0_u32;
    for letter in format.replace("{{", "(").replace("}}", ")").chars() {
        match (letter, depth) {
            ('{', _) => depth += 1,
            ('}', _) => {
                depth -= 1;
                parts.push(String::new());
            }
            (_, 0) => parts.last_mut().expect("one").push(letter),
            _ => {}
        }
    }
    parts.into_iter().map(|it| it.trim().to_owned()).filter(|it| it.len() > 2).collect()
}

/// Whether a line has all of these, one after the other.
fn has(line: &str, parts: &[String]) -> bool {
    let mut rest = line;
    !parts.is_empty()
        && parts.iter().all(|part| match rest.find(part.as_str()) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
}

fn files(folder: &Path, ending: &str, into: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, ending, into);
        } else if path.extension().is_some_and(|it| it == ending) {
            into.push(path);
        }
    }
}

#[test]
fn every_error_is_in_a_snapshot() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut snapshots = Vec::new();
    files(&here.join("tests/e2e/errors"), "snap", &mut snapshots);
    let shown: String = snapshots.iter().map(|it| std::fs::read_to_string(it).expect("a snapshot")).collect();
    let lines: Vec<&str> = shown.lines().filter(|line| !line.starts_with(['$', '#'])).collect();
    assert!(lines.len() > 500, "the snapshots are there: {}", lines.len());

    let mut made: BTreeMap<String, String> = BTreeMap::new();
    let mut passed_on = Vec::new();
    let mut sources = Vec::new();
    for folder in SOURCES {
        files(&here.join(folder), "rs", &mut sources);
    }
    for path in sources.iter().filter(|path| !ELSEWHERE.iter().any(|it| path.ends_with(it))) {
        let text = std::fs::read_to_string(path).expect("a source");
        let mut found = Made::default();
        found.visit_file(&syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        // Between words, as in `join(" ")`, there is nothing to compare.
        let words = found.texts.into_iter().filter(|it| it.contains(char::is_alphabetic));
        made.extend(words.map(|message| (message, path.display().to_string())));
        if found.passed_on > 0 {
            passed_on.push((path.file_name().expect("a name").to_string_lossy().into_owned(), found.passed_on));
        }
    }
    passed_on.sort();
    let known: Vec<(String, usize)> = PASSED_ON.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    assert_eq!(passed_on, known, "another error has words that are not written where it is made: is it in a snapshot?");
    assert!(made.len() > 60, "the errors are found: {}", made.len());

    let is_shown = |message: &str| lines.iter().any(|line| has(line, &fixed_parts(message)));
    let excused = |message: &str| NOT_SHOWN.iter().any(|(text, _)| *text == message);
    let missing: Vec<String> = made
        .iter()
        .filter(|(message, _)| !is_shown(message) && !excused(message))
        .map(|(message, path)| format!("{path}: {message}"))
        .collect();
    assert!(missing.is_empty(), "no snapshot shows these errors:\n{}", missing.join("\n"));
    for (message, why) in NOT_SHOWN {
        assert!(made.contains_key(*message), "this is not an error any more: `{message}` ({why})");
        assert!(!is_shown(message), "this is shown: `{message}` ({why})");
    }
}
