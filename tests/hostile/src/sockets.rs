//! Steps over WebSockets.

use pcoder_sdk::bindings::host::wasi::clocks::monotonic_clock::subscribe_duration;
use pcoder_sdk::host::{ProviderHost, WebSocket};
use pcoder_sdk::{Error, Message, Result, Setting};

/// The address is the first argument, a header the second one.
pub(crate) fn step(host: ProviderHost<'_>, verb: &str, args: &[String]) -> Result<String> {
    let arg = |index: usize| args.get(index).map_or("", String::as_str);
    let number = |index: usize| arg(index).parse().unwrap_or(0);
    let connect = || -> Result<Box<dyn WebSocket>> {
        let headers: Vec<Setting> =
            arg(1).split_once(": ").map(|(name, value)| Setting::new(name, value)).into_iter().collect();
        host.websockets().connect(arg(0), &headers)
    };
    match verb {
        // Sends the other arguments, one message each, and says what came back for each.
        "ws" => {
            let socket = connect()?;
            let mut back = Vec::new();
            for message in args.iter().skip(2) {
                socket.send(match message.strip_prefix("binary:") {
                    Some(bytes) => Message::Binary(bytes.as_bytes().to_vec()),
                    None => Message::Text(message.clone()),
                })?;
                back.push(show(socket.receive()?));
            }
            Ok(back.join(" "))
        }
        // Drops it and then waits for ever.
        "ws.close" => {
            drop(connect()?);
            subscribe_duration(u64::MAX).block();
            Ok(String::new())
        }
        // Waits for ever, and for nothing of it.
        "ws.hold" => {
            let _socket = connect()?;
            subscribe_duration(u64::MAX).block();
            Ok(String::new())
        }
        // Sends messages of so many bytes until it may not.
        "ws.flood" => {
            let socket = connect()?;
            loop {
                socket.send(Message::Binary(vec![b'x'; number(2)]))?;
            }
        }
        // Takes messages until there are no more.
        "ws.listen" => {
            let socket = connect()?;
            let mut messages = 0_u64;
            loop {
                match socket.receive() {
                    Ok(_) => messages += 1,
                    Err(error) => {
                        // The end stays the end.
                        let again = socket.try_receive().err().map(|it| it.code);
                        let message = format!("{} after {messages}, then {again:?}", error.message);
                        return Err(Error { message, ..error });
                    }
                }
            }
        }
        // Opens so many and keeps them.
        _ => {
            let mut held = Vec::new();
            for _ in 0..number(2) {
                held.push(connect()?);
            }
            Ok(held.len().to_string())
        }
    }
}

fn show(message: Message) -> String {
    match message {
        Message::Text(text) => text,
        Message::Binary(bytes) => format!("binary:{}", String::from_utf8_lossy(&bytes)),
    }
}
