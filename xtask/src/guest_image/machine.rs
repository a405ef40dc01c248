//! One QEMU that runs, and the three lines to it: QMP on its standard streams, and the guest's two ports. The one for
//! control is a buffer that is read over QMP, or a socket.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Failure;
use crate::workspace::at;

/// Lines that come from somewhere, until it ends. A thread reads them, so that waiting has a deadline.
pub(super) struct Lines(Receiver<String>);

impl Lines {
    fn of(from: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// The next one.
    pub(super) fn next(&self, until: Instant) -> Result<String, Failure> {
        self.0.recv_timeout(until.saturating_duration_since(Instant::now())).map_err(|error| match error {
            RecvTimeoutError::Timeout => "nothing came within the time".to_owned(),
            RecvTimeoutError::Disconnected => "QEMU ended".to_owned(),
        })
    }
}

/// A place where QEMU connects a port of the guest's to.
pub(super) struct Place(TcpListener);

impl Place {
    pub(super) fn open() -> Result<Self, Failure> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|error| format!("127.0.0.1: {error}"))?;
        listener.set_nonblocking(true).map_err(|error| error.to_string())?;
        Ok(Self(listener))
    }

    /// The number to tell QEMU.
    pub(super) fn number(&self) -> Result<u16, Failure> {
        self.0.local_addr().map(|it| it.port()).map_err(|error| error.to_string())
    }

    /// The other end. QEMU is there before it says a word over QMP, so nobody waits here.
    fn taken(self) -> Result<Port, Failure> {
        let failed = |error: std::io::Error| format!("QEMU did not connect a port of the guest's: {error}");
        let (stream, _) = self.0.accept().map_err(failed)?;
        stream.set_nonblocking(false).map_err(failed)?;
        Ok(Port { lines: Lines::of(stream.try_clone().map_err(failed)?), stream })
    }
}

/// A port of the guest's.
pub(super) struct Port {
    pub(super) lines: Lines,
    stream: TcpStream,
}

impl Port {
    pub(super) fn say(&mut self, line: &str) -> Result<(), Failure> {
        self.stream.write_all(format!("{line}\n").as_bytes()).map_err(|error| format!("a port of the guest's: {error}"))
    }
}

/// What the guest's port for control leads to.
pub(super) enum Control {
    /// A buffer in QEMU, by which the guest can say something and the host cannot.
    Ring,
    /// A socket, with both ways.
    Socket(Place),
}

impl Control {
    /// The port of the socket on 127.0.0.1.
    pub(super) fn number(&self) -> Result<Option<u16>, Failure> {
        match self {
            Self::Ring => Ok(None),
            Self::Socket(place) => place.number().map(Some),
        }
    }
}

/// How often QEMU is asked for what changed. It says that the guest opened its port, but not that the guest wrote.
const PAUSE: Duration = Duration::from_millis(10);

/// A QEMU. It ends with this value.
pub(super) struct Machine {
    child: Child,
    qmp: Lines,
    control: Option<Port>,
    /// What came out of the buffer and is not a whole line yet.
    unread: String,
    pub(super) agent: Port,
}

impl Machine {
    /// Starts it, until it takes commands.
    pub(super) fn start(
        program: &str,
        arguments: &[String],
        errors: &Path,
        control: Control,
        agent: Place,
        until: Instant,
    ) -> Result<Self, Failure> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(errors).map_err(at(errors))?)
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        let qmp = Lines::of(child.stdout.take().ok_or("QEMU has no output")?);
        let taken = |control| match control {
            Control::Ring => Ok(None),
            Control::Socket(place) => place.taken().map(Some),
        };
        let greeted = qmp.next(until).and_then(|_| Ok((taken(control)?, agent.taken()?)));
        match greeted {
            Ok((control, agent)) => {
                let mut machine = Self { child, qmp, control, unread: String::new(), agent };
                machine.execute("qmp_capabilities", &json!({}), until)?;
                Ok(machine)
            }
            Err(failure) => {
                end(&mut child);
                Err(format!("{failure}; QEMU said: {}", super::log::tail(errors)))
            }
        }
    }

    /// A command of QMP's, and its answer.
    pub(super) fn execute(&mut self, command: &str, arguments: &Value, until: Instant) -> Result<Value, Failure> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        let input = self.child.stdin.as_mut().ok_or("QEMU has no input")?;
        input.write_all(line.as_bytes()).map_err(|error| format!("QMP: {error}"))?;
        loop {
            let line = self.qmp.next(until).map_err(|failure| format!("QMP's `{command}`: {failure}"))?;
            let mut answer: Value = serde_json::from_str(&line).map_err(|error| format!("QMP: {error}: {line}"))?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                return Err(format!("QMP's `{command}`: {error}"));
            }
        }
    }

    /// What the guest says next on its port for control.
    pub(super) fn told(&mut self, until: Instant) -> Result<String, Failure> {
        if let Some(port) = &self.control {
            return port.lines.next(until);
        }
        loop {
            if let Some((line, rest)) = self.unread.split_once('\n') {
                let line = line.to_owned();
                self.unread = rest.to_owned();
                return Ok(line);
            }
            let read = self.execute("ringbuf-read", &json!({ "device": "control", "size": 4096 }), until)?;
            match read.as_str().unwrap_or_default() {
                "" if Instant::now() > until => return Err("nothing came within the time".to_owned()),
                "" => thread::sleep(PAUSE),
                text => self.unread.push_str(text),
            }
        }
    }

    /// Says something to the guest on its port for control.
    pub(super) fn tell(&mut self, line: &str) -> Result<(), Failure> {
        self.control.as_mut().ok_or("a buffer cannot be written to")?.say(line)
    }

    /// Stops the guest and writes its state, without the memory that is a file already. The QEMU is of no more use.
    pub(super) fn save(&mut self, to: &Path, until: Instant) -> Result<(), Failure> {
        self.execute("stop", &json!({}), until)?;
        self.ignore_shared(until)?;
        self.execute("migrate", &json!({ "uri": format!("file:{}", to.display()) }), until)?;
        self.migrated(until)?;
        self.execute("quit", &json!({}), until)?;
        if self.ended(until)? { Ok(()) } else { Err("QEMU does not end".to_owned()) }
    }

    /// Goes on from a state that was written, in a QEMU that waits for one.
    pub(super) fn restore(&mut self, from: &Path, until: Instant) -> Result<(), Failure> {
        self.ignore_shared(until)?;
        self.execute("migrate-incoming", &json!({ "uri": format!("file:{}", from.display()) }), until)?;
        self.migrated(until)?;
        self.execute("cont", &json!({}), until).map(drop)
    }

    /// Both ends have to be told so.
    fn ignore_shared(&mut self, until: Instant) -> Result<(), Failure> {
        let capability = json!({ "capability": "x-ignore-shared", "state": true });
        self.execute("migrate-set-capabilities", &json!({ "capabilities": [capability] }), until).map(drop)
    }

    fn migrated(&mut self, until: Instant) -> Result<(), Failure> {
        loop {
            let answer = self.execute("query-migrate", &json!({}), until)?;
            match answer.get("status").and_then(Value::as_str) {
                Some("completed") => return Ok(()),
                Some("failed") => return Err(format!("the state is not moved: {answer}")),
                _ if Instant::now() > until => return Err("the state is not moved within the time".to_owned()),
                _ => thread::sleep(PAUSE),
            }
        }
    }

    /// The port on 127.0.0.1 that leads to the guest's port 22. The kernel picked it.
    pub(super) fn ssh_port(&mut self, until: Instant) -> Result<u16, Failure> {
        let answer = self.execute("human-monitor-command", &json!({ "command-line": "info usernet" }), until)?;
        let text = answer.as_str().unwrap_or_default();
        forwarded(text).ok_or_else(|| format!("QEMU forwards no port:\n{text}"))
    }

    /// Whether it ended before the time came.
    pub(super) fn ended(&mut self, until: Instant) -> Result<bool, Failure> {
        loop {
            match self.qmp.0.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Ok(false),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = self.child.wait().map_err(|error| format!("QEMU: {error}"))?;
        if status.success() { Ok(true) } else { Err(format!("QEMU failed ({status})")) }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // It may have ended.
    let _ = child.kill();
    let _ = child.wait();
}

/// The port in what the monitor says of the user network.
fn forwarded(text: &str) -> Option<u16> {
    let line = text.lines().find(|line| line.trim_start().starts_with("TCP[HOST_FORWARD]"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_the_one_on_this_machine() {
        let text = "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  \
                    TCP[HOST_FORWARD]  13       127.0.0.1 40123       10.0.2.15    22     0     0\r\n";
        assert_eq!(forwarded(text), Some(40123));
        assert_eq!(forwarded("Hub -1 (net):\r\n"), None);
    }

    #[test]
    fn lines_end_when_their_source_does() {
        let lines = Lines::of(&b"one\ntwo\n"[..]);
        let until = Instant::now() + std::time::Duration::from_secs(10);
        assert_eq!(lines.next(until), Ok("one".to_owned()));
        assert_eq!(lines.next(until), Ok("two".to_owned()));
        assert_eq!(lines.next(until), Err("QEMU ended".to_owned()));
    }
}
