//! Running commands: over `exec`, over `exec/sse` while it writes, or over the SSH gateway.

use std::io::{ErrorKind, Read as _, Write};

use pcoder_sdk::exec_files::ExecFiles;
use pcoder_sdk::host::{ProviderHost, Stdio};
use pcoder_sdk::{CommandSpec, Endpoint, Error, ExitStatus, Output, Result, WriteOptions, code, shell};
use serde::Deserialize;
use serde_json::json;

use crate::api::{Api, checked_id};
use crate::line::{Decoder, Feed, LONGEST, line, of_file};
use crate::sse::{Event, Events};

const OPERATION: &str = "provider.exec";

/// Input up to this goes into the line.
const INLINE: usize = 64 << 10;

/// Input over this goes over the gateway, as one stream instead of a request for each piece.
const STREAMED: u64 = 1 << 20;

/// How a command ends for its user when nobody reads its output any more: as if a pipe had ended it. Whether it goes on
/// behind the connection, which ends, is the service's.
const NOBODY_READS: ExitStatus = ExitStatus::Signaled(13);

/// Runs commands on one instance.
#[derive(Clone, Copy)]
pub(crate) struct Exec<'a> {
    host: ProviderHost<'a>,
    id: &'a str,
}

/// What `exec` answers.
#[derive(Deserialize)]
struct Answer {
    exit_code: Option<i32>,
    stdout: Option<String>,
    stderr: Option<String>,
}

impl<'a> Exec<'a> {
    pub(crate) fn new(host: ProviderHost<'a>, id: &'a str) -> Result<Self> {
        Ok(Self { host, id: checked_id(OPERATION, id)? })
    }

    fn api(self) -> Api<'a> {
        Api::new(self.host, OPERATION)
    }

    /// Runs a command with these streams. A terminal, and input that may go on for as long as the command runs, take the
    /// SSH gateway, which is all that has them.
    pub(crate) fn run(self, spec: &CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus> {
        let size = stdio.input_size();
        match size {
            Some(size) if stdio.terminal().is_none() && size <= STREAMED => {}
            _ => {
                let result = self.over_gateway(spec, stdio);
                match (&result, size) {
                    // Not a byte was taken yet, and what is all there can go in pieces too.
                    (Err(error), Some(_)) if stdio.terminal().is_none() && not_reached(error) => {}
                    _ => return result,
                }
            }
        }
        let failed = |error: std::io::Error| Error::new(code::IO, OPERATION, error.to_string());
        let mut input = Vec::new();
        stdio.stdin()?.read_to_end(&mut input).map_err(failed)?;
        let (mut stdout, mut stderr) = (stdio.stdout()?, stdio.stderr()?);
        let line = self.line(spec, &input)?;
        self.stream(&line, &mut *stdout, &mut *stderr)
    }

    /// Runs a command with its input and output in memory.
    pub(crate) fn capture(self, spec: &CommandSpec, input: &[u8]) -> Result<Output> {
        let line = self.line(spec, input)?;
        let (mut stdout, mut stderr, mut ended) = self.whole(&[&line])?;
        if was_a_program(ended, &stdout) {
            (stdout, stderr, ended) = self.whole(&["sh", "-c", &line])?;
        }
        let (mut out, mut err) = (Decoder::default(), Decoder::default());
        match (out.decode(&stdout), err.decode(&stderr), out.code) {
            (Some(stdout), Some(bytes), Some(code)) if !out.is_open() && !err.is_open() => {
                Ok(Output { status: ExitStatus::Exited(code), stdout, stderr: bytes })
            }
            _ => Err(self.not_ours(ended, &stderr)),
        }
    }

    /// Runs words, and returns both outputs and the exit code as the service tells them.
    fn whole(self, words: &[&str]) -> Result<(String, String, i32)> {
        let path = format!("/instance/{}/exec", self.id);
        let answer: Answer = self.api().json("POST", &path, Some(&json!({ "command": words })), self.id)?;
        match (answer.stdout, answer.stderr, answer.exit_code) {
            (Some(stdout), Some(stderr), Some(ended)) => Ok((stdout, stderr, ended)),
            _ => Err(self.api().garbled(self.id, "`stdout`, `stderr` or `exit_code` is missing")),
        }
    }

    /// The line that runs a command. What does not fit into one is put onto the instance first.
    fn line(self, spec: &CommandSpec, input: &[u8]) -> Result<String> {
        let inline = input.len() <= INLINE;
        let file;
        let feed = if inline {
            Feed::Inline(input)
        } else {
            file = self.put(input)?;
            Feed::File(&file)
        };
        let whole = line(spec, &feed)?;
        if whole.len() <= LONGEST {
            return Ok(whole);
        }
        // The script in a file has no bound, and its own arguments have the system's.
        let script = self.put(shell::line(spec)?.as_bytes())?;
        line(&CommandSpec::shell(of_file(&script)), &feed)
    }

    /// Puts bytes into a private file on the instance, in as many requests as they need.
    fn put(self, content: &[u8]) -> Result<String> {
        let path = format!("/tmp/.pcoder-{:016x}", self.host.random().bits());
        // What is put here fits into a line, so this goes no deeper.
        let files = ExecFiles::new(|spec: &CommandSpec, input: &[u8]| self.capture(spec, input)).without_stdin();
        match files.write(&path, content, WriteOptions::plain().with_mode(0o600)) {
            Ok(()) => Ok(path),
            Err(error) => {
                // What failed is what counts.
                drop(files.delete_file(&path));
                Err(error.during(OPERATION))
            }
        }
    }

    /// Runs a line and passes on what it writes while it does.
    fn stream(self, line: &str, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Result<ExitStatus> {
        match self.stream_words(&[line], stdout, stderr)? {
            Some(status) => Ok(status),
            None => {
                let status = self.stream_words(&["sh", "-c", line], stdout, stderr)?;
                status.ok_or_else(|| self.not_ours(127, "no shell"))
            }
        }
    }

    /// The same for words; nothing when they were not run, because the line was taken for a program's name.
    fn stream_words(
        self,
        words: &[&str],
        stdout: &mut dyn Write,
        stderr: &mut dyn Write,
    ) -> Result<Option<ExitStatus>> {
        let path = format!("/instance/{}/exec/sse", self.id);
        let arriving = self.api().open(&path, &json!({ "command": words }), self.id)?;
        let mut events = Events::of(arriving.body);
        let (mut out, mut err) = (Decoder::default(), Decoder::default());
        let (mut heard, mut said) = (String::new(), String::new());
        let mut ended = None;
        let broke_off = |why: String| {
            Error::new(code::NETWORK, OPERATION, format!("the connection broke off while the command ran{why}"))
                .subject(self.id)
                .hint("the command may still be running on the instance")
        };
        loop {
            let event = events.next().map_err(|error| broke_off(format!(": {error}")))?;
            match event {
                Some(Event::Stdout(text)) => match out.decode(&text) {
                    Some(bytes) => {
                        heard.push('.');
                        if !taken(stdout.write_all(&bytes))? {
                            return Ok(Some(NOBODY_READS));
                        }
                    }
                    None => return Err(self.not_ours(ended.unwrap_or(0), &said)),
                },
                Some(Event::Stderr(text)) => match err.decode(&text) {
                    Some(bytes) if taken(stderr.write_all(&bytes))? => {}
                    Some(_) => return Ok(Some(NOBODY_READS)),
                    // Not the line's: the shell's own words, before or instead of it.
                    None => said.push_str(&text),
                },
                Some(Event::Exit(code)) => ended = Some(code),
                Some(Event::Failed(words)) => {
                    let message = format!("the service could not run it: {}", one_line(&words));
                    return Err(Error::new(code::SERVER, OPERATION, message).subject(self.id));
                }
                None => break,
            }
        }
        match (out.code, ended) {
            (Some(code), _) => Ok(Some(ExitStatus::Exited(code))),
            (None, Some(ended)) if was_a_program(ended, &heard) => Ok(None),
            (None, Some(ended)) => Err(self.not_ours(ended, &said)),
            (None, None) => Err(broke_off(String::new())),
        }
    }

    /// The instance's shell did not do what the line says.
    fn not_ours(self, ended: i32, said: &str) -> Error {
        let message = format!("the instance's shell ended with {ended} before the command did: {}", one_line(said));
        Error::new(code::PROCESS, OPERATION, message)
            .subject(self.id)
            .hint("commands need a POSIX shell with `dd`, `base64` and `tr` on the instance")
    }

    /// Where the gateway is, and who logs in: the user name is the instance and the key, and the host puts that in.
    fn over_gateway(self, spec: &CommandSpec, stdio: Stdio<'_>) -> Result<ExitStatus> {
        let key = self.host.secrets().get("MORPH_API_KEY")?;
        let (host, port) = self.api().gateway()?;
        let endpoint = Endpoint {
            host,
            port,
            user: format!("{}:{key}", self.id),
            credential: String::new(),
            // Nobody publishes it.
            host_key: String::new(),
        };
        self.host.ssh().exec(&endpoint, spec, stdio).map_err(|error| match error.code.as_str() {
            code::UNAUTHENTICATED => error.hint("the instance must be running, and the key must be right"),
            _ => error,
        })
    }
}

/// Whether the service took the line for the name of a program, which there is none of: it is said of the API that it joins
/// words for a shell, and if it does not, the words for a shell have to be said. Nothing has happened then: a shell says
/// the line's exit code, whatever becomes of the command.
fn was_a_program(ended: i32, stdout: &str) -> bool {
    matches!(ended, 126 | 127) && stdout.trim().is_empty()
}

/// Whether the gateway was not there, so that nothing has happened.
fn not_reached(error: &Error) -> bool {
    error.operation == "ssh.connect" || error.operation == "net.connect"
}

/// Whether somebody took the output.
fn taken(result: std::io::Result<()>) -> Result<bool> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true).map_err(|error| Error::new(code::IO, OPERATION, error.to_string())),
    }
}

fn one_line(text: &str) -> String {
    pcoder_sdk::text::tail(text.as_bytes(), 1, 300)
}
