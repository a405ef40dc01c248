//! `doctor`.

use std::process::ExitCode;

use pcoder_core::Pcoder;
use pcoder_core::doctor::Status;
use pcoder_core::runtime::Error;

use crate::args::Json;
use crate::output::{GOOD, WARN, print, print_json};

pub(crate) async fn doctor(pcoder: &Pcoder, arguments: &Json) -> Result<ExitCode, Error> {
    let report = pcoder.doctor().await;
    if arguments.json {
        print_json(&report)?;
    } else {
        let bad = anstyle::AnsiColor::Red.on_default().bold();
        let mut text = String::new();
        for check in &report.checks {
            let (style, word) = match check.status {
                Status::Ok => (GOOD, "ok"),
                Status::Warning => (WARN, "warn"),
                Status::Fail => (bad, "fail"),
            };
            text += &format!("{style}[{word}]{style:#} {} -> {}\n", check.id, check.measured);
            if let Some(remedy) = &check.remedy {
                text += &format!("       mend it: {remedy}\n");
            }
        }
        let count = |status| report.checks.iter().filter(|check| check.status == status).count();
        text += &format!(
            "\n{} checks: {} ok, {} warnings, {} failures\n",
            report.checks.len(),
            count(Status::Ok),
            count(Status::Warning),
            count(Status::Fail)
        );
        print(&text)?;
    }
    Ok(ExitCode::from(match report.status {
        Status::Ok => 0,
        Status::Warning => 1,
        Status::Fail => 2,
    }))
}
