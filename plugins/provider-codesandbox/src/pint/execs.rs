//! Execs, which are the agent's commands.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pcoder_sdk::host::Piece;
use pcoder_sdk::http::Body;
use pcoder_sdk::sse::{self, Parser};
use pcoder_sdk::{CommandSpec, Error, ExitStatus, Output, Result, TerminalSize, code, placeholder, shell};
use serde_json::{Value, json};

use super::Agent;
use crate::agent::{Content, Event, Started};
use crate::rest::is_id;

/// How long a helper's command may take, and how long a terminal may take to say what it is.
const HELPER: Duration = Duration::from_secs(300);
/// How much of a stream is taken before somebody looks at it.
const PIECE: usize = 1 << 20;
/// How often in a row a stream may end soon without having said anything new.
const SILENT: u32 = 3;
/// What is between the agent and this may end a stream that says nothing; one that lived for so long was a good one.
const LIVED: Duration = Duration::from_secs(5);
/// How long a command waits for its input, in seconds.
const FED: u32 = 60;
/// What an input begins with.
const GO: &str = "go";
/// What is said first where there is no terminal.
const NO_TERMINAL: &str = "-";

/// Something that an exec said.
enum Told {
    Out(String),
    Err(String),
    Exit(Option<i32>),
    /// Somebody ended it.
    Gone,
}

/// An exec whose output is heard.
pub(super) struct Exec {
    id: String,
    body: Body,
    parser: Parser,
    /// The number of the last piece of output.
    last: i64,
    /// How often the stream ended soon since it said something new.
    silent: u32,
    /// When the stream began.
    since: Duration,
    ended: bool,
    /// The process with the terminal.
    pid: Option<String>,
}

/// How far an exec was heard.
#[derive(Clone)]
pub(super) struct Known {
    last: i64,
    pid: Option<String>,
}

impl Exec {
    pub(super) fn body(&mut self) -> &mut Body {
        &mut self.body
    }
}

impl<'a> Agent<'a> {
    /// Starts a shell that runs this command; with a terminal of this size, if one is looked at.
    pub(crate) fn start_shell(&mut self, command: &str, size: Option<TerminalSize>) -> Result<Started> {
        let Some(TerminalSize { columns, rows }) = size else {
            let id = self.create(command, false)?;
            self.hear(&id, Known { last: 0, pid: None }).map_err(|error| self.gone(error))?;
            return Ok(Started { id, ended: None });
        };
        // How a resize is said to the agent is not documented. The process behind the terminal leads to it too.
        let command = format!(
            "[ -t 0 ] || {{ echo {NO_TERMINAL}; exit; }}; echo $$; stty rows {rows} cols {columns} || exit; {command}"
        );
        let id = self.create(&command, true)?;
        self.hear(&id, Known { last: 0, pid: None }).map_err(|error| self.gone(error))?;
        self.find_terminal(&id)?;
        Ok(Started { id, ended: None })
    }

    /// Takes the first line of an exec with a terminal, which is its process.
    fn find_terminal(&mut self, id: &str) -> Result<()> {
        let until = self.host.clock().monotonic() + HELPER;
        let mut said = String::new();
        loop {
            let mut ended = false;
            while let Some(event) = self.events.pop_front() {
                match event {
                    Event::Output { shell, text } if shell == id => said.push_str(&text),
                    Event::Exit { shell, .. } | Event::Terminated { shell } if shell == id => ended = true,
                    _ => {}
                }
                if let Some((first, rest)) = said.split_once('\n') {
                    let first = first.trim_end();
                    if first == NO_TERMINAL {
                        break;
                    }
                    if let Some(exec) = self.execs.iter_mut().find(|exec| exec.id == id) {
                        exec.pid = Some(first.to_owned()).filter(|pid| pid.bytes().all(|it| it.is_ascii_digit()));
                    }
                    if !rest.is_empty() {
                        self.events.push_front(Event::Output { shell: id.to_owned(), text: rest.to_owned() });
                    }
                    return Ok(());
                }
            }
            let left = until.saturating_sub(self.host.clock().monotonic());
            if ended || left.is_zero() || !said.is_empty() && said.trim_end() == NO_TERMINAL {
                let message = "the sandbox's agent gave no terminal";
                return Err(Error::unsupported(self.operation, message).subject(&self.sandbox));
            }
            self.turn(left, crate::agent::Beside::default())?;
        }
    }

    /// Gets what a shell of another connection prints from now on.
    pub(crate) fn open_shell(&mut self, shell: &str) -> Result<Started> {
        let known = self.known.get(shell).cloned().unwrap_or(Known { last: 0, pid: None });
        match self.hear(shell, known) {
            Err(error) if error.code == code::NOT_FOUND => Ok(Started { id: shell.to_owned(), ended: Some(None) }),
            result => result.map(|()| Started { id: shell.to_owned(), ended: None }),
        }
    }

    /// Takes over from a connection that broke off, with what that one had heard and nobody had looked at.
    pub(crate) fn go_on_from(&mut self, before: &Self) {
        self.events.extend(before.events.iter().cloned());
        self.known.clone_from(&before.known);
        let heard = |exec: &Exec| (exec.id.clone(), Known { last: exec.last, pid: exec.pid.clone() });
        self.known.extend(before.execs.iter().map(heard));
    }

    /// Types into a shell.
    pub(crate) fn type_in(&mut self, shell: &str, text: &str) -> Result<()> {
        self.feed(shell, text)
    }

    fn feed(&mut self, id: &str, input: &str) -> Result<()> {
        let body = json!({"type": "stdin", "input": input});
        match self.once("POST", &format!("execs/{id}/io"), Some(&body)) {
            // An exec need not read what it is fed.
            Err(error) if !self.is_cut() && !self.hibernated => match self.status(id)? {
                None => Err(error),
                Some(_) => Ok(()),
            },
            result => result.map(drop),
        }
    }

    /// Resizes a shell's terminal.
    pub(crate) fn resize(&mut self, shell: &str, TerminalSize { columns, rows }: TerminalSize) -> Result<()> {
        let Some(pid) = self.execs.iter().find(|exec| exec.id == shell).and_then(|exec| exec.pid.clone()) else {
            return Ok(());
        };
        // It may have ended just now.
        self.helper(&format!("stty rows {rows} cols {columns} </proc/{pid}/fd/0 2>/dev/null")).map(drop)
    }

    /// Ends a shell, whatever runs in it. One that is gone is no error.
    pub(crate) fn terminate(&mut self, shell: &str) -> Result<()> {
        self.execs.retain(|exec| exec.id != shell);
        match self.again("DELETE", &format!("execs/{shell}")) {
            Err(error) if error.code != code::NOT_FOUND => Err(error),
            _ => Ok(()),
        }
    }

    /// Runs a helper's command to its end: its code, and what it wrote.
    pub(crate) fn helper(&mut self, command: &str) -> Result<(i32, String)> {
        let ran = self.run(command, None)?;
        Ok((ran.status.code(), ran.text() + &String::from_utf8_lossy(&ran.stderr)))
    }

    /// Runs a command of the SDK's.
    pub(super) fn capture(&mut self, spec: &CommandSpec, input: &[u8]) -> Result<Output> {
        let line = shell::line(spec)?;
        self.run(&line, Some(Content::Bytes(input)).filter(|_| !input.is_empty()))
    }

    /// Runs a script to its end. What it writes must be text.
    pub(super) fn run(&mut self, script: &str, input: Option<Content<'_>>) -> Result<Output> {
        let (script, input) = match input {
            None => (format!("( {script}\n) </dev/null"), String::new()),
            Some(input) => {
                let (reads, input) = self.fed(input);
                // Nothing happens before its input is there: who should have brought it may be gone.
                let begun = format!("[ \"$(timeout {FED} dd bs=1 count={} 2>/dev/null)\" = {GO} ] || exit", GO.len());
                (format!("{begun}; {reads} | ( {script}\n)"), format!("{GO}{input}"))
            }
        };
        let id = self.create(&script, false)?;
        let output = self.attend(&id, &input);
        self.forget(&id);
        output
    }

    /// A command that prints an input, and what it has to be fed for that. The end of what is fed cannot be said.
    fn fed(&self, input: Content<'_>) -> (String, String) {
        let size = |text: &str| self.host.secrets().filled_size(text.as_bytes());
        match input {
            Content::Script(script) => (format!("head -c {}", size(script)), script.to_owned()),
            Content::Bytes(bytes) if !placeholder::is_in(bytes) => {
                let text = STANDARD.encode(bytes);
                (format!("head -c {} | base64 -d", text.len()), text)
            }
            Content::Bytes(bytes) => {
                // Each value is a text of base64 by itself, and a line.
                let mut text = String::new();
                let mut line = |encoded: &str| {
                    text.push_str(encoded);
                    text.push('\n');
                };
                let mut done = 0;
                for span in placeholder::spans(bytes) {
                    if done < span.start {
                        line(&STANDARD.encode(&bytes[done..span.start]));
                    }
                    done = span.end;
                    line(&placeholder::as_base64(&bytes[span]));
                }
                if done < bytes.len() {
                    line(&STANDARD.encode(&bytes[done..]));
                }
                line("");
                let reads = "while IFS= read -r l && [ -n \"$l\" ]; do printf %s \"$l\" | base64 -d || exit; done";
                (reads.to_owned(), text)
            }
        }
    }

    fn attend(&mut self, id: &str, input: &str) -> Result<Output> {
        if !input.is_empty() {
            self.feed(id, input)?;
        }
        let body = self.stream(id, 0).map_err(|error| self.gone(error))?;
        let mut exec = Exec::new(id, body, Known { last: 0, pid: None }, self.host.clock().monotonic());
        let until = self.host.clock().monotonic() + HELPER;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            let mut told = Vec::new();
            self.pump(&mut exec, &mut told)?;
            for told in told {
                match told {
                    Told::Out(text) => stdout.extend(text.into_bytes()),
                    Told::Err(text) => stderr.extend(text.into_bytes()),
                    Told::Exit(Some(code)) => return Ok(Output { status: ExitStatus::Exited(code), stdout, stderr }),
                    Told::Exit(None) | Told::Gone => return Err(self.ended()),
                }
            }
            let left = until.saturating_sub(self.host.clock().monotonic());
            if left.is_zero() {
                let message = format!("a helper's command did not end within {} s", HELPER.as_secs());
                return Err(Error::new(code::TIMEOUT, self.operation, message).subject(&self.sandbox));
            }
            self.host.http().wait(&mut [&mut exec.body], None, None, left);
        }
    }

    fn ended(&self) -> Error {
        let message = "somebody ended a command of this call's";
        Error::new(code::PROCESS, self.operation, message).subject(&self.sandbox)
    }

    /// An exec that was there is not there any more; the sandbox is.
    fn gone(&self, error: Error) -> Error {
        if error.code == code::NOT_FOUND { self.ended() } else { error }
    }

    fn create(&mut self, script: &str, interactive: bool) -> Result<String> {
        let body = json!({"command": "sh", "args": ["-c", script], "autorun": true, "interactive": interactive});
        let answer = self.once("POST", "execs", Some(&body))?;
        let id = answer.get("id").and_then(Value::as_str).filter(|id| is_id(id));
        id.map(str::to_owned).ok_or_else(|| self.wrong("execs", "id"))
    }

    /// The exec's code if it has ended, which may be unknown.
    fn status(&mut self, id: &str) -> Result<Option<Option<i32>>> {
        let answer = match self.again("GET", &format!("execs/{id}")) {
            Err(error) if error.code == code::NOT_FOUND => return Ok(Some(None)),
            answer => answer?,
        };
        let status = answer.get("status").and_then(Value::as_str).ok_or_else(|| self.wrong("execs", "status"))?;
        // The document has them in small letters, the SDK compares with large ones.
        Ok(match status.to_ascii_uppercase().as_str() {
            "RUNNING" => None,
            "EXITED" | "FINISHED" => Some(exit_code(&answer)),
            _ => Some(None),
        })
    }

    fn stream(&mut self, id: &str, last: i64) -> Result<Body> {
        Ok(self.open(&format!("execs/{id}/io?lastSequence={last}"))?.body)
    }

    fn hear(&mut self, id: &str, known: Known) -> Result<()> {
        let body = self.stream(id, known.last)?;
        let now = self.host.clock().monotonic();
        self.execs.push(Exec::new(id, body, known, now));
        Ok(())
    }

    /// Takes what the execs have said.
    pub(super) fn listen(&mut self) -> Result<()> {
        let mut execs = std::mem::take(&mut self.execs);
        let mut result = Ok(());
        for exec in &mut execs {
            let mut told = Vec::new();
            result = self.pump(exec, &mut told);
            self.events.extend(told.into_iter().map(|told| event(&exec.id, told)));
            if result.is_err() {
                break;
            }
        }
        for exec in execs.iter().filter(|exec| exec.ended) {
            self.forget(&exec.id);
        }
        execs.retain(|exec| !exec.ended);
        self.execs = execs;
        result
    }

    /// Ends an exec that still runs. The agent keeps what one said until it is told not to. Whether that works decides
    /// nothing.
    fn forget(&mut self, id: &str) {
        let was_broken = self.broken;
        if !self.hibernated {
            drop(self.again("DELETE", &format!("execs/{id}")));
        }
        self.broken = was_broken;
    }

    fn pump(&mut self, exec: &mut Exec, told: &mut Vec<Told>) -> Result<()> {
        let mut taken = 0;
        while !exec.ended && taken < PIECE {
            match exec.body.try_read(PIECE) {
                Ok(Piece::Nothing) => return Ok(()),
                Ok(Piece::Bytes(bytes)) => {
                    taken += bytes.len();
                    for event in exec.parser.push(&bytes) {
                        self.heard(exec, &event, told)?;
                    }
                }
                Ok(Piece::End) | Err(_) => self.resume(exec, told)?,
            }
        }
        Ok(())
    }

    fn heard(&self, exec: &mut Exec, event: &sse::Event, told: &mut Vec<Told>) -> Result<()> {
        let wrong = |field: &str| self.wrong("execs", field);
        let said: Value = serde_json::from_str(&event.data).map_err(|_| wrong("data"))?;
        let sequence = said.get("sequence").and_then(Value::as_i64).ok_or_else(|| wrong("sequence"))?;
        if exec.ended || sequence <= exec.last {
            return Ok(());
        }
        exec.last = sequence;
        exec.silent = 0;
        let output = said.get("output").and_then(Value::as_str).ok_or_else(|| wrong("output"))?;
        if !output.is_empty() {
            let output = output.to_owned();
            told.push(if said["type"] == "stderr" { Told::Err(output) } else { Told::Out(output) });
        }
        if let Some(code) = exit_code(&said) {
            exec.ended = true;
            told.push(Told::Exit(Some(code)));
        }
        Ok(())
    }

    /// A stream ended before its exec was said to: it is asked for again from where it was.
    fn resume(&mut self, exec: &mut Exec, told: &mut Vec<Told>) -> Result<()> {
        let now = self.host.clock().monotonic();
        if exec.silent > 0 && now.saturating_sub(exec.since) >= LIVED {
            exec.silent = 1;
        }
        if exec.silent > 0
            && let Some(code) = self.status(&exec.id)?
        {
            exec.ended = true;
            told.push(code.map_or(Told::Gone, |code| Told::Exit(Some(code))));
            return Ok(());
        }
        if exec.silent >= SILENT {
            let error = Error::new(code::NETWORK, self.operation, "the output of a command breaks off again and again");
            return Err(self.lost(error));
        }
        exec.silent += 1;
        exec.since = now;
        exec.parser = Parser::default();
        match self.stream(&exec.id, exec.last) {
            Err(error) if error.code == code::NOT_FOUND => {
                exec.ended = true;
                told.push(Told::Gone);
                Ok(())
            }
            body => body.map(|body| exec.body = body),
        }
    }
}

impl Exec {
    fn new(id: &str, body: Body, known: Known, since: Duration) -> Self {
        let parser = Parser::default();
        Self { id: id.to_owned(), body, parser, last: known.last, silent: 0, since, ended: false, pid: known.pid }
    }
}

fn event(id: &str, told: Told) -> Event {
    let shell = id.to_owned();
    match told {
        Told::Out(text) | Told::Err(text) => Event::Output { shell, text },
        Told::Exit(code) => Event::Exit { shell, code },
        Told::Gone => Event::Terminated { shell },
    }
}

fn exit_code(said: &Value) -> Option<i32> {
    said.get("exitCode").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use pcoder_sdk::http::Response;
    use pcoder_sdk::testing::FakeHost;

    use super::*;

    const SECRET: &str = "pcoder-secret-0123456789abcdef0123456789abcdef";

    fn agent(host: &FakeHost) -> Agent<'_> {
        Agent::new(host.provider(), "provider.exec", "box", "https://a.b/c", "t")
    }

    /// What the reading side prints of an input that goes on behind its end.
    fn read(shell: &str, reads: &str, text: &str) -> Vec<u8> {
        let mut process =
            Command::new(shell).args(["-c", reads]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = process.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        let output = process.wait_with_output().unwrap();
        drop(stdin);
        output.stdout
    }

    #[test]
    fn an_input_has_an_end_although_nobody_can_say_it() {
        let host = FakeHost::new();
        let agent = agent(&host);
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for shell in ["dash", "bash"] {
            for content in [&b""[..], b"\n", b"a\0\xff", &bytes] {
                let (reads, text) = agent.fed(Content::Bytes(content));
                assert_eq!(read(shell, &reads, &text), content, "{shell}");
            }
            let script = "echo 'it''s'\n\n# \u{e9}";
            let (reads, text) = agent.fed(Content::Script(script));
            assert_eq!(read(shell, &reads, &text), script.as_bytes(), "{shell}");
        }
    }

    #[test]
    fn a_value_arrives_whatever_it_holds_and_a_script_leaves_it_to_the_host() {
        let host = FakeHost::new();
        let agent = agent(&host);
        for shell in ["dash", "bash"] {
            let content = format!("\u{e9}{SECRET}{SECRET}\0\n");
            let (reads, text) = agent.fed(Content::Bytes(content.as_bytes()));
            assert!(!text.contains(SECRET));
            let filled = text.replace(&placeholder::as_base64(SECRET.as_bytes()), &STANDARD.encode("a'\"\n\\b"));
            let expected = content.replace(SECRET, "a'\"\n\\b");
            assert_eq!(read(shell, &reads, &filled), expected.as_bytes(), "{shell}");
        }
        // It refuses those that could end the quotes, which it cannot see in base64.
        let (_, text) = agent.fed(Content::Script(&format!("export A='{SECRET}'")));
        assert!(text.contains(SECRET));
    }

    #[test]
    fn what_comes_twice_counts_once_and_a_code_ends_it() {
        let host = FakeHost::new();
        let piece = |sequence: u64, text: &str| {
            format!("data: {}\n\n", json!({"type": "stdout", "output": text, "sequence": sequence}))
        };
        let end = json!({"type": "stdout", "output": "", "sequence": 3, "exitCode": 7});
        let streams = [piece(1, "a") + "data: {\"type\"", piece(1, "a") + &piece(2, "b"), format!("data: {end}\n\n")];
        let created = json!({"id": "x", "status": "RUNNING"}).to_string();
        for body in [created].into_iter().chain(streams) {
            host.respond(Ok(Response { status: 200, headers: Vec::new(), body: body.into_bytes() }));
        }
        let ran = agent(&host).helper("true").unwrap();
        assert_eq!(ran, (7, "ab".to_owned()));
        let asked: Vec<_> = host.log_of_calls().into_iter().filter(|call| call.contains("/io")).collect();
        assert!(asked[0].contains("lastSequence=0") && asked[1].contains("lastSequence=1"), "{asked:?}");
        assert!(asked[2].contains("lastSequence=2"), "{asked:?}");
    }
}
