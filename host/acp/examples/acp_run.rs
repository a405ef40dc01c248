//! Starts an ACP agent and talks to it: `acp_run CWD PROMPT... -- PROGRAM ARGS...`.
//!
//! Every prompt is a turn of one session; a first one of the form `load:ID` takes up the session of that name. Questions are answered with "allow once". A prompt that begins with `!` is
//! cancelled at its first question or its first text.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::error::Error;
use std::process::Stdio;
use std::time::Duration;

use pcoder_acp::schema::PermissionOptionKind;
use pcoder_acp::{Client, Event, Options, Update};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let dashes = arguments.iter().position(|argument| argument == "--").ok_or("no `--`")?;
    let (mine, program) = (&arguments[..dashes], &arguments[dashes + 1..]);
    let mut child = tokio::process::Command::new(&program[0])
        .args(&program[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let client = Client::connect(output, input, Options::new("acp_run", "0"), LIMIT).await?;
    println!("agent: {:?}", client.agent().agent_info);
    let mut prompts = &mine[1..];
    let loaded = prompts.first().and_then(|prompt| prompt.strip_prefix("load:"));
    let mut session = if let Some(id) = loaded {
        prompts = &prompts[1..];
        let (session, history) = client.load_session(id, &mine[0], LIMIT).await?;
        for update in history {
            println!("before: {update:?}");
        }
        session
    } else {
        client.new_session(&mine[0], LIMIT).await?
    };
    println!("session: {}", session.id());
    println!("modes: {:?}", session.modes().map(|modes| &modes.current_mode_id));
    for prompt in prompts {
        let cancelled = prompt.strip_prefix('!');
        let canceller = session.canceller();
        let mut turn = session.prompt(&cancelled.unwrap_or(prompt).replace("\\n", "\n"))?;
        println!("> {prompt}");
        loop {
            match turn.next(LIMIT).await? {
                Event::Permission(request) => {
                    let kinds: Vec<_> = request.options().iter().map(|o| (o.kind, o.option_id.to_string())).collect();
                    println!("asked: {:?} {kinds:?}", request.tool_call().fields.title);
                    if cancelled.is_some() {
                        canceller.cancel()?;
                        println!("cancelled: {:?}", request.choose(PermissionOptionKind::AllowOnce).is_err());
                    } else {
                        request.choose(PermissionOptionKind::AllowOnce)?;
                    }
                }
                Event::End(end) => {
                    println!("end: {end:?}");
                    break;
                }
                event => {
                    println!("{event:?}");
                    if cancelled.is_some() && matches!(event, Event::Update(Update::Text(_))) {
                        canceller.cancel()?;
                    }
                }
            }
        }
    }
    println!("late: {:?}", session.late_updates());
    println!("ignored lines: {}", client.ignored_lines());
    let started = std::time::Instant::now();
    drop(session);
    client.close(LIMIT).await?;
    println!("exit: {:?} after {:?}", child.wait().await?, started.elapsed());
    Ok(())
}
