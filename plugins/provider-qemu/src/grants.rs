//! What plugin.toml asks for is what is done: every QEMU that a test starts, and everything that it is told, is compared
//! with it, as pcoder does.

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Manifest {
    service: Vec<Service>,
}

/// What is asked for one program.
#[derive(Deserialize)]
pub(crate) struct Service {
    program: String,
    options: Vec<String>,
    messages: Vec<String>,
}

impl Service {
    pub(crate) fn of(program: &str) -> Self {
        let manifest: Manifest = toml::from_str(include_str!("../plugin.toml")).unwrap();
        manifest.service.into_iter().find(|it| it.program == program).unwrap()
    }

    /// The first arguments that are no option.
    pub(crate) fn refuses<'a>(&self, mut arguments: &'a [String]) -> Option<&'a [String]> {
        while !arguments.is_empty() {
            let length = |line: &String| {
                let words: Vec<&str> = line.split(' ').collect();
                let fits = words.len() <= arguments.len() && words.iter().zip(arguments).all(|(word, it)| is(word, it));
                fits.then_some(words.len())
            };
            let Some(length) = self.options.iter().filter_map(length).max() else { return Some(arguments) };
            arguments = &arguments[length..];
        }
        None
    }

    /// The options that none of these lists of arguments has.
    pub(crate) fn unused(&self, all: &[Vec<String>]) -> Vec<&str> {
        let used = |line: &&String| {
            let words: Vec<&str> = line.split(' ').collect();
            let here = |some: &[String]| words.iter().zip(some).all(|(word, it)| is(word, it));
            all.iter().any(|arguments| arguments.windows(words.len()).any(here))
        };
        self.options.iter().filter(|it| !used(it)).map(String::as_str).collect()
    }

    pub(crate) fn allows(&self, message: &Value) -> bool {
        let mut message = message.clone();
        message.as_object_mut().unwrap().remove("id");
        self.messages.iter().any(|it| same(&serde_json::from_str(it).unwrap(), &message))
    }
}

fn is(template: &str, argument: &str) -> bool {
    match template.starts_with('{') {
        true => {
            let template = serde_json::from_str(template).unwrap();
            serde_json::from_str(argument).is_ok_and(|it| same(&template, &it))
        }
        false => fits(template, argument),
    }
}

fn same(template: &Value, value: &Value) -> bool {
    match (template, value) {
        (Value::Array(templates), Value::Array(items)) => {
            templates.len() == items.len() && templates.iter().zip(items).all(|(it, item)| same(it, item))
        }
        (Value::String(template), Value::String(text)) => fits(template, text),
        (Value::String(template), Value::Number(number)) => template == "<number>" && number.is_u64(),
        (Value::Object(template), Value::Object(fields)) => {
            template.len() == fields.len()
                && template.iter().all(|(key, it)| fields.get(key).is_some_and(|value| same(it, value)))
        }
        (template, value) => template == value,
    }
}

fn fits(template: &str, text: &str) -> bool {
    let Some((before, rest)) = template.split_once('<') else { return template == text };
    let (gap, after) = rest.split_once('>').unwrap();
    let plain = |it: char| it.is_ascii_alphanumeric() || "_-".contains(it);
    let holds = |it: char| match gap {
        "number" => it.is_ascii_digit(),
        "name" => plain(it),
        "path" | "images:path" | "engines:path" => plain(it) || "./".contains(it),
        "line" => (it.is_ascii_graphic() || it == ' ') && !"'\"\\`".contains(it),
        other => panic!("there is no `<{other}>`"),
    };
    let Some(text) = text.strip_prefix(before) else { return false };
    let end = text.find(|it| !holds(it)).unwrap_or(text.len());
    end > 0 && !text.contains("..") && fits(after, &text[end..])
}

#[test]
fn both_programs_are_asked_the_same_way_and_nothing_more_than_is_used() {
    let (x86, arm) = (Service::of("qemu-system-x86_64"), Service::of("qemu-system-aarch64"));
    // What is more is for memories that are saved, which only the one does.
    assert_eq!(x86.messages.iter().filter(|it| arm.messages.contains(it)).count(), arm.messages.len());
    let saved = |it: &&String| it.contains("migrate") && it.contains("uri");
    let own = [r#"{"uri":"file:templates/<name>/state"}"#, r#"{"uri":"file:instances/<name>/state"}"#];
    assert!(x86.messages.iter().filter(saved).all(|it| own.iter().any(|own| it.contains(own))));
    for line in x86.options.iter().chain(&arm.options) {
        for never in [
            "-drive",
            "socket",
            "pipe",
            "exec:",
            "tap",
            "guestfwd",
            "smb",
            "0.0.0.0",
            "virtfs",
            "-incoming tcp",
            "-incoming file",
            "-monitor",
        ] {
            assert!(!line.contains(never), "{line}");
        }
    }
    let refused = ["-drive", "file=/etc/shadow"].map(str::to_owned);
    assert!(x86.refuses(&refused).is_some());
    assert!(!x86.allows(&serde_json::json!({ "execute": "migrate", "id": 1 })));
    let elsewhere = serde_json::json!({ "execute": "migrate", "arguments": { "uri": "file:templates/../x/state" } });
    assert!(!x86.allows(&elsewhere));
}
