//! The newer agent, "Pint".

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use crate::cloud::Cloud;
use crate::rest;

pub(crate) async fn answer(State(_cloud): State<Arc<Cloud>>) -> Response {
    rest::nowhere()
}
