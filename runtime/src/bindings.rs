//! All generated code, in one place: the host's side of every interface in `wit/`.
//!
//! The imports are not `trappable`, so a host function has no way to trap its guest: whatever goes wrong, a denial
//! included, comes back as an `error` value. The lints are off because the code is the generator's.
#![allow(missing_docs, unreachable_pub, clippy::all)]

/// Every host interface. The worlds below take their types from here, so that one `CommandSpec` serves them all.
pub mod host {
    wasmtime::component::bindgen!({
        path: "../wit/pcoder-plugin@0.1.0",
        world: "pcoder:plugin/host",
        imports: { default: async },
        with: {
            "wasi:http": wasmtime_wasi_http::p2::bindings::http,
            "wasi": wasmtime_wasi::p2::bindings,
            "pcoder:plugin/stdio.stdio": crate::host::stdio::Stdio,
            "pcoder:plugin/websocket.connection": crate::host::websocket::WebSocket,
            "pcoder:plugin/service.conversation": crate::host::service::Talk,
        },
        additional_derives: [PartialEq],
        require_store_data_send: true,
    });
}

macro_rules! world {
    ($module:ident, $world:literal, $doc:literal, { $($with:tt)* }) => {
        #[doc = $doc]
        pub mod $module {
            wasmtime::component::bindgen!({
                path: "../wit/pcoder-plugin@0.1.0",
                world: $world,
                imports: { default: async },
                exports: { default: async },
                with: {
                    "pcoder:plugin/types": crate::bindings::host::pcoder::plugin::types,
                    "pcoder:plugin/log": crate::bindings::host::pcoder::plugin::log,
                    $($with)*
                },
                require_store_data_send: true,
            });
        }
    };
}

world!(provider, "pcoder:plugin/provider-plugin", "The world of providers.", {
    "wasi:http": wasmtime_wasi_http::p2::bindings::http,
    "wasi": wasmtime_wasi::p2::bindings,
    "pcoder:plugin/stdio": crate::bindings::host::pcoder::plugin::stdio,
    "pcoder:plugin/process": crate::bindings::host::pcoder::plugin::process,
    "pcoder:plugin/service": crate::bindings::host::pcoder::plugin::service,
    "pcoder:plugin/files": crate::bindings::host::pcoder::plugin::files,
    "pcoder:plugin/secrets": crate::bindings::host::pcoder::plugin::secrets,
    "pcoder:plugin/settings": crate::bindings::host::pcoder::plugin::settings,
    "pcoder:plugin/ssh": crate::bindings::host::pcoder::plugin::ssh,
    "pcoder:plugin/websocket": crate::bindings::host::pcoder::plugin::websocket,
});
world!(process_manager, "pcoder:plugin/process-manager-plugin", "The world of process managers.", {
    "wasi": wasmtime_wasi::p2::bindings,
    "pcoder:plugin/stdio": crate::bindings::host::pcoder::plugin::stdio,
    "pcoder:plugin/target": crate::bindings::host::pcoder::plugin::target,
    "pcoder:plugin/files": crate::bindings::host::pcoder::plugin::files,
    "pcoder:plugin/settings": crate::bindings::host::pcoder::plugin::settings,
});
world!(agent, "pcoder:plugin/agent-plugin", "The world of agents.", {});
world!(credentials, "pcoder:plugin/credentials-plugin", "The world of credentials installers.", {
    "wasi": wasmtime_wasi::p2::bindings,
    "pcoder:plugin/stdio": crate::bindings::host::pcoder::plugin::stdio,
    "pcoder:plugin/target": crate::bindings::host::pcoder::plugin::target,
    "pcoder:plugin/secrets": crate::bindings::host::pcoder::plugin::secrets,
});
