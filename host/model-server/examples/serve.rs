//! Serves until its standard input ends or it is interrupted: `serve [PORT] [KEY]`. Prints the requests it sees.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::Duration;

use pcoder_model_server::{ModelServer, Options, environment};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut options = Options::default();
    if let Some(port) = arguments.next() {
        options.port = port.parse()?;
    }
    options.require_key = arguments.next();
    let server = ModelServer::start(options).await?;
    println!("# for Claude: {}", server.anthropic_url());
    println!("# for Codex, as config.toml:\n{}", environment::codex_config(&server.openai_url()));
    println!("# requests:");
    let mut shown = 0;
    loop {
        tokio::select! {
            stop = tokio::signal::ctrl_c() => {
                stop?;
                break;
            }
            _ = server.wait_for_requests(shown + 1, Duration::from_secs(60)) => {}
        }
        for request in server.requests().into_iter().skip(shown) {
            shown += 1;
            println!("{request:?}");
        }
    }
    server.shutdown().await;
    Ok(())
}
