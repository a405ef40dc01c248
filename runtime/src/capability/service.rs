//! Capability `service`: programs on the host that outlive the call that started them.
//!
//! What such a program can do, its arguments and what it is told later decide. Both are compared with the grant, piece
//! by piece, and nothing matches by default:
//! - its arguments begin with the grant's `always`, and then are a sequence of the grant's `options`, in any order and each as often as it likes: `-m <number>`
//! - each message is one of the grant's `messages`, as JSON: `{"execute":"stop"}`
//!
//! A path in either is relative to the program's working folder, which is below the plugin's own, and cannot leave it. A
//! path below another root of files that the plugin may read is told by `<ROOT:path>`, and made a path of this host's here.

mod grammar;

use serde_json::Value;

use self::grammar::{Find, Options, Template, names_root};
use super::exec::same_program;
use super::{Class, Effect};
use crate::error::{Error, code};
use crate::manifest::{Capabilities, Service};
use crate::text::for_people;

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

    /// Its arguments with paths of this host where these capabilities say `<ROOT:path>`. `find` says where a file is.
    pub(crate) fn filled(&self, capabilities: &Capabilities, find: &Find<'_>) -> Result<Option<Vec<String>>, Error> {
        let (Self::Start { args, .. }, Some(grant)) = (self, self.grant(capabilities)) else { return Ok(None) };
        let same_program = capabilities.service.iter().filter(|it| it.program == grant.program);
        let options = Options::parse(&same_program.flat_map(|it| &it.options).cloned().collect::<Vec<_>>())?;
        let read = options.read(args).unwrap_or_default();
        read.into_iter().map(|(word, argument)| word.fill(argument, find)).collect::<Result<_, _>>().map(Some)
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
    request.messages.iter().try_for_each(|message| match Template::parse(message)? {
        // Nobody needs it yet.
        Template(template) if names_root(&template) => Err(refuse("a message names no files of other roots")),
        Template(_) => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const QEMU: &[&str] = &["-S", "-m <number>M"];

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
