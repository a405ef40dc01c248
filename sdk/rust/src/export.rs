//! Making a component out of a type.

/// Exports a type as the plugin of its crate and embeds the crate's `plugin.toml`.
///
/// ```text
/// pcoder_sdk::export!(provider: MyProvider);
/// pcoder_sdk::export!(process_manager: MyManager);
/// pcoder_sdk::export!(agent: MyAgent);
/// pcoder_sdk::export!(credentials: MyInstaller);
/// ```
///
/// Write it once in a crate, at the top of `lib.rs`. Outside of WebAssembly it only checks that the type fits and that
/// `plugin.toml` is there, so that the crate's tests run natively.
#[macro_export]
macro_rules! export {
    (provider: $plugin:ty) => {
        $crate::__export!(Provider, $plugin, ProviderExport, provider, export_provider_world);
    };
    (process_manager: $plugin:ty) => {
        $crate::__export!(ProcessManager, $plugin, ProcessManagerExport, process_manager, export_process_manager_world);
    };
    (agent: $plugin:ty) => {
        $crate::__export!(Agent, $plugin, AgentExport, agent, export_agent_world);
    };
    (credentials: $plugin:ty) => {
        $crate::__export!(Credentials, $plugin, CredentialsExport, credentials, export_credentials_world);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($trait:ident, $plugin:ty, $adapter:ident, $module:ident, $export:ident) => {
        const _: () = {
            const fn fits<T: $crate::$trait>() {}
            fits::<$plugin>();
        };

        /// The crate's `plugin.toml`. `cargo xtask plugins` lifts it out of the module into the component.
        #[allow(unsafe_code, reason = "a section name is all that is unsafe about it")]
        #[cfg_attr(target_arch = "wasm32", unsafe(link_section = "pcoder:manifest"))]
        #[used]
        static PCODER_MANIFEST: [u8; include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/plugin.toml")).len()] =
            *include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/plugin.toml"));

        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the contract's entry points are made by wit-bindgen")]
        const _: () = {
            type Exported = $crate::$adapter<$plugin>;
    $crate::bindings::$module::$export!(Exported with_types_in $crate::bindings::$module);
        };
    };
}

/// What every entry point does first: a panic would be a bare trap, so its message goes to the log before.
pub(crate) fn begin() {
    #[cfg(target_arch = "wasm32")]
    std::panic::set_hook(Box::new(|info| {
        crate::bindings::host::pcoder::plugin::log::log(crate::types::Level::Error, &info.to_string());
    }));
}
