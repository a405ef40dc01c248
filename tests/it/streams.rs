//! Streams for commands.

use std::io::{PipeReader, Read as _, pipe};

use pcoder_runtime::host::stdio::{Input, Output, Stdio};

/// No input, and output that goes nowhere.
pub fn nothing() -> Stdio {
    Stdio::new(Input::Null, Output::Null, Output::Null)
}

/// No input, and both outputs in one pipe.
pub fn piped() -> (Stdio, PipeReader) {
    let (reader, writer) = pipe().expect("a pipe");
    let errors = writer.try_clone().expect("a pipe");
    (Stdio::new(Input::Null, Output::Pipe(writer), Output::Pipe(errors)), reader)
}

/// All that was written, once everyone who could write is gone.
pub async fn read_to_end(mut reader: PipeReader) -> String {
    let text = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    let text = tokio::time::timeout(std::time::Duration::from_secs(20), text).await;
    text.expect("somebody still holds the pipe").expect("a thread").expect("text")
}

/// The first line.
pub async fn read_line(reader: PipeReader) -> (String, PipeReader) {
    tokio::task::spawn_blocking(move || {
        let mut reader = reader;
        let (mut line, mut byte) = (Vec::new(), [0]);
        while reader.read(&mut byte).is_ok_and(|count| count == 1) && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        (String::from_utf8_lossy(&line).into_owned(), reader)
    })
    .await
    .expect("a thread")
}
