//! Where a plugin's bytes come from: a file, or an address.

use std::path::Path;
use std::sync::Arc;

use pcoder_engines::Progress;
use pcoder_runtime::Error;
use pcoder_runtime::inspect::LARGEST;
use tokio_util::sync::CancellationToken;

use crate::Pcoder;
use crate::errors::from_engines;

const OPERATION: &str = "plugin.add";

/// Bytes, and where they came from as `plugins.lock` says it: without a folder, because a portable one moves, and
/// without a query, because it may hold a token.
pub(super) struct Fetched {
    pub(super) wasm: Vec<u8>,
    pub(super) source: String,
}

impl Pcoder {
    /// Reads a file, or fetches an address over the network that engines come over.
    pub(super) async fn fetch_component(
        &self,
        source: &str,
        progress: &dyn Progress,
        cancel: CancellationToken,
    ) -> Result<Fetched, Error> {
        if source.contains("://") {
            let network = self.network(None)?;
            let agent = concat!("pcoder/", env!("CARGO_PKG_VERSION"));
            let wasm = pcoder_engines::fetch(Arc::new(network), source, LARGEST as u64, agent, progress, cancel).await;
            let wasm = wasm.map_err(|error| {
                let error = from_engines(&error);
                let hint = error.hint.clone().unwrap_or_default();
                let subject = error.subject.clone().unwrap_or_default();
                Error::new(error.code.clone(), OPERATION, error.message.clone()).subject(subject).hint(hint)
            })?;
            let plain = source.split(['?', '#']).next().unwrap_or_default().to_owned();
            return Ok(Fetched { wasm, source: plain });
        }
        let path = self.surroundings().cwd.join(source);
        let shown = pcoder_runtime::text::for_people(&path.display().to_string(), 400);
        let failed = |error: std::io::Error| {
            Error::io(OPERATION, &shown, &error).hint("give a component's file, or its `https://` address")
        };
        let size = std::fs::metadata(&path).map_err(failed)?;
        if !size.is_file() {
            return Err(failed(std::io::Error::other("it is not a file")));
        }
        if size.len() > LARGEST as u64 {
            return Err(failed(std::io::Error::other(format!("it is larger than {} MiB", LARGEST >> 20))));
        }
        let wasm = std::fs::read(&path).map_err(failed)?;
        let name = Path::new(source).file_name().unwrap_or_default().to_string_lossy();
        Ok(Fetched { wasm, source: pcoder_runtime::text::for_people(&name, 200) })
    }
}
