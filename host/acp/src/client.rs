//! The connection to one agent.

use std::sync::Arc;
use std::time::Duration;

use agent_client_protocol::schema::ProtocolVersion;
use agent_client_protocol::v1::schema::{
    AuthenticateRequest, Implementation, InitializeRequest, InitializeResponse, LoadSessionRequest, NewSessionRequest,
    SetSessionModeRequest,
};
use agent_client_protocol::v1::{ConnectionTo, Responder, SentRequest};
use agent_client_protocol::{Agent, JsonRpcResponse, UntypedMessage};
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::{Closed, Error};
use crate::session::Session;
use crate::state::Connection;
use crate::update::Update;
use crate::wire;

/// How a [`Client`] presents itself and how much it takes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The client's name, for the agent.
    pub name: String,
    /// The client's version, for the agent.
    pub version: String,
    /// The longest line that is accepted, in bytes. 64 MiB by default: an agent may send a file or a picture in one.
    pub max_line: usize,
    /// How much a session keeps of what nobody has read, in bytes, about. 64 MiB by default.
    pub max_queue: usize,
}

impl Options {
    /// The defaults, under this name.
    #[must_use]
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self { name: name.into(), version: version.into(), max_line: 64 << 20, max_queue: 64 << 20 }
    }
}

/// A connection to an agent.
///
/// It ends when the agent does, with [`Client::close`], or when the client and all of its sessions are dropped; the
/// agent then sees the end of its input.
#[derive(Debug)]
pub struct Client {
    link: Arc<Link>,
    agent: InitializeResponse,
    driver: JoinHandle<()>,
}

/// What the client and its sessions hold in common.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: Arc<Connection>,
    wire: ConnectionTo<Agent>,
    stop: CancellationToken,
    _stop_when_dropped: DropGuard,
}

impl Client {
    /// Connects to an agent: `reader` is its standard output, `writer` its standard input. It is initialised when this
    /// returns. Needs a Tokio runtime.
    ///
    /// # Errors
    /// The agent does not answer within `limit`, ends, or refuses.
    pub async fn connect<R, W>(reader: R, writer: W, options: Options, limit: Duration) -> Result<Self, Error>
    where
        R: AsyncRead + Send + 'static,
        W: AsyncWrite + Send + 'static,
    {
        let connection = Connection::new(options.max_queue);
        let stop = CancellationToken::new();
        let (started, starting) = oneshot::channel();
        let transport = wire::transport(reader, writer, options.max_line, connection.clone());
        let driver = tokio::spawn(drive(transport, connection.clone(), stop.clone(), started));
        let guard = stop.clone().drop_guard();
        let operation = "initialize";
        let Ok(wire) = starting.await else {
            let reason = connection.closed().await;
            return Err(Error::Closed { operation, reason });
        };
        let link = Arc::new(Link { connection, wire, stop, _stop_when_dropped: guard });
        let request =
            InitializeRequest::new(ProtocolVersion::V1).client_info(Implementation::new(options.name, options.version));
        let agent: InitializeResponse = link.call(operation, request, limit).await?;
        Ok(Self { link, agent, driver })
    }

    /// What the agent said of itself: name, capabilities, ways to log in.
    #[must_use]
    pub fn agent(&self) -> &InitializeResponse {
        &self.agent
    }

    /// Logs in by one of the agent's ways. `meta` is what that way wants to be told (`_meta`); it may hold a secret and
    /// is sent to the agent only.
    ///
    /// # Errors
    /// The agent refuses, ends, or does not answer within `limit`.
    pub async fn authenticate(&self, method: &str, meta: Map<String, Value>, limit: Duration) -> Result<(), Error> {
        let mut request = AuthenticateRequest::new(method.to_owned());
        if !meta.is_empty() {
            request = request.meta(meta);
        }
        let _: agent_client_protocol::v1::schema::AuthenticateResponse =
            self.link.call("authenticate", request, limit).await?;
        Ok(())
    }

    /// Opens a session in a folder, an absolute path on the agent's machine. See to it that the folder is there:
    /// adapters blame the engine otherwise.
    ///
    /// # Errors
    /// The agent refuses, ends, or does not answer within `limit`.
    pub async fn new_session(&self, cwd: &str, limit: Duration) -> Result<Session, Error> {
        let operation = "session/new";
        let opening = self.link.connection.opening();
        let answer: agent_client_protocol::v1::schema::NewSessionResponse =
            self.link.call(operation, NewSessionRequest::new(cwd), limit).await?;
        let id = answer.session_id.to_string();
        let state = self.link.connection.register(&id);
        drop(opening);
        let problem = || format!("session `{id}` is open already");
        let state = state.ok_or_else(|| Error::BadAnswer { operation, problem: problem() })?;
        Ok(Session::new(self.link.clone(), id, state, answer.modes))
    }

    /// Takes up a session of before, and what was said in it.
    ///
    /// # Errors
    /// It is open already ([`Error::Busy`]); the agent does not know it, refuses, ends, or does not answer within
    /// `limit`.
    pub async fn load_session(&self, id: &str, cwd: &str, limit: Duration) -> Result<(Session, Vec<Update>), Error> {
        let state = self.link.connection.register(id).ok_or(Error::Busy)?;
        // From here on, dropping the session forgets the name again.
        let mut session = Session::new(self.link.clone(), id.to_owned(), state, None);
        let request = LoadSessionRequest::new(id.to_owned(), cwd);
        let answer: agent_client_protocol::v1::schema::LoadSessionResponse =
            self.link.call("session/load", request, limit).await?;
        session.modes = answer.modes;
        let history = session.late_updates();
        Ok((session, history))
    }

    /// How many lines of the agent's output were no messages, or said nothing that could be understood.
    #[must_use]
    pub fn ignored_lines(&self) -> u64 {
        self.link.connection.ignored_lines()
    }

    /// Waits until the connection is over, and says why.
    pub async fn closed(&self) -> Closed {
        self.link.connection.closed().await
    }

    /// Ends the connection: the agent sees the end of its input. Cancel the turns first: an engine may leave a running
    /// tool behind otherwise.
    ///
    /// # Errors
    /// What was to be written is not taken by the agent within `limit`; the connection is cut then.
    pub async fn close(mut self, limit: Duration) -> Result<(), Error> {
        self.link.connection.close(Closed::Here);
        self.link.stop.cancel();
        let ended = tokio::time::timeout(limit, &mut self.driver).await;
        self.driver.abort();
        ended.map(drop).map_err(|_| Error::Deadline { operation: "close", limit })
    }
}

async fn drive(
    transport: impl agent_client_protocol::ConnectTo<agent_client_protocol::Client> + 'static,
    connection: Arc<Connection>,
    stop: CancellationToken,
    started: oneshot::Sender<ConnectionTo<Agent>>,
) {
    let notified = connection.clone();
    let asked = connection.clone();
    let ended = connection.clone();
    let result = agent_client_protocol::Client
        .v1()
        .on_receive_notification(
            async move |message: UntypedMessage, _: ConnectionTo<Agent>| {
                let (method, params) = message.into_parts();
                notified.notified(&method, params);
                Ok(())
            },
            agent_client_protocol::on_receive_notification!(),
        )
        .on_receive_request(
            async move |message: UntypedMessage, responder: Responder<Value>, _: ConnectionTo<Agent>| {
                asked.asked(message.method(), message.params(), responder)
            },
            agent_client_protocol::on_receive_request!(),
        )
        .connect_with(transport, async move |wire: ConnectionTo<Agent>| {
            // Nobody waits for it any more: the connection is of no use, and ends by the token.
            started.send(wire.clone()).unwrap_or(());
            tokio::select! {
                () = stop.cancelled() => ended.close(Closed::Here),
                () = wire.incoming_closed() => ended.close(Closed::AgentEnded),
            }
            Ok(())
        })
        .await;
    connection.close(match result {
        Ok(()) => Closed::Here,
        Err(error) => Closed::Io(error.to_string()),
    });
}

impl Link {
    /// Calls a method and waits for its answer.
    async fn call<Q>(&self, operation: &'static str, request: Q, limit: Duration) -> Result<Q::Response, Error>
    where
        Q: agent_client_protocol::JsonRpcRequest,
        Q::Response: JsonRpcResponse,
    {
        let answer = self.wire.send_request(request).block_task();
        let answered = tokio::time::timeout(limit, async {
            tokio::select! {
                biased;
                answer = answer => answer.map_err(|error| self.connection.error(operation, error)),
                reason = self.connection.closed() => Err(Error::Closed { operation, reason }),
            }
        });
        answered.await.unwrap_or(Err(Error::Deadline { operation, limit }))
    }

    pub(crate) async fn set_mode(&self, session: &str, mode: &str, limit: Duration) -> Result<(), Error> {
        let request = SetSessionModeRequest::new(session.to_owned(), mode.to_owned());
        let _: agent_client_protocol::v1::schema::SetSessionModeResponse =
            self.call("session/set_mode", request, limit).await?;
        Ok(())
    }

    /// Sends a request whose answer is read as it comes.
    pub(crate) fn send(&self, method: &'static str, params: &Value) -> Result<SentRequest<Value>, Error> {
        let message = UntypedMessage::new(method, params).map_err(|error| self.connection.error(method, error))?;
        Ok(self.wire.send_request(message))
    }

    pub(crate) fn notify(&self, method: &'static str, params: &Value) -> Result<(), Error> {
        let message = UntypedMessage::new(method, params).map_err(|error| self.connection.error(method, error))?;
        self.wire.send_notification(message).map_err(|error| self.connection.error(method, error))
    }
}
