//! A session and its turns.

use std::sync::Arc;
use std::time::Duration;

use agent_client_protocol::v1::schema::SessionModeState;
use serde_json::json;

use crate::client::Link;
use crate::error::Error;
use crate::state::SessionState;
use crate::update::{Event, TurnEnd, Update};

/// A conversation with an agent. Dropping it forgets it here; the agent may keep it.
#[derive(Debug)]
pub struct Session {
    link: Arc<Link>,
    id: String,
    state: Arc<SessionState>,
    pub(crate) modes: Option<SessionModeState>,
}

impl Session {
    pub(crate) fn new(link: Arc<Link>, id: String, state: Arc<SessionState>, modes: Option<SessionModeState>) -> Self {
        Self { link, id, state, modes }
    }

    /// The name that the agent gave it; what [`Client::load_session`](crate::Client::load_session) takes.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The modes that the agent offered when the session was opened, and the one it was in then.
    #[must_use]
    pub fn modes(&self) -> Option<&SessionModeState> {
        self.modes.as_ref()
    }

    /// Changes the mode.
    ///
    /// # Errors
    /// The agent does not have it, ends, or does not answer within `limit`.
    pub async fn set_mode(&self, mode: &str, limit: Duration) -> Result<(), Error> {
        self.link.set_mode(&self.id, mode, limit).await
    }

    /// Sends a prompt. What was left unread of the turn before is given up.
    ///
    /// # Errors
    /// [`Error::Busy`] while a prompt is in flight, [`Error::Closed`] when the connection is over.
    pub fn prompt(&mut self, text: &str) -> Result<Turn<'_>, Error> {
        let operation = "session/prompt";
        if let Some(reason) = self.link.connection.reason() {
            return Err(Error::Closed { operation, reason });
        }
        self.state.begin()?;
        let params = json!({ "sessionId": self.id, "prompt": [{ "type": "text", "text": text }] });
        let state = self.state.clone();
        let connection = self.link.connection.clone();
        // The answer is taken where the updates are taken, so that it keeps its place among them.
        let sent = self.link.send(operation, &params).and_then(|sent| {
            let taken = sent.on_receiving_result(async move |result| {
                let result = result.map_err(|error| connection.error(operation, error));
                state.end(result.and_then(|answer| {
                    TurnEnd::parse(&answer).map_err(|problem| Error::BadAnswer { operation, problem })
                }));
                Ok(())
            });
            taken.map_err(|error| self.link.connection.error(operation, error))
        });
        if let Err(error) = sent {
            self.state.end(Err(error));
        }
        Ok(Turn { session: self })
    }

    /// The turn whose [`Turn`] was dropped before its end was read.
    pub fn turn(&mut self) -> Option<Turn<'_>> {
        self.state.has_turn().then_some(Turn { session: self })
    }

    /// Something that cancels this session's turns from elsewhere.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller { link: self.link.clone(), id: self.id.clone(), state: self.state.clone() }
    }

    /// What the agent told while no turn was under way: the commands it has, or the end of a tool call that it had
    /// forgotten to tell in time.
    pub fn late_updates(&mut self) -> Vec<Update> {
        self.state.take_late()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.link.connection.forget(&self.id);
    }
}

/// A prompt and what follows it. Dropping it does not cancel it: it stays in flight, and [`Session::turn`] has it.
#[derive(Debug)]
pub struct Turn<'session> {
    session: &'session mut Session,
}

impl Turn<'_> {
    /// The next event, within `limit` of now. After [`Event::End`] and after an error of the agent's the turn is over.
    ///
    /// # Errors
    /// The prompt failed, the connection is over, nothing came in time ([`Error::Deadline`]; the turn goes on), or the
    /// turn is over ([`Error::Idle`]).
    pub async fn next(&mut self, limit: Duration) -> Result<Event, Error> {
        self.session.state.next(limit).await
    }

    /// Cancels it. The end is still to be read.
    ///
    /// # Errors
    /// As [`Canceller::cancel`].
    pub fn cancel(&self) -> Result<(), Error> {
        self.session.canceller().cancel()
    }

    /// Reads until the end, at most `limit` long, and gives up everything else. Questions are answered with "cancelled".
    ///
    /// # Errors
    /// As [`Turn::next`].
    pub async fn finish(mut self, limit: Duration) -> Result<TurnEnd, Error> {
        let until = tokio::time::Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            if let Event::End(end) = self.next(left).await? {
                return Ok(end);
            }
        }
    }
}

/// Cancels a session's turns; can be kept apart from the session and sent elsewhere.
#[derive(Debug, Clone)]
pub struct Canceller {
    link: Arc<Link>,
    id: String,
    state: Arc<SessionState>,
}

impl Canceller {
    /// Asks the agent to cancel the turn, and answers its open questions with "cancelled", as the protocol demands. The
    /// turn's end comes as always.
    ///
    /// # Errors
    /// [`Error::Idle`] if no prompt is in flight, [`Error::Closed`] when the connection is over.
    pub fn cancel(&self) -> Result<(), Error> {
        let operation = "session/cancel";
        if let Some(reason) = self.link.connection.reason() {
            return Err(Error::Closed { operation, reason });
        }
        // Answered first: the agent must not take the cancel for the answer to a question that it still holds open.
        if !self.state.cancel() {
            return Err(Error::Idle);
        }
        self.link.notify(operation, &json!({ "sessionId": self.id }))
    }
}
