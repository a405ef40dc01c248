//! Sessions: an agent that speaks the Agent Client Protocol, over any provider's `exec`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pcoder_acp::{Client, Options};
use pcoder_runtime::Error;
use pcoder_runtime::error::code;
use pcoder_runtime::host::stdio::{Input, Output, Stdio, pipe_reader, pipe_writer};
use pcoder_runtime::process::Signal;
use pcoder_runtime::text::ended;
use tokio::io::AsyncReadExt as _;

use crate::Prepared;
use crate::capture::pipe;

/// How long an agent may take to start and to say who it is.
pub const START: Duration = Duration::from_secs(60);
/// How long an agent may take to end after its input has ended. The Codex adapter takes two seconds.
const END: Duration = Duration::from_secs(10);
/// What is kept of what an agent writes to standard error, for the error that says why it ended.
const LAST_WORDS: usize = 4096;

/// Starts a tool as an ACP agent, lets `work` talk with it, and ends it.
///
/// # Errors
/// Those of `work`; the agent's last words when it ended by itself.
pub async fn with_agent<T>(
    prepared: &Prepared<'_>,
    work: impl AsyncFnOnce(&Client) -> Result<T, Error>,
) -> Result<T, Error> {
    let (stdin, input) = pipe()?;
    let (output, stdout) = pipe()?;
    let (errors, stderr) = pipe()?;
    let stdio = Stdio::new(Input::Pipe(stdin), Output::Pipe(stdout), Output::Pipe(stderr));
    let control = prepared.control();
    let last_words = Arc::new(Mutex::new(Vec::new()));
    let listener = listen(pipe_reader(errors)?, Arc::clone(&last_words));
    let (reader, writer) = (pipe_reader(output)?, pipe_writer(input)?);
    let talk = async {
        let options = Options::new("pcoder", env!("CARGO_PKG_VERSION"));
        let client = Client::connect(reader, writer, options, START).await.map_err(|error| from_acp(&error))?;
        let result = work(&client).await;
        // Ends the agent's input, which is how it is told that nobody will ask again.
        drop(client.close(END).await);
        result
    };
    let run = prepared.run_acp(stdio, &control);
    tokio::pin!(run);
    let result = tokio::select! {
        result = talk => {
            // It was told to end; one that does not is ended.
            if tokio::time::timeout(END, &mut run).await.is_err() {
                control.signal(Signal::Terminate);
                control.cancel();
                drop(run.await);
            }
            result
        }
        run_ended = &mut run => match run_ended {
            Err(error) => Err(error),
            Ok(status) => {
                let message = format!("the agent ended by itself ({})", ended(&status));
                Err(Error::new(code::PROCESS, "acp", message))
            }
        },
    };
    listener.abort();
    result.map_err(|error| {
        let words = last_words.lock().unwrap_or_else(PoisonError::into_inner);
        let words = String::from_utf8_lossy(&words);
        match words.trim() {
            "" => error,
            words => Error::new(error.code.clone(), error.operation.clone(), error.message.clone())
                .subject(error.subject.clone().unwrap_or_default())
                .hint(format!("it had said: {}", pcoder_runtime::text::for_people(words, 1000))),
        }
    })
}

fn listen(
    mut errors: impl tokio::io::AsyncRead + Send + Unpin + 'static,
    kept: Arc<Mutex<Vec<u8>>>,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut buffer = [0_u8; 1024];
        while let Ok(count @ 1..) = errors.read(&mut buffer).await {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(&buffer[..count]);
            let excess = kept.len().saturating_sub(LAST_WORDS);
            kept.drain(..excess);
        }
    })
}

/// An error of the protocol, in the one shape.
pub fn from_acp(error: &pcoder_acp::Error) -> Error {
    if error.is_auth_required() {
        return Error::new(code::UNAUTHENTICATED, "acp", error.to_string()).hint("log the agent in, or give it a key");
    }
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        message = format!("{message}: {inner}");
        cause = inner.source();
    }
    Error::new(code::PROCESS, "acp", message)
}
