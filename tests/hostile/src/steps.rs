//! One step of a script.

use pcoder_sdk::bindings::host::wasi::clocks::{monotonic_clock, wall_clock};
use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::{Argv, Command, CommandSpec, Error, Level, Output, Result, Setting, WriteOptions};

use crate::{harm, http, services, sockets, ssh};

/// Does one thing and says what came of it.
pub(crate) fn step(host: ProviderHost<'_>, verb: &str, args: &[String]) -> Result<String> {
    let arg = |index: usize| args.get(index).map_or("", String::as_str);
    let number = |index: usize| arg(index).parse().unwrap_or(0);
    let done = |()| String::new();
    let options = WriteOptions::plain;
    match verb {
        "files.read" => host.files().read(arg(0), arg(1)).map(|it| String::from_utf8_lossy(&it).into_owned()),
        "files.write" => host.files().write(arg(0), arg(1), arg(2).as_bytes(), options()).map(done),
        "files.write-atomic" => host.files().write_atomic(arg(0), arg(1), arg(2).as_bytes(), options()).map(done),
        "files.list" => host.files().list(arg(0), arg(1)).map(|entries| {
            let names: Vec<String> = entries.into_iter().map(|it| it.name).collect();
            names.join(" ")
        }),
        "files.stat" => host.files().stat(arg(0), arg(1)).map(|it| format!("{} {}", it.kind, it.size)),
        "files.rename" => host.files().rename(arg(0), arg(1), arg(2)).map(done),
        "files.remove" => host.files().remove(arg(0), arg(1), arg(2) == "true").map(done),
        "files.create-directory" => host.files().create_directory(arg(0), arg(1), None).map(done),
        "process.capture" => host.process().capture(&argv(arg(0), &args[1..]), &[]).map(output),
        "process.capture-shell" => host.process().capture(&CommandSpec::shell(arg(0)), &[]).map(output),
        "process.capture-env" => {
            let (name, value) = arg(0).split_once('=').unwrap_or_default();
            host.process().capture(&argv(arg(1), &args[2..]).with_env(name, value), &[]).map(output)
        }
        "process.capture-cwd" => host.process().capture(&argv(arg(1), &args[2..]).in_dir(arg(0)), &[]).map(output),
        "process.capture-path" => {
            host.process().capture(&argv(arg(1), &args[2..]).with_path_entry(arg(0)), &[]).map(output)
        }
        "process.capture-input" => host.process().capture(&argv(arg(1), &args[2..]), arg(0).as_bytes()).map(output),
        "service.start" | "service.status" | "service.list" | "service.stop" | "service.remove"
        | "service.log-tail" | "service.talk" => services::step(host, verb, args),
        "secrets.get" => host.secrets().get(arg(0)),
        "http" => http::send(host, arg(0), arg(1), arg(2), Vec::new()),
        "http.body" => http::send(host, arg(0), arg(1), arg(2), arg(3).into()),
        "http.large-body" => http::send(host, arg(0), arg(1), arg(2), vec![b'x'; number(3)]),
        "http.follow" => http::follow(host, arg(0)),
        "http.impatient" => http::impatient(arg(0), number(1) as u64),
        "http.retry" => http::retry(host, arg(0), arg(1), number(2)),
        "ws" | "ws.hold" | "ws.close" | "ws.flood" | "ws.listen" | "ws.many" => sockets::step(host, verb, args),
        "ssh.read" | "ssh.write" | "ssh.capture" | "ssh.public-key" | "ssh.forward" | "ssh.forward.hold"
        | "ssh.forward.many" => ssh::step(host, verb, args),
        "log" => {
            host.log().log(Level::Info, arg(0));
            Ok(String::new())
        }
        "log.flood" => {
            (0..number(0)).for_each(|index| host.log().log(Level::Warn, &format!("{} {index}", arg(1))));
            Ok(String::new())
        }
        "log.long" => {
            host.log().log(Level::Warn, &arg(1).repeat(number(0)));
            Ok(String::new())
        }
        // The last answer of many.
        "repeat" => {
            let mut last = Ok(String::new());
            for _ in 0..number(0) {
                last = step(host, arg(1), &args[2..]);
            }
            last
        }
        // Until it is refused with another code than the first time.
        "until" => {
            let mut tries = 0_u32;
            loop {
                tries += 1;
                match step(host, arg(1), &args[2..]) {
                    Err(error) if error.code == arg(0) => return Ok(tries.to_string()),
                    _ => {}
                }
            }
        }
        "env" => Ok(args.iter().filter_map(std::env::var_os).map(|it| it.to_string_lossy().into_owned()).collect()),
        "env.args" => Ok(std::env::args().collect::<Vec<_>>().join(" ")),
        "std.read" => std::fs::read_to_string(arg(0)).map_err(|error| Error::new("std", "std", error.to_string())),
        "std.connect" => std::net::TcpStream::connect(arg(0))
            .map(|_| String::new())
            .map_err(|error| Error::new("std", "std", error.to_string())),
        "clock" => Ok(format!("{} {}", monotonic_clock::now() > 0, wall_clock::now().seconds > 0)),
        "loop" => harm::spin(),
        "allocate" => harm::allocate(),
        "overflow" => Ok(harm::overflow(0).to_string()),
        "descend" => Ok(harm::descend(0, std::hint::black_box(u64::MAX)).to_string()),
        "panic" => panic!("{}", arg(0)),
        #[cfg(target_arch = "wasm32")]
        "unreachable" => std::arch::wasm32::unreachable(),
        "wait" => {
            harm::wait();
            Ok(String::new())
        }
        "handles" => harm::handles(number(0)),
        "random" => harm::random(number(0) as u64),
        "giant" => Ok("x".repeat(number(0))),
        "fail" => Err(Error::new(arg(0), "hostile.fail", arg(1)).subject(arg(1)).hint(arg(1))),
        other => Err(Error::invalid("hostile", format!("no such step: {other}"))),
    }
}

/// Changes a command that the host asked for.
pub(crate) fn forge(how: &str, spec: &mut CommandSpec) -> Result<()> {
    match how {
        "as it is" | "run twice" => {}
        "env" => spec.env.push(Setting::new("FORGED", "1")),
        "env value" => spec.env.iter_mut().for_each(|it| it.value.push('x')),
        "cwd" => spec.cwd = Some("/".to_owned()),
        "no cwd" => spec.cwd = None,
        "path" => spec.path_entries.insert(0, "/tmp".to_owned()),
        "name" => spec.name = Some("forged".to_owned()),
        "argument" => {
            if let Command::Argv(argv) = &mut spec.command {
                argv.args.push("forged".to_owned());
            }
        }
        "program" => spec.command = argv("/bin/sh", &[]).command,
        "shell" => spec.command = Command::Shell("true".to_owned()),
        "panic" => panic!("forged"),
        "loop" => harm::spin(),
        other => {
            return Err(Error::invalid("hostile", format!("no such forgery: {other}")));
        }
    }
    Ok(())
}

fn argv(program: &str, args: &[String]) -> CommandSpec {
    CommandSpec::from(Command::Argv(Argv { program: program.to_owned(), args: args.to_vec() }))
}

fn output(output: Output) -> String {
    format!(
        "{} {}{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
