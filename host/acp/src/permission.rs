//! The agent's questions.

use std::sync::Weak;

use agent_client_protocol::v1::schema::{PermissionOption, PermissionOptionKind, ToolCallUpdate};
use serde_json::{Value, json};

use crate::error::Error;
use crate::state::SessionState;

/// An agent asks whether it may do something, and waits for the answer.
///
/// Adapters name their options as they like, so an answer is chosen by its *kind*. Dropping the request answers that it
/// was cancelled.
#[derive(Debug)]
pub struct PermissionRequest {
    tool_call: Box<ToolCallUpdate>,
    options: Vec<PermissionOption>,
    key: u64,
    session: Weak<SessionState>,
}

impl PermissionRequest {
    /// Reads the parameters of `session/request_permission`. Options of kinds that this client does not know are left
    /// out: it could not choose them.
    pub(crate) fn parse(params: &Value) -> Option<(String, ToolCallUpdate, Vec<PermissionOption>)> {
        let session = params["sessionId"].as_str()?.to_owned();
        let tool_call = serde_json::from_value(params["toolCall"].clone()).ok()?;
        let options = params["options"].as_array()?.iter();
        let options = options.filter_map(|option| serde_json::from_value(option.clone()).ok());
        Some((session, tool_call, options.collect()))
    }

    pub(crate) fn new(
        tool_call: ToolCallUpdate,
        options: Vec<PermissionOption>,
        key: u64,
        session: Weak<SessionState>,
    ) -> Self {
        Self { tool_call: Box::new(tool_call), options, key, session }
    }

    /// What it wants to do.
    #[must_use]
    pub fn tool_call(&self) -> &ToolCallUpdate {
        &self.tool_call
    }

    /// The answers on offer.
    #[must_use]
    pub fn options(&self) -> &[PermissionOption] {
        &self.options
    }

    /// Whether an answer of this kind is on offer.
    #[must_use]
    pub fn offers(&self, kind: PermissionOptionKind) -> bool {
        self.find(kind).is_some()
    }

    /// Gives the first answer of this kind.
    ///
    /// # Errors
    /// [`Error::NoSuchOption`]: no such answer is on offer, and the question is still open. [`Error::NotOpen`]: it was
    /// answered before, or its turn was cancelled or has ended.
    pub fn choose(&self, kind: PermissionOptionKind) -> Result<(), Error> {
        let option = self.find(kind).ok_or(Error::NoSuchOption)?;
        let outcome = json!({ "outcome": "selected", "optionId": option.option_id });
        let session = self.session.upgrade().ok_or(Error::NotOpen)?;
        session.answer(self.key, &outcome)
    }

    /// Answers that the question was cancelled. What the agent does then differs: Codex ends the turn, Claude takes it
    /// for a refusal.
    pub fn cancel(self) {
        drop(self);
    }

    fn find(&self, kind: PermissionOptionKind) -> Option<&PermissionOption> {
        self.options.iter().find(|option| option.kind == kind)
    }
}

impl Drop for PermissionRequest {
    fn drop(&mut self) {
        if let Some(session) = self.session.upgrade() {
            // Answered already, or not open any more: nothing is left to say.
            session.answer(self.key, &cancelled()).unwrap_or(());
        }
    }
}

/// The outcome for a question that nobody will answer.
pub(crate) fn cancelled() -> Value {
    json!({ "outcome": "cancelled" })
}
