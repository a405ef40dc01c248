//! `provider-local`'s `info` as an Extism plugin, written as its documentation shows: JSON out.

use extism_pdk::{FnResult, Json, plugin_fn};
use serde::Serialize;

/// As the contract's record.
#[derive(Serialize)]
pub struct ProviderInfo {
    name: String,
    description: String,
    features: Vec<String>,
    home_dir: Option<String>,
}

/// What the provider is and can do.
#[plugin_fn]
pub fn info() -> FnResult<Json<ProviderInfo>> {
    Ok(Json(ProviderInfo {
        name: "local".to_owned(),
        description: "This machine, without isolation".to_owned(),
        features: ["stdin", "streaming", "terminal", "files", "ports", "host-paths"].map(str::to_owned).to_vec(),
        home_dir: None,
    }))
}
