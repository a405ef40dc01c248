//! A terminal over SSH stays a terminal, and is given back.

use std::io::{Read as _, Write as _};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use portable_pty::{CommandBuilder, PtySize, native_pty_system};

use crate::sshd::{Server, key};

/// What is on the screen so far, until it holds this.
fn wait_for(screen: &mut String, bytes: &Receiver<Vec<u8>>, text: &str) {
    while !screen.contains(text) {
        let more = bytes.recv_timeout(Duration::from_secs(20));
        let more = more.unwrap_or_else(|_| panic!("waited in vain for {text:?}; the screen: {screen:?}"));
        screen.push_str(&String::from_utf8_lossy(&more));
    }
}

#[test]
fn a_terminal_has_its_size_its_resizes_and_its_keys_and_is_given_back() {
    let server = Server::start();
    let size = |rows, cols| PtySize { rows, cols, pixel_width: 0, pixel_height: 0 };
    let pair = native_pty_system().openpty(size(33, 77)).expect("a pseudo-terminal");
    // A signal that comes before `wait` ends it too: the trap ends what is waited for.
    let script = "echo \"on $TERM\"; stty size; sleep 1000 & s=$!; trap 'stty size; kill $s' WINCH; \
                  echo ready; wait $s; read line; echo \"got $line\"; exit 5";
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_over-ssh"));
    command.arg(server.url());
    command.args(server.endpoint(&key("user")));
    command.arg(script);
    let mut child = pair.slave.spawn_command(command).expect("it starts");
    drop(pair.slave);
    let mut writer = pair.master.take_writer().expect("a writer");
    let mut reader = pair.master.try_clone_reader().expect("a reader");
    let (sender, bytes) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = reader.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut screen = String::new();
    wait_for(&mut screen, &bytes, "ready");
    assert!(screen.contains("on xterm-256color") && screen.contains("33 77"), "{screen:?}");
    pair.master.resize(size(40, 100)).expect("another size");
    wait_for(&mut screen, &bytes, "40 100");
    writer.write_all(b"hello\n").expect("keys");
    wait_for(&mut screen, &bytes, "got hello");
    wait_for(&mut screen, &bytes, "ended Ok(ExitStatus::Exited(5))");
    // The next line is for whoever comes next: no read is left over that takes it.
    writer.write_all(b"mine\n").expect("keys");
    wait_for(&mut screen, &bytes, "then mine");
    assert!(child.wait().expect("it ends").success());
}
