//! What can go wrong between this client and an agent.

use std::time::Duration;

use serde_json::Value;

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// The agent closed its output: it has ended, or is about to.
    #[error("the agent ended")]
    AgentEnded,
    /// The agent sent a line that is longer than this client accepts.
    #[error("the agent sent a line of more than {limit} bytes")]
    LineTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// Reading from the agent or writing to it failed.
    #[error("the connection to the agent failed: {0}")]
    Io(String),
    /// This side closed it.
    #[error("the connection was closed")]
    Here,
}

/// An agent's error answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentError {
    /// The JSON-RPC code.
    pub code: i32,
    /// The message.
    pub message: String,
    /// Whatever came with it.
    pub data: Option<Value>,
}

impl AgentError {
    /// JSON-RPC's code for a method that the agent does not have.
    pub const METHOD_NOT_FOUND: i32 = -32601;
    /// ACP's code for "log in first".
    pub const AUTH_REQUIRED: i32 = -32000;
    /// ACP's code for a session (or a file) that is not there.
    pub const NOT_FOUND: i32 = -32002;

    /// The sentence that names the cause. Adapters put it beside the message ("Internal error"), in `data`.
    #[must_use]
    pub fn details(&self) -> Option<&str> {
        let data = self.data.as_ref()?;
        data.as_str().or_else(|| {
            let named = |name: &str| data.get(name).and_then(Value::as_str);
            named("details").or_else(|| named("message"))
        })
    }
}

impl std::fmt::Display for AgentError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.details() {
            Some(details) if !self.message.contains(details) => {
                write!(f, "{}: {details} (code {})", self.message, self.code)
            }
            _ => write!(f, "{} (code {})", self.message, self.code),
        }
    }
}

impl std::error::Error for AgentError {}

/// An operation on an agent failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The agent answered with an error.
    #[error("`{operation}` was refused by the agent")]
    Agent {
        /// The protocol's method.
        operation: &'static str,
        /// The agent's words.
        #[source]
        source: AgentError,
    },
    /// The agent answered with something that the protocol does not allow there.
    #[error("the agent's answer to `{operation}` is not what the protocol says: {problem}")]
    BadAnswer {
        /// The protocol's method.
        operation: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The connection is over.
    #[error("`{operation}` has no answer")]
    Closed {
        /// The protocol's method.
        operation: &'static str,
        /// Why.
        #[source]
        reason: Closed,
    },
    /// Nothing came within the caller's time.
    #[error("`{operation}` was not answered within {limit:?}")]
    Deadline {
        /// The protocol's method.
        operation: &'static str,
        /// The time.
        limit: Duration,
    },
    /// The session has a prompt in flight, and adapters disagree about what a second one means.
    #[error("the session is busy with a prompt")]
    Busy,
    /// No prompt is in flight.
    #[error("the session has no prompt in flight")]
    Idle,
    /// The agent offers no option of the kind that was chosen.
    #[error("the agent offers no such answer to its question")]
    NoSuchOption,
    /// The question was answered before, or its turn is over.
    #[error("the question is not open any more")]
    NotOpen,
}

impl Error {
    /// Whether the agent wants a login first.
    #[must_use]
    pub fn is_auth_required(&self) -> bool {
        matches!(self, Self::Agent { source, .. } if source.code == AgentError::AUTH_REQUIRED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn details_are_found_where_adapters_put_them() {
        let error = |data| AgentError { code: -32603, message: "Internal error".into(), data };
        for (data, shown) in [
            (None, "Internal error (code -32603)"),
            (Some(json!({ "details": "no rollout" })), "Internal error: no rollout (code -32603)"),
            (Some(json!("bad")), "Internal error: bad (code -32603)"),
            (Some(json!({ "details": "error" })), "Internal error (code -32603)"),
            (Some(json!([1])), "Internal error (code -32603)"),
        ] {
            assert_eq!(error(data).to_string(), shown);
        }
    }
}
