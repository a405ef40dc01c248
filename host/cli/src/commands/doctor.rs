//! `doctor`.

use std::process::ExitCode;

use pcoder_core::Pcoder;
use pcoder_core::doctor::{Report, Status};
use pcoder_core::runtime::Error;

use crate::args::Doctor;
use crate::output::{GOOD, WARN, print, print_json};

pub(crate) async fn doctor(pcoder: &Pcoder, arguments: &Doctor) -> Result<ExitCode, Error> {
    let report = pcoder.doctor(arguments.fix).await;
    if arguments.json.json {
        print_json(&report)?;
    } else {
        print(&for_people(&report))?;
    }
    Ok(ExitCode::from(match report.status {
        Status::Ok => 0,
        Status::Warning => 1,
        Status::Fail => 2,
    }))
}

fn for_people(report: &Report) -> String {
    let bad = anstyle::AnsiColor::Red.on_default().bold();
    let mut text = String::new();
    for check in &report.checks {
        let (style, word) = match check.status {
            Status::Ok => (GOOD, "ok"),
            Status::Warning => (WARN, "warn"),
            Status::Fail => (bad, "fail"),
        };
        text += &format!("{style}[{word}]{style:#} {} -> {}\n", check.id, check.measured);
        if let Some(fixed) = &check.fixed {
            text += &format!("       mended: {fixed}\n");
        }
        if check.status != Status::Ok {
            let meaning = check.meaning.iter().map(|it| format!("       {it}\n"));
            let remedy = check.remedy.iter().map(|it| format!("       mend it: {it}\n"));
            text.extend(meaning.chain(remedy));
        }
    }
    let count = |status| report.checks.iter().filter(|check| check.status == status).count();
    text + &format!(
        "\n{} checks: {} ok, {} warnings, {} failures\n",
        report.checks.len(),
        count(Status::Ok),
        count(Status::Warning),
        count(Status::Fail)
    )
}
