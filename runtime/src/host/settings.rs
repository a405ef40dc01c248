//! `settings`: what the plugin's user set for it. It needs no grant: the plugin asked for each by name.

use crate::bindings::host::pcoder::plugin::settings::Host;
use crate::call::CallState;

impl Host for CallState {
    async fn get(&mut self, name: String) -> Option<String> {
        self.settings.get(&name).cloned()
    }
}
