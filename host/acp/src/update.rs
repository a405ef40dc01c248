//! What an agent tells during a turn.

use agent_client_protocol::v1::schema::{
    ContentBlock, ContentChunk, SessionNotification, SessionUpdate, ToolCall, ToolCallUpdate,
};
use serde_json::Value;

use crate::permission::PermissionRequest;

/// Something that happened in a turn.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The agent tells something.
    Update(Update),
    /// The agent asks for leave. It waits for the answer.
    Permission(PermissionRequest),
    /// The turn is over. Nothing follows.
    End(TurnEnd),
}

/// Something that the agent tells.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Update {
    /// A piece of its message.
    Text(String),
    /// A piece of its reasoning.
    Thought(String),
    /// A piece of what the user had said; comes when a session is loaded.
    UserText(String),
    /// A tool call begins.
    ToolCall(Box<ToolCall>),
    /// News of a tool call.
    ToolCallUpdate(Box<ToolCallUpdate>),
    /// How full the agent's context is, in tokens.
    Context {
        /// Used.
        used: u64,
        /// Of so many.
        size: u64,
    },
    /// The session changed to this mode.
    Mode(String),
    /// Another update of the protocol.
    Other(Box<SessionUpdate>),
    /// An update that the protocol's stable version does not have, as it came.
    Unknown(Value),
    /// So many updates were given up, because nobody read them and they were too much to keep.
    Lost(u64),
}

impl Update {
    /// Reads the parameters of `session/update`: the session's name and the update.
    pub(crate) fn parse(params: Value) -> Option<(String, Self)> {
        let session = params["sessionId"].as_str()?.to_owned();
        let update = match serde_json::from_value::<SessionNotification>(params.clone()) {
            Ok(notification) => Self::from(notification.update),
            Err(_) => Self::Unknown(params.get("update")?.clone()),
        };
        Some((session, update))
    }
}

impl From<SessionUpdate> for Update {
    fn from(update: SessionUpdate) -> Self {
        match update {
            SessionUpdate::AgentMessageChunk(ContentChunk { content: ContentBlock::Text(text), .. }) => {
                Self::Text(text.text)
            }
            SessionUpdate::AgentThoughtChunk(ContentChunk { content: ContentBlock::Text(text), .. }) => {
                Self::Thought(text.text)
            }
            SessionUpdate::UserMessageChunk(ContentChunk { content: ContentBlock::Text(text), .. }) => {
                Self::UserText(text.text)
            }
            SessionUpdate::ToolCall(call) => Self::ToolCall(Box::new(call)),
            SessionUpdate::ToolCallUpdate(update) => Self::ToolCallUpdate(Box::new(update)),
            SessionUpdate::UsageUpdate(usage) => Self::Context { used: usage.used, size: usage.size },
            SessionUpdate::CurrentModeUpdate(mode) => Self::Mode(mode.current_mode_id.to_string()),
            other => Self::Other(Box::new(other)),
        }
    }
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnEnd {
    /// Why.
    pub stop: Stop,
    /// What it took, if the agent says so.
    pub usage: Option<Usage>,
}

/// Why a turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// The agent has finished. (Codex also ends so after an error, and tells the error as text.)
    EndTurn,
    /// It was cancelled.
    Cancelled,
    /// The model's token limit was reached.
    MaxTokens,
    /// The limit of model requests in a turn was reached.
    MaxTurnRequests,
    /// The model refused.
    Refusal,
    /// A reason that the protocol did not have when this was written.
    Other(String),
}

/// Tokens that a turn took. An agent that does not count a kind leaves it at zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Read.
    pub input_tokens: u64,
    /// Written.
    pub output_tokens: u64,
    /// All of them.
    pub total_tokens: u64,
}

impl TurnEnd {
    /// Reads the result of `session/prompt`.
    pub(crate) fn parse(result: &Value) -> Result<Self, String> {
        let reason = result["stopReason"].as_str().ok_or("it has no `stopReason`")?;
        let stop = match reason {
            "end_turn" => Stop::EndTurn,
            "cancelled" => Stop::Cancelled,
            "max_tokens" => Stop::MaxTokens,
            "max_turn_requests" => Stop::MaxTurnRequests,
            "refusal" => Stop::Refusal,
            other => Stop::Other(other.to_owned()),
        };
        let count = |name: &str| result["usage"][name].as_u64().unwrap_or_default();
        let usage = result["usage"].is_object().then(|| Usage {
            input_tokens: count("inputTokens"),
            output_tokens: count("outputTokens"),
            total_tokens: count("totalTokens"),
        });
        Ok(Self { stop, usage })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(update: Value) -> Update {
        let (session, update) = Update::parse(json!({ "sessionId": "s", "update": update })).unwrap();
        assert_eq!(session, "s");
        update
    }

    #[test]
    fn updates_are_read() {
        let text = json!({ "type": "text", "text": "hi" });
        let chunk = |kind: &str| parse(json!({ "sessionUpdate": kind, "content": text }));
        assert_eq!(chunk("agent_message_chunk"), Update::Text("hi".into()));
        assert_eq!(chunk("agent_thought_chunk"), Update::Thought("hi".into()));
        assert_eq!(chunk("user_message_chunk"), Update::UserText("hi".into()));
        assert_eq!(
            parse(json!({ "sessionUpdate": "usage_update", "used": 1, "size": 2 })),
            Update::Context { used: 1, size: 2 }
        );
        assert_eq!(
            parse(json!({ "sessionUpdate": "current_mode_update", "currentModeId": "plan" })),
            Update::Mode("plan".into())
        );
        let call = parse(json!({ "sessionUpdate": "tool_call", "toolCallId": "t", "title": "x" }));
        assert!(matches!(call, Update::ToolCall(call) if call.title == "x"));
        assert!(matches!(
            parse(json!({ "sessionUpdate": "available_commands_update", "availableCommands": [] })),
            Update::Other(_)
        ));
        let new = json!({ "sessionUpdate": "invented_later", "x": 1 });
        assert_eq!(parse(new.clone()), Update::Unknown(new));
        assert_eq!(Update::parse(json!({ "update": {} })), None);
        assert_eq!(Update::parse(json!({ "sessionId": "s" })), None);
    }

    #[test]
    fn ends_are_read() {
        let end = |value| TurnEnd::parse(&value);
        assert_eq!(
            end(json!({ "stopReason": "cancelled", "usage": null })),
            Ok(TurnEnd { stop: Stop::Cancelled, usage: None })
        );
        let usage = json!({ "inputTokens": 10, "outputTokens": 5, "totalTokens": 15 });
        assert_eq!(
            end(json!({ "stopReason": "new", "usage": usage })).unwrap(),
            TurnEnd {
                stop: Stop::Other("new".into()),
                usage: Some(Usage { input_tokens: 10, output_tokens: 5, total_tokens: 15 })
            }
        );
        assert!(end(json!({})).is_err());
    }
}
