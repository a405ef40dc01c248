//! Running commands.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitStatus;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use pcoder_fake_machine::{Io, Machine, Run, Running};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

use crate::answer::{Outcome, Refusal};
use crate::input::{Fields, Problems};
use crate::options::{ExecReading, Options, SseFormat};
use crate::world::World;

/// What one argument of a program may be long on Linux (`MAX_ARG_STRLEN`, 32 pages, with the byte that ends it).
const LONGEST: usize = 131_071;
/// How much output one event carries at most.
const CHUNK: usize = 16 * 1024;

/// The environment of a login as root.
pub(crate) fn environment(options: &Options) -> Vec<(OsString, OsString)> {
    let mut all = vec![
        ("HOME", "/root"),
        ("USER", "root"),
        ("LOGNAME", "root"),
        ("SHELL", "/bin/bash"),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("LANG", "C.UTF-8"),
    ];
    for (name, value) in &options.environment {
        all.retain(|(other, _)| other != name);
        all.push((name, value));
    }
    all.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// What became of a command.
pub(crate) enum Begun {
    Running(Box<Running>),
    /// It did not start, as a server of SSH tells it.
    Ended {
        code: i32,
        stderr: String,
    },
}

/// Starts a line in the login shell.
pub(crate) fn shell_line(machine: &Machine, options: &Options, line: &[u8], io: Io) -> io::Result<Begun> {
    // An argument ends where a C string does.
    let line = line.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    if line.len() > LONGEST {
        return Ok(Begun::Ended { code: 1, stderr: "/bin/bash: Argument list too long\n".to_owned() });
    }
    let args = vec!["-c".into(), OsString::from_vec(line)];
    run(machine, options, "bash".into(), args, io)
}

pub(crate) fn run(
    machine: &Machine,
    options: &Options,
    program: OsString,
    args: Vec<OsString>,
    io: Io,
) -> io::Result<Begun> {
    let env = environment(options);
    machine
        .spawn(Run { program, args, env, cwd: "/root".to_owned(), io })
        .map(|running| Begun::Running(Box::new(running)))
}

/// A command under way, and on which boot of its instance.
struct Started {
    id: String,
    boots: u64,
    begun: Begun,
}

async fn start(world: &Arc<World>, id: &str, body: &[u8]) -> Result<Started, Refusal> {
    let fields = Fields::new(body, true)?;
    let mut problems = Problems::default();
    fields.require("command", &mut problems);
    let command = if fields.has("command") { fields.texts("command", &mut problems) } else { Vec::new() };
    problems.check()?;
    let (world, id) = (Arc::clone(world), id.to_owned());
    let started = tokio::task::spawn_blocking(move || {
        let (machine, boots) = world.ready(&id)?;
        let options = &world.options;
        let begun = match (options.exec, command.split_first()) {
            (ExecReading::Joined, _) => shell_line(&machine, options, command.join(" ").as_bytes(), Io::Pipes),
            (ExecReading::Strict, Some((program, args))) => {
                if command.iter().any(|word| word.len() > LONGEST || word.contains('\0')) {
                    Ok(Begun::Ended { code: 1, stderr: format!("{program}: Argument list too long\n") })
                } else {
                    let args = args.iter().map(Into::into).collect();
                    run(&machine, options, program.into(), args, Io::Pipes)
                }
            }
            (ExecReading::Strict, None) => Err(io::Error::other("the command is empty")),
        };
        Ok(Started { begun: begun?, id, boots })
    });
    started.await.map_err(Refusal::broken)?
}

/// What a client of SSH makes of the end of a command.
fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or(-1)
}

/// How it ended, if the instance is still the one it ran on.
async fn end(world: &World, id: &str, boots: u64, running: &mut Running) -> Result<i32, Refusal> {
    let status = running.wait().await?;
    if status.code().is_none() && !world.same_boot(id, boots) {
        return Err(Refusal::broken("The connection to the instance was lost"));
    }
    Ok(exit_code(status))
}

pub(crate) async fn exec(world: &Arc<World>, id: &str, body: &[u8]) -> Outcome {
    let Started { id, boots, begun } = start(world, id, body).await?;
    let mut running = match begun {
        Begun::Running(running) => running,
        Begun::Ended { code, stderr } => return Ok(json!({ "exit_code": code, "stdout": "", "stderr": stderr })),
    };
    drop(running.stdin.take());
    let (stdout, stderr) = (running.stdout.take(), running.stderr.take());
    let (stdout, stderr) = tokio::try_join!(whole(stdout), whole(stderr))?;
    let code = end(world, &id, boots, &mut running).await?;
    Ok(json!({ "exit_code": code, "stdout": stdout, "stderr": stderr }))
}

async fn whole(stream: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        stream.read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[derive(Debug)]
enum Event {
    Stdout(String),
    Stderr(String),
    Exit(i32),
    Error(String),
}

pub(crate) async fn stream(world: &Arc<World>, id: &str, body: &[u8]) -> Result<Response, Refusal> {
    let Started { id, boots, begun } = start(world, id, body).await?;
    let (sender, mut events) = mpsc::channel::<Event>(16);
    let format = world.options.sse;
    let world = Arc::clone(world);
    // Of its own, since a command goes on when nobody listens any more.
    tokio::spawn(async move {
        let mut running = match begun {
            Begun::Running(running) => running,
            Begun::Ended { code, stderr } => {
                let _ = sender.send(Event::Stderr(stderr)).await;
                let _ = sender.send(Event::Exit(code)).await;
                return;
            }
        };
        drop(running.stdin.take());
        let out = pump(running.stdout.take(), &sender, Event::Stdout);
        let err = pump(running.stderr.take(), &sender, Event::Stderr);
        tokio::join!(out, err);
        let last = match end(&world, &id, boots, &mut running).await {
            Ok(code) => Event::Exit(code),
            Err(refusal) => Event::Error(refusal.detail.as_str().unwrap_or_default().to_owned()),
        };
        let _ = sender.send(last).await;
    });
    let frames = async_stream::stream! {
        while let Some(event) = events.recv().await {
            yield Ok::<_, io::Error>(frame(format, &event));
        }
        if format == SseFormat::Unnamed {
            yield Ok("data: [DONE]\n\n".to_owned());
        }
    };
    let mut response = Response::new(Body::from_stream(frames));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

async fn pump(stream: Option<impl AsyncRead + Unpin>, events: &mpsc::Sender<Event>, event: fn(String) -> Event) {
    let Some(mut stream) = stream else { return };
    let (mut text, mut chunk) = (Text::default(), vec![0; CHUNK]);
    loop {
        let count = stream.read(&mut chunk).await.unwrap_or(0);
        let said = if count == 0 { text.end() } else { text.push(chunk.get(..count).unwrap_or_default()) };
        if !said.is_empty() {
            // Nobody may be listening; the command is not to notice.
            let _ = events.send(event(said)).await;
        }
        if count == 0 {
            return;
        }
    }
}

/// Bytes that become text as they come: a character that was cut in two is whole again.
#[derive(Debug, Default)]
struct Text(Vec<u8>);

impl Text {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.0.extend_from_slice(bytes);
        // The last chunk's invalid bytes may be the start of a character.
        let last = self.0.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
        let begun = std::str::from_utf8(last).is_err_and(|error| error.error_len().is_none());
        let keep = if begun { last.len() } else { 0 };
        let rest = self.0.split_off(self.0.len() - keep);
        let said = String::from_utf8_lossy(&self.0).into_owned();
        self.0 = rest;
        said
    }

    fn end(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.0)).into_owned()
    }
}

fn frame(format: SseFormat, event: &Event) -> String {
    match format {
        SseFormat::Unnamed => {
            let data = match event {
                Event::Stdout(text) => json!({ "type": "stdout", "content": text }),
                Event::Stderr(text) => json!({ "type": "stderr", "content": text }),
                Event::Exit(code) => json!({ "type": "exit_code", "content": code }),
                Event::Error(text) => json!({ "type": "error", "content": Value::String(text.clone()) }),
            };
            format!("data: {data}\n\n")
        }
        SseFormat::Named => match event {
            Event::Stdout(text) => named("stdout", text),
            Event::Stderr(text) => named("stderr", text),
            Event::Exit(code) => named("exit", &code.to_string()),
            Event::Error(text) => named("error", text),
        },
    }
}

/// Each line of a text is a line of data; a reader joins them again.
fn named(name: &str, text: &str) -> String {
    let mut frame = format!("event: {name}\n");
    for line in text.replace("\r\n", "\n").replace('\r', "\n").split('\n') {
        frame.push_str("data: ");
        frame.push_str(line);
        frame.push('\n');
    }
    frame.push('\n');
    frame
}
