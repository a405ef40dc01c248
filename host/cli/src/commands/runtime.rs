//! `runtime probe`.

use std::process::ExitCode;

use pcoder_core::Pcoder;
use pcoder_core::runtime::Error;

use crate::args::Runtime;
use crate::output::{print, print_json, table};

pub(crate) async fn runtime(pcoder: &Pcoder, arguments: &Runtime) -> Result<ExitCode, Error> {
    let Runtime::Probe(arguments) = arguments;
    let probe = pcoder.probe().await;
    if arguments.json {
        print_json(&probe)?;
    } else {
        let rows = probe.facts.iter().map(|fact| {
            let meaning = fact.meaning.as_ref().map_or_else(String::new, |meaning| format!("; {meaning}"));
            vec![fact.id.clone(), format!("{}{meaning}", fact.measured)]
        });
        let facts = table(&["fact", "what was found"], rows);
        // The last line is for scripts that read no JSON.
        print(&format!("{facts}\n{}\nrecommended_backend={}\n", probe.reason, probe.recommended_backend))?;
    }
    Ok(ExitCode::SUCCESS)
}
