//! Steps with programs that outlive the call.

use std::time::Duration;

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::types::{ExitStatus, ServiceSpec, ServiceStatus};
use pcoder_sdk::{Error, Result};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The service's name is the first argument.
pub(crate) fn step(host: ProviderHost<'_>, verb: &str, args: &[String]) -> Result<String> {
    let arg = |index: usize| args.get(index).map_or("", String::as_str);
    let services = host.services();
    match verb {
        // NAME FOLDER PROGRAM ARGUMENTS
        "service.start" => {
            let spec = ServiceSpec {
                program: arg(2).to_owned(),
                args: args.get(3..).unwrap_or_default().to_vec(),
                folder: arg(1).to_owned(),
            };
            services.start(arg(0), &spec).map(show)
        }
        "service.status" => Ok(services.status(arg(0))?.map_or_else(|| "none".to_owned(), show)),
        "service.list" => Ok(services.list()?.into_iter().map(|it| it.name).collect::<Vec<_>>().join(" ")),
        "service.stop" => Ok(exit(services.stop(arg(0), PATIENCE)?)),
        "service.remove" => services.remove(arg(0)).map(|()| String::new()),
        "service.log-tail" => Ok(String::from_utf8_lossy(&services.log_tail(arg(0), 1000)?).into_owned()),
        // Sends the other arguments, one message each, and says what came back for each.
        "service.talk" => {
            let talk = services.talk(arg(0), PATIENCE)?;
            let mut back = Vec::new();
            for message in args.iter().skip(1) {
                talk.send(message)?;
                back.push(loop {
                    if let Some(line) = talk.try_receive()? {
                        break line;
                    }
                    talk.wait(PATIENCE);
                });
            }
            Ok(back.join(" "))
        }
        other => Err(Error::invalid("hostile", format!("no such step: {other}"))),
    }
}

fn show(status: ServiceStatus) -> String {
    format!("{} {}", status.state, exit(status.exit))
}

fn exit(exit: Option<ExitStatus>) -> String {
    match exit {
        None => "-".to_owned(),
        Some(ExitStatus::Exited(code)) => code.to_string(),
        Some(ExitStatus::Signaled(signal)) => format!("signal {signal}"),
    }
}
