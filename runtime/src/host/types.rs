//! `types` has no functions.

impl crate::bindings::host::pcoder::plugin::types::Host for crate::call::CallState {}
