//! `__precompile`: the build compiles its own plugins with the program that will run them.

use std::process::ExitCode;

use pcoder_core::runtime::{Error, artifact};

use crate::args::Precompile;

pub(crate) fn precompile(arguments: &Precompile) -> Result<ExitCode, Error> {
    for component in &arguments.components {
        let shown = component.display().to_string();
        let wasm = std::fs::read(component).map_err(|error| Error::io("precompile", &shown, &error))?;
        let code = artifact::precompile(&wasm, &arguments.target).map_err(|error| error.subject(&shown))?;
        let path = component.with_extension(format!("{}.cwasm", arguments.target));
        // Left alone when nothing changed, so that the build after this one has nothing to do.
        if std::fs::read(&path).is_ok_and(|there| there == code) {
            continue;
        }
        std::fs::write(&path, code).map_err(|error| Error::io("precompile", path.display().to_string(), &error))?;
    }
    Ok(ExitCode::SUCCESS)
}
