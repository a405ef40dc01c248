//! Capability `service`: programs on the host that outlive the call that started them.
//!
//! What such a program can do, its arguments and what it is told later decide. Both are compared with the grant, piece
//! by piece, and nothing matches by default:
//! - its arguments begin with the grant's `always`, and then are a sequence of the grant's `options`, in any order and each as often as it likes: `-m <number>`
//! - each message is one of the grant's `messages`, as JSON: `{"execute":"stop"}`
//!
//! A path in either is relative to the program's working folder, which is below the plugin's own, and cannot leave it.

use serde_json::Value;

use super::exec::same_program;
use super::{Class, Effect};
use crate::error::{Error, code};
use crate::manifest::{Capabilities, Service};
use crate::text::for_people;

/// A key that a message may have beyond what its template has: with it an answer is found among others.
const ID: &str = "id";

/// As much of a service's name as is shown.
const NAME: usize = 80;

/// Something done with a service.
#[derive(Clone, Debug)]
pub enum ServiceUse {
    /// It is started.
    Start {
        /// Its name.
        name: String,
        /// What the plugin asked for: a name or an absolute path.
        program: String,
        /// Its arguments.
        args: Vec<String>,
    },
    /// It is looked at, talked with or ended: one of the plugin's own, and so of a program that it was granted.
    Own {
        /// What is done.
        verb: &'static str,
        /// Its name.
        name: String,
    },
    /// It is told something.
    Send {
        /// Its name.
        name: String,
        /// Its program, as the plugin asked for it.
        program: String,
        /// The message.
        message: Value,
    },
}

impl ServiceUse {
    /// What grants it. What was granted of one program in several steps counts together.
    fn grant<'a>(&self, capabilities: &'a Capabilities) -> Option<&'a Service> {
        let granted = &capabilities.service;
        let lines = |of: &Service, lines: fn(&Service) -> &Vec<String>| -> Vec<String> {
            granted.iter().filter(|it| it.program == of.program).flat_map(lines).cloned().collect()
        };
        granted.iter().find(|grant| match self {
            Self::Start { program, args, .. } => {
                same_program(&grant.program, program)
                    && Options::parse(&lines(grant, |it| &it.options)).is_ok_and(|it| it.accept(args))
            }
            Self::Own { .. } => true,
            Self::Send { program, message, .. } => {
                let accepts = |line: &String| Template::parse(line).is_ok_and(|it| it.accepts(message));
                same_program(&grant.program, program) && lines(grant, |it| &it.messages).iter().any(accepts)
            }
        })
    }

    /// What these capabilities put before its arguments.
    pub(crate) fn always(&self, capabilities: &Capabilities) -> Vec<String> {
        let Some(program) = self.grant(capabilities).map(|it| &it.program) else { return Vec::new() };
        capabilities.service.iter().filter(|it| it.program == *program).flat_map(|it| &it.always).cloned().collect()
    }

    /// The program as the grant names it: what a name was resolved to when it was granted.
    pub(crate) fn granted_program(&self, capabilities: &Capabilities) -> Option<String> {
        self.grant(capabilities).map(|grant| grant.program.clone()).filter(|it| std::path::Path::new(it).is_absolute())
    }

    /// The digest that the grant pins the program to.
    pub(crate) fn pinned(&self, capabilities: &Capabilities) -> Option<String> {
        let program = &self.grant(capabilities)?.program;
        capabilities.service.iter().filter(|it| it.program == *program).find_map(|it| it.sha256.clone())
    }
}

impl Effect for ServiceUse {
    const CLASS: Class = Class::Service;

    fn verb(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Own { verb, .. } => verb,
            Self::Send { .. } => "send",
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Start { name, program, args } => {
                let (name, program) = (for_people(name, NAME), for_people(program, 200));
                format!("{name}: {program} with {} arguments", args.len())
            }
            Self::Own { name, .. } => for_people(name, NAME),
            // What is asked for, and not with what.
            Self::Send { name, message, .. } => {
                let what =
                    message.as_object().and_then(|it| it.values().find_map(Value::as_str)).unwrap_or("a message");
                format!("{}: {}", for_people(name, NAME), for_people(what, 80))
            }
        }
    }

    fn allowed_by(&self, capabilities: &Capabilities) -> Option<String> {
        self.grant(capabilities).map(|grant| format!("service {}", grant.program))
    }
}

pub(super) fn check(request: &Service) -> Result<(), Error> {
    let refuse = |message: &str| Error::new(code::INVALID, "plugin.manifest", message).subject(&request.program);
    if request.program.is_empty() || request.program.contains('\0') {
        return Err(refuse("a program needs a name"));
    }
    if request.program == crate::manifest::AS_CALLED {
        return Err(refuse("a service is never the command of a call: that ends with the call"));
    }
    if request.sha256.as_deref().is_some_and(|it| it.len() != 64 || !it.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        return Err(refuse("a sha256 is 64 hexadecimal digits"));
    }
    if request.always.iter().any(|line| line.trim().is_empty() || line.contains(['<', '\0'])) {
        return Err(refuse("what a program always gets is a line of words without placeholders"));
    }
    Options::parse(&request.options)?;
    request.messages.iter().try_for_each(|message| Template::parse(message).map(drop))
}

/// A text with gaps: `file=<path>,format=raw`.
///
/// A gap is `<number>` (digits), `<name>` (letters, digits, `_` and `-`, not beginning with `-`) or `<path>` (names and
/// dots with `/` between them, relative, without `..`). What follows a gap must be something that the gap cannot hold, so
/// that there is one way to read a text.
#[derive(Debug, PartialEq)]
struct Gaps(Vec<Piece>);

#[derive(Debug, PartialEq)]
enum Piece {
    Text(String),
    Number,
    Name,
    Path,
}

impl Piece {
    fn may_hold(&self, character: char) -> bool {
        match self {
            Self::Text(_) => false,
            Self::Number => character.is_ascii_digit(),
            Self::Name => character.is_ascii_alphanumeric() || "_-".contains(character),
            Self::Path => character.is_ascii_alphanumeric() || "_-./".contains(character),
        }
    }

    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Text(literal) => literal == text,
            Self::Number => !text.is_empty(),
            Self::Name => !text.is_empty() && !text.starts_with('-'),
            Self::Path => {
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
                _ => return refuse("the placeholders are `<number>`, `<name>` and `<path>`"),
            };
            pieces.push(gap);
            rest = after;
        }
        Ok(Self(pieces))
    }

    fn accept(&self, text: &str) -> bool {
        let mut rest = text;
        for piece in &self.0 {
            let length = match piece {
                Piece::Text(literal) if rest.starts_with(literal.as_str()) => literal.len(),
                Piece::Text(_) => return false,
                gap => rest.find(|character| !gap.may_hold(character)).unwrap_or(rest.len()),
            };
            let (part, after) = rest.split_at(length);
            if !piece.holds(part) {
                return false;
            }
            rest = after;
        }
        rest.is_empty()
    }
}

/// Arguments as a sequence of options.
struct Options(Vec<Vec<Gaps>>);

impl Options {
    fn parse(lines: &[String]) -> Result<Self, Error> {
        let mut options = Vec::with_capacity(lines.len());
        for line in lines {
            let words: Vec<Gaps> = line.split_whitespace().map(Gaps::parse).collect::<Result<_, _>>()?;
            // One that begins with a gap would begin like every other one.
            if !matches!(words.first(), Some(Gaps(pieces)) if matches!(pieces[..], [Piece::Text(_)])) {
                let message = "an option begins with a word that has no placeholder";
                return Err(Error::new(code::INVALID, "plugin.manifest", message).subject(line));
            }
            options.push(words);
        }
        Ok(Self(options))
    }

    /// Option by option, and of several that fit the longest. So a list is refused now and then that could have been
    /// read in another way, and none is accepted that is not made of options.
    fn accept(&self, args: &[String]) -> bool {
        let mut rest = args;
        while !rest.is_empty() {
            let fits = |words: &&Vec<Gaps>| {
                rest.len() >= words.len() && words.iter().zip(rest).all(|(word, argument)| word.accept(argument))
            };
            // The longest, so that `-S` and `-S <path>` can both be there.
            let Some(words) = self.0.iter().filter(fits).max_by_key(|words| words.len()) else { return false };
            rest = rest.get(words.len()..).unwrap_or_default();
        }
        true
    }
}

/// A message, as JSON: its objects have the same keys, its arrays the same lengths, its texts may have gaps, and the text
/// `<number>` alone stands for a whole number. An `id` is always allowed beside the keys of the whole message.
struct Template(Value);

impl Template {
    fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |message: String| Error::new(code::INVALID, "plugin.manifest", message).subject(text);
        let value: Value =
            serde_json::from_str(text).map_err(|error| invalid(format!("a message is JSON: {error}")))?;
        if !value.is_object() {
            return Err(invalid("a message is an object".into()));
        }
        check_texts(&value)?;
        Ok(Self(value))
    }

    fn accepts(&self, message: &Value) -> bool {
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

    #[test]
    fn a_service_is_granted_by_program_and_message() {
        let grant = Service {
            program: "/opt/qemu/qemu-system-x86_64".into(),
            options: QEMU.iter().map(|&it| it.to_owned()).collect(),
            always: vec!["-sandbox on".into()],
            messages: vec![r#"{"execute":"stop"}"#.into()],
            sha256: None,
            reason: String::new(),
        };
        let capabilities = Capabilities { service: vec![grant], ..Capabilities::default() };
        let start = |program: &str, args: &[&str]| ServiceUse::Start {
            name: "a".into(),
            program: program.into(),
            args: args.iter().map(|&it| it.to_owned()).collect(),
        };
        let send = |program: &str, message: &str| ServiceUse::Send {
            name: "a".into(),
            program: program.into(),
            message: serde_json::from_str(message).expect("JSON"),
        };
        assert!(start("qemu-system-x86_64", &["-S"]).allowed_by(&capabilities).is_some());
        assert!(start("qemu-system-x86_64", &["-T"]).allowed_by(&capabilities).is_none());
        assert!(start("/tmp/qemu-system-x86_64", &["-S"]).allowed_by(&capabilities).is_none());
        let stop = r#"{"execute":"stop"}"#;
        assert!(send("qemu-system-x86_64", stop).allowed_by(&capabilities).is_some());
        assert!(send("qemu-system-x86_64", r#"{"execute":"quit"}"#).allowed_by(&capabilities).is_none());
        // What may be said to one program may not be said to another.
        assert!(send("qemu-img", stop).allowed_by(&capabilities).is_none());
        // What was granted later counts with what was granted before, and the pin of one is the pin of all.
        let mut more = capabilities.clone();
        more.service.push(Service {
            options: vec!["-snapshot".into()],
            always: vec!["-no-user-config".into()],
            messages: Vec::new(),
            sha256: Some("ab".repeat(32)),
            ..more.service[0].clone()
        });
        let both = start("qemu-system-x86_64", &["-S", "-snapshot"]);
        assert!(both.allowed_by(&more).is_some() && both.allowed_by(&capabilities).is_none());
        assert!(both.pinned(&more).is_some());
        assert_eq!(both.always(&more), ["-sandbox on", "-no-user-config"]);
        more.service[1].program = "/usr/bin/qemu-system-x86_64".into();
        assert!(both.allowed_by(&more).is_none(), "another program of that name");
        let own = ServiceUse::Own { verb: "stop", name: "a".into() };
        assert!(own.allowed_by(&capabilities).is_some());
        for effect in [own, start("qemu-system-x86_64", &[]), send("qemu-system-x86_64", stop)] {
            assert!(effect.allowed_by(&Capabilities::default()).is_none());
        }
    }
}
