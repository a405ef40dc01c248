//! Reads the command line of a program that is not ours, as far as it takes to tell its own commands from the values of
//! its options and from what its user wrote.

/// Which of a program's options take a value that is a word of its own. Each is written as the program takes it: `-m`,
/// `--model`. Short options may stand together, and a value may be attached (`-mX`, `--model=X`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Values<'a> {
    /// Take the next word, whatever it is.
    pub one: &'a [&'a str],
    /// Take the next word unless it begins with `-`.
    pub optional: &'a [&'a str],
    /// Take the next word and all after it up to one that begins with `-`.
    pub many: &'a [&'a str],
}

/// What a word of a command line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// An option, with what is attached to it.
    Option(&'a str),
    /// Neither an option nor the value of one.
    Operand(&'a str),
    /// It follows an option that is not listed, so that it is that one's value or an operand.
    ValueOrOperand(&'a str),
    /// The `--` after which nothing is an option.
    End,
}

/// The words of a command line, without the values of the options that are listed.
pub fn words<'a>(args: &'a [String], values: &Values<'_>) -> Vec<Word<'a>> {
    let mut found = Vec::new();
    let mut args = args.iter().map(String::as_str).peekable();
    let mut after_unknown = false;
    while let Some(word) = args.next() {
        if word == "--" {
            found.push(Word::End);
            found.extend(args.by_ref().map(Word::Operand));
            break;
        }
        if !is_option(word) {
            found.push(if after_unknown { Word::ValueOrOperand(word) } else { Word::Operand(word) });
            after_unknown = false;
            continue;
        }
        found.push(Word::Option(word));
        after_unknown = false;
        match taken(word, values) {
            Taken::Nothing => {}
            Taken::Unknown => after_unknown = true,
            Taken::One => drop(args.next()),
            Taken::Optional => drop(args.next_if(|next| !is_option(next))),
            Taken::Many => {
                args.next();
                while args.next_if(|next| !is_option(next)).is_some() {}
            }
        }
    }
    found
}

/// `-` alone stands for standard input.
fn is_option(word: &str) -> bool {
    word.starts_with('-') && word != "-"
}

/// What an option takes of the words behind it.
enum Taken {
    Nothing,
    One,
    Optional,
    Many,
    Unknown,
}

fn taken(word: &str, values: &Values<'_>) -> Taken {
    if word.starts_with("--") {
        return if word.contains('=') { Taken::Nothing } else { of(word, values) };
    }
    // The first letter that takes a value has the rest of the word for it, if there is any.
    for (at, letter) in word.char_indices().skip(1) {
        let rest = &word[at + letter.len_utf8()..];
        match of(&format!("-{letter}"), values) {
            Taken::Unknown if rest.starts_with('=') => return Taken::Nothing,
            Taken::Unknown => {}
            _ if !rest.is_empty() => return Taken::Nothing,
            known => return known,
        }
    }
    Taken::Unknown
}

fn of(option: &str, values: &Values<'_>) -> Taken {
    if values.one.contains(&option) {
        Taken::One
    } else if values.optional.contains(&option) {
        Taken::Optional
    } else if values.many.contains(&option) {
        Taken::Many
    } else {
        Taken::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values<'_> =
        Values { one: &["-m", "--model"], optional: &["-d", "--debug"], many: &["-i", "--image"] };

    /// Operands as they are, those that may be values with `?`, options with nothing.
    fn operands(line: &str) -> String {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let shown = words(&args, &VALUES).into_iter().filter_map(|word| match word {
            Word::Operand(text) => Some(text.to_owned()),
            Word::ValueOrOperand(text) => Some(format!("{text}?")),
            Word::Option(_) => None,
            Word::End => Some("--".to_owned()),
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn values_are_no_operands() {
        for (line, expected) in [
            ("a b", "a b"),
            ("-m x a", "a"),
            ("-mx a", "a"),
            ("-m=x a", "a"),
            ("--model x a", "a"),
            ("--model=x a", "a"),
            ("--model -x a", "a"),
            ("-d x a", "a"),
            ("-d -m x a", "a"),
            ("--debug=x a", "a"),
            ("-dx a", "a"),
            ("-i x y -m z a", "a"),
            ("-i x y", ""),
            ("--image=x a", "a"),
            ("-ix a", "a"),
            // Several short ones in one word.
            ("-cm x a", "a"),
            ("-cmx a", "a"),
            // Not listed.
            ("-c a b", "a? b"),
            ("--other a b", "a? b"),
            ("--other=x a", "a"),
            ("-o=x a", "a"),
            // The end of options, and standard input.
            ("a -- -m b", "a -- -m b"),
            ("-m x - a", "- a"),
            ("", ""),
        ] {
            assert_eq!(operands(line), expected, "{line}");
        }
    }
}
