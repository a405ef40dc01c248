//! `secrets`: placeholders. Capability `secrets`.

use crate::bindings::host::pcoder::plugin::secrets::Host;
use crate::bindings::host::pcoder::plugin::types::Error as WitError;
use crate::call::CallState;
use crate::capability::secrets::Name;

impl Host for CallState {
    async fn get(&mut self, name: String) -> Result<String, WitError> {
        let permit = self.gate.authorize(Name(name))?;
        Ok(self.context.secrets.issue(permit)?)
    }

    async fn filled_size(&mut self, content: Vec<u8>) -> u64 {
        self.context.secrets.filled_size(&content)
    }
}
