//! What `wit-bindgen` makes of the contract: one module for what the host gives, one for each world's exports.
//!
//! `wit/` in this package is a copy of the contract, because a package cannot read files outside of itself.
//! `cargo xtask vendor-wit` makes it.
//!
//! Everything generated lives here and nothing else does. The four worlds share the types and the imports of
//! [`host`], so an [`crate::Error`] is the same type whichever kind of plugin it comes from.

#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "generated: lowering and lifting values is what wit-bindgen needs unsafe code for"
)]

/// The host's interfaces and the types of the contract.
pub mod host {
    wit_bindgen::generate!({
        path: "wit",
        world: "host",
        generate_all,
        additional_derives: [PartialEq, Eq],
        additional_derives_ignore: ["stream-error", "directory-entry-stream"],
    });
}

/// The world of providers.
pub mod provider {
    wit_bindgen::generate!({
        path: "wit",
        world: "provider-plugin",
        pub_export_macro: true,
        export_macro_name: "export_provider_world",
        default_bindings_module: "pcoder_sdk::bindings::provider",
        additional_derives: [PartialEq, Eq],
        with: {
            "wasi:io/error@0.2.12": crate::bindings::host::wasi::io::error,
            "wasi:io/poll@0.2.12": crate::bindings::host::wasi::io::poll,
            "wasi:io/streams@0.2.12": crate::bindings::host::wasi::io::streams,
            "wasi:clocks/monotonic-clock@0.2.12": crate::bindings::host::wasi::clocks::monotonic_clock,
            "wasi:clocks/wall-clock@0.2.12": crate::bindings::host::wasi::clocks::wall_clock,
            "wasi:random/random@0.2.12": crate::bindings::host::wasi::random::random,
            "wasi:http/types@0.2.12": crate::bindings::host::wasi::http::types,
            "wasi:http/outgoing-handler@0.2.12": crate::bindings::host::wasi::http::outgoing_handler,
            "pcoder:plugin/types@0.1.0": crate::bindings::host::pcoder::plugin::types,
            "pcoder:plugin/stdio@0.1.0": crate::bindings::host::pcoder::plugin::stdio,
            "pcoder:plugin/process@0.1.0": crate::bindings::host::pcoder::plugin::process,
            "pcoder:plugin/service@0.1.0": crate::bindings::host::pcoder::plugin::service,
            "pcoder:plugin/files@0.1.0": crate::bindings::host::pcoder::plugin::files,
            "pcoder:plugin/ssh@0.1.0": crate::bindings::host::pcoder::plugin::ssh,
            "pcoder:plugin/websocket@0.1.0": crate::bindings::host::pcoder::plugin::websocket,
            "pcoder:plugin/secrets@0.1.0": crate::bindings::host::pcoder::plugin::secrets,
            "pcoder:plugin/settings@0.1.0": crate::bindings::host::pcoder::plugin::settings,
            "pcoder:plugin/log@0.1.0": crate::bindings::host::pcoder::plugin::log,
        },
    });
}

/// The world of process managers.
pub mod process_manager {
    wit_bindgen::generate!({
        path: "wit",
        world: "process-manager-plugin",
        pub_export_macro: true,
        export_macro_name: "export_process_manager_world",
        default_bindings_module: "pcoder_sdk::bindings::process_manager",
        additional_derives: [PartialEq, Eq],
        with: {
            "wasi:io/error@0.2.12": crate::bindings::host::wasi::io::error,
            "wasi:io/poll@0.2.12": crate::bindings::host::wasi::io::poll,
            "wasi:io/streams@0.2.12": crate::bindings::host::wasi::io::streams,
            "wasi:clocks/monotonic-clock@0.2.12": crate::bindings::host::wasi::clocks::monotonic_clock,
            "wasi:clocks/wall-clock@0.2.12": crate::bindings::host::wasi::clocks::wall_clock,
            "wasi:random/random@0.2.12": crate::bindings::host::wasi::random::random,
            "pcoder:plugin/types@0.1.0": crate::bindings::host::pcoder::plugin::types,
            "pcoder:plugin/stdio@0.1.0": crate::bindings::host::pcoder::plugin::stdio,
            "pcoder:plugin/target@0.1.0": crate::bindings::host::pcoder::plugin::target,
            "pcoder:plugin/files@0.1.0": crate::bindings::host::pcoder::plugin::files,
            "pcoder:plugin/settings@0.1.0": crate::bindings::host::pcoder::plugin::settings,
            "pcoder:plugin/log@0.1.0": crate::bindings::host::pcoder::plugin::log,
        },
    });
}

/// The world of agents.
pub mod agent {
    wit_bindgen::generate!({
        path: "wit",
        world: "agent-plugin",
        pub_export_macro: true,
        export_macro_name: "export_agent_world",
        default_bindings_module: "pcoder_sdk::bindings::agent",
        additional_derives: [PartialEq, Eq],
        with: {
            "pcoder:plugin/types@0.1.0": crate::bindings::host::pcoder::plugin::types,
            "pcoder:plugin/log@0.1.0": crate::bindings::host::pcoder::plugin::log,
        },
    });
}

/// The world of credentials installers.
pub mod credentials {
    wit_bindgen::generate!({
        path: "wit",
        world: "credentials-plugin",
        pub_export_macro: true,
        export_macro_name: "export_credentials_world",
        default_bindings_module: "pcoder_sdk::bindings::credentials",
        additional_derives: [PartialEq, Eq],
        with: {
            "wasi:io/error@0.2.12": crate::bindings::host::wasi::io::error,
            "wasi:io/poll@0.2.12": crate::bindings::host::wasi::io::poll,
            "wasi:io/streams@0.2.12": crate::bindings::host::wasi::io::streams,
            "wasi:clocks/monotonic-clock@0.2.12": crate::bindings::host::wasi::clocks::monotonic_clock,
            "wasi:clocks/wall-clock@0.2.12": crate::bindings::host::wasi::clocks::wall_clock,
            "wasi:random/random@0.2.12": crate::bindings::host::wasi::random::random,
            "pcoder:plugin/types@0.1.0": crate::bindings::host::pcoder::plugin::types,
            "pcoder:plugin/stdio@0.1.0": crate::bindings::host::pcoder::plugin::stdio,
            "pcoder:plugin/target@0.1.0": crate::bindings::host::pcoder::plugin::target,
            "pcoder:plugin/secrets@0.1.0": crate::bindings::host::pcoder::plugin::secrets,
            "pcoder:plugin/log@0.1.0": crate::bindings::host::pcoder::plugin::log,
        },
    });
}
