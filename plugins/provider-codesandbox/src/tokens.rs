//! Tokens for the ports of private sandboxes.
//!
//! The service tells a token once, when it makes it. It is kept in the plugin's state, so that a port has one address and
//! not another one each time that it is asked for.

use pcoder_sdk::host::ProviderHost;
use pcoder_sdk::{Error, Level, Result, WriteOptions, code};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::limits::time_text;
use crate::rest::Api;

/// How long a token is good, in milliseconds: a week.
const LIFE: u64 = 7 * 24 * 3600 * 1000;
/// One that is good for less is not handed out again.
const LEFT: u64 = 24 * 3600 * 1000;
const STATE: &str = "state";

/// A token as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    id: String,
    token: String,
    expires_ms: u64,
}

/// The token of one sandbox.
pub(crate) struct Tokens<'a> {
    host: ProviderHost<'a>,
    operation: &'static str,
    id: &'a str,
    path: String,
}

impl<'a> Tokens<'a> {
    /// `id` is a sandbox's identity.
    pub(crate) fn new(host: ProviderHost<'a>, operation: &'static str, id: &'a str) -> Self {
        Self { host, operation, id, path: format!("preview-tokens/{id}.json") }
    }

    /// The token that was made before, if it is still good; else a new one.
    pub(crate) fn get(&self) -> Result<String> {
        let now = self.host.clock().now_ms();
        if let Some(kept) = self.kept()
            && kept.expires_ms > now.saturating_add(LEFT)
            && self.is_known(&kept.id)?
        {
            return Ok(kept.token);
        }
        let kept = self.make(now.saturating_add(LIFE))?;
        let content = serde_json::to_vec(&kept).unwrap_or_default();
        let options = WriteOptions::plain().with_parents().with_mode(0o600);
        // Without it, the next time makes another one.
        if let Err(error) = self.host.files().write_atomic(STATE, &self.path, &content, options) {
            self.host.log().log(Level::Warn, &error.line());
        }
        Ok(kept.token)
    }

    fn kept(&self) -> Option<Kept> {
        serde_json::from_slice(&self.host.files().read(STATE, &self.path).ok()?).ok()
    }

    /// Whether nobody has revoked it.
    fn is_known(&self, token: &str) -> Result<bool> {
        let data = Api::new(self.host, self.operation).again("GET", &self.address(), None)?;
        Ok(data.list("tokens")?.iter().any(|it| it.optional("token_id") == Some(token)))
    }

    fn make(&self, expires_ms: u64) -> Result<Kept> {
        let body = json!({"expires_at": time_text(expires_ms).map_or(Value::Null, Value::from)});
        // Not tried again: each time makes one.
        let data = Api::new(self.host, self.operation).once("POST", &self.address(), Some(&body))?;
        if data.text("sandbox_id")? != self.id {
            return Err(data.wrong("sandbox_id", "names another sandbox"));
        }
        let (id, token) = (data.text("token.token_id")?.to_owned(), data.text("token.token")?.to_owned());
        if !token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
            return Err(data.wrong("token.token", "is no token"));
        }
        Ok(Kept { id, token, expires_ms })
    }

    fn address(&self) -> String {
        format!("/sandbox/{}/tokens", self.id)
    }

    /// Forgets the token of a sandbox that is gone.
    pub(crate) fn forget(&self) {
        match self.host.files().remove(STATE, &self.path, false) {
            Err(Error { code, message, .. }) if code != code::NOT_FOUND => self.host.log().log(Level::Debug, &message),
            _ => {}
        }
    }
}
