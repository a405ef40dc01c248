//! How a grant says what a service may be started with and told: options with gaps, and JSON with gaps.

use serde_json::Value;

use crate::error::{Error, code};

/// A key that a message may have beyond what its template has: with it an answer is found among others.
const ID: &str = "id";

/// A text with gaps: `file=<path>,format=raw`.
///
/// A gap is `<number>` (digits), `<name>` (letters, digits, `_` and `-`, not beginning with `-`) or `<path>` (names and
/// dots with `/` between them, relative, without `..`), `<ROOT:path>` (the same below a root of files) or `<line>` (what can
/// be printed of ASCII, without quotes and backslashes). What follows a gap must be something that the gap cannot hold, so
/// that there is one way to read a text.
#[derive(Debug, PartialEq)]
pub(super) struct Gaps(Vec<Piece>);

#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Number,
    Name,
    Path,
    /// Below a root of files.
    Below(String),
    Line,
}

impl Piece {
    fn may_hold(&self, character: char) -> bool {
        match self {
            Self::Text(_) => false,
            Self::Number => character.is_ascii_digit(),
            Self::Name => character.is_ascii_alphanumeric() || "_-".contains(character),
            Self::Path | Self::Below(_) => character.is_ascii_alphanumeric() || "_-./".contains(character),
            Self::Line => matches!(character, ' '..='~') && !"\"'\\".contains(character),
        }
    }

    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Text(literal) => literal == text,
            Self::Number | Self::Line => !text.is_empty(),
            Self::Name => !text.is_empty() && !text.starts_with('-'),
            Self::Path | Self::Below(_) => {
                let part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.starts_with('-');
                text.split('/').all(part)
            }
        }
    }
}

impl Gaps {
    fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |message: &str| Err(Error::new(code::INVALID, "plugin.manifest", message).subject(text));
        let mut pieces: Vec<Piece> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, after) = match rest.split_once('<') {
                Some((literal, after)) => (literal, Some(after)),
                None => (rest, None),
            };
            if let Some(first) = literal.chars().next() {
                if pieces.last().is_some_and(|gap| gap.may_hold(first)) {
                    return refuse("what follows a placeholder must be something that it cannot hold");
                }
                pieces.push(Piece::Text(literal.to_owned()));
            }
            let Some(after) = after else { break };
            if literal.is_empty() && !pieces.is_empty() {
                return refuse("something must be between two placeholders");
            }
            let (gap, after) = match after.split_once('>') {
                Some(("number", after)) => (Piece::Number, after),
                Some(("name", after)) => (Piece::Name, after),
                Some(("path", after)) => (Piece::Path, after),
                Some(("line", after)) => (Piece::Line, after),
                Some((gap, after)) if gap.strip_suffix(":path").is_some_and(is_root) => {
                    (Piece::Below(gap.trim_end_matches(":path").to_owned()), after)
                }
                _ => return refuse("the placeholders are `<number>`, `<name>`, `<path>`, `<ROOT:path>` and `<line>`"),
            };
            pieces.push(gap);
            rest = after;
        }
        Ok(Self(pieces))
    }

    /// The pieces of a text, where it is one that has them.
    fn read<'a>(&'a self, text: &'a str) -> Option<Vec<(&'a Piece, &'a str)>> {
        let mut read = Vec::with_capacity(self.0.len());
        let mut rest = text;
        for piece in &self.0 {
            let length = match piece {
                Piece::Text(literal) if rest.starts_with(literal.as_str()) => literal.len(),
                Piece::Text(_) => return None,
                gap => rest.find(|character| !gap.may_hold(character)).unwrap_or(rest.len()),
            };
            let (part, after) = rest.split_at(length);
            if !piece.holds(part) {
                return None;
            }
            read.push((piece, part));
            rest = after;
        }
        rest.is_empty().then_some(read)
    }

    fn accept(&self, text: &str) -> bool {
        self.read(text).is_some()
    }

    /// The text with paths of this host in the place of those below roots.
    fn fill(&self, text: &str, find: &Find<'_>) -> Result<String, Error> {
        let mut filled = String::with_capacity(text.len());
        for (piece, part) in self.read(text).unwrap_or_default() {
            match piece {
                Piece::Below(root) => filled.push_str(&find(root, part)?),
                _ => filled.push_str(part),
            }
        }
        Ok(filled)
    }
}

/// Where a file below a root is on this host.
pub(crate) type Find<'a> = dyn Fn(&str, &str) -> Result<String, Error> + 'a;

/// The name of a root, as it stands in a placeholder.
fn is_root(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// One argument.
pub(super) enum Word {
    Text(Gaps),
    /// A JSON object, whichever way it is written.
    Json(Template),
}

impl Word {
    fn parse(word: &str) -> Result<Self, Error> {
        if word.starts_with('{') {
            return Template::parse(word).map(Self::Json);
        }
        Gaps::parse(word).map(Self::Text)
    }

    fn accept(&self, argument: &str) -> bool {
        match self {
            Self::Text(gaps) => gaps.accept(argument),
            Self::Json(Template(template)) => {
                serde_json::from_str(argument).is_ok_and(|argument| same(template, &argument))
            }
        }
    }

    pub(super) fn fill(&self, argument: &str, find: &Find<'_>) -> Result<String, Error> {
        match self {
            Self::Text(gaps) => gaps.fill(argument, find),
            // As it was read and compared: a key that was there twice is there once.
            Self::Json(Template(template)) => {
                let read: Value = serde_json::from_str(argument).unwrap_or_default();
                Ok(filled(template, read, find)?.to_string())
            }
        }
    }
}

/// A value that is [`same`] as its template, with paths of this host.
fn filled(template: &Value, value: Value, find: &Find<'_>) -> Result<Value, Error> {
    Ok(match (template, value) {
        (Value::String(template), Value::String(text)) => Gaps::parse(template)?.fill(&text, find)?.into(),
        (Value::Array(templates), Value::Array(items)) => {
            let items = templates.iter().zip(items).map(|(template, item)| filled(template, item, find));
            items.collect::<Result<Vec<_>, _>>()?.into()
        }
        (Value::Object(templates), Value::Object(fields)) => {
            let fields = fields.into_iter().map(|(key, field)| match templates.get(&key) {
                Some(template) => Ok((key, filled(template, field, find)?)),
                None => Ok((key, field)),
            });
            Value::Object(fields.collect::<Result<_, Error>>()?)
        }
        (_, value) => value,
    })
}

/// Arguments as a sequence of options.
pub(super) struct Options(Vec<Vec<Word>>);

impl Options {
    pub(super) fn parse(lines: &[String]) -> Result<Self, Error> {
        let mut options = Vec::with_capacity(lines.len());
        for line in lines {
            let words: Vec<Word> = line.split_whitespace().map(Word::parse).collect::<Result<_, _>>()?;
            // One that begins with a gap would begin like every other one.
            if !matches!(words.first(), Some(Word::Text(Gaps(pieces))) if matches!(pieces[..], [Piece::Text(_)])) {
                let message = "an option begins with a word that has no placeholder";
                return Err(Error::new(code::INVALID, "plugin.manifest", message).subject(line));
            }
            options.push(words);
        }
        Ok(Self(options))
    }

    /// Option by option, and of several that fit the longest. So a list is refused now and then that could have been
    /// read in another way, and none is accepted that is not made of options.
    pub(super) fn read<'a>(&'a self, args: &'a [String]) -> Option<Vec<(&'a Word, &'a String)>> {
        let mut read = Vec::with_capacity(args.len());
        let mut rest = args;
        while !rest.is_empty() {
            let fits = |words: &&Vec<Word>| {
                rest.len() >= words.len() && words.iter().zip(rest).all(|(word, argument)| word.accept(argument))
            };
            // The longest, so that `-S` and `-S <path>` can both be there.
            let words = self.0.iter().filter(fits).max_by_key(|words| words.len())?;
            read.extend(words.iter().zip(rest));
            rest = rest.get(words.len()..).unwrap_or_default();
        }
        Some(read)
    }

    pub(super) fn accept(&self, args: &[String]) -> bool {
        self.read(args).is_some()
    }
}

/// A message, as JSON: its objects have the same keys, its arrays the same lengths, its texts may have gaps, and the text
/// `<number>` alone stands for a whole number. An `id` is always allowed beside the keys of the whole message.
pub(super) struct Template(pub(super) Value);

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |message: String| Error::new(code::INVALID, "plugin.manifest", message).subject(text);
        let value: Value =
            serde_json::from_str(text).map_err(|error| invalid(format!("a message is JSON: {error}")))?;
        if !value.is_object() {
            return Err(invalid("a message is an object".into()));
        }
        check_texts(&value)?;
        Ok(Self(value))
    }

    pub(super) fn accepts(&self, message: &Value) -> bool {
        match message {
            Value::Object(fields) if fields.contains_key(ID) && self.0.get(ID).is_none() => {
                let mut fields = fields.clone();
                let id = fields.remove(ID);
                id.is_some_and(|id| {
                    id.is_u64()
                        || id
                            .as_str()
                            .is_some_and(|id| Piece::Name.holds(id) && id.chars().all(|it| Piece::Name.may_hold(it)))
                }) && same(&self.0, &Value::Object(fields))
            }
            message => same(&self.0, message),
        }
    }
}

/// Whether a text of it stands for a file below a root.
pub(super) fn names_root(value: &Value) -> bool {
    match value {
        Value::String(text) => {
            Gaps::parse(text).is_ok_and(|Gaps(pieces)| pieces.iter().any(|it| matches!(it, Piece::Below(_))))
        }
        Value::Array(items) => items.iter().any(names_root),
        Value::Object(fields) => fields.values().any(names_root),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn check_texts(value: &Value) -> Result<(), Error> {
    match value {
        Value::String(text) => Gaps::parse(text).map(drop),
        Value::Array(items) => items.iter().try_for_each(check_texts),
        Value::Object(fields) => fields.values().try_for_each(check_texts),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn same(template: &Value, message: &Value) -> bool {
    match (template, message) {
        (Value::String(template), Value::String(text)) => Gaps::parse(template).is_ok_and(|it| it.accept(text)),
        (Value::String(template), Value::Number(number)) => template == "<number>" && number.is_u64(),
        (Value::Array(templates), Value::Array(items)) => {
            templates.len() == items.len() && templates.iter().zip(items).all(|(template, item)| same(template, item))
        }
        (Value::Object(templates), Value::Object(fields)) => {
            templates.len() == fields.len()
                && templates.iter().all(|(key, template)| fields.get(key).is_some_and(|field| same(template, field)))
        }
        (template, message) => template == message,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn options(lines: &[&str]) -> Result<Options, Error> {
        Options::parse(&lines.iter().map(|&it| it.to_owned()).collect::<Vec<_>>())
    }

    fn accept(lines: &[&str], args: &[&str]) -> bool {
        options(lines).expect("valid").accept(&args.iter().map(|&it| it.to_owned()).collect::<Vec<_>>())
    }

    const QEMU: &[&str] = &[
        "-nodefaults",
        "-S",
        "-S <path>",
        "-m <number>M",
        "-drive if=none,id=<name>,file=<path>,format=raw,readonly=on",
        "-netdev user,id=<name>,restrict=on,hostfwd=tcp:127.0.0.1:0-:<number>",
    ];

    #[test]
    fn arguments_are_options_in_any_order() {
        assert!(accept(QEMU, &[]));
        assert!(accept(QEMU, &["-m", "512M", "-nodefaults"]));
        assert!(accept(QEMU, &["-S", "-nodefaults", "-S", "x/y.z", "-S"]));
        assert!(accept(QEMU, &["-drive", "if=none,id=root,file=images/a-1.0/root.img,format=raw,readonly=on"]));
        assert!(accept(QEMU, &["-netdev", "user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"]));
    }

    #[test]
    fn paths_below_roots_are_filled_in_where_the_template_has_them() {
        let lines = [
            "-kernel <images:path>",
            "-append <line>",
            r#"-blockdev {"file":{"filename":"<images:path>"},"node-name":"<name>"}"#,
        ];
        let options = options(&lines).expect("valid");
        let args = [
            "-append",
            "console=ttyS0 quiet",
            "-kernel",
            "a/vmlinux",
            "-blockdev",
            r#"{"node-name":"n","file":{"filename":"a/x"}}"#,
        ];
        let args = args.map(str::to_owned);
        let find = |root: &str, path: &str| Ok(format!("/{root} \"1\"/{path}"));
        let read = options.read(&args).expect("they fit");
        let filled: Vec<String> =
            read.into_iter().map(|(word, argument)| word.fill(argument, &find).expect("filled")).collect();
        let (blockdev, others) = filled.split_last().expect("six");
        assert_eq!(others, ["-append", "console=ttyS0 quiet", "-kernel", "/images \"1\"/a/vmlinux", "-blockdev"]);
        // In whichever order its fields are written.
        let blockdev: Value = serde_json::from_str(blockdev).expect("JSON");
        assert_eq!(blockdev, json!({ "file": { "filename": "/images \"1\"/a/x" }, "node-name": "n" }));
        assert!(Gaps::parse("<Images:path>").is_err() && Gaps::parse("<:path>").is_err());
    }

    #[test]
    fn nothing_else_is_an_option() {
        for args in [
            &["-m"][..],
            &["-m", "M"],
            &["-m", "512M,maxmem=1"],
            &["-m", "-S"],
            &["512M"],
            &["-monitor", "stdio"],
            &["-drive", "if=none,id=root,file=/etc/shadow,format=raw,readonly=on"],
            &["-drive", "if=none,id=root,file=../x,format=raw,readonly=on"],
            &["-drive", "if=none,id=root,file=a/../../x,format=raw,readonly=on"],
            &["-drive", "if=none,id=root,file=a/./x,format=raw,readonly=on"],
            &["-drive", "if=none,id=root,file=a//x,format=raw,readonly=on"],
            &["-drive", "if=none,id=root,file=-x,format=raw,readonly=on"],
            &["-drive", "if=none,id=root,file=a,format=raw,readonly=on,file=b"],
            &["-drive", "if=none,id=root,file=a,id=b,format=raw,readonly=on"],
            &["-drive", "if=none,id=,file=a,format=raw,readonly=on"],
            &["-netdev", "user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22,guestfwd=tcp:1.2.3.4:5-cmd:sh"],
            &["-netdev", "user,id=n0,restrict=off,hostfwd=tcp:127.0.0.1:0-:22"],
        ] {
            assert!(!accept(QEMU, args), "{args:?}");
        }
        assert!(!accept(&[], &["-S"]));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for line in [
            "-a <path>.img",
            "-a <number>0",
            "-a <name><name>",
            "-a <name><path>",
            "-a <file>",
            "-a <path",
            "<path>",
            "<name>=1",
            "",
        ] {
            assert!(options(&[line]).is_err(), "{line}");
        }
    }

    fn template(text: &str) -> Template {
        Template::parse(text).expect("valid")
    }

    fn says(template: &Template, message: &str) -> bool {
        template.accepts(&serde_json::from_str(message).expect("JSON"))
    }

    #[test]
    fn a_message_is_its_template_with_the_gaps_filled() {
        let stop = template(r#"{"execute":"stop"}"#);
        assert!(says(&stop, r#"{"execute":"stop"}"#));
        assert!(says(&stop, r#"{"id":7,"execute":"stop"}"#));
        assert!(says(&stop, r#"{"id":"a-7","execute":"stop"}"#));
        for other in [
            r#"{"execute":"quit"}"#,
            r#"{"execute":"stop","arguments":{}}"#,
            r#"{"id":{"execute":"quit"},"execute":"stop"}"#,
            r#"{"id":"a b","execute":"stop"}"#,
            r#"{"exec-oob":"stop"}"#,
            r#"["stop"]"#,
            r#""stop""#,
            "null",
        ] {
            assert!(!says(&stop, other), "{other}");
        }
        let migrate =
            template(r#"{"execute":"migrate","arguments":{"uri":"file:<path>","rate":"<number>","on":true}}"#);
        assert!(says(&migrate, r#"{"execute":"migrate","arguments":{"uri":"file:a/state","rate":3,"on":true}}"#));
        for other in [
            r#"{"execute":"migrate","arguments":{"uri":"exec:sh","rate":3,"on":true}}"#,
            r#"{"execute":"migrate","arguments":{"uri":"file:/etc/x","rate":3,"on":true}}"#,
            r#"{"execute":"migrate","arguments":{"uri":"file:a","rate":-3,"on":true}}"#,
            r#"{"execute":"migrate","arguments":{"uri":"file:a","rate":3.5,"on":true}}"#,
            r#"{"execute":"migrate","arguments":{"uri":"file:a","rate":3,"on":false}}"#,
            r#"{"execute":"migrate","arguments":{"uri":"file:a","on":true}}"#,
            r#"{"execute":"migrate","arguments":{"uri":["file:a"],"rate":3,"on":true}}"#,
        ] {
            assert!(!says(&migrate, other), "{other}");
        }
    }

    #[test]
    fn a_template_that_is_none_is_refused() {
        for text in ["", "stop", "[]", "3", r#"{"execute":"<any>"}"#, r#"{"execute":["<path>x"]}"#] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
